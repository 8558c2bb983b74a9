package pipeline

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
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
			got := tt.file.Match(tt.event)
			if got.Matched != tt.matched || got.Reason != tt.reason || got.Trigger != tt.trigger {
				t.Errorf("got  %+v\nwant %v, %d, %s", got, tt.matched, tt.trigger, tt.reason)
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

// TestMatchFilters is about what filters say, as data and in words.
func TestMatchFilters(t *testing.T) {
	t.Parallel()
	push := func(branch string, changed ...string) Event {
		return Event{Kind: Push, Branch: branch, Changed: changed}
	}
	tag := func(name string) Event { return Event{Kind: Push, Tag: name} }
	pull := func(source, target string, changed ...string) Event {
		return Event{Kind: PullRequest, Branch: source, Target: target, Changed: changed}
	}
	cut := func(e Event) Event { e.Cut = true; return e }
	nothing := push("x")
	nothing.Changed = []string{}
	type findings []Finding
	find := func(trigger, line int, filter FilterName, result Result, value string, patterns ...string) Finding {
		return Finding{trigger, line, filter, result, value, patterns, nil}
	}
	for _, tt := range []struct {
		name     string
		triggers string // from line 3 on
		event    Event
		code     Code
		reason   string
		want     findings
	}{
		{
			"include and exclude", `- {event: push, branches: {include: "release/*", exclude: ["*/old", "*/x"]}}`, push("release/1"), CodeMatched,
			`push of branch release/1 matches "release/*"`,
			findings{find(0, 3, "branches", Included, "release/1", "release/*")},
		},
		{
			"exclude wins", `- {event: push, branches: {include: "release/*", exclude: ["*/old", "*/x"]}}`, push("release/x"), CodeNoMatch,
			`branch release/x is excluded by "*/x"`,
			findings{find(0, 3, "branches", Excluded, "release/x", "*/x")},
		},
		{
			"exclude alone", `- {event: push, branches: {exclude: [wip, "wip/*"]}}`, push("x"), CodeMatched,
			`push of branch x is not excluded by wip, wip/*`,
			findings{find(0, 3, "branches", NotExcluded, "x", "wip", "wip/*")},
		},
		{
			"neither", `- {event: push, branches: {include: [a, b], exclude: c}}`, push("x"), CodeNoMatch,
			`branch x matches none of a, b`,
			findings{find(0, 3, "branches", NotIncluded, "x", "a", "b")},
		},
		{
			"another trigger takes what one excludes", "- {event: push, branches: {exclude: x}}\n- {event: push, branches: x}", push("x"), CodeMatched,
			`push of branch x matches "x"`,
			findings{find(1, 4, "branches", Included, "x", "x")},
		},
		{
			"each trigger has its reason", "- {event: push, branches: {exclude: x}}\n- {event: push, branches: y}\n- pull_request", push("x"), CodeNoMatch,
			`line 3: branch x is excluded by "x"; line 4: branch x matches none of y`,
			findings{find(0, 3, "branches", Excluded, "x", "x"), find(1, 4, "branches", NotIncluded, "x", "y")},
		},

		{"tag", `- {event: push, tags: "v*"}`, tag("v1"), CodeMatched, `push of tag v1 matches "v*"`, findings{find(0, 3, "tags", Included, "v1", "v*")}},
		{"another tag", `- {event: push, tags: "v*"}`, tag("x"), CodeNoMatch, `tag x matches none of v*`, findings{find(0, 3, "tags", NotIncluded, "x", "v*")}},
		{"no tags", `- {event: push, branches: "*"}`, tag("v1"), CodeNoMatch, `tag v1: no trigger has a tags filter`, findings{find(0, 3, "tags", Missing, "v1")}},
		{
			"tags alone", `- {event: push, tags: "v*"}`, push("v1"), CodeNoMatch,
			`branch v1: the push trigger is about tags alone`,
			findings{find(0, 3, "branches", Missing, "v1")},
		},
		{"tags and branches, a branch", `- {event: push, tags: "v*", branches: x}`, push("x"), CodeMatched, `push of branch x matches "x"`, findings{find(0, 3, "branches", Included, "x", "x")}},
		{"tags and branches, a tag", `- {event: push, tags: "v*", branches: x}`, tag("v2"), CodeMatched, `push of tag v2 matches "v*"`, findings{find(0, 3, "tags", Included, "v2", "v*")}},
		{
			"a trigger for tags says nothing of branches", "- {event: push, tags: x}\n- {event: push, branches: [a, b]}", push("x"), CodeNoMatch,
			`branch x matches none of a, b`,
			findings{find(0, 3, "branches", Missing, "x"), find(1, 4, "branches", NotIncluded, "x", "a", "b")},
		},
		{
			"nor one for branches of tags", "- push\n- {event: push, tags: x}", tag("y"), CodeNoMatch,
			`tag y matches none of x`,
			findings{find(0, 3, "tags", Missing, "y"), find(1, 4, "tags", NotIncluded, "y", "x")},
		},
		{"paths do not concern tags", `- {event: push, tags: "v*", paths: src/**}`, tag("v1"), CodeMatched, `push of tag v1 matches "v*"`, findings{find(0, 3, "tags", Included, "v1", "v*")}},

		{
			"source and target", `- {event: pull_request, branches: main, source_branches: "feature/*"}`, pull("feature/x", "main"), CodeMatched,
			`pull request into main matches "main", its source feature/x matches "feature/*"`,
			findings{find(0, 3, "branches", Included, "main", "main"), find(0, 3, "source_branches", Included, "feature/x", "feature/*")},
		},
		{
			"source alone", `- {event: pull_request, source_branches: {exclude: "wip/*"}}`, pull("feature/x", "main"), CodeMatched,
			`pull request into main: the pull_request trigger takes every branch, its source feature/x is not excluded by wip/*`,
			findings{find(0, 3, "source_branches", NotExcluded, "feature/x", "wip/*")},
		},
		{
			"another source", `- {event: pull_request, branches: main, source_branches: "feature/*"}`, pull("x", "main"), CodeNoMatch,
			`source branch x matches none of feature/*`,
			findings{find(0, 3, "source_branches", NotIncluded, "x", "feature/*")},
		},
		{
			"another target", `- {event: pull_request, branches: main, source_branches: "feature/*"}`, pull("x", "dev"), CodeNoMatch,
			`target branch dev matches none of main`,
			findings{find(0, 3, "branches", NotIncluded, "dev", "main")},
		},

		{
			"paths", `- {event: push, branches: x, paths: [src/**, go.mod]}`, push("x", "README.md", "src/a/b.go"), CodeMatched,
			`push of branch x matches "x", and file src/a/b.go matches "src/**"`,
			findings{find(0, 3, "branches", Included, "x", "x"), find(0, 3, "paths", Included, "src/a/b.go", "src/**")},
		},
		{
			"paths alone", `- {event: push, paths: {exclude: "docs/**"}}`, push("x", "docs/a", "b"), CodeMatched,
			`push of branch x: the push trigger takes every branch, and file b is not excluded by docs/**`,
			findings{find(0, 3, "paths", NotExcluded, "b", "docs/**")},
		},
		{
			"other paths", `- {event: push, paths: src/**}`, push("x", "a", "b", "c"), CodeNoMatch,
			`none of 3 changed files, such as a, matches src/**`,
			findings{find(0, 3, "paths", NotIncluded, "", "src/**")},
		},
		{"another path", `- {event: push, paths: src/**}`, push("x", "a"), CodeNoMatch, `the only changed file, a, matches none of src/**`, findings{find(0, 3, "paths", NotIncluded, "a", "src/**")}},
		{
			"included and excluded", `- {event: push, paths: {include: src/**, exclude: "**/*.md"}}`, push("x", "src/a.md", "b.go"), CodeNoMatch,
			`none of 2 changed files, such as src/a.md, matches src/** without matching **/*.md`,
			findings{{0, 3, "paths", NotIncluded, "", []string{"src/**"}, []string{"**/*.md"}}},
		},
		{
			"included and excluded, alone", `- {event: push, paths: {include: src/**, exclude: "**/*.md"}}`, push("x", "src/a.md"), CodeNoMatch,
			`the only changed file, src/a.md, is excluded by **/*.md`,
			findings{find(0, 3, "paths", Excluded, "src/a.md", "**/*.md")},
		},
		{"excluded path", `- {event: push, paths: {exclude: "**/*.md"}}`, push("x", "a/b.md"), CodeNoMatch, `the only changed file, a/b.md, is excluded by **/*.md`, findings{find(0, 3, "paths", Excluded, "a/b.md", "**/*.md")}},
		{"excluded paths", `- {event: push, paths: {exclude: "**/*.md"}}`, push("x", "a.md", "b.md"), CodeNoMatch, `all 2 changed files, such as a.md, are excluded by **/*.md`, findings{find(0, 3, "paths", Excluded, "", "**/*.md")}},
		{"no file", `- {event: push, paths: src/**}`, nothing, CodeNoMatch, `no file is changed, and paths asks for one of src/**`, findings{find(0, 3, "paths", NotIncluded, "", "src/**")}},
		{
			"unknown files", `- {event: push, paths: src/**}`, push("x"), CodeMatched,
			`push of branch x: the push trigger takes every branch, and whether a changed file matches paths is not known, so it is built`,
			findings{find(0, 3, "paths", Assumed, "", "src/**")},
		},
		{
			"not all files", `- {event: pull_request, branches: main, paths: src/**}`, cut(pull("x", "main", "a")), CodeMatched,
			`pull request into main matches "main", and whether a changed file matches paths is not known, so it is built`,
			findings{find(0, 3, "branches", Included, "main", "main"), find(0, 3, "paths", Assumed, "", "src/**")},
		},
		{
			"not all files, but the right one", `- {event: push, paths: src/**}`, cut(push("x", "src/a")), CodeMatched,
			`push of branch x: the push trigger takes every branch, and file src/a matches "src/**"`,
			findings{find(0, 3, "paths", Included, "src/a", "src/**")},
		},
		{
			"branches come before paths", `- {event: push, branches: y, paths: src/**}`, push("x"), CodeNoMatch,
			`branch x matches none of y`,
			findings{find(0, 3, "branches", NotIncluded, "x", "y")},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := mustParse(t, "name: a\ntriggers:\n"+tt.triggers+"\nsteps: [{run: x}]\n")
			got := f.Match(tt.event)
			if got.Code != tt.code || got.Reason != tt.reason {
				t.Errorf("got  %s: %s\nwant %s: %s", got.Code, got.Reason, tt.code, tt.reason)
			}
			if !reflect.DeepEqual(findings(got.Findings), tt.want) {
				t.Errorf("got  %+v\nwant %+v", got.Findings, tt.want)
			}
		})
	}
}

