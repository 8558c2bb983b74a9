package pipeline

import (
	"os"
	"reflect"
	"slices"
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
			{Event: Push, Line: 18},
			{Event: PullRequest, Line: 19},
			{Event: Push, Branches: []string{"main"}, Line: 20},
			{Event: PullRequest, Branches: []string{"main", "release/**"}, Line: 22},
		},
		Steps: []Step{
			{Name: "Install", Run: "npm ci", WorkingDirectory: "web"},
			{Run: "npm test\nnpm run lint\n", Env: []Variable{{"CI", "false"}}},
		},
		Timeout:      90 * time.Minute,
		platformLine: 3, platformColumn: 11,
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
		{"broken tag", "x: 1\nbranches: [main, !<]\n", `2:20: found ! at the start of a value, which YAML reads as a tag: put the value in quotes`},
		{"lone &", "a: & b\n", `1:4: found * or & at the start of a value: quote patterns that start with *`},
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
		{"far off", minimal + "kubernetes: 1\n", `4:1: kubernetes: unknown key "kubernetes", expected one of name, platform, environment, triggers, steps, timeout`},
		{"twice", minimal + "name: b\n", `4:1: name: the key "name" is already given in line 1: keep one of them`},
		{"later", minimal + "artifacts: [a]\n", `4:1: artifacts: "artifacts" is part of the format but not supported by this version: remove it`},
		{"later, misspelt", minimal + "artefacts: [a]\n", `4:1: artefacts: unknown key "artefacts", did you mean "artifacts"?`},
		{"merge", minimal + "<<: {a: b}\n", `4:1: <<: merge keys ("<<") are not supported: write the keys out`},
		{"key is a list", minimal + "[a]: b\n", `4:1: found a list as a key, expected plain text`},
		{
			"toolchain", minimal + "environment:\n  node: 22\n  xcod: 1\n", `
5:3: environment.node: "node" is part of the format but not supported by this version: remove it
6:3: environment.xcod: unknown key "xcod", did you mean "xcode"?`,
		},

		// Values.
		{"name is empty", "name:\ntriggers: [push]\nsteps: [{run: x}]\n", `1:6: name: found nothing, expected text: fill it in, or remove the key`},
		{"name is a map", "name: {a: b}\ntriggers: [push]\nsteps: [{run: x}]\n", `1:7: name: found a map, expected text`},
		{
			"name is long", "name: " + strings.Repeat("é", 101) + "\ntriggers: [push]\nsteps: [{run: x}]\n",
			`1:7: name: found 101 characters, expected at most 100: shorten the name`,
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
8:5: triggers[4]: builds of tags are not supported by this version: remove this entry
9:5: triggers[5]: unknown event "release", expected push or pull_request
10:5: triggers[6].push: unknown key "push": write "event: push", and branches beside it
11:5: triggers[7].event: the key "event" is missing: add it, for example "event: push"
13:5: triggers[8].tags: "tags" is part of the format but not supported by this version: remove it
14:5: triggers[8].branch: unknown key "branch", did you mean "branches"?
16:14: triggers[9].branches: found nothing, expected at least one branch: remove the key to take every branch
18:15: triggers[10].branches: found nothing, expected at least one branch: remove the key to take every branch
19:5: triggers[11]: found a list, expected a map: lines of "key: value"`,
		},
		{"triggers is text", "name: a\nsteps: [{run: x}]\ntriggers: push\n", `3:11: triggers: found text, expected a list: start each entry with "- "`},
		{"triggers is nothing", "name: a\nsteps: [{run: x}]\ntriggers:\n", `3:10: triggers: found nothing, expected a list: start each entry with "- "`},
		{
			"exclusions", "name: a\nsteps: [{run: x}]\ntriggers:\n- event: push\n  branches:\n  - main\n  - !dev\n  - ! dev\n  - '!dev'\n", `
7:5: triggers[0].branches[1]: found ! at the start: exclusions are not supported, name the branches that build
8:5: triggers[0].branches[2]: found ! at the start: exclusions are not supported, name the branches that build
9:5: triggers[0].branches[3]: found ! at the start: exclusions are not supported, name the branches that build`,
		},
		{
			"branches is a map", "name: a\nsteps: [{run: x}]\ntriggers:\n- {event: push, branches: {include: main}}\n",
			`4:27: triggers[0].branches: found a map, expected a list: start each entry with "- "`,
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
11:5: steps[6].timeout: "timeout" is part of the format but not supported by this version: remove it
12:5: steps[6].working-directory: unknown key "working-directory", did you mean "working_directory"?
13:33: steps[7].working_directory: found "/tmp", expected a folder of the clone: write it from the root of the repository, without the first /
14:33: steps[8].working_directory: found "a/../../b", which leaves the clone: expected a folder inside it
15:33: steps[9].working_directory: found "a\\b", expected / between folders: replace the \
16:33: steps[10].working_directory: found nothing, expected text: fill it in, or remove the key
17:19: steps[11].env: found a list, expected a map: lines of "key: value"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, problems := Parse([]byte(tt.text))
			if f != nil {
				t.Errorf("a file was returned beside problems")
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
		{"too large", strings.Repeat("#", MaxBytes+1), "the file has 262145 bytes, expected at most 262144"},
		{"deep lists", fill("["), "nested"},
		{"deep maps", fill("{a: "), "nested"},
		{"deep entries", fill("- "), "nested"},
		{"alias bomb", bomb.String(), "unknown key"},
		{"alias to itself", "name: a\ntriggers: [push]\nsteps: &s [{run: x, env: *s}, *s]\n", "found a list, expected a map"},
		{"many keys", fill("k: v\n"), "found 52428 entries, expected at most 200"},
		{"many entries", "name: a\ntriggers: [" + strings.Repeat("push,", 50_000) + "]\nsteps: [{run: x}]\n", "found 50000 entries, expected at most 200"},
		{"many branches", manyBranches(), ""},
		{"many problems", "name: a\ntriggers: [push]\nsteps: [" + strings.Repeat("{a: b, c: d},", 150) + "]\n", "there are more problems"},
		{"open quote at the end", minimal + fill("# x\n")[:60<<10] + "a: 'b", "not closed"},
		{"wide aliases", wide, ""},
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

func variables(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("V" + strings.Repeat("A", i) + ": x, ")
	}
	return b.String()
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
