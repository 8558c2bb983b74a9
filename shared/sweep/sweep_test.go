package sweep_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
)

const file = "name: Shop\ntriggers: [push]\ntimeout: 10\nsteps:\n  - run: make\n"

func push(b *dispatchtest.Bench, n int) {
	b.Helper()
	b.Deliver(fmt.Sprint("d", n), "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: fmt.Sprintf("%040d", n), New: b.Main}))
}

// sweep lets time pass as it does in a service: a sweep a minute.
func sweep(b *dispatchtest.Bench, minutes int) {
	b.Helper()
	for range minutes {
		b.Clock.Add(time.Minute)
		b.Must(b.Sweep.Run(b.Context()))
		b.Pump()
	}
	b.Check(b.T)
}

func settled(b *dispatchtest.Bench, want ci.State) {
	b.Helper()
	made := b.TheBuild()
	st, err := b.Status(b.Context(), store.StatusOf(made))
	b.Must(err)
	if made.State != want || !st.Settled() || b.Shown(b.Main, "main") != want.Status() {
		b.Errorf("build is %s (%s), want %s; status %+v", made.State, made.Reason, want, st)
	}
}

// What a sweep says is one line in a log, however much goes wrong.
func TestManyErrors(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	for n := range 25 {
		b.Must(b.PutStray(b.Clock.Now(), store.DueBuild, fmt.Sprint("nobody", n)))
	}
	b.Table.OnTransact(func(int, []table.Write, func() error) error { return fault.New(fault.Unavailable, "the table is away") })
	b.Clock.Add(time.Minute)
	err := b.Sweep.Run(t.Context())
	if err == nil || strings.Count(err.Error(), "the table is away") != 10 || !strings.Contains(err.Error(), "and 15 more") {
		t.Errorf("it says %v", err)
	}
	b.Table.OnTransact(nil)
	b.Must(b.Sweep.Run(t.Context()))
}

func TestLostMessages(t *testing.T) {
	t.Parallel()
	t.Run("of a status", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, file)
		push(b, 1)
		b.Pump()
		b.Claim(b.Last()).Says(runner.VerdictSuccessful)
		b.Drop()
		sweep(b, 3)
		settled(b, ci.Successful)
	})
	t.Run("of the room that became free", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, file)
		for n := range 3 {
			push(b, n)
		}
		b.Pump()
		b.Claim(b.Last()).Says(runner.VerdictSuccessful)
		b.Drop()
		if n := len(b.Runner.Jobs()); n != 2 {
			t.Fatalf("%d starts", n)
		}
		sweep(b, 1)
		if n := len(b.Runner.Jobs()); n != 3 {
			t.Errorf("%d starts", n)
		}
	})
	t.Run("of another start", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, file)
		b.Runner.OnStart(func(runner.Job) error { return fault.New(fault.Unavailable, "down") })
		push(b, 1)
		b.Pump()
		b.Drop()
		b.Runner.OnStart(nil)
		sweep(b, 3)
		if n := len(b.Runner.Jobs()); n != 2 {
			t.Errorf("%d starts", n)
		}
		b.Claim(b.Last()).Says(runner.VerdictSuccessful)
		b.Pump()
		settled(b, ci.Successful)
	})
	t.Run("of a delivery that is undecided", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, file)
		b.Faults(map[string]any{"down": true})
		push(b, 1)
		b.Pump()
		b.Drop()
		b.Faults(nil)
		sweep(b, 17)
		if d := b.Decisions("d1"); d[0].Verdict != ci.Built {
			t.Errorf("%+v", d)
		}
	})
}

// Whoever admitted a build died before he gave it to the runner.
func TestDeathBeforeTheStart(t *testing.T) {
	t.Parallel()
	for _, recover := range []bool{false, true} {
		b := dispatchtest.New(t, file)
		b.Runner.OnStart(func(runner.Job) error {
			b.Table.OnTransact(dispatchtest.Numbered(func(int, func() error) error {
				return fault.New(fault.Unavailable, "the process is dead")
			}))
			b.Deliveries.Refuse(fault.New(fault.Unavailable, "the process is dead"))
			return nil
		})
		push(b, 1)
		b.Pump()
		b.Table.OnTransact(nil)
		b.Deliveries.Refuse(nil)
		b.Runner.OnStart(nil)
		b.Drop()
		if recover {
			b.Must(b.Sweep.Recover(t.Context()))
			b.Pump()
		} else {
			sweep(b, 3)
		}
		jobs := b.Runner.Jobs()
		if len(jobs) != 2 || jobs[0].Attempt == jobs[1].Attempt {
			t.Fatalf("%+v", jobs)
		}
		b.Claim(jobs[1]).Says(runner.VerdictSuccessful)
		b.Pump()
		settled(b, ci.Successful)
		b.Check(t)
	}
}

