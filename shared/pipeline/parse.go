package pipeline

import (
	"bytes"
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Parse reads a pipeline file. It returns either a file or all of its
// problems; after a syntax error there is only that one.
func Parse(text []byte) (*File, Problems) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors write it; yaml.v3 does not count it
	root, problem := document(text)
	if problem != nil {
		return nil, Problems{*problem}
	}
	r := &reader{text: text}
	f := r.file(root)
	if len(r.problems) > 0 {
		r.problems.sort()
		return nil, r.problems
	}
	return f, nil
}

// reader turns nodes into a File and collects what is wrong with them. Each
// method takes a node and the path that names it, reports what it cannot
// accept, and goes on with what it can.
type reader struct {
	text     []byte
	lines    [][]byte // of text, split when first needed
	problems Problems
}

// refuse reports a problem at a node.
func (r *reader) refuse(n *yaml.Node, at, format string, args ...any) {
	if len(r.problems) > maxProblems {
		return
	}
	p := Problem{Line: n.Line, Column: n.Column, Path: at, Message: fmt.Sprintf(format, args...)}
	if len(r.problems) == maxProblems {
		p.Path, p.Message = "", "there are more problems: these come first"
	}
	r.problems = append(r.problems, p)
}

func (r *reader) file(root *yaml.Node) *File {
	f := &File{Platform: DefaultPlatform, Timeout: DefaultTimeout}
	for key, value := range r.object(root, "", fileKeys()) {
		switch key {
		case "name":
			f.Name = r.name(value, key)
		case "platform":
			f.Platform = r.platform(value, key)
			f.platformLine, f.platformColumn = value.Line, value.Column
		case "environment":
			f.Variables = r.environment(value, key)
		case "triggers":
			for i, n := range r.list(value, key, 0) {
				f.Triggers = append(f.Triggers, r.trigger(n, index(key, i)))
			}
		case "steps":
			for i, n := range r.list(value, key, 1) {
				f.Steps = append(f.Steps, r.step(n, index(key, i)))
			}
		case "timeout":
			f.Timeout = r.minutes(value, key)
		}
	}
	return f
}

func (r *reader) platform(n *yaml.Node, at string) string {
	text, ok := r.line(n, at)
	if !ok {
		return ""
	}
	all := strings.Join(Platforms(), " ")
	if hasWord(all, text) {
		return text
	}
	hint := ""
	if best := nearest(fold(text), all); best != "" {
		hint = `, did you mean "` + best + `"?`
	}
	r.refuse(n, at, "found %s, expected %s%s", shown(text), oneOf(all), hint)
	return ""
}

func (r *reader) environment(n *yaml.Node, at string) []Variable {
	var variables []Variable
	if isNull(n) {
		return nil
	}
	for key, value := range r.object(n, at, environmentKeys()) {
		variables = r.variables(value, join(at, key))
	}
	return variables
}

func (r *reader) trigger(n *yaml.Node, at string) Trigger {
	n = target(n)
	t := Trigger{Line: n.Line}
	if n.Kind == yaml.ScalarNode {
		t.Event = r.event(n, at)
		return t
	}
	for key, value := range r.object(n, at, triggerKeys()) {
		switch key {
		case "event":
			t.Event = r.event(value, join(at, key))
		case "branches":
			t.Branches = r.globs(value, join(at, key))
		}
	}
	return t
}

func (r *reader) event(n *yaml.Node, at string) Kind {
	text, ok := r.line(n, at)
	if !ok {
		return ""
	}
	switch kind := Kind(text); {
	case knownEvent(kind):
		return kind
	case kind == Manual || kind == Schedule:
		r.refuse(n, at, "%s builds run whatever triggers says: remove this entry", text)
	case fold(text) == "tag" || fold(text) == "tags":
		r.refuse(n, at, "builds of tags are not supported by this version: remove this entry")
	case nearest(synonym(fold(text)), "push pull_request") != "":
		r.refuse(n, at, "unknown event %s, did you mean %q?", shown(text), nearest(synonym(fold(text)), "push pull_request"))
	default:
		r.refuse(n, at, "unknown event %s, expected push or pull_request", shown(text))
	}
	return ""
}

// globs reads one glob or a list of them.
func (r *reader) globs(n *yaml.Node, at string) []string {
	n = target(n)
	if isNull(n) || n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.refuse(n, at, "found nothing, expected at least one branch: remove the key to take every branch")
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		return []string{r.glob(n, at)}
	}
	var globs []string
	for i, entry := range r.list(n, at, 1) {
		globs = append(globs, r.glob(entry, index(at, i)))
	}
	return globs
}

