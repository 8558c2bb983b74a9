package template

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestAllows goes through what AWS documents of the elements of a policy.
func TestAllows(t *testing.T) {
	t.Parallel()
	const queue, other = "arn:aws:sqs:eu-central-1:123456789012:hub-deliveries", "arn:aws:sqs:eu-central-1:123456789012:hub-reports"
	may := func(actions, resources string, conditions ...Condition) Statement {
		return Statement{Effect: "Allow", Actions: strings.Fields(actions), Resources: strings.Fields(resources), Conditions: conditions}
	}
	mayNot := func(actions, resources string, conditions ...Condition) Statement {
		s := may(actions, resources, conditions...)
		s.Effect = "Deny"
		return s
	}
	for name, test := range map[string]struct {
		policy           Policy
		action, resource string
		want             bool
	}{
		"nothing is allowed by itself":              {nil, "sqs:SendMessage", queue, false},
		"what a statement names":                    {Policy{may("sqs:SendMessage", queue)}, "sqs:SendMessage", queue, true},
		"another action":                            {Policy{may("sqs:SendMessage", queue)}, "sqs:DeleteMessage", queue, false},
		"another resource":                          {Policy{may("sqs:SendMessage", queue)}, "sqs:SendMessage", other, false},
		"actions in any case":                       {Policy{may("SQS:sendmessage", queue)}, "sqs:SendMessage", queue, true},
		"resources in their case":                   {Policy{may("sqs:SendMessage", strings.ToUpper(queue))}, "sqs:SendMessage", queue, false},
		"one of several":                            {Policy{may("sqs:DeleteMessage sqs:SendMessage", other+" "+queue)}, "sqs:SendMessage", queue, true},
		"an action with *":                          {Policy{may("sqs:Send*", queue)}, "sqs:SendMessage", queue, true},
		"an action with ?":                          {Policy{may("sqs:SendMessag?", queue)}, "sqs:SendMessage", queue, true},
		"every action":                              {Policy{may("*", queue)}, "kms:Decrypt", queue, true},
		"a * does not hide the service":             {Policy{may("s3:*", queue)}, "sqs:SendMessage", queue, false},
		"a resource with * beyond its colons":       {Policy{may("sqs:SendMessage", "arn:aws:sqs:*")}, "sqs:SendMessage", queue, true},
		"a resource with * within":                  {Policy{may("sqs:SendMessage", "arn:aws:sqs:*:123456789012:hub-*")}, "sqs:SendMessage", queue, true},
		"an action without a resource":              {Policy{may("sqs:ListQueues", queue)}, "sqs:ListQueues", "*", false},
		"an action without a resource on *":         {Policy{may("sqs:ListQueues", "*")}, "sqs:ListQueues", "*", true},
		"a denial wins":                             {Policy{may("*", "*"), mayNot("sqs:SendMessage", queue)}, "sqs:SendMessage", queue, false},
		"a denial wins that comes first":            {Policy{mayNot("sqs:*", "*"), may("sqs:SendMessage", queue)}, "sqs:SendMessage", queue, false},
		"a denial of something else":                {Policy{may("sqs:*", "*"), mayNot("sqs:SendMessage", other)}, "sqs:SendMessage", queue, true},
		"a denial whose condition does not hold":    {Policy{may("sqs:*", "*"), mayNot("sqs:*", "*", Condition{"Bool", "aws:SecureTransport", []string{"false"}})}, "sqs:SendMessage", queue, true},
		"conditions are all to hold, not":           {Policy{may("sqs:*", "*", Condition{"StringEquals", "a", []string{"1"}}, Condition{"StringEquals", "b", []string{"1"}})}, "sqs:SendMessage", queue, false},
		"conditions are all to hold":                {Policy{may("sqs:*", "*", Condition{"StringEquals", "a", []string{"1"}}, Condition{"StringLike", "A", []string{"?"}})}, "sqs:SendMessage", queue, true},
		"statements do not add up":                  {Policy{may("sqs:SendMessage", other), may("sqs:DeleteMessage", queue)}, "sqs:SendMessage", queue, false},
		"an operator nobody knows, of an allowance": {Policy{may("sqs:*", "*", Condition{"DateLessThan", "a", []string{"1"}})}, "sqs:SendMessage", queue, false},
		"an operator nobody knows, of a denial":     {Policy{may("sqs:*", "*"), mayNot("sqs:*", "*", Condition{"DateLessThan", "a", []string{"1"}})}, "sqs:SendMessage", queue, false},
		"several values without a set, allowance":   {Policy{may("sqs:*", "*", Condition{"StringEquals", "many", []string{"x", "y"}})}, "sqs:SendMessage", queue, false},
		"several values without a set, denial":      {Policy{may("sqs:*", "*"), mayNot("sqs:*", "*", Condition{"StringEquals", "many", []string{"z"}})}, "sqs:SendMessage", queue, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			context := map[string][]string{"a": {"1"}, "b": {"2"}, "aws:SecureTransport": {"true"}, "many": {"x", "y"}}
			if got := test.policy.Allows(test.action, test.resource, context); got != test.want {
				t.Errorf("Allows(%s, %s) = %v with %+v", test.action, test.resource, got, test.policy)
			}
		})
	}
}

