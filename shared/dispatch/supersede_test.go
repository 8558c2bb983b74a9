package dispatch_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
)

const (
	cancels = "name: Shop\ntriggers: [push, pull_request]\nconcurrency:\n  cancel_in_progress: true\nsteps:\n  - run: make\n"
	grouped = "name: Shop\ntriggers: [push]\nconcurrency:\n  group: deploy\n  cancel_in_progress: true\nsteps:\n  - run: make\n"
	plain   = "name: Shop\ntriggers: [push]\nsteps:\n  - run: make\n"
)

// states answers how the builds of a Bench stand, by number: their state, or the number
// of the one that superseded them.
func states(b *dispatchtest.Bench) string {
	b.Helper()
	b.Pump()
	page, err := b.Builds(b.Context(), dispatchtest.App, "", 100)
	b.Must(err)
	slices.Reverse(page.Items)
	var out []string
	for _, x := range page.Items {
		said := string(x.State)
		switch {
		case x.SupersededBy != nil:
			said = fmt.Sprint("by ", x.SupersededBy.Number)
			if x.State != ci.Stopped || x.Reason != fmt.Sprintf("superseded by #%d", x.SupersededBy.Number) {
				b.Errorf("#%d is %s: %q", x.Number, x.State, x.Reason)
			}
		case x.State == ci.Starting || x.State == ci.Queued:
			said = "on"
		}
		out = append(out, said)
	}
	b.Check(b.T)
	return strings.Join(out, ", ")
}

// pushes are commits on a branch, and the deliveries that tell of them.
type pushes struct {
	*dispatchtest.Bench
	branch string
	hashes []string // the first is where the branch was
}

func newPushes(t *testing.T, file string, n int) *pushes {
	t.Helper()
	b := dispatchtest.New(t, file)
	p := &pushes{b, "main", []string{b.Main}}
	for i := range n {
		p.hashes = append(p.hashes, b.Commit("main", "file", fmt.Sprint(i)))
	}
	return p
}

// tells delivers the push from one of the hashes to another, and has it decided.
func (p *pushes) tells(from, to int) {
	p.Helper()
	p.Deliver(fmt.Sprint(p.branch, from, to), "repo:push", p.Push(dispatchtest.Change{Name: p.branch, Old: p.hashes[from], New: p.hashes[to]}))
	p.Pump()
}

func TestSuperseded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file   string
		events [][2]int // of three pushes, the last of which is where the branch is
		want   string
	}{
		"in order":                        {cancels, [][2]int{{0, 1}, {1, 2}, {2, 3}}, "by 2, by 3, on"},
		"the first last":                  {cancels, [][2]int{{1, 2}, {2, 3}, {0, 1}}, "by 2, on, on"},
		"the last two swapped":            {cancels, [][2]int{{0, 1}, {2, 3}, {1, 2}}, "by 2, on, by 2"},
		"backwards":                       {cancels, [][2]int{{2, 3}, {1, 2}, {0, 1}}, "on, by 1, on"},
		"one of them lost":                {cancels, [][2]int{{0, 1}, {2, 3}}, "by 2, on"},
		"one of them lost, backwards":     {cancels, [][2]int{{2, 3}, {0, 1}}, "on, on"},
		"where nobody asked for it":       {plain, [][2]int{{0, 1}, {1, 2}, {2, 3}}, "on, on, on"},
		"back and forth, told in order":   {cancels, [][2]int{{3, 1}, {1, 3}}, "by 2, on"},
		"back and forth, told backwards":  {cancels, [][2]int{{1, 3}, {3, 1}}, "on, on"},
		"a commit that is the head again": {cancels, [][2]int{{0, 3}, {3, 1}}, "on, on"},
		"all builds of a group":           {grouped, [][2]int{{0, 1}, {1, 2}, {2, 3}}, "by 2, by 3, on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPushes(t, test.file, 3)
			for _, e := range test.events {
				p.tells(e[0], e[1])
			}
			if got := states(p.Bench); got != test.want {
				t.Errorf("the builds are: %s; want %s", got, test.want)
			}
			for _, x := range []string{p.hashes[1], p.hashes[3]} {
				for _, st := range p.Statuses(x) {
					if st[1] != "INPROGRESS" && st[1] != "STOPPED" {
						t.Errorf("commit %s shows %v", x, st)
					}
				}
			}
		})
	}
}

