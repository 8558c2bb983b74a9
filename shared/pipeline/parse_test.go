package pipeline

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// minimal is a file to which a test adds lines of its own.
const minimal = "name: a\ntriggers: [push]\nsteps: [{run: x}]\n"

func mustParse(t testing.TB, text string) *File {
	t.Helper()
	f, problems := Parse([]byte(text))
	if problems != nil {
		t.Fatalf("Parse:\n%v", problems)
	}
	return f
}

func TestParseFull(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	want := &File{
		Name:     "Shop",
		Platform: "linux",
		Variables: []Variable{
			{"PLAIN", "some text"},
			{"OCTAL", "01"},
			{"BOOLEAN", "yes"},
			{"VERSION", "1.10"},
			{"EMPTY", ""},
			{"TILDE", "~"},
			{"QUOTED", "a: b"},
			{"SPACED", "  kept  "},
			{"LINES", "one\ntwo\n"},
		},
		Triggers: []Trigger{
			{Event: Push, Line: 26},
			{Event: PullRequest, Line: 27},
			{
				Event: Push, Line: 28, Branches: Filter{Include: []string{"main"}}, Tags: Filter{Include: []string{"v*", "release-?"}},
				Paths: Filter{Include: []string{"src/**"}, Exclude: []string{"**/*.md", "docs/**"}},
			},
			{
				Event: PullRequest, Line: 34, Branches: Filter{Include: []string{"main", "release/**"}},
				SourceBranches: Filter{Exclude: []string{"wip/*"}},
			},
		},
		Steps: []Step{
			{Name: "Install", Run: "npm ci", WorkingDirectory: "web", Timeout: 10 * time.Minute},
			{Run: "npm test\nnpm run lint\n", Env: []Variable{{"CI", "false"}}, ContinueOnError: true},
		},
		Timeout:     90 * time.Minute,
		Image:       "node:22-bookworm",
		Runner:      "docker",
		Compute:     "large",
		Toolchain:   []Tool{{"node", "22"}, {"xcode", "16.2"}, {"android_sdk", "35"}, {"flutter", "3.10"}, {"ruby", "3.4.1"}},
		Concurrency: Concurrency{Group: "deploy", CancelInProgress: true, Set: true},
		Cache:       &Cache{Paths: []string{"node_modules", "~/.npm/**"}, Key: `npm-{{ checksum "package-lock.json" }}-{{ branch }}`},
		Artifacts:   []string{"dist/**", "coverage report/*.html"},
		asks: []ask{
			{platformAsked, "platform", 3, 11},
			{Image, "image", 4, 1},
			{runnerAsked, "runner", 5, 9},
			{computeAsked, "compute", 6, 1},
			{Toolchain, "environment.node", 8, 3},
			{Toolchain, "environment.xcode", 9, 3},
			{Toolchain, "environment.android_sdk", 10, 3},
			{Toolchain, "environment.flutter", 11, 3},
			{Toolchain, "environment.ruby", 12, 3},
			{Groups, "concurrency", 35, 1},
			{Caches, "cache", 38, 1},
			{StepTimeouts, "steps[0].timeout", 48, 5},
			{ContinueOnError, "steps[1].continue_on_error", 54, 5},
			{Artifacts, "artifacts", 55, 1},
		},
	}
	for name, text := range map[string]string{
		"as written": string(text),
		"CRLF":       strings.ReplaceAll(string(text), "\n", "\r\n"),
		"BOM":        "\ufeff" + string(text),
	} {
		if got := mustParse(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", name, got, want)
		}
	}
}

