package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killPatience is how long killed processes may take to be gone.
const killPatience = 10 * time.Second

// niceness is how far builds stand behind the server, against accidents.
const niceness = 5

func canIsolate() bool { return os.Geteuid() == 0 }

func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
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

// separateIPC gives a process System V and POSIX objects (shared memory, semaphores,
// message queues) that end with it and its children.
func separateIPC(attr *syscall.SysProcAttr) { attr.Cloneflags |= unix.CLONE_NEWIPC }

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
