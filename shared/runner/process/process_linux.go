package process

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runnerhub/shared/fault"
)

// What a build may use at most. They are modest, against accidents.
const (
	niceness     = 5
	maxProcesses = 4096
	maxFileBytes = 16 << 30
	fileBlock    = 512 // what ulimit -f counts in
)

// killPatience is how long killed processes may take to be gone.
const killPatience = 10 * time.Second

// holdPatience is how long a user id that an attempt of ours has is asked for.
const holdPatience = 2 * time.Second

func canIsolate() bool { return os.Geteuid() == 0 }

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}

// installProgram copies the agent into dir, where a build's user can execute it, and
// not read it: a program its user cannot read has its memory and environment closed to
// that user's other processes from the first instruction on.
func installProgram(dir string, program []string) ([]string, error) {
	source, err := os.Open(program[0])
	if err != nil {
		return nil, fmt.Errorf("open agent program: %w", err)
	}
	defer func() { _ = source.Close() }()
	body, err := io.ReadAll(source)
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
	name := fmt.Sprintf("agent-%x", sha256.Sum256(body))[:24]
	path := filepath.Join(bin, name)
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len(body)) || info.Mode().Perm() != 0o711 {
		if err := writeDurably(path, body, 0o711); err != nil {
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

// reachable makes sure that a build's user gets to its folder and to the agent.
func (r *Runner) reachable() error {
	cmd := exec.Command("/bin/sh", "-c", `cd -- "$0" && test -x "$1"`, r.attemptsDir(), r.program[0])
	cmd.Env = []string{}
	cmd.SysProcAttr = asUser(r.BaseUID)
	if err := cmd.Run(); err != nil {
		return fault.Wrap(fault.Invalid, err, "the users that builds run as cannot get to %s: choose a folder that others may traverse", r.Dir)
	}
	return nil
}

func asUser(uid int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

// launch starts the agent in a session of its own, and records its process.
func (a *attempt) launch(program, env []string, log *os.File) error {
	stderr, err := os.OpenFile(a.errFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = stderr.Close() }()
	cmd := exec.Command("/bin/sh", append([]string{"-c", launchScript(a.meta.UID != 0)}, program...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = a.work(), env, log, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.meta.UID != 0 {
		cmd.SysProcAttr = asUser(a.meta.UID)
	}
	if err := startModestly(cmd); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	a.meta.PID = cmd.Process.Pid
	if a.meta.Ticks, err = startTicks(a.meta.PID); err != nil {
		err = errors.Join(err, cmd.Process.Kill())
		_ = cmd.Wait()
		return fmt.Errorf("look at agent: %w", err)
	}
	return cmd.Process.Release()
}

// launchScript sets what Go can only set for the whole server, and what a container's
// root may not set for another user's process; then the agent takes the shell's place.
// Shells disagree on the option for processes, which count for the whole user.
func launchScript(ownUser bool) string {
	script := fmt.Sprintf("umask 077; ulimit -c 0; ulimit -f %d; ", maxFileBytes/fileBlock)
	if ownUser {
		script += fmt.Sprintf("ulimit -p %d 2>/dev/null || ulimit -u %[1]d; ", maxProcesses)
	}
	return script + `exec "$0" "$@"`
}

// startModestly starts cmd so that neither it nor what it starts can gain privileges,
// and with less claim to the processor. Both belong to a thread and are inherited from it, so
// they are set on one that ends with this call.
func startModestly(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), niceness)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	return <-started
}

// process is a running agent, ours by descent or found again.
type process struct {
	pid  int
	file *os.File // a pidfd: it stays with the process whoever gets its number later
}

// findProcess answers the process of an attempt, or nil when it is over.
func findProcess(m meta) (*process, error) {
	if m.PID == 0 || m.Boot != bootID() {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(m.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", m.PID, err)
	}
	p := &process{pid: m.PID, file: os.NewFile(uintptr(fd), "pidfd")}
	if ticks, err := startTicks(m.PID); err != nil || ticks != m.Ticks {
		p.close()
		return nil, nil
	}
	return p, nil
}

// wait waits for the end, or for ctx's.
func (p *process) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })()
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	var polled error
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		polled = err
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
	if err := errors.Join(err, polled); err != nil {
		return fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	// Only our own child is there to be reaped; another is its new parent's.
	_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
	return nil
}

func (p *process) signal(s unix.Signal) {
	if p == nil {
		return
	}
	_ = p.do(func(fd int) error { return unix.PidfdSendSignal(fd, s, nil, 0) })
}

func (p *process) do(f func(fd int) error) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(conn.Control(func(fd uintptr) { err = f(int(fd)) }), err)
}

func (p *process) close() { _ = p.file.Close() }

// killRest kills every process of an attempt and waits until they are gone.
func killRest(a *attempt) error {
	until := time.Now().Add(killPatience)
	for {
		if a.meta.UID != 0 {
			// One call of the kernel for all of the user's processes: none can fork past it.
			cmd := exec.Command("/bin/sh", "-c", "kill -KILL -1")
			cmd.Env = []string{}
			cmd.SysProcAttr = asUser(a.meta.UID)
			_ = cmd.Run() // fails when there is none
		}
		rest := remaining(a)
		if len(rest) == 0 {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("processes %v do not die", rest)
		}
		for _, pid := range rest {
			awaitDeath(pid, time.Until(until))
		}
	}
}

// awaitDeath kills one process and waits for its end.
func awaitDeath(pid int, patience time.Duration) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(patience, 0).Milliseconds()))
}

// remaining answers the living processes of an attempt: those of its user; without one, those
// in its session, in its folder or with its environment.
func remaining(a *attempt) []int {
	entries, _ := os.ReadDir("/proc")
	var all []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		state, session, err := stat(pid)
		if err != nil || state == 'Z' || state == 'X' {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		var mine bool
		if a.meta.UID != 0 {
			mine = processUID(proc) == a.meta.UID
		} else {
			cwd, _ := os.Readlink(filepath.Join(proc, "cwd"))
			environ, _ := os.ReadFile(filepath.Join(proc, "environ"))
			mine = (a.meta.PID != 0 && session == a.meta.PID && a.meta.Boot == bootID()) ||
				strings.HasPrefix(cwd+"/", a.work()+"/") ||
				bytes.Contains(environ, []byte("="+a.work()+"/"))
		}
		if mine {
			all = append(all, pid)
		}
	}
	return all
}

// processUID answers the real user of a process; a closed one belongs to root by its folder.
func processUID(proc string) int {
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut(string(status), "\nUid:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return -1
	}
	uid, err := strconv.Atoi(fields[0])
	if err != nil {
		return -1
	}
	return uid
}

func statFields(pid int) ([][]byte, error) {
	body, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	// pid (name) state ppid pgrp session …; the name may hold anything.
	fields := bytes.Fields(body[bytes.LastIndexByte(body, ')')+1:])
	if len(fields) < 20 {
		return nil, fmt.Errorf("process %d has a strange stat", pid)
	}
	return fields, nil
}

func stat(pid int) (state byte, session int, err error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, 0, err
	}
	session, err = strconv.Atoi(string(fields[3]))
	return fields[0][0], session, err
}

// startTicks is when a process began, in clock ticks since the machine did (field 22).
func startTicks(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
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