func TestParseDefaults(t *testing.T) {
	t.Parallel()
	got := mustParse(t, "name: a\ntriggers: []\nenvironment:\nsteps:\n- {run: x, working_directory: ., env: }\n")
	want := &File{Name: "a", Platform: "linux", Timeout: time.Hour, Steps: []Step{{Run: "x"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseAliases(t *testing.T) {
	t.Parallel()
	f := mustParse(t, `
name: a
triggers:
  - {event: push, branches: &release [main, "release/*"]}
  - {event: pull_request, branches: *release}
steps:
  - &check {run: &script make check, env: &env {A: b}}
  - *check
  - {run: *script, env: *env}
`)
	if !reflect.DeepEqual(f.Triggers[0].Branches, f.Triggers[1].Branches) {
		t.Errorf("branches differ: %+v", f.Triggers)
	}
	for i, s := range f.Steps {
		if !reflect.DeepEqual(s, f.Steps[0]) {
			t.Errorf("step %d is %+v, want %+v", i, s, f.Steps[0])
		}
	}
}

// TestProblems holds the whole text of what authors get to read.
func TestProblems(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		// The file as a whole.
		{"empty", "", `1:1: the file is empty, expected at least name, triggers and steps`},
		{"only comments", "# soon\n", `1:1: the file is empty, expected at least name, triggers and steps`},
		{"only a marker", "---\n", `1:1: the file is empty, expected at least name, triggers and steps`},
		{"NUL", "name: a\nb: \x00", `2:4: found a NUL byte, expected text: is this a binary file?`},
		{"UTF-16", "\xff\xfen\x00", `1:4: found a NUL byte, expected text: is this a binary file?`},
		{"latin-1", "name: caf\xe9\n", `1:10: found bytes that are not UTF-8: save the file as UTF-8`},
		{"two documents", minimal + "---\nname: b\n", `4:1: found a second document after "---", expected one: make it a file of its own and an app with that path`},
		{"a list", "- run: x\n", `1:1: found a list, expected a map: lines of "key: value"`},
		{"text", "hello\n", `1:1: found text, expected a map: lines of "key: value"`},

		// Syntax.
		{
			"unquoted *", "name: a\ntriggers:\n- event: push\n  branches: *\n",
			`4:13: found * without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*"`,
		},
		{
			"unquoted *.x in a list", "name: é\nbranches: [main, *.x]\n",
			`2:18: found *.x without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*.x"`,
		},
		{
			"unquoted *name", "a:\n  - *feature\n  - b\n",
			`2:5: found *feature without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*feature"`,
		},
		{
			"unquoted **/x", "a:\n  - b\n  - **/x\n",
			`3:5: found **/x without quotes, which YAML reads as an alias: quote patterns that start with *, as in "**/x"`,
		},
		{"braces without quotes", "x: 1\nbranches: {hotfix,bugfix}/*\n", `2:11: found {hotfix,bugfix}/* without quotes, which YAML reads as a list or a map that ends too early: put "{hotfix,bugfix}/*" in quotes`},
		{"a class without quotes", "x: 1\nbranches:\n  - [a-z]*\n", `3:5: found [a-z]* without quotes, which YAML reads as a list or a map that ends too early: put "[a-z]*" in quotes`},
		{"a list that goes on", "x: [a, b]\nbranches: {a,b}/*\nsteps: {a: b}\n", `2:11: found {a,b}/* without quotes, which YAML reads as a list or a map that ends too early: put "{a,b}/*" in quotes`},
		{"a class inside a list", "a: [v[0-9], main]\n", `1:5: found v[0-9] without quotes, in which YAML reads [ as the start of a list: put "v[0-9]" in quotes`},
		{"braces inside a list", "a: [release/{1,2}]\n", `1:5: found release/{1,2} without quotes, in which YAML reads { as the start of a map: put "release/{1,2}" in quotes`},
		{"braces first inside a list", "a: [{a,b}/*, x]\n", `1:5: found {a,b}/* without quotes, which YAML reads as a list or a map that ends too early: put "{a,b}/*" in quotes`},
		{"a class inside the second entry", "a: [feature/*, release/[0-9]*]\n", `1:16: found release/[0-9]* without quotes, in which YAML reads [ as the start of a list: put "release/[0-9]*" in quotes`},
		{"?* inside a list", "a: [?*, x]\n", `1:5: found ?* without quotes, which YAML reads as a key: put "?*" in quotes`},
		{"a class first inside a list", "a: [[a-z]*, x]\n", `1:5: found [a-z]* without quotes, which YAML reads as a list or a map that ends too early: put "[a-z]*" in quotes`},
		{"? inside an entry", "a: [x, v?]\n", `1:8: found v? without quotes, in which YAML reads ? as the start of a key: put "v?" in quotes`},
		{"* and braces", "a: *{a,b}\n", `1:4: found *{a,b} without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*{a,b}"`},
		{"* and a class", "a:\n- *a[b] # c\n", `2:3: found *a[b] without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*a[b]"`},
		{"* before !", "a: {exclude: [*-wip, !x]}\n", `1:15: found *-wip without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*-wip"`},
		{"! before !!", "a: [!release/*, !!x]\n", `1:5: found !release/* without quotes, which YAML reads as a tag: put the value in quotes; to leave release/* out of a list, write {include: […], exclude: "release/*"}`},
		{"an alias that is sound before one that is not", "a: {b: &c [d], e: *c, f: *g}\n", `1:26: found *g without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*g"`},
		{"a long one", "a: [" + strings.Repeat("é", 60) + "[b]]\n", "1:5: found " + strings.Repeat("é", 60) + "… without quotes, in which YAML reads [ as the start of a list: put the value in quotes"},
		{"a list that is not closed with a class", "a: [v[0-9], b\nc: d\n", `1:5: found v[0-9] without quotes, in which YAML reads [ as the start of a list: put "v[0-9]" in quotes`},
		{"! and braces and a space", "a:\n- !{a,b}/* c\n", `2:3: found !{a,b}/* c without quotes, which YAML reads as a tag: put the value in quotes`},
		{"a script in brackets", "a: |\n  [ -f x ] && y\n  *z\nb: [c, d[e]]\n", `4:8: found d[e] without quotes, in which YAML reads [ as the start of a list: put "d[e]" in quotes`},
		{"broken tag", "x: 1\nbranches: [main, !<]\n", `2:18: found !< without quotes, which YAML reads as a tag: put the value in quotes`},
		{"! in a list", "a: [main, !dev]\n", `1:11: found !dev without quotes, which YAML reads as a tag: put the value in quotes; to leave dev out of a list, write {include: […], exclude: "dev"}`},
		{"! first in a list", "a: [!dev]\n", `1:5: found !dev without quotes, which YAML reads as a tag: put the value in quotes; to leave dev out of a list, write {include: […], exclude: "dev"}`},
		{"! in a map", "a: {b: [c], d: !*.md}\n", `1:16: found !*.md without quotes, which YAML reads as a tag: put the value in quotes; to leave *.md out of a list, write {include: […], exclude: "*.md"}`},
		{"! and braces", "a: b\nc:\n  - '!d'\n  - !{e,f}\n", `4:5: found !{e,f} without quotes, which YAML reads as a tag: put the value in quotes; to leave {e,f} out of a list, write {include: […], exclude: "{e,f}"}`},
		{"the second !", "a: [ ! b ]\nc: [d, !e]\n", `2:8: found !e without quotes, which YAML reads as a tag: put the value in quotes; to leave e out of a list, write {include: […], exclude: "e"}`},
		{"! has nothing to do with it", "a: [ ! b ]\nc: [d\n", `2:4: found a list that is not closed: add the "]", or the "," between its entries`},
		{
			"! that swallows a comma", "name: a\nsteps: [{run: x}]\ntriggers: [{event: push, branches: [!dev, main]}]\n",
			`3:37: triggers[0].branches[0]: found ! at the start of a pattern: to leave something out, write {include: […], exclude: "dev"}`,
		},
		{"* in a comment, and one that is not", "# [*x]\na: '*x'\nb: |\n  - *x\nc: [*x]\n", `5:5: found *x without quotes, which YAML reads as an alias: quote patterns that start with *, as in "*x"`},
		{"lone &", "a: & b\n", `1:4: found & b without quotes, which YAML reads as an anchor: put "& b" in quotes`},
		{
			"a: b: c", "x: 1\nrun: echo: hi\n",
			`2:10: found a second ":" where a value stands: put a value with ": " in quotes, or check the indentation of this line`,
		},
		{"tab", "a:\n\t- b\n", `2:1: found a tab, expected spaces: YAML is indented with spaces only`},
		{"@", "run: @x\n", `1:6: found '@' at the start of a value: put the value in quotes`},
		{"open list", "a: [b, c\nd: e\n", `1:4: found a list that is not closed: add the "]", or the "," between its entries`},
		{"open map", "a: {b: c\nd: e\n", `1:4: found a map that is not closed: add the "}", or the "," between its entries`},
		{"open quote", "a: 'b\nc: d\n", `1:4: found a quoted text that is not closed: add the quote at its end`},
		{"open quote among others", "a: 'b'\nc: {d: 'e', f: 'g}\nh: i\n", `2:16: found a quoted text that is not closed: add the quote at its end`},
		{"open double quote", "a: 'b\"'\nc: \"it's\n", `2:4: found a quoted text that is not closed: add the quote at its end`},
		{"list open at the end", "a: [b]\nc: [d,\n  [e],\n", `4: a value is missing: remove the "," too many, or close the list or map`},
		{"comma too many", "a: [b]\nc: [d,, e]\n", `2: a value is missing: remove the "," too many, or close the list or map`},
		{
			"bad escape", "a: \"b \\q\"\n",
			`1:7: found a \ escape that does not exist: use single quotes, in which \ means itself, or write \\`,
		},
		{
			"indentation", "steps:\n  - run: a\n foo: b\n",
			`3:2: found something that is no "key: value" at this place: check the indentation of this line, and that nothing follows a closing quote`,
		},
		{
			"list left open", "a:\n- b\n- c\n d: e\n",
			`4:3: found a second ":" where a value stands: put a value with ": " in quotes, or check the indentation of this line`,
		},
		{"key in a list", "- a\nb: c\n", `2:2: found a key where the next "- " of a list was expected: check the indentation of this line`},
		{"no colon", "name: a\nsteps\nx: y\n", `2:1: found text without ":", expected "key: value": check the indentation of this line`},
		{"list behind a key", "a: - b\n", `1:4: found "- " behind a key: start the list on the next line, or write it in brackets`},
		{"the rest", "a: |x\n  b\n", `1:5: not valid YAML: did not find expected comment or line break`},

		// Keys.
		{
			"all missing", "platform: linux\n", `
1:1: name: the key "name" is missing: add it, for example "name: My app"
1:1: triggers: the key "triggers" is missing: add it, for example "triggers: [push]"
1:1: steps: the key "steps" is missing: add it, for example "steps: [{run: make test}]"`,
		},
		{"misspelt", "name: a\ntriggers: [push]\nstep: [{run: x}]\n", `3:1: step: unknown key "step", did you mean "steps"?`},
		{"swapped letters", minimal + "tiemout: 1\n", `4:1: tiemout: unknown key "tiemout", did you mean "timeout"?`},
		{"upper case", minimal + "Timeout: 1\n", `4:1: Timeout: unknown key "Timeout", did you mean "timeout"?`},
		{"another system's", minimal + "env: {A: b}\n", `4:1: env: unknown key "env", did you mean "environment"?`},
		{"far off", minimal + "kubernetes: 1\n", `4:1: kubernetes: unknown key "kubernetes", expected one of name, platform, environment, triggers, steps, artifacts, timeout, image, runner, compute, cache, concurrency`},
		{"twice", minimal + "name: b\n", `4:1: name: the key "name" is already given in line 1: keep one of them`},
		{"British", minimal + "artefacts: [a]\n", `4:1: artefacts: unknown key "artefacts", did you mean "artifacts"?`},
		{"merge", minimal + "<<: {a: b}\n", `4:1: <<: merge keys ("<<") are not supported: write the keys out`},
		{"key is a list", minimal + "[a]: b\n", `4:1: found a list as a key, expected plain text`},
		{
			"toolchain", minimal + "environment:\n  node: 22\n  xcod: 1\n", `
6:3: environment.xcod: unknown key "xcod", did you mean "xcode"?`,
		},

		// Values.
		{"name is empty", "name:\ntriggers: [push]\nsteps: [{run: x}]\n", `1:6: name: found nothing, expected text: fill it in, or remove the key`},
		{"name is a map", "name: {a: b}\ntriggers: [push]\nsteps: [{run: x}]\n", `1:7: name: found a map, expected text`},
		{
			"name is long", "name: " + strings.Repeat("é", 101) + "\ntriggers: [push]\nsteps: [{run: x}]\n",
			`1:7: name: found 101 characters, expected at most 100: shorten it`,
		},
		{
			"name has lines", "name: \"a\\nb\"\ntriggers: [push]\nsteps: [{run: x}]\n",
			`1:7: name: found a line break or a control character, expected one line of text`,
		},
		{
			"platform", minimal + "platform: linus\n",
			`4:11: platform: found "linus", expected one of android, flutter, ios, linux, macos, react-native, did you mean "linux"?`,
		},
		{"timeout with a unit", minimal + "timeout: 30m\n", `4:10: timeout: found "30m", expected whole minutes from 1 to 1440: for example 60`},
		{"timeout 0", minimal + "timeout: 0\n", `4:10: timeout: found "0", expected whole minutes from 1 to 1440: for example 60`},
		{"timeout of two days", minimal + "timeout: 2880\n", `4:10: timeout: found "2880", expected whole minutes from 1 to 1440: for example 60`},
		{"timeout below 0", minimal + "timeout: -1\n", `4:10: timeout: found "-1", expected whole minutes from 1 to 1440: for example 60`},

		{
			"variables", minimal + `environment:
  variables:
    LIST: [a, b]
    MAP: {a: b}
    1ST: a
    A-B: c
    RUNNERHUB_COMMIT: d
    NUL: "a\0b"
    TAG: !!str e
    BANG: ! f
    TWICE: 1
    TWICE: 2
    <<: {g: h}
`, `
6:11: environment.variables.LIST: found a list, expected text: put the value in quotes, or write it on one line
7:10: environment.variables.MAP: found a map, expected text: put the value in quotes, or write it on one line
8:5: environment.variables: found "1ST" as a variable's name, expected letters, digits and _, not starting with a digit
9:5: environment.variables: found "A-B" as a variable's name, expected letters, digits and _, not starting with a digit
10:5: environment.variables.RUNNERHUB_COMMIT: names that start with RUNNERHUB_ are set by RunnerHub itself, so that steps can rely on them: choose another name
11:10: environment.variables.NUL: found a NUL character ("\0"), which no environment or script can hold: remove it
12:10: environment.variables.TAG: found ! at the start, which YAML reads as a tag: put the value in quotes
13:11: environment.variables.BANG: found ! at the start, which YAML reads as a tag: put the value in quotes
15:5: environment.variables.TWICE: the key "TWICE" is already given in line 14: keep one of them
16:5: environment.variables: merge keys ("<<") are not supported: write the keys out`,
		},

		{
			"triggers", `name: a
steps: [{run: x}]
triggers:
  - pushed
  - pr
  - manual
  - schedule
  - tag
  - release
  - push: {branches: main}
  - branches: main
  - event: push
    tags: v*
    branch: main
  - event: push
    branches:
  - event: push
    branches: []
  - [push]
`, `
4:5: triggers[0]: unknown event "pushed", did you mean "push"?
5:5: triggers[1]: unknown event "pr", did you mean "pull_request"?
6:5: triggers[2]: manual builds run whatever triggers says: remove this entry
7:5: triggers[3]: schedule builds run whatever triggers says: remove this entry
8:5: triggers[4]: unknown event "tag": for tags, write {event: push, tags: "*"}
9:5: triggers[5]: unknown event "release", expected push or pull_request
10:5: triggers[6].push: unknown key "push": write "event: push", and branches beside it
11:5: triggers[7].event: the key "event" is missing: add it, for example "event: push"
14:5: triggers[8].branch: unknown key "branch", did you mean "branches"?
16:14: triggers[9].branches: found nothing, expected at least one pattern: fill it in, or remove the key
18:15: triggers[10].branches: found nothing, expected at least one pattern: fill it in, or remove the key
19:5: triggers[11]: found a list, expected a map: lines of "key: value"`,
		},
		{"triggers is text", "name: a\nsteps: [{run: x}]\ntriggers: push\n", `3:11: triggers: found text, expected a list: start each entry with "- "`},
		{"triggers is nothing", "name: a\nsteps: [{run: x}]\ntriggers:\n", `3:10: triggers: found nothing, expected a list: start each entry with "- "`},
		{
			"exclusions", "name: a\nsteps: [{run: x}]\ntriggers:\n- event: push\n  branches:\n  - main\n  - !dev\n  - ! dev\n  - '!dev'\n", `
7:5: triggers[0].branches[1]: found ! at the start of a pattern: to leave something out, write {include: […], exclude: "dev"}
8:5: triggers[0].branches[2]: found ! at the start of a pattern: to leave something out, write {include: […], exclude: "dev"}
9:5: triggers[0].branches[3]: found ! at the start of a pattern: to leave something out, write {include: […], exclude: "dev"}`,
		},

		{"no steps", "name: a\ntriggers: [push]\nsteps: []\n", `3:8: steps: found an empty list, expected at least one entry`},
		{
			"steps", `name: a
triggers: [push]
steps:
  - make test
  - name: Build
  - run:
  - run: [a, b]
  - run: ! grep x y
  - script: make
  - run: a
    timeout: 5
    working-directory: b
  - {run: a, working_directory: /tmp}
  - {run: a, working_directory: a/../../b}
  - {run: a, working_directory: 'a\b'}
  - {run: a, working_directory: ''}
  - {run: a, env: [A=b]}
`, `
4:5: steps[0]: found text, expected a map: lines of "key: value"
5:5: steps[1].run: the key "run" is missing: add it, for example "run: make test"
6:9: steps[2].run: found nothing, expected a script: for example "run: make test"
7:10: steps[3].run: found a list, expected text
8:10: steps[4].run: found ! at the start, which YAML reads as a tag: put the value in quotes
9:5: steps[5].script: unknown key "script", did you mean "run"?
12:5: steps[6].working-directory: unknown key "working-directory", did you mean "working_directory"?
13:33: steps[7].working_directory: found "/tmp", expected a folder of the repository: write it from the root of the repository, without the first /
14:33: steps[8].working_directory: found "a/../../b", expected a folder of the repository: write it from the root of the repository, without ..
15:33: steps[9].working_directory: found "a\\b", expected a folder of the repository: write / between folders instead of \
16:33: steps[10].working_directory: found nothing, expected text: fill it in, or remove the key
17:19: steps[11].env: found a list, expected a map: lines of "key: value"`,
		},

		// A ! that yaml.v3 drops, behind line ends of other kinds.
		{"! behind CRLF", "name: a\r\ntriggers: [push]\r\nsteps:\r\n- run: ! x\r\n", `4:8: steps[0].run: found ! at the start, which YAML reads as a tag: put the value in quotes`},
		{"! behind CR", "name: a\rtriggers: [push]\rsteps:\r- run: ! x\r", `4:8: steps[0].run: found ! at the start, which YAML reads as a tag: put the value in quotes`},
		{"! behind a line separator", "name: a # \u2028triggers: [push]\nsteps: [{run: ! x}]\n", `3:15: steps[0].run: found ! at the start, which YAML reads as a tag: put the value in quotes`},

		// Nothing, in the ways YAML has to say it.
		{"null name", "name: null\ntriggers: [push]\nsteps: [{run: x}]\n", `1:7: name: found null, which YAML reads as nothing, expected text: put it in quotes`},
		{
			"null pattern", "name: a\nsteps: [{run: x}]\ntriggers: [{event: push, branches: [~, ]}]\n",
			`3:37: triggers[0].branches[0]: found ~, which YAML reads as nothing, expected text: put it in quotes`,
		},

		// What filters take.
		{
			"filters", `name: a
steps: [{run: x}]
triggers:
  - event: push
    source_branches: a
    branches-ignore: [b]
    tags: {}
    paths: {only: src/, exclude: [/a, b/, ../c, ./d, "a\\b", " e", "!f", ~/g, "h**"]}
  - event: pull_request
    tags: a
    branches: {include: [], exclude: "!main"}
  - {event: push, tags: refs/tags/v1, branches: [refs/heads/x, "a b,c"]}
`, `
5:5: triggers[0].source_branches: "source_branches" belongs to pull_request: write branches for the pushed branch
6:5: triggers[0].branches-ignore: unknown key "branches-ignore": write "branches: {exclude: …}"
7:11: triggers[0].tags: found an empty map, expected include or exclude: name what to take, or remove the key to take everything
8:13: triggers[0].paths.only: unknown key "only", did you mean "include"?
8:19: triggers[0].paths.include: found / at the end in "src/": write "src/**" for all that is in the folder
8:35: triggers[0].paths.exclude[0]: found a part without a name in "/a": remove the / at the start or the end, or the second one
8:39: triggers[0].paths.exclude[1]: found / at the end in "b/": write "b/**" for all that is in the folder
8:43: triggers[0].paths.exclude[2]: found .. in "../c": patterns stay inside the repository, written from its root
8:49: triggers[0].paths.exclude[3]: found a part that is only a dot in "./d": remove it: patterns are written from the root of the repository
8:54: triggers[0].paths.exclude[4]: found \ in "a\\b": write / between the parts of a name
8:62: triggers[0].paths.exclude[5]: found a space at the start or the end in " e": remove it
8:68: triggers[0].paths.exclude[6]: found ! at the start of a pattern: to leave something out, write {include: […], exclude: "f"}
8:74: triggers[0].paths.exclude[7]: found ~ in "~/g": patterns stay inside the repository, written from its root
8:79: triggers[0].paths.exclude[8]: found ** inside "h**", where it means no more than *: write "h*" for one part of the name, and "h*/**" beside it for more
10:5: triggers[1].tags: "tags" belongs to push: pull requests have none
11:25: triggers[1].branches.include: found nothing, expected at least one pattern: fill it in, or remove the key
11:38: triggers[1].branches.exclude: found ! at the start of a pattern: to leave something out, write {include: […], exclude: "main"}
12:25: triggers[2].tags: found "refs/tags/v1": write the name of the tag alone, "v1"
12:50: triggers[2].branches[0]: found "refs/heads/x": write the name of the branch alone, "x"
12:64: triggers[2].branches[1]: found a space in "a b,c": no name of a branch has one; write several patterns as a list, [a, b, c]`,
		},

		{
			"patterns that YAML reads as lists and maps", `name: a
steps: [{run: x}]
triggers:
  - {event: push, branches: {a,b}, paths: {include: {c,d}, exclude: [[e]]}, tags: [{f,g}, ?h, {f: g}, [f, g]]}
  - event: push
    branches:
      - {a,b}
      - [a-z]
      - - main
    paths: {a: b}
  - event: push
    branches: main *x
    tags: "{v,w}*,x y[1]"
`, `
4:29: triggers[0].branches: found {a,b} without quotes, which YAML reads as a map: put "{a,b}" in quotes
4:53: triggers[0].paths.include: found {c,d} without quotes, which YAML reads as a map: put "{c,d}" in quotes
4:70: triggers[0].paths.exclude[0]: found [e] without quotes, which YAML reads as a list: put "[e]" in quotes
4:84: triggers[0].tags[0]: found {f,g} without quotes, which YAML reads as a map: put "{f,g}" in quotes
4:91: triggers[0].tags[1]: found ?h without quotes, which YAML reads as a map: put "?h" in quotes
4:95: triggers[0].tags[2]: found a map, expected text
4:103: triggers[0].tags[3]: found a list, expected text
7:9: triggers[1].branches[0]: found {a,b} without quotes, which YAML reads as a map: put "{a,b}" in quotes
8:9: triggers[1].branches[1]: found [a-z] without quotes, which YAML reads as a list: put "[a-z]" in quotes
9:9: triggers[1].branches[2]: found a list, expected text
10:13: triggers[1].paths.a: unknown key "a", expected one of include, exclude
12:15: triggers[2].branches: found a space in "main *x": no name of a branch has one; write several patterns as a list, [main, "*x"]
13:11: triggers[2].tags: found a space in "{v,w}*,x y[1]": no name of a tag has one; write several patterns as a list, ["{v,w}*", x, "y[1]"]`,
		},

		{"the inside of misspelt keys", `name: a
Step:
  - {Run: "", foo: 1}
  - {run: x, env: {1A: b}}
trigger:
  - evnt: pushed
    branch: /x
timeuot: [1]
`, `
2:1: Step: unknown key "Step", did you mean "steps"?
3:6: steps[0].Run: unknown key "Run", did you mean "run"?
3:11: steps[0].run: found nothing, expected a script: for example "run: make test"
3:15: steps[0].foo: unknown key "foo", expected one of name, run, working_directory, env, timeout, continue_on_error
4:20: steps[1].env: found "1A" as a variable's name, expected letters, digits and _, not starting with a digit
5:1: trigger: unknown key "trigger", did you mean "triggers"?
6:5: triggers[0].evnt: unknown key "evnt", did you mean "event"?
6:11: triggers[0].event: unknown event "pushed", did you mean "push"?
7:5: triggers[0].branch: unknown key "branch", did you mean "branches"?
7:13: triggers[0].branches: found a part without a name in "/x": remove the / at the start or the end, or the second one
8:1: timeuot: unknown key "timeuot", did you mean "timeout"?
8:10: timeout: found a list, expected whole minutes from 1 to 1440: for example 60`},
		{"the opposite of a branch", "name: a\nsteps: [{run: x}]\ntriggers: [{event: pull_request, target_branches: main}]\n", `3:34: triggers[0].target_branches: unknown key "target_branches", did you mean "branches"?`},
		{"a tag before a list", "name: a\nsteps: [{run: x}]\ntriggers:\n- event: push\n  branches: !\n  - main\n  tags: ! [a]\n  paths: !!map {include: b}\n", `
5:13: triggers[0].branches: found ! before a list, which YAML reads as a tag: remove it
7:9: triggers[0].tags: found ! before a list, which YAML reads as a tag: remove it
8:10: triggers[0].paths: found ! before a map, which YAML reads as a tag: remove it`},
		{"a list for one value", minimal + "platform: [linux]\ncompute: {a: b}\nconcurrency: {cancel_in_progress: [true]}\n", `
4:11: platform: found a list, expected one of android, flutter, ios, linux, macos, react-native
5:10: compute: found a map, expected one of small, medium, large, xlarge, 2xlarge
6:35: concurrency.cancel_in_progress: found a list, expected true or false`},

		// Extensions.
		{
			"extensions", minimal + `platform: Linux
image: node 22
runner: dockr
compute: 2XLarge
environment: {node: ^22, ruby: [3]}
artifacts: ["!x"]
cache: {paths: [/tmp, ~/], key: "{{ hash }}"}
concurrency: {cancel-in-progress: yes}
`, `
4:11: platform: found "Linux", expected one of android, flutter, ios, linux, macos, react-native, did you mean "linux"?
5:8: image: found "node 22", expected the name of an image, for example node:22 or registry.example.com/team/image:tag
6:9: runner: found "dockr", expected one of codebuild, docker, fargate, process, did you mean "docker"?
7:10: compute: found "2XLarge", expected one of small, medium, large, xlarge, 2xlarge, did you mean "2xlarge"?
8:21: environment.node: found "^22", expected a version of letters, digits and . _ + -, at most 50 characters, for example 22 or 22.11.0
8:32: environment.ruby: found a list, expected text
9:13: artifacts[0]: found ! at the start of a pattern, which excludes nothing here: name the files to take
10:17: cache.paths[0]: found a part without a name in "/tmp": remove the / at the start or the end, or the second one
10:23: cache.paths[1]: found a part without a name in "~/": remove the / at the start or the end, or the second one
10:33: cache.key: found "{{ hash ", expected {{ branch }} or {{ checksum "file" }} behind a {{
11:15: concurrency.cancel-in-progress: unknown key "cancel-in-progress", did you mean "cancel_in_progress"?
11:35: concurrency.cancel_in_progress: found "yes", expected true or false, did you mean "true"?`,
		},
		{
			"more extensions", minimal + `cache: {key: a}
concurrency: {}
timeout: "60"
steps2: x
`, `
4:8: cache.paths: the key "paths" is missing: add it, for example "paths: [node_modules]"
5:14: concurrency: found an empty map, expected group or cancel_in_progress: fill it in, or remove the key
6:10: timeout: found "60" in quotes, expected whole minutes from 1 to 1440: remove the quotes
7:1: steps2: unknown key "steps2", did you mean "steps"?`,
		},
		{
			"switches", `name: a
triggers: [push]
concurrency: {cancel_in_progress: on}
cache: {paths: a, key: '{{ checksum "/etc/passwd" }}'}
steps:
- {run: x, continue_on_error: "true", timeout: 030}
- {run: x, continue_on_error: off, timeout: 1441}
- {run: x, continue_on_error: maybe, timeout: 5m, allow_failure: true}
`, `
3:35: concurrency.cancel_in_progress: found "on", expected true or false, did you mean "true"?
4:24: cache.key: found "/etc/passwd" as the file of a checksum, expected a file of the repository, written from its root
6:31: steps[0].continue_on_error: found "true", expected true or false: remove the quotes
6:48: steps[0].timeout: found "030", expected whole minutes from 1 to 1440: for example 60
7:31: steps[1].continue_on_error: found "off", expected true or false, did you mean "false"?
7:45: steps[1].timeout: found "1441", expected whole minutes from 1 to 1440: for example 60
8:31: steps[2].continue_on_error: found "maybe", expected true or false
8:47: steps[2].timeout: found "5m", expected whole minutes from 1 to 1440: for example 60
8:51: steps[2].allow_failure: unknown key "allow_failure", did you mean "continue_on_error"?`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, problems := Parse([]byte(tt.text))
			if f != nil {
				t.Errorf("a file was returned beside problems")
			}
			for _, p := range problems {
				if p.Found == "" || p.Expected == "" {
					t.Errorf("%v: found %q, expected %q", p, p.Found, p.Expected)
				}
				if p.Nearest == "" && strings.Contains(p.Message, "did you mean") {
					t.Errorf("%v: nearest is empty", p)
				}
			}
			if got, want := problems.Error(), strings.TrimPrefix(tt.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestSyntaxErrorPlace breaks a sound file at many of its lines and expects to
// be told the line and column of the break.
func TestSyntaxErrorPlace(t *testing.T) {
	t.Parallel()
	var lines []string
	lines = append(lines, "name: a", "steps:")
	for range 15 {
		lines = append(lines,
			`  - name: "it's quoted"`,
			`    run: |`,
			`      echo "{['`,
			`    env: {A: 'b', C: [d, "e"]}`,
			`    branches: [`,
			`      "main", 'x', {a: b},`,
			`    ]`,
			`    text: 'over`,
			`      two lines'`)
	}
	for _, tt := range []struct {
		insert string
		column int
	}{
		{`    a: b: c`, 9},
		{`    x: *.js`, 8},
		{`    x: [y, *feature]`, 12},
		{`    x: @y`, 8},
		{`    x: [[a], [b], c`, 8},
		{`    x: {a: {b: c}, d: [e]`, 8},
		{`    x: "a" b`, 12},
		{"\tx: y", 1},
		{`    colonless`, 5},
	} {
		t.Run(tt.insert, func(t *testing.T) {
			t.Parallel()
			for at := 2; at < len(lines); at += 36 {
				broken := slices.Insert(slices.Clone(lines), at+4, tt.insert)
				_, problems := Parse([]byte(strings.Join(broken, "\n")))
				if len(problems) != 1 || problems[0].Line != at+5 || problems[0].Column != tt.column {
					t.Errorf("line %d, column %d: got %v", at+5, tt.column, problems)
				}
			}
		})
	}
}

func TestProblemsInFile(t *testing.T) {
	t.Parallel()
	problems := Problems{{Line: 3, Column: 5, Path: "steps", Message: "a"}, {Line: 4, Message: "b"}, {Message: "c"}}
	if got, want := problems.InFile("ci.yml"), "ci.yml:3:5: steps: a\nci.yml:4: b\nci.yml: c"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	named := problems.In("ci.yml")
	if named[2].File != "ci.yml" || named[0].Message != "a" || problems[0].File != "" {
		t.Errorf("got %+v from %+v", named, problems)
	}
}

// TestHostile reads what is made to hurt. The time is generous for slow
// machines; without the limits most of these take minutes or all memory.
func TestHostile(t *testing.T) {
	t.Parallel()
	fill := func(s string) string { return strings.Repeat(s, MaxBytes/len(s)) }
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x]\n")
	for i := byte('1'); i <= '9'; i++ {
		last, this := "*a"+string(i-1), "a"+string(i)
		bomb.WriteString(this + ": &" + this + " [" + strings.Repeat(last+", ", 9) + last + "]\n")
	}
	bomb.WriteString("name: a\ntriggers: *a9\nsteps: *a9\n")
	wide := "name: a\ntriggers: [push]\nenvironment: {variables: &v {" + variables(200) + "}}\nsteps:\n- &s {run: x, env: *v}\n" +
		strings.Repeat("- *s\n", 199)
	for _, tt := range []struct{ name, text, want string }{
		{"too large", strings.Repeat("#", MaxBytes+1), "the file is larger than 262144 bytes"},
		{"deep lists", fill("["), "nested"},
		{"deep maps", fill("{a: "), "nested"},
		{"deep entries", fill("- "), "nested"},
		{"alias bomb", bomb.String(), "unknown key"},
		{"alias to itself", "name: a\ntriggers: [push]\nsteps: &s [{run: x, env: *s}, *s]\n", "found a list, expected a map"},
		{"many keys", fill("k: v\n"), "found 52428 entries, expected at most 200"},
		{"many entries", "name: a\ntriggers: [" + strings.Repeat("push,", 50_000) + "]\nsteps: [{run: x}]\n", "found 50000 entries, expected at most 200"},
		{"many branches", manyBranches(), "triggers[5].branches[0]: found more than 1000 patterns in all triggers together"},
		{"patterns by aliases", manyPatterns("**/a" + strings.Repeat("*{a,b}", 6) + "z"), "found more than 1000 patterns"},
		{"patterns in braces", "name: a\nsteps: [{run: x}]\ntriggers: [{event: push, paths: [" + strings.Repeat("\"{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}\",", 16) + "x]}]\n", "triggers[0].paths[15]: found more than 1000 patterns"},
		{"wrong patterns by aliases", manyPatterns("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}"), "there are more problems"},
		{"many problems", "name: a\ntriggers: [push]\nsteps: [" + strings.Repeat("{a: b, c: d},", 150) + "]\n", "there are more problems"},
		{"open quote at the end", minimal + fill("# x\n")[:60<<10] + "a: 'b", "not closed"},
		{"wide aliases", wide, ""},
		{"one long line", oneLine(), ""},
		{"deep maps to search in", strings.Repeat("{a: ", 15<<10), "nested"},
		{"a star at the end", fill("a: [b]\n")[:MaxBytes-10] + "\nc: *\n", ":4: found * without quotes"},
		{"a bang at the end", fill("# !x\n")[:MaxBytes-20] + "\nc: !{}\nd: [!x]\n", ":4: found !{} without quotes"},
		{"bangs", "name: a\ntriggers: [push]\nsteps:\n" + strings.Repeat("- !x\n", 30_000) + "d: [!x]\n", "a list that is not closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, problems := Parse([]byte(tt.text))
			if got := problems.Error(); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("got %s\nwant %q", cut(got, 500), tt.want)
			}
			if len(problems) > maxProblems+1 {
				t.Errorf("%d problems", len(problems))
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func manyBranches() string {
	var b strings.Builder
	b.WriteString("name: a\nsteps: [{run: x}]\ntriggers:\n")
	for range 100 {
		b.WriteString("- event: push\n  branches:\n" + strings.Repeat("  - main\n", 200))
	}
	return b.String()
}

// manyPatterns is a file in which a list of 200 patterns that begin alike stands 200 times.
func manyPatterns(pattern string) string {
	var b strings.Builder
	b.WriteString("name: a\nsteps: [{run: x}]\ntriggers:\n- event: push\n  paths: &p\n")
	for i := range 200 {
		fmt.Fprintf(&b, "  - \"%s%d\"\n", pattern, i)
	}
	b.WriteString(strings.Repeat("- {event: push, paths: *p}\n", 199))
	return b.String()
}

// oneLine is a file of many values in one line, each of which is looked at for a "!".
func oneLine() string {
	var b strings.Builder
	b.WriteString("name: a # !\ntriggers: [push]\nsteps: [")
	for range 150 {
		b.WriteString("{run: x, env: {")
		for i := range 150 {
			b.WriteString("A" + strconv.Itoa(i) + ": x, ")
		}
		b.WriteString("}},")
	}
	b.WriteString("]\n")
	return b.String()
}

func variables(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("V" + strings.Repeat("A", i) + ": x, ")
	}
	return b.String()
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for own, want := range map[string][]string{
		"":                     {".runnerhub/runnerhub.yml", "runnerhub.yml"},
		"apps/white/label.yml": {"apps/white/label.yml"},
		"../runnerhub.yml":     nil,
	} {
		got, err := Paths(own)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("Paths(%q) = %q, %v", own, got, err)
		}
	}
}

func TestKeyParts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key  string
		want []KeyPart
	}{
		{"", nil},
		{"npm", []KeyPart{{Text: "npm"}}},
		{"{{branch}}", []KeyPart{{Branch: true}}},
		{`npm-{{ checksum "package-lock.json" "web/a b.json" }}-{{ branch }}`, []KeyPart{
			{Text: "npm-"}, {Checksum: []string{"package-lock.json", "web/a b.json"}}, {Text: "-"}, {Branch: true},
		}},
		{"a{b}c}}d{", []KeyPart{{Text: "a{b}c}}d{"}}},
	} {
		if got := (Cache{Key: tt.key}).Parts(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v", tt.key, got)
		}
	}
	for _, key := range []string{"{{", "{{ }}", "{{ branch", "{{ branch } }}", "{{ Branch }}", "{{ checksum }}", "{{ checksum file }}", `{{ checksum "" }}`, `{{ checksum "a" b }}`, `{{{ branch }}}`, `{{ checksum "../a" }}`, `{{ checksum "/a" }}`} {
		if _, why := keyParts(key); why == nil {
			t.Errorf("%s is taken", key)
		}
	}
}

func TestRefuseGroup(t *testing.T) {
	t.Parallel()
	const remedy = "; without group, each branch, tag and pull request has a group of its own"
	for group, want := range map[string]string{
		"deploy": "", "deploy-{{ branch }}": "", "{{branch}}": "", "costs $5 {a}": "",
		"deploy-$BRANCH":          `found "$BRANCH" in a group, where no variable is known: write {{ branch }} for the branch` + remedy,
		"deploy-${{ github.x }}":  `found "${{ github.x }}" in a group, where no variable is known: write {{ branch }} for the branch` + remedy,
		"{{ tag }}":               `found "{{ tag ", expected {{ branch }} behind a {{` + remedy,
		`{{ checksum "go.sum" }}`: "found a checksum in a group, which is chosen before a build has files: write {{ branch }} for the branch" + remedy,
	} {
		got := ""
		if why := refuseGroup(group); why != nil {
			got = why.text()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", group, got, want)
		}
	}
}

// TestOtherSystemsKeys holds what people bring from other systems to our word for it.
func TestOtherSystemsKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keys       keys
		want, from string
	}{
		{triggerKeys(), "branches", "target Target-Branch target_branches destination destination_branch destination_branches branch base"},
		{triggerKeys(), "source_branches", "source source-branch from head"},
		{triggerKeys(), "tags", "tag"},
		{triggerKeys(), "paths", "path files changes changesets"},
		{triggerKeys(), "event", "type events"},
		{filterKeys(), "include", "only"},
		{filterKeys(), "exclude", "except ignore not"},
		{stepKeys(), "run", "script commands command cmd"},
		{stepKeys(), "working_directory", "working-directory cwd dir workdir"},
		{stepKeys(), "env", "environment variables"},
		{stepKeys(), "timeout", "timeout-minutes timeoutInMinutes max-time"},
		{stepKeys(), "continue_on_error", "continue-on-error allow_failure"},
		{fileKeys(), "environment", "env variables"},
		{fileKeys(), "triggers", "on when trigger"},
		{fileKeys(), "steps", "jobs stages step"},
		{fileKeys(), "image", "container"},
		{fileKeys(), "timeout", "timeout_minutes max-time"},
		{fileKeys(), "compute", "size resource_class"},
		{fileKeys(), "", "parallel services"},
		{concurrencyKeys(), "cancel_in_progress", "cancel-in-progress interruptible"},
	} {
		for key := range strings.FieldsSeq(tt.from) {
			if got := tt.keys.refusal(key).nearest; got != tt.want {
				t.Errorf("%s: %q, want %q", key, got, tt.want)
			}
		}
	}
}

func TestYAML12(t *testing.T) {
	t.Parallel()
	f := mustParse(t, "# ours\n%YAML 1.2\n---\n"+minimal)
	if f.Triggers[0].Line != 5 {
		t.Errorf("got %+v", f.Triggers)
	}
	if _, problems := Parse([]byte("%YAML 3.0\n---\n" + minimal)); problems == nil {
		t.Error("YAML 3.0 is taken")
	}
}

// TestUnmatched refuses what no name can match, and only that.
func TestUnmatched(t *testing.T) {
	t.Parallel()
	const globs = `: no name of a branch has that; patterns are globs for the whole name, not regular expressions`
	for glob, want := range map[string]string{
		"^main$":      `found ^ in "^main$"` + globs + `: write "main"`,
		"release/.*":  `found a part that starts with . in "release/.*"` + globs + `: write "release/**"`,
		".*":          `found a part that starts with . in ".*"` + globs + `: write "**"`,
		"^(a|b)/.*$":  `found ^ in "^(a|b)/.*$"` + globs + `: write "{a,b}/**"`,
		"^a|b$":       `found ^ in "^a|b$"` + globs,
		"^v[0-9]+$":   `found ^ in "^v[0-9]+$"` + globs,
		"^(a{1}|b)$":  `found ^ in "^(a{1}|b)$"` + globs,
		"a..*":        `found .. in "a..*"` + globs,
		".*/ci":       `found a part that starts with . in ".*/ci"` + globs + `: write "**/ci"`,
		"./a":         `found a part that starts with . in "./a"` + globs + `: write "a"`,
		"origin:main": `found : in "origin:main"` + globs,
		"main~1":      `found ~ in "main~1"` + globs,
		"a..b":        `found .. in "a..b"` + globs,
		"a.":          `found . at the end in "a."` + globs,
		"*.lock":      `found .lock at the end of a part in "*.lock"` + globs,
		"{^a,~b}":     `found ^ in "{^a,~b}"` + globs,
		"f[z-a]":      `found a range in the class "[z-a]" that ends before it starts: write "a-z"`,
		"f[^xé-b]":    `found a range in the class "[^xé-b]" that ends before it starts: write "b-é"`,
		"[10-!]":      `found a range in the class "[10-!]" that ends before it starts: write "!-0"`,
		"[a-b-d]":     "", "[a-z0-9]": "", "[^!-b]": "",
		"[a-]": "", "[~a]": "", "[^.]": "", "{^a,b}": "", "release.*": "", "a.lock.b": "", "main$": "", "v1.?": "", "*.*": "", "x.locks": "", "(a|b)": "",
	} {
		if got := refusal(globOfBranches, glob); got != want {
			t.Errorf("%s: got %q, want %q", glob, got, want)
		}
	}
	for _, glob := range []string{".*", ".github/**", "a..b", "a:b", "^x", "*.lock"} {
		if got := refusal(globOfFiles, glob); got != "" {
			t.Errorf("file %s: %s", glob, got)
		}
	}
}

func TestValidPath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, want string }{
		{".runnerhub/runnerhub.yml", ""},
		{"runnerhub.yml", ""},
		{"apps/white label/é.yaml", ""},
		{"..hidden/a.yml", ""},
		{"", "the path is empty"},
		{"/a.yml", "the path starts with /: write it from the root of the repository"},
		{"../a.yml", "the path contains ..: it must stay inside the repository"},
		{"a/../b.yml", "the path contains ..: it must stay inside the repository"},
		{`a\b.yml`, `the path contains \: write / between folders`},
		{"a.json", "the path must end in .yml or .yaml"},
		{"a.yml/", "the path must end in .yml or .yaml"},
		{"./a.yml", `write the path as "a.yml"`},
		{"a//b.yml", `write the path as "a/b.yml"`},
		{"a\n.yml", "the path contains a control character"},
		{strings.Repeat("a", 252) + ".yml", "the path is longer than 255 bytes"},
	} {
		got := ""
		if err := ValidPath(tt.path); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("ValidPath(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
	for _, path := range DefaultPaths() {
		if err := ValidPath(path); err != nil {
			t.Errorf("default path %s: %v", path, err)
		}
	}
}
