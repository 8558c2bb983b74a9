package report_test

import (
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
)

const file = "name: Shop\ntriggers: [push]\nsteps:\n  - name: test\n    run: make\n  - run: make dist\n"

// begin makes a build of main that the runner was given.
func begin(t *testing.T) (*dispatchtest.Bench, runner.Job) {
	t.Helper()
	b := dispatchtest.New(t, file)
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	b.Pump()
	return b, b.Last()
}

func claim(b *dispatchtest.Bench, ticket, nonce string) (runner.Claim, error) {
	return b.Report.Claim(b.Context(), runner.ClaimRequest{Ticket: ticket, Nonce: nonce})
}

func TestClaim(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	ticket := job.Ticket.Reveal()
	other := strings.Repeat("f", 32)
	if _, err := claim(b, "made up", dispatchtest.Nonce); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an unknown ticket: %v", err)
	}
	if _, err := claim(b, ticket, "short"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a short nonce: %v", err)
	}
	first, err := claim(b, ticket, dispatchtest.Nonce)
	b.Must(err)
	if first.Clone.Commit != b.Main || first.Clone.Ref != "refs/heads/main" || first.Clone.Password == "" || len(first.Script.Steps) != 2 || first.Build.Number != 1 {
		t.Errorf("%+v", first.Build)
	}
	variables := map[string]string{}
	for _, v := range first.Variables {
		variables[v.Name] = v.Value
	}
	if variables["CI"] != "true" || variables["RUNNERHUB_TRIGGER"] != "push" || variables["RUNNERHUB_COMMIT"] != b.Main || variables["RUNNERHUB_PR_ID"] != "" {
		t.Errorf("%v", variables)
	}
	if _, err := claim(b, ticket, other); !fault.Is(err, fault.Conflict) {
		t.Errorf("another nonce: %v", err)
	}
	if again, err := claim(b, ticket, dispatchtest.Nonce); err != nil || again.Clone.Commit != b.Main {
		t.Errorf("the same nonce: %v", err)
	}
	said := runner.Report{Ticket: ticket, Nonce: dispatchtest.Nonce, Sequence: 1, Checkout: runner.VerdictSuccessful}
	if _, err := b.Report.Steps(t.Context(), said); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(b, ticket, dispatchtest.Nonce); !fault.Is(err, fault.Conflict) {
		t.Errorf("after the checkout: %v", err)
	}
	said.Sequence, said.Result = 2, runner.VerdictSuccessful
	if _, err := b.Report.Steps(t.Context(), said); err != nil {
		t.Fatal(err)
	}
	for _, nonce := range []string{dispatchtest.Nonce, other} {
		if _, err := claim(b, ticket, nonce); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("after the end: %v", err)
		}
	}
	b.Check(t)
}

// The answer to a claim is lost at each of its writes; the agent asks again.
func TestClaimWithALostAnswer(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	b.Table.OnTransact(dispatchtest.Numbered(func(n int, do func() error) error {
		if err := do(); err != nil || n > 1 {
			return err
		}
		return fault.New(fault.Unknown, "the answer was lost")
	}))
	if _, err := claim(b, job.Ticket.Reveal(), dispatchtest.Nonce); err != nil {
		t.Error(err)
	}
	if made := b.TheBuild(); made.State != ci.Running {
		t.Errorf("%s", made.State)
	}
}

func TestClaimOfALostRepository(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	b.Call("alice", "DELETE", "/2.0/repositories/acme/shop", nil)
	if _, err := claim(b, job.Ticket.Reveal(), dispatchtest.Nonce); !fault.Is(err, fault.Conflict) {
		t.Errorf("the agent is told %v", err)
	}
	if made := b.TheBuild(); made.State != ci.Errored || !strings.Contains(made.Reason, "cannot be read") {
		t.Errorf("%s: %s", made.State, made.Reason)
	}
	b.PumpFor(20 * time.Second)
	b.Check(t)
}

