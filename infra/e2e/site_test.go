package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"runnerhub/infra/visitor"
)

const (
	shop         = "acme/shop"
	pipelinePath = ".runnerhub/runnerhub.yml"
)

// site is a running installation with alice in front of it. Its methods fail the test
// when something is not as it has to be.
type site struct {
	*visitor.Visitor // alice
	t                *testing.T
	in               installation
	app              string // tied to the shop
	clone            *visitor.Clone
}

// newSite starts an installation.
func newSite(t *testing.T, in installation) *site {
	t.Helper()
	s := &site{t: t, in: in}
	hub, forge := in.start()
	s.Visitor = s.person(hub, forge, "alice")
	s.room(filepath.Dir(s.gate("any")))
	s.room(filepath.Dir(s.mark("any")))
	return s
}

// room makes a folder that every step may write to.
func (s *site) room(dir string) {
	s.t.Helper()
	s.must(os.Mkdir(dir, 0o777))
	s.must(os.Chmod(dir, 0o777)) // whatever the umask
}

// newShop starts an installation with an app that is tied to the shop, and clones that.
func newShop(t *testing.T, in installation) *site {
	t.Helper()
	s := newSite(t, in)
	s.connect()
	return s
}

func (s *site) connect() {
	s.t.Helper()
	var err error
	s.app, err = s.SetUp(s.t.Context(), "Shop", shop)
	s.must(err)
	s.clone, err = s.Clone(s.t.Context(), shop, filepath.Join(s.in.folder(), "clone"))
	s.must(err)
}

func (s *site) person(hub, forge, name string) *visitor.Visitor {
	s.t.Helper()
	v, err := visitor.New(hub, forge, name, name)
	s.must(err)
	return v
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// until asks again until there is no error any more: at first soon, then less often, because asking takes from those who are at work.
func (s *site) until(what string, ask func() error) {
	s.t.Helper()
	const soon, seldom = 50 * time.Millisecond, 400 * time.Millisecond
	deadline := time.After(patience)
	for pause := soon; ; pause = min(pause*3/2, seldom) {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-deadline:
			s.t.Fatalf("waiting for %s: %v", what, err)
		case <-s.t.Context().Done():
			s.t.Fatalf("waiting for %s: %v", what, errors.Join(s.t.Context().Err(), err))
		}
	}
}

// A gate is a file that steps wait for and the test makes.
func (s *site) gate(name string) string { return filepath.Join(s.in.folder(), "gates", name) }

func (s *site) open(gate string) {
	s.t.Helper()
	s.must(os.WriteFile(s.gate(gate), nil, 0o644))
}

// waitFor is what a step runs to wait for a gate.
func (s *site) waitFor(gate string) string {
	return fmt.Sprintf("until [ -e %s ]; do sleep 0.1; done", s.gate(gate))
}

// A mark is a file that steps make or append to.
func (s *site) mark(name string) string { return filepath.Join(s.in.folder(), "marks", name) }

func (s *site) marked(name string) string {
	text, _ := os.ReadFile(s.mark(name))
	return string(text)
}

// pipeline is a file with these triggers and one step a script, named 1, 2, …
func pipeline(triggers string, scripts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: Shop\ntriggers: %s\nsteps:\n", triggers)
	for i, script := range scripts {
		fmt.Fprintf(&b, "  - name: step %d\n    run: |\n", i+1)
		for line := range strings.Lines(script) {
			fmt.Fprintf(&b, "      %s\n", strings.TrimRight(line, "\n"))
		}
	}
	return b.String()
}

// commit commits a file on the branch that is checked out.
func (s *site) commit(file, text string) string {
	s.t.Helper()
	hash, err := s.clone.Commit(s.t.Context(), file, text, "Change "+file)
	s.must(err)
	return hash
}

func (s *site) git(args ...string) string {
	s.t.Helper()
	out, err := s.clone.Git(s.t.Context(), args...)
	s.must(err)
	return out
}

func (s *site) push(refs ...string) {
	s.t.Helper()
	s.must(s.clone.Push(s.t.Context(), refs...))
}

// pushSteps pushes a pipeline file with these steps to main and answers the build.
func (s *site) pushSteps(scripts ...string) visitor.Build {
	s.t.Helper()
	commit := s.commit(pipelinePath, pipeline("[push]", scripts...))
	s.push("HEAD:main")
	return s.buildOf(commit)
}

// buildsOf answers the builds of a commit there are.
func (s *site) buildsOf(commit string) []visitor.Build {
	s.t.Helper()
	all, err := s.Builds(s.t.Context(), s.app)
	s.must(err)
	return slices.DeleteFunc(all, func(b visitor.Build) bool { return b.Commit != commit })
}

