package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
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
	for _, l := range s.whole(running.ID) {
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

// superseded pushes again and again to a branch whose pipeline file has older builds stopped.
func superseded(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	steps := func(script string) visitor.Build {
		file := strings.Replace(pipeline("[push]", script), "steps:", "concurrency:\n  cancel_in_progress: true\nsteps:", 1)
		commit := s.commit(pipelinePath, file)
		s.push("HEAD:main")
		return s.buildOf(commit)
	}
	first := steps("echo at work; sleep 600; echo survived")
	s.logged(first.ID, "at work")
	second := steps("echo also at work; sleep 600; echo survived")
	third := steps("echo the newest")
	for _, b := range []visitor.Build{first, second} {
		got := s.ended(b.ID, "STOPPED")
		if by := got.SupersededBy.Number; by != b.Number+1 || got.Reason != fmt.Sprintf("superseded by #%d", by) || got.SupersededBy.Build == "" {
			t.Errorf("build #%d is %+v", b.Number, got)
		}
	}
	s.ended(third.ID, "SUCCESSFUL")
	for _, l := range s.whole(first.ID) {
		if l.Text == "survived" {
			t.Error("the first build went on")
		}
	}
	// Back and forth: what was stopped is built again, by the same change as before, too.
	back := steps("echo back; sleep 600")
	forth := steps(s.waitFor("go"))
	s.ended(back.ID, "STOPPED")
	before := forth
	for _, commit := range []string{back.Commit, forth.Commit} {
		s.push("+" + commit + ":main")
		if by := s.ended(before.ID, "STOPPED").SupersededBy.Number; by != before.Number+1 {
			t.Errorf("build #%d is superseded by #%d", before.Number, by)
		}
		for _, b := range s.buildsOf(commit) {
			if b.Number > before.Number {
				before = b
			}
		}
	}
	s.open("go")
	if b := s.ended(before.ID, "SUCCESSFUL"); b.Commit != forth.Commit || b.Number != forth.Number+2 {
		t.Errorf("in the end build #%d ran, of %s", b.Number, b.Commit)
	}
}

// oneAfterTheOther pushes again and again to two branches whose builds are of one group: they take turns, also after one that was
// stopped, while a build of no group goes on beside them.
func oneAfterTheOther(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	turn := func(branch, name, script string) visitor.Build {
		script = fmt.Sprintf("echo %s begins >> %s\n%s\nsleep 0.2\necho %[1]s ends >> %[2]s", name, s.mark("turns"), script)
		file := strings.Replace(pipeline("[push]", script), "steps:", "concurrency:\n  group: deploy\nsteps:", 1)
		commit := s.commit(pipelinePath, file)
		s.push("HEAD:" + branch)
		return s.buildOf(commit)
	}
	s.must(os.WriteFile(s.mark("turns"), nil, 0o666))
	s.must(os.Chmod(s.mark("turns"), 0o666)) // every build has a user of its own
	first := turn("main", "first", "sleep 600")
	s.until("the first build to begin", func() error {
		if s.marked("turns") == "" {
			return errors.New("it did not")
		}
		return nil
	})
	gone, other := turn("main", "gone", "true"), turn("release", "other", "true")
	failing, last := turn("main", "failing", "exit 1"), turn("main", "last", "true")
	s.ended(s.pushSteps("echo of no group").ID, "SUCCESSFUL")
	for _, waiting := range []visitor.Build{gone, other, failing, last} {
		b, err := s.Build(t.Context(), waiting.ID)
		if want := fmt.Sprintf("waits for #%d of its concurrency group to end", first.Number); err != nil || b.State != "QUEUED" || b.Reason != want {
			t.Errorf("#%d is %s: %q, %v", b.Number, b.State, b.Reason, err)
		}
	}
	for _, b := range []visitor.Build{gone, first} {
		s.must(s.cancel(b.ID))
		s.ended(b.ID, "STOPPED")
	}
	s.ended(other.ID, "SUCCESSFUL")
	s.ended(failing.ID, "FAILED")
	s.ended(last.ID, "SUCCESSFUL")
	if got, want := s.marked("turns"), "first begins\nother begins\nother ends\nfailing begins\nlast begins\nlast ends\n"; got != want {
		t.Errorf("the turns were:\n%s", got)
	}
}
