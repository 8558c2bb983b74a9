package pipeline

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// places are where a pattern can stand without quotes, as PATTERN.
func places() []string {
	const trigger = "name: a\nsteps: [{run: x}]\ntriggers:\n- event: push\n  branches: "
	return []string{
		trigger + "PATTERN\n",
		trigger + "PATTERN # the release\n",
		trigger + "\n  - PATTERN\n  - main\n",
		trigger + "\n  - main\n  - PATTERN\n",
		trigger + "[PATTERN]\n",
		trigger + "[ PATTERN ]\n",
		trigger + "[PATTERN, main]\n",
		trigger + "[PATTERN , main]\n",
		trigger + "[main, PATTERN]\n",
		trigger + "[main,\n    PATTERN, # both\n    x]\n",
		trigger + "{include: PATTERN}\n",
		trigger + "{include: [PATTERN, main], exclude: x}\n",
		trigger + "{exclude: [x, PATTERN]}\n",
		trigger + "{exclude: [x, PATTERN], include: y}\n  tags: [v1]\n",
		trigger + "\n    exclude:\n    - PATTERN\n",
		"name: a\nsteps: [{run: x}]\ntriggers: [push, {event: push, branches: [PATTERN, main]}, pull_request]\n",
		"name: a\nsteps: [{run: x}]\ntriggers: [{branches: PATTERN, event: push}]\n",
		"name: a\nsteps: [{run: '[a', env: &e {A: b}}, {run: \"it's\", env: *e}]\ntriggers:\n- {event: push, branches: &b [PATTERN, main]}\n",
	}
}

// suggested is the quoted form that a message suggests.
var suggested = regexp.MustCompile(`(?:put|as in|exclude:) ("(?:[^"\\]|\\.)*")`)

// mended writes what the first problem suggests, at its place; false: it suggests nothing.
func mended(t *testing.T, text string, p Problem) (string, bool) {
	t.Helper()
	m := suggested.FindStringSubmatch(p.Message)
	if m == nil {
		return text, false
	}
	value, err := strconv.Unquote(m[1])
	if err != nil {
		t.Fatalf("%s: %v", p.Message, err)
	}
	at := 0
	for range p.Line - 1 {
		at += strings.IndexByte(text[at:], '\n') + 1
	}
	for range p.Column - 1 {
		at += len(string([]rune(text[at:])[0]))
	}
	if strings.HasPrefix(m[0], "exclude") {
		text = text[:at] + strings.TrimLeft(text[at:], "! ")
	}
	rest, found := strings.CutPrefix(text[at:], value)
	if !found {
		t.Fatalf("%v\nis not at its place of\n%s", p, text)
	}
	return text[:at] + m[1] + rest, true
}

// TestSuggestedQuotes writes the quotes that a problem suggests, until none is suggested any more: each of them makes its problem go away, and in
// the end the file has the very patterns that were meant.
func TestSuggestedQuotes(t *testing.T) {
	t.Parallel()
	patterns := []string{
		"*", "**", "*.x", "**/x", "*-wip", "*feature", "*{a,b}", "*a[b]", "*/{a,b}/*", "v[0-9]", "v[0-9]*", "release/[0-9]*.[0-9]*", "release/{1,2}",
		"{a,b}", "{a}", "{a,b}/*", "{a,b}-{c,d}", "{a,b}[cd]", "[a-z]*", "[a-z]/{b,c}", "[^a]?", "?*", "?x", "?{a,b}", "v?", "a?b", "é*", "*é{ü,ö}",
		"x/{é,a}", "feature/**", "[ab][cd]", "{a,b}{c,d}",
	}
	written := 0
	for _, pattern := range patterns {
		if why := refusal(globOfBranches, pattern); why != "" {
			t.Fatalf("%s: %s", pattern, why)
		}
		for _, place := range places() {
			for _, excluded := range []string{"", "!"} {
				text := strings.ReplaceAll(place, "PATTERN", excluded+pattern)
				for range 5 {
					file, problems := Parse([]byte(text))
					if file != nil {
						if f := file.Triggers[slices.IndexFunc(file.Triggers, func(t Trigger) bool { return !t.Branches.empty() })].Branches; !slices.Contains(f.Include, pattern) && !slices.Contains(f.Exclude, pattern) {
							t.Errorf("%s\nhas %q", text, f)
						}
						break
					}
					better, ok := mended(t, text, problems[0])
					if !ok {
						t.Fatalf("%s\nsuggests nothing: %v", text, problems)
					}
					written++
					_, after := Parse([]byte(better))
					if len(after) > 0 && (after[0].Line < problems[0].Line || after[0].Line == problems[0].Line && after[0].Column <= problems[0].Column) {
						t.Fatalf("%s\nis told %v\nbut %s\nstill has %v", text, problems[0], better, after)
					}
					text = better
				}
			}
		}
	}
	if written < 300 {
		t.Errorf("only %d quotes were suggested", written)
	}
}

// TestSuggestedQuotesInOrder writes patterns beside each other: the first that needs quotes is told first.
func TestSuggestedQuotesInOrder(t *testing.T) {
	t.Parallel()
	patterns := []string{"*.x", "*-wip", "*a[b]", "v[0-9]", "{a,b}/*", "{a,b}", "?*", "v?", "[a-z]*", "main", "release/{1,2}"}
	for _, one := range patterns {
		for _, other := range patterns {
			for _, list := range []string{"[" + one + ", " + other + "]", "{exclude: [x, " + one + "," + other + " ]}", "\n  - " + one + "\n  - " + other + "\n"} {
				text := "name: a\nsteps: [{run: x}]\ntriggers:\n- event: push\n  branches: " + list + "\n"
				for {
					file, problems := Parse([]byte(text))
					if file != nil {
						f := file.Triggers[0].Branches
						if all := slices.Concat(f.Include, f.Exclude); !slices.Contains(all, one) || !slices.Contains(all, other) {
							t.Errorf("%s\nhas %q", text, all)
						}
						break
					}
					better, ok := mended(t, text, problems[0])
					if !ok {
						t.Fatalf("%s\nsuggests nothing: %v", text, problems)
					}
					// What YAML refuses comes before what it takes as something else.
					if _, after := Parse([]byte(better)); len(after) > 0 && (problems[0].Path == "") == (after[0].Path == "") && (after[0].Line < problems[0].Line || after[0].Line == problems[0].Line && after[0].Column <= problems[0].Column) {
						t.Fatalf("%s\nis told %v\nbut %s\nstill has %v", text, problems[0], better, after)
					}
					text = better
				}
			}
		}
	}
}
