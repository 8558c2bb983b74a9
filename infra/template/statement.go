package template

import "strings"

// owner is whose policy a document is, which decides what its statements have to say.
type owner int

const (
	ofRole     owner = iota // the role is the principal
	ofResource              // principals and the resource
	ofTrust                 // of a role: principals, and the role is the resource
)

// document reads a policy document, whose form was checked before it was evaluated.
func (m *made) document(v *view, key string, n *node, of owner) Policy {
	var p Policy
	for _, n := range several(n.get("Statement")) {
		s := statement(n)
		for _, wrong := range s.wrong(of) {
			m.add(n.place, v.resource, join(v.at, key), "%s", wrong)
		}
		p = append(p, s)
	}
	return p
}

func statement(n *node) Statement {
	s := Statement{Actions: words(n.get("Action")), Resources: words(n.get("Resource"))}
	if effect := n.get("Effect"); effect != nil {
		s.Effect = effect.text
	}
	if who := n.get("Principal"); who != nil && who.kind == scalar {
		s.Principals = append(s.Principals, who.text)
	} else if who != nil {
		for i, kind := range who.keys {
			for _, name := range words(who.items[i]) {
				s.Principals = append(s.Principals, kind.text+":"+name)
			}
		}
	}
	if conditions := n.get("Condition"); conditions != nil {
		for i, operator := range conditions.keys {
			keys := conditions.items[i]
			for j, key := range keys.keys {
				s.Conditions = append(s.Conditions, Condition{operator.text, key.text, words(keys.items[j])})
			}
		}
	}
	return s
}

// wrong says what is wrong with a statement's values.
func (s Statement) wrong(of owner) (wrong []string) {
	for _, missing := range []struct {
		is   bool
		what string
	}{
		{s.Effect != allow && s.Effect != deny, "Effect is neither Allow nor Deny"},
		{len(s.Actions) == 0, "there is no Action"},
		{len(s.Resources) == 0 && of != ofTrust, "there is no Resource"},
		{len(s.Resources) > 0 && of == ofTrust, "there is a Resource, and the role is it"},
		{len(s.Principals) == 0 && of != ofRole, "there is no Principal"},
		{len(s.Principals) > 0 && of == ofRole, "there is a Principal, and the role is it"},
	} {
		if missing.is {
			wrong = append(wrong, missing.what)
		}
	}
	for _, action := range s.Actions {
		if action != "*" && strings.Count(action, ":") != 1 {
			wrong = append(wrong, shown(action)+" is no action")
		}
	}
	for _, resource := range s.Resources {
		if resource != "*" && !strings.HasPrefix(resource, "arn:") {
			wrong = append(wrong, shown(resource)+" is no ARN")
		}
	}
	values := append(append([]string{}, s.Actions...), s.Resources...)
	for _, c := range s.Conditions {
		values = append(values, c.Values...)
	}
	for _, value := range values {
		if strings.Contains(value, "${") {
			wrong = append(wrong, "the variable in "+shown(value)+" is not understood")
		}
	}
	return wrong
}

// several answers the items of a list, or the one value that stands for a list.
func several(n *node) []*node {
	switch {
	case n == nil:
		return nil
	case n.kind == list:
		return n.items
	}
	return []*node{n}
}

// words answers a text or several.
func words(n *node) []string {
	var out []string
	for _, item := range several(n) {
		out = append(out, item.text)
	}
	return out
}
