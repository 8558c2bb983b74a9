package template_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"runnerhub/infra/template"
	"runnerhub/shared/budget"
	"runnerhub/shared/grant"
	"runnerhub/shared/queue"
)

const (
	account = "123456789012"
	region  = "eu-central-1"

	ownMetrics = "RunnerHub/hub" // made of logs, see TestFilters
)

// deployed resolves the deployment's own template.
func deployed(t *testing.T, parameters map[string]string) *template.Stack {
	t.Helper()
	parsed, err := template.Parse("../..")
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(template.Site{Name: "hub", Region: region, Account: account, Parameters: parameters})
	if err != nil {
		t.Fatal(err)
	}
	return stack
}

// ids answers a text with the ids of resources instead of their ARNs.
func ids(s *template.Stack) func(string) string {
	var pairs []string
	name := func(arn, id string) { pairs = append(pairs, arn, id) }
	for _, q := range s.Queues {
		name(q.ARN, q.ID)
	}
	for _, t := range s.Tables {
		name(t.ARN, t.ID)
	}
	for _, k := range s.Keys {
		name(k.ARN, k.ID)
	}
	for _, x := range s.Secrets {
		name(x.ARN, x.ID)
	}
	for _, p := range s.Projects {
		name(p.ARN, p.ID)
	}
	for _, l := range s.LogGroups {
		name(l.ARN, l.ID)
	}
	for _, g := range s.ScheduleGroups {
		name(strings.Replace(g.ARN, ":schedule-group/", ":schedule/", 1)+"/*", g.ID)
	}
	for _, r := range s.Roles {
		name(r.ARN, r.ID)
	}
	byARN := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		byARN[pairs[i]] = pairs[i+1]
	}
	return func(arn string) string {
		if id := byARN[arn]; id != "" {
			return id
		}
		return arn
	}
}

// lines answers a policy as lines "action resource", with the conditions behind, ordered.
func lines(s *template.Stack, p template.Policy) []string {
	id := ids(s)
	var out []string
	for _, statement := range p {
		for _, action := range statement.Actions {
			for _, resource := range statement.Resources {
				line := action + " " + id(resource)
				if statement.Effect != "Allow" {
					line = statement.Effect + " " + line
				}
				for _, c := range statement.Conditions {
					line += fmt.Sprintf(" if %s %s %s", c.Key, c.Operator, strings.Join(c.Values, ","))
				}
				out = append(out, line)
			}
		}
	}
	slices.Sort(out)
	return out
}

// cross answers each action with each resource.
func cross(actions, resources, condition string) []string {
	var out []string
	for action := range strings.FieldsSeq(actions) {
		for resource := range strings.FieldsSeq(resources) {
			out = append(out, action+" "+resource+condition)
		}
	}
	return out
}