// refusal is what the author of a glob gets to read; empty: it is fine.
func refusal(of globOf, glob string) string {
	if why := of.refuse(glob); why != nil {
		return why.text()
	}
	return ""
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
		{"", "found an empty pattern, which matches nothing: remove it"},
		{strings.Repeat("a", 256), "found a pattern of 256 characters, expected at most 255"},
		{"!main", `found ! at the start of a pattern: to leave something out, write {include: […], exclude: "main"}`},
		{`feature\x`, `found \ in "feature\\x": write / between the parts of a name`},
		{"refs/heads/main", `found "refs/heads/main": write the name of the branch alone, "main"`},
		{"refs/tags/v1", `found "refs/tags/v1": patterns match the name of a branch, without refs/`},
		{"main, develop", `found a space in "main, develop": no name of a branch has one; write several patterns as a list, [main, develop]`},
		{"/main", `found a part without a name in "/main": remove the / at the start or the end, or the second one`},
		{"release/", `found a part without a name in "release/": remove the / at the start or the end, or the second one`},
		{"a//b", `found a part without a name in "a//b": remove the / at the start or the end, or the second one`},
		{"a/**/**/b", `found ** twice in a row in "a/**/**/b", which means no more than once: remove one`},
		{"*{a,}*", `found braces in "*{a,}*" beside which * becomes **: write the patterns as a list`},
		{"{*,a}*", `found braces in "{*,a}*" beside which * becomes **: write the patterns as a list`},
		{"*{a,b}*", ""},
		{"[!-.]", ""},
		{"[^!-9]", ""},
		{"[a/]", `found a / in the class "[a/]": no class matches one, so remove it`},
		{"x[^/]", `found a / in the class "[^/]": no class matches one, so remove it`},
		{"[+-9]", `found a / in the class "[+-9]": no class matches one, so remove it`},
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
		if got := refusal(globOfBranches, tt.glob); got != tt.want {
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
		if why := refusal(globOfBranches, tt.glob); why != "" {
			t.Errorf("%s is refused: %s", tt.glob, why)
		}
		if firstMatch([]string{tt.glob}, tt.branch) < 0 {
			t.Errorf("%s does not match %s", tt.glob, tt.branch)
		}
	}
}

