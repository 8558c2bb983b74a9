package dispatch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"runnerhub/shared/budget"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
)

// Admit gives waiting builds to the runner while it has room.
func (d *Dispatch) Admit(ctx context.Context) error {
	for {
		attempt, ticket := d.attempt()
		b, admitted, err := d.Store.Admit(ctx, d.RunnerName, d.Limits, attempt)
		if err != nil {
			return fmt.Errorf("dispatch: admitting: %w", err)
		}
		if !admitted {
			return nil
		}
		if err := d.start(ctx, b, ticket); err != nil {
			return err
		}
	}
}

func (d *Dispatch) attempt() (store.Attempt, secret.Text) {
	ticket := d.NewTicket()
	return store.Attempt{ID: d.NewID(), Ticket: ticket.Hash(), DueAt: d.Now().Add(startLimit)}, ticket
}

// restart makes a new attempt for an admitted build whose last one did not get
// going. The old attempt's ticket is dead from then on: should it have started
// after all, it runs nothing. One that has claimed its work is left alone (package
// report frees a build from a claim that came to nothing), and so is any other attempt than
// the one that failed.
func (d *Dispatch) restart(ctx context.Context, id, failed string) error {
	attempt, ticket := d.attempt()
	fresh := false
	b, _, err := d.Store.ChangeBuild(ctx, id, func(b *store.Build) (bool, error) {
		if fresh = b.Attempt == attempt.ID; fresh {
			return false, nil // an earlier run of this very change
		}
		if b.Attempt == "" || b.Attempt != failed || b.Nonce != "" || b.State.Final() {
			return false, nil
		}
		switch {
		case b.Stopping:
			b.State = ci.Stopped
			return true, nil
		case b.Attempts >= maxAttempts:
			b.State = ci.Errored
			b.Reason = strings.TrimSuffix(fmt.Sprintf("the build did not get going in %d attempts: %s", b.Attempts, b.Reason), ": ")
			return true, nil
		case d.Now().Sub(b.WaitsSince()) >= WaitLimit:
			b.State = ci.Errored
			b.Reason = fmt.Sprintf("waited for the runner %s past the limit of %s", d.RunnerName, WaitLimit)
			return true, nil
		}
		b.Begin(attempt, d.Now())
		fresh = true
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("dispatch: a new attempt: %w", err)
	}
	if b.State.Final() {
		return d.ended(ctx, b)
	}
	if !fresh {
		return nil
	}
	return d.start(ctx, b, ticket)
}

// start gives an admitted build to the runner.
func (d *Dispatch) start(ctx context.Context, b store.Build, ticket secret.Text) error {
	reference, err := "", error(nil)
	if b.Fork != "" && !d.Forks { // the installation was another one when it was decided
		err = fault.New(fault.Invalid, "it does not keep builds apart, and this one is of a fork")
	} else {
		reference, err = d.Runner.Start(ctx, runner.Job{
			Build: b.ID, Log: b.LogName(), Attempt: b.Attempt, Address: d.Address, Ticket: ticket,
			Timeout: time.Duration(b.TimeoutSeconds) * time.Second, Image: b.Image, Compute: b.Compute,
		})
	}
	// The runner has been asked: what came of it is recorded even if time ran out.
	ctx, cancel := budget.Record(ctx)
	defer cancel()
	attempt := b.Attempt
	switch {
	case err == nil:
		b, _, err = d.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
			if b.Attempt != attempt || b.Reference != "" || b.State.Final() {
				return false, nil
			}
			b.Reference = reference
			if b.State == ci.Queued && !b.Stopping { // it may have claimed its work by now
				b.State, b.Reason = ci.Starting, ""
			}
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("dispatch: recording a start: %w", err)
		}
		d.Log.Info("started", "build", b.ID, "attempt", attempt, "reference", reference)
		return d.startedLate(ctx, b, reference)
	case fault.Is(err, fault.Invalid):
		reason, _ := fault.Public(err)
		b, _, err := d.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
			if b.Attempt != attempt || b.State.Final() {
				return false, nil
			}
			b.State, b.Reason = ci.Errored, "the runner refused the build: "+reason
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("dispatch: recording a refusal: %w", err)
		}
		return d.ended(ctx, b)
	default:
		return d.later(ctx, b, err)
	}
}

// later leaves a build that could not be started QUEUED, says for what it waits,
// and asks for another attempt.
func (d *Dispatch) later(ctx context.Context, b store.Build, cause error) error {
	reason, _ := fault.Public(cause)
	if reason == "" {
		reason = "the runner " + d.RunnerName + " failed to start it"
	}
	pause := max(fault.RetryAfter(cause), time.Second<<min(b.Attempts, 5))
	full := fault.Is(cause, fault.RateLimited)
	if full {
		reason = "waits for capacity of the runner " + d.RunnerName
		pause = max(fault.RetryAfter(cause), fullPause)
	}
	pause = min(pause, queue.MaxDelay)
	d.Log.Warn("a build could not be started", "build", b.ID, "attempt", b.Attempt, "error", cause)
	attempt := b.Attempt
	_, _, err := d.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
		if b.Attempt != attempt || b.State.Final() || b.Stopping {
			return false, nil
		}
		if full {
			b.Attempts = 0 // no capacity is no failure
		}
		b.Reason = reason
		b.DueAt = d.Now().Add(pause + startLimit)
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("dispatch: recording a wait: %w", err)
	}
	return message.Send(ctx, d.Deliveries, message.Dispatch{Start: b.ID, Attempt: attempt}, pause)
}

// ended leaves the messages that follow the end of a build.
func (d *Dispatch) ended(ctx context.Context, b store.Build) error {
	ref := store.StatusOf(b)
	if err := message.Send(ctx, d.Reports, message.Report{Status: &ref}, 0); err != nil {
		return fmt.Errorf("dispatch: asking for a status: %w", err)
	}
	return message.Send(ctx, d.Deliveries, message.Dispatch{Admit: b.Runner}, 0)
}