// TestLeastPrivilege holds what each role may do, to the letter. An addition here is an
// addition to what somebody can do who has taken over that function.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	const (
		table, deliveries, reports, events = "Data.Table", "Data.DeliveriesQueue", "Data.ReportsQueue", "Data.EventsDeadQueue"
		schedulesDead                      = "Data.SchedulesDeadQueue"
		project, buildLog                  = "Builds.Project", "Builds.Log"
		ifToken                            = " if kms:EncryptionContext:purpose StringEquals bitbucket-token"
		ifHook                             = " if kms:EncryptionContext:purpose StringEquals hook-secret"
	)
	state := cross("dynamodb:GetItem dynamodb:BatchGetItem dynamodb:Query dynamodb:ConditionCheckItem dynamodb:UpdateItem dynamodb:DeleteItem", table, "")
	tokens := cross("kms:GenerateDataKey kms:Decrypt", "Data.TokensKey", ifToken)
	consumer := cross("secretsmanager:GetSecretValue", "Data.ConsumerSecret", "")
	send := func(queues string) []string { return cross("sqs:SendMessage", queues, "") }
	consume := func(queue string) []string {
		return cross("sqs:ReceiveMessage sqs:DeleteMessage sqs:ChangeMessageVisibility sqs:GetQueueAttributes", queue, "")
	}
	write := func(log string) []string { return cross("logs:CreateLogStream logs:PutLogEvents", log, "") }
	read := func(log string) []string { return cross("logs:DescribeLogStreams logs:GetLogEvents", log, "") }
	timetable := slices.Concat(
		cross("scheduler:GetSchedule scheduler:CreateSchedule scheduler:UpdateSchedule scheduler:DeleteSchedule", "Builds.ScheduleGroup", ""),
		cross("iam:PassRole", "Builds.ScheduleRole", " if iam:PassedToService StringEquals scheduler.amazonaws.com"),
	)
	want := map[string][]string{
		"WebhookRole": slices.Concat(
			cross("dynamodb:GetItem", table, " if dynamodb:LeadingKeys ForAllValues:StringLike HOOK#*"),
			send(deliveries),
			cross("kms:Decrypt", "Data.HooksKey", ifHook),
		),
		"AuthRole":      slices.Concat(state, tokens, consumer),
		"ReposRole":     slices.Concat(state, tokens, consumer, cross("kms:GenerateDataKey kms:Decrypt", "Data.HooksKey", ifHook)),
		"AppsRole":      state,
		"BuildsRole":    slices.Concat(state, tokens, consumer, send(deliveries+" "+reports), read(buildLog)),
		"SchedulesRole": slices.Concat(state, timetable),
		"DispatchRole": slices.Concat(
			state, tokens, consumer, consume(deliveries), send(deliveries+" "+reports), cross("codebuild:StartBuild codebuild:StopBuild codebuild:BatchGetBuilds", project, ""),
			write(buildLog), read(buildLog),
		),
		"ReportRole": slices.Concat(
			state, tokens, consumer, consume(reports), send(deliveries+" "+reports+" "+events), cross("codebuild:BatchGetBuilds", project, ""),
		),
		"RefreshRole":         slices.Concat(state, tokens, consumer),
		"SweepRole":           slices.Concat(state, send(deliveries+" "+reports), cross("codebuild:BatchGetBuilds codebuild:StopBuild", project, ""), timetable),
		"Builds.Role":         write(buildLog),
		"Builds.ScheduleRole": send(deliveries + " " + schedulesDead),
	}
	stack := deployed(t, nil)
	for _, f := range stack.Functions {
		name := strings.TrimSuffix(f.ID, "Function")
		if f.Role != name+"Role" {
			t.Errorf("%s has the role %s", f.ID, f.Role)
		}
		if want[f.Role] == nil {
			t.Errorf("%s is not in this table", f.ID)
		}
		want[f.Role] = append(slices.Clone(want[f.Role]), write(name+"Log")...)
	}
	seen := map[string]bool{}
	for _, role := range stack.Roles {
		seen[role.ID] = true
		t.Run(role.ID, func(t *testing.T) {
			t.Parallel()
			got, expected := lines(stack, role.Policy), slices.Sorted(slices.Values(want[role.ID]))
			for _, line := range got {
				if !slices.Contains(expected, line) {
					t.Errorf("may, and should not: %s", line)
				}
			}
			for _, line := range expected {
				if !slices.Contains(got, line) {
					t.Errorf("may not: %s", line)
				}
			}
			if len(role.Managed) > 0 {
				t.Errorf("has the managed policies %v, which are for every resource", role.Managed)
			}
			for _, s := range role.Policy {
				for _, action := range s.Actions {
					if strings.ContainsAny(action, "*?") {
						t.Errorf("has the action %s: name each", action)
					}
				}
				for _, resource := range s.Resources {
					if !strings.Contains(resource, ":"+account+":") || strings.Contains(strings.TrimSuffix(resource, "*"), "*") {
						t.Errorf("%v is for the resource %s: name it", s.Actions, resource)
					}
				}
			}
			reachable(t, stack, role)
		})
	}
	for id := range want {
		if !seen[id] {
			t.Errorf("there is no role %s", id)
		}
	}
}

// reachable complains of permissions that the resource's own policy takes away again, as that
// of a key does for a role it does not name.
func reachable(t *testing.T, stack *template.Stack, role template.Role) {
	t.Helper()
	for _, s := range role.Policy {
		context := map[string][]string{}
		for _, c := range s.Conditions {
			for _, value := range c.Values {
				context[c.Key] = append(context[c.Key], strings.ReplaceAll(value, "*", "x"))
			}
		}
		for _, action := range s.Actions {
			for _, resource := range s.Resources {
				if !stack.May(role, action, strings.TrimSuffix(resource, "*"), context) {
					t.Errorf("%s on %s is allowed by the role and denied by the resource", action, resource)
				}
			}
		}
	}
}

