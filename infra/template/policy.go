package template

import (
	"fmt"
	"slices"
	"strings"
)

// Policy is what a principal may do, or what may be done with a resource: the statements of
// all its documents together.
type Policy []Statement

// Statement is one statement of an IAM policy. NotAction, NotResource and NotPrincipal are
// refused when a template is read.
type Statement struct {
	Effect     string   // Allow or Deny
	Actions    []string // "service:Action", with * and ?
	Resources  []string // ARNs, with * and ?
	Conditions []Condition
	// Principals are whom a resource's policy or a role's trust is about, as "AWS:arn:…",
	// "Service:name" or "*".
	Principals []string
	// Source is the ARN of the managed policy that brings the statement; empty for what the
	// template says itself.
	Source string
}

// Condition is one key of a statement's Condition.
type Condition struct {
	Operator string // such as "ForAllValues:StringLike"
	Key      string
	Values   []string
}

const (
	allow = "Allow"
	deny  = "Deny"
)

// Allows decides as IAM does: a Deny that applies wins, else an Allow that applies is needed.
// An action without a resource is asked for on "*". Keys of the context are found in any case,
// such as "dynamodb:LeadingKeys". It does not look at principals: see For.
func (p Policy) Allows(action, resource string, context map[string][]string) bool {
	allowed, denied := p.decide(action, resource, context)
	return allowed && !denied
}

func (p Policy) decide(action, resource string, context map[string][]string) (allowed, denied bool) {
	for _, s := range p {
		if s.applies(action, resource, context) {
			allowed = allowed || s.Effect == allow
			denied = denied || s.Effect == deny
		}
	}
	return allowed, denied
}

// May decides whether who has a role may do something, by the role's policy and the policy of
// the resource, as AWS does within one account: a Deny in either wins; a key's own policy has
// to allow it and may leave the rest to the role's; of another resource either is enough.
// The context is completed with the role's ARN and an encrypted connection.
func (s *Stack) May(role Role, action, resource string, context map[string][]string) bool {
	full := map[string][]string{"aws:PrincipalArn": {role.ARN}, "aws:SecureTransport": {"true"}}
	for key, values := range context {
		full[key] = values
	}
	own, isKey := s.policyOf(resource)
	account := ""
	if parts := strings.Split(role.ARN, ":"); len(parts) > accountPart {
		account = parts[accountPart]
	}
	root := "AWS:arn:aws:iam::" + account + ":root"
	itself, denied := role.Policy.decide(action, resource, full)
	direct, denied2 := own.For("AWS:"+role.ARN).decide(action, resource, full)
	left, denied3 := own.For(root).decide(action, resource, full)
	switch {
	case denied || denied2 || denied3:
		return false
	case isKey:
		return direct || left && itself
	}
	return direct || itself
}

const accountPart = 4 // of an ARN

// policyOf answers the policy of a resource.
func (s *Stack) policyOf(arn string) (p Policy, isKey bool) {
	for _, k := range s.Keys {
		if k.ARN == arn {
			return k.Policy, true
		}
	}
	for _, q := range s.Queues {
		if q.ARN == arn {
			return q.Policy, false
		}
	}
	for _, b := range s.Buckets {
		if b.ARN == arn || strings.HasPrefix(arn, b.ARN+"/") {
			return b.Policy, false
		}
	}
	for _, t := range s.Topics {
		if t.ARN == arn {
			return t.Policy, false
		}
	}
	return nil, false
}

// For answers the statements of a resource's policy that are about one of these principals,
// written as in Statement, or about everyone.
func (p Policy) For(principals ...string) Policy {
	var out Policy
	for _, s := range p {
		if slices.ContainsFunc(s.Principals, func(who string) bool {
			return who == "*" || who == "AWS:*" || slices.Contains(principals, who)
		}) {
			out = append(out, s)
		}
	}
	return out
}

func (s Statement) applies(action, resource string, context map[string][]string) bool {
	if !slices.ContainsFunc(s.Actions, func(pattern string) bool {
		return wildcard(strings.ToLower(pattern), strings.ToLower(action))
	}) {
		return false
	}
	// A * matches beyond the colons of an ARN, as IAM says it does at a segment's end.
	if !slices.ContainsFunc(s.Resources, func(pattern string) bool { return wildcard(pattern, resource) }) {
		return false
	}
	for _, c := range s.Conditions {
		if !c.holds(context, s.Effect) {
			return false
		}
	}
	return true
}

// operator is a condition's operator, taken apart.
type operator struct {
	set      string // ForAllValues, ForAnyValue, or empty
	negated  bool
	ifExists bool
	base     string // without Not
	match    func(pattern, value string) bool
}

