package dispatch_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

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

// revisions are three commits of a pull request's branch, of which Bitbucket has the last one, and the events that tell of them.
type revisions struct {
	*pushes
	pr   int
	told int
	at   func(commit int) time.Time // Bitbucket's time of the pull request's event; zero is left out
}

func newRevisions(t *testing.T, file string) *revisions {
	t.Helper()
	r := &revisions{pushes: &pushes{dispatchtest.New(t, file), "feature", nil}}
	r.hashes = []string{r.Main}
	for i := range 3 {
		r.hashes = append(r.hashes, r.Commit("feature", "x", fmt.Sprint(i)))
	}
	r.pr = r.OpenPullRequest("feature", "main")
	opened := r.Clock.Now()
	r.at = func(commit int) time.Time { return opened.Add(time.Duration(commit-3) * time.Minute) }
	return r
}

// tell delivers events: "2" is the pull request's of the second commit, "12" the push from the first to it.
func (r *revisions) tell(events ...string) {
	r.Helper()
	for _, e := range events {
		to := int(e[len(e)-1] - '0')
		r.told++
		if len(e) == 2 {
			from := r.hashes[to-1]
			if to == 1 {
				from = "" // the branch is new
			}
			one(r.Bench, r.Deliver(fmt.Sprint("told-", r.told), "repo:push", r.Push(dispatchtest.Change{Name: "feature", Old: from, New: r.hashes[to]})))
			continue
		}
		body := r.PullRequest(r.pr, "feature", r.hashes[to], "main", func(pr map[string]any) {
			if at := r.at(to); !at.IsZero() {
				pr["updated_on"] = at.Format(time.RFC3339Nano)
			}
		})
		one(r.Bench, r.Deliver(fmt.Sprint("told-", r.told), "pullrequest:updated", body))
	}
}

// commits answers of which commits the builds are that are on, in the order of their numbers.
func (r *revisions) commits() (on []int) {
	r.Helper()
	states(r.Bench)
	page, err := r.Builds(r.Context(), dispatchtest.App, "", 100)
	r.Must(err)
	for _, b := range slices.Backward(page.Items) {
		if !b.State.Final() {
			on = append(on, slices.Index(r.hashes, b.Commit))
		}
	}
	return on
}

func timeless(int) time.Time { return time.Time{} }

// The events of a pull request, and of the pushes to its branch, come in any order.
func TestSupersededPullRequest(t *testing.T) {
	t.Parallel()
	both := [][]string{
		{"3", "23", "2", "12", "1", "01"}, {"3", "23", "1", "01", "2", "12"}, {"23", "3", "1", "01", "12", "2"}, {"1", "01", "3", "23", "2", "12"},
	}
	alone := [][]string{{"1", "2", "3"}, {"1", "3", "2"}, {"2", "1", "3"}, {"2", "3", "1"}, {"3", "1", "2"}, {"3", "2", "1"}}
	for name, test := range map[string]struct {
		orders [][]string
		edit   func(r *revisions)
		sure   bool // that what is outdated is stopped, and not only that the newest one is not
	}{
		"with pushes":               {both, nil, true},
		"by Bitbucket's clock":      {alone, nil, true},
		"and no clock":              {alone, func(r *revisions) { r.at = timeless }, false},
		"a clock that stands":       {alone, func(r *revisions) { at := r.Clock.Now(); r.at = func(int) time.Time { return at } }, false},
		"Bitbucket is behind":       {alone, func(r *revisions) { r.shows(1) }, false},
		"and behind, of all events": {both, func(r *revisions) { r.shows(1) }, false},
		"and behind, with no clock": {both, func(r *revisions) { r.at = timeless; r.shows(2) }, false},
	} {
		for _, order := range test.orders {
			t.Run(fmt.Sprint(name, order), func(t *testing.T) {
				t.Parallel()
				r := newRevisions(t, cancels)
				if test.edit != nil {
					test.edit(r)
				}
				for _, e := range order {
					r.tell(e)
				}
				if got := r.commits(); !slices.Contains(got, 3) || test.sure && len(got) != 1 {
					t.Errorf("the builds are: %s", states(r.Bench))
				}
				for _, e := range order { // each once more
					r.tell(e)
				}
				if got := r.commits(); !slices.Contains(got, 3) || test.sure && len(got) != 1 || r.Count() != 3 {
					t.Errorf("after repeats the builds are: %s", states(r.Bench))
				}
			})
		}
	}
}

// What a push says of its pull request's build is known when the next event comes, without Bitbucket's clock.
func TestWhatAPushSaidIsKept(t *testing.T) {
	t.Parallel()
	for order, want := range map[string]string{"3 23 2 12": "on, by 1", "3 2 23": "on, by 1", "3 2": "on, on", "23 2": "on, by 1"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			r := newRevisions(t, cancels)
			r.at = timeless
			r.Transport.Say(func(q *http.Request) any { // nor from its lists
				if strings.HasSuffix(q.URL.Path, "/pullrequests") {
					return map[string]any{"values": []any{r.PullRequest(r.pr, "feature", r.hashes[3], "main")["pullrequest"]}}
				}
				return nil
			})
			r.tell(strings.Fields(order)...)
			if got := states(r.Bench); got != want {
				t.Errorf("the builds are: %s; want %s", got, want)
			}
		})
	}
}

// A pull request is pushed back, and the event of what it was in between comes last.
func TestSupersededByAnEarlierCommit(t *testing.T) {
	t.Parallel()
	r := newRevisions(t, cancels)
	r.shows(1)
	opened := r.Clock.Now()
	r.tell("1")
	r.at = func(int) time.Time { return opened.Add(3 * time.Minute) }
	r.tell("1") // it is that again
	r.at = func(int) time.Time { return opened.Add(2 * time.Minute) }
	r.shows(2) // Bitbucket is behind
	r.tell("2")
	if got := r.commits(); !slices.Contains(got, 1) {
		t.Errorf("the builds are: %s", states(r.Bench))
	}
	r.shows(1)
	r.tell("2")
	if got, want := states(r.Bench), "on, by 1"; got != want {
		t.Errorf("the builds are: %s; want %s", got, want)
	}
}

// shows has Bitbucket show one of the commits as that of the pull request and its branch, with its time.
func (r *revisions) shows(commit int) {
	r.Helper()
	at := r.at(commit)
	r.Transport.Say(func(q *http.Request) any {
		pr := r.PullRequest(r.pr, "feature", r.hashes[commit], "main", func(pr map[string]any) {
			if !at.IsZero() {
				pr["updated_on"] = at.Format(time.RFC3339Nano)
			}
		})["pullrequest"]
		switch {
		case strings.HasSuffix(q.URL.Path, fmt.Sprint("/pullrequests/", r.pr)):
			return pr
		case strings.HasSuffix(q.URL.Path, "/pullrequests"):
			return map[string]any{"values": []any{pr}}
		case strings.HasSuffix(q.URL.Path, "/refs/branches/feature"):
			return map[string]any{"name": "feature", "target": map[string]any{"hash": r.hashes[commit]}}
		}
		return nil
	})
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