func TestSteps(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	b.Claim(job)
	send := func(change func(*runner.Report)) error {
		r := runner.Report{Ticket: job.Ticket.Reveal(), Nonce: dispatchtest.Nonce, Sequence: 5}
		change(&r)
		_, err := b.Report.Steps(t.Context(), r)
		return err
	}
	state := func(index int, state runner.StepState) func(*runner.Report) {
		return func(r *runner.Report) { r.Steps = []runner.StepReport{{Index: index, State: state}} }
	}
	for name, test := range map[string]struct {
		change func(*runner.Report)
		kind   fault.Kind
	}{
		"a step that is not":   {state(2, runner.StepRunning), fault.Invalid},
		"a step before all":    {state(-1, runner.StepRunning), fault.Invalid},
		"a state that is none": {state(0, "DANCING"), fault.Invalid},
		"a result that is not": {func(r *runner.Report) { r.Result = "GREAT" }, fault.Invalid},
		"another nonce":        {func(r *runner.Report) { r.Nonce = strings.Repeat("f", 32) }, fault.Conflict},
		"no nonce":             {func(r *runner.Report) { r.Nonce = "" }, fault.Conflict},
		"another ticket":       {func(r *runner.Report) { r.Ticket = "x" }, fault.Unauthenticated},
	} {
		if err := send(test.change); !fault.Is(err, test.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	code := 3
	b.Must(send(func(r *runner.Report) {
		r.Steps = []runner.StepReport{{Index: 0, State: runner.StepFailed, ExitCode: &code}, {Index: 1, State: runner.StepSkipped}}
	}))
	b.Must(send(func(r *runner.Report) { // late
		r.Sequence = 4
		r.Steps = []runner.StepReport{{Index: 0, State: runner.StepRunning}}
		r.Result = runner.VerdictSuccessful
	}))
	made := b.TheBuild()
	if made.State != ci.Running || made.Steps[0].State != ci.StepFailed || made.Steps[0].ExitCode != 3 || made.Steps[1].State != ci.StepSkipped {
		t.Errorf("%s %+v", made.State, made.Steps)
	}
	b.Must(send(func(r *runner.Report) {
		r.Sequence, r.Result, r.Message = 6, runner.VerdictFailed, strings.Repeat("ä", 1000)
	}))
	made = b.TheBuild()
	if made.State != ci.Failed || len(made.Reason) > 1000 || made.Reason == "" {
		t.Errorf("%s %d", made.State, len(made.Reason))
	}
	b.Pump()
	if shown := b.Statuses(b.Main)[made.StatusKey]; shown != [3]string{"main", "FAILED", `Build #1 failed in step "test"`} {
		t.Errorf("shown is %q", shown)
	}
	if err := send(func(r *runner.Report) { r.Sequence, r.Result = 7, runner.VerdictSuccessful }); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("after the end: %v", err)
	}
	b.Check(t)
}

func TestWhatRunnersSay(t *testing.T) {
	t.Parallel()
	say := func(b *dispatchtest.Bench, job runner.Job, attempt string, s runner.State) {
		b.Must(message.Send(b.Context(), b.Reports, message.Report{Runner: &runner.Event{Build: job.Build, Attempt: attempt, State: s}}, 0))
		b.Pump()
	}
	for name, test := range map[string]struct {
		state runner.State
		want  ci.State
	}{
		"succeeded": {runner.State{Phase: runner.Ended, Result: runner.Succeeded}, ci.Successful},
		"failed":    {runner.State{Phase: runner.Ended, Result: runner.Failed}, ci.Failed},
		"errored":   {runner.State{Phase: runner.Ended, Result: runner.Errored, Detail: "the machine was restarted"}, ci.Errored},
		"stopped":   {runner.State{Phase: runner.Ended, Result: runner.Stopped}, ci.Stopped},
		"timed out": {runner.State{Phase: runner.Ended, Result: runner.TimedOut}, ci.TimedOut},
		"lost":      {runner.State{Phase: runner.Lost}, ci.Errored},
		"running":   {runner.State{Phase: runner.Running}, ci.Running},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, job := begin(t)
			b.Claim(job)
			say(b, job, "another", runner.State{Phase: runner.Lost})
			if made := b.TheBuild(); made.State != ci.Running {
				t.Errorf("another attempt's end made it %s", made.State)
			}
			say(b, job, job.Attempt, test.state)
			if made := b.TheBuild(); made.State != test.want {
				t.Errorf("%s, want %s", made.State, test.want)
			}
			for _, late := range []runner.State{{Phase: runner.Running}, {Phase: runner.Lost}, {Phase: runner.Ended, Result: runner.Succeeded}} {
				if test.want != ci.Running {
					say(b, job, job.Attempt, late)
				}
			}
			if made := b.TheBuild(); made.State != test.want {
				t.Errorf("later %s", made.State)
			}
			if shown := b.Shown(b.Main, "main"); shown != test.want.Status() {
				t.Errorf("shown is %s", shown)
			}
			b.Check(t)
		})
	}
	t.Run("before anything ran", func(t *testing.T) {
		t.Parallel()
		b, job := begin(t)
		for range 3 { // the event comes three times
			say(b, job, job.Attempt, runner.State{Phase: runner.Ended, Result: runner.Failed})
		}
		b.PumpFor(5 * time.Second)
		if n := len(b.Runner.Jobs()); n != 2 {
			t.Errorf("%d starts", n)
		}
		b.Claim(b.Last()).Says(runner.VerdictSuccessful)
		b.Pump()
		if made := b.TheBuild(); made.State != ci.Successful {
			t.Errorf("%s: %s", made.State, made.Reason)
		}
		b.Check(t)
	})
	t.Run("before any agent began", func(t *testing.T) {
		t.Parallel()
		b, job := begin(t)
		const why = "an attempt ended before its agent began: CodeBuild says FAILED: phase PROVISIONING: Unable to pull image"
		for n := 1; n <= 5; n++ {
			for range 2 { // the event comes twice
				say(b, b.Last(), b.Last().Attempt, runner.State{Phase: runner.Ended, Result: runner.Errored, Detail: "CodeBuild says FAILED: phase PROVISIONING: Unable to pull image"})
			}
			if made := b.TheBuild(); made.State != ci.Starting || made.Reason != why {
				t.Errorf("after attempt %d: %s: %q", n, made.State, made.Reason)
			}
			say(b, b.Last(), b.Last().Attempt, runner.State{Phase: runner.Lost, Detail: "CodeBuild knows no such build"}) // which says less
			b.PumpFor(5 * time.Minute)
		}
		made := b.TheBuild()
		if made.ID != job.Build || made.State != ci.Errored || made.Reason != "the build did not get going in 5 attempts: "+why {
			t.Errorf("%s: %q", made.State, made.Reason)
		}
		if shown := b.Statuses(b.Main)[made.StatusKey]; !strings.Contains(shown[2], "Unable to pull image") {
			t.Errorf("shown is %q", shown)
		}
		b.Check(t)
	})
	t.Run("of a build nobody knows", func(t *testing.T) {
		t.Parallel()
		b, job := begin(t)
		job.Build = "unknown"
		say(b, job, job.Attempt, runner.State{Phase: runner.Lost})
	})
}

