package template

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	maxBytes = 1 << 20 // CloudFormation's own limit of a template
	maxDepth = 40      // of values in values
)

// place is where something stands.
type place struct {
	file string
	line int
}

// kind is what a node is.
type kind int

const (
	nothing kind = iota // null
	scalar
	list
	table
	call // an intrinsic function
)

func (k kind) String() string {
	return [...]string{"nothing", "a text", "a list", "a map", "a function"}[k]
}

// node is a value of a template as it stands there, or as it was evaluated; then no part of it is a call.
type node struct {
	place
	kind  kind
	text  string  // of a scalar; the function of a call, such as "Fn::Sub"
	tag   string  // of a scalar: what YAML takes it for, such as "!!int"
	keys  []*node // of a table, beside items
	items []*node // of a list or a table; the one argument of a call
}

// get answers a table's value; nil where there is none, and for what is no table.
func (n *node) get(key string) *node {
	if n == nil || n.kind != table {
		return nil
	}
	for i, k := range n.keys {
		if k.text == key {
			return n.items[i]
		}
	}
	return nil
}

// only answers the one key of a table with one.
func (n *node) only() (key string, value *node, ok bool) {
	if n.kind != table || len(n.keys) != 1 {
		return "", nil, false
	}
	return n.keys[0].text, n.items[0], true
}

func (n *node) says(text string) bool { return n != nil && n.kind == scalar && n.text == text }

// loader makes nodes of the text of a template.
type loader struct {
	file string
	*problems
}

// load answers nil, and adds a problem, where text is no YAML document.
func (l *loader) load(text []byte) *node {
	whole := place{file: l.file}
	if len(text) > maxBytes {
		l.add(whole, "", "", "%d bytes: CloudFormation takes at most %d", len(text), maxBytes)
		return nil
	}
	if !utf8.Valid(text) {
		l.add(whole, "", "", "not UTF-8")
		return nil
	}
	root, err := parseYAML(text)
	if err != nil {
		l.add(whole, "", "", "%v", err)
		return nil
	}
	return l.node(root, 0)
}

func parseYAML(text []byte) (root *yaml.Node, err error) {
	// yaml.v3 panics on purpose where it finds its own state impossible.
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, fmt.Errorf("yaml: %v", p)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	if err := decoder.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty")
		}
		return nil, err
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	return first.Content[0], nil
}

// node answers nil for what it has refused.
func (l *loader) node(y *yaml.Node, depth int) *node {
	at := place{l.file, y.Line}
	refuse := func(format string, args ...any) *node {
		l.add(at, "", "", format, args...)
		return nil
	}
	switch {
	case depth > maxDepth:
		return refuse("nested more than %d deep", maxDepth)
	case y.Kind == yaml.AliasNode || y.Anchor != "":
		return refuse("anchors and aliases are not understood: write the value out")
	}
	n := &node{place: at}
	tag := ""
	if y.Style&yaml.TaggedStyle != 0 {
		name, short := strings.CutPrefix(y.Tag, "!")
		if !short || strings.HasPrefix(name, "!") || name == "" {
			return refuse("the tag %s is not understood", shown(y.Tag))
		}
		tag = longForm(name)
	}
	switch y.Kind {
	case yaml.ScalarNode:
		n.kind, n.text, n.tag = scalar, y.Value, y.Tag
		if tag == "" && y.Tag == "!!null" {
			n.kind = nothing
		}
	case yaml.SequenceNode:
		n.kind = list
		for _, item := range y.Content {
			if child := l.node(item, depth+1); child != nil {
				n.items = append(n.items, child)
			}
		}
	case yaml.MappingNode:
		n.kind = table
		seen := map[string]int{}
		for i := 0; i+1 < len(y.Content); i += 2 {
			key := y.Content[i]
			switch line := seen[key.Value]; {
			case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 || key.Anchor != "" || key.Value == "<<":
				l.add(place{l.file, key.Line}, "", "", "a key that is no plain text")
				continue
			case line != 0:
				l.add(place{l.file, key.Line}, "", "", "%s is given twice: in line %d, too", shown(key.Value), line)
				continue
			}
			seen[key.Value] = key.Line
			if child := l.node(y.Content[i+1], depth+1); child != nil {
				n.keys = append(n.keys, &node{place: place{l.file, key.Line}, kind: scalar, text: key.Value})
				n.items = append(n.items, child)
			}
		}
	default:
		return refuse("not understood")
	}
	if tag != "" {
		return &node{place: at, kind: call, text: tag, items: []*node{n}}
	}
	if key, value, ok := n.only(); ok && (key == "Ref" || strings.HasPrefix(key, "Fn::")) {
		return &node{place: n.keys[0].place, kind: call, text: key, items: []*node{value}}
	}
	return n
}

// longForm answers the name of a function written as a tag.
func longForm(tag string) string {
	if tag == "Ref" || tag == "Condition" {
		return tag
	}
	return "Fn::" + tag
}
