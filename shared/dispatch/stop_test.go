package dispatch_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/control"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
)

// controls are those of the Bench's users, of whom there is one: dana, who may run builds.
func controls(b *dispatchtest.Bench) (*control.Control, string) {
	b.Helper()
	dana, err := b.SignIn(b.Context(), "{dana}", "dana", "Dana")
	b.Must(err)
	body, err := json.Marshal(ci.Member{Workspace: dispatchtest.Workspace, User: dana.ID, Role: ci.Editor})
	b.Must(err)
	at := table.Key{Partition: "WORKSPACE#" + dispatchtest.Workspace, Sort: "MEMBER#" + dana.ID}
	b.Must(b.Table.Transact(b.Context(), table.Put(table.Item{Key: at, Body: body}, table.Condition{})))
	c, err := control.New(control.Deps{Store: b.Store, Deliveries: b.Deliveries, Reports: b.Reports, Now: b.Clock.Now, Log: b.Log})
	b.Must(err)
	return c, dana.ID
}

// started makes a build, and has it admitted.
func started(b *dispatchtest.Bench) store.Build {
	b.Helper()
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: old, New: b.Main}))
	b.Pump()
	return b.TheBuild()
}

// stoppedBy fails the test unless a build ended as the user wanted it, and its commit says so.
func stoppedBy(b *dispatchtest.Bench, build string) {
	b.Helper()
	b.Pump()
	got, err := b.Build(b.Context(), build)
	b.Must(err)
	if got.State != ci.Stopped || got.Reason != "stopped by dana" {
		b.Errorf("build %s: %q", got.State, got.Reason)
	}
	if shown := b.Shown(got.Commit, got.Branch); shown != ci.StatusStopped {
		b.Errorf("the commit shows %q", shown)
	}
	if waits, err := b.Admitted(b.Context(), "local"); err != nil || slices.Contains(waits, build) {
		b.Errorf("slots of %v, %v", waits, err)
	}
	b.Check(b.T)
}

func TestCancelWaiting(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	c, dana := controls(b)
	for i := range 3 { // the runner takes two
		b.Deliver(fmt.Sprint(i), "repo:push", b.Push(dispatchtest.Change{Name: fmt.Sprint("release/", i), New: b.Main}))
		b.Pump()
		b.Clock.Add(time.Second)
	}
	waiting := b.TheBuild()
	if waiting.Attempt != "" {
		t.Fatalf("%+v", waiting)
	}
	b.Must(c.Cancel(t.Context(), dana, waiting.ID))
	if got, err := b.Build(t.Context(), waiting.ID); err != nil || got.State != ci.Stopped {
		t.Errorf("%s, %v", got.State, err)
	}
	stoppedBy(b, waiting.ID)
	if err := c.Cancel(t.Context(), dana, waiting.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("an ended build: %v", err)
	}
	if len(b.Runner.Stopped()) != 0 {
		t.Errorf("stopped %v", b.Runner.Stopped())
	}
}

// A build that is admitted and not claimed runs nothing, and nothing may claim it.
func TestCancelBeforeTheClaim(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	c, dana := controls(b)
	made := started(b)
	b.Must(c.Cancel(t.Context(), dana, made.ID))
	_, err := b.Report.Claim(t.Context(), runner.ClaimRequest{Ticket: b.Last().Ticket.Reveal(), Nonce: dispatchtest.Nonce})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("claimed: %v", err)
	}
	b.Must(c.Cancel(t.Context(), dana, made.ID)) // again
	stoppedBy(b, made.ID)
	if got := b.Runner.Stopped(); !slices.Contains(got, made.Reference) || made.Reference == "" {
		t.Errorf("stopped %v, not %s", got, made.Reference)
	}
	b.PumpFor(10 * time.Minute)
	b.Must(b.Sweep.Run(t.Context()))
	b.Pump()
	if jobs := b.Runner.Jobs(); len(jobs) != 1 {
		t.Errorf("%d attempts", len(jobs))
	}
}

