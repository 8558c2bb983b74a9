package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// walk goes the way of a first build: from signing in to a status on the commit, and then
// to a failed one.
func walk(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	b := s.pushSteps("echo first line; "+s.waitFor("go")+"; echo last line", "sh tests/run.sh")
	if b.Number != 1 || b.Trigger != "push" || b.Branch != "main" || len(b.Commit) != 40 {
		t.Errorf("the build is %+v", b)
	}
	s.logged(b.ID, "first line")
	s.reached(b.ID, "RUNNING")
	s.shown(b, "INPROGRESS")
	s.open("go")
	s.ended(b.ID, "SUCCESSFUL")
	var steps []string
	for _, l := range s.whole(b.ID) {
		if l.Text == "last line" || l.Text == "1 test passed" {
			steps = append(steps, l.Step+": "+l.Text)
		}
	}
	if want := []string{"step 1: last line", "step 2: 1 test passed"}; !slices.Equal(steps, want) {
		t.Errorf("the log has %q, expected %q", steps, want)
	}
	for _, c := range s.calls(http.MethodPost, "/statuses/build") {
		if !strings.Contains(c.Path, "/commit/"+b.Commit+"/") || c.Status/100 != 2 {
			t.Errorf("a status was posted by %+v; the commit is %s", c, b.Commit)
		}
	}

	b = s.pushSteps("echo works", "echo broken >&2; exit 7", "echo never")
	b = s.ended(b.ID, "FAILED")
	if b.Number != 2 || !strings.Contains(b.Reason, "exit code 7") {
		t.Errorf("the build is %+v", b)
	}
	s.logged(b.ID, "broken")
	for _, l := range s.whole(b.ID) {
		if l.Text == "never" {
			t.Error("a step ran after one that failed")
		}
	}
}
