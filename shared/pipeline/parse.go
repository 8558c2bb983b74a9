package pipeline

import (
	"bytes"
	"cmp"
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
	text = version11(text)
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
	bangs    []place // of each "!" in text, found when first needed
	looked   bool    // for bangs
	spans    []span  // values of text that may need quotes, found when first needed
	scanned  bool    // for spans
	patterns int     // of triggers, so far
	problems Problems
}

// refuse reports a mistake at a node.
func (r *reader) refuse(n *yaml.Node, at string, m mistake) {
	switch {
	case len(r.problems) > maxProblems:
		return
	case len(r.problems) == maxProblems:
		at, m = "", mistake{found: "more problems", expected: "none", message: "there are more problems: these come first", unsayable: true}
	}
	r.problems = append(r.problems, m.at(n.Line, n.Column, at))
}

func (r *reader) file(root *yaml.Node) *File {
	f := &File{Platform: DefaultPlatform, Timeout: DefaultTimeout}
	for key, value := range r.object(root, "", fileKeys()) {
		switch key {
		case "name":
			f.Name = r.name(value, key)
		case "platform":
			f.Platform = r.oneOf(value, key, Platforms())
			f.ask(platformAsked, key, value)
		case "environment":
			r.environment(f, value, key)
		case "triggers":
			for i, n := range r.list(value, key, 0) {
				f.Triggers = append(f.Triggers, r.trigger(n, index(key, i)))
			}
		case "steps":
			for i, n := range r.list(value, key, 1) {
				f.Steps = append(f.Steps, r.step(f, n, index(key, i)))
			}
		case "artifacts":
			f.Artifacts = r.globs(value, key, globOfArtifacts)
			f.ask(Artifacts, key, keyOf(root, key))
		case "timeout":
			f.Timeout = r.minutes(value, key)
		case "image":
			f.Image = r.image(value, key)
			f.ask(Image, key, keyOf(root, key))
		case "runner":
			f.Runner = r.oneOf(value, key, Runners())
			f.ask(runnerAsked, key, value)
		case "compute":
			f.Compute = r.oneOf(value, key, Computes())
			f.ask(computeAsked, key, keyOf(root, key))
		case "cache":
			f.Cache = r.cache(value, key)
			f.ask(Caches, key, keyOf(root, key))
		case "concurrency":
			f.Concurrency = r.concurrency(value, key)
			f.ask(Groups, key, keyOf(root, key))
		}
	}
	return f
}

// ask remembers that the file uses what not every installation obeys, at a node.
func (f *File) ask(feature Feature, at string, n *yaml.Node) {
	if n == nil {
		return // the key is a misspelt one, so that the file is refused
	}
	f.asks = append(f.asks, ask{feature: feature, path: at, line: n.Line, column: n.Column})
}

// oneOf reads one of a few words.
func (r *reader) oneOf(n *yaml.Node, at string, words []string) string {
	all := strings.Join(words, " ")
	if r.structured(n, at, oneOf(all), "") {
		return ""
	}
	text, ok := r.line(n, at)
	if !ok || slices.Contains(words, text) {
		return text
	}
	r.refuse(n, at, mistake{found: shown(text), expected: oneOf(all), nearest: nearest(fold(text), all)})
	return ""
}

func (r *reader) environment(f *File, n *yaml.Node, at string) {
	if isNull(n) {
		return
	}
	for key, value := range r.object(n, at, environmentKeys()) {
		if key == "variables" {
			f.Variables = r.variables(value, join(at, key))
			continue
		}
		f.Toolchain = append(f.Toolchain, Tool{Name: key, Version: r.version(value, join(at, key))})
		f.ask(Toolchain, join(at, key), keyOf(target(n), key))
	}
}

// version reads the version of a tool as it is written: 1.10 is not 1.1.
func (r *reader) version(n *yaml.Node, at string) string {
	text, ok := r.line(n, at)
	if ok && !isVersion(text) {
		r.refuse(n, at, mistake{
			found:     shown(text),
			expected:  fmt.Sprintf("a version of letters, digits and . _ + -, at most %d characters, for example 22 or 22.11.0", maxWord),
			unsayable: isNumber(n),
		})
	}
	return text
}

func isVersion(text string) bool {
	for i, c := range []byte(text) {
		sign := c == '.' || c == '_' || c == '+' || c == '-'
		if !isLetter(c) && !isDigit(c) && (i == 0 || !sign) {
			return false
		}
	}
	return text != "" && len(text) <= maxWord
}

