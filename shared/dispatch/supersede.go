package dispatch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/message"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue"
	"runnerhub/shared/store"
)

// group names the builds among which a newer one may stop an older one.
func (c candidate) group(file *planned) string {
	event := pipeline.Event{Kind: pipeline.Kind(c.trigger), Branch: c.branch, Number: c.pr.ID}
	if c.branch == "" {
		_, event.Tag, _ = strings.Cut(c.ref, " ")
	}
	return file.Group(event)
}

// supersede stops what is outdated of the group of a build that was made: older builds,
// if it is to stop them, or the build itself, when its event came after that of a newer one. Where
// it cannot be told which of two is newer, neither is stopped
// (docs/decisions/0041-which-build-is-newer.md). It is contested where the group has another build that counts.
func (d *Dispatch) supersede(ctx context.Context, c candidate, b store.Build) (contested bool, err error) {
	if b.Group == "" {
		return false, nil
	}
	rivals, err := d.Store.Rivals(ctx, b)
	if err != nil {
		return false, fmt.Errorf("dispatch: looking for older builds of %s: %w", c.ref, err)
	}
	var now *present // read once, and only if there is another build
	for _, other := range rivals {
		if other.ID == b.ID || other.Stopping || !b.Supersedes && !other.Supersedes {
			continue
		}
		if (b.Fork != "" || other.Held) && other.PullRequest != b.PullRequest {
			continue // who may not write to the repository stops nobody else's builds, and what is held is nobody's rival
		}
		if now == nil {
			if now, err = d.present(ctx, c); err != nil {
				return false, err
			}
		}
		switch newer := now.newer(b, other); {
		case newer == b.ID && b.Supersedes:
			err = d.replace(ctx, other, b)
		case newer == other.ID && other.Supersedes:
			err = d.replace(ctx, b, other)
		}
		if err != nil {
			return true, err
		}
		contested = true
	}
	return contested, nil
}

// ahead answers the build before which a new one is to have its turn in their group: the first one, of those that no runner has yet, that is newer.
// Others are older, or it cannot be told; then they keep the order in which they were made.
func (d *Dispatch) ahead(ctx context.Context, c candidate, b store.Build) (string, error) {
	if !b.Queues {
		return "", nil
	}
	following, err := d.Store.Following(ctx, b)
	if err != nil || len(following) == 0 {
		return "", err
	}
	now, err := d.present(ctx, c)
	if err != nil {
		return "", err
	}
	for _, other := range following {
		if now.newer(b, other) == other.ID {
			return other.ID, nil
		}
	}
	return "", nil
}

// present is what a branch, a tag or a pull request is at, by Bitbucket.
type present struct {
	commit string    // of a fork's the first characters; empty: it cannot be read any more
	target string    // of a pull request
	closed bool      // the pull request is
	at     time.Time // of a pull request: when it was so, by Bitbucket's clock; zero is unknown
}

// present reads what the candidate's branch, tag or pull request is at.
func (d *Dispatch) present(ctx context.Context, c candidate) (*present, error) {
	var now present
	var err error
	switch {
	case c.pr.ID != 0:
		var pr ci.PullRequest
		if pr, err = c.client.PullRequest(ctx, c.tie.UUID, c.pr.ID); err == nil {
			if c.pr.UpdatedAt.After(pr.UpdatedAt) { // the event knows more than who was asked
				pr = c.pr
			}
			now = present{pr.SourceHash, pr.TargetBranch, !pr.Open, pr.UpdatedAt}
		}
		if err == nil && !pr.Fork() { // right after a push, a pull request may not know of it yet
			now.commit, err = c.client.Branch(ctx, c.tie.UUID, pr.SourceBranch)
			if !strings.HasPrefix(now.commit, pr.SourceHash) {
				now.at = time.Time{}
			}
		}
	case c.branch != "":
		now.commit, err = c.client.Branch(ctx, c.tie.UUID, c.branch)
	default:
		_, tag, _ := strings.Cut(c.ref, " ")
		now.commit, err = c.client.Tag(ctx, c.tie.UUID, tag)
	}
	if err != nil && queue.Keeps(err) {
		return nil, fmt.Errorf("dispatch: reading what %s is at: %w", c.ref, err)
	}
	if err != nil { // no other try will tell
		return &present{}, nil
	}
	return &now, nil
}