func (r *reader) glob(n *yaml.Node, at string) string {
	n = target(n)
	if n.Kind == yaml.ScalarNode && r.startsWith(n, '!') {
		r.refuse(n, at, "%s", refuseGlob("!"))
		return ""
	}
	text, ok := r.plain(n, at)
	if !ok {
		return ""
	}
	if why := refuseGlob(text); why != "" {
		r.refuse(n, at, "%s", why)
	}
	return text
}

func (r *reader) step(n *yaml.Node, at string) Step {
	var s Step
	for key, value := range r.object(n, at, stepKeys()) {
		switch key {
		case "name":
			s.Name = r.name(value, join(at, key))
		case "run":
			s.Run = r.script(value, join(at, key))
		case "working_directory":
			s.WorkingDirectory = r.folder(value, join(at, key))
		case "env":
			s.Env = r.variables(value, join(at, key))
		}
	}
	return s
}

func (r *reader) name(n *yaml.Node, at string) string {
	text, ok := r.line(n, at)
	if ok && utf8.RuneCountInString(text) > maxName {
		r.refuse(n, at, "found %d characters, expected at most %d: shorten the name", utf8.RuneCountInString(text), maxName)
	}
	return text
}

func (r *reader) script(n *yaml.Node, at string) string {
	text, ok := r.plain(n, at)
	if ok && strings.TrimSpace(text) == "" {
		r.refuse(n, at, `found nothing, expected a script: for example "%s"`, example("run"))
	}
	return text
}

