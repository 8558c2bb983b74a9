//go:build unix && !linux

package process

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Only Linux keeps builds apart. Elsewhere the runner serves for trying things out on a
// developer's machine: it looks at processes by their number and by what ps says.

// lookEvery is how often a running agent is looked at.
const lookEvery = 200 * time.Millisecond

func canIsolate() bool { return false }

func bootID() string { return "" }

func startModestly(cmd *exec.Cmd) error { return cmd.Start() }

// startTicks is when a process began, in seconds since 1970.
func startTicks(pid int) (uint64, error) {
	cmd := exec.Command("ps", "-o", "lstart=", "-p", strconv.Itoa(pid))
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/bin:/bin"}
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("ask ps about process %d: %w", pid, err)
	}
	at, err := time.Parse("Mon Jan 2 15:04:05 2006", strings.Join(strings.Fields(string(out)), " "))
	if err != nil {
		return 0, fmt.Errorf("read what ps says: %w", err)
	}
	return uint64(at.Unix()), nil
}

func separateIPC(*syscall.SysProcAttr) {}

// process is a running agent, ours by descent or found again.
type process struct{ pid int }

// findProcess answers the process of an attempt, or nil when it is over.
func findProcess(m meta) (*process, error) {
	if m.PID == 0 {
		return nil, nil
	}
	if ticks, err := startTicks(m.PID); err != nil || ticks != m.Ticks {
		return nil, nil
	}
	return &process{pid: m.PID}, nil
}

// wait waits for the end, or for ctx's.
func (p *process) wait(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil) // reaps our own child
		if errors.Is(syscall.Kill(p.pid, 0), syscall.ESRCH) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (p *process) signal(s unix.Signal) {
	if p != nil {
		_ = syscall.Kill(p.pid, s)
	}
}

func (p *process) close() {}

// killRest kills the agent's process group; the agent itself ends those of its steps.
func killRest(a *attempt) error {
	if a.meta.PID == 0 {
		return nil
	}
	if err := syscall.Kill(-a.meta.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	return nil
}

func remaining(*attempt) []int { return nil }