func TestCancelRunning(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end  func(b *dispatchtest.Bench, a *dispatchtest.Agent, made store.Build)
		want ci.State
	}{
		"its agent says so": {func(_ *dispatchtest.Bench, a *dispatchtest.Agent, _ store.Build) {
			a.Says(runner.VerdictStopped)
		}, ci.Stopped},
		"its agent went down over it": {func(_ *dispatchtest.Bench, a *dispatchtest.Agent, _ store.Build) {
			a.Says(runner.VerdictError)
		}, ci.Stopped},
		"it succeeded first": {func(_ *dispatchtest.Bench, a *dispatchtest.Agent, _ store.Build) {
			a.Says(runner.VerdictSuccessful)
		}, ci.Successful},
		"it failed first": {func(_ *dispatchtest.Bench, a *dispatchtest.Agent, _ store.Build) {
			a.Says(runner.VerdictFailed)
		}, ci.Failed},
		"its runner says so": {func(b *dispatchtest.Bench, _ *dispatchtest.Agent, made store.Build) {
			b.Runner.Set(made.Reference, runner.State{Phase: runner.Ended, Result: runner.Stopped})
			b.Clock.Add(time.Hour)
			b.Must(b.Sweep.Run(b.Context()))
		}, ci.Stopped},
		"nobody says anything": {func(b *dispatchtest.Bench, _ *dispatchtest.Agent, _ store.Build) {
			for range 4 {
				b.Clock.Add(time.Minute)
				b.Must(b.Sweep.Run(b.Context()))
				b.Pump()
			}
		}, ci.Stopped},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, onMain)
			c, dana := controls(b)
			made := started(b)
			a := b.Claim(b.Last())
			a.Says("")
			b.Must(c.Cancel(t.Context(), dana, made.ID))
			b.Pump()
			if got := b.TheBuild(); got.State != ci.Running || got.Reason != "is being ended: stopped by dana" {
				t.Errorf("%s %q", got.State, got.Reason)
			}
			if got := b.Runner.Stopped(); len(got) != 1 || got[0] != made.Reference {
				t.Errorf("stopped %v", got)
			}
			answer, err := b.Report.Steps(t.Context(), runner.Report{Ticket: b.Last().Ticket.Reveal(), Nonce: dispatchtest.Nonce, Sequence: 1})
			if err != nil || !answer.Stop {
				t.Errorf("its agent is answered %+v, %v", answer, err)
			}
			test.end(b, a, made)
			b.Pump()
			got := b.TheBuild()
			if got.State != test.want {
				t.Errorf("ended %s, %q", got.State, got.Reason)
			}
			if test.want == ci.Stopped {
				stoppedBy(b, made.ID)
			}
			if err := c.Cancel(t.Context(), dana, made.ID); !fault.Is(err, fault.Conflict) {
				t.Errorf("an ended build: %v", err)
			}
			b.Check(t)
		})
	}
}

// The message is lost: the sweep leaves it again.
func TestCancelUnheard(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	c, dana := controls(b)
	made := started(b)
	b.Deliveries.Refuse(fault.New(fault.Unavailable, "the queue is away"))
	b.Must(c.Cancel(t.Context(), dana, made.ID)) // it is stored
	b.Deliveries.Refuse(nil)
	b.Drop()
	b.Pump()
	if got := b.Runner.Stopped(); len(got) != 0 {
		t.Errorf("stopped %v", got)
	}
	b.Clock.Add(time.Minute + time.Second)
	b.Must(b.Sweep.Run(t.Context()))
	stoppedBy(b, made.ID)
	if got := b.Runner.Stopped(); len(got) != 1 {
		t.Errorf("stopped %v", got)
	}
}

