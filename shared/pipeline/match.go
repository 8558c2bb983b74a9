package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Code is a verdict in one word, for programs.
type Code string

const (
	CodeMatched    Code = "matched"    // a trigger takes the event
	CodeAlways     Code = "always"     // manual and scheduled builds need no trigger
	CodeHeld       Code = "held"       // a trigger takes it, and a member has to approve it
	CodeNoTrigger  Code = "no_trigger" // no trigger is for such events
	CodeNoMatch    Code = "no_match"   // the filters of all of them leave it out
	CodeSkipped    Code = "skipped"    // by a marker in the commit's message
	CodeDeleted    Code = "deleted"
	CodeEdited     Code = "edited" // nothing that builds depend on
	CodeClosed     Code = "closed"
	CodeFork       Code = "fork"       // of a repository whose pull requests are not built
	CodeIncomplete Code = "incomplete" // the event does not say what it is about
)

// Verdict says whether an event starts a build, and why.
type Verdict struct {
	Matched bool `json:"matched"`
	Code    Code `json:"code"`
	// Reason names the rule and the value it was applied to, in words for
	// the dashboard.
	Reason string `json:"reason"`
	// Trigger is the place in File.Triggers of the rule that matched; -1 when
	// none did or none was needed.
	Trigger int `json:"trigger"`
	// Findings are what filters said: of the matching trigger all of its filters, or of
	// each trigger for such events the filter that left it out.
	Findings []Finding `json:"findings,omitempty"`
	// PullRequest is the number of the pull request that a pushed branch belongs
	// to and that is built instead; see MatchPush.
	PullRequest int `json:"pull_request,omitempty"`
	// Held is a build that waits until a member has approved its commit.
	Held bool `json:"held,omitempty"`
	// NoSecrets is a build that gets no secret variables.
	NoSecrets bool `json:"no_secrets,omitempty"`
}

// FilterName is the key of a filter in the file.
type FilterName string

const (
	FilterBranches FilterName = "branches"
	FilterTags     FilterName = "tags"
	FilterSources  FilterName = "source_branches"
	FilterPaths    FilterName = "paths"
)

// Result is what a filter said of a value.
type Result string

const (
	Included    Result = "included"     // it matches the pattern
	NotExcluded Result = "not_excluded" // it matches none of the patterns, all of which exclude
	NotIncluded Result = "not_included" // it matches none of the patterns
	Excluded    Result = "excluded"     // it matches the pattern, which excludes
	Assumed     Result = "assumed"      // not all changed files are known, so one of them may match
	Missing     Result = "missing"      // the trigger is not about such a value at all
)

// Finding is what one filter of a trigger said.
type Finding struct {
	Trigger int        `json:"trigger"` // its place in File.Triggers
	Line    int        `json:"line"`    // where it stands in the file
	Filter  FilterName `json:"filter"`
	Result  Result     `json:"result"`
	// Value is the branch, the tag, or the file that decided; empty where it was all
	// of the changed files.
	Value string `json:"value"`
	// Patterns are those the result is about: one, or all of the filter.
	Patterns []string `json:"patterns,omitempty"`
	// Except are the patterns that exclude beside those that do not match any of
	// several changed files.
	Except []string `json:"except,omitempty"`
}

// passes reports whether the filter lets the event through.
func (r Result) passes() bool { return r == Included || r == NotExcluded || r == Assumed }

// HasTrigger reports whether any trigger names kind.
func (f *File) HasTrigger(kind Kind) bool {
	return slices.ContainsFunc(f.Triggers, func(t Trigger) bool { return t.Event == kind })
}

// maxSteps bounds what comparing changed files with patterns may cost at the worst, in characters: a second on a slow machine. It is enough
// for some hundreds of common patterns and a thousand files.
const maxSteps = 100_000_000

// Match decides about one event. The order of triggers and patterns has no
// influence on whether it matches. Where comparing all changed files would take too long, those
// that were not compared are as good as not known.
func (f *File) Match(e Event) Verdict {
	switch e.Kind {
	case Manual:
		return Verdict{Matched: true, Code: CodeAlways, Trigger: -1, Reason: "manual builds run whatever triggers says"}
	case Schedule:
		return Verdict{Matched: true, Code: CodeAlways, Trigger: -1, Reason: "scheduled builds run whatever triggers says"}
	}
	if v, ok := e.Settled(); ok {
		return v
	}
	left := maxSteps
	return f.match(e, &left)
}