// image reads the name of a container image. Whether there is one is the runner's
// to find out.
func (r *reader) image(n *yaml.Node, at string) string {
	text, ok := r.line(n, at)
	if ok && !isImage(text) {
		r.refuse(n, at, mistake{found: shown(text), expected: "the name of an image, for example node:22 or registry.example.com/team/image:tag", unsayable: isNumber(n)})
	}
	return text
}

func isImage(text string) bool {
	for i, c := range []byte(text) {
		sign := c == '.' || c == '_' || c == '-' || c == '/' || c == ':' || c == '@' || c == '+'
		if !isLetter(c) && !isDigit(c) && (i == 0 || !sign) {
			return false
		}
	}
	return text != "" && len(text) <= maxImage
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
			t.Branches = r.filter(value, join(at, key), globOfBranches)
		case "tags":
			t.Tags = r.filter(value, join(at, key), globOfTags)
		case "paths":
			t.Paths = r.filter(value, join(at, key), globOfFiles)
		case "source_branches":
			t.SourceBranches = r.filter(value, join(at, key), globOfBranches)
		}
	}
	r.misplaced(n, at, t.Event)
	return t
}

// misplaced refuses the filter that only the other event has.
func (r *reader) misplaced(n *yaml.Node, at string, event Kind) {
	var other string
	var m mistake
	switch event {
	case Push:
		other = "source_branches"
		m = mistake{
			found: `the key "source_branches" for a push`, expected: "branches, tags or paths",
			message: `"source_branches" belongs to pull_request: write branches for the pushed branch`,
		}
	case PullRequest:
		other = "tags"
		m = mistake{
			found: `the key "tags" for a pull request`, expected: "branches, source_branches or paths",
			message: `"tags" belongs to push: pull requests have none`,
		}
	default:
		return
	}
	if key := keyOf(n, other); key != nil {
		r.refuse(key, join(at, other), m)
	}
}

func (r *reader) event(n *yaml.Node, at string) Kind {
	const events = "push pull_request"
	text, ok := r.line(n, at)
	if !ok {
		return ""
	}
	m := mistake{found: "the event " + shown(text), expected: "push or pull_request"}
	switch kind := Kind(text); {
	case knownEvent(kind):
		return kind
	case kind == Manual || kind == Schedule:
		m.message = text + " builds run whatever triggers says: remove this entry"
	case fold(text) == "tag" || fold(text) == "tags":
		m.nearest = "push"
		m.message = `unknown event ` + shown(text) + `: for tags, write {event: push, tags: "*"}`
	default:
		if m.nearest = nearest(cmp.Or(synonyms(fold(text)), fold(text)), events); m.nearest != "" {
			m.message = fmt.Sprintf("unknown event %s, did you mean %q?", shown(text), m.nearest)
		} else {
			m.message = "unknown event " + shown(text) + ", expected push or pull_request"
		}
	}
	r.refuse(n, at, m)
	return ""
}

// filter reads one glob, a list of them, or a map of include and exclude.
func (r *reader) filter(n *yaml.Node, at string, of globOf) Filter {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		return Filter{Include: r.globs(n, at, of)}
	}
	if why := r.braces(n, filterKeys(), of); why != nil {
		r.refuse(n, at, *why)
		return Filter{}
	}
	var f Filter
	for key, value := range r.object(n, at, filterKeys()) {
		globs := r.globs(value, join(at, key), of)
		if key == "include" {
			f.Include = globs
		} else {
			f.Exclude = globs
		}
	}
	if len(n.Content) == 0 {
		r.refuse(n, at, mistake{found: "an empty map", expected: "include or exclude", remedy: "name what to take, or remove the key to take everything"})
	}
	return f
}

// globs reads one glob or a list of them.
func (r *reader) globs(n *yaml.Node, at string, of globOf) []string {
	n = target(n)
	switch {
	case isNull(n) || n.Kind == yaml.SequenceNode && len(n.Content) == 0:
		r.refuse(n, at, mistake{found: "nothing", expected: "at least one pattern", remedy: "fill it in, or remove the key"})
		return nil
	case n.Kind == yaml.ScalarNode:
		return []string{r.glob(n, at, of)}
	}
	if n.Kind == yaml.MappingNode {
		if why := r.braces(n, keys{}, of); why != nil {
			r.refuse(n, at, *why)
			return nil
		}
	}
	globs := make([]string, 0, min(len(n.Content), maxEntries))
	for i, entry := range r.list(n, at, 1) {
		globs = append(globs, r.glob(entry, index(at, i), of))
	}
	return globs
}

