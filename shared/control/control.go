// Package control is what users do to builds: it stops them, and approves those that are held. Every method asks package
// access first, on behalf of a user.
//
// It only says what is to be: a build that waits ends with that, any other is marked, and a
// message asks package dispatch to tell the runner. So who serves users needs no right to stop
// anything on a runner.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"runnerhub/shared/access"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/store"
)

// soon is after how long a build that was let into the line is looked at.
const soon = 2 * time.Minute

// Deps is what a Control needs.
type Deps struct {
	Store      *store.Store
	Deliveries queue.Publisher // the queue of package dispatch
	Reports    queue.Publisher // the queue of package report
	Now        func() time.Time
	Log        *slog.Logger
}

// Control acts on builds.
type Control struct{ Deps }

// New makes a Control.
func New(d Deps) (*Control, error) {
	if d.Store == nil || d.Deliveries == nil || d.Reports == nil || d.Now == nil || d.Log == nil {
		return nil, errors.New("control: a dependency is missing")
	}
	return &Control{d}, nil
}

// Cancel stops a build. One that has ended is fault.Conflict; asked again while it is
// being stopped, it asks for that again.
func (c *Control) Cancel(ctx context.Context, user, build string) error {
	if _, err := access.Build(ctx, c.Store, user, build, ci.RunBuilds); err != nil {
		return fmt.Errorf("control: cancelling a build: %w", err)
	}
	who, err := c.Store.User(ctx, user)
	if err != nil {
		return fmt.Errorf("control: cancelling a build: %w", err)
	}
	now, reason := c.Now().UTC(), "stopped by "+who.Nickname
	tried := false
	b, _, err := c.Store.ChangeBuild(ctx, build, func(b *store.Build) (bool, error) {
		ours := tried && b.StoppingAt.Equal(now) && b.StopReason == reason // an earlier run of this very change was stored
		if b.State.Final() && !ours {
			return false, fault.New(fault.Conflict, "build #%d has ended: it is %s", b.Number, b.State)
		}
		tried = true
		return b.Stop(reason, now), nil
	})
	if err != nil {
		return fmt.Errorf("control: cancelling a build: %w", err)
	}
	c.Log.Info("to be stopped", "build", b.ID, "by", user, "state", b.State)
	// It is stored: the caller is told so whether this is left or not, and the sweep
	// finds what is missing.
	if err := c.tell(ctx, b); err != nil {
		c.Log.Warn("a message about a stopped build was not left; the sweep will leave it", "build", b.ID, "error", err)
	}
	return nil
}

// Approve lets a build that is held into the line. Approved again, it stays as it is, whatever became of it; one that is
// not held, or has ended before somebody approved it, is fault.Conflict.
func (c *Control) Approve(ctx context.Context, user, build string) error {
	of, err := access.Build(ctx, c.Store, user, build, ci.RunBuilds)
	if err != nil {
		return fmt.Errorf("control: approving a build: %w", err)
	}
	who, err := c.Store.User(ctx, user)
	if err != nil {
		return fmt.Errorf("control: approving a build: %w", err)
	}
	app, err := c.Store.App(ctx, of.App)
	if err != nil {
		return fmt.Errorf("control: approving a build: %w", err)
	}
	now := c.Now().UTC()
	b, _, err := c.Store.ChangeBuild(ctx, build, func(b *store.Build) (bool, error) {
		switch {
		case !b.ApprovedAt.IsZero():
			return false, nil
		case b.State.Final():
			return false, fault.New(fault.Conflict, "build #%d has ended: it is %s", b.Number, b.State)
		case !b.Held:
			return false, fault.New(fault.Conflict, "build #%d waits for no approval", b.Number)
		case !app.AllowForks:
			return false, fault.New(fault.Conflict, "app %s does not build forks any more", app.Name)
		}
		b.Held, b.ApprovedBy, b.ApprovedAt, b.Approver = false, who.Nickname, now, user
		b.Reason, b.DueAt = store.WaitsForRunner, now.Add(soon)
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("control: approving a build: %w", err)
	}
	c.Log.Info("approved", "build", b.ID, "by", b.Approver)
	// Said once more to who approves once more, in case nobody heard it. It is stored, and the sweep finds what is missing.
	ref := store.StatusOf(b)
	err = errors.Join(
		message.Send(ctx, c.Deliveries, message.Dispatch{Admit: b.Runner}, 0),
		message.Send(ctx, c.Reports, message.Report{Status: &ref}, 0))
	if err != nil {
		c.Log.Warn("a message about an approved build was not left; the sweep will leave it", "build", b.ID, "error", err)
	}
	return nil
}

func (c *Control) tell(ctx context.Context, b store.Build) error {
	if b.State.Final() {
		ref := store.StatusOf(b)
		err := message.Send(ctx, c.Reports, message.Report{Status: &ref}, 0)
		if b.Queues { // it may be the turn of the next one
			err = errors.Join(err, message.Send(ctx, c.Deliveries, message.Dispatch{Admit: b.Runner}, 0))
		}
		return err
	}
	return message.Send(ctx, c.Deliveries, message.Dispatch{Stop: b.ID}, 0)
}
