package codebuild

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Users of builds are chosen among so many ids that nobody guesses one; where a machine
	// maps only 65,536, among those above what is in use.
	firstUID, lastUID           = 1 << 20, 1<<21 - 1
	firstSmallUID, lastSmallUID = 62000, 64999

	killPatience = 10 * time.Second
	tick         = 20 * time.Millisecond
)

// place is where a build runs: a folder and a user that nothing else has.
type place struct {
	host   *Host
	folder string
	uid    int // also the group; 0: our own
}

// newPlace makes one. What is in its folder belongs to the build, the folder itself does not.
func (h *Host) newPlace(uuid string) (*place, error) {
	p := &place{host: h, folder: filepath.Join(h.deps.Dir, uuid)}
	if err := os.Mkdir(p.folder, 0o700); err != nil {
		return nil, fmt.Errorf("make a build's folder: %w", err)
	}
	var err error
	if os.Geteuid() == 0 {
		if p.uid, err = h.takeUID(); err != nil {
			return p, err
		}
		if err = errors.Join(os.Lchown(p.folder, 0, p.uid), os.Chmod(p.folder, 0o710)); err != nil {
			return p, fmt.Errorf("give away a build's folder: %w", err)
		}
	}
	for _, dir := range []string{p.source(), p.home(), filepath.Dir(p.state())} {
		if err = os.Mkdir(dir, 0o700); err == nil && p.uid != 0 {
			err = os.Lchown(dir, p.uid, p.uid)
		}
		if err != nil {
			return p, fmt.Errorf("make a build's folders: %w", err)
		}
	}
	return p, nil
}

func (p *place) source() string { return filepath.Join(p.folder, "src") }
func (p *place) home() string   { return filepath.Join(p.folder, "home") }
func (p *place) state() string  { return filepath.Join(p.folder, "state", "env") }

// attributes make a process the first of a group of its own, with the build's user.
func (p *place) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if p.uid != 0 {
		a.Credential = &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.uid)}
	}
	return a
}

// endGroup asks a process group to end, and kills it after the grace; at once where that is negative. ended says that its
// first process did, which is waited for.
func (p *place) endGroup(group int, grace time.Duration, ended <-chan error) {
	if grace < 0 {
		_ = syscall.Kill(-group, syscall.SIGKILL)
		<-ended
		return
	}
	_ = syscall.Kill(-group, syscall.SIGTERM)
	over := time.After(grace)
	again := time.NewTicker(tick)
	defer again.Stop()
	gone := false
	for !gone || alive(group) {
		select {
		case <-ended:
			gone = true
		case <-again.C:
		case <-over:
			_ = syscall.Kill(-group, syscall.SIGKILL)
			if !gone {
				<-ended
			}
			return
		}
	}
}

// clear kills what is left of a build and removes its files.
func (p *place) clear() error {
	err := p.killRest()
	if p.uid != 0 {
		err = errors.Join(err, clearTemp(p.uid))
	}
	err = errors.Join(err, removeTree(p.folder))
	if err == nil { // otherwise no other build gets the id
		p.host.giveUID(p.uid)
	}
	return err
}

// killRest kills every process of the build and waits until none is left.
func (p *place) killRest() error {
	for until := time.Now().Add(killPatience); ; time.Sleep(tick) {
		if p.uid != 0 {
			// One call of the kernel for all of the user's processes: none can fork past it. As root it would end
			// the whole machine, so the shell looks who it is first.
			cmd := exec.Command("/bin/sh", "-c", `test "$(id -u)" -eq "$0" && kill -KILL -1`, strconv.Itoa(p.uid))
			cmd.Env, cmd.SysProcAttr = []string{}, p.attributes()
			_ = cmd.Run() // fails when there is none
		}
		rest := remaining(p)
		if len(rest) == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("processes %v do not die", rest)
		}
		for _, pid := range rest {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// takeUID chooses a user that nobody has and nothing runs as.
func (h *Host) takeUID() (int, error) {
	first, last := firstUID, lastUID
	if !mapped(last) {
		first, last = firstSmallUID, lastSmallUID
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(last-first+1)))
		if err != nil {
			return 0, err
		}
		uid := first + int(n.Int64())
		if _, err := user.LookupId(strconv.Itoa(uid)); err == nil || h.uids[uid] || len(remaining(&place{uid: uid})) > 0 {
			continue
		}
		h.uids[uid] = true
		return uid, nil
	}
	return 0, errors.New("no user id is free for a build")
}

func (h *Host) giveUID(uid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.uids, uid)
}

// clearTemp removes what a user left in the folders everybody may write to.
func clearTemp(uid int) error {
	var errs []error
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			var st unix.Stat_t
			if unix.Lstat(path, &st) == nil && int(st.Uid) == uid {
				errs = append(errs, os.RemoveAll(path))
			}
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a folder with read-only folders in it.
func removeTree(dir string) error {
	if os.Geteuid() != 0 {
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
	}
	return os.RemoveAll(dir)
}

// readState reads what a command left for the next one. The build can put anything there: no link is
// followed, no pipe waited for, and nobody else's file taken.
func readState(path string, uid int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer func() { _ = file.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || (uid != 0 && int(st.Uid) != uid) || st.Size > maxState {
		return nil, errors.New("a command left something else than its environment")
	}
	return io.ReadAll(io.LimitReader(file, maxState))
}

// exitCode is what a shell would call it: 128 + n for a process that signal n ended.
func exitCode(err *exec.ExitError) int {
	if status, ok := err.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return err.ExitCode()
}
