// Package sweep finds what got lost: a message that was never left, an event that
// never came, a process that died between two acts. It reads the due index and
// leaves the missing message again; it changes states only where nobody else
// would. Finding something that was not lost after all does no harm.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
	"runnerhub/shared/timekeeper"
)

// Deps is what a Sweep needs.
type Deps struct {
	Store      *store.Store
	Deliveries queue.Publisher
	Reports    queue.Publisher
	Runner     runner.Runner
	RunnerName string
	Timekeeper *timekeeper.Keeper
	WaitLimit  time.Duration // how long a build waits for a runner
	HoldLimit  time.Duration // how long it waits for an approval
	Now        func() time.Time
	Log        *slog.Logger
}

// Sweep repairs.
type Sweep struct{ Deps }

const (
	// batch is how many entries of each shard one run looks at; the rest waits for
	// the next one.
	batch = 100
	// again is after how long something is looked at once more.
	again = 5 * time.Minute
	// overdue is how long past its timeout a build is stopped that its agent should
	// have ended, and then its runner.
	overdue = 10 * time.Minute
	// stopLimit is how long a build that was told to stop may take, and stopAgain after how
	// long it is told once more.
	stopLimit = 3 * time.Minute
	stopAgain = time.Minute
)

// New makes a Sweep.
func New(d Deps) (*Sweep, error) {
	if d.Store == nil || d.Deliveries == nil || d.Reports == nil || d.Runner == nil || d.RunnerName == "" ||
		d.Timekeeper == nil || d.WaitLimit <= 0 || d.HoldLimit <= 0 || d.Now == nil || d.Log == nil {
		return nil, errors.New("sweep: a dependency is missing")
	}
	return &Sweep{d}, nil
}

// Run looks at everything that is due. It goes on after an error with what is
// left, and answers the first few of them.
func (s *Sweep) Run(ctx context.Context) error { return s.RunBy(ctx, s.Now()) }

// Recover looks at everything unfinished, due or not: for a process that knows
// that no other is at work, when it begins. Leases that are held are held by the dead.
func (s *Sweep) Recover(ctx context.Context) error {
	always := s.Now().Add(10 * 365 * 24 * time.Hour)
	return errors.Join(s.release(ctx, always), s.RunBy(ctx, always))
}

// release ends the leases on statuses, grants and schedules, so that nobody waits for them to run out.
func (s *Sweep) release(ctx context.Context, until time.Time) error {
	statuses, err := s.Store.DueBefore(ctx, store.DueStatus, until, batch)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range statuses {
		ref, err := store.ParseStatusRef(entry.Reference)
		if err == nil {
			_, _, err = s.Store.ChangeStatus(ctx, ref, func(st *store.Status) bool {
				held := st.Holder != "" && !st.LeaseUntil.IsZero()
				st.LeaseUntil = time.Time{}
				return held
			})
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			errs = append(errs, fmt.Errorf("sweep: the lease on status %s: %w", entry.Reference, err))
		}
	}
	grants, err := s.Store.DueBefore(ctx, store.DueConnection, until, batch)
	if err != nil {
		return fault.Few(append(errs, err)...)
	}
	for _, entry := range grants {
		_, err := s.Store.ChangeGrant(ctx, entry.Reference, func(g *store.Grant) bool {
			held := g.Holder != "" && !g.LeaseUntil.IsZero()
			g.LeaseUntil = time.Time{}
			return held
		})
		if err != nil && !fault.Is(err, fault.NotFound) {
			errs = append(errs, fmt.Errorf("sweep: the lease on connection %s: %w", entry.Reference, err))
		}
	}
	schedules, err := s.Store.DueBefore(ctx, store.DueSchedule, until, batch)
	if err != nil {
		return fault.Few(append(errs, err)...)
	}
	for _, entry := range schedules {
		_, err := s.Store.ChangeSchedule(ctx, entry.Reference, func(v *store.Schedule) (bool, error) {
			held := v.Holder != "" && !v.LeaseUntil.IsZero()
			v.LeaseUntil = time.Time{}
			return held, nil
		})
		if err != nil && !fault.Is(err, fault.NotFound) {
			errs = append(errs, fmt.Errorf("sweep: the lease on schedule %s: %w", entry.Reference, err))
		}
	}
	return fault.Few(errs...)
}

