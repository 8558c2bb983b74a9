package template

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	serverlessFunction = "AWS::Serverless::Function"
	nestedStack        = "AWS::CloudFormation::Stack"
	nestedApplication  = "AWS::Serverless::Application"
)

// variablePattern finds ${Name}, ${Name.Attribute} and ${!Literal}.
var variablePattern = regexp.MustCompile(`\$\{([^{}]*)\}`)

// pseudo are the parameters that AWS gives.
func pseudo(name string) bool {
	switch name {
	case "AWS::Region", "AWS::AccountId", "AWS::StackName", "AWS::StackId", "AWS::Partition", "AWS::URLSuffix", "AWS::NoValue":
		return true
	}
	return false
}

// checker judges one document as it stands, whatever its parameters will be.
type checker struct {
	*problems
	catalogue *catalogue
	doc       *document
	resource  string          // the one being checked, with the prefix
	refs      map[string]bool // the resources that the values just checked refer to
}

// check judges everything that the sections say and how they refer to each other. defaults
// are the functions' globals.
func (p *parser) check(d *document, defaults *node) {
	c := &checker{problems: p.problems, catalogue: p.catalogue, doc: d, refs: map[string]bool{}}
	if defaults != nil {
		c.value(defaults, p.catalogue.of["functionDefaults"], "Globals.Function")
		for _, r := range d.resources {
			if r.kind == serverlessFunction {
				r.properties = merge(defaults, r.properties)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.conditions)) {
		c.condition(d.conditions[name], "Conditions."+name)
	}
	c.conditionCircles()
	seen := map[string]place{}
	for _, q := range d.parameters {
		seen[q.name] = q.place
	}
	needs := map[string][]string{} // resource → resources
	for _, r := range d.resources {
		c.resource = d.prefix + r.id
		if other, twice := seen[r.id]; twice {
			c.add(r.place, c.resource, "", "a parameter in line %d has the same name", other.line)
		}
		if r.condition != "" && d.conditions[r.condition] == nil {
			c.add(r.place, c.resource, "Condition", "there is no condition %s", shown(r.condition))
		}
		for _, id := range r.dependsOn {
			if d.resource(id) == nil {
				c.add(r.place, c.resource, "DependsOn", "there is no resource %s", shown(id))
			}
			needs[r.id] = append(needs[r.id], id)
		}
		c.properties(r, needs)
	}
	c.circles(needs)
	c.resource = ""
	for _, name := range d.names {
		o := d.outputs[name]
		c.value(o.value, &shape{form: isText}, "Outputs."+name+".Value")
		if o.condition != "" && d.conditions[o.condition] == nil {
			c.add(o.place, "", "Outputs."+name+".Condition", "there is no condition %s", shown(o.condition))
		}
	}
}

// properties checks those of r, and notes what each part of it needs. SAM makes more than one
// resource of a function: the policies belong to its role, and nothing depends on its events.
func (c *checker) properties(r *resource, needs map[string][]string) {
	parts := map[string]string{}
	if r.kind == serverlessFunction {
		parts = map[string]string{"Policies": r.id + "Role", "Events": r.id + "/Events"}
		needs[r.id+"/Events"] = []string{r.id}
		if r.properties.get("Role") == nil {
			needs[r.id] = append(needs[r.id], r.id+"Role")
		}
	}
	c.table(r.properties, r.of.properties, "", func(name string) {
		owner := r.id
		if parts[name] != "" {
			owner = parts[name]
		}
		needs[owner] = append(needs[owner], slices.Sorted(maps.Keys(c.refs))...)
		clear(c.refs)
	})
	clear(c.refs)
	if r.nested == nil {
		return
	}
	given := r.properties.get("Parameters")
	for _, q := range r.nested.parameters {
		if q.fallback == nil && given.get(q.name) == nil {
			c.add(r.place, c.resource, "Parameters."+q.name, "is missing: %s has no default for it", r.nested.file)
		}
	}
	if given != nil {
		for _, key := range given.keys {
			if r.nested.parameter(key.text) == nil {
				c.add(key.place, c.resource, "Parameters."+key.text, "%s has no such parameter", r.nested.file)
			}
		}
	}
}

// table checks the fields of n; after is called when each was checked.
func (c *checker) table(n *node, s *shape, at string, after func(name string)) {
	if n.kind != table {
		c.add(n.place, c.resource, at, "found %v, expected a map", n.kind)
		return
	}
	for i, key := range n.keys {
		f, known := s.fields[key.text]
		switch {
		case known:
			c.value(n.items[i], f.shape, join(at, key.text))
		case s.of != nil:
			c.value(n.items[i], s.of, join(at, key.text))
		default:
			c.add(key.place, c.resource, join(at, key.text), "not understood here")
		}
		after(key.text)
	}
	for _, name := range slices.Sorted(maps.Keys(s.fields)) {
		if s.fields[name].required && n.get(name) == nil {
			c.add(n.place, c.resource, join(at, name), "is missing")
		}
	}
}

// value checks n as one of s.
func (c *checker) value(n *node, s *shape, at string) {
	if n.kind == call {
		c.call(n, s, at)
		return
	}
	if n.kind == nothing {
		c.add(n.place, c.resource, at, "has no value")
		return
	}
	if n.kind == list && s.many {
		one := *s
		one.many = false
		for _, item := range n.items {
			c.value(item, &one, at)
		}
		return
	}
	ignore := func(string) {}
	switch s.form {
	case isAnything:
		for i, item := range n.items {
			inner := at
			if n.kind == table {
				inner = join(at, n.keys[i].text)
			}
			c.value(item, s, inner)
		}
	case isList:
		if n.kind != list {
			c.add(n.place, c.resource, at, "found %v, expected a list", n.kind)
			return
		}
		for _, item := range n.items {
			c.value(item, s.of, at)
		}
	case isTable:
		c.table(n, s, at, ignore)
	case isChoice:
		c.choice(n, s, at)
	case isPrincipal:
		if !n.says("*") {
			who := field{shape: &shape{form: isText, many: true}}
			c.table(n, &shape{form: isTable, fields: map[string]field{"AWS": who, "Service": who}}, at, ignore)
		}
	case isConditions:
		c.conditions(n, at)
	case isPolicies:
		c.policies(n, at)
	default:
		if n.kind != scalar {
			c.add(n.place, c.resource, at, "found %v, expected %v", n.kind, s)
		} else if wrong := s.wrong(n.text); wrong != "" {
			c.add(n.place, c.resource, at, "%s", wrong)
		}
	}
}

// choice checks a table of Type and Properties.
func (c *checker) choice(n *node, s *shape, at string) {
	word := n.get("Type")
	if word == nil || word.kind != scalar {
		c.add(n.place, c.resource, join(at, "Type"), "is missing")
		return
	}
	chosen := s.choices[word.text]
	if chosen == nil {
		c.add(word.place, c.resource, join(at, "Type"), "%s is not understood", shown(word.text))
		return
	}
	c.table(n, &shape{form: isTable, fields: map[string]field{
		"Type": {shape: &shape{form: isText}}, "Properties": {shape: chosen, required: true},
	}}, at, func(string) {})
}

// conditions checks those of a policy's statement.
func (c *checker) conditions(n *node, at string) {
	if n.kind != table {
		c.add(n.place, c.resource, at, "found %v, expected a map", n.kind)
		return
	}
	for i, key := range n.keys {
		if _, err := parseOperator(key.text); err != nil {
			c.add(key.place, c.resource, join(at, key.text), "%v", err)
		}
		c.value(n.items[i], c.catalogue.of["condition"], join(at, key.text))
	}
}

// policies checks those of a function: names of managed ones, and documents.
func (c *checker) policies(n *node, at string) {
	switch key, _, one := n.only(); {
	case n.kind == list:
		for _, item := range n.items {
			if item.kind == list {
				c.add(item.place, c.resource, at, "found a list in a list")
				continue
			}
			c.value(item, &shape{form: isPolicies}, at)
		}
	case n.kind == scalar:
		if managed(arnOfManaged(n.text)) == nil {
			c.add(n.place, c.resource, at, "%s is not understood: what a managed policy allows does not stand here, so write the statements", shown(n.text))
		}
	case n.get("Statement") == nil && one:
		c.add(n.place, c.resource, at, "%s is a policy template of SAM or not understood: write the statements", shown(key))
	default:
		c.value(n, c.catalogue.of["document"], at)
	}
}

// call checks a function where a value of s is expected.
func (c *checker) call(n *node, s *shape, at string) {
	argument := n.items[0]
	if n.text == "Fn::If" {
		if argument.kind != list || len(argument.items) != 3 || argument.items[0].kind != scalar {
			c.add(n.place, c.resource, at, "Fn::If takes the name of a condition and two values")
			return
		}
		if name := argument.items[0]; c.doc.conditions[name.text] == nil {
			c.add(name.place, c.resource, at, "Fn::If: there is no condition %s", shown(name.text))
		}
		c.value(argument.items[1], s, at)
		c.value(argument.items[2], s, at)
		return
	}
	gives := c.function(n, at)
	lists := s.form == isList && s.of.single() || s.many && s.single() || s.form == isAnything
	switch {
	case gives == nothing: // wrong, or a value left out
	case gives == list && !lists:
		c.add(n.place, c.resource, at, "%s gives a list, expected %v", n.text, s)
	case gives == scalar && !s.single():
		c.add(n.place, c.resource, at, "%s gives a text, expected %v", n.text, s)
	}
}

// function checks a function but Fn::If by itself, and answers what it gives: a text, a list,
// or nothing where it was wrong.
func (c *checker) function(n *node, at string) kind {
	argument := n.items[0]
	refuse := func(format string, args ...any) kind {
		c.add(n.place, c.resource, at, n.text+": "+format, args...)
		return nothing
	}
	text, texts := &shape{form: isText}, &shape{form: isList, of: &shape{form: isText}}
	pair := func() bool { return argument.kind == list && len(argument.items) == 2 }
	switch n.text {
	case "Ref":
		if argument.kind != scalar {
			return refuse("takes a name")
		}
		return c.reference(n, argument.text, "", at)
	case "Fn::GetAtt":
		name, ok := attribute(argument)
		if !ok {
			return refuse("takes a resource and an attribute")
		}
		id, attr, _ := strings.Cut(name, ".")
		return c.reference(n, id, attr, at)
	case "Fn::Sub":
		var own *node
		if pair() && argument.items[1].kind == table {
			own = argument.items[1]
			for i, key := range own.keys {
				c.value(own.items[i], text, join(at, key.text))
			}
			argument = argument.items[0]
		}
		if argument.kind != scalar {
			return refuse("takes a text, or a list of one and a map")
		}
		for _, m := range variablePattern.FindAllStringSubmatch(argument.text, -1) {
			id, attr, _ := strings.Cut(m[1], ".")
			if strings.HasPrefix(m[1], "!") || own.get(m[1]) != nil {
				continue
			}
			if c.reference(n, id, attr, at) == list {
				return refuse("%s is a list", m[1])
			}
		}
		return scalar
	case "Fn::Join":
		if !pair() || argument.items[0].kind != scalar {
			return refuse("takes a separator and a list")
		}
		c.value(argument.items[1], texts, at)
		return scalar
	case "Fn::Split":
		if !pair() || argument.items[0].kind != scalar || argument.items[0].text == "" {
			return refuse("takes a separator and a text")
		}
		c.value(argument.items[1], text, at)
		return list
	case "Fn::Select":
		if !pair() {
			return refuse("takes an index and a list")
		}
		c.value(argument.items[0], &shape{form: isWhole}, at)
		c.value(argument.items[1], texts, at)
		return scalar
	}
	return refuse("is not understood here")
}

// attribute answers what Fn::GetAtt is asked for, "Id.Attribute".
func attribute(n *node) (name string, ok bool) {
	switch {
	case n.kind == scalar:
		name = n.text
	case n.kind == list && len(n.items) == 2 && n.items[0].kind == scalar && n.items[1].kind == scalar:
		name = n.items[0].text + "." + n.items[1].text
	}
	id, attr, _ := strings.Cut(name, ".")
	return name, id != "" && attr != ""
}

// reference checks the name of a resource or, without an attribute, of a parameter.
func (c *checker) reference(n *node, id, attr, at string) kind {
	refuse := func(format string, args ...any) kind {
		c.add(n.place, c.resource, at, n.text+": "+format, args...)
		return nothing
	}
	if attr == "" {
		if id == "AWS::NoValue" {
			return nothing
		}
		if pseudo(id) {
			return scalar
		}
		if q := c.doc.parameter(id); q != nil {
			if q.kind == "CommaDelimitedList" {
				return list
			}
			return scalar
		}
	}
	r, of := c.doc.resource(id), (*kindOf)(nil)
	switch {
	case r != nil:
		of = r.of
	case c.doc.generated(id) != nil:
		of = c.catalogue.types["AWS::IAM::Role"]
	default:
		return refuse("there is no resource or parameter %s", shown(id))
	}
	c.refs[id] = true
	output, isOutput := strings.CutPrefix(attr, "Outputs.")
	switch {
	case attr == "":
	case r != nil && r.nested != nil && isOutput:
		if r.nested.outputs[output] == nil {
			return refuse("%s has no output %s", r.nested.file, shown(output))
		}
	case of.attributes[attr] == "":
		return refuse("no attribute %s of %s is understood", shown(attr), id)
	}
	return scalar
}

// condition checks one of the section Conditions, or a part of it.
func (c *checker) condition(n *node, at string) {
	if name, ok := conditionName(n); ok {
		if c.doc.conditions[name] == nil {
			c.add(n.place, "", at, "there is no condition %s", shown(name))
		}
		return
	}
	if n.kind != call {
		c.add(n.place, "", at, "found %v, expected a condition", n.kind)
		return
	}
	least, most := 2, 10
	switch n.text {
	case "Fn::Equals":
		most = 2
	case "Fn::Not":
		least, most = 1, 1
	case "Fn::And", "Fn::Or":
	default:
		c.add(n.place, "", at, "%s is no condition", n.text)
		return
	}
	parts := n.items[0]
	if parts.kind != list || len(parts.items) < least || len(parts.items) > most {
		c.add(n.place, "", at, "%s takes a list of %d to %d", n.text, least, most)
		return
	}
	for _, part := range parts.items {
		if n.text != "Fn::Equals" {
			c.condition(part, at)
			continue
		}
		clear(c.refs)
		c.value(part, &shape{form: isText}, at)
		if len(c.refs) > 0 {
			c.add(part.place, "", at, "a condition cannot refer to a resource")
			clear(c.refs)
		}
	}
}

// conditionName answers the condition that a part of a condition names.
func conditionName(n *node) (string, bool) {
	if n.kind == call && n.text == "Condition" {
		n = n.items[0]
	} else if key, value, ok := n.only(); ok && key == "Condition" {
		n = value
	} else {
		return "", false
	}
	return n.text, n.kind == scalar
}

// conditionCircles finds conditions that are part of themselves.
func (c *checker) conditionCircles() {
	needs := map[string][]string{}
	var walk func(name string, n *node)
	walk = func(name string, n *node) {
		if other, ok := conditionName(n); ok {
			needs[name] = append(needs[name], other)
			return
		}
		for _, item := range n.items {
			walk(name, item)
		}
	}
	for name, n := range c.doc.conditions {
		walk(name, n)
	}
	if circle := findCircle(needs); circle != nil {
		c.add(c.doc.conditions[circle[0]].place, "", "Conditions", "a circle: %s", strings.Join(circle, " → "))
	}
}

// circles finds resources that need each other.
func (c *checker) circles(needs map[string][]string) {
	const most = 10
	for range most {
		circle := findCircle(needs)
		if circle == nil {
			return
		}
		id, _, _ := strings.Cut(circle[0], "/")
		r := c.doc.resource(id)
		if r == nil {
			r = c.doc.generated(id)
		}
		if r == nil {
			return
		}
		c.add(r.place, c.doc.prefix+r.id, "", "circular dependency between resources: %s", strings.Join(circle, " → "))
		last := circle[len(circle)-2]
		needs[last] = slices.DeleteFunc(needs[last], func(to string) bool { return to == circle[0] })
	}
}

// findCircle answers a way from a name to itself; nil for none.
func findCircle(needs map[string][]string) []string {
	const (
		open = 1
		done = 2
	)
	state := map[string]int{}
	var way, circle []string
	var visit func(name string) bool
	visit = func(name string) bool {
		switch state[name] {
		case open:
			circle = append(slices.Clone(way[slices.Index(way, name):]), name)
			return true
		case done:
			return false
		}
		state[name] = open
		way = append(way, name)
		if slices.ContainsFunc(needs[name], visit) {
			return true
		}
		way = way[:len(way)-1]
		state[name] = done
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(needs)) {
		if visit(name) {
			return circle
		}
	}
	return nil
}

// merge answers what Globals and a function say together, as SAM does it: maps name by name,
// lists one after the other, and of two other values the function's.
func merge(defaults, own *node) *node {
	switch {
	case defaults.kind == list && own.kind == list:
		return &node{place: own.place, kind: list, items: slices.Concat(defaults.items, own.items)}
	case defaults.kind != table || own.kind != table:
		return own
	}
	out := &node{place: own.place, kind: table}
	for i, key := range defaults.keys {
		value := defaults.items[i]
		if mine := own.get(key.text); mine != nil {
			value = merge(value, mine)
		}
		out.keys, out.items = append(out.keys, key), append(out.items, value)
	}
	for i, key := range own.keys {
		if defaults.get(key.text) == nil {
			out.keys, out.items = append(out.keys, key), append(out.items, own.items[i])
		}
	}
	return out
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}
