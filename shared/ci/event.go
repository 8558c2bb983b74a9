package ci

import "time"

// EventKind says what happened in the repository.
type EventKind string

const (
	EventPush        EventKind = "push"
	EventPullRequest EventKind = "pull_request"
	EventOther       EventKind = "other" // recorded, never built
)

// Event is a webhook body, reduced to what decisions need. Everything in it is
// foreign text and may be wrong; hashes are checked by the parser.
type Event struct {
	Kind       EventKind `json:"kind"`
	Key        string    `json:"key"`        // the forge's own event key
	Repository string    `json:"repository"` // UUID with braces
	FullName   string    `json:"full_name"`
	Actor      string    `json:"actor,omitempty"` // display name, for people
	Changes    []Change  `json:"changes,omitempty"`
	LeftOut    int       `json:"left_out,omitempty"` // changes of a push past the limit, not in Changes
	// Considered is how many of Changes have been decided, while not all are. No parser
	// sets it: it is kept with what it counts.
	Considered  int          `json:"considered,omitempty"`
	PullRequest *PullRequest `json:"pull_request,omitempty"`
}

// RefKind is what a change of a push changed.
type RefKind string

const (
	RefBranch RefKind = "branch"
	RefTag    RefKind = "tag"
)

// Change is one change of a push. Old is empty for a new ref, New for a deleted
// one; both are full hashes. With a Problem, Name is for people and all else is empty.
type Change struct {
	Kind    RefKind `json:"kind"`
	Name    string  `json:"name"`
	Old     string  `json:"old,omitempty"`
	New     string  `json:"new,omitempty"`
	Forced  bool    `json:"forced,omitempty"`
	Message string  `json:"message,omitempty"` // first line of the head commit, cut at 200 runes
	Marks   string  `json:"marks,omitempty"`   // the [skip ci] or [ci skip] of its whole message, as it is written there
	Author  string  `json:"author,omitempty"`
	Problem string  `json:"problem,omitempty"` // why the change cannot be read, in words
}

// PullRequestAction is what happened to a pull request, as far as the event says.
type PullRequestAction string

const (
	PullRequestOpened   PullRequestAction = "opened"
	PullRequestUpdated  PullRequestAction = "updated"  // commits, target, or only the title
	PullRequestReopened PullRequestAction = "reopened" // after it was declined; Bitbucket Data Center alone has this
	PullRequestClosed   PullRequestAction = "closed"   // merged or declined
	PullRequestOther    PullRequestAction = "other"    // comments, approvals …
)

// PullRequest is a pull request as an event or the forge's API shows it. Hashes
// may be short (Bitbucket Cloud sends 12 characters).
type PullRequest struct {
	Action           PullRequestAction `json:"action,omitempty"`
	ID               int               `json:"id"`
	Title            string            `json:"title,omitempty"`
	Open             bool              `json:"open"`
	SourceBranch     string            `json:"source_branch"`
	SourceHash       string            `json:"source_hash"`
	SourceRepository string            `json:"source_repository,omitempty"` // UUID; empty when the fork is gone
	SourceFullName   string            `json:"source_full_name,omitempty"`
	TargetBranch     string            `json:"target_branch"`
	TargetHash       string            `json:"target_hash,omitempty"`
	TargetRepository string            `json:"target_repository"`
	Author           string            `json:"author,omitempty"`
	UpdatedAt        time.Time         `json:"updated_at,omitzero"`
}

// Fork reports whether the pull request comes from another repository, or from
// one that is gone.
func (p PullRequest) Fork() bool { return p.SourceRepository != p.TargetRepository }
