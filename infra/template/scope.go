package template

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
)

// scope is a document with the values it is resolved with.
type scope struct {
	*problems
	catalogue  *catalogue
	site       *Site
	doc        *document
	stack      string // the stack's name
	parameters map[string]*node
	conditions map[string]bool
	nested     map[string]*scope
}

// newScope answers the scope of d, with those of what it holds. given are the parameters.
func newScope(p *problems, c *catalogue, site *Site, d *document, stack string, given map[string]*node) *scope {
	s := &scope{
		problems: p, catalogue: c, site: site, doc: d, stack: stack,
		parameters: map[string]*node{}, conditions: map[string]bool{}, nested: map[string]*scope{},
	}
	for _, q := range d.parameters {
		value := given[q.name]
		switch {
		case value == nil && q.fallback == nil:
			s.add(q.place, "", "Parameters."+q.name, "has no value and no default")
			value = &node{place: q.place, kind: scalar}
		case value == nil:
			value = q.fallback
		default:
			if wrong := q.wrong(value.text); wrong != "" {
				s.add(q.place, "", "Parameters."+q.name, "%s", wrong)
			}
		}
		if q.kind == "CommaDelimitedList" {
			items := &node{place: value.place, kind: list}
			for part := range strings.SplitSeq(value.text, ",") {
				items.items = append(items.items, &node{place: value.place, kind: scalar, text: strings.TrimSpace(part)})
			}
			value = items
		}
		s.parameters[q.name] = value
	}
	for name, n := range d.conditions {
		s.conditions[name] = s.holds(n)
	}
	return s
}

// within answers the scope of what a stack resource holds.
func (s *scope) within(r *resource) *scope {
	if inner := s.nested[r.id]; inner != nil {
		return inner
	}
	given := map[string]*node{}
	if n := s.eval(r.properties.get("Parameters")); n != nil {
		for i, key := range n.keys {
			value := n.items[i]
			if value.kind == list {
				value = &node{place: value.place, kind: scalar, text: strings.Join(words(value), ",")}
			}
			given[key.text] = value
		}
	}
	inner := newScope(s.problems, s.catalogue, s.site, r.nested, s.madeUp(r), given)
	s.nested[r.id] = inner
	return inner
}

// there reports whether the site has the resource.
func (s *scope) there(r *resource) bool { return r.condition == "" || s.conditions[r.condition] }

// holds evaluates a condition. Circles were refused.
func (s *scope) holds(n *node) bool {
	if name, ok := conditionName(n); ok {
		return s.holds(s.doc.conditions[name])
	}
	parts := n.items[0].items
	switch n.text {
	case "Fn::Equals":
		a, b := s.eval(parts[0]), s.eval(parts[1])
		return a != nil && b != nil && a.text == b.text
	case "Fn::Not":
		return !s.holds(parts[0])
	case "Fn::And":
		return !slices.ContainsFunc(parts, func(p *node) bool { return !s.holds(p) })
	}
	return slices.ContainsFunc(parts, s.holds)
}

// eval answers the value of a node, without any call; nil for no value.
func (s *scope) eval(n *node) *node {
	if n == nil {
		return nil
	}
	out := &node{place: n.place, kind: n.kind, text: n.text, tag: n.tag}
	switch n.kind {
	case call:
		return s.evalCall(n)
	case list:
		for _, item := range n.items {
			if value := s.eval(item); value != nil {
				out.items = append(out.items, value)
			}
		}
	case table:
		for i, key := range n.keys {
			if value := s.eval(n.items[i]); value != nil {
				out.keys, out.items = append(out.keys, key), append(out.items, value)
			}
		}
	}
	return out
}

func (s *scope) evalCall(n *node) *node {
	argument := n.items[0]
	text := func(value string) *node { return &node{place: n.place, kind: scalar, text: value} }
	switch n.text {
	case "Ref":
		return s.reference(n, argument.text, "")
	case "Fn::GetAtt":
		name, _ := attribute(argument)
		id, attr, _ := strings.Cut(name, ".")
		return s.reference(n, id, attr)
	case "Fn::If":
		if s.conditions[argument.items[0].text] {
			return s.eval(argument.items[1])
		}
		return s.eval(argument.items[2])
	case "Fn::Sub":
		var own *node
		if argument.kind == list {
			own, argument = s.eval(argument.items[1]), argument.items[0]
		}
		return text(variablePattern.ReplaceAllStringFunc(argument.text, func(variable string) string {
			name := variable[2 : len(variable)-1]
			if literal, ok := strings.CutPrefix(name, "!"); ok {
				return "${" + literal + "}"
			}
			value := own.get(name)
			if value == nil {
				id, attr, _ := strings.Cut(name, ".")
				value = s.reference(n, id, attr)
			}
			if value == nil {
				return ""
			}
			return value.text
		}))
	case "Fn::Join":
		return text(strings.Join(words(s.eval(argument.items[1])), argument.items[0].text))
	case "Fn::Split":
		out := &node{place: n.place, kind: list}
		if value := s.eval(argument.items[1]); value != nil {
			for part := range strings.SplitSeq(value.text, argument.items[0].text) {
				out.items = append(out.items, text(part))
			}
		}
		return out
	case "Fn::Select":
		index, of := s.eval(argument.items[0]), s.eval(argument.items[1])
		if index != nil && of != nil {
			if i, ok := wholeNumber(index.text); ok && i >= 0 && i < len(of.items) {
				return of.items[i]
			}
		}
		s.add(n.place, "", "", "Fn::Select: the list has no such item")
	}
	return nil
}

