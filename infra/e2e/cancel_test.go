package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"runnerhub/infra/visitor"
)

// cancel asks for the end of a build.
func (s *site) cancel(id string) error {
	s.t.Helper()
	var b visitor.Build
	if err := s.Call(s.t.Context(), http.MethodPost, "/api/builds/"+id+"/cancel", nil, &b); err != nil {
		return err
	}
	if b.ID != id {
		return fmt.Errorf("the answer is about build %q", b.ID)
	}
	return nil
}

// cancelled stops a build that runs and one that waits because two of them do.
func cancelled(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	running := s.pushSteps("echo at work; sleep 600; echo survived", "echo never")
	other := s.pushSteps(s.waitFor("go"))
	for _, b := range []visitor.Build{running, other} {
		s.reached(b.ID, "RUNNING")
	}
	s.logged(running.ID, "at work")
	waiting := s.pushSteps("echo never")
	s.must(s.cancel(waiting.ID))
	if b := s.ended(waiting.ID, "STOPPED"); b.Reason != "stopped by Alice Admin" {
		t.Errorf("the waiting build is %+v", b)
	}
	next := s.pushSteps("echo the next one")

	s.must(s.cancel(running.ID))
	if b := s.ended(running.ID, "STOPPED"); b.Reason != "stopped by Alice Admin" {
		t.Errorf("the running build is %+v", b)
	}
	for _, l := range s.log(running.ID) {
		if l.Text == "survived" || l.Text == "never" {
			t.Errorf("after it was stopped, the build went on: %+v", l)
		}
	}
	s.ended(next.ID, "SUCCESSFUL") // in the place of the one that was stopped
	s.open("go")
	s.ended(other.ID, "SUCCESSFUL")
	for _, b := range []visitor.Build{running, waiting, next} {
		s.refused(s.cancel(b.ID), http.StatusConflict, "cancelling what has ended")
	}
}