// An attempt that ends between its claim and its checkout has run nothing: another one
// does, and the one that ended is not heard any more.
func TestEndBeforeTheCheckout(t *testing.T) {
	t.Parallel()
	event := func(s runner.State) func(*dispatchtest.Bench, runner.Job) error {
		return func(b *dispatchtest.Bench, job runner.Job) error {
			said := message.Report{Runner: &runner.Event{Build: job.Build, Attempt: job.Attempt, State: s}}
			for range 3 { // the event comes three times
				b.Must(message.Send(b.Context(), b.Reports, said, 0))
			}
			return nil
		}
	}
	reports := func(r runner.Report) func(*dispatchtest.Bench, runner.Job) error {
		return func(b *dispatchtest.Bench, job runner.Job) error {
			r.Ticket, r.Nonce, r.Sequence = job.Ticket.Reveal(), dispatchtest.Nonce, 1
			_, err := b.Report.Steps(b.Context(), r)
			return err
		}
	}
	for name, test := range map[string]struct {
		end  func(*dispatchtest.Bench, runner.Job) error
		want ci.State // RUNNING where another attempt follows
	}{
		"lost":                          {event(runner.State{Phase: runner.Lost}), ci.Running},
		"failed":                        {event(runner.State{Phase: runner.Ended, Result: runner.Failed}), ci.Running},
		"errored":                       {event(runner.State{Phase: runner.Ended, Result: runner.Errored, Detail: "killed"}), ci.Running},
		"succeeded at nothing":          {event(runner.State{Phase: runner.Ended, Result: runner.Succeeded}), ci.Running},
		"stopped":                       {event(runner.State{Phase: runner.Ended, Result: runner.Stopped}), ci.Stopped},
		"timed out":                     {event(runner.State{Phase: runner.Ended, Result: runner.TimedOut}), ci.TimedOut},
		"the agent says so":             {reports(runner.Report{Result: runner.VerdictError, Message: "no claim"}), ci.Running},
		"the agent was stopped":         {reports(runner.Report{Result: runner.VerdictStopped}), ci.Stopped},
		"the agent could not check out": {reports(runner.Report{Result: runner.VerdictError, Checkout: runner.VerdictFailed}), ci.Errored},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, job := begin(t)
			_, err := claim(b, job.Ticket.Reveal(), dispatchtest.Nonce)
			b.Must(err)
			b.Must(test.end(b, job))
			b.Pump()
			made := b.TheBuild()
			if made.State != test.want {
				t.Fatalf("%s: %s", made.State, made.Reason)
			}
			if made.State.Final() {
				b.PumpFor(time.Minute)
				if n := len(b.Runner.Jobs()); n != 1 {
					t.Errorf("%d starts", n)
				}
				b.Check(t)
				return
			}
			if made.Nonce != "" || !strings.HasPrefix(made.Reason, "an attempt ended before it had the repository") {
				t.Errorf("nonce %q, %q", made.Nonce, made.Reason)
			}
			late := reports(runner.Report{Checkout: runner.VerdictSuccessful})
			if err := late(b, job); !fault.Is(err, fault.Conflict) {
				t.Errorf("the attempt that ended reports its checkout: %v", err)
			}
			b.PumpFor(5 * time.Second)
			if err := late(b, job); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("after the next began: %v", err)
			}
			if n := len(b.Runner.Jobs()); n != 2 {
				t.Fatalf("%d starts", n)
			}
			b.Claim(b.Last()).Says(runner.VerdictSuccessful)
			b.Pump()
			if made := b.TheBuild(); made.State != ci.Successful || made.Reason != "" || b.Shown(b.Main, "main") != ci.StatusSuccessful {
				t.Errorf("%s: %s", made.State, made.Reason)
			}
			b.Check(t)
		})
	}
}

