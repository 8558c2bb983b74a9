package pipeline

import (
	"fmt"
	"strings"

	"runnerhub/shared/ci"
)

// Kind is what starts a build; its text is the value of RUNNERHUB_TRIGGER.
type Kind string

const (
	Push        Kind = "push"
	PullRequest Kind = "pull_request"
	Manual      Kind = "manual"
	Schedule    Kind = "schedule"
)

// knownEvent reports whether a trigger can name kind.
func knownEvent(kind Kind) bool { return kind == Push || kind == PullRequest }

// Action is what happened to a branch, a tag or a pull request. The empty Action
// is one that is built: only Deleted, Edited and Closed leave nothing to build.
type Action string

const (
	Created Action = "created" // a branch or tag that was not there
	Updated Action = "updated" // new commits, on a branch or in a pull request
	Forced  Action = "forced"  // a branch that was rewritten
	Deleted Action = "deleted" // a branch or tag

	Opened     Action = "opened"     // a pull request
	Retargeted Action = "retargeted" // a pull request into another branch than before
	Reopened   Action = "reopened"   // a pull request; Bitbucket Data Center alone has this
	Edited     Action = "edited"     // title, description or reviewers of a pull request
	Closed     Action = "closed"     // a pull request that was merged or declined
)

// Event is something that happened and may start a build.
type Event struct {
	Kind   Kind   `json:"kind"`
	Action Action `json:"action,omitempty"`
	// Branch is the pushed branch of a Push, the source of a PullRequest, and what a
	// Manual or Schedule build builds, without refs/heads/.
	Branch string `json:"branch,omitempty"`
	// Target is the branch a PullRequest is to be merged into.
	Target string `json:"target,omitempty"`
	// Tag is the pushed tag; then Branch is empty.
	Tag string `json:"tag,omitempty"`
	// Number is the number of a PullRequest.
	Number int `json:"number,omitempty"`
	// Message is the whole message of the head commit.
	Message string `json:"message,omitempty"`
	// Changed are the paths of the files that the event changes, both the old and the
	// new one of a renamed file. Nil is unknown; see NeedsChanged.
	Changed []string `json:"changed"`
	// Cut says that Changed is not all of them.
	Cut  bool `json:"changed_cut,omitempty"`
	Fork Fork `json:"fork,omitzero"`
}

// Fork is what is known of a PullRequest from another repository.
type Fork struct {
	Foreign  bool `json:"foreign"`  // the source is another repository, or one that is gone
	Allowed  bool `json:"allowed"`  // the app builds such pull requests
	Approved bool `json:"approved"` // a member has approved this commit
}

// FileFrom says whose pipeline file counts.
type FileFrom string

const (
	FileFromCommit FileFrom = "commit" // that of the commit that is built
	// FileFromTarget is that of the target branch: somebody who may not write to the
	// repository does not choose what runs.
	FileFromTarget FileFrom = "target"
)

// FileFrom answers whose pipeline file counts for the event.
func (e Event) FileFrom() FileFrom {
	if e.foreign() {
		return FileFromTarget
	}
	return FileFromCommit
}

func (e Event) foreign() bool { return e.Kind == PullRequest && e.Fork.Foreign }

// Revision is the state of a pull request that builds depend on.
type Revision struct {
	Source string // hash of the source's head; may be shortened
	Target string // the branch
}

// ActionSince answers what happened to an open pull request between two of its states.
// Bitbucket Cloud sends one and the same event for new commits, another target and
// another title.
func (r Revision) ActionSince(before Revision) Action {
	same := before.Source != "" && r.Source != "" && (strings.HasPrefix(r.Source, before.Source) || strings.HasPrefix(before.Source, r.Source))
	switch {
	case !same:
		return Updated
	case r.Target != before.Target:
		return Retargeted
	}
	return Edited
}

// Settled answers the verdict about an event that no pipeline file can change, so
// that none has to be read; ok is false for any other event.
func (e Event) Settled() (v Verdict, ok bool) {
	switch {
	case e.Kind == Manual || e.Kind == Schedule:
		return Verdict{}, false // the file still says what to do
	case !knownEvent(e.Kind):
		return no(CodeIncomplete, "unknown event %s", shown(string(e.Kind))), true
	case e.Kind == Push && e.Branch == "" && e.Tag == "":
		return no(CodeIncomplete, "the push names neither a branch nor a tag"), true
	case e.Kind == PullRequest && e.Target == "":
		return no(CodeIncomplete, "the pull request names no target branch"), true
	case e.Action == Deleted:
		return no(CodeDeleted, "%s was deleted", e.ref()), true
	case e.Action == Edited:
		return no(CodeEdited, "nothing to build in %s was changed", e.ref()), true
	case e.Action == Closed:
		return no(CodeClosed, "%s is closed", e.ref()), true
	case e.foreign() && !e.Fork.Allowed:
		return no(CodeFork, "%s comes from a fork, and this app does not build forks", e.ref()), true
	}
	if marker := ci.SkipMarker(e.Message); marker != "" && e.Tag == "" {
		return no(CodeSkipped, "%s: the message of the head commit has %s", e.ref(), marker), true
	}
	return Verdict{}, false
}

// ref names what the event is about, for people.
func (e Event) ref() string {
	switch {
	case e.Kind == PullRequest && e.Number > 0:
		return fmt.Sprintf("pull request #%d", e.Number)
	case e.Kind == PullRequest:
		return "the pull request"
	case e.Tag != "":
		return "tag " + e.Tag
	}
	return "branch " + e.Branch
}

// Group answers the group of the builds of an event among those of its app, which take turns; or a newer
// build may end an older one of the same group.
func (f *File) Group(e Event) string {
	if f.Concurrency.Group != "" {
		parts, _ := keyParts(f.Concurrency.Group) // Parse has refused what does not come apart
		name := "group "
		for _, part := range parts {
			switch {
			case !part.Branch:
				name += part.Text
			case e.Branch == "":
				name += e.ref() // a tag's builds are not those of a branch of that name
			default:
				name += e.Branch
			}
		}
		return name
	}
	if e.Kind == PullRequest {
		return fmt.Sprintf("%s %d", e.Kind, e.Number)
	}
	return string(e.Kind) + " " + e.ref()
}