// is reports whether a build builds what is there now. A branch is at what a pull request's build builds, whatever its target.
func (p present) is(b store.Build) bool {
	return p.commit != "" && strings.HasPrefix(b.Commit, p.commit) && (p.target == "" || b.Target == p.target)
}

// heard is when the pull request of a build was last heard of as what it builds.
func (p present) heard(b store.Build) time.Time {
	if p.is(b) && p.at.After(b.Revised) {
		return p.at
	}
	return b.Revised
}

// newer answers the id of the newer of two builds, or nothing when that is not known.
// p is what the ref of b is at. Events come in any order, so their order says nothing: what a push
// moved its branch from does, when a pull request was so, and what the ref is at. The build of that is never the older one, and
// where two of them contradict each other, none is.
func (p present) newer(b, other store.Build) string {
	if b.PullRequest != other.PullRequest || b.PullRequest == 0 && (b.Branch != other.Branch || b.Tag != other.Tag) {
		// Refs have no order between them: the later build is the newer one, unless it is
		// outdated itself.
		if b.Number > other.Number && p.is(b) {
			return b.ID
		}
		return ""
	}
	follows, precedes := b.Old != "" && b.Old == other.Commit, other.Old != "" && other.Old == b.Commit
	order := 0 // 1: b is the newer one, -1: other is
	switch {
	case follows && !precedes:
		order = 1
	case precedes && !follows:
		order = -1
	}
	times := 0
	if mine, its := p.heard(b), p.heard(other); b.InOrder() && other.InOrder() && !mine.IsZero() && !its.IsZero() {
		times = mine.Compare(its)
	}
	switch {
	case order*times < 0:
	case order+times > 0 && !p.is(other):
		return b.ID
	case order+times < 0 && !p.is(b):
		return other.ID
	case order == times && p.is(b) && !p.is(other): // neither tells
		return b.ID
	}
	return ""
}

// learn keeps with a build what an event tells of it that was not known when it was made: what its branch was before, and that its pull
// request was what it builds at a later time, too, which makes it newer than what the pull request was in between. It answers the
// build as it is then. Where nobody asks which build of a group is newer, nothing is kept.
func (d *Dispatch) learn(ctx context.Context, b store.Build, old string, at time.Time) (store.Build, error) {
	news := func(b *store.Build) bool {
		if b.State.Final() || b.Stopping || !b.Held && !b.InOrder() {
			return false
		}
		before, later := b.Old == "" && old != "", b.PullRequest != 0 && at.After(b.Revised)
		if before {
			b.Old = old
		}
		if later {
			b.Revised = at.UTC()
		}
		return before || later
	}
	if known := b; !news(&known) {
		return b, nil
	}
	b, _, err := d.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) { return news(b), nil })
	if err != nil {
		return b, fmt.Errorf("dispatch: keeping what was learned of a build: %w", err)
	}
	return b, nil
}

// replace stops the older of two builds, unless somebody else took it for the newer one.
func (d *Dispatch) replace(ctx context.Context, older, newer store.Build) error {
	older, changed, err := d.Store.ReplaceBuild(ctx, older.ID, newer.ID, func(b *store.Build, newer store.Build) (bool, error) {
		if newer.SetAside() || !b.Stop(fmt.Sprintf("superseded by #%d", newer.Number), d.Now().UTC()) {
			return false, nil
		}
		b.SupersededBy = &ci.Successor{Build: newer.ID, Number: newer.Number}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("dispatch: stopping build %s, which is superseded: %w", older.ID, err)
	}
	if !changed {
		return nil
	}
	d.Log.Info("superseded", "build", older.ID, "by", newer.ID)
	if older.State.Final() {
		ref := store.StatusOf(older)
		return message.Send(ctx, d.Reports, message.Report{Status: &ref}, 0)
	}
	return d.stopLater(ctx, older)
}
