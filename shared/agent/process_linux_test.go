package agent_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runnerhub/shared/runner"
	"runnerhub/shared/runner/runnertest"
)

// reopen lets the test look into the agent once it has closed itself.
func reopen() {
	for {
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err == nil && dumpable == 0 {
			_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
			return
		}
		runtime.Gosched()
	}
}

// TestMemory looks for the credential in the memory and the environment of an agent
// whose steps run.
func TestMemory(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	control := rand.Text()
	server.Offer("x", func(c *runner.Claim) {
		c.Variables = []runner.Variable{{Name: "CONTROL", Value: control, Secret: true}}
	}, runner.Step{Name: "s", Run: "until [ -e ../go ]; do sleep 0.02; done"})
	b := run(t, "agent-open", server.URL, runnertest.TicketOf("x"))
	server.Await(t, "x", "a running step", func(r runner.Report) bool {
		return len(r.Steps) > 0 && r.Steps[0].State == runner.StepRunning
	})
	memory := memoryOf(t, b.cmd.Process.Pid)
	if !bytes.Contains(memory, []byte(control)) {
		t.Error("the search does not work: not even the variable is found")
	}
	if bytes.Contains(memory, []byte(server.Password[len(server.Password)-20:])) {
		t.Error("the clone's password is in the agent's memory")
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", b.cmd.Process.Pid))
	if err != nil || bytes.Contains(environ, []byte(runnertest.TicketOf("x"))) {
		t.Errorf("environment %q, %v", environ, err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.ends(runner.ExitSuccessful)
}

// memoryOf reads all that a process can write to.
func memoryOf(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	var all []byte
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(mode, "rw") || to-from > 1<<30 { // the race detector's are larger, and say nothing
			continue
		}
		region := make([]byte, to-from)
		n, _ := mem.ReadAt(region, int64(from)) // the kernel's own pages cannot be read
		all = append(all, region[:n]...)
	}
	return all
}

// TestDaemonsDie leaves a daemon behind, which must be gone when the agent is.
func TestDaemonsDie(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	b := offer(t, server, nil, `setsid sh -c 'cd /; trap "" TERM HUP; echo "$$" >"$HOME/pid"; while :; do sleep 100; done' >/dev/null 2>&1 &
until [ -s ../home/pid ]; do sleep 0.02; done`)
	b.ends(runner.ExitSuccessful)
	pid, err := os.ReadFile(filepath.Join(b.dir, "home", "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); !os.IsNotExist(err) {
		t.Errorf("the daemon %s lives on: %v", pid, err)
	}
}