func (r *reader) glob(n *yaml.Node, at string, of globOf) string {
	n = target(n)
	if n.Kind == yaml.ScalarNode && (n.Style&yaml.TaggedStyle != 0 || r.bang(n)) {
		m := *of.refuseExclusion(r.rest(n))
		m.unsayable = true // what a schema gets to see has no "!"
		r.refuse(n, at, m)
		return ""
	}
	if why := r.braces(n, keys{}, of); why != nil {
		r.refuse(n, at, *why)
		return ""
	}
	text, ok := r.plain(n, at)
	if !ok {
		return ""
	}
	if of.matched() && !r.affords(n, at, 1) {
		return ""
	}
	if why := of.refuse(text); why != nil {
		why.unsayable = why.unsayable || isNumber(n)
		r.refuse(n, at, *why)
		return text
	}
	if of.matched() {
		r.affords(n, at, alternatives(text)-1)
	}
	return text
}

// braces says of a list or a map without any of these keys that it is a pattern without quotes, if the text of it is a
// sound one.
func (r *reader) braces(n *yaml.Node, k keys, of globOf) *mistake {
	if n.Kind == yaml.ScalarNode || n.Style&yaml.FlowStyle == 0 || n.Style&yaml.TaggedStyle != 0 || len(n.Content) == 0 {
		return nil
	}
	reads := "a list"
	if n.Kind == yaml.MappingNode {
		reads = "a map"
		for i := 0; i < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Value != "" && hasWord(k.known, key.Value) || !isNull(value) || value.Value != "" {
				return nil
			}
		}
	}
	pattern := balanced(r.from(n))
	if pattern == "" || strings.Contains(pattern, " ") || utf8.RuneCountInString(pattern) > maxShown || of.refuse(pattern) != nil {
		return nil
	}
	return &mistake{
		found: pattern + " without quotes, which YAML reads as " + reads, expected: "a pattern",
		message: "found " + pattern + " without quotes, which YAML reads as " + reads + ": put " + strconv.Quote(pattern) + " in quotes",
	}
}

// affords counts n more patterns of triggers. Of more than there may be, the first one too many is reported, and none is
// looked at.
func (r *reader) affords(n *yaml.Node, at string, more int) bool {
	before := r.patterns
	r.patterns = min(before+more, maxPatterns+1)
	if before <= maxPatterns && r.patterns > maxPatterns {
		r.refuse(n, at, mistake{
			found: fmt.Sprintf("more than %d patterns in triggers", maxPatterns), expected: "fewer", unsayable: true,
			message: fmt.Sprintf("found more than %d patterns in all triggers together, with what braces stand for: write wider patterns", maxPatterns),
		})
	}
	return r.patterns <= maxPatterns
}

func (r *reader) step(f *File, n *yaml.Node, at string) Step {
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
		case "timeout":
			s.Timeout = r.minutes(value, join(at, key))
			f.ask(StepTimeouts, join(at, key), keyOf(target(n), key))
		case "continue_on_error":
			s.ContinueOnError = r.truth(value, join(at, key))
			f.ask(ContinueOnError, join(at, key), keyOf(target(n), key))
		}
	}
	return s
}

func (r *reader) cache(n *yaml.Node, at string) *Cache {
	c := &Cache{}
	for key, value := range r.object(n, at, cacheKeys()) {
		if key == "paths" {
			c.Paths = r.globs(value, join(at, key), globOfCache)
		} else {
			c.Key = r.cacheKey(value, join(at, key))
		}
	}
	return c
}

func (r *reader) cacheKey(n *yaml.Node, at string) string {
	text := r.name(n, at)
	if text != "" {
		if _, why := keyParts(text); why != nil {
			r.refuse(n, at, *why)
		}
	}
	return text
}

func (r *reader) concurrency(n *yaml.Node, at string) Concurrency {
	c := Concurrency{Set: true}
	for key, value := range r.object(n, at, concurrencyKeys()) {
		if key == "group" {
			c.Group = r.group(value, join(at, key))
		} else {
			c.CancelInProgress = r.truth(value, join(at, key))
		}
	}
	if n := target(n); n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		r.refuse(n, at, mistake{found: "an empty map", expected: "group or cancel_in_progress", remedy: "fill it in, or remove the key"})
	}
	return c
}

func (r *reader) group(n *yaml.Node, at string) string {
	text := r.name(n, at)
	if why := refuseGroup(text); text != "" && why != nil {
		r.refuse(n, at, *why)
	}
	return text
}

