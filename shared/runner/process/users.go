//go:build unix

package process

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"runnerhub/shared/fault"
)

// holdPatience is how long a user id that an attempt of ours has is asked for.
const holdPatience = 2 * time.Second

// installProgram copies the agent into dir, where a build's user can execute it, and
// not read it: a program its user cannot read has its memory and environment closed to
// that user's other processes from the first instruction on.
func installProgram(dir string, program []string) ([]string, error) {
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
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o711); err != nil {
		return nil, err
	}
	if err := os.Chmod(bin, 0o711); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("agent-%x", sum.Sum(nil))[:24]
	path := filepath.Join(bin, name)
	if info, err := os.Stat(path); err != nil || info.Size() != size || info.Mode().Perm() != 0o711 {
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

// reachable makes sure that a build's user gets to its folder and to the agent. It asks
// as the id behind those of builds: processes of theirs may be killed at any moment, by
// another server's runner too.
func (r *Runner) reachable() error {
	cmd := exec.Command("/bin/sh", "-c", `cd -- "$0" && test -x "$1"`, r.attemptsDir(), r.program[0])
	cmd.Env = []string{}
	cmd.SysProcAttr = asUser(r.BaseUID + uidRange)
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fault.Invalid, err, "the users that builds run as cannot get to %s: choose a folder that others may traverse", r.Dir)
	}
	return nil
}

func asUser(uid int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

// uidPool hands out user ids. It holds each for the server's life by an abstract socket
// of its name, so that two servers on a machine never share one.
type uidPool struct {
	base int
	held map[int]net.Listener
}

func newUIDPool(base int) *uidPool { return &uidPool{base: base, held: map[int]net.Listener{}} }

// hold takes an id, and reports whether it is ours.
func (p *uidPool) hold(uid int) bool {
	if p.held[uid] != nil {
		return true
	}
	l, err := net.Listen("unix", fmt.Sprintf("@runnerhub-build-user-%d", uid))
	if err != nil {
		return false
	}
	p.held[uid] = l
	return true
}

// holdAgain takes the id of an attempt found again. A process that the server
// was just starting when it died has its sockets for a moment longer, so this waits a little.
func (p *uidPool) holdAgain(uid int) bool {
	for until := time.Now().Add(holdPatience); !p.hold(uid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			return false
		}
	}
	return true
}

// pick answers an id that no attempt uses, no person has, and nothing runs as.
func (p *uidPool) pick(used map[int]bool) (int, error) {
	for uid := p.base; uid < p.base+uidRange; uid++ {
		if used[uid] {
			continue
		}
		if p.held[uid] != nil {
			return uid, nil
		}
		if _, err := user.LookupId(strconv.Itoa(uid)); err == nil || !p.hold(uid) {
			continue
		}
		if len(remaining(&attempt{meta: meta{UID: uid}})) == 0 {
			return uid, nil
		}
		_ = p.held[uid].Close()
		delete(p.held, uid)
	}
	return 0, fault.New(fault.Unavailable, "no user id from %d on is free for a build", p.base)
}

func (p *uidPool) close() {
	for _, l := range p.held {
		_ = l.Close()
	}
}