// However dear its patterns are, a file is matched in bounded time, and what could not be looked at counts as not known.
func TestDearPatterns(t *testing.T) {
	t.Parallel()
	files := make([]string, 10_000)
	for i := range files {
		files[i] = strings.Repeat("a/", 60) + strings.Repeat("a", 120) + strconv.Itoa(i)
	}
	for name, pattern := range map[string]string{
		"braces behind stars": "**/a" + strings.Repeat("*{a,b}", 6) + "z",
		"text behind a star":  "**/*" + strings.Repeat("a", 200) + "z",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			paths := make([]string, 15)
			for i := range paths {
				paths[i] = pattern + strconv.Itoa(i)
			}
			f := &File{Triggers: []Trigger{{Event: Push, Paths: Filter{Include: paths}}, {Event: Push, Paths: Filter{Include: []string{"x"}, Exclude: paths}}}}
			v := f.Match(Event{Kind: Push, Branch: "main", Changed: files})
			if !v.Matched || len(v.Findings) != 1 || v.Findings[0].Result != Assumed {
				t.Errorf("got %.500v, want a match because not all is known", v)
			}
			v = f.Match(Event{Kind: Push, Branch: "main", Changed: files[:20]})
			if v.Matched || v.Code != CodeNoMatch {
				t.Errorf("got %.500v of 20 files, want none to match", v)
			}
		})
	}
}

// What common patterns cost is far from the limit.
func TestCommonPatterns(t *testing.T) {
	t.Parallel()
	files := make([]string, 1000)
	for i := range files {
		files[i] = "packages/some-package/src/components/Button" + strconv.Itoa(i) + ".stories.js"
	}
	var f File
	for i := range 40 {
		f.Triggers = append(f.Triggers, Trigger{Event: Push, Paths: Filter{
			Include: []string{"packages/*/lib" + strconv.Itoa(i) + "/**", "**/*.{ts,tsx}", "apps/**", "**/go.mod"}, Exclude: []string{"**/*.md"},
		}})
	}
	if v := f.Match(Event{Kind: Push, Branch: "main", Changed: files}); v.Matched || v.Code != CodeNoMatch {
		t.Errorf("got %+v, want no match", v)
	}
}
