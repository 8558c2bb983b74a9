package dispatch

import (
	"strings"
	"testing"

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