// reference answers what a name stands for.
func (s *scope) reference(n *node, id, attr string) *node {
	text := func(value string) *node { return &node{place: n.place, kind: scalar, text: value} }
	if attr == "" {
		switch id {
		case "AWS::NoValue":
			return nil
		case "AWS::Region":
			return text(s.site.Region)
		case "AWS::AccountId":
			return text(s.site.Account)
		case "AWS::StackName":
			return text(s.stack)
		case "AWS::StackId":
			return text("arn:aws:cloudformation:" + s.site.Region + ":" + s.site.Account + ":stack/" + s.stack + "/" + uuid(s.stack))
		case "AWS::Partition":
			return text("aws")
		case "AWS::URLSuffix":
			return text("amazonaws.com")
		}
		if value := s.parameters[id]; value != nil {
			here := *value
			here.place = n.place
			return &here
		}
	}
	r := s.doc.resource(id)
	if r == nil {
		r = s.role(s.doc.generated(id))
	}
	if !s.there(r) {
		s.add(n.place, "", "", "%s refers to %s, which is not there: its condition %s does not hold", n.text, id, r.condition)
		return text("")
	}
	if output, ok := strings.CutPrefix(attr, "Outputs."); ok && r.nested != nil {
		inner := s.within(r)
		o := r.nested.outputs[output]
		if o.condition != "" && !inner.conditions[o.condition] {
			s.add(n.place, "", "", "%s refers to output %s of %s, which is not there: its condition %s does not hold", n.text, output, id, o.condition)
			return text("")
		}
		return inner.eval(o.value)
	}
	return text(s.attribute(r, attr))
}

// role answers the role that SAM makes for a function.
func (s *scope) role(function *resource) *resource {
	return &resource{
		place: function.place, id: function.id + "Role", kind: "AWS::IAM::Role", of: s.catalogue.types["AWS::IAM::Role"],
		properties: &node{place: function.place, kind: table}, condition: function.condition,
	}
}

// attribute answers what Ref (no attribute) or Fn::GetAtt answer for a resource.
func (s *scope) attribute(r *resource, attr string) string {
	if s.site.Value != nil {
		if value := s.site.Value(Resource{s.doc.prefix + r.id, r.kind}, attr); value != "" {
			return value
		}
	}
	pattern := r.of.ref
	if attr != "" {
		pattern = r.of.attributes[attr]
	}
	seed := s.stack + "\n" + r.id
	return strings.NewReplacer(
		"{region}", s.site.Region, "{account}", s.site.Account, "{stack}", s.stack,
		"{name}", s.name(r), "{id}", letters(seed, 10), "{six}", letters(seed, 6), "{uuid}", uuid(seed),
	).Replace(pattern)
}

// name answers the physical name.
func (s *scope) name(r *resource) string {
	if r.of.name != "" {
		if value := s.eval(r.properties.get(r.of.name)); value != nil && value.text != "" {
			return value.text
		}
	}
	name := s.madeUp(r)
	if r.kind == "AWS::S3::Bucket" {
		name = strings.ToLower(name)
	}
	return name
}

// madeUp answers a name as CloudFormation makes it: at most 64 characters, as many as the
// tightest of the services takes.
func (s *scope) madeUp(r *resource) string {
	const most = 63
	suffix := strings.ToUpper(letters(s.stack+"\n"+r.id, 12))
	name := s.stack + "-" + r.id
	return name[:min(len(name), most-1-len(suffix))] + "-" + suffix
}

// letters makes n letters and digits of a seed, always the same.
func letters(seed string, n int) string {
	sum := sha256.Sum256([]byte(seed))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:n]
}

func uuid(seed string) string {
	sum := sha256.Sum256([]byte(seed))
	x := hex.EncodeToString(sum[:16])
	return x[:8] + "-" + x[8:12] + "-4" + x[13:16] + "-a" + x[17:20] + "-" + x[20:]
}

func wholeNumber(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil
}

func number(text string) (float64, bool) {
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil && !math.IsInf(n, 0) && !math.IsNaN(n)
}

// plain answers a value as encoding/json would.
func plain(n *node) any {
	switch n.kind {
	case list:
		out := make([]any, 0, len(n.items))
		for _, item := range n.items {
			out = append(out, plain(item))
		}
		return out
	case table:
		out := map[string]any{}
		for i, key := range n.keys {
			out[key.text] = plain(n.items[i])
		}
		return out
	}
	switch n.tag {
	case "!!bool":
		return n.text == "true"
	case "!!int", "!!float":
		if x, ok := number(n.text); ok {
			return x
		}
	}
	return n.text
}
