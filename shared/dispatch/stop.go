package dispatch

import (
	"context"
	"fmt"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/store"
)

// stop has the runner end a build that is to end. An attempt that nobody has claimed
// runs nothing, and cannot be claimed any more: such a build has ended with this. Any other
// is ended by what its agent says, or its runner; by the sweep, when neither does.
func (d *Dispatch) stop(ctx context.Context, id string) error {
	b, err := d.Store.Build(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return nil // it went with its app
	}
	if err != nil {
		return fmt.Errorf("dispatch: stopping a build: %w", err)
	}
	if !b.Stopping {
		return nil
	}
	if b.State.Final() {
		return d.ended(ctx, b) // a repeat; what follows the end may still be missing
	}
	if b.Reference != "" {
		if err := d.Runner.Stop(ctx, b.Reference); err != nil {
			return fmt.Errorf("dispatch: stopping a build: %w", err)
		}
		d.Log.Info("told to stop", "build", b.ID, "attempt", b.Attempt, "reference", b.Reference)
	}
	attempt, reference := b.Attempt, b.Reference
	learned := false
	b, _, err = d.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
		learned = b.Reference != reference
		if b.State.Final() || b.Attempt != attempt || b.Nonce != "" || learned {
			return false, nil
		}
		b.State = ci.Stopped
		return true, nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("dispatch: ending a build: %w", err)
	case b.State.Final():
		return d.ended(ctx, b)
	case learned:
		return d.stopLater(ctx, b)
	}
	return nil
}

// startedLate stops what was started for a build that was to end by then. Its ticket
// admits nobody, but it takes up room.
func (d *Dispatch) startedLate(ctx context.Context, b store.Build, reference string) error {
	switch {
	case !b.Stopping:
		return nil
	case b.State.Final(): // nobody else knows the reference
		if err := d.Runner.Stop(ctx, reference); err != nil {
			return fmt.Errorf("dispatch: stopping what was started too late: %w", err)
		}
		return nil
	}
	return d.stopLater(ctx, b)
}

func (d *Dispatch) stopLater(ctx context.Context, b store.Build) error {
	return message.Send(ctx, d.Deliveries, message.Dispatch{Stop: b.ID}, 0)
}