// TestWebhookCannot goes through what the function must not do that the whole world can reach,
// beside the little that it must: read hooks, open their secrets, send to one queue.
func TestWebhookCannot(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	role, ok := stack.Role("WebhookRole")
	if !ok {
		t.Fatal("there is no such role")
	}
	item := func(key string) map[string][]string { return map[string][]string{"dynamodb:LeadingKeys": {key}} }
	sealed := func(purpose string) map[string][]string {
		return map[string][]string{"kms:EncryptionContext:purpose": {purpose}, "kms:EncryptionContext:owner": {"x"}}
	}
	arn := map[string]string{}
	for _, q := range stack.Queues {
		arn[q.ID] = q.ARN
	}
	for _, k := range stack.Keys {
		arn[k.ID] = k.ARN
	}
	table := stack.Tables[0].ARN
	for _, test := range []struct {
		action, resource string
		context          map[string][]string
		want             bool
	}{
		{"dynamodb:GetItem", table, item("HOOK#1"), true},
		{"dynamodb:GetItem", table, item("BUILD#1"), false},
		{"dynamodb:GetItem", table, item("CONNECTION#1"), false},
		{"dynamodb:BatchGetItem", table, map[string][]string{"dynamodb:LeadingKeys": {"HOOK#1", "BUILD#1"}}, false},
		{"dynamodb:Query", table, item("HOOK#1"), false},
		{"dynamodb:Scan", table, nil, false},
		{"dynamodb:UpdateItem", table, item("HOOK#1"), false},
		{"sqs:SendMessage", arn["Data.DeliveriesQueue"], nil, true},
		{"sqs:ReceiveMessage", arn["Data.DeliveriesQueue"], nil, false},
		{"sqs:SendMessage", arn["Data.ReportsQueue"], nil, false},
		{"kms:Decrypt", arn["Data.HooksKey"], sealed("hook-secret"), true},
		{"kms:Decrypt", arn["Data.HooksKey"], sealed("bitbucket-token"), false},
		{"kms:Decrypt", arn["Data.HooksKey"], nil, false},
		{"kms:GenerateDataKey", arn["Data.HooksKey"], sealed("hook-secret"), false},
		{"kms:Decrypt", arn["Data.TokensKey"], sealed("bitbucket-token"), false},
		{"kms:Decrypt", arn["Data.TokensKey"], sealed("hook-secret"), false},
	} {
		if got := stack.May(role, test.action, test.resource, test.context); got != test.want {
			t.Errorf("%s on %s with %v: %v", test.action, test.resource, test.context, got)
		}
	}
	other := 0
	for _, r := range stack.Roles {
		for _, s := range r.Policy {
			for _, action := range s.Actions {
				service, _, _ := strings.Cut(action, ":")
				if slices.Contains([]string{"codebuild", "scheduler", "secretsmanager", "iam"}, service) {
					other++
					for _, resource := range s.Resources {
						if stack.May(role, action, resource, map[string][]string{"iam:PassedToService": {"scheduler.amazonaws.com"}}) {
							t.Errorf("%s on %s", action, resource)
						}
					}
				}
			}
		}
	}
	if other < 8 {
		t.Errorf("only %d such permissions are in the template", other)
	}
}

// TestBuildCannot is about what keeps builds apart, which share a role and a group of logs: none may list or read logs, so that each
// knows the name of its own alone, nor look at another build, whose stream and ticket stand in what CodeBuild answers.
func TestBuildCannot(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	role, ok := stack.Role("Builds.Role")
	if !ok || len(stack.Projects) != 1 {
		t.Fatal("there is no such role or project")
	}
	resources := []string{"*", stack.Projects[0].ARN}
	for _, l := range stack.LogGroups {
		resources = append(resources, l.ARN, strings.TrimSuffix(l.ARN, ":*"), strings.TrimSuffix(l.ARN, "*")+"log-stream:x")
	}
	for _, action := range []string{
		"logs:DescribeLogStreams", "logs:DescribeLogGroups", "logs:GetLogEvents", "logs:FilterLogEvents", "logs:GetLogRecord", "logs:StartQuery", "logs:StartLiveTail",
		"logs:CreateExportTask", "logs:PutSubscriptionFilter", "logs:DeleteLogStream", "codebuild:BatchGetBuilds", "codebuild:ListBuilds", "codebuild:ListBuildsForProject",
	} {
		for _, resource := range resources {
			if stack.May(role, action, resource, nil) {
				t.Errorf("a build may %s on %s", action, resource)
			}
		}
	}
}