// The app asks for it, and its file does not.
func TestSupersededBySetting(t *testing.T) {
	t.Parallel()
	p := newPushes(t, plain, 2)
	_, err := p.ChangeApp(t.Context(), dispatchtest.App, func(a *ci.App) { a.CancelSuperseded = true })
	p.Must(err)
	p.tells(1, 2)
	p.tells(0, 1)
	if got, want := states(p.Bench), "on, by 1"; got != want {
		t.Errorf("the builds are: %s; want %s", got, want)
	}
}

// What runs is told to stop, and what ends by itself first keeps its end.
func TestSupersededRunning(t *testing.T) {
	t.Parallel()
	for verdict, want := range map[runner.Verdict]string{runner.VerdictStopped: "by 2, on", runner.VerdictSuccessful: "SUCCESSFUL, on"} {
		p := newPushes(t, cancels, 2)
		p.tells(0, 1)
		made := p.TheBuild()
		a := p.Claim(p.Last())
		p.tells(1, 2)
		got, err := p.Build(t.Context(), made.ID)
		p.Must(err)
		if got.State != ci.Running || !got.Stopping || got.Reason != "is being ended: superseded by #2" || !slices.Contains(p.Runner.Stopped(), got.Reference) {
			t.Errorf("%+v, stopped %v", got, p.Runner.Stopped())
		}
		a.Says(verdict)
		if got := states(p.Bench); got != want {
			t.Errorf("%s: the builds are: %s; want %s", verdict, got, want)
		}
	}
}

// Another branch, and another pull request, is another group; with a name it is the same.
func TestSupersededElsewhere(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{cancels: "on, on", grouped: "by 2, on"} {
		p := newPushes(t, file, 1)
		p.tells(0, 1)
		head := p.Commit("feature", "x", "1")
		p.Deliver("feature", "repo:push", p.Push(dispatchtest.Change{Name: "feature", New: head}))
		if got := states(p.Bench); got != want {
			t.Errorf("the builds are: %s; want %s", got, want)
		}
	}
}

func TestSupersededPullRequest(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, cancels)
	b.Commit("develop", "y", "1")
	heads := []string{b.Commit("feature", "x", "1"), b.Commit("feature", "x", "2")}
	pr := b.OpenPullRequest("feature", "main")
	// The event of the newer commit comes first, then the push of the older one.
	b.Deliver("2", "pullrequest:updated", b.PullRequest(pr, "feature", heads[1], "main"))
	b.Pump()
	b.Deliver("1", "pullrequest:created", b.PullRequest(pr, "feature", heads[0], "main"))
	if got, want := states(b), "on, on"; got != want {
		t.Errorf("the builds are: %s; want %s", got, want)
	}
	third := b.Commit("feature", "x", "3")
	b.Deliver("3", "repo:push", b.Push(dispatchtest.Change{Name: "feature", Old: heads[1], New: third}))
	if got, want := states(b), "by 3, by 3, on"; got != want {
		t.Errorf("the builds are: %s; want %s", got, want)
	}
}

// The process dies at each of its writes and messages once; and Bitbucket does not say where
// the branch is.
func TestSupersededDies(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 6; at++ {
		p := newPushes(t, cancels, 2)
		p.tells(0, 1)
		dead := func(n int, do func() error) error {
			if n == at {
				return fault.New(fault.Unavailable, "the process died")
			}
			return do()
		}
		p.Table.OnTransact(dispatchtest.Numbered(dead))
		p.tells(1, 2)
		p.Table.OnTransact(nil)
		p.PumpFor(20 * 1e9)
		p.Clock.Add(2 * 60 * 1e9)
		p.Must(p.Sweep.Run(t.Context()))
		if got, want := states(p.Bench), "by 2, on"; got != want {
			t.Errorf("died at %d: the builds are: %s; want %s", at, got, want)
		}
	}
	p := newPushes(t, cancels, 2)
	p.tells(0, 1)
	p.Transport.Answer(func(r *http.Request) int {
		if strings.Contains(r.URL.Path, "/refs/branches/") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	p.tells(1, 2)
	p.Transport.Answer(nil)
	p.PumpFor(20 * 1e9)
	if got, want := states(p.Bench), "by 2, on"; got != want {
		t.Errorf("the builds are: %s; want %s", got, want)
	}
}