// RunBy looks at everything that is due by a time: for who is told what time it is. What it finds may not be
// due yet, which does no harm. When time runs out, the rest is due in the next run; the line, of which
// there is one, comes first, so that it never is the rest.
func (s *Sweep) RunBy(ctx context.Context, until time.Time) error {
	errs := []error{s.line(ctx)}
	for kind, look := range map[string]func(context.Context, store.Due) error{
		store.DueBuild: s.build, store.DueStatus: s.status, store.DueDelivery: s.delivery, store.DueSchedule: s.schedule,
		store.DueTurn: s.turn,
	} {
		entries, err := s.Store.DueBefore(ctx, kind, until, batch)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for n, entry := range entries {
			if err := ctx.Err(); err != nil {
				errs = append(errs, fmt.Errorf("sweep: %d entries of %s are left: %w", len(entries)-n, kind, err))
				break
			}
			if err := look(ctx, entry); err != nil {
				errs = append(errs, fmt.Errorf("sweep: %s %s: %w", kind, entry.Reference, err))
			}
		}
	}
	return fault.Few(errs...)
}

// line admits builds that wait although there may be room.
func (s *Sweep) line(ctx context.Context) error {
	waits, err := s.Store.Waits(ctx, s.RunnerName)
	if err != nil || !waits {
		return err
	}
	return message.Send(ctx, s.Deliveries, message.Dispatch{Admit: s.RunnerName}, 0)
}

func (s *Sweep) status(ctx context.Context, entry store.Due) error {
	ref, err := store.ParseStatusRef(entry.Reference)
	if err != nil {
		return s.Store.DropDue(ctx, entry)
	}
	st, err := s.Store.Status(ctx, ref)
	if fault.Is(err, fault.NotFound) || err == nil && !st.DueAt.Equal(entry.At) {
		return s.Store.DropDue(ctx, entry)
	}
	if err != nil {
		return err
	}
	return message.Send(ctx, s.Reports, message.Report{Status: &ref}, 0)
}

func (s *Sweep) delivery(ctx context.Context, entry store.Due) error {
	d, err := s.Store.Delivery(ctx, entry.Reference)
	if fault.Is(err, fault.NotFound) || err == nil && !d.DueAt.Equal(entry.At) {
		return s.Store.DropDue(ctx, entry)
	}
	if err != nil {
		return err
	}
	return message.Send(ctx, s.Deliveries, message.Dispatch{Again: d.ID}, 0)
}

// schedule tells the timetable of a schedule, which who changed it did not.
func (s *Sweep) schedule(ctx context.Context, entry store.Due) error {
	v, err := s.Store.Schedule(ctx, entry.Reference)
	if fault.Is(err, fault.NotFound) || err == nil && !v.DueAt.Equal(entry.At) {
		return s.Store.DropDue(ctx, entry)
	}
	if err != nil {
		return err
	}
	return s.Timekeeper.Align(ctx, v.ID)
}

// turn has the next build of a group go on where the one before it is gone without a word.
func (s *Sweep) turn(ctx context.Context, entry store.Due) error {
	passed, err := s.Store.MendTurn(ctx, entry)
	if err != nil || !passed {
		return err
	}
	s.Log.Warn("a turn was not passed on", "group", entry.Reference)
	return message.Send(ctx, s.Deliveries, message.Dispatch{Admit: s.RunnerName}, 0)
}

// build looks at a build that should have gone on by now.
func (s *Sweep) build(ctx context.Context, entry store.Due) error {
	b, err := s.Store.Build(ctx, entry.Reference)
	if fault.Is(err, fault.NotFound) || err == nil && !b.DueAt.Equal(entry.At) {
		return s.Store.DropDue(ctx, entry)
	}
	if err != nil {
		return err
	}
	switch {
	case b.Attempt == "":
		return s.waiting(ctx, b)
	case b.Stopping:
		return s.stopping(ctx, b)
	case b.Nonce == "" && b.Reference == "":
		// Admitted, and whoever was to start it died, or is still at it.
		s.Log.Info("starting a build again", "build", b.ID, "attempt", b.Attempt)
		return message.Send(ctx, s.Deliveries, message.Dispatch{Start: b.ID, Attempt: b.Attempt}, 0)
	case b.Reference == "":
		if s.Now().Before(b.DueAt) {
			return nil // its agent is at work, and ends it
		}
		return s.unheard(ctx, b, runner.State{Phase: runner.Lost, Detail: "the runner's reference to it was never learned"})
	}
	state, err := s.Runner.State(ctx, b.Reference)
	if err != nil {
		return err
	}
	if state.Phase == runner.Ended || state.Phase == runner.Lost {
		return s.unheard(ctx, b, state)
	}
	limit := b.StartedAt.Add(time.Duration(b.TimeoutSeconds)*time.Second + overdue)
	if b.Nonce != "" && !s.Now().Before(limit) {
		if err := s.Runner.Stop(ctx, b.Reference); err != nil {
			return err
		}
		return s.unheard(ctx, b, runner.State{Phase: runner.Ended, Result: runner.TimedOut, Detail: "it was stopped"})
	}
	return s.postpone(ctx, b, again)
}