func TestEndedUnheard(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		state  runner.State
		want   ci.State
		reason string
	}{
		"lost":   {runner.State{Phase: runner.Lost, Detail: "the machine is gone"}, ci.Errored, "the machine is gone"},
		"failed": {runner.State{Phase: runner.Ended, Result: runner.Failed}, ci.Failed, "without a report"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, file)
			push(b, 1)
			b.Pump()
			job := b.Last()
			b.Claim(job)
			b.Runner.Set("ref-"+job.Attempt, test.state)
			sweep(b, 14)
			if made := b.TheBuild(); made.State != ci.Running {
				t.Errorf("within its time: %s", made.State)
			}
			sweep(b, 3)
			settled(b, test.want)
			if made := b.TheBuild(); !strings.Contains(made.Reason, test.reason) {
				t.Errorf("%s", made.Reason)
			}
		})
	}
	t.Run("before it began", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, file)
		push(b, 1)
		b.Pump()
		b.Runner.Set("ref-"+b.Last().Attempt, runner.State{Phase: runner.Lost})
		sweep(b, 4)
		if n := len(b.Runner.Jobs()); n != 2 {
			t.Errorf("%d starts", n)
		}
	})
	t.Run("at once when the server begins", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, file)
		push(b, 1)
		b.Pump()
		job := b.Last()
		b.Claim(job)
		due := b.TheBuild().DueAt
		b.Must(b.Sweep.Recover(t.Context()))
		b.Pump()
		if made := b.TheBuild(); made.State != ci.Running || !made.DueAt.Equal(due) {
			t.Errorf("a build at work: %s, due at %s", made.State, made.DueAt)
		}
		b.Runner.Set("ref-"+job.Attempt, runner.State{Phase: runner.Lost})
		b.Must(b.Sweep.Recover(t.Context()))
		b.Pump()
		settled(b, ci.Errored)
		b.Check(t)
	})
}

// Who says what time it is has everything looked at that is due by then.
func TestRunBy(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	push(b, 1)
	b.Pump()
	job := b.Last()
	b.Claim(job)
	b.Runner.Set("ref-"+job.Attempt, runner.State{Phase: runner.Lost})
	due := b.TheBuild().DueAt
	b.Must(b.Sweep.RunBy(t.Context(), due.Add(-time.Second)))
	b.Pump()
	if made := b.TheBuild(); made.State.Final() || !made.DueAt.Equal(due) {
		t.Errorf("before it was due: %s", made.State)
	}
	b.Must(b.Sweep.RunBy(t.Context(), due.Add(time.Second)))
	b.Pump()
	settled(b, ci.Errored)
	b.Check(t)
}

// Neither the agent nor the runner ended a build in time.
func TestOverdue(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	push(b, 1)
	b.Pump()
	job := b.Last()
	b.Claim(job)
	sweep(b, 19)
	if made := b.TheBuild(); made.State != ci.Running || len(b.Runner.Stopped()) != 0 {
		t.Errorf("after nine minutes too many: %s", made.State)
	}
	sweep(b, 6)
	settled(b, ci.TimedOut)
	if stopped := b.Runner.Stopped(); len(stopped) == 0 || stopped[0] != "ref-"+job.Attempt {
		t.Errorf("stopped %v", stopped)
	}
}

func TestWaitedTooLong(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	for n := range 3 {
		push(b, n)
	}
	b.Pump() // two are at work and stay there
	due := b.TheBuild().DueAt
	for hour := range 25 {
		b.Clock.Add(time.Hour)
		b.Must(b.Sweep.Run(t.Context()))
		b.Drop()
		if made := b.TheBuild(); hour < 23 && !made.DueAt.Equal(due) {
			t.Fatalf("a build that waits was looked at after %d hours", hour+1)
		}
	}
	if made := b.TheBuild(); made.State != ci.Errored || !strings.Contains(made.Reason, "past the limit of "+dispatch.WaitLimit.String()) {
		t.Errorf("%s: %s", made.State, made.Reason)
	}
	sweep(b, 2)
	settled(b, ci.Errored)
}