func parseOperator(name string) (operator, error) {
	var o operator
	rest := name
	for _, set := range []string{"ForAllValues", "ForAnyValue"} {
		if after, ok := strings.CutPrefix(rest, set+":"); ok {
			o.set, rest = set, after
		}
	}
	rest, o.ifExists = strings.CutSuffix(rest, "IfExists")
	for _, family := range []string{"String", "Arn"} {
		if after, ok := strings.CutPrefix(rest, family+"Not"); ok {
			o.negated, rest = true, family+after
		}
	}
	o.base = rest
	switch rest {
	case "StringEquals":
		o.match = func(pattern, value string) bool { return pattern == value }
	case "StringEqualsIgnoreCase":
		o.match = strings.EqualFold
	case "StringLike":
		o.match = wildcard
	case "ArnEquals", "ArnLike": // IAM takes them for the same
		o.match = arnLike
	case "Bool":
		o.match = strings.EqualFold
	case "Null":
		if o.set != "" || o.ifExists {
			return operator{}, fmt.Errorf("the operator %s is not understood", shown(name))
		}
	default:
		return operator{}, fmt.Errorf("the operator %s is not understood", shown(name))
	}
	return o, nil
}

// holds decides the condition for one request. Where IAM does not say what happens, an Allow
// does not apply and a Deny does.
func (c Condition) holds(context map[string][]string, effect string) bool {
	o, err := parseOperator(c.Operator)
	if err != nil {
		return effect == deny
	}
	values, exists := lookup(context, c.Key)
	if o.base == "Null" {
		return slices.ContainsFunc(c.Values, func(v string) bool { return strings.EqualFold(v, "true") != exists })
	}
	one := func(value string) bool {
		any := slices.ContainsFunc(c.Values, func(pattern string) bool { return o.match(pattern, value) })
		return any != o.negated
	}
	switch {
	case !exists:
		return o.set == "ForAllValues" || o.set == "" && (o.ifExists || o.negated)
	case o.set == "ForAllValues":
		return !slices.ContainsFunc(values, func(v string) bool { return !one(v) })
	case o.set == "ForAnyValue":
		return slices.ContainsFunc(values, one)
	case len(values) != 1:
		return effect == deny
	}
	return one(values[0])
}

// lookup finds a key of the context in any case. A key without a value does not exist.
func lookup(context map[string][]string, key string) (values []string, exists bool) {
	for k, v := range context {
		if strings.EqualFold(k, key) {
			values = append(values, v...)
		}
	}
	return values, len(values) > 0
}

// arnLike compares ARNs part by part: a * does not match beyond a colon, but in the last part.
func arnLike(pattern, value string) bool {
	const parts = 6
	patterns, values := strings.SplitN(pattern, ":", parts), strings.SplitN(value, ":", parts)
	if len(patterns) != parts || len(values) != parts {
		return false
	}
	for i := range parts {
		if !wildcard(patterns[i], values[i]) {
			return false
		}
	}
	return true
}

// wildcard reports whether pattern, in which * is any characters and ? is one, is all of value.
func wildcard(pattern, value string) bool {
	p, v := []rune(pattern), []rune(value)
	i, j := 0, 0
	star, taken := -1, 0 // the last *, and how far it has taken
	for j < len(v) {
		switch {
		case i < len(p) && p[i] == '*':
			star, taken = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == v[j]):
			i++
			j++
		case star >= 0:
			taken++
			i, j = star+1, taken
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

const (
	managedPrefix  = "arn:aws:iam::aws:policy/"
	basicExecution = managedPrefix + "service-role/AWSLambdaBasicExecutionRole"
	queueExecution = managedPrefix + "service-role/AWSLambdaSQSQueueExecutionRole"
)

// arnOfManaged answers the ARN of a policy that SAM lets be called by its name.
func arnOfManaged(name string) string {
	for _, arn := range []string{basicExecution, queueExecution} {
		if arn[strings.LastIndexByte(arn, '/')+1:] == name {
			return arn
		}
	}
	return name
}

// managed answers what a managed policy of AWS allows, as its documentation says; nil for one
// that is not known here. The first is in every role that SAM makes for a function, the second
// in that of a function with a queue: both are for every resource, which a role of the
// template's own avoids.
func managed(arn string) Policy {
	actions := []string{"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"}
	switch arn {
	case basicExecution:
	case queueExecution:
		actions = append([]string{"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}, actions...)
	default:
		return nil
	}
	return Policy{{Effect: allow, Actions: actions, Resources: []string{"*"}, Source: arn}}
}
