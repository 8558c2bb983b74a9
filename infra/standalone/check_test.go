package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"runnerhub/infra/aws/offers"
	"runnerhub/shared/pipeline"
)

const sound = "name: Shop\ntriggers:\n  - event: push\n    branches: [main, release/*]\n    paths: {exclude: docs/**}\nsteps:\n  - run: make\n  - {name: Web, run: make, working_directory: web}\n"

// check runs the command in a folder with these files.
func check(t *testing.T, files map[string]string, in string, args ...string) (code int, out, complaint string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr strings.Builder
	code = checker{dir: dir, in: strings.NewReader(in), out: &stdout, complain: &stderr}.run(args)
	return code, stdout.String(), strings.ReplaceAll(stderr.String(), dir+string(filepath.Separator), "")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	const fine = "has no mistakes: \"Shop\" on linux, 2 steps, at most 60 minutes\n"
	for _, tt := range []struct {
		name           string
		files          map[string]string
		in             string
		args           []string
		code           int
		out, complaint string
	}{
		{"the default path", map[string]string{".runnerhub/runnerhub.yml": sound, "runnerhub.yml": "a: ["}, "", nil, 0, ".runnerhub/runnerhub.yml " + fine, ""},
		{"the other one", map[string]string{"runnerhub.yml": sound}, "", nil, 0, "runnerhub.yml " + fine, ""},
		{"none", nil, "", nil, 2, "", "runnerhub check: no pipeline file here: neither .runnerhub/runnerhub.yml nor runnerhub.yml exists; go to the root of the repository, or name the file\n"},
		{"a name", map[string]string{"ci/a.yml": sound}, "", []string{"ci/a.yml"}, 0, "ci/a.yml " + fine, ""},
		{"a wrong name", nil, "", []string{"a.yml"}, 2, "", "runnerhub check: open a.yml: no such file or directory\n"},
		{"standard input", nil, sound, []string{"-"}, 0, "stdin " + fine, ""},
		{"mistakes", nil, "name: a\nstep: x\n", []string{"-"}, 1, "stdin:1:1: triggers: the key \"triggers\" is missing: add it, for example \"triggers: [push]\"\nstdin:2:1: step: unknown key \"step\", did you mean \"steps\"?\nstdin:2:7: steps: found text, expected a list: start each entry with \"- \"\n", ""},
		{"no column", nil, "a: [b]\nc: [d,, e]\n", []string{"-"}, 1, "stdin:2:1: a value is missing: remove the \",\" too many, or close the list or map\n", ""},
		{"too long", nil, strings.Repeat("#", 1<<20), []string{"-"}, 1, "stdin:1:1: the file is larger than 262144 bytes: move long scripts into files of their own\n", ""},
		{
			"several",
			map[string]string{"a.yml": sound, "b.yml": "a: [b\nc: d\n"},
			"",
			[]string{"a.yml", "b.yml", "a.yml"},
			1,
			"a.yml " + fine + "b.yml:1:4: found a list that is not closed: add the \"]\", or the \",\" between its entries\na.yml " + fine, "",
		},
		{
			"what the server does not do", nil, sound + "artifacts:\n  - a\nplatform: ios\n",
			[]string{"-"},
			0,
			"stdin:9:1: warning: artifacts: \"artifacts\" is part of the format but not supported by this version: remove it\n" +
				"stdin:11:11: warning: platform: platform ios is not supported by this runner (it runs linux)\n" +
				"stdin has no mistakes: \"Shop\" on ios, 2 steps, at most 60 minutes\n" +
				"the standalone server of this version does not build it, though: see the warnings\n", "",
		},

		{"built", nil, sound, []string{"--event", "push", "--branch", "main", "-"}, 0, "stdin " + fine + "would be built: push of branch main matches \"main\", and whether a changed file matches paths is not known, so it is built\n  1. make\n  2. Web (in web)\n", ""},
		{"flags behind the file", nil, sound, []string{"-", "--branch", "x"}, 0, "stdin " + fine + "would not be built: branch x matches none of main, release/*\n", ""},
		{"changed files", nil, sound, []string{"-", "--branch", "main", "--changed", "docs/a", "--changed", "docs/b"}, 0, "stdin " + fine + "would not be built: all 2 changed files, such as docs/a, are excluded by docs/**\n", ""},
		{"a marker", nil, sound, []string{"-", "--branch", "main", "--message", "Docs\n\n[CI skip]"}, 0, "stdin " + fine + "would not be built: branch main: the message of the head commit has [CI skip]\n", ""},
		{"a tag", nil, sound, []string{"-", "--tag", "v1"}, 0, "stdin " + fine + "would not be built: tag v1: no trigger has a tags filter\n", ""},
		{"a pull request", nil, sound, []string{"-", "--pull-request", "--source", "x", "--target", "main"}, 0, "stdin " + fine + "would not be built: the file has no pull_request trigger\n", ""},
		{"manual", nil, sound, []string{"-", "--event", "manual"}, 0, "stdin " + fine + "would be built: manual builds run whatever triggers says\n  1. make\n  2. Web (in web)\n", ""},
		{"an event of a file with mistakes", nil, "a: [b\nc: d\n", []string{"-", "--branch", "x"}, 1, "stdin:1:4: found a list that is not closed: add the \"]\", or the \",\" between its entries\n", ""},

		{"an unknown flag", nil, sound, []string{"-", "--brnch", "x"}, 2, "", "runnerhub check: flag provided but not defined: -brnch; runnerhub check -h says how it is used\n"},
		{"an unknown event", nil, sound, []string{"-", "--event", "pr"}, 2, "", "runnerhub check: --event is \"pr\"; it is push, pull_request, manual or schedule\n"},
		{"two events", nil, sound, []string{"-", "--event", "push", "--pull-request"}, 2, "", "runnerhub check: --pull-request and --event push are two events: give one\n"},
		{"a push of nothing", nil, sound, []string{"-", "--event", "push"}, 2, "", "runnerhub check: a push needs --branch or --tag, one of them\n"},
		{"a push of two things", nil, sound, []string{"-", "--branch", "a", "--tag", "b"}, 2, "", "runnerhub check: a push needs --branch or --tag, one of them\n"},
		{"a push with a target", nil, sound, []string{"-", "--event", "push", "--branch", "a", "--target", "b"}, 2, "", "runnerhub check: a push has no --source and no --target: use --branch or --tag, or --pull-request\n"},
		{"a pull request without a target", nil, sound, []string{"-", "--source", "a"}, 2, "", "runnerhub check: a pull request needs --source and --target\n"},
		{"a pull request of a branch", nil, sound, []string{"-", "--pull-request", "--branch", "a"}, 2, "", "runnerhub check: a pull request has no --branch and no --tag: use --source and --target\n"},
		{"files of nothing", nil, sound, []string{"-", "--changed", "a"}, 2, "", "runnerhub check: --changed and --message are about an event: add --event push --branch …\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, out, complaint := check(t, tt.files, tt.in, tt.args...)
			if code != tt.code || out != tt.out || complaint != tt.complaint {
				t.Errorf("got  %d\n%s%s\nwant %d\n%s%s", code, out, complaint, tt.code, tt.out, tt.complaint)
			}
		})
	}
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	code, out, complaint := check(t, map[string]string{"a.yml": sound, "b.yml": "name: <b>\nstep: [{run: x}]\n"}, "", "--json", "--branch", "x", "a.yml", "b.yml")
	var got struct {
		Items []struct {
			File      string
			Problems  []pipeline.Problem
			Unoffered []pipeline.Problem
			Plan      *pipeline.Plan
			Verdict   *pipeline.Verdict
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 1 || complaint != "" || len(got.Items) != 2 {
		t.Fatalf("%d, %s, %v\n%s", code, complaint, err, out)
	}
	a, b := got.Items[0], got.Items[1]
	if a.File != "a.yml" || a.Problems == nil || len(a.Problems) != 0 || a.Plan == nil || a.Plan.Name != "Shop" || a.Verdict == nil || a.Verdict.Matched {
		t.Errorf("got %+v", a)
	}
	want := pipeline.Problem{
		File: "b.yml", Line: 2, Column: 1, Path: "step", Message: `unknown key "step", did you mean "steps"?`,
		Found: `the key "step"`, Expected: "one of name, platform, environment, triggers, steps, artifacts, timeout, image, runner, compute, cache, concurrency", Nearest: "steps",
	}
	if len(b.Problems) != 2 || b.Problems[1] != want || b.Plan != nil || b.Verdict != nil {
		t.Errorf("got %+v", b)
	}
}

func TestCheckHelp(t *testing.T) {
	t.Parallel()
	code, out, complaint := check(t, nil, "", "-h")
	if code != 0 || complaint != "" || !strings.Contains(out, "Exit codes: 0") || !strings.Contains(out, "-pull-request") {
		t.Errorf("%d, %s\n%s", code, complaint, out)
	}
	code, out, _ = check(t, nil, "", "--schema")
	if code != 0 || out != string(pipeline.Schema()) {
		t.Errorf("%d\n%s", code, out)
	}
}

// TestCheckInDocs runs what docs/pipeline.md says about the command, on the files that
// stand there.
func TestCheckInDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	docs := string(text)
	example := func(after string) string {
		_, rest, _ := strings.Cut(docs, after)
		_, rest, _ = strings.Cut(rest, "```yaml\n")
		yaml, _, _ := strings.Cut(rest, "```")
		return yaml
	}
	files := map[string]string{"shop.yml": example("A larger example:"), "broken.yml": example("## Mistakes")}
	consoles := regexp.MustCompile(`(?m)^    \$ runnerhub check (.*)\n((?:    [^$].*\n)+)`).FindAllStringSubmatch(docs, -1)
	for _, c := range consoles {
		_, out, complaint := check(t, files, "", strings.Fields(c[1])...)
		if want := strings.ReplaceAll("\n"+c[2], "\n    ", "\n")[1:]; out != want || complaint != "" {
			t.Errorf("runnerhub check %s\ngot\n%s%s\nwant\n%s", c[1], out, complaint, want)
		}
	}

	_, table, _ := strings.Cut(docs, "<!-- table: events -->\n")
	rows := regexp.MustCompile("(?m)^\\| `(.*?)` \\| `(.*?)` \\| (not built|built): (.*) \\|$").FindAllStringSubmatch(table, -1)
	for _, row := range rows {
		_, out, complaint := check(t, nil, "name: a\nsteps: [{run: x}]\ntriggers: "+row[1]+"\n", append(strings.Fields(row[2]), "-")...)
		if want := "would " + strings.Replace(row[3], "built", "be built", 1) + ": " + row[4] + "\n"; !strings.Contains(out, want) || complaint != "" {
			t.Errorf("%s on %s\ngot\n%s%s\nwant\n%s", row[2], row[1], out, complaint, want)
		}
	}
	if len(consoles) < 3 || len(rows) < 10 {
		t.Errorf("found %d consoles and %d rows", len(consoles), len(rows))
	}
}