// TestKeys looks at what the keys themselves say, whatever another policy of the account allows.
func TestKeys(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	may := map[string]map[string][]string{
		"Data.HooksKey":  {"kms:Decrypt": {"WebhookRole", "ReposRole"}, "kms:GenerateDataKey": {"ReposRole"}},
		"Data.TokensKey": {},
	}
	users := []string{"AuthRole", "ReposRole", "BuildsRole", "DispatchRole", "ReportRole", "RefreshRole"}
	may["Data.TokensKey"]["kms:Decrypt"], may["Data.TokensKey"]["kms:GenerateDataKey"] = users, users
	purposes := map[string]string{"Data.HooksKey": "hook-secret", "Data.TokensKey": "bitbucket-token"}
	if len(stack.Keys) != len(may) {
		t.Errorf("there are %d keys", len(stack.Keys))
	}
	for _, key := range stack.Keys {
		if !key.Rotates || key.Deletion != "RetainExceptOnCreate" || key.PendingDays < 30 {
			t.Errorf("%s does not rotate, or can get lost: %+v", key.ID, key)
		}
		// A role that may do everything with every key is let through by the key alone.
		for _, role := range stack.Roles {
			all := role
			all.Policy = template.Policy{{Effect: "Allow", Actions: []string{"*"}, Resources: []string{"*"}}}
			for _, action := range []string{
				"kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:CreateGrant",
			} {
				for _, purpose := range []string{"hook-secret", "bitbucket-token", ""} {
					context := map[string][]string{"kms:EncryptionContext:purpose": {purpose}}
					want := slices.Contains(may[key.ID][action], role.ID) && purpose == purposes[key.ID]
					if got := stack.May(all, action, key.ARN, context); got != want {
						t.Errorf("%s lets %s %s for %q: %v", key.ID, role.ID, action, purpose, got)
					}
				}
			}
		}
	}
}

// TestTrust says who may take a role.
func TestTrust(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	special := map[string]string{
		"Builds.Role":         "codebuild.amazonaws.com if aws:SourceAccount StringEquals " + account + " if aws:SourceArn ArnEquals arn:aws:codebuild:" + region + ":" + account + ":project/hub-builds",
		"Builds.ScheduleRole": "scheduler.amazonaws.com if aws:SourceAccount StringEquals " + account + " if aws:SourceArn ArnEquals arn:aws:scheduler:" + region + ":" + account + ":schedule-group/hub",
	}
	for _, role := range stack.Roles {
		want := "lambda.amazonaws.com"
		if special[role.ID] != "" {
			want = special[role.ID]
		}
		got := ""
		for _, s := range role.Trust {
			got += strings.TrimPrefix(strings.Join(s.Principals, " "), "Service:")
			for _, c := range s.Conditions {
				got += fmt.Sprintf(" if %s %s %s", c.Key, c.Operator, strings.Join(c.Values, ","))
			}
			if s.Effect != "Allow" || !slices.Equal(s.Actions, []string{"sts:AssumeRole"}) {
				t.Errorf("%s: %+v", role.ID, s)
			}
		}
		if got != want {
			t.Errorf("%s is for %s, not %s", role.ID, got, want)
		}
	}
}

// TestQueues looks for a way in which a message gets lost, or nobody hears of it.
func TestQueues(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	byARN := map[string]template.Queue{}
	for _, q := range stack.Queues {
		byARN[q.ARN] = q
		if !q.Encrypted {
			t.Errorf("%s is not encrypted", q.ID)
		}
		plain := map[string][]string{"aws:SecureTransport": {"false"}}
		if role, _ := stack.Role("DispatchRole"); stack.May(role, "sqs:SendMessage", q.ARN, plain) {
			t.Errorf("%s takes messages that anybody on the way can read", q.ID)
		}
	}
	dead := map[string]bool{} // by id
	for _, s := range stack.Sources {
		q, _ := stack.Queue(s.Queue)
		f, _ := stack.Function(s.Function)
		if !s.ReportsFailures {
			t.Errorf("%s: one message that fails takes its batch along", s.Function)
		}
		if q.Visibility < 6*f.Timeout+s.Window {
			t.Errorf("%s hides a message for %v, and %s has it for %v", q.ID, q.Visibility, f.ID, f.Timeout)
		}
		if q.MaxReceives != 20 {
			t.Errorf("%s: a message is a dead letter after %d tries", q.ID, q.MaxReceives)
		}
		letters := byARN[q.DeadLetter]
		if letters.ID == "" || letters.Retention < q.Retention {
			t.Errorf("%s: its dead letters are kept for %v", q.ID, letters.Retention)
		}
		dead[letters.ID] = true
		if role, _ := stack.Role(f.Role); role.Policy.Allows("sqs:SendMessage", q.ARN, nil) && !f.Recursive {
			t.Errorf("%s leaves messages in its own queue, and Lambda would take that for a loop", f.ID)
		}
	}
	if len(stack.Sources) != 2 {
		t.Errorf("%d queues are consumed", len(stack.Sources))
	}
	for _, rule := range stack.Rules {
		letters := byARN[rule.DeadLetter]
		dead[letters.ID] = true
		context := map[string][]string{"aws:SourceArn": {rule.ARN}, "aws:SecureTransport": {"true"}}
		if !letters.Policy.For("Service:events.amazonaws.com").Allows("sqs:SendMessage", letters.ARN, context) {
			t.Errorf("EventBridge may not leave what %s did not take of %s in %q", rule.Function, rule.ARN, letters.ID)
		}
		f, _ := stack.Function(rule.Function)
		role, _ := stack.Role(f.Role)
		dead[byARN[f.Async.DeadLetter].ID] = true
		if !role.Policy.Allows("sqs:SendMessage", f.Async.DeadLetter, nil) {
			t.Errorf("%s may not leave what it fails on in %q", f.ID, f.Async.DeadLetter)
		}
	}
	for _, f := range stack.Functions { // who makes schedules names the queue of those that could not be sent
		if arn := f.Environment["RUNNERHUB_SCHEDULES_DEAD_QUEUE_ARN"]; arn != "" {
			dead[byARN[arn].ID] = true
		} else if f.Environment["RUNNERHUB_SCHEDULE_GROUP"] != "" {
			t.Errorf("%s makes schedules without dead letters", f.ID)
		}
	}
	if len(dead) != 4 {
		t.Errorf("the queues of dead letters are %v", dead)
	}
	for id := range dead {
		q, _ := stack.Queue(id)
		if !slices.ContainsFunc(stack.Alarms, func(a template.Alarm) bool {
			return a.Namespace == "AWS/SQS" && a.Metric == "ApproximateNumberOfMessagesVisible" && a.Dimensions["QueueName"] == q.Name && len(a.Actions) > 0
		}) {
			t.Errorf("nobody hears of dead letters in %q", id)
		}
		if q.DeadLetter != "" || q.Retention != 14*24*time.Hour {
			t.Errorf("dead letters in %s: %+v", id, q)
		}
	}
}