// Bitbucket is down for longer than an agent claims: the build waits, says for what, and
// ends only after all of its attempts.
func TestClaimWhileBitbucketIsDown(t *testing.T) {
	t.Parallel()
	for name, attempts := range map[string]int{"for a while": 2, "for good": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, job := begin(t)
			b.Faults(map[string]any{"down": true})
			for n := 1; n <= attempts; n++ {
				job = b.Last()
				if got := len(b.Runner.Jobs()); got != n {
					t.Fatalf("%d starts, want %d", got, n)
				}
				for range 2 {
					if _, err := claim(b, job.Ticket.Reveal(), dispatchtest.Nonce); !fault.Is(err, fault.Unavailable) {
						t.Fatalf("the claim: %v", err)
					}
				}
				if made := b.TheBuild(); made.State != ci.Running || !strings.HasPrefix(made.Reason, "the repository cannot be read yet: Bitbucket") {
					t.Errorf("%s: %s", made.State, made.Reason)
				}
				ended := runner.Event{Build: job.Build, Attempt: job.Attempt, State: runner.State{Phase: runner.Ended, Result: runner.Errored}}
				b.Must(message.Send(t.Context(), b.Reports, message.Report{Runner: &ended}, 0))
				b.Pump()
				b.Clock.Add(5 * time.Minute)
				b.Pump()
			}
			b.Faults(nil)
			if attempts == 5 {
				made := b.TheBuild()
				if made.State != ci.Errored || !strings.HasPrefix(made.Reason, "the build did not get going in 5 attempts: the repository cannot be read yet: Bitbucket") {
					t.Errorf("%s: %s", made.State, made.Reason)
				}
			} else {
				first, err := claim(b, b.Last().Ticket.Reveal(), dispatchtest.Nonce)
				if made := b.TheBuild(); err != nil || first.Clone.Commit != b.Main || made.Reason != "" {
					t.Errorf("%s, %v", made.Reason, err)
				}
			}
			b.Check(t)
		})
	}
}

func status(b *dispatchtest.Bench) store.Status {
	b.Helper()
	st, err := b.Status(b.Context(), store.StatusOf(b.TheBuild()))
	b.Must(err)
	return st
}