// TestWhatTheServerRuns compares what docs/pipeline.md says of this version with what
// installations offer.
func TestWhatTheServerRuns(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "| | standalone | on AWS |\n|---|---|---|\n")
	table, _, _ := strings.Cut(rest, "\n\n")
	full, err := os.ReadFile("../../shared/pipeline/testdata/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	deployed, err := offers.UpTo("large") // which is the template's default
	if err != nil {
		t.Fatal(err)
	}
	words := func(cell string) (out []string) {
		for _, word := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			out = append(out, word[1])
		}
		return out
	}
	for i, offer := range []pipeline.Offer{offer(), deployed} {
		refused := map[string]bool{}
		for _, p := range pipeline.Check(full, pipeline.Offer{Platforms: offer.Platforms, Features: offer.Features}, nil).Unoffered {
			refused[p.Path[strings.LastIndexByte(p.Path, '.')+1:]] = true
		}
		for row := range strings.SplitSeq(table, "\n") {
			cells := strings.Split(strings.Trim(row, "| "), " | ")
			if len(cells) != 3 {
				t.Fatalf("the row %q", row)
			}
			lists := map[string][]string{"platform": offer.Platforms, "runner": offer.Runners, "compute": offer.Computes}
			for _, key := range words(cells[0]) {
				list, is := lists[key]
				if is && !slices.Equal(words(cells[i+1]), list) || !is && (cells[i+1] == "yes") == refused[key] {
					t.Errorf("%s: said is %q, offered is %v, %v", key, cells[i+1], list, !refused[key])
				}
				delete(refused, key)
			}
		}
		if len(refused) > 0 {
			t.Errorf("refused, and the table does not say so: %v", refused)
		}
	}
}