// TestAlarms finds alarms on what is not there: those look fine for ever.
func TestAlarms(t *testing.T) {
	t.Parallel()
	stack := deployed(t, map[string]string{"AlarmEmail": "ops@example.com"})
	topic := stack.Topics[0]
	known := map[string]bool{stack.API.Key: true}
	for _, q := range stack.Queues {
		known[q.Name] = true
	}
	for _, f := range stack.Functions {
		known[f.Name] = true
	}
	for route := range stack.API.Routes {
		known[route] = true
	}
	watched := func(namespace, metric, dimension, value, missing string) {
		known[value] = true
		if !slices.ContainsFunc(stack.Alarms, func(a template.Alarm) bool {
			return a.Namespace == namespace && a.Metric == metric && a.Dimensions[dimension] == value && a.Missing == missing
		}) {
			t.Errorf("nobody hears of %s %s of %s", namespace, metric, value)
		}
	}
	rules := slices.DeleteFunc(slices.Clone(stack.Rules), func(r template.Rule) bool {
		sources, _ := r.Pattern["source"].([]any)
		return slices.Contains(sources, any("aws.ecs")) // nothing runs there yet
	})
	for _, arn := range append(ruleARNs(rules), rateARNs(stack.Rates)...) {
		_, name, _ := strings.Cut(arn, ":rule/")
		watched("AWS/Events", "FailedInvocations", "RuleName", name, "notBreaching")
	}
	for _, r := range stack.Rates {
		f, _ := stack.Function(r.Function)
		watched("AWS/Lambda", "Errors", "FunctionName", f.Name, "notBreaching")
		watched("AWS/Lambda", "Invocations", "FunctionName", f.Name, "breaching")
	}
	for _, g := range stack.ScheduleGroups {
		watched("AWS/Scheduler", "TargetErrorCount", "ScheduleGroup", g.Name, "notBreaching")
		watched("AWS/Scheduler", "InvocationDroppedCount", "ScheduleGroup", g.Name, "notBreaching")
	}
	for _, a := range stack.Alarms {
		for name, value := range a.Dimensions {
			if !known[value] && a.Namespace != ownMetrics {
				t.Errorf("%s looks at %s %s, which is not there", a.ID, name, value)
			}
		}
		if !slices.Contains(a.Actions, topic.ARN) || len(a.Dimensions) == 0 {
			t.Errorf("%s tells %v of %v", a.ID, a.Actions, a.Dimensions)
		}
	}
	from := map[string][]string{"aws:SourceAccount": {account}}
	if !topic.Policy.For("Service:cloudwatch.amazonaws.com").Allows("sns:Publish", topic.ARN, from) || len(stack.Alarms) < 5 {
		t.Error("no alarm is told")
	}
	if topic.Policy.For("AWS:arn:aws:iam::"+account+":root").Allows("sns:Publish", topic.ARN, from) {
		t.Error("more than alarms publishes")
	}
}

