package pipeline

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

// someGlob is made of parts that are likely to be accepted.
func someGlob(rnd *rand.Rand) string {
	return made(rnd, []string{"main", "a", "b", "*", "?", "/", "/", "**", "{a,b}", "{b,**/a,}", "[ab]", "[^a]", "-"}, 6)
}

// soundGlob is one that is accepted.
func soundGlob(rnd *rand.Rand) string {
	for {
		if glob := someGlob(rnd); globOfBranches.refuse(glob) == nil {
			return glob
		}
	}
}

// someBranch is a name that a branch, a tag or a file can have.
func someBranch(rnd *rand.Rand) string {
	for {
		if name := made(rnd, []string{"main", "a", "b", "/", "/", "-"}, 6); soundName(name) {
			return name
		}
	}
}

func soundName(name string) bool { return !strings.Contains("/"+name+"/", "//") }

// made is up to most parts in a row.
func made(rnd *rand.Rand, of []string, most int) string {
	var b strings.Builder
	for range 1 + rnd.IntN(most) {
		b.WriteString(of[rnd.IntN(len(of))])
	}
	return b.String()
}

func someFilter(rnd *rand.Rand) Filter {
	var f Filter
	if rnd.IntN(2) == 0 {
		return f
	}
	for range rnd.IntN(4) {
		f.Include = append(f.Include, soundGlob(rnd))
	}
	for range rnd.IntN(3) {
		f.Exclude = append(f.Exclude, soundGlob(rnd))
	}
	return f
}

func someTriggers(rnd *rand.Rand) *File {
	f := &File{}
	for range 1 + rnd.IntN(4) {
		t := Trigger{Event: Push, Branches: someFilter(rnd), Paths: someFilter(rnd)}
		if rnd.IntN(2) == 0 {
			t.Event, t.SourceBranches = PullRequest, someFilter(rnd)
		} else {
			t.Tags = someFilter(rnd)
		}
		f.Triggers = append(f.Triggers, t)
	}
	return f
}

func someEvent(rnd *rand.Rand) Event {
	var e Event
	switch rnd.IntN(3) {
	case 0:
		e = Event{Kind: Push, Branch: someBranch(rnd)}
	case 1:
		e = Event{Kind: Push, Tag: someBranch(rnd)}
	default:
		e = Event{Kind: PullRequest, Branch: someBranch(rnd), Target: someBranch(rnd), Number: 1}
	}
	for range rnd.IntN(4) {
		e.Changed = append(e.Changed, someBranch(rnd))
	}
	e.Cut = rnd.IntN(4) == 0
	return e
}

