package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"runnerhub/infra/port"
	"runnerhub/infra/visitor"
)

// patience bounds every wait, far above the longest on an idle machine: the minute after a refusal of Bitbucket.
const patience = 5 * time.Minute

// standalone is the program that `make run` starts, built once.
type standalone struct{ program string }

func newStandalone(t *testing.T) stack {
	if os.Getuid() != 0 {
		t.Fatal("the end-to-end scripts need root: builds run as users of their own")
	}
	program := filepath.Join(t.TempDir(), "runnerhub")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../standalone")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	watchSources(t, "../standalone", "../sandbox", "../../shared")
	return &standalone{program}
}

// watchSources looks at files that a build was made of: go test answers from its cache unless a file changed that the
// test looked at, and does not see what the compiler did. Listing a folder is looking at its files.
func watchSources(t *testing.T, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		if err := filepath.WalkDir(folder, func(_ string, _ os.DirEntry, err error) error { return err }); err != nil {
			t.Fatal(err)
		}
	}
}

func (*standalone) scripts() []script {
	return []script{
		{"stopped during a build", stopped},
		{"killed during builds", killed},
		{"trouble at the start", troubleAtStart},
		{"isolation", isolation},
		{"what is there", func(t *testing.T, in stack) { whatIsThere(t, in, "process", "small") }},
	}
}

func (s *standalone) install(t *testing.T, settings ...string) installation {
	return s.home(t, settings...)
}

// home is a standalone installation: folders, settings, and while it runs a process.
type home struct {
	t        *testing.T
	program  string
	root     string // open to builds, as t.TempDir is not
	settings []string
	// hubPort and forgePort stay the same from start to start, because those two know each other.
	hubPort   *port.Held
	forgePort *port.Held
	hub       string
	forge     string
	server    *server
}

// server is a running `runnerhub serve`.
type server struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	err   error         // how it ended, once ended is closed
}

// home prepares an installation; settings are added to those of every test.
func (s *standalone) home(t *testing.T, settings ...string) *home {
	t.Helper()
	root, err := os.MkdirTemp("", "runnerhub-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	h := &home{t: t, program: s.program, root: root, settings: settings}
	t.Cleanup(func() {
		if h.server != nil {
			h.stop()
		}
		for _, p := range h.processes() {
			t.Errorf("left behind: %v", p)
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		if t.Failed() {
			t.Logf("== the server's log\n%s", h.said())
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, held := range []**port.Held{&h.hubPort, &h.forgePort} {
		if *held, err = port.Hold(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = (*held).Close() })
	}
	return h
}

func (h *home) folder() string { return h.root }
func (h *home) data() string   { return filepath.Join(h.root, "data") }
func (h *home) builds() string { return filepath.Join(h.root, "builds") }

func (h *home) said() string {
	text, _ := os.ReadFile(filepath.Join(h.root, "log"))
	return string(text)
}

// command is `runnerhub serve` with the installation's settings, the last of which count.
func (h *home) command(ctx context.Context, settings ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, h.program, "serve")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "RUNNERHUB_DATA=" + h.data(), "RUNNERHUB_BUILDS=" + h.builds(), "RUNNERHUB_CONCURRENCY=2",
		"RUNNERHUB_LISTEN=" + h.hubPort.Address, "SANDBOX_LISTEN=" + h.forgePort.Address,
	}
	cmd.Env = append(append(cmd.Env, h.settings...), settings...)
	return cmd
}

func (h *home) start() (hub, forge string) {
	h.t.Helper()
	log, err := os.OpenFile(filepath.Join(h.root, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := h.command(context.WithoutCancel(h.t.Context()))
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	s := &server{cmd: cmd, ended: make(chan struct{})}
	h.server = s
	greeted := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			h.greeting(lines.Text(), greeted)
		}
		s.err = cmd.Wait()
		close(s.ended)
	}()
	select {
	case <-greeted:
	case <-s.ended:
		h.t.Fatalf("the server did not start: %v\n%s", s.err, h.said())
	case <-time.After(patience):
		h.t.Fatalf("the server does not say where it is\n%s", h.said())
	}
	return h.hub, h.forge
}

// greeting reads a line of what the server says on its standard output.
func (h *home) greeting(line string, done chan struct{}) {
	if at, ok := strings.CutPrefix(line, "RunnerHub is at "); ok {
		h.hub = at
	}
	if rest, ok := strings.CutPrefix(line, "A sandbox Bitbucket is at "); ok {
		h.forge, _, _ = strings.Cut(rest, " ")
		close(done)
	}
}

func (h *home) stop() {
	h.t.Helper()
	s := h.server
	h.server = nil
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.t.Error(err)
	}
	select {
	case <-s.ended:
		if s.err != nil {
			h.t.Errorf("the server ended with %v after SIGTERM", s.err)
		}
	case <-time.After(patience):
		h.t.Error("the server does not end after SIGTERM")
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}

func (h *home) kill() {
	h.t.Helper()
	s := h.server
	h.server = nil
	if err := s.cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	<-s.ended
}

// pid is the server's process.
func (h *home) pid() int { return h.server.cmd.Process.Pid }

// process is one of the machine's.
type process struct {
	pid     int
	command string
}

// processes are those that belong to the installation: the server, the sandbox, agents
// and what builds started. Each has one of its folders in its command line, its
// environment or as its own.
func (h *home) processes() []process {
	h.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		h.t.Fatal(err)
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		command, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(proc, "environ"))
		folder, _ := os.Readlink(filepath.Join(proc, "cwd"))
		if len(command) == 0 { // a zombie
			continue
		}
		if bytes.Contains(append(command, environ...), []byte(h.root+"/")) || strings.HasPrefix(folder, h.root) {
			all = append(all, process{pid, string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))})
		}
	}
	return all
}

// gone waits until no process of the installation has this in its command line.
func (h *home) gone(what string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	err := visitor.Until(ctx, "the end of "+what, func() (bool, error) {
		for _, p := range h.processes() {
			if strings.Contains(p.command, what) {
				return false, fmt.Errorf("process %d still runs: %s", p.pid, p.command)
			}
		}
		return true, nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}