// match is Match for an event that is not settled, with so many steps left for comparing files.
func (f *File) match(e Event, steps *int) Verdict {
	var found [4]Finding // more than a trigger has filters
	var left []Finding
	for i := range f.Triggers {
		t := &f.Triggers[i]
		if t.Event != e.Kind {
			continue
		}
		findings := t.judge(e, found[:0], steps)
		for n := range findings {
			findings[n].Trigger, findings[n].Line = i, t.Line
		}
		if n := len(findings); n > 0 && !findings[n-1].Result.passes() {
			left = append(left, findings[n-1])
			continue
		}
		return e.taken(i, slices.Clone(findings))
	}
	if len(left) == 0 {
		return no(CodeNoTrigger, "the file has no %s trigger", e.Kind)
	}
	return Verdict{Code: CodeNoMatch, Trigger: -1, Reason: e.leftOut(left), Findings: left}
}

// MatchPush decides about a push, given the open pull requests of its branch as events.
// A push to such a branch belongs to those that a trigger takes: there is one verdict for
// each of them. Otherwise there is one, about the push itself.
func (f *File) MatchPush(push Event, open []Event) []Verdict {
	if _, settled := push.Settled(); settled || push.Tag != "" {
		return []Verdict{f.Match(push)}
	}
	var out []Verdict
	for _, pr := range open {
		if pr.Branch != push.Branch || pr.Fork.Foreign {
			continue
		}
		v := f.Match(pr)
		if !v.Matched {
			continue
		}
		v.PullRequest = pr.Number
		v.Reason = fmt.Sprintf("the branch belongs to pull request #%d: %s", pr.Number, v.Reason)
		out = append(out, v)
	}
	if len(out) == 0 {
		out = append(out, f.Match(push))
	}
	return out
}

// NeedsChanged reports whether the verdict about an event may depend on which files
// it changes, which have to be asked for then.
func (f *File) NeedsChanged(e Event) bool {
	e.Changed, e.Cut = nil, false
	v := f.Match(e)
	for _, finding := range v.Findings {
		if finding.Result == Assumed {
			// Another trigger may take the event whatever it changes.
			others := &File{Triggers: slices.DeleteFunc(slices.Clone(f.Triggers), func(t Trigger) bool { return !t.Paths.empty() })}
			return !others.Match(e).Matched
		}
	}
	return false
}

// judge appends to found what the filters say, up to the first that leaves the event out.
func (t *Trigger) judge(e Event, found []Finding, steps *int) []Finding {
	switch {
	case e.Tag != "":
		if t.Tags.empty() {
			return append(found, Finding{Filter: FilterTags, Result: Missing, Value: e.Tag})
		}
		return append(found, t.Tags.finding(FilterTags, e.Tag))
	case e.Kind == Push && t.Branches.empty() && !t.Tags.empty():
		return append(found, Finding{Filter: FilterBranches, Result: Missing, Value: e.Branch})
	}
	if !t.Branches.empty() {
		branch := e.Branch
		if e.Kind == PullRequest {
			branch = e.Target
		}
		found = append(found, t.Branches.finding(FilterBranches, branch))
		if !found[len(found)-1].Result.passes() {
			return found
		}
	}
	if !t.SourceBranches.empty() {
		found = append(found, t.SourceBranches.finding(FilterSources, e.Branch))
		if !found[len(found)-1].Result.passes() {
			return found
		}
	}
	if !t.Paths.empty() {
		found = append(found, t.Paths.files(e, steps))
	}
	return found
}

// finding applies the filter to a name.
func (f Filter) finding(of FilterName, name string) Finding {
	return f.verdict(of, name, firstMatch(f.Exclude, name), func() int { return firstMatch(f.Include, name) })
}

// verdict is what the filter says of a name, given the places of the first patterns that match it.
func (f Filter) verdict(of FilterName, name string, excluded int, included func() int) Finding {
	out := Finding{Filter: of, Value: name}
	if excluded >= 0 {
		out.Result, out.Patterns = Excluded, f.Exclude[excluded:excluded+1]
		return out
	}
	if len(f.Include) == 0 {
		out.Result, out.Patterns = NotExcluded, f.Exclude
		return out
	}
	if i := included(); i >= 0 {
		out.Result, out.Patterns = Included, f.Include[i:i+1]
		return out
	}
	out.Result, out.Patterns = NotIncluded, f.Include
	return out
}

// files applies the filter to the changed files: one of them has to pass. It takes what that costs from what is left of steps.
func (f Filter) files(e Event, left *int) Finding {
	last := Finding{Filter: FilterPaths, Result: NotIncluded, Patterns: f.Include, Except: f.Exclude}
	if len(f.Include) == 0 {
		last.Result, last.Patterns, last.Except = Excluded, f.Exclude, nil
	}
	exclude, include := costly(f.Exclude), costly(f.Include)
	for _, path := range e.Changed {
		found := f.verdict(FilterPaths, path, exclude.first(path, left), func() int { return include.first(path, left) })
		if *left < 0 {
			last.Result = Assumed
			return last
		}
		if found.Result.passes() || len(e.Changed) == 1 && !e.Cut {
			return found
		}
	}
	if e.Changed == nil || e.Cut {
		last.Result = Assumed
	}
	return last
}