// TestFilters hands the filters of logs the lines that they are for: one on words that nobody logs counts nothing, for ever.
func TestFilters(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	request := func(status, route string) string {
		return strings.NewReplacer("$context.status", status, "$context.routeKey", route).Replace(stack.API.Logged)
	}
	const api, hooks = "/aws/vendedlogs/hub-api", "POST /hooks/{hook}"
	dispatch, _ := stack.Function("DispatchFunction")
	report, _ := stack.Function("ReportFunction")
	heard := map[string]bool{} // alarms
	for _, test := range []struct{ group, line, counted string }{
		{api, request("202", hooks), ""},
		{api, request("400", hooks), ""},
		{api, request("429", hooks), "Refused Route=" + hooks},
		{api, request("429", "GET /"), ""},
		{api, request("500", hooks), "Failed Route=" + hooks},
		{api, request("503", hooks), "Failed Route=" + hooks},
		{api, request("500", "POST /api/tokens"), ""},
		{dispatch.LogGroup, triedAgain(t, "dispatch", 5), ""},
		{dispatch.LogGroup, triedAgain(t, "dispatch", 6), "TriedAgain Queue=deliveries"},
		{dispatch.LogGroup, triedAgain(t, "dispatch", 19), "TriedAgain Queue=deliveries"},
		{report.LogGroup, triedAgain(t, "report", 5), ""},
		{report.LogGroup, triedAgain(t, "report", 6), "TriedAgain Queue=reports"},
	} {
		var counted []string
		for _, f := range stack.Filters {
			metric, dimensions, ok := count(t, f, test.line)
			if f.LogGroup != test.group || !ok {
				continue
			}
			counted = append(counted, metric)
			i := slices.IndexFunc(stack.Alarms, func(a template.Alarm) bool {
				return a.Namespace == f.Namespace && a.Metric == f.Metric && maps.Equal(a.Dimensions, dimensions)
			})
			if i < 0 {
				t.Errorf("nobody hears of %s", metric)
				continue
			}
			heard[stack.Alarms[i].ID] = true
		}
		if got := strings.Join(counted, ", "); got != test.counted {
			t.Errorf("%s counts %q for %s, not %q", test.group, got, test.line, test.counted)
		}
	}
	for _, a := range stack.Alarms {
		if a.Namespace == ownMetrics && !heard[a.ID] {
			t.Errorf("nothing that is logged is counted for %s", a.ID)
		}
	}
}

// triedAgain is what a function logs of a message that failed for the given time.
func triedAgain(t *testing.T, function string, attempt int) string {
	t.Helper()
	source, err := os.ReadFile("../../functions/" + function + "/main.go")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`lambdaio\.Messages\{.*Name: "(\w+)"`).FindSubmatch(source)
	if name == nil {
		t.Fatalf("%s gives its queue no name in the log", function)
	}
	var line bytes.Buffer
	fails := func(context.Context, queue.Message) error { return errors.New("it failed") }
	m := queue.Message{ID: "m", Attempt: attempt, Deadline: time.Now().Add(time.Hour)}
	if !queue.Work(t.Context(), fails, m, string(name[1]), slog.New(slog.NewJSONHandler(&line, nil))).Again {
		t.Fatal("a message that failed is gone")
	}
	return line.String()
}

// count answers what f makes of a line, as CloudWatch would, where its pattern is one of conditions on fields that all have to hold.
func count(t *testing.T, f template.Filter, line string) (metric string, dimensions map[string]string, ok bool) {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	inner, found := strings.CutPrefix(f.Pattern, "{ ")
	inner, found2 := strings.CutSuffix(inner, " }")
	if !found || !found2 {
		t.Fatalf("%s: %s", f.ID, f.Pattern)
	}
	for condition := range strings.SplitSeq(inner, " && ") {
		parts := regexp.MustCompile(`^\(\$\.(\w+) (?:= "([^"]+)"|>= (\d+))\)$`).FindStringSubmatch(condition)
		if parts == nil {
			t.Fatalf("%s: this test does not understand %s", f.ID, condition)
		}
		switch value := fields[parts[1]].(type) {
		case string:
			if holds, err := path.Match(parts[2], value); err != nil || !holds {
				return "", nil, false
			}
		case float64:
			if least, err := strconv.ParseFloat(parts[3], 64); err != nil || value < least {
				return "", nil, false
			}
		default:
			return "", nil, false
		}
	}
	metric, dimensions = f.Metric, map[string]string{}
	for name, field := range f.Dimensions {
		dimensions[name], _ = fields[strings.TrimPrefix(field, "$.")].(string)
		metric += " " + name + "=" + dimensions[name]
	}
	return metric, dimensions, true
}

func ruleARNs(rules []template.Rule) (arns []string) {
	for _, r := range rules {
		arns = append(arns, r.ARN)
	}
	return arns
}

func rateARNs(rates []template.Rate) (arns []string) {
	for _, r := range rates {
		arns = append(arns, r.Caller)
	}
	return arns
}

