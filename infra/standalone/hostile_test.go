package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runnerhub/infra/visitor"
)

// squat is what a build runs that wants to be the server: it takes the address as soon as
// the server is gone, and answers whoever comes.
func squat(address string) int {
	for range time.Tick(time.Millisecond) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Println("asked for", r.URL.Path)
			_, _ = fmt.Fprintln(w, "squatted")
		}))
	}
	return 0
}

// TestPortTakenByBuild kills the server, whose port a build takes. No other build's agent
// speaks to that one, and the next server has its port.
func TestPortTakenByBuild(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	server := s.start()
	s.connect()
	programs, err := filepath.Glob(filepath.Join(s.builds, "bin", "*"))
	if err != nil || len(programs) != 1 {
		t.Fatalf("programs: %v, %v", programs, err)
	}
	until := func(what string, is func() error) {
		t.Helper()
		within, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		if err := visitor.Until(within, what, func() (bool, error) {
			err := is()
			return err == nil, err
		}); err != nil {
			t.Fatalf("%v\n%s", err, server.text())
		}
	}
	runs := func(commit string) {
		t.Helper()
		until("a step to run", func() error {
			_, err := os.Stat(filepath.Join(s.ran, commit))
			return err
		})
	}
	// The victim waits for a file that this test makes while the build has the port.
	steps := func(text string) string {
		return "name: Crash\ntriggers: [push]\nsteps:\n  - name: mark\n    run: echo ran >> " + s.ran + "/$RUNNERHUB_COMMIT; " + text + "\n"
	}
	push := func(n int, text string) string {
		t.Helper()
		if _, err := s.clone.Commit(ctx, ".runnerhub/runnerhub.yml", steps(text), "Steps"); err != nil {
			t.Fatal(err)
		}
		commit := s.push(ctx, n)
		runs(commit)
		return commit
	}
	gate := filepath.Join(s.ran, "gate")
	victim := push(1, "until [ -e "+gate+" ]; do sleep 0.05; done; touch "+gate+"-seen")
	thief := push(2, "exec "+programs[0]+" squat "+s.listen)
	server.kill()
	until("the build to take the port", func() error {
		text, err := get(ctx, s.hub+"/healthz")
		if err == nil && !strings.HasPrefix(text, "squatted") {
			err = fmt.Errorf("the port says %q", text)
		}
		return err
	})
	// Its agent reports the end at once, to whom it takes for the server.
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	until("the victim's step to end", func() error {
		_, err := os.Stat(gate + "-seen")
		return err
	})
	server = s.start()
	until("the victim's end", func() error { return s.settled(ctx, victim) })
	until("the thief's end", func() error {
		builds, err := s.visitor.Builds(ctx, s.app)
		if err != nil {
			return err
		}
		for _, b := range builds {
			if b.Commit == thief && b.State == "ERROR" {
				return nil
			}
		}
		return fmt.Errorf("builds: %+v", builds)
	})
	logs, err := filepath.Glob(filepath.Join(s.data, "logs", "*"))
	if err != nil || len(logs) < 2 {
		t.Fatalf("logs: %v, %v", logs, err)
	}
	heard := ""
	for _, name := range logs {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		heard += string(text)
	}
	if !strings.Contains(heard, "asked for /healthz") || strings.Contains(heard, "asked for /runner") {
		t.Errorf("the build that has the port heard\n%s", heard)
	}
	if !strings.Contains(server.text(), "the server's port is taken") {
		t.Errorf("the server does not tell:\n%s", server.text())
	}
	after, err := s.clone.Commit(ctx, ".runnerhub/runnerhub.yml", s.pipelineFile(), "Mark")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.clone.Push(ctx, "HEAD:main"); err != nil {
		t.Fatal(err)
	}
	until("the next build", func() error { return s.settled(ctx, after) })
}

func get(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body := make([]byte, 100)
	n, _ := resp.Body.Read(body)
	return string(body[:n]), nil
}

// TestKeepDescriptors looks at a descriptor that a child would inherit.
func TestKeepDescriptors(t *testing.T) {
	t.Parallel()
	var ends [2]int
	if err := unix.Pipe2(ends[:], 0); err != nil {
		t.Fatal(err)
	}
	if err := keepDescriptors(); err != nil {
		t.Fatal(err)
	}
	for _, fd := range ends {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d has flags %#x, %v", fd, flags, err)
		}
		_ = unix.Close(fd)
	}
}

// TestBuildsFolder looks where builds work when nobody says.
func TestBuildsFolder(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	var chosen []string
	for range 2 {
		c, err := readConfig([]string{"RUNNERHUB_DATA=" + data})
		if err != nil {
			t.Fatal(err)
		}
		chosen = append(chosen, c.builds)
	}
	if chosen[0] != chosen[1] {
		t.Errorf("the folder changes: %v", chosen)
	}
	if want := "/var/lib/runnerhub-builds"; os.Geteuid() == 0 && filepath.Dir(chosen[0]) != want {
		t.Errorf("builds work in %s; want a folder below %s", chosen[0], want)
	}
	if want := data + "-builds"; os.Geteuid() != 0 && chosen[0] != want {
		t.Errorf("builds work in %s; want %s", chosen[0], want)
	}
}

// TestAgentsOnly asks for everything but the agents' calls at the agents' socket.
func TestAgentsOnly(t *testing.T) {
	t.Parallel()
	all := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	for path, want := range map[string]int{"/runner/claim": 200, "/runner/steps": 200, "/api/me": 404, "/hooks/x": 404, "/": 404} {
		w := httptest.NewRecorder()
		agentsOnly(all).ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
