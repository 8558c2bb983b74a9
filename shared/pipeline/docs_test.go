package pipeline

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func readDocs(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// completed adds the required keys that an example leaves out, at the end so
// that lines stay where they are.
func completed(example string) string {
	for _, line := range []string{"name: a\n", "triggers: []\n", "steps: [{run: x}]\n"} {
		key, _, _ := strings.Cut(line, ":")
		if !strings.Contains("\n"+example, "\n"+key+":") {
			example += line
		}
	}
	return example
}

// TestDocsExamples runs every yaml example of docs/pipeline.md. Comments right
// before one list the problems it must have, all of them.
func TestDocsExamples(t *testing.T) {
	t.Parallel()
	const problem = `<!-- error: (.*) -->\n`
	blocks := regexp.MustCompile("(?s)((?:"+strings.ReplaceAll(problem, ".*", "[^\n]*")+")*)```yaml\n(.*?)```").FindAllStringSubmatch(readDocs(t), -1)
	if len(blocks) < 10 {
		t.Fatalf("found %d examples", len(blocks))
	}
	for _, block := range blocks {
		example := block[len(block)-1]
		var want []string
		for _, line := range regexp.MustCompile(problem).FindAllStringSubmatch(block[1], -1) {
			want = append(want, line[1])
		}
		_, problems := Parse([]byte(completed(example)))
		if got, want := problems.Error(), strings.Join(want, "\n"); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", example, got, want)
		}
	}
}

// TestDocsPatterns holds the table of patterns in docs/pipeline.md to what
// they match.
func TestDocsPatterns(t *testing.T) {
	t.Parallel()
	_, table, _ := strings.Cut(readDocs(t), "| pattern | matches | does not match |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	quoted := regexp.MustCompile("`([^`]+)`")
	checked := 0
	for row := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(row, " | ")
		if len(cells) < 3 {
			t.Fatalf("row %q", row)
		}
		glob := quoted.FindStringSubmatch(cells[0])[1]
		if why := refusal(globOfBranches, glob); why != "" {
			t.Errorf("%s: %s", glob, why)
		}
		for i, want := range []bool{true, false} {
			for _, branch := range quoted.FindAllStringSubmatch(cells[i+1], -1) {
				if got := firstMatch([]string{glob}, branch[1]) >= 0; got != want {
					t.Errorf("%s on %s: %v", glob, branch[1], got)
				}
				checked++
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d pairs found", checked)
	}
}

// TestDocsKeys makes sure that every key and platform is documented.
func TestDocsKeys(t *testing.T) {
	t.Parallel()
	docs := readDocs(t)
	for _, k := range []keys{fileKeys(), environmentKeys(), triggerKeys(), filterKeys(), stepKeys(), cacheKeys(), concurrencyKeys()} {
		for _, key := range strings.Fields(k.known) {
			if !strings.Contains(docs, "`"+key+"`") {
				t.Errorf("%s is not documented", key)
			}
		}
	}
	for _, platform := range Platforms() {
		if !strings.Contains(docs, "`"+platform+"`") {
			t.Errorf("%s is not documented", platform)
		}
	}
}