// TestNames makes every name out of the longest name that a stack may have, in the region with the longest one. A name that is too long
// would be refused in the middle of a deployment.
func TestNames(t *testing.T) {
	t.Parallel()
	parsed, err := template.Parse("../..")
	if err != nil {
		t.Fatal(err)
	}
	const longest = 32 // in deploy.sh and docs/aws.md, too
	site := template.Site{Name: strings.Repeat("s", longest), Region: "ap-southeast-1", Account: account}
	stack, err := parsed.Resolve(site)
	if err != nil {
		t.Fatal(err)
	}
	fits := func(what, name string, limit int) {
		if name == "" || len(name) > limit {
			t.Errorf("%s is called %s, which has %d characters and may have %d", what, name, len(name), limit)
		}
	}
	after := func(arn, mark string) string { _, name, _ := strings.Cut(arn, mark); return name }
	for _, f := range stack.Functions {
		fits(f.ID, f.Name, 64)
	}
	for _, r := range stack.Roles {
		fits(r.ID, after(r.ARN, ":role/"), 64)
	}
	for _, q := range stack.Queues {
		fits(q.ID, q.Name, 80)
	}
	for _, arn := range append(ruleARNs(stack.Rules), rateARNs(stack.Rates)...) {
		fits(arn, after(arn, ":rule/"), 64)
	}
	for _, g := range stack.ScheduleGroups {
		fits(g.ID, g.Name, 64)
	}
	for _, p := range stack.Projects {
		fits(p.ID, p.Name, 150)
	}
	for _, a := range stack.Alarms {
		fits(a.ID, a.Name, 255)
	}
	for _, l := range stack.LogGroups {
		fits(l.ID, l.Name, 512)
	}
	site.Name += "s"
	if _, err := parsed.Resolve(site); err == nil || !strings.Contains(err.Error(), "above 32 characters") {
		t.Errorf("a longer name: %v", err)
	}
}

// TestKept looks at what outlives the stack, and what ends.
func TestKept(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	for _, x := range stack.Tables {
		if !x.PointInTimeRecovery || !x.DeletionProtection || x.Deletion != "Retain" || x.Partition != "pk" || x.Sort != "sk" || x.Expiry != "expires_at" {
			t.Errorf("the table is %+v", x)
		}
	}
	for _, x := range stack.Buckets {
		if !x.PublicBlocked || !x.OwnerEnforced || x.Encryption == "" || len(x.Lifecycle) == 0 || x.Deletion != "RetainExceptOnCreate" {
			t.Errorf("the bucket is %+v", x)
		}
		role := template.Role{ARN: "arn:aws:iam::" + account + ":role/x", Policy: template.Policy{{Effect: "Allow", Actions: []string{"*"}, Resources: []string{"*"}}}}
		if stack.May(role, "s3:GetObject", x.ARN+"/x", map[string][]string{"aws:SecureTransport": {"false"}}) {
			t.Errorf("%s is read without TLS", x.ID)
		}
	}
	named := map[string]bool{}
	for _, x := range stack.LogGroups {
		named[x.Name] = true
		if x.RetentionDays == 0 {
			t.Errorf("%s grows for ever", x.ID)
		}
	}
	for _, f := range stack.Functions {
		if !named[f.LogGroup] {
			t.Errorf("%s writes into %s, which is not the template's", f.ID, f.LogGroup)
		}
	}
	if len(stack.Tables) != 1 || len(stack.Buckets) != 1 || len(stack.Secrets) != 1 || !named[stack.Projects[0].LogGroup] {
		t.Errorf("the stack is %+v", stack)
	}
	if stack.API.LogGroup == "" {
		t.Error("the API has no log")
	}
}

// TestPublic says who is reached from outside.
func TestPublic(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	public := map[string]bool{}
	for _, r := range stack.Routes {
		public[r.Function] = true
		if f, _ := stack.Function(r.Function); f.Timeout >= r.Timeout {
			t.Errorf("%s answers after %v, when the API has given up", f.ID, f.Timeout)
		}
	}
	for _, p := range stack.Permissions {
		if !public[p.Function] || p.Principal != "apigateway.amazonaws.com" {
			t.Errorf("%s may call %s", p.Principal, p.Function)
		}
	}
	for _, inner := range []string{"DispatchFunction", "ReportFunction", "RefreshFunction", "SweepFunction"} {
		if f, ok := stack.Function(inner); !ok || public[f.ID] {
			t.Errorf("%s has a public route, or is not there", inner)
		}
	}
	if hook := stack.API.Routes["POST /hooks/{hook}"]; hook.Rate == 0 || hook.Burst == 0 || stack.API.Throttle.Rate == 0 || stack.API.Throttle.Burst == 0 {
		t.Errorf("the throttles are %+v, %+v", stack.API.Throttle, stack.API.Routes)
	}
	for _, f := range stack.Functions {
		if f.Runtime != "provided.al2023" || f.Handler != "bootstrap" || f.Architecture != "arm64" || f.Built != "makefile" {
			t.Errorf("%s: %+v", f.ID, f)
		}
	}
	// What starts a function again and again leaves repeating to the next time.
	for _, r := range stack.Rates {
		if f, _ := stack.Function(r.Function); r.Every != time.Minute || r.Retries != 0 || f.Async.Retries != 0 {
			t.Errorf("%s: %+v, %+v", f.ID, r, f.Async)
		}
	}
}

