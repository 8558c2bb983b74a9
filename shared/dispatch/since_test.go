package dispatch

import (
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/store"
)

// What happened to a pull request follows from its event and from what was decided of it last. One that is open again, which
// Bitbucket Data Center has, is built like one that was opened, although nothing of it is new.
func TestSince(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("ab", 20)
	known := store.Revision{Source: hash, Target: "main", Delivery: "earlier"}
	listed := store.Revision{Source: hash[:12], Target: "main"}
	for _, tt := range []struct {
		name   string
		before store.Revision
		action ci.PullRequestAction
		closed bool
		source string
		target string
		want   pipeline.Action
		built  bool
	}{
		{"opened", store.Revision{}, ci.PullRequestOpened, false, hash[:12], "main", pipeline.Opened, true},
		{"reopened as it was", known, ci.PullRequestReopened, false, hash[:12], "main", pipeline.Reopened, true},
		{"reopened, never seen", store.Revision{}, ci.PullRequestReopened, false, hash, "main", pipeline.Reopened, true},
		{"reopened, and closed by now", known, ci.PullRequestReopened, true, hash, "main", pipeline.Closed, false},
		{"new commits", known, ci.PullRequestUpdated, false, strings.Repeat("cd", 6), "main", pipeline.Updated, true},
		{"retargeted", known, ci.PullRequestUpdated, false, hash[:12], "develop", pipeline.Retargeted, true},
		{"a new title", known, ci.PullRequestUpdated, false, hash[:12], "main", pipeline.Edited, false},
		{"a new title, opened before", listed, ci.PullRequestUpdated, false, hash[:12], "main", pipeline.Edited, false},
		{"new commits, opened before", listed, ci.PullRequestUpdated, false, strings.Repeat("cd", 6), "main", pipeline.Updated, true},
		{"retargeted, opened before", listed, ci.PullRequestUpdated, false, hash[:12], "develop", pipeline.Retargeted, true},
		{"another run of this delivery", store.Revision{Source: hash, Target: "main", Delivery: "this"}, ci.PullRequestUpdated, false, hash, "main", pipeline.Updated, true},
		{"a comment", known, ci.PullRequestOther, false, hash, "main", pipeline.Edited, false},
		{"declined", known, ci.PullRequestClosed, true, hash, "main", pipeline.Closed, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pr := ci.PullRequest{ID: 7, Action: tt.action, Open: !tt.closed, SourceHash: tt.source, SourceBranch: "x", TargetBranch: tt.target}
			got := since(tt.before, pr, "this")
			if got != tt.want {
				t.Errorf("it is %s, want %s", got, tt.want)
			}
			event := eventOf(pr)
			event.Action = got
			if _, settled := event.Settled(); settled == tt.built {
				t.Errorf("%+v is settled: %v", event, settled)
			}
		})
	}
}

// An event of a change that the list knew of, when the app was tied, is decided as if nothing were known. One of an older state is known
// to be late.
func TestHeard(t *testing.T) {
	t.Parallel()
	hash, at := strings.Repeat("ab", 6), time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	listed := store.Revision{Source: hash, Target: "main", UpdatedAt: at.Add(time.Hour), Listed: at}
	decided := store.Revision{Source: hash, Target: "main", Delivery: "d", UpdatedAt: at}
	for name, tt := range map[string]struct {
		before store.Revision
		hash   string
		target string
		at     time.Time
		known  bool
	}{
		"a later edit":               {listed, hash, "main", at.Add(time.Microsecond), true},
		"the change that was listed": {listed, hash, "main", at, false},
		"an earlier one":             {listed, hash, "main", at.Add(-time.Hour), false},
		"at a time nobody knows":     {listed, hash, "main", time.Time{}, false},
		"what it was before":         {listed, strings.Repeat("cd", 6), "main", at.Add(-time.Hour), true},
		"its target before":          {listed, hash, "develop", at.Add(-time.Hour), true},
		"decided":                    {decided, hash, "main", at, true},
		"never seen":                 {store.Revision{}, hash, "main", at, false},
	} {
		pr := ci.PullRequest{ID: 7, Action: ci.PullRequestUpdated, Open: true, SourceHash: tt.hash, TargetBranch: tt.target, UpdatedAt: tt.at}
		want := store.Revision{}
		if tt.known {
			want = tt.before
		}
		if got := heard(tt.before, pr); got != want {
			t.Errorf("%s: %+v is known, want %+v", name, got, want)
		}
	}
}
