package dispatch_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
)

const (
	queues = "name: Shop\ntriggers: [push]\nconcurrency:\n  cancel_in_progress: false\nsteps:\n  - run: make\n"
	deploy = "name: Shop\ntriggers: [push]\nconcurrency:\n  group: deploy\nsteps:\n  - run: make\n"
)

// given answers the numbers of the builds that were given to the runner, in that order.
func given(b *dispatchtest.Bench) (numbers []int) {
	b.Helper()
	for _, job := range b.Runner.Jobs() {
		got, err := b.Build(b.Context(), job.Build)
		b.Must(err)
		numbers = append(numbers, got.Number)
	}
	b.Check(b.T)
	return numbers
}

func (p *pushes) expect(want ...int) {
	p.Helper()
	p.Pump()
	if got := given(p.Bench); !slices.Equal(got, want) {
		p.Errorf("given to the runner are %v, want %v", got, want)
	}
}

func (p *pushes) number(n int) store.Build {
	p.Helper()
	page, err := p.Builds(p.Context(), dispatchtest.App, "", 100)
	p.Must(err)
	return page.Items[len(page.Items)-n]
}

// The builds of a branch run in the order of its pushes, one after the other, however they end.
func TestOneAfterTheOther(t *testing.T) {
	t.Parallel()
	p := newPushes(t, queues, 4)
	c, dana := controls(p.Bench)
	for i := range 4 {
		p.tells(i, i+1)
	}
	head := p.Commit("feature", "x", "1")
	p.Deliver("feature", "repo:push", p.Push(dispatchtest.Change{Name: "feature", New: head}))
	p.expect(1, 5) // another branch does not wait
	told := []store.Build{p.number(4)}
	p.Must(p.TellTurns(t.Context(), told))
	if b := told[0]; b.State != ci.Queued || b.Reason != "waits for #1 of its concurrency group to end" {
		t.Errorf("#4 is %s: %q", b.State, b.Reason)
	}
	p.Must(c.Cancel(t.Context(), dana, p.number(3).ID))
	p.expect(1, 5)
	a := p.Claim(p.Runner.Jobs()[0])
	p.Must(c.Cancel(t.Context(), dana, p.number(1).ID))
	p.expect(1, 5)
	a.Says(runner.VerdictStopped)
	p.expect(1, 5, 2)
	p.Claim(p.Last()).Says(runner.VerdictTimeout)
	p.expect(1, 5, 2, 4)
	p.Claim(p.Last()).Says(runner.VerdictSuccessful)
	p.expect(1, 5, 2, 4)
	if got, want := states(p.Bench), "STOPPED, TIMEOUT, STOPPED, SUCCESSFUL, on"; got != want {
		t.Errorf("the builds are: %s; want %s", got, want)
	}
}

// A group with a name is one for all branches. Where the runner refuses a build, or its file is broken, the next goes on.
func TestANamedGroup(t *testing.T) {
	t.Parallel()
	p := newPushes(t, deploy, 2)
	p.Runner.OnStart(func(job runner.Job) error {
		if b, err := p.Build(t.Context(), job.Build); err != nil || b.Number == 2 {
			return fault.New(fault.Invalid, "no such machine")
		}
		return nil
	})
	p.tells(0, 1)
	head := p.Commit("feature", "x", "1")
	p.Deliver("feature", "repo:push", p.Push(dispatchtest.Change{Name: "feature", New: head}))
	broken := p.Commit("broken", ".runnerhub/runnerhub.yml", "steps: 1")
	p.Deliver("broken", "repo:push", p.Push(dispatchtest.Change{Name: "broken", New: broken}))
	p.tells(1, 2)
	p.expect(1)
	p.Claim(p.Last()).Says(runner.VerdictFailed)
	p.expect(1, 2, 4)
	if got, want := states(p.Bench), "FAILED, ERROR, ERROR, on"; got != want {
		t.Errorf("the builds are: %s; want %s", got, want)
	}
}

// Pushes whose events come in another order run in the order of the branch, as far as they have not begun.
func TestTurnsOfSwappedEvents(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before int // builds of other groups that the runner is busy with
		events [][2]int
		want   []int // numbers, in the order of their turns
	}{
		"in order":                           {0, [][2]int{{0, 1}, {1, 2}, {2, 3}}, []int{1, 2, 3}},
		"the last two swapped":               {0, [][2]int{{0, 1}, {2, 3}, {1, 2}}, []int{1, 3, 2}},
		"the first has begun":                {0, [][2]int{{1, 2}, {0, 1}}, []int{1, 2}},
		"the first waits for a runner":       {2, [][2]int{{1, 2}, {0, 1}}, []int{4, 3}},
		"all backwards, none has begun":      {2, [][2]int{{2, 3}, {1, 2}, {0, 1}}, []int{5, 4, 3}},
		"the branch is back at the late one": {2, [][2]int{{3, 1}, {1, 3}}, []int{3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPushes(t, queues, 3)
			for i := range test.before {
				p.Deliver(fmt.Sprint("busy", i), "repo:push", p.Push(dispatchtest.Change{Name: fmt.Sprint("busy", i), New: p.Main}))
				p.Pump()
			}
			busy := p.Runner.Jobs()
			for _, e := range test.events {
				p.tells(e[0], e[1])
			}
			for _, job := range busy {
				p.Claim(job).Says(runner.VerdictSuccessful)
			}
			p.Pump()
			for range test.want {
				p.Claim(p.Last()).Says(runner.VerdictSuccessful)
				p.Pump()
			}
			if got := given(p.Bench)[len(busy):]; !slices.Equal(got, test.want) {
				t.Errorf("the turns were of %v, want %v", got, test.want)
			}
		})
	}
}