// TestBudgets holds the functions' timeouts against how their time is divided: Lambda kills what is at work when it is over, and
// what came of a call by then has to be recorded, the new tokens of a connection first of all.
func TestBudgets(t *testing.T) {
	t.Parallel()
	stack := deployed(t, nil)
	paths := map[string][]string{}
	for _, r := range stack.Routes {
		paths[r.Function] = append(paths[r.Function], r.Path)
	}
	for _, f := range stack.Functions {
		role, _ := stack.Role(f.Role)
		may := func(action string) bool {
			return slices.ContainsFunc(role.Policy, func(s template.Statement) bool { return slices.Contains(s.Actions, action) })
		}
		need := budget.Recording + budget.Telling + budget.Request // a batch has no less time for its work than a request
		switch {
		case slices.Equal(paths[f.ID], []string{"/hooks/{hook}"}):
			need = budget.Hook + budget.Answer
			if may("dynamodb:UpdateItem") {
				t.Errorf("%s writes, and there is no time for it after its work", f.ID)
			}
		case paths[f.ID] != nil:
			need = budget.Request + budget.Recording + budget.Answer
		}
		if f.Timeout < need {
			t.Errorf("%s is killed after %v, and needs %v", f.ID, f.Timeout, need)
		}
		if after := 5 * time.Second; may("secretsmanager:GetSecretValue") && f.Timeout-max(budget.Answer, budget.Telling) < after+grant.Needs {
			t.Errorf("%s is killed after %v, and cannot renew a token that it needs %v after its start", f.ID, f.Timeout, after)
		}
	}
}

// TestOnlyHTTPS is about where tokens are sent.
func TestOnlyHTTPS(t *testing.T) {
	t.Parallel()
	parsed, err := template.Parse("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"BitbucketApiUrl", "BitbucketWebUrl", "PublicUrl"} {
		for _, address := range []string{"http://bitbucket.example.com", "http://127.0.0.1:7990", "ftp://x.example.com", "https://user@x.example.com", "https://x.example.com/?a=b"} {
			_, err := parsed.Resolve(template.Site{Name: "hub", Region: region, Account: account, Parameters: map[string]string{name: address}})
			if err == nil || !strings.Contains(err.Error(), "AllowedPattern") {
				t.Errorf("%s may be %s: %v", name, address, err)
			}
		}
	}
}

// TestParameters resolves with what a deployment can be given.
func TestParameters(t *testing.T) {
	t.Parallel()
	stack := deployed(t, map[string]string{
		"PublicUrl": "https://ci.example.com", "BitbucketClientSecret": "s3cret", "DeletionProtection": "false", "Architecture": "x86_64",
		"AllowedBitbucketWorkspaces": "{a}, b", "BuildConcurrency": "20", "HookConcurrency": "25",
	})
	hooks, _ := stack.Function("WebhookFunction")
	if usual, _ := deployed(t, nil).Function("WebhookFunction"); usual.Concurrency != 0 || hooks.Concurrency != 25 {
		t.Errorf("%d of the webhook function are kept, and %d where 25 are asked for", usual.Concurrency, hooks.Concurrency)
	}
	f, _ := stack.Function("DispatchFunction")
	auth, _ := stack.Function("AuthFunction")
	if f.Environment["PUBLIC_URL"] != "https://ci.example.com" || f.Environment["RUNNERHUB_CONCURRENCY"] != "20" || f.Architecture != "x86_64" ||
		auth.Environment["ALLOWED_BITBUCKET_WORKSPACES"] != "{a}, b" || stack.Tables[0].DeletionProtection || stack.Secrets[0].Value != "s3cret" {
		t.Errorf("%+v, %+v", f, auth.Environment)
	}
	for _, f := range stack.Functions {
		for name, value := range f.Environment {
			if strings.Contains(value, "s3cret") {
				t.Errorf("%s has a secret in %s", f.ID, name)
			}
		}
	}
	for _, value := range stack.Outputs {
		if strings.Contains(value, "s3cret") {
			t.Error("the outputs have a secret")
		}
	}
}