// weighed are globs with the steps that each costs for a character of a name.
type weighed struct {
	globs []string
	steps []int
}

func costly(globs []string) weighed {
	w := weighed{globs, make([]int, len(globs))}
	for i, glob := range globs {
		w.steps[i] = steps(glob)
	}
	return w
}

// first is firstMatch, as long as steps are left.
func (w weighed) first(name string, left *int) int {
	for i, glob := range w.globs {
		*left -= min(len(glob), len(name))
		if !begins(glob, name) {
			continue
		}
		if *left -= w.steps[i] * len(name); *left < 0 {
			return -1
		}
		if matches(glob, name) {
			return i
		}
	}
	return -1
}

// taken is the verdict about an event that trigger i takes, given what its filters
// said.
func (e Event) taken(i int, findings []Finding) Verdict {
	v := Verdict{Matched: true, Code: CodeMatched, Trigger: i, Findings: findings}
	v.Reason = e.reason(findings)
	if e.foreign() {
		v.NoSecrets = true
		v.Reason += "; it comes from a fork, so it gets no secrets and the pipeline file of the target branch counts"
		if !e.Fork.Approved {
			v.Code, v.Held = CodeHeld, true
			v.Reason += "; it waits until a member approves the commit"
		}
	}
	return v
}

// reason says why a trigger takes the event.
func (e Event) reason(findings []Finding) string {
	b := make([]byte, 0, 128)
	switch {
	case e.Kind == PullRequest:
		b = append(append(b, "pull request into "...), e.Target...)
	case e.Tag != "":
		b = append(append(b, "push of tag "...), e.Tag...)
	default:
		b = append(append(b, "push of branch "...), e.Branch...)
	}
	if len(findings) == 0 || findings[0].Filter != FilterBranches && findings[0].Filter != FilterTags {
		b = append(append(append(b, ": the "...), e.Kind...), " trigger takes every branch"...)
	}
	for _, f := range findings {
		switch f.Filter {
		case FilterSources:
			b = append(append(b, ", its source "...), f.Value...)
		case FilterPaths:
			b = append(b, ", and "...)
			if f.Result == Assumed {
				b = append(b, "whether a changed file matches paths is not known, so it is built"...)
				continue
			}
			b = append(append(b, "file "...), f.Value...)
		}
		if f.Result == NotExcluded {
			b = append(append(b, " is not excluded by "...), listed(f.Patterns)...)
		} else {
			b = strconv.AppendQuote(append(b, " matches "...), f.Patterns[0])
		}
	}
	return string(b)
}