// So do the builds of a pull request, whatever tells of the order: pushes, or Bitbucket's clock.
func TestTurnsOfAPullRequest(t *testing.T) {
	t.Parallel()
	queues := strings.Replace(queues, "[push]", "[push, pull_request]", 1)
	for name, test := range map[string]struct {
		before   bool // the runner is busy
		timeless bool
		events   string
		want     []int // commits, in the order of their turns
	}{
		"both, in order":                    {false, true, "1 01 2 12 3 23", []int{1, 2, 3}},
		"both, the last two swapped":        {false, true, "1 01 3 23 2 12", []int{1, 2, 3}},
		"both, backwards":                   {true, true, "3 23 2 12 1 01", []int{1, 2, 3}},
		"the pushes are lost":               {false, false, "1 3 2", []int{1, 2, 3}},
		"the pushes are lost, backwards":    {true, false, "3 2 1", []int{1, 2, 3}},
		"the pushes are lost, 3 1 2":        {true, false, "3 1 2", []int{1, 2, 3}},
		"nothing tells":                     {false, true, "1 3 2", []int{1, 3, 2}},
		"the first has begun, and is newer": {false, false, "3 1 2", []int{3, 1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRevisions(t, queues)
			if test.timeless {
				r.at = timeless
				r.shows(3)
			}
			if test.before {
				for i := range 2 {
					r.Deliver(fmt.Sprint("busy", i), "repo:push", r.Push(dispatchtest.Change{Name: fmt.Sprint("busy", i), New: r.Main}))
					r.Pump()
				}
			}
			busy := r.Runner.Jobs()
			r.tell(strings.Fields(test.events)...)
			for _, job := range busy {
				r.Claim(job).Says(runner.VerdictSuccessful)
			}
			r.Pump()
			for range test.want {
				r.Claim(r.Last()).Says(runner.VerdictSuccessful)
				r.Pump()
			}
			var got []int
			for _, n := range given(r.Bench)[len(busy):] {
				got = append(got, slices.Index(r.hashes, r.number(n).Commit))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("the turns were of %v, want %v", got, test.want)
			}
		})
	}
}

// Several instances admit at once, again and again, while turns are passed on: no two builds of a group are at the runner.
func TestTurnsOfManyInstances(t *testing.T) {
	t.Parallel()
	p := newPushes(t, deploy, 1)
	const builds = 6
	for i := range builds {
		p.Deliver(fmt.Sprint("d", i), "repo:push", p.Push(dispatchtest.Change{Name: fmt.Sprint("branch", i), New: p.hashes[1]}))
	}
	p.Pump()
	for n := 1; n <= builds; n++ {
		jobs := p.Runner.Jobs()
		if len(jobs) != n {
			t.Fatalf("%d builds were given to the runner, want %d", len(jobs), n)
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if err := p.Dispatch.Admit(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Go(func() { p.Claim(jobs[n-1]).Says(runner.VerdictSuccessful) })
		all.Wait()
		p.Pump()
	}
	p.Check(t)
}

// The process dies at each write and message of the end of a build: the next has its turn all the same.
func TestTurnsDie(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"write", "message to reports", "message to deliveries"} {
		for n := 1; n <= 4; n++ {
			t.Run(fmt.Sprint(of, n), func(t *testing.T) {
				t.Parallel()
				p := newPushes(t, queues, 2)
				c, dana := controls(p.Bench)
				p.Deliver("busy1", "repo:push", p.Push(dispatchtest.Change{Name: "busy1", New: p.Main}))
				p.Deliver("busy2", "repo:push", p.Push(dispatchtest.Change{Name: "busy2", New: p.Main}))
				p.tells(0, 1)
				p.tells(1, 2)
				p.expect(1, 2)
				p.Claim(p.Last()).Says(runner.VerdictSuccessful)
				dead := func(i int, do func() error) error {
					if i >= n {
						return fault.New(fault.Unavailable, "the process died")
					}
					return do()
				}
				switch of {
				case "write":
					p.Table.OnTransact(dispatchtest.Numbered(dead))
				case "message to reports":
					p.Reports.OnPublish(dead)
				default:
					p.Deliveries.OnPublish(dead)
				}
				_ = c.Cancel(t.Context(), dana, p.number(3).ID) // whose turn it is
				p.Pump()
				p.Table.OnTransact(nil)
				p.Reports.OnPublish(nil)
				p.Deliveries.OnPublish(nil)
				p.Drop()
				for range 4 {
					p.Clock.Add(2 * time.Minute)
					p.Must(p.Sweep.Run(t.Context()))
					p.Pump()
				}
				if b := p.number(3); !b.State.Final() {
					p.Must(c.Cancel(t.Context(), dana, b.ID))
					p.Pump()
					for range 4 {
						p.Clock.Add(2 * time.Minute)
						p.Must(p.Sweep.Run(t.Context()))
						p.Pump()
					}
				}
				if b := p.number(4); b.Attempt == "" {
					t.Errorf("#4 is %s: %s", b.State, b.Reason)
				}
				p.Check(t)
			})
		}
	}
}