// The runner answers a start after the build was cancelled: before the runner was told to
// stop, and after the build had ended without it.
func TestCancelDuringTheStart(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]bool{"before the message": false, "after the message": true} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", fails), func(t *testing.T) {
				t.Parallel()
				b := dispatchtest.New(t, onMain)
				c, dana := controls(b)
				b.Runner.OnStart(func(job runner.Job) error {
					b.Runner.OnStart(nil)
					b.Must(c.Cancel(t.Context(), dana, job.Build))
					if ended {
						messages, err := b.Deliveries.Receive(t.Context(), 10, 0)
						b.Must(err)
						for _, m := range messages {
							b.Must(b.Dispatch.Handle(t.Context(), m))
							b.Must(b.Deliveries.Delete(t.Context(), m.Receipt))
						}
						if got := b.TheBuild(); got.State != ci.Stopped {
							t.Errorf("%s", got.State)
						}
					}
					if fails {
						return fault.New(fault.Unavailable, "no answer")
					}
					return nil
				})
				made := started(b)
				stoppedBy(b, made.ID)
				b.PumpFor(5 * time.Minute)
				if jobs := b.Runner.Jobs(); len(jobs) != 1 {
					t.Errorf("%d attempts", len(jobs))
				}
				if got := b.Runner.Stopped(); !fails && !slices.Contains(got, "ref-"+made.Attempt) {
					t.Errorf("stopped %v", got)
				}
				stoppedBy(b, made.ID)
			})
		}
	}
}

// An attempt that ended before its checkout is not made again.
func TestCancelBetweenAttempts(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	c, dana := controls(b)
	made := started(b)
	b.Transport.Answer(func(r *http.Request) int { return http.StatusServiceUnavailable })
	_, err := b.Report.Claim(t.Context(), runner.ClaimRequest{Ticket: b.Last().Ticket.Reveal(), Nonce: dispatchtest.Nonce})
	if err == nil {
		t.Error("claimed")
	}
	b.Transport.Answer(nil)
	_, err = b.Report.Steps(t.Context(), runner.Report{Ticket: b.Last().Ticket.Reveal(), Nonce: dispatchtest.Nonce, Sequence: 1, Result: runner.VerdictError})
	b.Must(err) // another attempt is asked for
	b.Must(c.Cancel(t.Context(), dana, made.ID))
	stoppedBy(b, made.ID)
	b.PumpFor(10 * time.Minute)
	if jobs := b.Runner.Jobs(); len(jobs) != 1 {
		t.Errorf("%d attempts", len(jobs))
	}
}

// Whatever is done last when the process dies, cancelling and ending at once come to one end.
func TestCancelDies(t *testing.T) {
	t.Parallel()
	for at := range 6 {
		for _, after := range []bool{false, true} {
			b := dispatchtest.New(t, onMain)
			c, dana := controls(b)
			made := started(b)
			a := b.Claim(b.Last())
			b.Table.OnTransact(dispatchtest.Numbered(func(n int, do func() error) error {
				if n != at+1 {
					return do()
				}
				if after {
					b.Must(do())
				}
				return fault.New(fault.Unknown, "the process died")
			}))
			_ = c.Cancel(t.Context(), dana, made.ID)
			b.Table.OnTransact(nil)
			b.Must(c.Cancel(t.Context(), dana, made.ID))
			b.Pump()
			a.Says(runner.VerdictStopped)
			stoppedBy(b, made.ID)
		}
	}
}

// The answer of the write that ends a waiting build is lost: who cancelled it is told of success all the same, and who comes after is not.
func TestCancelWithALostAnswer(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	c, dana := controls(b)
	for i := range 3 { // the runner takes two
		b.Deliver(fmt.Sprint(i), "repo:push", b.Push(dispatchtest.Change{Name: fmt.Sprint("release/", i), New: b.Main}))
		b.Pump()
		b.Clock.Add(time.Second)
	}
	waiting := b.TheBuild()
	b.Table.OnTransact(dispatchtest.Numbered(func(n int, do func() error) error {
		if err := do(); err != nil || n > 1 {
			return err
		}
		return fault.New(fault.Unknown, "the answer was lost")
	}))
	b.Must(c.Cancel(t.Context(), dana, waiting.ID))
	b.Table.OnTransact(nil)
	stoppedBy(b, waiting.ID)
	if err := c.Cancel(t.Context(), dana, waiting.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("the second time: %v", err)
	}
}