// Finding what was not lost does no harm, however often.
func TestNothingLost(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	for n := range 4 {
		push(b, n)
	}
	b.Pump()
	for range 5 {
		b.Must(b.Sweep.Recover(t.Context()))
	}
	b.Pump()
	if n := len(b.Runner.Jobs()); n != 2 {
		t.Errorf("%d starts", n)
	}
	for range 4 {
		b.Claim(b.Last()).Says(runner.VerdictSuccessful)
		b.Must(b.Sweep.Recover(t.Context()))
		b.Pump()
		if n := len(b.Runner.Jobs()); n == 4 {
			break
		}
	}
	b.Check(t)
}

// Entries that no record knows are dropped, and hold up nothing.
func TestStrayEntries(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	at := b.Clock.Now().Add(-time.Minute)
	b.Must(b.PutStray(at, store.DueBuild, "nobody", store.DueStatus, "r|c|k", store.DueStatus, "no reference", store.DueDelivery, "nothing"))
	b.Must(b.Sweep.Run(t.Context()))
	b.Pump()
	b.Check(t)
}

// A run whose time is over begins nothing more, and the line has had its turn by then.
func TestTimeRunsOut(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	for n := range 3 {
		push(b, n)
	}
	b.Pump() // two run, the third waits
	b.Claim(b.Last()).Says(runner.VerdictSuccessful)
	b.Drop()
	at := b.Clock.Now().Add(-time.Minute)
	b.Must(b.PutStray(at, store.DueBuild, "one", store.DueBuild, "two", store.DueDelivery, "three", store.DueDelivery, "four"))
	ctx, cancel := context.WithCancel(t.Context())
	b.Table.OnTransact(dispatchtest.Numbered(func(_ int, do func() error) error {
		defer cancel()
		return do()
	}))
	err := b.Sweep.Run(ctx)
	if n := b.Table.Transacts(); err == nil || !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%d entries were dropped, %v", n, err)
	}
	b.Table.OnTransact(nil)
	b.Pump()
	if n := len(b.Runner.Jobs()); n != 3 {
		t.Errorf("%d starts", n)
	}
	sweep(b, 1)
}

func TestErrorsAreAnswered(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	push(b, 1)
	b.Pump()
	ref := store.StatusOf(b.TheBuild())
	b.Must(message.Send(t.Context(), b.Reports, message.Report{Status: &ref}, 0))
	b.Claim(b.Last()).Says(runner.VerdictFailed)
	b.Drop()
	b.Clock.Add(2 * time.Minute)
	b.Reports.Refuse(fault.New(fault.Unavailable, "no queue"))
	if err := b.Sweep.Run(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	b.Reports.Refuse(nil)
	sweep(b, 3)
	settled(b, ci.Failed)
}

// life is a build from its delivery to its posted end, with an agent that asks again
// as long as it is not sent home, and a sweep a minute.
func life(b *dispatchtest.Bench) {
	b.Helper()
	b.Pump()
	for range 30 {
		for _, job := range b.Runner.Jobs() {
			ask := runner.ClaimRequest{Ticket: job.Ticket.Reveal(), Nonce: dispatchtest.Nonce}
			if _, err := b.Report.Claim(b.Context(), ask); err != nil {
				continue
			}
			_, _ = b.Report.Steps(b.Context(), runner.Report{
				Ticket: ask.Ticket, Nonce: ask.Nonce, Sequence: 1, Result: runner.VerdictSuccessful,
			})
		}
		b.Pump()
		b.Clock.Add(time.Minute)
		_ = b.Sweep.Run(b.Context())
		b.Pump()
	}
}

// Each write of a build's life, to the table and to the queues, fails once: before it
// is done, and after it was done with its answer lost. It ends the same way.
func TestEachWriteFailsOnce(t *testing.T) {
	t.Parallel()
	clean := dispatchtest.New(t, file)
	push(clean, 1)
	clean.Table.OnTransact(nil)
	clean.Deliveries.OnPublish(nil)
	clean.Reports.OnPublish(nil)
	life(clean)
	settled(clean, ci.Successful)
	writes := map[string]int{"table": clean.Table.Transacts(), "deliveries": clean.Deliveries.Published(), "reports": clean.Reports.Published()}
	for where, n := range writes {
		if n == 0 {
			t.Fatalf("nothing is written to %s", where)
		}
		for k := 1; k <= n; k++ {
			for _, done := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %d, done %v", where, k, done), func(t *testing.T) {
					t.Parallel()
					b := dispatchtest.New(t, file)
					push(b, 1)
					fail := func(i int, do func() error) error {
						switch {
						case i != k:
							return do()
						case !done:
							return fault.New(fault.Unavailable, "the process died")
						}
						if err := do(); err != nil {
							return err
						}
						return fault.New(fault.Unknown, "the answer was lost")
					}
					switch where {
					case "table":
						b.Table.OnTransact(dispatchtest.Numbered(fail))
					case "deliveries":
						b.Deliveries.OnPublish(fail)
					case "reports":
						b.Reports.OnPublish(fail)
					}
					life(b)
					settled(b, ci.Successful)
					if b.Count() != 1 || len(b.Runner.Jobs()) > 2 {
						t.Errorf("%d builds, %d starts", b.Count(), len(b.Runner.Jobs()))
					}
					if d := b.Decisions("d1"); len(d) != 1 || d[0].Verdict != ci.Built {
						t.Errorf("%+v", d)
					}
					b.Check(t)
				})
			}
		}
	}
}

