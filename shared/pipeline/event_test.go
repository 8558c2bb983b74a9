package pipeline

import (
	"reflect"
	"strings"
	"testing"
)

func TestSettled(t *testing.T) {
	t.Parallel()
	push := func(action Action) Event { return Event{Kind: Push, Branch: "main", Action: action} }
	pull := func(action Action) Event {
		return Event{Kind: PullRequest, Branch: "x", Target: "main", Number: 7, Action: action}
	}
	skip := func(e Event) Event { e.Message = "Docs [skip ci]"; return e }
	f := mustParse(t, "name: a\nsteps: [{run: x}]\ntriggers: [{event: push, branches: '*', tags: '*'}, pull_request]\n")
	for _, tt := range []struct {
		name   string
		event  Event
		code   Code // of a settled event, else CodeMatched or CodeAlways
		reason string
	}{
		{"push", push(""), CodeMatched, ""},
		{"new branch", push(Created), CodeMatched, ""},
		{"new commits", push(Updated), CodeMatched, ""},
		{"force push", push(Forced), CodeMatched, ""},
		{"branch gone", push(Deleted), CodeDeleted, "branch main was deleted"},
		{"tag", Event{Kind: Push, Tag: "v1", Action: Created}, CodeMatched, ""},
		{"tag gone", Event{Kind: Push, Tag: "v1", Action: Deleted}, CodeDeleted, "tag v1 was deleted"},
		{"pull request", pull(""), CodeMatched, ""},
		{"opened", pull(Opened), CodeMatched, ""},
		{"updated", pull(Updated), CodeMatched, ""},
		{"retargeted", pull(Retargeted), CodeMatched, ""},
		{"reopened", pull(Reopened), CodeMatched, ""},
		{"new title", pull(Edited), CodeEdited, "nothing to build in pull request #7 was changed"},
		{"merged", pull(Closed), CodeClosed, "pull request #7 is closed"},
		{"skipped push", skip(push("")), CodeSkipped, "branch main: the message of the head commit has [skip ci]"},
		{"skipped pull request", skip(pull(Opened)), CodeSkipped, "pull request #7: the message of the head commit has [skip ci]"},
		{"a tag is not skipped", skip(Event{Kind: Push, Tag: "v1"}), CodeMatched, ""},
		{"nor a manual build", skip(Event{Kind: Manual, Branch: "main"}), CodeAlways, ""},
		{"nor a scheduled one", skip(Event{Kind: Schedule, Branch: "main"}), CodeAlways, ""},
		{"deleted beats skipped", skip(push(Deleted)), CodeDeleted, "branch main was deleted"},
		{"nothing", Event{Kind: Push}, CodeIncomplete, "the push names neither a branch nor a tag"},
		{"no target", Event{Kind: PullRequest, Branch: "x"}, CodeIncomplete, "the pull request names no target branch"},
		{"unknown", Event{Kind: "fork"}, CodeIncomplete, `unknown event "fork"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, settled := tt.event.Settled()
			if settled != (tt.reason != "") || settled && (v.Code != tt.code || v.Reason != tt.reason || v.Matched) {
				t.Errorf("settled %v, %+v", settled, v)
			}
			if got := f.Match(tt.event); got.Code != tt.code || tt.reason != "" && got.Reason != tt.reason || got.Matched != (tt.reason == "") {
				t.Errorf("matching says %+v", got)
			}
		})
	}
}

func TestActionSince(t *testing.T) {
	t.Parallel()
	full := strings.Repeat("0123456789", 4)
	for _, tt := range []struct {
		before, now Revision
		want        Action
	}{
		{Revision{full, "main"}, Revision{full, "main"}, Edited},
		{Revision{full, "main"}, Revision{full[:12], "main"}, Edited},
		{Revision{full[:12], "main"}, Revision{full, "main"}, Edited},
		{Revision{full, "main"}, Revision{full, "develop"}, Retargeted},
		{Revision{full, "main"}, Revision{"f" + full[:11], "main"}, Updated},
		{Revision{full, "main"}, Revision{"f" + full[:11], "develop"}, Updated},
		{Revision{}, Revision{full, "main"}, Updated},
		{Revision{full, "main"}, Revision{"", "main"}, Updated},
	} {
		if got := tt.now.ActionSince(tt.before); got != tt.want {
			t.Errorf("%+v after %+v: got %s, want %s", tt.now, tt.before, got, tt.want)
		}
	}
}

func TestForks(t *testing.T) {
	t.Parallel()
	f := mustParse(t, "name: a\nsteps: [{run: x}]\ntriggers: [{event: pull_request, branches: main}]\n")
	pull := func(target string, fork Fork) Event {
		return Event{Kind: PullRequest, Branch: "main", Target: target, Number: 7, Fork: fork}
	}
	const terms = `pull request into main matches "main"; it comes from a fork, so it gets no secrets and the pipeline file of the target branch counts`
	for _, tt := range []struct {
		name      string
		event     Event
		from      FileFrom
		code      Code
		held      bool
		noSecrets bool
		reason    string
	}{
		{"no fork", pull("main", Fork{Allowed: true}), FileFromCommit, CodeMatched, false, false, `pull request into main matches "main"`},
		{"not allowed", pull("main", Fork{Foreign: true}), FileFromTarget, CodeFork, false, false, "pull request #7 comes from a fork, and this app does not build forks"},
		{"approved, not allowed", pull("main", Fork{Foreign: true, Approved: true}), FileFromTarget, CodeFork, false, false, "pull request #7 comes from a fork, and this app does not build forks"},
		{"held", pull("main", Fork{Foreign: true, Allowed: true}), FileFromTarget, CodeHeld, true, true, terms + "; it waits until a member approves the commit"},
		{"approved", pull("main", Fork{Foreign: true, Allowed: true, Approved: true}), FileFromTarget, CodeMatched, false, true, terms},
		{"no match", pull("develop", Fork{Foreign: true, Allowed: true}), FileFromTarget, CodeNoMatch, false, false, "target branch develop matches none of main"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := f.Match(tt.event)
			if got.Code != tt.code || got.Held != tt.held || got.NoSecrets != tt.noSecrets || got.Reason != tt.reason ||
				got.Matched != (tt.code == CodeMatched || tt.code == CodeHeld) {
				t.Errorf("got %+v", got)
			}
			if got := tt.event.FileFrom(); got != tt.from {
				t.Errorf("the file is that of %s", got)
			}
		})
	}
}

func TestMatchPush(t *testing.T) {
	t.Parallel()
	f := mustParse(t, "name: a\nsteps: [{run: x}]\ntriggers: [push, {event: pull_request, branches: [main, 'release/*']}]\n")
	pull := func(number int, source, target string) Event {
		return Event{Kind: PullRequest, Branch: source, Target: target, Number: number}
	}
	fork := pull(4, "x", "main")
	fork.Fork = Fork{Foreign: true, Allowed: true, Approved: true}
	push := Event{Kind: Push, Branch: "x"}
	own := `push of branch x: the push trigger takes every branch`
	for _, tt := range []struct {
		name string
		push Event
		open []Event
		want []string // number and reason
	}{
		{"none", push, nil, []string{"0 " + own}},
		{"one", push, []Event{pull(1, "x", "main")}, []string{`1 the branch belongs to pull request #1: pull request into main matches "main"`}},
		{"another target", push, []Event{pull(1, "x", "develop")}, []string{"0 " + own}},
		{"another branch", push, []Event{pull(1, "y", "main")}, []string{"0 " + own}},
		{"a fork's branch of the same name", push, []Event{fork}, []string{"0 " + own}},
		{"several", push, []Event{pull(1, "x", "main"), pull(2, "x", "develop"), pull(3, "x", "release/1")}, []string{
			`1 the branch belongs to pull request #1: pull request into main matches "main"`,
			`3 the branch belongs to pull request #3: pull request into release/1 matches "release/*"`,
		}},
		{"skipped", Event{Kind: Push, Branch: "x", Message: "[skip ci]"}, []Event{pull(1, "x", "main")}, []string{"0 branch x: the message of the head commit has [skip ci]"}},
		{"deleted", Event{Kind: Push, Branch: "x", Action: Deleted}, []Event{pull(1, "x", "main")}, []string{"0 branch x was deleted"}},
		{"a tag of the same name", Event{Kind: Push, Tag: "x"}, []Event{pull(1, "x", "main")}, []string{"0 tag x: no trigger has a tags filter"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, v := range f.MatchPush(tt.push, tt.open) {
				got = append(got, string(rune('0'+v.PullRequest))+" "+v.Reason)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestNeedsChanged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		triggers string
		want     bool
	}{
		{"[push]", false},
		{"[{event: push, paths: src/**}]", true},
		{"[{event: push, paths: src/**}, push]", false},
		{"[{event: push, paths: src/**}, pull_request]", true},
		{"[{event: push, branches: main, paths: src/**}]", false},
		{"[{event: push, branches: x, paths: src/**}]", true},
		{"[{event: push, branches: main}, {event: push, paths: src/**}]", true},
		{"[{event: pull_request, paths: src/**}]", false},
	} {
		f := mustParse(t, "name: a\nsteps: [{run: x}]\ntriggers: "+tt.triggers+"\n")
		for _, changed := range [][]string{nil, {"src/a"}, {"b"}} {
			if got := f.NeedsChanged(Event{Kind: Push, Branch: "x", Changed: changed}); got != tt.want {
				t.Errorf("%s: %v", tt.triggers, got)
			}
		}
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	none := mustParse(t, minimal)
	named := mustParse(t, minimal+"concurrency: {group: deploy}\n")
	seen := map[string]bool{}
	for _, e := range []Event{
		{Kind: Push, Branch: "main"},
		{Kind: Push, Branch: "develop"},
		{Kind: Push, Tag: "main"},
		{Kind: PullRequest, Branch: "main", Target: "develop", Number: 1},
		{Kind: PullRequest, Branch: "main", Target: "develop", Number: 2},
		{Kind: Manual, Branch: "main"},
		{Kind: Schedule, Branch: "main"},
		{Kind: Push, Branch: "deploy"},
	} {
		group := none.Group(e)
		if seen[group] {
			t.Errorf("%+v shares the group %q with another one", e, group)
		}
		seen[group] = true
		if named.Group(e) != named.Group(Event{Kind: Push, Branch: "other"}) || seen[named.Group(e)] {
			t.Errorf("%+v has the group %q of a named one", e, named.Group(e))
		}
	}
}

// TestGroupOfABranch holds that a group with the branch in its name is one for each branch.
func TestGroupOfABranch(t *testing.T) {
	t.Parallel()
	f := mustParse(t, minimal+"concurrency: {group: 'deploy-{{ branch }}'}\n")
	for _, tt := range []struct {
		event Event
		want  string
	}{
		{Event{Kind: Push, Branch: "main"}, "group deploy-main"},
		{Event{Kind: Push, Branch: "feature/x"}, "group deploy-feature/x"},
		{Event{Kind: PullRequest, Branch: "feature/x", Target: "main", Number: 7}, "group deploy-feature/x"},
		{Event{Kind: Schedule, Branch: "main"}, "group deploy-main"},
		{Event{Kind: Push, Tag: "main"}, "group deploy-tag main"},
	} {
		if got := f.Group(tt.event); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.event, got, tt.want)
		}
	}
}
