package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// protect keeps the agent's memory, environment and descriptors from the steps, which
// run as the same user, and makes their orphans its own children, so that a
// daemon is found and killed at the end.
func protect() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close the agent's memory: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// anonymousFile answers an inheritable descriptor, at the beginning of body.
func anonymousFile(body []byte) (int, error) {
	fd, err := unix.MemfdCreate("handover", 0)
	if err != nil {
		return 0, fmt.Errorf("make handover: %w", err)
	}
	for rest := body; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return 0, fmt.Errorf("write handover: %w", err)
		}
		rest = rest[n:]
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return 0, fmt.Errorf("rewind handover: %w", err)
	}
	return fd, nil
}

// execSelf works on a program file that was replaced or deleted, too.
func execSelf(args, env []string) error { return syscall.Exec("/proc/self/exe", args, env) }

// killDescendants kills everything below this process and waits until it is gone. Who
// forks while this looks is found the next time round; it gives up after five seconds, and
// the runner has the last word. The steps' process groups, which other systems go by, do not
// matter here.
func killDescendants([]int) {
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until); {
		for _, pid := range descendants(os.Getpid()) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		// Orphans become our children when their parents die, and no child means nobody is left.
		for reaped := 1; reaped > 0; {
			var err error
			if reaped, err = unix.Wait4(-1, nil, unix.WNOHANG, nil); errors.Is(err, unix.ECHILD) {
				return
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// descendants answers the processes below root.
func descendants(root int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// pid (name) state ppid …; the name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(string(fields[1])); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	var all []int
	for next := children[root]; len(next) > 0; next = next[1:] {
		all = append(all, next[0])
		next = append(next, children[next[0]]...)
	}
	return all
}