const deploy = "name: Shop\ntriggers: [push]\nconcurrency: {group: deploy}\nsteps:\n  - run: make\n"

// A build that is gone holds up nobody who waits for its turn in the same group, and one that waits past the limit ends.
func TestTurns(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, deploy)
	for n := range 3 {
		push(b, n)
	}
	b.Pump()
	page, err := b.Builds(t.Context(), dispatchtest.App, "", 10)
	b.Must(err)
	gone, next, last := page.Items[2], page.Items[1], page.Items[0]
	b.Must(b.Table.Transact(t.Context(), table.Delete(table.Key{Partition: "BUILD#" + gone.ID, Sort: "BUILD"}, table.Condition{})))
	for range 6 {
		b.Clock.Add(time.Minute)
		b.Must(b.Sweep.Run(t.Context()))
		b.Pump()
	}
	if jobs := b.Runner.Jobs(); len(jobs) != 2 || jobs[1].Build != next.ID {
		t.Fatalf("%d builds were started", len(jobs))
	}
	if !strings.Contains(b.Logged.String(), "a turn was not passed on") {
		t.Error("nothing is said of it")
	}
	for range 25 {
		b.Clock.Add(time.Hour)
		b.Must(b.Sweep.Run(t.Context()))
		b.Drop()
	}
	if x, err := b.Build(t.Context(), last.ID); err != nil || x.State != ci.Errored || x.Reason != "waited for its turn in its concurrency group past the limit of 24h0m0s" {
		t.Errorf("%s: %s, %v", x.State, x.Reason, err)
	}
}

// The build whose turn it is waits past the limit for a runner: the next one's is it then, and it is admitted.
func TestTurnOfOneThatWaitedTooLong(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	push(b, 0)
	push(b, 1)
	b.Pump()
	full := b.Runner.Jobs()
	b.Main = b.Commit("main", ".runnerhub/runnerhub.yml", deploy)
	push(b, 2)
	b.Pump()
	b.Clock.Add(time.Hour)
	push(b, 3)
	b.Pump()
	b.Clock.Add(23*time.Hour + time.Minute)
	b.Drop()
	b.Must(b.Sweep.Run(t.Context()))
	for _, job := range full {
		_, _, err := b.ChangeBuild(t.Context(), job.Build, func(b *store.Build) (bool, error) {
			b.State = ci.Stopped
			return true, nil
		})
		b.Must(err)
	}
	b.Pump()
	if jobs := b.Runner.Jobs(); len(jobs) != 3 || jobs[2].Build != b.TheBuild().ID {
		t.Errorf("%d builds were started", len(jobs))
	}
	b.Check(t)
}
