package report

import (
	"context"
	"fmt"
	"strings"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/budget"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/store"
)

const (
	// postLease keeps other posters of a status away; the deadline of one post is
	// well below it.
	postLease   = 45 * time.Second
	postTimeout = 15 * time.Second
	// late is how long after it an unanswered post may still take effect: Bitbucket
	// ends calls after 30 seconds.
	late = 35 * time.Second
	// lag is how often a commit that Bitbucket does not find is asked for again: it may
	// be so new that not every part of Bitbucket knows it.
	lag = 4
	// patience is the longest pause between posts while Bitbucket is down.
	patience = 5 * time.Minute
	// unheard is how long after its time a message is taken for lost.
	unheard = time.Minute
)

// post brings what Bitbucket shows in line with what a status has to say. One
// process at a time does that for a status; the others leave it to that one.
func (r *Report) post(ctx context.Context, ref store.StatusRef) error {
	holder := r.NewID()
	for {
		st, wait, err := r.lease(ctx, ref, holder)
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("report: taking the lease on a status: %w", err)
		}
		if st.Settled() {
			return nil
		}
		if wait > 0 {
			// Whoever posts now reads the status again afterwards. If it died, or if
			// Bitbucket asked for a pause, this message comes back when there is a point.
			return message.Send(ctx, r.Reports, message.Report{Status: &ref}, min(max(wait, time.Second), queue.MaxDelay))
		}
		done, err := r.bring(ctx, st)
		if err != nil || done {
			return err
		}
	}
}

// lease takes the lease on a status that has something to post, or takes it anew for
// the next post, or answers how long to wait for it.
func (r *Report) lease(ctx context.Context, ref store.StatusRef, holder string) (st store.Status, wait time.Duration, err error) {
	st, _, err = r.Store.ChangeStatus(ctx, ref, func(st *store.Status) bool {
		now := r.Now()
		wait = 0
		switch {
		case st.Settled():
			return false
		case st.Holder == holder:
		case st.Holder != "" && now.Before(st.LeaseUntil):
			wait = st.LeaseUntil.Sub(now)
			return false
		case now.Before(st.NotBefore):
			wait = st.NotBefore.Sub(now)
			return false
		case st.Holder != "":
			// Its poster died, perhaps with a post under way.
			st.Doubtful, st.DoubtfulAt = true, now
		}
		st.Holder, st.LeaseUntil = holder, now.Add(postLease)
		return true
	})
	return st, wait, err
}

// bring makes one step: a post, or reading back one whose answer never came. Done
// means that nothing more is to do now.
func (r *Report) bring(ctx context.Context, st store.Status) (done bool, err error) {
	b, err := r.Store.Build(ctx, st.Build)
	if err != nil {
		return false, fmt.Errorf("report: %w", err)
	}
	if b.State.Status() != st.State {
		b.State = ci.Running // it ended meanwhile; the next post says so
	}
	client, err := r.Grants.Client(ctx, b.Connection)
	if err != nil {
		return r.failed(ctx, st, err)
	}
	calling, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	if st.Posted == st.Revision { // and doubtful
		shown, err := client.ReadStatus(calling, st.Repository, st.Commit, st.Key)
		switch {
		case err == nil && shown.State == st.State && shown.URL == r.BuildURL(st.Build):
			return r.confirmed(ctx, st)
		case err == nil || fault.Is(err, fault.NotFound):
			// Posted again, but not for ever: somebody else may be writing there.
			return r.failed(ctx, st, fault.New(fault.NotFound, "Bitbucket does not show what was posted"))
		default:
			return r.failed(ctx, st, err)
		}
	}
	err = client.PostStatus(calling, st.Repository, st.Commit, bitbucket.Status{
		Key: st.Key, State: st.State, URL: r.BuildURL(st.Build), Refname: st.Refname,
		Name: name(b), Description: description(b),
	})
	if err != nil {
		return r.failed(ctx, st, err)
	}
	settled := false
	err = r.edit(ctx, st, func(now *store.Status) {
		now.Posted, now.PostedAt = st.Revision, r.Now().UTC()
		now.Problem, now.Tries, now.NotBefore = "", 0, time.Time{}
		settled = now.Settled()
		if settled {
			now.Holder, now.LeaseUntil = "", time.Time{}
		}
	})
	r.Log.Info("posted a status", "build", b.ID, "commit", st.Commit, "state", st.State)
	return settled, err
}