// buildOf waits for the one build of a commit.
func (s *site) buildOf(commit string) (found visitor.Build) {
	s.t.Helper()
	s.until("a build of "+commit, func() error {
		switch all := s.buildsOf(commit); len(all) {
		case 0:
			return errors.New("there is none")
		case 1:
			found = all[0]
		default:
			s.t.Fatalf("commit %s has %d builds: %+v", commit, len(all), all)
		}
		return nil
	})
	return found
}

// reached waits until a build is in a state.
func (s *site) reached(id, state string) (b visitor.Build) {
	s.t.Helper()
	s.until("build "+id+" to be "+state, func() error {
		var err error
		if b, err = s.Build(s.t.Context(), id); err != nil || b.State == state {
			return err
		}
		if b.Ended() {
			s.t.Fatalf("build #%d ended as %s (%s), not as %s", b.Number, b.State, b.Reason, state)
		}
		return fmt.Errorf("it is %s", b.State)
	})
	return b
}

// shown waits until the one status of a build's commit and branch on Bitbucket is as it
// has to be.
func (s *site) shown(b visitor.Build, state string) {
	s.t.Helper()
	s.until(fmt.Sprintf("status %s of build #%d on Bitbucket", state, b.Number), func() error {
		all, err := s.Statuses(s.t.Context(), shop, b.Commit)
		if err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(st visitor.Status) bool { return st.Refname != b.Branch })
		if len(all) != 1 || all[0].State != state {
			return fmt.Errorf("Bitbucket shows %+v", all)
		}
		if st := all[0]; st.URL != s.Hub+"/builds/"+b.ID || len(st.Key) > 40 {
			s.t.Fatalf("the status is %+v; it has to lead to build %s", st, b.ID)
		}
		return nil
	})
}

// ended waits until a build and what Bitbucket shows of it are at their end.
func (s *site) ended(id, state string) visitor.Build {
	s.t.Helper()
	b := s.reached(id, state)
	status := state
	if state == "ERROR" || state == "TIMEOUT" {
		status = "FAILED"
	}
	s.shown(b, status)
	return b
}

// whole answers all of the log of a build that has ended, once all of it is there.
func (s *site) whole(id string) (all []visitor.LogLine) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	s.must(s.Follow(ctx, id, func(l visitor.LogLine) { all = append(all, l) }))
	return all
}

// logged waits until a build's log has a line. It reads on from where it was: a build that writes faster than its log can be read has no end of it.
func (s *site) logged(id, text string) {
	s.t.Helper()
	var read []visitor.LogLine
	cursor := ""
	s.until(fmt.Sprintf("the line %q", text), func() error {
		page, err := s.Log(s.t.Context(), id, cursor)
		if err != nil {
			return err
		}
		for _, l := range page.Items {
			if l.Text == text {
				return nil
			}
		}
		read, cursor = append(read, page.Items...), page.Cursor
		return fmt.Errorf("the log is %+v", read)
	})
}

// delivery waits for one that was decided and of which is true.
func (s *site) delivery(what string, is func(visitor.Delivery) bool) (found visitor.Delivery) {
	s.t.Helper()
	s.until(what, func() error {
		all, err := s.Deliveries(s.t.Context(), s.app)
		if err != nil {
			return err
		}
		for _, d := range all {
			if len(d.Decisions) > 0 && is(d) {
				found = d
				return nil
			}
		}
		return fmt.Errorf("the deliveries are %+v", all)
	})
	return found
}

// decided waits for a decision about ref in a delivery of an event, and answers it.
func (s *site) decided(event, ref, decision, reason string) (found visitor.Decision) {
	s.t.Helper()
	s.delivery(fmt.Sprintf("%s of %s: %s %q", event, ref, decision, reason), func(d visitor.Delivery) bool {
		for _, found = range d.Decisions {
			if d.Event == event && found.Ref == ref && found.Decision == decision && strings.Contains(found.Reason, reason) {
				return true
			}
		}
		return false
	})
	return found
}

// faults sets the sandbox's faults; none clears them.
func (s *site) faults(faults map[string]any) {
	s.t.Helper()
	s.must(s.Control(s.t.Context(), http.MethodPut, "/faults", faults, nil))
}

// call is an API call that the sandbox got.
type call struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Status int    `json:"status"`
	Auth   string `json:"auth"`
	Lost   bool   `json:"answer_lost"`
}

// calls answers those of a method whose path ends in a text.
func (s *site) calls(method, suffix string) []call {
	s.t.Helper()
	var all visitor.List[call]
	s.must(s.Control(s.t.Context(), http.MethodGet, "/calls", nil, &all))
	return slices.DeleteFunc(all.Items, func(c call) bool { return c.Method != method || !strings.HasSuffix(c.Path, suffix) })
}

// refused checks that a call was answered with a status.
func (s *site) refused(err error, status int, what string) {
	s.t.Helper()
	var refusal *visitor.Refusal
	if !errors.As(err, &refusal) || refusal.Status != status {
		s.t.Errorf("%s: %v; expected %d", what, err, status)
	}
}
