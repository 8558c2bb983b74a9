package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Schema is the JSON Schema (draft 2020-12) of the pipeline file, for editors. It is
// made from the words and limits that Parse uses, and a test holds both to the same
// answers. It is about what YAML makes of the text, so it cannot find what is lost on that
// way: a key given twice, a tag, a second document, how a number is spelled. Nor can it say what
// makes a pattern sound beyond its characters, or how long all is together.
func Schema() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(fileSchema()); err != nil {
		panic(err) // it holds nothing that JSON cannot
	}
	var ascii bytes.Buffer
	for _, r := range b.String() {
		if r < 0x7f {
			ascii.WriteByte(byte(r))
		} else {
			fmt.Fprintf(&ascii, `\u%04x`, r)
		}
	}
	return ascii.Bytes()
}

// schema is a JSON Schema, as far as it is used here.
type schema struct {
	Schema      string `json:"$schema,omitempty"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Ref         string `json:"$ref,omitempty"`
	Type        any    `json:"type,omitempty"` // a word or several
	Enum        []any  `json:"enum,omitempty"`
	Const       string `json:"const,omitempty"`
	Default     any    `json:"default,omitempty"`
	Examples    []any  `json:"examples,omitempty"`

	Pattern   string `json:"pattern,omitempty"`
	MinLength int    `json:"minLength,omitempty"`
	MaxLength int    `json:"maxLength,omitempty"`
	Minimum   int    `json:"minimum,omitempty"`
	Maximum   int    `json:"maximum,omitempty"`

	Items    *schema `json:"items,omitempty"`
	MinItems int     `json:"minItems,omitempty"`
	MaxItems int     `json:"maxItems,omitempty"`

	Required      []string           `json:"required,omitempty"`
	Properties    map[string]*schema `json:"properties,omitempty"`
	PropertyNames *schema            `json:"propertyNames,omitempty"`
	Additional    any                `json:"additionalProperties,omitempty"` // false, or the schema of all values
	MinProperties int                `json:"minProperties,omitempty"`
	MaxProperties int                `json:"maxProperties,omitempty"`

	AnyOf []*schema          `json:"anyOf,omitempty"`
	Not   *schema            `json:"not,omitempty"`
	Defs  map[string]*schema `json:"$defs,omitempty"`
}

// text is what YAML may make of a value that is read as text.
func text() []string { return []string{"string", "number", "boolean"} }

func anyText() any { return text() }

func textOrNothing() any { return append(text(), "null") }

func ref(name string) *schema { return &schema{Ref: "#/$defs/" + name} }

// about is s with a description of its own.
func (s *schema) about(description string) *schema {
	s.Description = description
	return s
}

// of is the schema of a map with these keys, whose properties are s.
func (k keys) of(s map[string]*schema) *schema {
	return &schema{Type: "object", Required: strings.Fields(k.required), Properties: s, Additional: false}
}

func words(list []string) []any {
	out := make([]any, len(list))
	for i, word := range list {
		out[i] = word
	}
	return out
}

func fileSchema() *schema {
	s := fileKeys().of(map[string]*schema{
		"name": ref("name").about("Shown in the dashboard, and on commits and pull requests."),
		"platform": {
			Description: "What kind of machine the build needs.",
			Enum:        words(Platforms()), Default: DefaultPlatform,
		},
		"environment": environmentSchema(),
		"triggers": {
			Description: "Which events start a build. Any entry that matches is enough; an empty list leaves scheduled builds alone.",
			Type:        "array", Items: ref("trigger"), MaxItems: maxEntries,
			Examples: []any{[]any{"push", "pull_request"}},
		},
		"steps": {
			Description: "Scripts that run one after the other. The first that fails ends the build.",
			Type:        "array", Items: ref("step"), MinItems: 1, MaxItems: maxEntries,
			Examples: []any{[]any{map[string]any{"run": "make test"}}},
		},
		"artifacts":   ref("files").about("Files to keep after the build: patterns, written from the root of the repository."),
		"timeout":     minutesSchema("Minutes for the whole build.", int(DefaultTimeout.Minutes())),
		"image":       {Description: "The container image that the steps run in.", Type: anyText(), Pattern: "^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$", MaxLength: maxImage, Examples: []any{"node:22"}},
		"runner":      {Description: "What runs the build, where there is a choice.", Enum: words(Runners())},
		"compute":     {Description: "The size of the machine, where there is a choice.", Enum: words(Computes())},
		"cache":       cacheSchema(),
		"concurrency": concurrencySchema(),
	})
	s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", "RunnerHub pipeline file"
	s.Defs = map[string]*schema{
		"name":            {Type: anyText(), Pattern: linePattern(), MaxLength: maxName},
		"variables":       variablesSchema(),
		"trigger":         triggerSchema(),
		"step":            stepSchema(),
		"pattern":         globOfBranches.schema("A pattern for a name. * and ? stop at /, ** between two / is any number of parts."),
		"patterns":        listSchema("pattern"),
		"names":           filterSchema("patterns"),
		"file":            globOfFiles.schema("A pattern for files, from the root of the repository. * and ? stop at /, ** between two / is any number of folders."),
		"files":           listSchema("file"),
		"paths":           filterSchema("files"),
		"cached":          globOfCache.schema("A pattern for files of the repository, or below the home folder after ~/."),
		"cachedFiles":     listSchema("cached"),
		"pushTrigger":     pushSchema(),
		"pullRequestRule": pullRequestSchema(),
	}
	return s
}

func environmentSchema() *schema {
	version := func(of string) *schema {
		return &schema{
			Description: "The version of " + of + ", as it is written: 1.10 is not 1.1.", Type: anyText(),
			Pattern: "^[A-Za-z0-9][A-Za-z0-9._+-]*$", MaxLength: maxWord,
		}
	}
	s := environmentKeys().of(map[string]*schema{
		"variables":   ref("variables").about("Environment variables of every step."),
		"xcode":       version("Xcode"),
		"android_sdk": version("the Android SDK"),
		"flutter":     version("Flutter"),
		"node":        version("Node.js"),
		"ruby":        version("Ruby"),
	})
	s.Type = []string{"object", "null"}
	return s.about("Versions of tools, and variables.")
}

func variablesSchema() *schema {
	return &schema{
		Type: []string{"object", "null"}, MaxProperties: maxEntries,
		PropertyNames: &schema{Pattern: "^[A-Za-z_][A-Za-z0-9_]*$", Not: &schema{Pattern: "^RUNNERHUB(_|$)"}},
		Additional:    &schema{Type: textOrNothing(), Pattern: "^[^\x00]*$"},
	}
}

func triggerSchema() *schema {
	return &schema{AnyOf: []*schema{{Enum: []any{Push, PullRequest}}, ref("pushTrigger"), ref("pullRequestRule")}}
}

func pushSchema() *schema {
	return triggerKeys().of(map[string]*schema{
		"event":    {Description: "What has to happen.", Const: string(Push)},
		"branches": ref("names").about("The pushed branch. Every branch when this key is missing; none when only tags is there."),
		"tags":     ref("names").about("The pushed tag. No tag when this key is missing."),
		"paths":    ref("paths").about("The changed files, one of which has to match. It does not concern tags."),
	})
}

func pullRequestSchema() *schema {
	return triggerKeys().of(map[string]*schema{
		"event":           {Description: "What has to happen.", Const: string(PullRequest)},
		"branches":        ref("names").about("The branch that the pull request is to be merged into."),
		"source_branches": ref("names").about("The branch that the pull request comes from."),
		"paths":           ref("paths").about("The changed files, one of which has to match."),
	})
}

func stepSchema() *schema {
	return stepKeys().of(map[string]*schema{
		"name": ref("name").about("Shown in the log; otherwise the first line of the script is."),
		"run":  {Description: "The script.", Type: anyText(), Pattern: "^[^\x00]*[^\x00" + spaces + "][^\x00]*$", Examples: []any{"make test"}},
		"working_directory": {
			Description: "A folder of the repository, written from its root.", Type: anyText(), Pattern: linePattern(),
			Not: &schema{Type: "string", Pattern: `\\|^/|(^|/)\.\.(/|$)`},
		},
		"env":               ref("variables").about("Environment variables of this step."),
		"timeout":           minutesSchema("Minutes for this step.", nil),
		"continue_on_error": {Description: "Whether the build goes on, and can succeed, when this step fails.", Type: "boolean", Default: false},
	})
}

func cacheSchema() *schema {
	return cacheKeys().of(map[string]*schema{
		"paths": ref("cachedFiles").about("What to keep for later builds."),
		"key": {
			Description: `Which of several caches to take: text with {{ checksum "file" }} and {{ branch }}.`, Type: anyText(), MaxLength: maxName,
			Pattern:  `^(` + control(`^{`) + `|\{` + control(`^{`) + `|\{\{ *(branch|checksum( +"[^"{}` + controls + `]+")+) *\}\})*\{?$`,
			Not:      &schema{Type: "string", Pattern: "^[" + spaces + "]*$"},
			Examples: []any{`npm-{{ checksum "package-lock.json" }}`},
		},
	}).about("Files that builds leave for later builds of the app.")
}

func concurrencySchema() *schema {
	s := concurrencyKeys().of(map[string]*schema{
		"group": {
			Description: "The builds of the app that belong together: text with {{ branch }}; otherwise those of the same branch, tag or pull request.",
			Type:        anyText(), MaxLength: maxName,
			Pattern:  `^(` + control(`^{`) + `|\{` + control(`^{`) + `|\{\{ *branch *\}\})*\{?$`,
			Not:      &schema{Type: "string", Pattern: "^[" + spaces + "]*$|" + `\$[A-Za-z_{]`},
			Examples: []any{"deploy", "preview-{{ branch }}"},
		},
		"cancel_in_progress": {Description: "Whether a new build stops the older one of its group.", Type: "boolean", Default: false},
	})
	s.MinProperties = 1
	return s.about("What builds of the same group do to each other.")
}

func minutesSchema(description string, otherwise any) *schema {
	return &schema{Description: description, Type: "integer", Minimum: 1, Maximum: maxTimeoutMinutes, Default: otherwise}
}

// listSchema is one of a kind or a list of them.
func listSchema(of string) *schema {
	return &schema{AnyOf: []*schema{ref(of), {Type: "array", Items: ref(of), MinItems: 1, MaxItems: maxEntries}}}
}

// filterSchema is a list, or a map of what to take and what to leave out.
func filterSchema(of string) *schema {
	s := filterKeys().of(map[string]*schema{
		"include": ref(of).about("What to take; everything when this key is missing."),
		"exclude": ref(of).about("What to leave out, whatever include says."),
	})
	s.MinProperties = 1
	return &schema{AnyOf: []*schema{ref(of), s}}
}

// schema is that of one glob, as far as its characters go.
func (of globOf) schema(description string) *schema {
	bad := []string{"^!", `\\`, "[" + controls + "]", "^/", "/$", "//"}
	switch of {
	case globOfCache:
		bad = append(bad, "^(~/)?["+spaces+"]", "["+spaces+"]$", `(^|/)\.\.?(/|$)`, "^~/~/")
	case globOfFiles:
		bad = append(bad, "^["+spaces+"]", "["+spaces+"]$", `(^|/)\.\.?(/|$)`, "^~/")
	default:
		bad = append(bad, "^refs/", "["+spaces+"]")
	}
	return &schema{
		Description: description, Type: anyText(), MinLength: 1, MaxLength: maxGlob,
		Not: &schema{Type: "string", Pattern: strings.Join(bad, "|")},
	}
}

// linePattern is that of text that fills one line.
func linePattern() string {
	return fmt.Sprintf("^[^%[1]s]*[^%[1]s%[2]s][^%[1]s]*$", controls, spaces)
}

// The inside of a class of a pattern, written with the characters themselves: the
// dialects of patterns differ in how they name them.
const (
	controls = "\x00-\x1f\x7f-\u009f"                                                // unicode.IsControl
	spaces   = "\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000" // unicode.IsSpace
)

// control is a class with the control characters beside other ones.
func control(class string) string { return "[" + class + controls + "]" }