func (r *reader) folder(n *yaml.Node, at string) string {
	text, ok := r.line(n, at)
	switch {
	case !ok:
		return ""
	case strings.Contains(text, `\`):
		r.refuse(n, at, `found %s, expected / between folders: replace the \`, shown(text))
	case strings.HasPrefix(text, "/"):
		r.refuse(n, at, "found %s, expected a folder of the clone: write it from the root of the repository, without the first /", shown(text))
	case outside(text):
		r.refuse(n, at, "found %s, which leaves the clone: expected a folder inside it", shown(text))
	}
	if text = path.Clean(text); text == "." {
		return ""
	}
	return text
}

func (r *reader) minutes(n *yaml.Node, at string) time.Duration {
	text, ok := r.line(n, at)
	if !ok {
		return 0
	}
	minutes, err := strconv.ParseUint(text, 10, 16)
	if err != nil || minutes < 1 || minutes > maxTimeoutMinutes {
		r.refuse(n, at, "found %s, expected whole minutes from 1 to %d: for example 60", shown(text), maxTimeoutMinutes)
	}
	return time.Duration(minutes) * time.Minute
}

// variables reads a map of names and values. Messages never hold a value.
func (r *reader) variables(n *yaml.Node, at string) []Variable {
	if isNull(n) {
		return nil
	}
	n = target(n)
	variables := make([]Variable, 0, min(len(n.Content)/2, maxEntries))
	for key, value := range r.entries(n, at) {
		name := key.Value
		switch {
		case name == "<<":
			r.refuse(key, at, refuseMerge)
		case !isVariableName(name):
			r.refuse(key, at, "found %s as a variable's name, expected letters, digits and _, not starting with a digit", shown(name))
		case name == "RUNNERHUB" || strings.HasPrefix(name, "RUNNERHUB_"):
			r.refuse(key, join(at, name), "names that start with RUNNERHUB_ are set by RunnerHub itself, so that steps can rely on them: choose another name")
		case target(value).Kind != yaml.ScalarNode:
			r.refuse(value, join(at, name), "found %s, expected text: put the value in quotes, or write it on one line", describe(value))
		default:
			// Not plain, which would build the path of every sound variable.
			if why := r.refuseScalar(target(value)); why != "" {
				r.refuse(value, join(at, name), "%s", why)
			}
			variables = append(variables, Variable{Name: name, Value: target(value).Value})
		}
	}
	return variables
}

func isVariableName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// line reads text that must fill one line and no more.
func (r *reader) line(n *yaml.Node, at string) (string, bool) {
	text, ok := r.plain(n, at)
	switch {
	case !ok:
		return "", false
	case strings.TrimSpace(text) == "":
		r.refuse(n, at, "found nothing, expected text: fill it in, or remove the key")
		return "", false
	case strings.ContainsFunc(text, unicode.IsControl):
		r.refuse(n, at, "found a line break or a control character, expected one line of text")
		return "", false
	}
	return text, true
}

// plain reads text exactly as written, whatever YAML would make of it.
func (r *reader) plain(n *yaml.Node, at string) (string, bool) {
	n = target(n)
	if n.Kind != yaml.ScalarNode {
		r.refuse(n, at, "found %s, expected text", describe(n))
		return "", false
	}
	if why := r.refuseScalar(n); why != "" {
		r.refuse(n, at, "%s", why)
		return "", false
	}
	return n.Value, true
}

// refuseScalar says what makes a scalar unusable as text, if anything does.
//
// The text is looked at as well as the node: yaml.v3 drops a lone "!" without a
// trace, which would turn the script "! grep x" into its opposite.
func (r *reader) refuseScalar(n *yaml.Node) string {
	switch {
	case n.Style&yaml.TaggedStyle != 0 || r.startsWith(n, '!'):
		return "found ! at the start, which YAML reads as a tag: put the value in quotes"
	case strings.IndexByte(n.Value, 0) >= 0:
		return `found a NUL character ("\0"), which no environment or script can hold: remove it`
	}
	return ""
}

// object walks a map whose keys the format knows, and reports the others and
// those that are missing.
func (r *reader) object(n *yaml.Node, at string, k keys) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		var meant []string
		for key, value := range r.entries(n, at) {
			if !hasWord(k.known, key.Value) {
				why, other := k.refusal(key.Value)
				r.refuse(key, join(at, cut(key.Value, 60)), "%s", why)
				meant = append(meant, other)
				continue
			}
			if !yield(key.Value, value) {
				return
			}
		}
		n = target(n)
		if n.Kind != yaml.MappingNode || k.required == "" {
			return
		}
		for key := range strings.SplitSeq(k.required, " ") {
			if !hasKey(n, key) && !slices.Contains(meant, key) {
				r.refuse(n, join(at, key), `the key %q is missing: add it, for example "%s"`, key, example(key))
			}
		}
	}
}

// entries walks any map and refuses keys that are no text or stand twice.
func (r *reader) entries(n *yaml.Node, at string) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		n := target(n)
		switch {
		case n.Kind != yaml.MappingNode:
			r.refuse(n, at, `found %s, expected a map: lines of "key: value"`, describe(n))
			return
		case len(n.Content)/2 > maxEntries:
			r.refuse(n, at, "found %d entries, expected at most %d", len(n.Content)/2, maxEntries)
			return
		}
		lines := make(map[string]int, 8)
		for i := 0; i < len(n.Content); i += 2 {
			key := target(n.Content[i])
			if key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 {
				r.refuse(key, at, "found %s as a key, expected plain text", describe(key))
				continue
			}
			if line, twice := lines[key.Value]; twice {
				r.refuse(key, join(at, cut(key.Value, 60)), "the key %s is already given in line %d: keep one of them", shown(key.Value), line)
				continue
			}
			lines[key.Value] = key.Line
			if !yield(key, n.Content[i+1]) {
				return
			}
		}
	}
}

func hasKey(n *yaml.Node, key string) bool {
	for i := 0; i < len(n.Content); i += 2 {
		if k := target(n.Content[i]); k.Kind == yaml.ScalarNode && k.Value == key {
			return true
		}
	}
	return false
}

// list walks a list of at least least entries.
func (r *reader) list(n *yaml.Node, at string, least int) iter.Seq2[int, *yaml.Node] {
	return func(yield func(int, *yaml.Node) bool) {
		n := target(n)
		switch {
		case n.Kind != yaml.SequenceNode:
			r.refuse(n, at, `found %s, expected a list: start each entry with "- "`, describe(n))
			return
		case len(n.Content) < least:
			r.refuse(n, at, "found an empty list, expected at least one entry")
			return
		case len(n.Content) > maxEntries:
			r.refuse(n, at, "found %d entries, expected at most %d", len(n.Content), maxEntries)
			return
		}
		for i, entry := range n.Content {
			if !yield(i, entry) {
				return
			}
		}
	}
}

// startsWith looks at the character of the text at which a node begins.
func (r *reader) startsWith(n *yaml.Node, c byte) bool {
	if r.lines == nil {
		r.lines = bytes.SplitAfter(r.text, []byte{'\n'})
	}
	if n.Line > len(r.lines) {
		return false
	}
	rest := r.lines[n.Line-1]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(rest)
		rest = rest[size:]
	}
	return len(rest) > 0 && rest[0] == c
}

// target follows an alias. An anchor cannot stand before an alias, so one
// step is enough, and the depth of the format ends any circle.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = target(n)
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Style&yaml.TaggedStyle == 0
}

func describe(n *yaml.Node) string {
	n = target(n)
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a map"
	case isNull(n):
		return "nothing"
	}
	return "text"
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func index(at string, i int) string {
	return at + "[" + strconv.Itoa(i) + "]"
}
