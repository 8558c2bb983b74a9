package pipeline

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"runnerhub/shared/ci"

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
	f.Add([]byte("a: [!b, *c]\n"))
	s := compiled(f)
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
			if !utf8.ValidString(p.String()) || strings.Contains(p.String(), "\n") {
				t.Errorf("problem %q", p.String())
			}
			if p.Found == "" || p.Expected == "" {
				t.Errorf("problem %+v", p)
			}
		}
		if len(text) < 4<<10 && len(problems) <= maxProblems {
			compare(t, s, text)
		}
		if file == nil {
			return
		}
		if file.Name == "" || len(file.Steps) == 0 || file.Timeout <= 0 || !slices.Contains(Platforms(), file.Platform) {
			t.Errorf("accepted %+v", file)
		}
		plan, problems := file.PlanFor(everything())
		if problems != nil {
			return
		}
		if _, err := json.Marshal(plan); err != nil {
			t.Error(err)
		}
		for _, s := range plan.Steps {
			if s.Name == "" || s.Run == "" || climbs(s.WorkingDirectory) || strings.HasPrefix(s.WorkingDirectory, "/") {
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
			if globOfBranches.refuse(glob) != nil {
				return
			}
		}
		verdict := func(globs ...string) Verdict {
			file := &File{Triggers: []Trigger{{Event: Push, Branches: Filter{Include: globs}}}}
			return file.Match(Event{Kind: Push, Branch: branch})
		}
		got := verdict(first, second)
		if got.Reason == "" || got.Matched != (got.Trigger == 0) {
			t.Errorf("verdict %+v", got)
		}
		if turned := verdict(second, first); turned.Matched != got.Matched {
			t.Errorf("%+v, turned around %+v", got, turned)
		}
		for _, glob := range []string{first, second} {
			if _, err := doublestar.Match(glob, branch); err != nil {
				t.Errorf("%q was accepted: %v", glob, err)
			}
			// The reference tries everything, which long names make too much.
			if len(glob) > 40 || len(branch) > 40 || strings.Count(glob, "*") > 5 || !soundName(branch) || !utf8.ValidString(branch) {
				continue
			}
			if ours, want := firstMatch([]string{glob}, branch) >= 0, published(glob, branch); ours != want {
				t.Errorf("%q on %q: %v, want %v", glob, branch, ours, want)
			}
		}
		if one, other := verdict(first), verdict(second); got.Matched != (one.Matched || other.Matched) {
			t.Errorf("%+v, alone %+v and %+v", got, one, other)
		}
		but := &File{Triggers: []Trigger{{Event: Push, Branches: Filter{Include: []string{first}, Exclude: []string{second}}}}}
		if v := but.Match(Event{Kind: Push, Branch: branch}); v.Matched && verdict(second).Matched {
			t.Errorf("%+v: an exclude does not win", v)
		}
	})
}

// FuzzSchema makes files out of numbers, as bytes rarely become sound ones, and holds
// parser and schema to the same answer.
func FuzzSchema(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Add(uint64(1<<40), uint64(7))
	s := compiled(f)
	f.Fuzz(func(t *testing.T, one, two uint64) {
		compare(t, s, []byte(someFile(rand.New(rand.NewPCG(one, two)))))
	})
}

func FuzzEvent(f *testing.F) {
	f.Add("feature/x", "main", "v1", "Docs [skip ci]", "src/a\ndocs/b", uint8(0))
	f.Add("main", "", "", "", "", uint8(3))
	f.Add("x", "release/1", "", "[", "docs/x", uint8(0x5d))
	file := mustParse(f, `
name: a
steps: [{run: x}]
triggers:
  - {event: push, branches: {include: [main, "feature/**"], exclude: "**/old"}, tags: "v*", paths: {exclude: docs/**}}
  - {event: pull_request, branches: [main, "release/*"], source_branches: {exclude: wip}}
`)
	f.Fuzz(func(t *testing.T, branch, target, tag, message, changed string, bits uint8) {
		e := Event{
			Kind: []Kind{Push, PullRequest, Manual, Schedule}[bits&3], Branch: branch, Target: target, Message: message, Cut: bits&4 != 0,
			Fork: Fork{Foreign: bits&8 != 0, Allowed: bits&16 != 0, Approved: bits&32 != 0}, Number: 7,
		}
		if bits&64 != 0 {
			e.Tag, e.Branch = tag, ""
		}
		if changed != "" {
			e.Changed = strings.Split(changed, "\n")
		}
		v := file.Match(e)
		if v.Reason == "" || v.Code == "" || v.Matched != (v.Code == CodeMatched || v.Code == CodeAlways || v.Code == CodeHeld) {
			t.Errorf("%+v: %+v", e, v)
		}
		if again := file.Match(e); !reflect.DeepEqual(v, again) {
			t.Errorf("%+v, then %+v", v, again)
		}
		if settled, ok := e.Settled(); ok && !reflect.DeepEqual(settled, v) {
			t.Errorf("settled as %+v, matched as %+v", settled, v)
		}
		foreign := e.Kind == PullRequest && e.Fork.Foreign
		if v.Matched && foreign && (!e.Fork.Allowed || !v.NoSecrets || v.Held == e.Fork.Approved || e.FileFrom() != FileFromTarget) {
			t.Errorf("%+v: a fork is built as %+v", e, v)
		}
		if v.Held && (!foreign || e.Fork.Approved) {
			t.Errorf("%+v is held: %+v", e, v)
		}
		if v.Matched && ci.SkipMarker(message) != "" && e.Tag == "" && (e.Kind == Push || e.Kind == PullRequest) {
			t.Errorf("%+v is built: %+v", e, v)
		}
		// What is not asked for cannot change the verdict.
		if !file.NeedsChanged(e) {
			without := e
			without.Changed, without.Cut = nil, false
			if w := file.Match(without); w.Matched != v.Matched || w.Code != v.Code {
				t.Errorf("%+v: %+v, without changed files %+v", e, v, w)
			}
		}
		if verdicts := file.MatchPush(e, []Event{{Kind: PullRequest, Branch: branch, Target: "main", Number: 3}}); len(verdicts) != 1 {
			t.Errorf("%+v: %d verdicts", e, len(verdicts))
		}
	})
}
