package sandbox

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// Every rule of docs/sandbox.md has a test that names its number, and no test names a
// rule that is not there.
func TestRulesAndTestsAgree(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	var rules, tested []int
	for _, m := range regexp.MustCompile(`(?m)^(\d+)\. `).FindAllSubmatch(doc, -1) {
		n, _ := strconv.Atoi(string(m[1]))
		rules = append(rules, n)
		if n != len(rules) {
			t.Errorf("rule %d stands at place %d", n, len(rules))
		}
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func TestRule(\d+)_`).FindAllSubmatch(text, -1) {
			n, _ := strconv.Atoi(string(m[1]))
			tested = append(tested, n)
		}
	}
	slices.Sort(tested)
	if !slices.Equal(rules, tested) {
		t.Errorf("rules %v\ntested %v", rules, tested)
	}
}
