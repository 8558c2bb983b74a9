package pipeline

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

func FuzzParse(f *testing.F) {
	full, err := os.ReadFile("testdata/full.yml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(minimal))
	f.Add([]byte("a: *\n---\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, problems := Parse(text)
		if (file == nil) == (problems == nil) {
			t.Fatalf("file %v, problems %v", file, problems)
		}
		lines := strings.Count(string(text), "\n") + 1
		for _, p := range problems {
			if p.Message == "" || p.Line < 0 || p.Column < 0 || p.Column > 0 && p.Line == 0 {
				t.Errorf("problem %+v", p)
			}
			// YAML also breaks lines at CR, NEL, LS and PS, which we do not count.
			if p.Line > lines && !strings.ContainsAny(string(text), "\r\u0085\u2028\u2029") {
				t.Errorf("line of %+v, the text has %d", p, lines)
			}
			if !utf8.ValidString(p.String()) {
				t.Errorf("problem %q", p.String())
			}
		}
		if file == nil {
			return
		}
		if file.Name == "" || len(file.Steps) == 0 || file.Timeout <= 0 || !slices.Contains(Platforms(), file.Platform) {
			t.Errorf("accepted %+v", file)
		}
		plan, problems := file.Plan(Platforms())
		if problems != nil {
			return
		}
		if _, err := json.Marshal(plan); err != nil {
			t.Error(err)
		}
		for _, s := range plan.Steps {
			if s.Name == "" || s.Run == "" || outside(s.WorkingDirectory) || strings.HasPrefix(s.WorkingDirectory, "/") {
				t.Errorf("planned %+v", s)
			}
			for _, v := range s.Env {
				if !isVariableName(v.Name) || strings.Contains(v.Value, "\x00") {
					t.Errorf("planned %q=%q", v.Name, v.Value)
				}
			}
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("main", "release/*", "release/1.0")
	f.Add("{a,b}/**", "[^x]?", "a/b/c")
	f.Add("**/x", "{,a}{,b}{,c}", "abc")
	f.Fuzz(func(t *testing.T, first, second, branch string) {
		for _, glob := range []string{first, second} {
			if refuseGlob(glob) != "" {
				return
			}
		}
		verdict := func(globs ...string) Verdict {
			file := &File{Triggers: []Trigger{{Event: Push, Branches: globs}}}
			return file.Match(Event{Kind: Push, Branch: branch})
		}
		got := verdict(first, second)
		if got.Reason == "" || got.Matched != (got.Trigger == 0) {
			t.Errorf("verdict %+v", got)
		}
		if turned := verdict(second, first); turned.Matched != got.Matched {
			t.Errorf("%+v, turned around %+v", got, turned)
		}
		one, err := doublestar.Match(first, branch)
		if err != nil {
			t.Errorf("%q was accepted: %v", first, err)
		}
		other, err := doublestar.Match(second, branch)
		if err != nil {
			t.Errorf("%q was accepted: %v", second, err)
		}
		if want := branch != "" && (one || other); got.Matched != want {
			t.Errorf("%q, %q on %q: %v, want %v", first, second, branch, got.Matched, want)
		}
	})
}
