package dispatch

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue"
	"runnerhub/shared/store"
)

// builds reports whether pull requests like pr are built: one from a fork only if the app allows it and the runner keeps
// builds apart (docs/decisions/0040-forks.md).
func (d *Dispatch) builds(app ci.App, pr ci.PullRequest) bool {
	return app.AllowForks && d.Forks && pr.SourceRepository != ""
}

// unfit is the verdict about a fork with what keeps it from being built here, where that is not the app.
func (d *Dispatch) unfit(app ci.App, pr ci.PullRequest, verdict pipeline.Verdict) pipeline.Verdict {
	ref := pullRequestRef(pr)
	switch {
	case verdict.Code != pipeline.CodeFork:
	case !d.Forks:
		verdict.Reason = ref + " comes from a fork, and this installation does not keep builds apart, so that it builds none"
	case app.AllowForks && pr.SourceRepository == "":
		verdict.Reason = ref + " comes from a fork that is gone"
	}
	return verdict
}

// unread says of a commit that cannot be read that a fork has it: who connected the repository may have no access to
// that one.
func (d *Dispatch) unread(c candidate, pr ci.PullRequest, err error) error {
	kind := fault.KindOf(err)
	if !pr.Fork() || queue.Keeps(err) || kind == fault.Revoked {
		return err
	}
	// Of the fork alone: the connection is not broken by it.
	return fault.Wrap(fault.NotFound, err, "%s comes from a fork, of which commit %.12s cannot be read: "+
		"it is gone, or the account of the app's connection may not read that repository", c.ref, pr.SourceHash)
}

// settle ends those builds of a fork's pull request that are held for what it is not any more: an approval is for one
// commit and one target. Of two that are held, the newer one takes the other's place. Events come in any order, so that says
// nothing; the time at which each took place, by Bitbucket's clock, does. Own is the build that the event led to, if any;
// where that has ended, it takes nobody's place.
func (d *Dispatch) settle(ctx context.Context, c candidate, own ci.Successor, reason string) error {
	held, err := d.Store.Held(ctx, c.app.ID, c.pr.ID)
	if err != nil {
		return fmt.Errorf("dispatch: looking for builds that are held: %w", err)
	}
	if len(held) == 0 {
		return nil
	}
	newest := slices.MaxFunc(held, func(a, b store.Build) int {
		return cmp.Or(a.Revised.Compare(b.Revised), cmp.Compare(a.Number, b.Number))
	})
	successor := own
	if own.Build != "" {
		b, err := d.Store.Build(ctx, own.Build)
		if err != nil {
			return fmt.Errorf("dispatch: looking for builds that are held: %w", err)
		}
		if b.Stopping || b.State.Final() {
			successor = ci.Successor{}
		}
	}
	now := c.pr.UpdatedAt
	for _, b := range held {
		newer := ci.Successor{}
		switch {
		case b.ID != newest.ID:
			newer = ci.Successor{Build: newest.ID, Number: newest.Number}
		case b.ID == own.Build && !c.late || b.Revised.After(now):
			continue
		case b.ID != own.Build:
			newer = successor
		}
		if err := d.letGo(ctx, b, reason, newer); err != nil {
			return err
		}
	}
	return nil
}

// letGo ends a build unless somebody has approved it by now. Newer is the one that takes its place, if any.
func (d *Dispatch) letGo(ctx context.Context, held store.Build, reason string, newer ci.Successor) error {
	if newer.Build != "" {
		reason = fmt.Sprintf("superseded by #%d", newer.Number)
	}
	b, changed, err := d.Store.ChangeBuild(ctx, held.ID, func(b *store.Build) (bool, error) {
		switch {
		case b.Held && !b.Revised.Equal(held.Revised):
			return false, fault.New(fault.Unavailable, "the pull request was heard of as what build #%d builds just now", b.Number)
		case !b.Held || !b.Stop(reason, d.Now().UTC()):
			return false, nil
		}
		b.Lapsed = true
		if newer.Build != "" {
			b.SupersededBy = &newer
		}
		return true, nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil // it went with its app
	}
	if err != nil {
		return fmt.Errorf("dispatch: ending a build that is held: %w", err)
	}
	if !changed {
		return nil
	}
	d.Log.Info("let go", "build", b.ID, "by", newer.Build)
	ref := store.StatusOf(b)
	return message.Send(ctx, d.Reports, message.Report{Status: &ref}, 0)
}
