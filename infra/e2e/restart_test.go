package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// stopped sends SIGTERM to the server while a build runs that does not want to end, and
// starts it again.
func stopped(t *testing.T, in stack) {
	h := in.install(t).(*home)
	s := newShop(t, h)
	earlier := s.pushSteps("echo fine")
	s.ended(earlier.ID, "SUCCESSFUL")
	running := s.pushSteps("trap '' TERM; sleep 1000 & setsid sleep 1000 & echo at work; wait; sleep 1000")
	s.logged(running.ID, "at work")
	if got := len(h.processes()); got < 6 {
		t.Fatalf("expected server, sandbox, agent and three of the step to be found: %v", h.processes())
	}
	h.stop()
	if left := h.processes(); len(left) > 0 {
		t.Errorf("these are left after an orderly end: %v", left)
	}

	h.start()
	s.must(s.Call(t.Context(), http.MethodGet, "/api/me", nil, nil)) // the session
	s.must(s.Call(t.Context(), http.MethodGet, "/api/apps/"+s.app, nil, nil))
	for id, state := range map[string]string{earlier.ID: "SUCCESSFUL", running.ID: "STOPPED"} {
		b, err := s.Build(t.Context(), id)
		s.must(err)
		if b.State != state || !b.Status.Posted || b.Status.State != state {
			t.Errorf("the build is %+v; expected %s, and that to be on Bitbucket", b, state)
		}
		s.shown(b, state)
	}
	if posts := s.calls(http.MethodPost, "/statuses/build"); len(posts) > 0 {
		t.Errorf("statuses were posted only after the restart: %+v", posts)
	}
	// The repository on Bitbucket is still there, and still tied.
	s.ended(s.pushSteps("echo again").ID, "SUCCESSFUL")
}

// count is a step that counts until a gate opens, in the log and in a mark.
func (s *site) count(name string) string {
	return fmt.Sprintf("i=0\nuntil [ -e %[1]s ]; do i=$((i+1)); echo \"line $i\" | tee -a %[2]s; sleep 0.05; done\necho last | tee -a %[2]s",
		s.gate(name), s.mark(name))
}

// killed sends SIGKILL to the server while two builds run: one ends while it is away, the other
// after it came back.
func killed(t *testing.T, in stack) {
	h := in.install(t).(*home)
	s := newShop(t, h)
	away, after := s.pushSteps(s.count("away")), s.pushSteps(s.count("after"))
	for _, b := range []string{away.ID, after.ID} {
		s.logged(b, "line 3")
	}
	h.kill()
	h.gone(h.program + " ") // the sandbox, by itself
	for _, name := range []string{"away", "after"} {
		lines := strings.Count(s.marked(name), "\n")
		s.until("build "+name+" to go on", func() error {
			if now := strings.Count(s.marked(name), "\n"); now < lines+5 {
				return fmt.Errorf("it counted to %d, and was at %d", now, lines)
			}
			return nil
		})
	}
	s.open("away")
	s.until("the step to end without a server", func() error {
		if !strings.HasSuffix(s.marked("away"), "last\n") {
			return errors.New("it does not")
		}
		return nil
	})

	h.start()
	s.ended(away.ID, "SUCCESSFUL")
	s.open("after")
	s.ended(after.ID, "SUCCESSFUL")
	for name, id := range map[string]string{"away": away.ID, "after": after.ID} {
		var counted []string
		for _, l := range s.whole(id) {
			if l.Step != "" {
				counted = append(counted, l.Text)
			}
		}
		if want := strings.TrimSpace(s.marked(name)); strings.Join(counted, "\n") != want {
			t.Errorf("the log of build %s has the lines\n%q\nand the step wrote\n%q", name, counted, want)
		}
	}
	h.gone("agent")
}