// TestConditions has a line for each way that an operator can go; the values are those of the
// request, none for a key that is not there.
func TestConditions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		operator, patterns string
		values             string
		want               bool
	}{
		{"StringEquals", "a", "a", true},
		{"StringEquals", "a", "A", false},
		{"StringEquals", "a b", "b", true},
		{"StringEquals", "a*", "ab", false}, // no wildcard
		{"StringEquals", "a", "", false},
		{"StringEqualsIfExists", "a", "", true},
		{"StringEqualsIfExists", "a", "b", false},
		{"StringEqualsIgnoreCase", "a", "A", true},
		{"StringNotEquals", "a b", "c", true},
		{"StringNotEquals", "a b", "b", false}, // none of them
		{"StringNotEquals", "a", "", true},
		{"StringLike", "HOOK#*", "HOOK#1", true},
		{"StringLike", "HOOK#*", "hook#1", false},
		{"StringLike", "HOOK#*", "APP#HOOK#1", false},
		{"StringLike", "HOOK#*", "", false},
		{"StringNotLike", "HOOK#*", "APP#1", true},
		{"StringNotLike", "HOOK#*", "", true},
		{"ForAllValues:StringLike", "HOOK#*", "HOOK#1 HOOK#2", true},
		{"ForAllValues:StringLike", "HOOK#*", "HOOK#1 APP#2", false},
		{"ForAllValues:StringLike", "HOOK#*", "", true},
		{"ForAllValues:StringEquals", "a b", "b a b", true},
		{"ForAllValues:StringEquals", "a b", "a c", false},
		{"ForAllValues:StringNotLike", "key1*", "key1:legal", false},
		{"ForAllValues:StringNotLike", "key1*", "key2:audit", true},
		{"ForAllValues:StringNotLike", "key1*", "", true},
		{"ForAnyValue:StringEquals", "a", "b a", true},
		{"ForAnyValue:StringEquals", "a", "b c", false},
		{"ForAnyValue:StringEquals", "a", "", false},
		{"ForAnyValue:StringEqualsIfExists", "a", "", false}, // a set without a value has none that matches
		{"ForAnyValue:StringNotEquals", "a", "a b", true},
		{"ForAnyValue:StringNotEquals", "a", "a", false},
		{"ArnLike", "arn:aws:events:*:1:rule/hub-*", "arn:aws:events:eu-central-1:1:rule/hub-x", true},
		{"ArnLike", "arn:aws:events:*:rule/hub-*", "arn:aws:events:eu-central-1:1:rule/hub-x", false}, // parts by themselves
		{"ArnEquals", "arn:aws:events:*:1:rule/hub-?", "arn:aws:events:eu-central-1:1:rule/hub-x", true},
		{"ArnEquals", "arn:aws:iam::1:role/a", "arn:aws:iam::1:role/ab", false},
		{"ArnEquals", "arn:aws:logs:*:*:log-group:a:*", "arn:aws:logs:r:1:log-group:a:log-stream:b", true},
		{"ArnEquals", "arn:aws:iam::1:role/a", "", false},
		{"ArnNotEquals", "arn:aws:iam::1:role/a", "arn:aws:iam::1:role/b", true},
		{"ArnNotLike", "arn:aws:iam::1:role/*", "arn:aws:iam::1:role/b", false},
		{"Bool", "true", "true", true},
		{"Bool", "true", "false", false},
		{"Bool", "false", "", false},
		{"BoolIfExists", "false", "", true},
		{"Null", "true", "", true},
		{"Null", "true", "a", false},
		{"Null", "false", "", false},
		{"Null", "false", "a", true},
	} {
		context := map[string][]string{"Aws:Key": strings.Fields(test.values)}
		for _, effect := range []string{allow, deny} {
			c := Condition{test.operator, "aws:key", strings.Fields(test.patterns)}
			if got := c.holds(context, effect); got != test.want {
				t.Errorf("%s %s of a request with %q, %s: %v", test.operator, test.patterns, test.values, effect, got)
			}
		}
	}
	for _, operator := range []string{"", "StringLikes", "NotEquals", "NumericEquals", "ForAllValues:Null", "NullIfExists", "forallvalues:StringLike", "IpAddress", "StringNot"} {
		if _, err := parseOperator(operator); err == nil {
			t.Errorf("the operator %s is understood", operator)
		}
	}
}

