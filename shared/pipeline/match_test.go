package pipeline

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	file := func(triggers string) *File {
		return mustParse(t, "name: a\nsteps: [{run: x}]\ntriggers: "+triggers+"\n")
	}
	var (
		all      = file(`[push, pull_request]`)
		none     = file(`[]`)
		pushes   = file(`[push]`)
		filtered = file(`[{event: push, branches: [main, "release/*"]}, {event: pull_request, branches: [main, "release/**"]}]`)
		two      = file(`[pull_request, {event: push, branches: main}, {event: push, branches: "fix/*"}]`)
		many     = file(`[{event: push, branches: [` + strings.TrimSuffix(strings.Repeat("x,", 25), ",") + `]}]`)
	)
	push := func(branch string) Event { return Event{Kind: Push, Branch: branch} }
	pull := func(source, target string) Event {
		return Event{Kind: PullRequest, Branch: source, Target: target}
	}
	for _, tt := range []struct {
		name    string
		file    *File
		event   Event
		trigger int // -1 is no trigger
		matched bool
		reason  string
	}{
		{"any branch", all, push("main"), 0, true, `push of branch main: the push trigger takes every branch`},
		{"any target", all, pull("x", "main"), 1, true, `pull request into main: the pull_request trigger takes every branch`},
		{"exact", filtered, push("main"), 0, true, `push of branch main matches "main"`},
		{"glob", filtered, push("release/1.0"), 0, true, `push of branch release/1.0 matches "release/*"`},
		{"* stops at /", filtered, push("release/1.0/fix"), -1, false, `branch release/1.0/fix matches none of main, release/*`},
		{"anchored at the end", filtered, push("main2"), -1, false, `branch main2 matches none of main, release/*`},
		{"anchored at the start", filtered, push("x/main"), -1, false, `branch x/main matches none of main, release/*`},
		{"upper case", filtered, push("Main"), -1, false, `branch Main matches none of main, release/*`},
		{"target, not source", filtered, pull("feature/x", "main"), 1, true, `pull request into main matches "main"`},
		{"source, not target", filtered, pull("main", "develop"), -1, false, `target branch develop matches none of main, release/**`},
		{"** crosses /", filtered, pull("x", "release/1/2"), 1, true, `pull request into release/1/2 matches "release/**"`},
		{"** is also nothing", filtered, pull("x", "release"), 1, true, `pull request into release matches "release/**"`},
		{"first rule of several", two, push("main"), 1, true, `push of branch main matches "main"`},
		{"last rule of several", two, push("fix/1"), 2, true, `push of branch fix/1 matches "fix/*"`},
		{"no rule of several", two, push("dev"), -1, false, `branch dev matches none of main, fix/*`},
		{"long list", many, push("dev"), -1, false, `branch dev matches none of ` + strings.Repeat("x, ", 19) + `x and 5 more`},
		{"no push trigger", none, push("main"), -1, false, `the file has no push trigger`},
		{"no pull_request trigger", pushes, pull("x", "main"), -1, false, `the file has no pull_request trigger`},
		{"tag", all, Event{Kind: Push, Tag: "v1"}, -1, false, `tag v1: no trigger has a tags filter`},
		{"tag named like a branch", filtered, Event{Kind: Push, Tag: "main"}, -1, false, `tag main: no trigger has a tags filter`},
		{"manual", none, Event{Kind: Manual}, -1, true, `manual builds run whatever triggers says`},
		{"schedule", none, Event{Kind: Schedule}, -1, true, `scheduled builds run whatever triggers says`},
		{"nothing pushed", all, Event{Kind: Push}, -1, false, `the push names neither a branch nor a tag`},
		{"no target", all, Event{Kind: PullRequest, Branch: "x"}, -1, false, `the pull request names no target branch`},
		{"unknown", all, Event{Kind: "fork"}, -1, false, `unknown event "fork"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := Verdict{Matched: tt.matched, Reason: tt.reason, Trigger: tt.trigger}
			if got := tt.file.Match(tt.event); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestHasTrigger(t *testing.T) {
	t.Parallel()
	f := mustParse(t, minimal)
	for kind, want := range map[Kind]bool{Push: true, PullRequest: false, Manual: false, Schedule: false} {
		if got := f.HasTrigger(kind); got != want {
			t.Errorf("HasTrigger(%s) = %v", kind, got)
		}
	}
}

func TestRefuseGlob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ glob, want string }{
		{"main", ""},
		{"*", ""},
		{"**", ""},
		{"release/*", ""},
		{"**/x", ""},
		{"a/**/b", ""},
		{"release-[0-9]?", ""},
		{"[*][*]", ""},
		{"[{]", ""},
		{"{main,develop}", ""},
		{"{a,b}/{c,**}", ""},
		{"{,hot}fix/[,}]", ""},
		{strings.Repeat("{a,b}", 6), ""},
		{strings.Repeat("{a,b}", 6) + "{c,d}", `found braces that stand for more than 64 patterns: write the patterns as a list`},
		{"", "found an empty pattern, which matches no branch: remove it"},
		{strings.Repeat("a", 256), "found a pattern of 256 bytes, expected at most 255"},
		{"!main", "found ! at the start: exclusions are not supported, name the branches that build"},
		{`feature\x`, `found \ in a pattern, which no branch name contains: write / between its parts`},
		{"refs/heads/main", `found "refs/heads/main": write the name of the branch alone, "main"`},
		{"refs/tags/v1", `found "refs/tags/v1": patterns match the name of a branch, without refs/`},
		{"main, develop", `found a space in "main, develop", which no branch name contains: write several patterns as a list, [main, develop]`},
		{"/main", `found a part without a name in "/main": remove the / at the start or the end, or the second one`},
		{"release/", `found a part without a name in "release/": remove the / at the start or the end, or the second one`},
		{"a//b", `found a part without a name in "a//b": remove the / at the start or the end, or the second one`},
		{"[a", `found a [ or { in "[a" that is not closed, or holds nothing: close it, or remove it`},
		{"{a,b", `found a [ or { in "{a,b" that is not closed, or holds nothing: close it, or remove it`},
		{"feature**", `found ** inside "feature**", where it means no more than *: write "feature*" for one part of the name, and "feature*/**" beside it for more`},
		{"**.js", `found ** inside "**.js", where it means no more than *: write "*.js" for one part of the name, "**/*.js" for any number`},
		{"x/a**b/y", `found ** inside "a**b", where it means no more than *: write "a*b" for one part of the name, or "a*/**/*b" for several`},
		{"***", `found ** inside "***", where it means no more than *: write "**" for any number of parts`},
		{"{a,b}**", `found ** inside "a**", where it means no more than *: write "a*" for one part of the name, and "a*/**" beside it for more`},
		{"{a,{b,c}}", `found braces inside braces: write the patterns as a list`},
		{strings.Repeat("{a,a}", 51), `found braces that stand for more than 64 patterns: write the patterns as a list`},
	} {
		if got := refuseGlob(tt.glob); got != tt.want {
			t.Errorf("refuseGlob(%q)\ngot  %s\nwant %s", tt.glob, got, tt.want)
		}
	}
}

// TestSuggestedGlobs checks that what we tell authors to write is accepted and
// matches what they meant.
func TestSuggestedGlobs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ glob, branch string }{
		{"feature*", "feature"},
		{"feature*", "feature-a"},
		{"feature*/**", "feature/b"},
		{"feature*/**", "feature-a/b/c"},
		{"*.js", "a.js"},
		{"**/*.js", "a.js"},
		{"**/*.js", "x/y/a.js"},
		{"a*/**/*b", "a1/x/y/2b"},
		{"a*/**/*b", "a1/2b"},
		{"**", "a/b/c"},
	} {
		if why := refuseGlob(tt.glob); why != "" {
			t.Errorf("%s is refused: %s", tt.glob, why)
		}
		if _, ok := firstMatch([]string{tt.glob}, tt.branch); !ok {
			t.Errorf("%s does not match %s", tt.glob, tt.branch)
		}
	}
}

// someGlob is made of parts that are likely to be accepted.
func someGlob(rnd *rand.Rand) string {
	parts := []string{"main", "a", "b", "*", "?", "/", "/", "**", "{a,b}", "{b,**/a,}", "[ab]", "[^a]", "-"}
	var b strings.Builder
	for range 1 + rnd.IntN(6) {
		b.WriteString(parts[rnd.IntN(len(parts))])
	}
	return b.String()
}

func someBranch(rnd *rand.Rand) string {
	parts := []string{"main", "a", "b", "/", "/", "-"}
	var b strings.Builder
	for range 1 + rnd.IntN(6) {
		b.WriteString(parts[rnd.IntN(len(parts))])
	}
	return b.String()
}

// TestExpand compares what braces are checked as with what they match.
func TestExpand(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 200_000 {
		glob, branch := someGlob(rnd), someBranch(rnd)
		if refuseGlob(glob) != "" {
			continue
		}
		alternatives, _ := expand(glob)
		_, one := firstMatch(alternatives, branch)
		whole, err := doublestar.Match(glob, branch)
		if err != nil || one != whole {
			t.Fatalf("%q on %q: one of %q matches: %v, the whole: %v, %v", glob, branch, alternatives, one, whole, err)
		}
		if whole {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("only %d matches: the test compares nothing", matched)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	matched := 0
	for range 5000 {
		var f File
		for range 1 + rnd.IntN(4) {
			trigger := Trigger{Event: []Kind{Push, PullRequest}[rnd.IntN(2)]}
			for range 1 + rnd.IntN(4) {
				trigger.Branches = append(trigger.Branches, someGlob(rnd))
			}
			f.Triggers = append(f.Triggers, trigger)
		}
		branch := someBranch(rnd)
		for _, e := range []Event{{Kind: Push, Branch: branch}, {Kind: PullRequest, Branch: "x", Target: branch}} {
			before := f.Match(e)
			shuffled := slices.Clone(f.Triggers)
			rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			for i := range shuffled {
				shuffled[i].Branches = slices.Clone(shuffled[i].Branches)
				rnd.Shuffle(len(shuffled[i].Branches), func(a, b int) {
					shuffled[i].Branches[a], shuffled[i].Branches[b] = shuffled[i].Branches[b], shuffled[i].Branches[a]
				})
			}
			after := (&File{Triggers: shuffled}).Match(e)
			if before.Matched != after.Matched {
				t.Fatalf("%+v: %+v of %+v, but %+v of %+v", e, before, f.Triggers, after, shuffled)
			}
			if before.Matched {
				matched++
			}
		}
	}
	if matched < 100 {
		t.Errorf("only %d matches: the test compares nothing", matched)
	}
}
