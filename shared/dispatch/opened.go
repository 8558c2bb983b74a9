package dispatch

import (
	"runnerhub/shared/ci"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/store"
)

// heard is what is known of a pull request without its event. What it was when the app was tied counts for events
// of later changes alone: one of a change that the list knew of came from a webhook that was there already, and is
// news, though the list says the same (docs/decisions/0056-opened-before.md).
func heard(before store.Revision, pr ci.PullRequest) store.Revision {
	now := pipeline.Revision{Source: pr.SourceHash, Target: pr.TargetBranch}
	same := now.ActionSince(pipeline.Revision{Source: before.Source, Target: before.Target}) == pipeline.Edited
	if same && !before.Listed.IsZero() && !pr.UpdatedAt.After(before.Listed) {
		return store.Revision{}
	}
	return before
}

// untouched is the verdict about a pull request of which nothing is new, with what it is compared with.
func untouched(before store.Revision, verdict pipeline.Verdict, ref string) pipeline.Verdict {
	if !before.Listed.IsZero() {
		verdict.Reason = ref + " was opened before the repository was connected, and nothing to build in it was changed since"
	}
	return verdict
}