func (r *reader) name(n *yaml.Node, at string) string {
	text, ok := r.line(n, at)
	if length := utf8.RuneCountInString(text); ok && length > maxName {
		r.refuse(n, at, mistake{
			found: fmt.Sprintf("%d characters", length), expected: fmt.Sprintf("at most %d", maxName), remedy: "shorten it",
			unsayable: isNumber(n), // a schema sees how much it is, not how long
		})
	}
	return text
}

func (r *reader) script(n *yaml.Node, at string) string {
	nothing := mistake{found: "nothing", expected: "a script", remedy: `for example "` + example("run") + `"`}
	if isNull(n) && target(n).Value == "" {
		r.refuse(n, at, nothing)
		return ""
	}
	text, ok := r.plain(n, at)
	if ok && strings.TrimSpace(text) == "" {
		r.refuse(n, at, nothing)
	}
	return text
}

func (r *reader) folder(n *yaml.Node, at string) string {
	const expected = "a folder of the repository"
	text, ok := r.line(n, at)
	switch {
	case !ok:
		return ""
	case strings.Contains(text, `\`):
		r.refuse(n, at, mistake{found: shown(text), expected: expected, remedy: `write / between folders instead of \`})
	case strings.HasPrefix(text, "/"):
		r.refuse(n, at, mistake{found: shown(text), expected: expected, remedy: "write it from the root of the repository, without the first /"})
	case climbs(text):
		r.refuse(n, at, mistake{found: shown(text), expected: expected, remedy: "write it from the root of the repository, without .."})
	}
	if text = path.Clean(text); text == "." {
		return ""
	}
	return text
}

func (r *reader) minutes(n *yaml.Node, at string) time.Duration {
	if r.structured(n, at, fmt.Sprintf("whole minutes from 1 to %d", maxTimeoutMinutes), "for example 60") {
		return 0
	}
	text, ok := r.line(n, at)
	if !ok {
		return 0
	}
	scalar := target(n)
	minutes, err := strconv.ParseUint(text, 10, 16)
	m := mistake{found: shown(text), expected: fmt.Sprintf("whole minutes from 1 to %d", maxTimeoutMinutes), remedy: "for example 60"}
	switch {
	case scalar.Tag == "!!str" && err == nil:
		m.found, m.remedy = shown(text)+" in quotes", "remove the quotes"
	case err == nil && text[0] != '0' && minutes >= 1 && minutes <= maxTimeoutMinutes:
		return time.Duration(minutes) * time.Minute
	default:
		// 0x1e and 30.0 are numbers to a schema, and in range.
		var number float64
		m.unsayable = isNumber(n) && scalar.Decode(&number) == nil && number >= 1 && number <= maxTimeoutMinutes && number == float64(int(number))
	}
	r.refuse(n, at, m)
	return 0
}

func (r *reader) truth(n *yaml.Node, at string) bool {
	if r.structured(n, at, "true or false", "") {
		return false
	}
	text, ok := r.line(n, at)
	if !ok {
		return false
	}
	truth, err := strconv.ParseBool(text)
	if n = target(n); err == nil && n.Tag == "!!bool" {
		return truth
	}
	m := mistake{found: shown(text), expected: "true or false"}
	switch strings.ToLower(text) {
	case "true", "false":
		m.remedy = "remove the quotes"
	case "yes", "on", "y", "1":
		m.nearest = "true"
	case "no", "off", "n", "0":
		m.nearest = "false"
	}
	r.refuse(n, at, m)
	return false
}

// structured refuses a list or a map where one value of a kind has to be.
func (r *reader) structured(n *yaml.Node, at, expected, remedy string) bool {
	if target(n).Kind == yaml.ScalarNode {
		return false
	}
	r.refuse(n, at, mistake{found: describe(n), expected: expected, remedy: remedy})
	return true
}

// isNumber reports whether YAML reads a scalar as a number.
func isNumber(n *yaml.Node) bool {
	n = target(n)
	return n.Tag == "!!int" || n.Tag == "!!float"
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
			r.refuse(key, at, refuseMerge())
		case !isVariableName(name):
			r.refuse(key, at, mistake{found: shown(name) + " as a variable's name", expected: "letters, digits and _, not starting with a digit"})
		case name == "RUNNERHUB" || strings.HasPrefix(name, "RUNNERHUB_"):
			r.refuse(key, join(at, name), mistake{
				found: "the name " + shown(name), expected: "a name that does not start with RUNNERHUB_",
				message: "names that start with RUNNERHUB_ are set by RunnerHub itself, so that steps can rely on them: choose another name",
			})
		case target(value).Kind != yaml.ScalarNode:
			r.refuse(value, join(at, name), mistake{found: describe(value), expected: "text", remedy: "put the value in quotes, or write it on one line"})
		default:
			// Not plain, which would build the path of every sound variable.
			if why := r.refuseScalar(target(value)); why != nil {
				r.refuse(value, join(at, name), *why)
			}
			variables = append(variables, Variable{Name: name, Value: target(value).Value})
		}
	}
	return variables
}

func isVariableName(name string) bool {
	for i, c := range []byte(name) {
		if !isLetter(c) && c != '_' && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	return name != ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// line reads text that must fill one line and no more.
func (r *reader) line(n *yaml.Node, at string) (string, bool) {
	text, ok := r.plain(n, at)
	switch {
	case !ok:
		return "", false
	case strings.TrimSpace(text) == "":
		r.refuse(n, at, mistake{found: "nothing", expected: "text", remedy: "fill it in, or remove the key"})
		return "", false
	case strings.ContainsFunc(text, unicode.IsControl):
		r.refuse(n, at, mistake{found: "a line break or a control character", expected: "one line of text"})
		return "", false
	}
	return text, true
}

// plain reads text exactly as written, whatever YAML would make of it; but not
// what is nothing to YAML.
func (r *reader) plain(n *yaml.Node, at string) (string, bool) {
	n = target(n)
	if n.Kind != yaml.ScalarNode {
		r.refuse(n, at, mistake{found: describe(n), expected: "text"})
		return "", false
	}
	if why := r.refuseScalar(n); why != nil {
		r.refuse(n, at, *why)
		return "", false
	}
	if isNull(n) {
		m := mistake{found: "nothing", expected: "text", remedy: "fill it in, or remove the key"}
		if n.Value != "" {
			m.found, m.remedy = n.Value+", which YAML reads as nothing", "put it in quotes"
		}
		r.refuse(n, at, m)
		return "", false
	}
	return n.Value, true
}

// refuseScalar says what makes a scalar unusable as text, if anything does.
//
// The text is looked at as well as the node: yaml.v3 drops a lone "!" without a
// trace, which would turn the script "! grep x" into its opposite.
func (r *reader) refuseScalar(n *yaml.Node) *mistake {
	switch {
	case n.Style&yaml.TaggedStyle != 0 || r.bang(n):
		return &mistake{
			found: "! at the start", expected: "text", unsayable: true,
			message: "found ! at the start, which YAML reads as a tag: put the value in quotes",
		}
	case strings.IndexByte(n.Value, 0) >= 0:
		return &mistake{found: `a NUL character ("\0")`, expected: "text", message: `found a NUL character ("\0"), which no environment or script can hold: remove it`}
	}
	return nil
}

// object walks a map whose keys the format knows, and reports the others and
// those that are missing.
func (r *reader) object(n *yaml.Node, at string, k keys) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		var meant []string
		for key, value := range r.entries(n, at) {
			if !hasWord(k.known, key.Value) {
				m := k.refusal(key.Value)
				r.refuse(key, join(at, cut(key.Value, maxShown)), m)
				// What is wrong in its value is told, too, as if the key were right.
				judged := m.nearest != "" && m.sameValue && keyOf(target(n), m.nearest) == nil && !slices.Contains(meant, m.nearest)
				meant = append(meant, m.nearest)
				if judged && !yield(m.nearest, value) {
					return
				}
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
			if keyOf(n, key) == nil && !slices.Contains(meant, key) {
				r.refuse(n, join(at, key), mistake{
					found: "no key " + strconv.Quote(key), expected: strconv.Quote(example(key)), nearest: key,
					message: fmt.Sprintf(`the key %q is missing: add it, for example "%s"`, key, example(key)),
				})
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
			r.refuse(n, at, mistake{found: describe(n), expected: `a map: lines of "key: value"`})
			return
		case len(n.Content)/2 > maxEntries:
			r.refuse(n, at, mistake{found: fmt.Sprintf("%d entries", len(n.Content)/2), expected: fmt.Sprintf("at most %d", maxEntries)})
			return
		}
		r.untagged(n, at)
		for i := 0; i < len(n.Content); i += 2 {
			key := target(n.Content[i])
			if key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 {
				r.refuse(key, at, mistake{found: describe(key) + " as a key", expected: "plain text", unsayable: true})
				continue
			}
			if first := keyOf(n, key.Value); first != key {
				r.refuse(key, join(at, cut(key.Value, maxShown)), mistake{
					found: "the key " + shown(key.Value) + " again", expected: "each key once", unsayable: true,
					message: fmt.Sprintf("the key %s is already given in line %d: keep one of them", shown(key.Value), first.Line),
				})
				continue
			}
			if !yield(key, n.Content[i+1]) {
				return
			}
		}
	}
}

// keyOf is the first key of a map with this text; nil when there is none.
func keyOf(n *yaml.Node, text string) *yaml.Node {
	for i := 0; i < len(n.Content); i += 2 {
		if k := target(n.Content[i]); k.Kind == yaml.ScalarNode && k.Style&yaml.TaggedStyle == 0 && k.Value == text {
			return k
		}
	}
	return nil
}

// list walks a list of at least least entries.
func (r *reader) list(n *yaml.Node, at string, least int) iter.Seq2[int, *yaml.Node] {
	return func(yield func(int, *yaml.Node) bool) {
		n := target(n)
		switch {
		case n.Kind != yaml.SequenceNode:
			r.refuse(n, at, mistake{found: describe(n), expected: `a list: start each entry with "- "`})
			return
		case len(n.Content) < least:
			r.refuse(n, at, mistake{found: "an empty list", expected: "at least one entry"})
			return
		case len(n.Content) > maxEntries:
			r.refuse(n, at, mistake{found: fmt.Sprintf("%d entries", len(n.Content)), expected: fmt.Sprintf("at most %d", maxEntries)})
			return
		}
		r.untagged(n, at)
		for i, entry := range n.Content {
			if !yield(i, entry) {
				return
			}
		}
	}
}

// untagged refuses the tag of a list or a map. The text is looked at as for a scalar.
func (r *reader) untagged(n *yaml.Node, at string) {
	if n.Style&yaml.TaggedStyle == 0 {
		if !r.bang(n) {
			return
		}
		if first := n.Content; len(first) > 0 && first[0].Line == n.Line && first[0].Column == n.Column {
			return // the tag is that of the first key
		}
	}
	r.refuse(n, at, mistake{
		found: "! before " + describe(n), expected: describe(n), unsayable: true,
		message: "found ! before " + describe(n) + ", which YAML reads as a tag: remove it",
	})
}

// place is a position as yaml.v3 counts it.
type place struct{ line, column int }

// bang reports whether the text has a "!" where a node begins.
func (r *reader) bang(n *yaml.Node) bool {
	if !r.looked {
		r.bangs, r.looked = bangs(r.text), true
	}
	if len(r.bangs) == 0 {
		return false
	}
	_, found := slices.BinarySearchFunc(r.bangs, place{n.Line, n.Column}, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	return found
}

// bangs lists the place of each "!" in text, in order. Lines are yaml.v3's, which
// also end at CR, NEL, LS and PS.
func bangs(text []byte) []place {
	if bytes.IndexByte(text, '!') < 0 {
		return nil
	}
	var found []place
	at, last := place{1, 0}, rune(0)
	for _, c := range string(text) {
		at.column++
		switch {
		case c == '\n' && last == '\r':
			at.column = 0
		case c == '\n' || c == '\r' || c == '\u0085' || c == '\u2028' || c == '\u2029':
			at.line, at.column = at.line+1, 0
		case c == '!':
			found = append(found, at)
		}
		last = c
	}
	return found
}

// from is the text from where a node begins.
func (r *reader) from(n *yaml.Node) []byte {
	rest := r.text
	for range n.Line - 1 {
		_, rest, _ = bytes.Cut(rest, []byte{'\n'})
	}
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(rest)
		rest = rest[size:]
	}
	return rest
}

// rest is the text of the value that begins with a node at a "!", as far as that can be told.
func (r *reader) rest(n *yaml.Node) string {
	if !r.scanned {
		r.spans, r.scanned = unquoted(r.text), true
	}
	rest := r.from(n)
	if value := unquotedAt(r.text, r.spans, len(r.text)-len(rest)); value != "" {
		rest = []byte(value)
	} else if i := bytes.IndexAny(rest, ",]}"); i >= 0 {
		rest = rest[:i]
	}
	sign := len(rest) - len(bytes.TrimLeft(rest, "! "))
	if i := bytes.IndexAny(rest[sign:], " \t\r\n"); i >= 0 {
		rest = rest[:sign+i]
	}
	return string(rest)
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
