package pipeline

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
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

// Event is something that happened and may start a build. The deletion of a
// branch or a tag is none: it leaves nothing to build.
type Event struct {
	Kind Kind
	// Branch is the pushed branch of a Push and the source of a PullRequest,
	// without refs/heads/.
	Branch string
	// Target is the branch a PullRequest is to be merged into.
	Target string
	// Tag is the pushed tag; then Branch is empty.
	Tag string
}

// Verdict says whether an event starts a build, and why.
type Verdict struct {
	Matched bool `json:"matched"`
	// Reason names the rule and the value it was applied to, in words for
	// the dashboard.
	Reason string `json:"reason"`
	// Trigger is the place in File.Triggers of the rule that matched; -1 when
	// none did or none was needed.
	Trigger int `json:"trigger"`
}

// HasTrigger reports whether any trigger names kind. A push to a branch with an
// open pull request is left to the pull request where a PullRequest trigger
// takes it; ask Match about that pull request, as its target may not match.
func (f *File) HasTrigger(kind Kind) bool {
	for _, t := range f.Triggers {
		if t.Event == kind {
			return true
		}
	}
	return false
}

// Match decides about one event. The order of triggers and branches has no
// influence on whether it matches.
func (f *File) Match(e Event) Verdict {
	switch e.Kind {
	case Manual:
		return Verdict{Matched: true, Trigger: -1, Reason: "manual builds run whatever triggers says"}
	case Schedule:
		return Verdict{Matched: true, Trigger: -1, Reason: "scheduled builds run whatever triggers says"}
	case Push:
		switch {
		case e.Tag != "":
			return no("tag %s: no trigger has a tags filter", e.Tag)
		case e.Branch == "":
			return no("the push names neither a branch nor a tag")
		}
		return f.matchBranch(Push, e.Branch, "push of branch ", "branch ")
	case PullRequest:
		if e.Target == "" {
			return no("the pull request names no target branch")
		}
		return f.matchBranch(PullRequest, e.Target, "pull request into ", "target branch ")
	}
	return no("unknown event %s", shown(string(e.Kind)))
}

// matchBranch holds branch against the triggers for kind. The event and the
// branch are called by these words in the reason.
func (f *File) matchBranch(kind Kind, branch, eventOf, branchOf string) Verdict {
	for i, t := range f.Triggers {
		if t.Event != kind {
			continue
		}
		if len(t.Branches) == 0 {
			return Verdict{Matched: true, Trigger: i, Reason: fmt.Sprintf("%s%s: the %s trigger takes every branch", eventOf, branch, kind)}
		}
		if glob, ok := firstMatch(t.Branches, branch); ok {
			return Verdict{Matched: true, Trigger: i, Reason: fmt.Sprintf("%s%s matches %q", eventOf, branch, glob)}
		}
	}
	if !f.HasTrigger(kind) {
		return no("the file has no %s trigger", kind)
	}
	return no("%s%s matches none of %s", branchOf, branch, f.branches(kind))
}

// branches lists the globs of all triggers for kind, as far as they fit.
func (f *File) branches(kind Kind) string {
	const most = 20
	all, total := make([]string, 0, most), 0
	for _, t := range f.Triggers {
		if t.Event == kind {
			total += len(t.Branches)
			all = append(all, t.Branches[:min(len(t.Branches), most-len(all))]...)
		}
	}
	if total > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all, ", "), total-most)
	}
	return strings.Join(all, ", ")
}

func no(format string, args ...any) Verdict {
	return Verdict{Trigger: -1, Reason: fmt.Sprintf(format, args...)}
}

// firstMatch is the first of globs that matches the whole of branch.
func firstMatch(globs []string, branch string) (string, bool) {
	for _, glob := range globs {
		if doublestar.MatchUnvalidated(glob, branch) {
			return glob, true
		}
	}
	return "", false
}
