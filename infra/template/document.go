package template

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	maxNested    = 50  // templates in one deployment
	maxResources = 500 // CloudFormation's own limit, of one template
	transform    = "AWS::Serverless-2016-10-31"
)

var idPattern = regexp.MustCompile(`^[A-Za-z0-9]{1,255}$`)

// document is one template: the root, or what one resource of another one holds. A file that
// is nested twice is two documents.
type document struct {
	file       string
	prefix     string // of ids: "Data." for what stack Data holds
	parameters []*parameter
	conditions map[string]*node
	resources  []*resource
	outputs    map[string]*output
	names      []string // of outputs, in order
}

// parameter is what a stack is made with.
type parameter struct {
	place
	name, kind string
	fallback   *node // its default
	words      []string
	pattern    *regexp.Regexp
	least      *float64 // length of a text, size of a number
	most       *float64
}

// resource is one of a document's.
type resource struct {
	place
	id, kind   string
	of         *kindOf
	properties *node // a table, perhaps empty; Globals are in it
	condition  string
	dependsOn  []string
	deletion   string
	built      string // how its code is built: BuildMethod
	nested     *document
}

// output is one of a document's.
type output struct {
	place
	value     *node
	condition string
}

func (d *document) parameter(name string) *parameter {
	i := slices.IndexFunc(d.parameters, func(p *parameter) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return d.parameters[i]
}

func (d *document) resource(id string) *resource {
	i := slices.IndexFunc(d.resources, func(r *resource) bool { return r.id == id })
	if i < 0 {
		return nil
	}
	return d.resources[i]
}

// generated answers the function whose role SAM makes, where id is what SAM calls that role.
func (d *document) generated(id string) *resource {
	name, ok := strings.CutSuffix(id, "Role")
	if r := d.resource(name); ok && r != nil && r.kind == serverlessFunction && r.properties.get("Role") == nil {
		return r
	}
	return nil
}

// parser reads documents.
type parser struct {
	*problems
	files     fs.FS
	catalogue *catalogue
	count     int
}

// document answers nil where there is no template to speak of.
func (p *parser) document(file, prefix string, within []string) *document {
	at := place{file: file}
	if p.count++; p.count > maxNested {
		if p.count == maxNested+1 {
			p.add(at, "", "", "more than %d templates", maxNested)
		}
		return nil
	}
	text, err := fs.ReadFile(p.files, file)
	if err != nil {
		if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		p.add(at, "", "", "%v", err)
		return nil
	}
	root := (&loader{file, p.problems}).load(text)
	if root == nil {
		return nil
	}
	if root.kind != table {
		p.add(root.place, "", "", "found %v, expected the sections of a template", root.kind)
		return nil
	}
	d := &document{file: file, prefix: prefix, conditions: map[string]*node{}, outputs: map[string]*output{}}
	var defaults *node
	for i, key := range root.keys {
		value := root.items[i]
		switch key.text {
		case "AWSTemplateFormatVersion":
			p.expect(value, "AWSTemplateFormatVersion", "2010-09-09")
		case "Transform":
			p.expect(value, "Transform", transform)
		case "Description", "Metadata":
		case "Parameters":
			p.each(value, "Parameters", func(name *node, value *node) { d.parameters = append(d.parameters, p.parameter(name, value)) })
		case "Conditions":
			p.each(value, "Conditions", func(name *node, value *node) { d.conditions[name.text] = value })
		case "Globals":
			p.each(value, "Globals", func(name *node, value *node) {
				if name.text != "Function" {
					p.add(name.place, "", "Globals."+name.text, "not understood: only Function is")
					return
				}
				defaults = value
			})
		case "Resources":
			p.each(value, "Resources", func(name *node, value *node) {
				if r := p.resource(d, name, value); r != nil {
					d.resources = append(d.resources, r)
				}
			})
		case "Outputs":
			p.each(value, "Outputs", func(name *node, value *node) {
				if o := p.output(name, value); o != nil {
					d.outputs[name.text] = o
					d.names = append(d.names, name.text)
				}
			})
		default:
			p.add(key.place, "", key.text, "the section is not understood")
		}
	}
	if section := root.get("Resources"); section == nil || len(section.keys) == 0 || len(section.keys) > maxResources {
		p.add(root.place, "", "Resources", "CloudFormation takes 1 to %d", maxResources)
		return d
	}
	p.nest(d, append(slices.Clone(within), file))
	p.check(d, defaults)
	return d
}

func (p *parser) expect(n *node, property, text string) {
	if !n.says(text) {
		p.add(n.place, "", property, "expected %s", text)
	}
}

// each walks what a section names.
func (p *parser) each(n *node, section string, fn func(name, value *node)) {
	if n.kind != table {
		p.add(n.place, "", section, "found %v, expected a map", n.kind)
		return
	}
	for i, key := range n.keys {
		if section != "Globals" && !idPattern.MatchString(key.text) {
			p.add(key.place, "", section+"."+key.text, "a name is of letters and digits alone")
			continue
		}
		fn(key, n.items[i])
	}
}

func (p *parser) parameter(name, n *node) *parameter {
	out := &parameter{place: name.place, name: name.text, kind: "String"}
	at := func(key string) string { return "Parameters." + name.text + "." + key }
	if n.kind != table {
		p.add(n.place, "", "Parameters."+name.text, "found %v, expected a map", n.kind)
		return out
	}
	typed := false
	for i, key := range n.keys {
		value := n.items[i]
		switch key.text {
		case "AllowedValues":
			if value.kind != list {
				p.add(value.place, "", at(key.text), "found %v, expected a list", value.kind)
				continue
			}
			for _, item := range value.items {
				if item.kind != scalar {
					p.add(item.place, "", at(key.text), "found %v, expected a text", item.kind)
				}
				out.words = append(out.words, item.text)
			}
			continue
		case "Default", "Type", "AllowedPattern", "MinLength", "MaxLength", "MinValue", "MaxValue", "NoEcho", "Description", "ConstraintDescription":
		default:
			p.add(key.place, "", at(key.text), "not understood")
			continue
		}
		if value.kind != scalar {
			p.add(value.place, "", at(key.text), "found %v, expected a text", value.kind)
			continue
		}
		switch key.text {
		case "Type":
			typed = true
			out.kind = value.text
			if !slices.Contains([]string{"String", "Number", "CommaDelimitedList"}, value.text) {
				p.add(value.place, "", at(key.text), "found %s: String, Number and CommaDelimitedList are understood", shown(value.text))
			}
		case "Default":
			out.fallback = value
		case "AllowedPattern":
			pattern, err := regexp.Compile(`\A(?:` + value.text + `)\z`)
			if err != nil {
				p.add(value.place, "", at(key.text), "%v", err)
			}
			out.pattern = pattern
		case "MinLength", "MinValue", "MaxLength", "MaxValue":
			bound, ok := number(value.text)
			if !ok {
				p.add(value.place, "", at(key.text), "found %s, expected a number", shown(value.text))
			}
			if strings.HasPrefix(key.text, "Min") {
				out.least = &bound
			} else {
				out.most = &bound
			}
		}
	}
	if !typed {
		p.add(name.place, "", at("Type"), "is missing")
	}
	if out.fallback != nil {
		if wrong := out.wrong(out.fallback.text); wrong != "" {
			p.add(out.fallback.place, "", at("Default"), "%s", wrong)
		}
	}
	return out
}

// wrong says what is wrong with a parameter's value; empty for nothing. It does not repeat
// the value, which may be a secret.
func (p *parameter) wrong(text string) string {
	measure, what := float64(len([]rune(text))), "characters"
	if p.kind == "Number" {
		n, ok := number(text)
		if !ok {
			return "the value is no number"
		}
		measure, what = n, "as a number"
	}
	switch {
	case p.words != nil && !slices.Contains(p.words, text):
		return "the value is none of " + strings.Join(p.words, ", ")
	case p.pattern != nil && !p.pattern.MatchString(text):
		return "the value does not match AllowedPattern"
	case p.least != nil && measure < *p.least:
		return fmt.Sprintf("the value is below %v %s", *p.least, what)
	case p.most != nil && measure > *p.most:
		return fmt.Sprintf("the value is above %v %s", *p.most, what)
	}
	return ""
}

func (p *parser) output(name, n *node) *output {
	if n.kind != table {
		p.add(n.place, "", "Outputs."+name.text, "found %v, expected a map", n.kind)
		return nil
	}
	out := &output{place: name.place}
	for i, key := range n.keys {
		switch value := n.items[i]; key.text {
		case "Description":
		case "Value":
			out.value = value
		case "Condition":
			if out.condition = value.text; value.kind != scalar {
				p.add(value.place, "", "Outputs."+name.text+".Condition", "found %v, expected a text", value.kind)
			}
		default:
			p.add(key.place, "", "Outputs."+name.text+"."+key.text, "not understood")
		}
	}
	if out.value == nil {
		p.add(name.place, "", "Outputs."+name.text+".Value", "is missing")
		return nil
	}
	return out
}

// resource reads what stands around the properties; it answers nil for what is of no known type.
func (p *parser) resource(d *document, name, n *node) *resource {
	full := d.prefix + name.text
	if n.kind != table {
		p.add(n.place, full, "", "found %v, expected a map", n.kind)
		return nil
	}
	r := &resource{place: name.place, id: name.text, deletion: "Delete", properties: &node{place: name.place, kind: table}}
	for i, key := range n.keys {
		value := n.items[i]
		texts := []*node{value}
		switch key.text {
		case "Properties":
			if value.kind != table {
				p.add(value.place, full, "", "the properties are %v, expected a map", value.kind)
				continue
			}
			r.properties = value
			continue
		case "Metadata":
			p.metadata(r, full, value)
			continue
		case "DependsOn":
			if value.kind == list {
				texts = value.items
			}
		case "Type", "Condition", "DeletionPolicy", "UpdateReplacePolicy":
		default:
			p.add(key.place, full, key.text, "not understood")
			continue
		}
		for _, text := range texts {
			if text.kind != scalar {
				p.add(text.place, full, key.text, "found %v, expected a text", text.kind)
				continue
			}
			switch key.text {
			case "Type":
				r.kind = text.text
			case "Condition":
				r.condition = text.text
			case "DependsOn":
				r.dependsOn = append(r.dependsOn, text.text)
			default:
				if !slices.Contains([]string{"Delete", "Retain", "RetainExceptOnCreate", "Snapshot"}, text.text) {
					p.add(text.place, full, key.text, "found %s, which AWS does not know", shown(text.text))
				}
				if key.text == "DeletionPolicy" {
					r.deletion = text.text
				}
			}
		}
	}
	r.of = p.catalogue.types[r.kind]
	switch {
	case r.kind == "":
		p.add(r.place, full, "Type", "is missing")
		return nil
	case r.kind == "AWS::Serverless::HttpApi" || r.kind == "AWS::Serverless::Api":
		p.add(r.place, full, "Type", "%s is not understood: functions that need the API's address make a circle with it; write AWS::ApiGatewayV2", r.kind)
		return nil
	case r.of == nil:
		p.add(r.place, full, "Type", "%s is not understood", shown(r.kind))
		return nil
	}
	return r
}

// metadata is for tools; of it, how code is built has a meaning.
func (p *parser) metadata(r *resource, full string, n *node) {
	if n.kind != table {
		p.add(n.place, full, "Metadata", "found %v, expected a map", n.kind)
		return
	}
	for i, key := range n.keys {
		switch value := n.items[i]; key.text {
		case "BuildMethod":
			if value.kind != scalar {
				p.add(value.place, full, "Metadata.BuildMethod", "found %v, expected a text", value.kind)
			}
			r.built = value.text
		case "BuildArchitecture", "BuildProperties", "SamResourceId", "cfn-lint", "Comment":
		default:
			p.add(key.place, full, "Metadata."+key.text, "not understood")
		}
	}
}

// nest reads the templates that d holds.
func (p *parser) nest(d *document, within []string) {
	for _, r := range d.resources {
		key, ok := map[string]string{"AWS::CloudFormation::Stack": "TemplateURL", "AWS::Serverless::Application": "Location"}[r.kind]
		if !ok {
			continue
		}
		full, n := d.prefix+r.id, r.properties.get(key)
		if n == nil {
			continue // check says so
		}
		if n.kind != scalar || strings.Contains(n.text, ":") {
			p.add(n.place, full, key, "expected the path of a template")
			continue
		}
		file := path.Join(path.Dir(d.file), n.text)
		switch {
		case !fs.ValidPath(file) || path.IsAbs(n.text):
			p.add(n.place, full, key, "%s is outside of the root template's folder", shown(n.text))
		case slices.Contains(within, file):
			p.add(n.place, full, key, "%s is nested in itself", file)
		default:
			r.nested = p.document(file, full+".", within)
			if r.nested == nil {
				p.add(n.place, full, key, "%s is no template", file)
			}
		}
	}
}