// confirmed ends the doubt about a status that reads as it should, once no
// unanswered post can come late any more.
func (r *Report) confirmed(ctx context.Context, st store.Status) (bool, error) {
	wait := st.DoubtfulAt.Add(late).Sub(r.Now())
	settled := false
	err := r.edit(ctx, st, func(now *store.Status) {
		now.Holder, now.LeaseUntil = "", time.Time{}
		if wait <= 0 {
			now.Doubtful, now.DoubtfulAt, now.Missing = false, time.Time{}, 0
		} else {
			now.DueAt = r.Now().Add(wait + unheard)
		}
		settled = now.Settled()
	})
	if err != nil || wait <= 0 {
		return settled, err // not settled: there is a newer build by now
	}
	ref := st.Ref()
	return true, message.Send(ctx, r.Reports, message.Report{Status: &ref}, wait)
}

// failed decides what an error of Bitbucket means for a status: another try, or its end.
func (r *Report) failed(ctx context.Context, st store.Status, cause error) (bool, error) {
	reason, _ := fault.Public(cause)
	if reason == "" {
		reason = "an internal error"
	}
	kind := fault.KindOf(cause)
	ends := false
	switch kind {
	case fault.NotFound:
		ends = st.Missing+1 >= lag
	case fault.Forbidden, fault.Gone, fault.Invalid, fault.Revoked:
		ends = true
	}
	pause := max(fault.RetryAfter(cause), min(time.Second<<min(st.Tries, 10), patience))
	if kind == fault.Unknown && st.Tries == 0 {
		pause = 0
	}
	at := r.Now()
	err := r.edit(ctx, st, func(now *store.Status) {
		now.Holder, now.LeaseUntil = "", time.Time{}
		now.Tries++
		now.Problem = reason
		switch kind {
		case fault.Unknown:
			now.Doubtful, now.DoubtfulAt = true, at
		case fault.NotFound:
			now.Missing++
			now.Posted = 0
		}
		if ends && now.Revision == st.Revision {
			now.Ended = reason
			return
		}
		now.NotBefore = at.Add(pause)
		now.DueAt = now.NotBefore.Add(unheard)
	})
	r.Log.Warn("a status could not be posted", "build", st.Build, "commit", st.Commit, "state", st.State, "try", st.Tries+1, "ended", ends, "error", cause)
	if err != nil {
		return true, err
	}
	ref := st.Ref()
	return true, message.Send(ctx, r.Reports, message.Report{Status: &ref}, min(pause, queue.MaxDelay))
}

// edit changes a status that this poster holds. What came in between, from a newer
// build, stays.
func (r *Report) edit(ctx context.Context, st store.Status, change func(*store.Status)) error {
	// Bitbucket has been called: what came of it is recorded even if time ran out.
	ctx, cancel := budget.Record(ctx)
	defer cancel()
	_, _, err := r.Store.ChangeStatus(ctx, st.Ref(), func(now *store.Status) bool {
		if now.Holder != st.Holder {
			return false
		}
		change(now)
		return true
	})
	if err != nil {
		return fmt.Errorf("report: recording a post: %w", err)
	}
	return nil
}

func name(b store.Build) string {
	if b.Name == "" {
		return "RunnerHub"
	}
	return b.Name
}

func description(b store.Build) string {
	switch b.State {
	case ci.Successful:
		return fmt.Sprintf("Build #%d passed", b.Number)
	case ci.Failed:
		for _, s := range b.Steps {
			if s.State == ci.StepFailed && !s.ContinueOnError {
				return fmt.Sprintf("Build #%d failed in step %q", b.Number, s.Name)
			}
		}
		return fmt.Sprintf("Build #%d failed", b.Number)
	case ci.Stopped:
		return fmt.Sprintf("Build #%d was stopped", b.Number)
	case ci.TimedOut:
		return fmt.Sprintf("Build #%d ran into its timeout", b.Number)
	case ci.Errored:
		first, _, _ := strings.Cut(b.Reason, "\n")
		return fmt.Sprintf("Build #%d could not run: %s", b.Number, first)
	default:
		if b.Held {
			return fmt.Sprintf("Build #%d waits until a member approves the commit, which comes from a fork", b.Number)
		}
		return fmt.Sprintf("Build #%d is queued or running", b.Number)
	}
}