// TestMatchIsItsDefinition compares Match with what the documentation says in so many
// words: a trigger takes an event that passes all of its filters, a name passes that
// matches an include (if there is any) and no exclude.
func TestMatchIsItsDefinition(t *testing.T) {
	t.Parallel()
	passes := func(f Filter, name string) bool {
		in := len(f.Include) == 0
		for _, glob := range f.Include {
			in = in || published(glob, name)
		}
		for _, glob := range f.Exclude {
			in = in && !published(glob, name)
		}
		return in
	}
	empty := func(f Filter) bool { return len(f.Include)+len(f.Exclude) == 0 }
	takes := func(t Trigger, e Event) bool {
		switch {
		case t.Event != e.Kind:
			return false
		case e.Tag != "":
			return !empty(t.Tags) && passes(t.Tags, e.Tag)
		case e.Kind == Push && empty(t.Branches) && !empty(t.Tags):
			return false
		case e.Kind == Push && !passes(t.Branches, e.Branch):
			return false
		case e.Kind == PullRequest && (!passes(t.Branches, e.Target) || !passes(t.SourceBranches, e.Branch)):
			return false
		case empty(t.Paths) || e.Changed == nil || e.Cut:
			return true
		}
		return slices.ContainsFunc(e.Changed, func(path string) bool { return passes(t.Paths, path) })
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	matched, excluded, byPath := 0, 0, 0
	for range 10_000 {
		f, e := someTriggers(rnd), someEvent(rnd)
		got := f.Match(e)
		want := slices.IndexFunc(f.Triggers, func(t Trigger) bool { return takes(t, e) })
		if got.Trigger != want || got.Matched != (want >= 0) {
			t.Fatalf("%+v\nof %+v: %+v, want %d", e, f.Triggers, got, want)
		}
		if got.Reason == "" || !utf8.ValidString(got.Reason) {
			t.Fatalf("%+v: no reason", got)
		}
		if got.Matched {
			matched++
		}
		for _, finding := range got.Findings {
			if finding.Result.passes() != got.Matched {
				t.Fatalf("%+v: a finding that does not go with the verdict", got)
			}
			if finding.Result == Excluded {
				excluded++
			}
			if finding.Filter == FilterPaths {
				byPath++
			}
		}
	}
	if matched < 500 || excluded < 500 || byPath < 500 {
		t.Errorf("%d matched, %d excluded, %d by path: the test compares little", matched, excluded, byPath)
	}
}

// TestExcludeWins adds what matches to the excludes of every trigger: then none takes it.
func TestExcludeWins(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(9, 10))
	turned := 0
	for range 10_000 {
		f, e := someTriggers(rnd), someEvent(rnd)
		if !f.Match(e).Matched {
			continue
		}
		for i := range f.Triggers {
			at := &f.Triggers[i].Branches
			name := e.Branch
			switch {
			case e.Tag != "":
				at, name = &f.Triggers[i].Tags, e.Tag
				if at.empty() {
					continue // a trigger without tags takes none
				}
			case e.Kind == PullRequest && rnd.IntN(2) == 0:
				at = &f.Triggers[i].SourceBranches
			case e.Kind == PullRequest:
				name = e.Target
			}
			at.Exclude = slices.Insert(slices.Clone(at.Exclude), rnd.IntN(len(at.Exclude)+1), name)
		}
		if got := f.Match(e); got.Matched {
			t.Fatalf("%+v: %+v takes what is excluded", e, f.Triggers[got.Trigger])
		}
		turned++
	}
	if turned < 500 {
		t.Errorf("only %d verdicts were turned", turned)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	shuffled := func(globs []string) []string {
		globs = slices.Clone(globs)
		rnd.Shuffle(len(globs), func(a, b int) { globs[a], globs[b] = globs[b], globs[a] })
		return globs
	}
	matched := 0
	for range 10_000 {
		f, e := someTriggers(rnd), someEvent(rnd)
		before := f.Match(e)
		triggers := slices.Clone(f.Triggers)
		rnd.Shuffle(len(triggers), func(i, j int) { triggers[i], triggers[j] = triggers[j], triggers[i] })
		for i := range triggers {
			for _, filter := range []*Filter{&triggers[i].Branches, &triggers[i].Tags, &triggers[i].Paths, &triggers[i].SourceBranches} {
				filter.Include, filter.Exclude = shuffled(filter.Include), shuffled(filter.Exclude)
			}
		}
		e.Changed = shuffled(e.Changed)
		after := (&File{Triggers: triggers}).Match(e)
		if before.Matched != after.Matched || before.Code != after.Code {
			t.Fatalf("%+v: %+v of %+v, but %+v of %+v", e, before, f.Triggers, after, triggers)
		}
		if before.Matched {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("only %d matches: the test compares nothing", matched)
	}
}

// TestSameAnswers reads and decides everything twice: nothing may depend on chance, or
// on what was asked before.
func TestSameAnswers(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(11, 12))
	planned := 0
	for range 1000 {
		text, e := []byte(someFile(rnd)), someEvent(rnd)
		answer := func() []byte {
			b, err := json.Marshal(Check(text, everything(), &e))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		first := answer()
		if second := answer(); !slices.Equal(first, second) {
			t.Fatalf("%s\nis answered %s\nthen %s", text, first, second)
		}
		f, _ := Parse(text)
		if f == nil {
			continue
		}
		planned++
		before := *f
		f.Match(e)
		f.NeedsChanged(e)
		if _, problems := f.PlanFor(everything()); problems != nil {
			t.Fatal(problems)
		}
		if !reflect.DeepEqual(before, *f) {
			t.Fatalf("asking changed the file: %+v, then %+v", before, *f)
		}
	}
	if planned < 100 {
		t.Errorf("only %d files were sound", planned)
	}
}

// TestExpand compares what braces are checked as with what they match.
func TestExpand(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for range 100_000 {
		glob, branch := someGlob(rnd), someBranch(rnd)
		if globOfBranches.refuse(glob) != nil {
			continue
		}
		alternatives, _ := expand(glob)
		one := firstMatch(alternatives, branch) >= 0
		whole := firstMatch([]string{glob}, branch) >= 0
		if one != whole {
			t.Fatalf("%q on %q: one of %q matches: %v, the whole: %v", glob, branch, alternatives, one, whole)
		}
		if whole {
			matched++
		}
	}
	if matched < 1000 {
		t.Errorf("only %d matches: the test compares nothing", matched)
	}
}

// published reports whether glob matches name by the letter of doublestar's README, one
// sentence after the other and without a thought for speed.
func published(glob, name string) bool {
	alternatives, _ := expand(glob) // "matches … if one of the comma-separated alternatives matches"
	return slices.ContainsFunc(alternatives, func(plain string) bool {
		return publishedParts(strings.Split(plain, "/"), strings.Split(name, "/"))
	})
}

func publishedParts(globs, parts []string) bool {
	switch {
	case len(globs) == 0:
		return len(parts) == 0
	case globs[0] == "**": // "matches zero or more directories"
		for n := range len(parts) + 1 {
			if publishedParts(globs[1:], parts[n:]) {
				return true
			}
		}
		return false
	case len(parts) == 0:
		return false
	}
	return publishedPart([]rune(globs[0]), []rune(parts[0])) && publishedParts(globs[1:], parts[1:])
}

func publishedPart(glob, part []rune) bool {
	switch {
	case len(glob) == 0:
		return len(part) == 0
	case glob[0] == '*': // "matches any sequence of non-path-separators"
		for n := range len(part) + 1 {
			if publishedPart(glob[1:], part[n:]) {
				return true
			}
		}
		return false
	case len(part) == 0:
		return false
	case glob[0] == '?': // "matches any single non-path-separator character"
		return publishedPart(glob[1:], part[1:])
	case glob[0] == '[': // "against a class of characters"
		end := slices.Index(glob, ']')
		class := glob[1:end]
		negated := class[0] == '^' || class[0] == '!'
		if negated {
			class = class[1:]
		}
		in := false
		for i := 0; i < len(class); i++ {
			if i+2 < len(class) && class[i+1] == '-' {
				in = in || class[i] <= part[0] && part[0] <= class[i+2]
				i += 2
			} else {
				in = in || class[i] == part[0]
			}
		}
		return in != negated && publishedPart(glob[end+1:], part[1:])
	}
	return glob[0] == part[0] && publishedPart(glob[1:], part[1:])
}

// TestPublishedSemantics compares what we match with the published words, and with
// doublestar itself, which differs from them in two places.
func TestPublishedSemantics(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(13, 15))
	globs := []string{"a", "a", "b", "é", "-", "*", "*", "?", "/", "/", "**/", "/**", "[ab]", "[^a]", "[!-b]", "[a-é]", "[*?]", "{a,b}", "{b,,a/*}", "{**/,}", "{a*/**,b}"}
	names := []string{"a", "a", "b", "é", "-", "/", "/", "*", "?", "c", "{"}
	compared, matched, classes, ends := 0, 0, 0, 0
	for range 300_000 {
		glob, name := made(rnd, globs, 6), made(rnd, names, 6)
		if globOfBranches.refuse(glob) != nil || !soundName(name) {
			continue
		}
		alternatives, _ := expand(glob)
		if slices.ContainsFunc(alternatives, func(a string) bool { return globOfBranches.refuse(a) != nil }) {
			continue // braces can hide a part without a name, about which the README says nothing
		}
		want := published(glob, name)
		if ours := firstMatch([]string{glob}, name) >= 0; ours != want {
			t.Fatalf("%q on %q: we say %v, the README %v", glob, name, ours, want)
		}
		theirs, err := doublestar.Match(glob, name)
		switch {
		case err != nil:
			t.Fatalf("%q is accepted: %v", glob, err)
		case theirs && !want && strings.Contains(name, "/") && (strings.Contains(glob, "[^") || strings.Contains(glob, "[!")):
			classes++ // a negated class stands for "/", too
		case !theirs && want && strings.Contains(glob, "*"):
			ends++ // a*/** does not match "a", nor does a*{,b}
		case theirs != want:
			t.Fatalf("%q on %q: doublestar says %v, its README %v", glob, name, theirs, want)
		}
		compared++
		if want {
			matched++
		}
	}
	if compared < 15_000 || matched < 1000 || classes == 0 || ends == 0 {
		t.Errorf("%d compared, %d matched, %d and %d that doublestar sees otherwise: the test compares little, or doublestar was mended", compared, matched, classes, ends)
	}
}

// TestPublishedCases are cases of doublestar's own tests (MIT licence, Bob Matcuk), those
// whose pattern we take.
func TestPublishedCases(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		glob, name string
		want       bool
	}{
		{"abc", "abc", true},
		{"*", "abc", true},
		{"*c", "abc", true},
		{"a*", "a", true},
		{"a*", "abc", true},
		{"a*", "ab/c", false},
		{"a*/b", "abc/b", true},
		{"a*/b", "a/c/b", false},
		{"a*b*c*d*e*", "axbxcxdxe", true},
		{"a*b*c*d*e*/f", "axbxcxdxe/f", true},
		{"a*b*c*d*e*/f", "axbxcxdxexxx/f", true},
		{"a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false},
		{"a*b*c*d*e*/f", "axbxcxdxexxx/fff", false},
		{"a*b?c*x", "abxbbxdbxebxczzx", true},
		{"a*b?c*x", "abxbbxdbxebxczzy", false},
		{"ab[c]", "abc", true},
		{"ab[b-d]", "abc", true},
		{"ab[e-g]", "abc", false},
		{"ab[^c]", "abc", false},
		{"ab[^b-d]", "abc", false},
		{"ab[^e-g]", "abc", true},
		{"a?b", "a☺b", true},
		{"a[^a]b", "a☺b", true},
		{"a[!a]b", "a☺b", true},
		{"a???b", "a☺b", false},
		{"a[^a][^a][^a]b", "a☺b", false},
		{"[a-ζ]*", "α", true},
		{"*[a-ζ]", "A", false},
		{"a?b", "a/b", false},
		{"a*b", "a/b", false},
		{"[-]", "-", true},
		{"[x-]", "x", true},
		{"[x-]", "-", true},
		{"[x-]", "z", false},
		{"[-x]", "-", true},
		{"[a-b-d]", "a", true},
		{"[a-b-d]", "-", true},
		{"[a-b-d]", "c", false},
		{"*x", "xxx", true},
		{"[a-z0-9]", "1", true},
		{"a/**", "a", true},
		{"a/**", "a/b", true},
		{"a/**", "a/b/c", true},
		{"**/c", "c", true},
		{"**/c", "b/c", true},
		{"**/c", "a/b/c", true},
		{"**/c", "a/b", false},
		{"**/c", "abcd", false},
		{"**/c", "a/abc", false},
		{"a/**/b", "a/b", true},
		{"a/**/c", "a/b/c", true},
		{"a/**/d", "a/b/c/d", true},
		{"ab{c,d}", "abc", true},
		{"ab{c,d,*}", "abcde", true},
		{"a{,bc}", "a", true},
		{"a{,bc}", "abc", true},
		{"a/{b/c,c/b}", "a/b/c", true},
		{"a/{b/c,c/b}", "a/c/b", true},
		{"a/a*{b,c}", "a/abc", true},
		{"{a/ab*}", "a/abc", true},
		{"{a/*}", "a/b", true},
		{"{a/b,a/c}", "a/c", true},
		{"a/{**/b,abc}", "a/c/b", true},
		{"**/*.txt", "abc/【test】.txt", true},
		{"**/【*", "abc/【test】.txt", true},
		{"**/{a,b}", "a/b", true},
		{"{[a,b]bcd,a/abc}", "abcd", true},
		{"{[a,b]bcd,a/abc}", "a/abc", true},
		{"{[a,b]bcd,a/abc}", "abcde", false},
		{"{[}],a}", "}", true},
		{"{[}],a}", "a", true},
		{"{[}],a}", "b", false},
		{"a/*/*/d", "a/b/c/d", true},
		{"e/**", "e/{", true},
		{"e/*", "e/*", true},
		{"e/?", "e/[", true},
		{"e/]", "e/]", true},
	} {
		if why := refusal(globOfBranches, tt.glob); why != "" {
			t.Errorf("%s: %s", tt.glob, why)
		}
		if got := firstMatch([]string{tt.glob}, tt.name) >= 0; got != tt.want {
			t.Errorf("%s on %s: %v", tt.glob, tt.name, got)
		}
	}
}
