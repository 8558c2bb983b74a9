package template

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

//go:embed shapes.yaml
var shapesText []byte

// form is how a value looks.
type form int

const (
	isText       form = iota
	isWhole           // an integer
	isNumber          // possibly with a fraction
	isFlag            // true or false
	isWord            // one of words
	isAnything        // json
	isList            // of
	isTable           // fields, or every name as of
	isChoice          // the table {Type, Properties}, Properties by Type
	isPrincipal       // of a policy's statement
	isConditions      // of a policy's statement
	isPolicies        // of a function
)

// shape is what may stand at one place of a template.
type shape struct {
	form    form
	words   []string
	many    bool             // a list of these may stand there, too
	of      *shape           // of a list's items; of a table's values by any name
	fields  map[string]field // of a table
	choices map[string]*shape
}

// field is one name of a table.
type field struct {
	*shape
	required bool
	aside    bool // without meaning outside AWS: nobody reads it
}

// kindOf is a type of resources.
type kindOf struct {
	name       string            // the property that gives the physical name
	ref        string            // pattern of what Ref answers
	attributes map[string]string // patterns of what Fn::GetAtt answers
	properties *shape
}

// catalogue is shapes.yaml.
type catalogue struct {
	named map[string]yaml.Node
	types map[string]*kindOf
	of    map[string]*shape // the named ones
}

func readCatalogue(text []byte) (*catalogue, error) {
	var file struct {
		Shapes map[string]yaml.Node `yaml:"shapes"`
		Types  map[string]struct {
			Name       string            `yaml:"name"`
			Ref        string            `yaml:"ref"`
			Attributes map[string]string `yaml:"attributes"`
			Properties yaml.Node         `yaml:"properties"`
		} `yaml:"types"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("shapes.yaml: %w", err)
	}
	c := &catalogue{named: file.Shapes, types: map[string]*kindOf{}, of: map[string]*shape{}}
	for name, t := range file.Types {
		properties, err := c.read(&t.Properties, 0)
		if err != nil {
			return nil, fmt.Errorf("shapes.yaml: %s: %w", name, err)
		}
		c.types[name] = &kindOf{name: t.Name, ref: t.Ref, attributes: t.Attributes, properties: properties}
	}
	for _, name := range []string{"document", "functionDefaults", "condition"} {
		if _, err := c.called(name, 0); err != nil {
			return nil, fmt.Errorf("shapes.yaml: %w", err)
		}
	}
	return c, nil
}

func (c *catalogue) called(name string, depth int) (*shape, error) {
	forms := map[string]form{
		"text": isText, "whole": isWhole, "number": isNumber, "flag": isFlag, "json": isAnything,
		"principal": isPrincipal, "conditions": isConditions, "policies": isPolicies,
	}
	if f, ok := forms[name]; ok {
		return &shape{form: f}, nil
	}
	if s := c.of[name]; s != nil {
		return s, nil
	}
	n, ok := c.named[name]
	if !ok {
		return nil, fmt.Errorf("no shape is called %s", name)
	}
	s, err := c.read(&n, depth+1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c.of[name] = s
	return s, nil
}

func (c *catalogue) read(n *yaml.Node, depth int) (*shape, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("line %d: a shape in itself", n.Line)
	}
	switch n.Kind {
	case yaml.ScalarNode:
		name, many := strings.CutSuffix(n.Value, "+")
		if words, ok := strings.CutPrefix(name, "="); ok {
			return &shape{form: isWord, words: strings.Split(words, "|"), many: many}, nil
		}
		s, err := c.called(name, depth)
		if err == nil && many {
			s = &shape{form: s.form, of: s.of, fields: s.fields, many: true}
		}
		return s, err
	case yaml.SequenceNode:
		if len(n.Content) != 1 {
			return nil, fmt.Errorf("line %d: a list of one kind", n.Line)
		}
		of, err := c.read(n.Content[0], depth+1)
		return &shape{form: isList, of: of}, err
	case yaml.MappingNode:
		s := &shape{form: isTable, fields: map[string]field{}}
		for i := 0; i < len(n.Content); i += 2 {
			name := n.Content[i].Value
			if name == "?Type" {
				choices, err := c.read(n.Content[i+1], depth+1)
				if err != nil {
					return nil, err
				}
				s.form, s.choices = isChoice, map[string]*shape{}
				for word, f := range choices.fields {
					s.choices[word] = f.shape
				}
				continue
			}
			of, err := c.read(n.Content[i+1], depth+1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if name == "*" {
				s.of = of
				continue
			}
			name, aside := strings.CutPrefix(name, "~")
			name, required := strings.CutSuffix(name, "!")
			s.fields[name] = field{of, required, aside}
		}
		return s, nil
	}
	return nil, fmt.Errorf("line %d: not a shape", n.Line)
}

func (s *shape) String() string {
	switch s.form {
	case isWhole:
		return "a whole number"
	case isNumber:
		return "a number"
	case isFlag:
		return "true or false"
	case isWord:
		return strings.Join(s.words, " or ")
	case isAnything:
		return "anything"
	case isList:
		return "a list"
	case isText:
		return "a text"
	case isPolicies:
		return "a list of policies"
	}
	return "a map"
}

// single reports whether a text gives the value.
func (s *shape) single() bool {
	return s.form == isText || s.form == isWhole || s.form == isNumber || s.form == isFlag || s.form == isWord || s.form == isAnything
}

// wrong says what is wrong with a text as one of these; empty for nothing.
func (s *shape) wrong(text string) string {
	ok := true
	switch s.form {
	case isWhole:
		_, ok = wholeNumber(text)
	case isNumber:
		_, ok = number(text)
	case isFlag:
		ok = text == "true" || text == "false"
	case isWord:
		ok = slices.Contains(s.words, text)
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("found %s, expected %v", shown(text), s)
}