// TestMay has one role, and resources with policies of their own.
func TestMay(t *testing.T) {
	t.Parallel()
	const (
		account = "arn:aws:iam::123456789012:"
		key     = "arn:aws:kms:eu-central-1:123456789012:key/1"
		queue   = "arn:aws:sqs:eu-central-1:123456789012:q"
	)
	role := Role{ARN: account + "role/hub-webhook", Policy: Policy{{Effect: "Allow", Actions: []string{"kms:Decrypt", "sqs:*"}, Resources: []string{"*"}}}}
	says := func(effect, action, principal string, conditions ...Condition) Policy {
		return Policy{{Effect: effect, Actions: []string{action}, Resources: []string{"*"}, Principals: []string{principal}, Conditions: conditions}}
	}
	is := func(operator, key string, values ...string) Condition { return Condition{operator, key, values} }
	for name, test := range map[string]struct {
		own              Policy
		action, resource string
		want             bool
	}{
		"a key that says nothing":                {nil, "kms:Decrypt", key, false},
		"a key that leaves it to the account":    {says("Allow", "kms:*", "AWS:"+account+"root"), "kms:Decrypt", key, true},
		"and the role may not":                   {says("Allow", "kms:*", "AWS:"+account+"root"), "kms:Encrypt", key, false},
		"a key that allows the role itself":      {says("Allow", "kms:Encrypt", "AWS:"+role.ARN), "kms:Encrypt", key, true},
		"a key for another role":                 {says("Allow", "kms:*", "AWS:"+account+"role/hub-auth"), "kms:Decrypt", key, false},
		"a key for some roles of the account":    {says("Allow", "kms:*", "AWS:"+account+"root", is("ArnEquals", "aws:PrincipalArn", account+"role/hub-webhook")), "kms:Decrypt", key, true},
		"a key for other roles of the account":   {says("Allow", "kms:*", "AWS:"+account+"root", is("ArnEquals", "aws:PrincipalArn", account+"role/hub-auth")), "kms:Decrypt", key, false},
		"a queue that says nothing":              {nil, "sqs:SendMessage", queue, true},
		"a queue that takes only what is sealed": {says("Deny", "sqs:*", "*", is("Bool", "aws:SecureTransport", "false")), "sqs:SendMessage", queue, true},
		"a queue that denies":                    {says("Deny", "sqs:SendMessage", "*"), "sqs:SendMessage", queue, false},
		"a queue that allows more":               {says("Allow", "iam:Nothing", "AWS:"+role.ARN), "iam:Nothing", queue, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &Stack{Keys: []Key{{ARN: key, Policy: test.own}}, Queues: []Queue{{ARN: queue, Policy: test.own}}}
			if got := s.May(role, test.action, test.resource, nil); got != test.want {
				t.Errorf("May(%s) = %v", test.action, got)
			}
		})
	}
}

// FuzzWildcard compares the matcher with a regular expression.
func FuzzWildcard(f *testing.F) {
	for _, seed := range [][2]string{{"*", ""}, {"a*b?c*", "axxbyc"}, {"HOOK#*", "HOOK#1"}, {"**a", "aaa"}, {"?*?", "ab"}, {"ü?", "üö"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, value string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(value) || len(pattern) > 200 {
			return
		}
		quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
		want := regexp.MustCompile(`(?s)\A` + quoted + `\z`).MatchString(value)
		if got := wildcard(pattern, value); got != want {
			t.Errorf("wildcard(%q, %q) = %v", pattern, value, got)
		}
	})
}