// stopping tells a build to stop once more, and ends it when that is of no use. Its
// agent is not heard any more then, and told so when it reports.
func (s *Sweep) stopping(ctx context.Context, b store.Build) error {
	if s.Now().Before(b.StoppingAt.Add(stopLimit)) {
		if err := message.Send(ctx, s.Deliveries, message.Dispatch{Stop: b.ID}, 0); err != nil {
			return err
		}
		return s.postpone(ctx, b, stopAgain)
	}
	var unstopped error
	if b.Reference != "" {
		unstopped = s.Runner.Stop(ctx, b.Reference)
	}
	s.Log.Warn("a build did not stop by itself", "build", b.ID, "attempt", b.Attempt)
	b, _, err := s.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
		if b.State.Final() || !b.Stopping {
			return false, nil
		}
		b.State = ci.Stopped
		return true, nil
	})
	if err != nil || !b.State.Final() {
		return errors.Join(unstopped, err)
	}
	ref := store.StatusOf(b)
	return errors.Join(unstopped,
		message.Send(ctx, s.Reports, message.Report{Status: &ref}, 0),
		message.Send(ctx, s.Deliveries, message.Dispatch{Admit: b.Runner}, 0))
}

// unheard says what the runner would have said of a build.
func (s *Sweep) unheard(ctx context.Context, b store.Build, state runner.State) error {
	s.Log.Info("a build ended unheard", "build", b.ID, "attempt", b.Attempt, "phase", state.Phase)
	return message.Send(ctx, s.Reports, message.Report{Runner: &runner.Event{
		Build: b.ID, Attempt: b.Attempt, Ref: b.Reference, State: state, At: s.Now(),
	}}, 0)
}

// waiting ends a build that waited too long, for a runner or for an approval. Until then there is nothing to look at: the
// line is looked at as a whole.
func (s *Sweep) waiting(ctx context.Context, b store.Build) error {
	if left := s.left(b); left > 0 {
		return s.postpone(ctx, b, left)
	}
	b, _, err := s.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
		if b.Attempt != "" || b.State.Final() || s.left(*b) > 0 { // it was admitted, has ended, or was approved meanwhile
			return false, nil
		}
		what := "a runner"
		if b.Place != "" {
			what = "its turn in its concurrency group"
		}
		b.State, b.Reason = ci.Errored, fmt.Sprintf("waited for %s past the limit of %s", what, s.WaitLimit)
		if b.Held {
			b.Lapsed = true
			b.Reason = fmt.Sprintf("waited for a member to approve the commit past the limit of %d days", s.HoldLimit/(24*time.Hour))
		}
		return true, nil
	})
	if err != nil || !b.State.Final() {
		return err
	}
	ref := store.StatusOf(b)
	err = message.Send(ctx, s.Reports, message.Report{Status: &ref}, 0)
	if b.Queues { // it may be the turn of the next one
		err = errors.Join(err, message.Send(ctx, s.Deliveries, message.Dispatch{Admit: b.Runner}, 0))
	}
	return err
}

// left is how long a build without an attempt may go on waiting.
func (s *Sweep) left(b store.Build) time.Duration {
	limit := s.WaitLimit
	if b.Held {
		limit = s.HoldLimit
	}
	return b.WaitsSince().Add(limit).Sub(s.Now())
}

// postpone looks at a build that is due once more later.
func (s *Sweep) postpone(ctx context.Context, b store.Build, pause time.Duration) error {
	if s.Now().Before(b.DueAt) {
		return nil
	}
	attempt := b.Attempt
	_, _, err := s.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
		if b.State.Final() || b.Attempt != attempt || s.Now().Before(b.DueAt) { // somebody else moved it on
			return false, nil
		}
		b.DueAt = s.Now().Add(pause)
		return true, nil
	})
	return err
}
