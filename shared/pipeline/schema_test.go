package pipeline

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("pipeline.schema.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("pipeline.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaFile(t *testing.T) {
	t.Parallel()
	published, err := os.ReadFile("../../docs/pipeline.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, Schema()) {
		t.Error("docs/pipeline.schema.json is not what Schema says: make it anew with bin/runnerhub check -schema > docs/pipeline.schema.json")
	}
}

// TestSchemaKeys makes sure that the schema knows the keys that the parser knows, and
// says something about each.
func TestSchemaKeys(t *testing.T) {
	t.Parallel()
	file := fileSchema()
	for _, tt := range []struct {
		keys keys
		of   *schema
		less string // keys that this map has not
	}{
		{fileKeys(), file, ""},
		{environmentKeys(), file.Properties["environment"], ""},
		{triggerKeys(), file.Defs["pushTrigger"], "source_branches"},
		{triggerKeys(), file.Defs["pullRequestRule"], "tags"},
		{filterKeys(), file.Defs["names"].AnyOf[1], ""},
		{filterKeys(), file.Defs["paths"].AnyOf[1], ""},
		{stepKeys(), file.Defs["step"], ""},
		{cacheKeys(), file.Properties["cache"], ""},
		{concurrencyKeys(), file.Properties["concurrency"], ""},
	} {
		var want []string
		for _, key := range strings.Fields(tt.keys.known) {
			if key != tt.less {
				want = append(want, key)
			}
		}
		var got []string
		for key, s := range tt.of.Properties {
			got = append(got, key)
			if s.Description == "" {
				t.Errorf("nothing is said about %s", key)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("the schema has %q, the parser %q", got, want)
		}
	}
}

func TestSchemaClasses(t *testing.T) {
	t.Parallel()
	in := func(class string, c rune) bool {
		runes := []rune(class)
		for i, r := range runes {
			if r == c || i > 0 && i+1 < len(runes) && r == '-' && runes[i-1] <= c && c <= runes[i+1] {
				return true
			}
		}
		return false
	}
	for c := rune(0); c <= unicode.MaxRune; c++ {
		if c == '-' {
			continue // stands for the range itself
		}
		if in(controls, c) != unicode.IsControl(c) {
			t.Errorf("%U in controls: %v", c, in(controls, c))
		}
		if in(spaces, c) != unicode.IsSpace(c) {
			t.Errorf("%U in spaces: %v", c, in(spaces, c))
		}
	}
}

// instance is what an editor's YAML library makes of text for a schema. ok is false
// for what such a library refuses, and for what is too large to be worth it.
func instance(text []byte) (value any, ok bool) {
	root, err := nodes(bytes.TrimPrefix(text, []byte("\ufeff")))
	if err != nil || root == nil {
		return nil, false
	}
	left := 20_000
	value = valueOf(root, &left)
	return value, left > 0
}

func valueOf(n *yaml.Node, left *int) any {
	if *left--; *left <= 0 {
		return nil
	}
	n = target(n)
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			key := target(n.Content[i])
			if key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 {
				continue
			}
			if _, twice := out[key.Value]; !twice {
				out[key.Value] = valueOf(n.Content[i+1], left)
			}
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, entry := range n.Content {
			out = append(out, valueOf(entry, left))
		}
		return out
	}
	var value any
	if n.Style&yaml.TaggedStyle != 0 || n.Decode(&value) != nil {
		return n.Value
	}
	switch v := value.(type) {
	case nil, bool, int, int64, uint64:
		return v
	case float64:
		if !math.IsInf(v, 0) && !math.IsNaN(v) {
			return v
		}
	}
	return n.Value
}

// compare holds parser and schema to the same answer about text, but for what no
// schema can say. The answer says what they agreed on.
func compare(t testing.TB, s *jsonschema.Schema, text []byte) (accepted, refused bool) {
	t.Helper()
	value, ok := instance(text)
	if !ok {
		return false, false
	}
	_, problems := Parse(text)
	err := s.Validate(value)
	sayable := slices.IndexFunc(problems, func(p Problem) bool { return !p.unsayable })
	switch {
	case len(problems) == 0 && err != nil:
		t.Fatalf("the schema refuses what the parser takes: %v\n%s", err, text)
	case sayable >= 0 && err == nil:
		t.Fatalf("the schema takes what the parser refuses: %v\n%s", problems[sayable], text)
	}
	return len(problems) == 0, err != nil
}

// TestSchemaAgrees holds parser and schema to the same answers about made-up files.
func TestSchemaAgrees(t *testing.T) {
	t.Parallel()
	s := compiled(t)
	full, err := os.ReadFile("testdata/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	if accepted, _ := compare(t, s, full); !accepted {
		t.Error("full.yml is refused")
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	taken, refused := 0, 0
	for range 3_000 {
		a, r := compare(t, s, []byte(someFile(rnd)))
		if a {
			taken++
		}
		if r {
			refused++
		}
	}
	if taken < 500 || refused < 500 {
		t.Errorf("%d were taken and %d refused: the test compares little", taken, refused)
	}
}

// TestSchemaLimits goes up to each limit and one past it.
func TestSchemaLimits(t *testing.T) {
	t.Parallel()
	s := compiled(t)
	entries := func(n int, entry string) string { return strings.TrimSuffix(strings.Repeat(entry+", ", n), ", ") }
	steps := func(step string) string { return "name: a\ntriggers: [push]\nsteps: [" + step + "]\n" }
	triggers := func(list string) string { return "name: a\nsteps: [{run: x}]\ntriggers: [" + list + "]\n" }
	for _, tt := range []struct {
		name  string
		limit int
		file  func(n int) string
	}{
		{"name", maxName, func(n int) string {
			return "name: " + strings.Repeat("é", n) + "\ntriggers: [push]\nsteps: [{run: x}]\n"
		}},
		{"name of a step", maxName, func(n int) string { return steps("{run: x, name: " + strings.Repeat("é", n) + "}") }},
		{"group", maxName, func(n int) string { return minimal + "concurrency: {group: " + strings.Repeat("é", n) + "}\n" }},
		{"key of a cache", maxName, func(n int) string { return minimal + "cache: {paths: a, key: " + strings.Repeat("é", n) + "}\n" }},
		{"branch", maxGlob, func(n int) string { return triggers("{event: push, branches: " + strings.Repeat("é", n) + "}") }},
		{"path", maxGlob, func(n int) string { return triggers("{event: push, paths: " + strings.Repeat("é", n) + "}") }},
		{"cached file", maxGlob, func(n int) string { return minimal + "cache: {paths: " + strings.Repeat("é", n) + "}\n" }},
		{"version", maxWord, func(n int) string { return minimal + "environment: {node: v" + strings.Repeat("1", n-1) + "}\n" }},
		{"image", maxImage, func(n int) string { return minimal + "image: " + strings.Repeat("a", n) + "\n" }},
		{"timeout", maxTimeoutMinutes, func(n int) string { return minimal + "timeout: " + strconv.Itoa(n) + "\n" }},
		{"timeout of a step", maxTimeoutMinutes, func(n int) string { return steps("{run: x, timeout: " + strconv.Itoa(n) + "}") }},
		{"steps", maxEntries, func(n int) string { return steps(entries(n, "{run: x}")) }},
		{"triggers", maxEntries, func(n int) string { return triggers(entries(n, "push")) }},
		{"branches", maxEntries, func(n int) string { return triggers("{event: push, branches: [" + entries(n, "a") + "]}") }},
		{"excluded tags", maxEntries, func(n int) string { return triggers("{event: push, tags: {exclude: [" + entries(n, "a") + "]}}") }},
		{"artifacts", maxEntries, func(n int) string { return minimal + "artifacts: [" + entries(n, "a") + "]\n" }},
		{"variables", maxEntries, func(n int) string { return minimal + "environment: {variables: {" + variables(n) + "}}\n" }},
		{"env", maxEntries, func(n int) string { return steps("{run: x, env: {" + variables(n) + "}}") }},
	} {
		if accepted, _ := compare(t, s, []byte(tt.file(tt.limit))); !accepted {
			t.Errorf("%s: %d is refused", tt.name, tt.limit)
		}
		if _, refused := compare(t, s, []byte(tt.file(tt.limit+1))); !refused {
			t.Errorf("%s: %d is taken", tt.name, tt.limit+1)
		}
	}
}

// TestUnsayable is the list of what a schema cannot say: each file is refused by the
// parser alone.
func TestUnsayable(t *testing.T) {
	t.Parallel()
	s := compiled(t)
	trigger := func(branches string) string {
		return "name: a\nsteps: [{run: x}]\ntriggers: [{event: push, branches: " + branches + "}]\n"
	}
	for what, text := range map[string]string{
		"a key that stands twice":      minimal + "name: b\n",
		"a key that is a list":         minimal + "[a]: b\n",
		"a key with a tag":             minimal + "!!str timeout: 5\n",
		"a tag":                        minimal + "environment: {node: !!str 22}\n",
		"a lone !":                     "name: a\ntriggers: [push]\nsteps:\n- run: ! x\n",
		"an exclusion that is a tag":   "name: a\nsteps: [{run: x}]\ntriggers:\n- event: push\n  branches: !main x\n",
		"a number in another base":     minimal + "timeout: 0x10\n",
		"a number with a point":        minimal + "timeout: 30.0\n",
		"a number that starts with +":  minimal + "environment: {node: +22}\n",
		"a number too long for a name": "name: " + strings.Repeat("1", maxName+1) + "\ntriggers: [push]\nsteps: [{run: x}]\n",
		"** beside other characters":   trigger("feature**"),
		"brackets that are not closed": trigger("'[a'"),
		"braces in braces":             trigger("'{a,{b,c}}'"),
		"braces that multiply":         trigger("'" + strings.Repeat("{a,b}", 7) + "'"),
		".. in braces":                 minimal + "artifacts: '{..,a}/b'\n",
		"a checksum outside":           minimal + "cache: {paths: a, key: '{{ checksum \"../x\" }}'}\n",
		"more than a hundred mistakes": minimal + "environment: {variables: {" + strings.Repeat("A: !x y, ", 150) + "}}\n",
	} {
		value, ok := instance([]byte(text))
		if !ok {
			t.Errorf("%s: not YAML", what)
			continue
		}
		if err := s.Validate(value); err != nil {
			t.Errorf("%s: the schema refuses it, so it can be said: %v", what, err)
		}
		if _, problems := Parse([]byte(text)); len(problems) == 0 || slices.ContainsFunc(problems, func(p Problem) bool { return !p.unsayable }) {
			t.Errorf("%s: the parser says %v", what, problems)
		}
	}
}

// someFile is a file of parts that are mostly sound.
func someFile(rnd *rand.Rand) string {
	m := maker{rnd}
	more := ""
	if m.fault() {
		more = ", " + m.pick([]string{"nam: 1", "tags: 1", "<<: 1", "'': 1", "1: 1", "~: 1"}) + "}"
	}
	return strings.TrimSuffix(m.object(fileKeys()), "}") + cmp.Or(more, "}") + "\n"
}

// maker makes parts of files.
type maker struct{ rnd *rand.Rand }

// fault reports whether something has to be wrong now.
func (m maker) fault() bool { return m.rnd.IntN(40) == 0 }

func (m maker) pick(sound []string, wrong ...string) string {
	switch {
	case m.rnd.IntN(80) == 0:
		return m.pick(strings.Fields("a '' ~ null ' ' 1 -1.5 .inf .nan true no [] {} [a] 2026-01-02 0o17 é " + strings.Repeat("x", 101) +
			` "\n" "a\rb" '` + "\u00a0" + `' "\x85" '{a:&b}'`))
	case len(wrong) > 0 && m.fault():
		return wrong[m.rnd.IntN(len(wrong))]
	}
	return sound[m.rnd.IntN(len(sound))]
}

func (m maker) list(least int, entry func() string) string {
	var entries []string
	for range least + m.rnd.IntN(3) {
		entries = append(entries, entry())
	}
	return "[" + strings.Join(entries, ", ") + "]"
}

func (m maker) object(k keys) string {
	var entries []string
	for _, key := range strings.Fields(k.known) {
		if hasWord(k.required, key) && !m.fault() || m.rnd.IntN(4) == 0 {
			entries = append(entries, key+": "+m.part(key))
		}
	}
	if m.fault() {
		entries = append(entries, "other: x")
	}
	return "{" + strings.Join(entries, ", ") + "}"
}

func (m maker) part(key string) string {
	switch key {
	case "group":
		return m.pick([]string{"a", "'{{ branch }}-x'", "'a{b}}{{branch}}{'", "'cost $5'", "1", "true"}, "' '", "'{{ Branch }}'", `'{{ checksum "a" }}'`, "'{{{ branch }}'", "a$B", "'${B}'", "'a${'", "'$ {{'")
	case "name":
		return m.pick([]string{"a", "'two words'", "1", "'é'", "true"}, "''", "' '")
	case "platform":
		return m.pick(Platforms(), "windows")
	case "runner":
		return m.pick(Runners(), "ssh")
	case "compute":
		return m.pick(Computes(), "tiny")
	case "environment":
		return m.object(environmentKeys())
	case "variables", "env":
		return m.pick([]string{"", "{A: b}", "{A: 1, B_2: ~, C: true}", "{RUNNERHUBS: x}"}, "{A: [b]}", "{1A: b}", "{RUNNERHUB_X: 1}", `{A: "\0"}`, "{<<: {A: b}}")
	case "xcode", "android_sdk", "flutter", "node", "ruby":
		return m.pick([]string{"22", "1.10", "'3.4'", "lts-x"}, "'^1'", "'1 2'", "-1")
	case "triggers":
		return m.list(0, m.trigger)
	case "branches", "tags", "source_branches", "include", "exclude", "paths":
		pattern := func() string {
			return m.pick([]string{"main", `"release/*"`, `"**"`, "1.10", "true", "'[ab]'", "src/**", "'é'", "'{a,b}/c'"},
				"'~/x'", "'~/'", "'!x'", "a/", "/a", "a//b", "refs/heads/x", "'a b'", "''", "~", "'a,b'", "'a/../b'", "'./a'",
				"'\u3000a'", "'~/ a'", "'~/~/a'", "'.'", `"a\eb"`)
		}
		switch n := m.rnd.IntN(5); {
		case n < 2:
			return pattern()
		case n == 2 && key != "include" && key != "exclude":
			return m.object(filterKeys())
		}
		return m.list(1, pattern)
	case "artifacts":
		return m.pick([]string{"dist/**", "[a, b]", "'a b'", "'a..b'"}, "dist/", "/dist", "../x", "[]", "~/x", "./x", "x/./y", `'a\b'`)
	case "steps":
		return m.list(1, func() string { return m.object(stepKeys()) })
	case "run":
		return m.pick([]string{"make", `"a\nb"`, "1"}, "' '", `"\u2028"`, `"a\0"`)
	case "working_directory":
		return m.pick([]string{"a/b", ".", "a..b", "1"}, "a/../b", "/a", "..", `'a\b'`)
	case "timeout":
		return m.pick([]string{"1", "1440", "60"}, "0", "1441", "-1", "'5'", "5.5", "1e2", "030", "true", "~")
	case "continue_on_error", "cancel_in_progress":
		return m.pick([]string{"true", "false", "True", "FALSE"}, "yes", "no", "on", "'true'", "0", "~")
	case "image":
		return m.pick([]string{"node:22", "a/b@sha256:0", "1.5"}, "'a b'", "-x", "-1")
	case "cache":
		return m.object(cacheKeys())
	case "key":
		return m.pick([]string{"a", `'{{ checksum "a" }}-x'`, `'{{checksum "a" "b/c"}}'`, "'{{ branch }}{'", "1", `'a{b{{branch}}'`, "'{a}}'"},
			"'{{ Branch }}'", "'{{'", `'{{{ branch }}'`, `'{{ checksum }}'`, `"a\tb"`, `'{{ checksum "`+"\u0085"+`" }}'`)
	case "concurrency":
		return m.object(concurrencyKeys())
	}
	return "x"
}

// trigger is one whose keys mostly go with its event.
func (m maker) trigger() string {
	event := m.pick([]string{"push", "pull_request"}, "tag", "manual", "pr")
	if m.rnd.IntN(3) == 0 {
		return event
	}
	b := "{event: " + event
	for _, key := range []string{"branches", "tags", "source_branches", "paths"} {
		foreign := event == "push" && key == "source_branches" || event == "pull_request" && key == "tags"
		if m.rnd.IntN(3) == 0 && foreign == m.fault() {
			b += ", " + key + ": " + m.part(key)
		}
	}
	return b + "}"
}

func TestSchemaIsJSON(t *testing.T) {
	t.Parallel()
	if !json.Valid(Schema()) || bytes.ContainsFunc(Schema(), func(r rune) bool { return r >= 0x7f || r < ' ' && r != '\n' }) {
		t.Error("the schema is not plain JSON")
	}
}