// leftOut says why no trigger takes the event, given what left it out of each.
func (e Event) leftOut(findings []Finding) string {
	// A trigger for tags has nothing to say of a branch, unless there is no other.
	missing := func(f Finding) bool { return f.Result == Missing }
	if slices.ContainsFunc(findings, missing) {
		if about := slices.DeleteFunc(slices.Clone(findings), missing); len(about) > 0 {
			findings = about
		}
	}
	first := findings[0]
	// All of them miss it in the same way: then their patterns are one list.
	if first.Filter != FilterPaths && (first.Result == NotIncluded || first.Result == Missing) &&
		!slices.ContainsFunc(findings, func(f Finding) bool { return f.Filter != first.Filter || f.Result != first.Result }) {
		return e.why(first, all(findings))
	}
	var b strings.Builder
	for i, f := range findings {
		if i == maxListed {
			fmt.Fprintf(&b, "; and %d more", len(findings)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		if len(findings) > 1 {
			fmt.Fprintf(&b, "line %d: ", f.Line)
		}
		b.WriteString(e.why(f, f.Patterns))
	}
	return b.String()
}

// all are the patterns of findings.
func all(findings []Finding) []string {
	if len(findings) == 1 {
		return findings[0].Patterns
	}
	var patterns []string
	for _, f := range findings {
		patterns = append(patterns, f.Patterns...)
	}
	return patterns
}

// why says how a filter with these patterns left the event out.
func (e Event) why(f Finding, patterns []string) string {
	what := "branch "
	switch {
	case f.Filter == FilterPaths:
		return e.whyFiles(f, patterns)
	case f.Filter == FilterTags:
		what = "tag "
	case f.Filter == FilterSources:
		what = "source branch "
	case e.Kind == PullRequest:
		what = "target branch "
	}
	switch {
	case f.Result == Missing && f.Filter == FilterTags:
		return what + f.Value + ": no trigger has a tags filter"
	case f.Result == Missing:
		return what + f.Value + ": the push trigger is about tags alone"
	case f.Result == Excluded:
		return what + f.Value + " is excluded by " + strconv.Quote(patterns[0])
	}
	return what + f.Value + " matches none of " + listed(patterns)
}

func (e Event) whyFiles(f Finding, patterns []string) string {
	switch n := len(e.Changed); {
	case n == 0:
		return "no file is changed, and paths asks for one of " + listed(patterns)
	case f.Result == Excluded && n == 1:
		return "the only changed file, " + e.Changed[0] + ", is excluded by " + listed(patterns)
	case f.Result == Excluded:
		return fmt.Sprintf("all %d changed files, such as %s, are excluded by %s", n, e.Changed[0], listed(patterns))
	case n == 1:
		return "the only changed file, " + e.Changed[0] + ", matches none of " + listed(patterns)
	case len(f.Except) > 0:
		return fmt.Sprintf("none of %d changed files, such as %s, matches %s without matching %s", n, e.Changed[0], listed(patterns), listed(f.Except))
	default:
		return fmt.Sprintf("none of %d changed files, such as %s, matches %s", n, e.Changed[0], listed(patterns))
	}
}

// maxListed is how many patterns and rules a sentence names.
const maxListed = 20

// listed names patterns, as far as they fit.
func listed(patterns []string) string {
	if more := len(patterns) - maxListed; more > 0 {
		return strings.Join(patterns[:maxListed], ", ") + " and " + strconv.Itoa(more) + " more"
	}
	return strings.Join(patterns, ", ")
}

func no(code Code, format string, args ...any) Verdict {
	return Verdict{Code: code, Trigger: -1, Reason: fmt.Sprintf(format, args...)}
}

// firstMatch is the place of the first of globs that matches the whole of name; -1
// when none does.
func firstMatch(globs []string, name string) int {
	for i, glob := range globs {
		if begins(glob, name) && matches(glob, name) {
			return i
		}
	}
	return -1
}

// matches reports whether glob matches the whole of name.
//
// It is doublestar's answer but where that differs from doublestar's documentation: a negated
// class stands for "/" there, and at the end of a name it does not see that what is left
// of a pattern such as a*/** or a*{,b} may stand for nothing. A last part that both have in
// common leads around the latter.
func matches(glob, name string) bool {
	const last = "/\x01"
	if strings.IndexByte(glob, '{') < 0 && !strings.Contains(glob, "*/**") && !strings.Contains(glob, "[^") && !strings.Contains(glob, "[!") {
		return doublestar.MatchUnvalidated(glob, name)
	}
	return doublestar.MatchUnvalidated(bounded(glob)+last, name+last)
}

// bounded is glob with a "/" among what its negated classes leave out.
func bounded(glob string) string {
	if strings.IndexByte(glob, '[') < 0 {
		return glob
	}
	var b strings.Builder
	for {
		before, rest, opened := strings.Cut(glob, "[")
		class, after, closed := strings.Cut(rest, "]")
		if !opened || !closed {
			b.WriteString(glob)
			return b.String()
		}
		b.WriteString(before + "[")
		if strings.HasPrefix(class, "^") || strings.HasPrefix(class, "!") {
			class = class[1:]
			b.WriteString("^/")
			if strings.HasPrefix(class, "-") {
				b.WriteByte('\\') // or it would be a range from "/" on
			}
		}
		b.WriteString(class + "]")
		glob = after
	}
}

// begins reports whether glob may match name, as far as the characters before
// its first special one tell, and those of the braces there. They tell most names and
// globs apart, at little cost.
func begins(glob, name string) bool {
	for i := range min(len(glob), len(name)) {
		switch c := glob[i]; c {
		case '*', '?', '[', '\\':
			return true
		case '{':
			return optionBegins(glob[i+1:], name[i:])
		case name[i]:
		default:
			return false
		}
	}
	return true
}

// optionBegins is begins for what follows an opening brace.
func optionBegins(options, name string) bool {
	same, at := true, 0 // so far, of this option
	for i := range len(options) {
		switch c := options[i]; {
		case c == '[' || c == '{' || c == '\\':
			return true // a comma may not be one
		case c == ',' && !same:
			same, at = true, 0
		case c == '}' && !same:
			return false
		case !same:
		case c == ',' || c == '}' || c == '*' || c == '?' || at == len(name):
			return true
		default:
			same = c == name[at]
			at++
		}
	}
	return true
}
