package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"runnerhub/infra/visitor"
)

// waitingBuild pushes a build that waits for the gate "go" and has said so on Bitbucket.
func (s *site) waitingBuild() visitor.Build {
	s.t.Helper()
	b := s.pushSteps("echo ready; " + s.waitFor("go"))
	s.logged(b.ID, "ready")
	s.shown(b, "INPROGRESS")
	return b
}

// unposted waits until a build has ended and its status is known not to be posted.
func (s *site) unposted(id string) {
	s.t.Helper()
	s.until("the status not to be posted", func() error {
		b, err := s.Build(s.t.Context(), id)
		if err == nil && (b.State != "SUCCESSFUL" || b.Status.Posted || b.Status.Problem == "") {
			err = fmt.Errorf("the build is %+v", b)
		}
		return err
	})
}

// forgeDown takes Bitbucket away while a build runs.
func forgeDown(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	b := s.waitingBuild()
	s.faults(map[string]any{"down": true})
	s.open("go")
	s.unposted(b.ID)
	s.faults(map[string]any{})
	s.ended(b.ID, "SUCCESSFUL")
}

// forgeLimits answers 429 to every call while a build ends. The pause that follows is
// Bitbucket's wish, or a minute.
func forgeLimits(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	b := s.waitingBuild()
	s.faults(map[string]any{"rate_limited": true})
	s.open("go")
	s.unposted(b.ID)
	refused := len(s.calls(http.MethodPost, "/statuses/build"))
	s.faults(map[string]any{})
	s.ended(b.ID, "SUCCESSFUL")
	if again := len(s.calls(http.MethodPost, "/statuses/build")) - refused; refused != 2 || again != 1 {
		t.Errorf("statuses were posted %d times before the limit was lifted and %d times after; expected INPROGRESS, a refusal, and SUCCESSFUL", refused, again)
	}
}

// forgeLoses carries posts out and answers nothing.
func forgeLoses(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	b := s.waitingBuild()
	s.faults(map[string]any{"lose_answers": 2})
	s.open("go")
	s.reached(b.ID, "SUCCESSFUL")
	s.until("two answers to be lost", func() error {
		lost := 0
		for _, c := range s.calls(http.MethodPost, "/statuses/build") {
			if c.Lost {
				lost++
			}
		}
		if lost != 2 {
			return fmt.Errorf("%d are", lost)
		}
		return nil
	})
	s.ended(b.ID, "SUCCESSFUL")
	s.until("the status to be read back", func() error {
		b, err := s.Build(t.Context(), b.ID)
		if err == nil && !b.Status.Posted {
			err = fmt.Errorf("the status is %+v", b.Status)
		}
		return err
	})
	s.shown(b, "SUCCESSFUL")
}

// tokenExpires runs a build that takes longer than the connection's token lives.
func tokenExpires(t *testing.T, in stack) {
	s := newSite(t, in.install(t))
	s.faults(map[string]any{"token_seconds": 4})
	s.connect()
	s.faults(map[string]any{}) // the next token lives as long as Bitbucket's do
	tokens := len(s.calls(http.MethodPost, "/access_token"))
	b := s.pushSteps("sleep 5")
	s.ended(b.ID, "SUCCESSFUL")
	s.ended(s.pushSteps("echo and on").ID, "SUCCESSFUL")
	if renewed := len(s.calls(http.MethodPost, "/access_token")) - tokens; renewed != 1 {
		t.Errorf("the token was renewed %d times; expected once", renewed)
	}
}

// grantRefused refuses the connection's grant while something is pushed. One refusal is
// not believed: that it is revoked for good takes several, minutes apart.
func grantRefused(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	s.faults(map[string]any{"revoked": true})
	commit := s.commit("NEWS", "something\n")
	s.push("HEAD:main")
	s.until("the delivery to say why nothing is decided", func() error {
		all, err := s.Deliveries(t.Context(), s.app)
		if err != nil {
			return err
		}
		if len(all) != 1 || len(all[0].Decisions) > 0 || !strings.Contains(all[0].Note, "refused to renew the connection's token") {
			return fmt.Errorf("the deliveries are %+v", all)
		}
		return nil
	})
	if builds := s.buildsOf(commit); len(builds) > 0 {
		t.Errorf("the builds are %+v", builds)
	}
	s.faults(map[string]any{})
	s.until("the delivery to be decided when the grant works again", func() error {
		if len(s.buildsOf(commit)) == 0 {
			return errors.New("there is no build")
		}
		return nil
	})
	s.ended(s.buildOf(commit).ID, "SUCCESSFUL")
}
