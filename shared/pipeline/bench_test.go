package pipeline

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"gopkg.in/yaml.v3"
)

// long is a file of 200 lines as a large team might have it, the one of make bench.
func long(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("../../infra/bench/pipeline.yml")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func BenchmarkParse(b *testing.B) {
	text := long(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, problems := Parse(text); problems != nil {
			b.Fatal(problems)
		}
	}
}

// BenchmarkYAMLNodes is what yaml.v3 alone costs on the same text: the floor
// for BenchmarkParse.
func BenchmarkYAMLNodes(b *testing.B) {
	text := long(b)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var n yaml.Node
		if err := yaml.Unmarshal(text, &n); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSyntaxError searches for the place of a mistake at the end.
func BenchmarkSyntaxError(b *testing.B) {
	text := append(long(b), "x: *.js\n"...)
	b.ReportAllocs()
	for b.Loop() {
		if _, problems := Parse(text); len(problems) != 1 {
			b.Fatal(problems)
		}
	}
}

func manyGlobs() (globs, branches []string) {
	for i := range 50 {
		globs = append(globs, []string{
			fmt.Sprintf("main-%d", i), fmt.Sprintf("release/%d.*", i), fmt.Sprintf("feature/**/%d", i),
			fmt.Sprintf("{hotfix,bugfix}/%d-*", i), fmt.Sprintf("user-[a-f]/%d?", i),
		}[i%5])
	}
	for i := range 10_000 {
		branches = append(branches, fmt.Sprintf([]string{"feature/team/%d", "release/%d.1", "topic-%d", "hotfix/%d-x", "main-%d"}[i%5], i))
	}
	return globs, branches
}

// BenchmarkMatch decides about 10,000 branches with 50 globs.
func BenchmarkMatch(b *testing.B) {
	globs, branches := manyGlobs()
	f := &File{Triggers: []Trigger{{Event: Push, Branches: Filter{Include: globs}}}}
	b.ReportAllocs()
	for b.Loop() {
		for _, branch := range branches {
			f.Match(Event{Kind: Push, Branch: branch})
		}
	}
}

// BenchmarkDoublestar is the matcher alone on the same: the floor for
// BenchmarkMatch.
func BenchmarkDoublestar(b *testing.B) {
	globs, branches := manyGlobs()
	b.ReportAllocs()
	for b.Loop() {
		for _, branch := range branches {
			for _, glob := range globs {
				if doublestar.MatchUnvalidated(glob, branch) {
					break
				}
			}
		}
	}
}

// TestLong is about the file that is measured, and about what does not depend on how
// busy the machine is: the allocations.
func TestLong(t *testing.T) {
	t.Parallel()
	text := long(t)
	if n := bytes.Count(text, []byte("\n")); n != 200 {
		t.Errorf("%d lines", n)
	}
	f := mustParse(t, string(text))
	if v := f.Match(Event{Kind: Push, Branch: "feature/x"}); v.Matched {
		t.Errorf("%+v", v)
	}
}
