package process_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"runnerhub/shared/agent"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/runner"
	"runnerhub/shared/runner/process"
	"runnerhub/shared/runner/runnertest"
)

// TestMain makes the test binary the agent and a server, too.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "agent":
		os.Exit(runAgent())
	case len(os.Args) > 1 && os.Args[1] == "server":
		os.Exit(serverMode())
	case len(os.Args) > 1 && os.Args[1] == "squat":
		os.Exit(squatMode())
	}
	os.Exit(m.Run())
}

func runAgent() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir, err := os.Getwd()
	if err != nil {
		return runner.ExitOther
	}
	limits := agent.DefaultLimits()
	limits.Pause, limits.Every, limits.Grace = 10*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	return agent.Run(ctx, agent.Deps{
		Environ: os.Environ(), Args: os.Args, Dir: dir, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Limits: limits,
	})
}

// newDir answers a folder that other users can get to, unlike t.TempDir.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "runner")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// deps answers a runner's dependencies over dir; logs lie in dir/logs.
func deps(t *testing.T, dir string) process.Deps {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	return process.Deps{
		Dir: filepath.Join(dir, "runner"), Program: []string{self, "agent"}, Path: os.Getenv("PATH"), Slots: 3,
		Log: func(_ context.Context, build string) (*os.File, error) {
			return os.OpenFile(filepath.Join(logs, build), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		},
		Notify: func(context.Context, runner.Event) {},
		Grace:  20 * time.Second,
		Logger: slog.New(slog.NewTextHandler(&testLog{t: t}, nil)),
		Now:    time.Now,
	}
}

func readLog(t *testing.T, dir, build string) []buildlog.Line {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(dir, "logs", build))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var all []buildlog.Line
	for line := range strings.Lines(string(body)) {
		if text, whole := strings.CutSuffix(line, "\n"); whole {
			all = append(all, buildlog.ParseLine(text))
		}
	}
	return all
}

// testLog fails the test for whatever the runner has to complain about, but for what a
// container does not let it do.
type testLog struct{ t *testing.T }

func (l *testLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("CLONE_NEWIPC")) {
		return len(p), nil
	}
	l.t.Errorf("the runner logged: %s", bytes.TrimSpace(p))
	return len(p), nil
}

func alive(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatalf("process id %q: %v", pid, err)
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return !errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
	}
	return !strings.Contains(string(stat), ") Z ")
}

func open(t *testing.T, d process.Deps) *process.Runner {
	t.Helper()
	r, err := process.New(d)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func TestConformance(t *testing.T) {
	t.Parallel()
	runnertest.Run(t, func(t *testing.T) runnertest.Subject {
		dir := newDir(t)
		return runnertest.Subject{
			Slots: 3, Alive: alive, Private: true,
			Open: func(t *testing.T, notify func(context.Context, runner.Event)) runnertest.Instance {
				d := deps(t, dir)
				d.Notify = notify
				r := open(t, d)
				return runnertest.Instance{
					Runner: r,
					Log:    func(t *testing.T, build string) []buildlog.Line { return readLog(t, dir, build) },
					Close:  func() { _ = r.Close() },
				}
			},
		}
	})
}
