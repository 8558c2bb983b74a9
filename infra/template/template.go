// Package template reads the deployment's template, template.yaml with what it nests, and
// answers what in it matters as typed values: functions with their environment, routes,
// queues, keys and policies, and what the policies allow. infra/lambdahost runs the functions
// from that alone, and tests judge it.
//
// It is strict: a section, type, property, function or policy element that it does not
// understand is an error with file, line, resource and property, all of them at once. What it
// understands stands in shapes.yaml and grows with the template. It is not CloudFormation: it
// makes nothing and asks nobody; names and ARNs are made up as AWS forms them.
package template

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

var (
	accountPattern = regexp.MustCompile(`^\d{12}$`)
	regionPattern  = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-\d$`)
	stackPattern   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,127}$`)
)

// Template is a template that was read and understood.
type Template struct {
	catalogue *catalogue
	root      *document
}

// Parse reads a template and what it nests. root is its file, or the folder of template.yaml;
// nothing outside of that folder is read. The error holds Problems where the template is
// wrong or not understood.
func Parse(root string) (*Template, error) {
	info, err := os.Stat(root)
	if err != nil {
		return nil, fmt.Errorf("reading a template: %w", err)
	}
	dir, file := root, "template.yaml"
	if !info.IsDir() {
		dir, file = filepath.Split(root)
	}
	if dir == "" {
		dir = "."
	}
	return ParseFS(os.DirFS(dir), file)
}

// ParseFS is Parse for the template called file in files, outside of which nothing is read.
func ParseFS(files fs.FS, file string) (*Template, error) {
	c, err := readCatalogue(shapesText)
	if err != nil {
		return nil, err
	}
	p := &parser{problems: &problems{}, files: files, catalogue: c}
	root := p.document(file, "", nil)
	if err := p.err(); err != nil {
		return nil, err
	}
	return &Template{c, root}, nil
}

// Parameters answers the names of the root template's parameters, in its order.
func (t *Template) Parameters() []string {
	var names []string
	for _, p := range t.root.parameters {
		names = append(names, p.name)
	}
	return names
}

// Site is where and with what a stack is made.
type Site struct {
	Name    string // of the stack
	Region  string
	Account string // twelve digits
	// Parameters are the root template's; those without a default must be there.
	Parameters map[string]string
	// Value, where it is set, overrides what Ref (attribute empty) or Fn::GetAtt answer for a
	// resource; empty leaves it as made up.
	Value func(r Resource, attribute string) string
}

// Resource is one resource of a template.
type Resource struct {
	ID   string // "Table", or "Data.Table" in what stack Data holds
	Type string // such as "AWS::DynamoDB::Table"
}

// Resolve evaluates the template for a site. It is deterministic. The error holds Problems
// where the values make no sense.
func (t *Template) Resolve(s Site) (*Stack, error) {
	switch {
	case !stackPattern.MatchString(s.Name):
		return nil, errors.New("resolving a template: a stack's name is letters, digits and hyphens")
	case !regionPattern.MatchString(s.Region):
		return nil, errors.New("resolving a template: no region")
	case !accountPattern.MatchString(s.Account):
		return nil, errors.New("resolving a template: an account is twelve digits")
	}
	p := &problems{}
	given := map[string]*node{}
	for name, value := range s.Parameters {
		if t.root.parameter(name) == nil {
			p.add(place{file: t.root.file}, "", "Parameters."+name, "there is no such parameter")
		}
		given[name] = &node{place: place{file: t.root.file}, kind: scalar, text: value}
	}
	root := newScope(p, t.catalogue, &s, t.root, s.Name, given)
	b := &builder{problems: p, stack: &Stack{Outputs: map[string]string{}}, ids: map[string]Resource{}, integrations: map[string]*integration{}}
	b.scope(root)
	for _, name := range t.root.names {
		if o := t.root.outputs[name]; o.condition == "" || root.conditions[o.condition] {
			if value := root.eval(o.value); value != nil {
				b.stack.Outputs[name] = value.text
			}
		}
	}
	for _, link := range b.links {
		link()
	}
	for _, link := range b.last {
		link()
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return b.stack, nil
}
