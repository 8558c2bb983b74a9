//go:build unix

package process

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runnerhub/shared/fault"
)

const (
	// holdPatience is how long a user id that an attempt of ours has is asked for.
	holdPatience = 2 * time.Second
	// usersDir has a file for each user id of builds, which the server locks that uses
	// it. It is one for the whole machine, and root's alone.
	usersDir = "/run/runnerhub"
)

// installProgram copies the agent into the folder bin, where a build's user can execute it,
// and not read it: a program its user cannot read has its memory and environment closed to
// that user's other processes from the first instruction on.
func installProgram(bin string, program []string) ([]string, error) {
	source, err := os.Open(program[0])
	if err != nil {
		return nil, fmt.Errorf("open agent program: %w", err)
	}
	defer func() { _ = source.Close() }()
	// Never whole in memory: the heap of the server would keep that size for minutes.
	sum := sha256.New()
	size, err := io.Copy(sum, source)
	if err != nil {
		return nil, fmt.Errorf("read agent program: %w", err)
	}
	name := fmt.Sprintf("agent-%x", sum.Sum(nil))[:24]
	path := filepath.Join(bin, name)
	if info, err := os.Lstat(path); err != nil || info.Size() != size || info.Mode() != 0o711 {
		if _, err := source.Seek(0, io.SeekStart); err != nil {
			return nil, fmt.Errorf("read agent program: %w", err)
		}
		if err := writeDurably(path, source, 0o711); err != nil {
			return nil, fmt.Errorf("copy agent program: %w", err)
		}
	}
	// Earlier copies go; agents that run from one are not disturbed.
	entries, err := os.ReadDir(bin)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != name {
			_ = os.Remove(filepath.Join(bin, e.Name()))
		}
	}
	return append([]string{path}, program[1:]...), nil
}

// reachable makes sure that a build's user gets to its folder and to the agent, and finds
// out whether builds can have shared memory of their own. It asks as the id behind those of
// builds: processes of theirs may be killed at any moment, by another server's runner too.
func (r *Runner) reachable() error {
	try := func() error {
		cmd := exec.Command("/bin/sh", "-c", `cd -- "$0" && test -x "$1"`, r.attemptsDir(), r.program[0])
		cmd.Env = []string{}
		cmd.SysProcAttr = asUser(r.BaseUID + uidRange)
		if r.ownIPC {
			separateIPC(cmd.SysProcAttr)
		}
		return cmd.Run()
	}
	r.ownIPC = true
	err := try()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // it was not even started
		r.ownIPC = false
		if err = try(); err == nil {
			r.Logger.Warn("this system does not let builds have shared memory and message queues of their own (CLONE_NEWIPC): what a build leaves there, others may see")
		}
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "the users that builds run as cannot get to %s: choose a folder that others may traverse", r.Dir)
	}
	return nil
}

func asUser(uid int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

// uidPool hands out user ids, going round the range, so that an id comes back as late as
// can be: what its last build left in a corner of the machine was by then seen by nobody. It
// holds each that is in use by a lock on a file that only root gets to, so that
// two servers on a machine never share one, and no build can take one.
type uidPool struct {
	base  int
	locks string // folder
	memo  string // file with the id handed out last
	held  map[int]*os.File
}

// newUIDPool makes the folder of locks where it is missing.
func newUIDPool(base int, locks, memo string) (*uidPool, error) {
	if err := ownFolder(locks, 0o700); err != nil {
		return nil, fmt.Errorf("open folder of user ids: %w", err)
	}
	return &uidPool{base: base, locks: locks, memo: memo, held: map[int]*os.File{}}, nil
}

// contains reports whether an id is one of those that builds get.
func (p *uidPool) contains(uid int) bool { return uid >= p.base && uid < p.base+uidRange }

// hold takes an id, and reports whether it is ours; otherwise another server has it.
func (p *uidPool) hold(uid int) (bool, error) {
	if p.held[uid] != nil {
		return true, nil
	}
	file, err := lockFile(filepath.Join(p.locks, strconv.Itoa(uid)))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock user id %d: %w", uid, err)
	}
	p.held[uid] = file
	return true, nil
}

// holdAgain takes the id of an attempt found again. A process that the server
// was just starting when it died has its files for a moment longer, so this waits a little.
func (p *uidPool) holdAgain(uid int) (bool, error) {
	for until := time.Now().Add(holdPatience); ; time.Sleep(10 * time.Millisecond) {
		if held, err := p.hold(uid); held || err != nil || time.Now().After(until) {
			return held, err
		}
	}
}

// pick answers an id, held from then on, that no attempt uses, no person has, and
// nothing runs as.
func (p *uidPool) pick() (int, error) {
	last, err := p.last()
	if err != nil {
		return 0, err
	}
	for i := range uidRange {
		uid := p.base + (last-p.base+1+i)%uidRange
		if p.held[uid] != nil {
			continue
		}
		if _, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			continue
		}
		if held, err := p.hold(uid); err != nil {
			return 0, err
		} else if !held {
			continue
		}
		if len(remaining(&attempt{meta: meta{UID: uid}})) > 0 {
			p.release(uid)
			continue
		}
		if err := writeDurably(p.memo, strings.NewReader(strconv.Itoa(uid)), 0o600); err != nil {
			p.release(uid)
			return 0, fmt.Errorf("record a user id as used: %w", err)
		}
		return uid, nil
	}
	return 0, fault.New(fault.Unavailable, "no user id from %d on is free for a build", p.base)
}

// last answers the id that was handed out last, or the one before the first.
func (p *uidPool) last() (int, error) {
	body, err := os.ReadFile(p.memo)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("look which user id was used last: %w", err)
	}
	if uid, err := strconv.Atoi(string(body)); err == nil && p.contains(uid) {
		return uid, nil
	}
	return p.base - 1, nil
}

// release gives up an id under which nothing runs and nothing lies any more.
func (p *uidPool) release(uid int) {
	if file := p.held[uid]; file != nil {
		_ = unlockFile(file)
		delete(p.held, uid)
	}
}

func (p *uidPool) close() {
	for uid := range p.held {
		p.release(uid)
	}
}
