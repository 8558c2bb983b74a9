package aws_test

import (
	"encoding/json"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"runnerhub/infra/template"
	"runnerhub/shared/ingest"
	"runnerhub/shared/message"
)

// page is docs/aws.md.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section answers the rows of the first table below a heading, cell by cell, without its head.
func section(t *testing.T, heading string) [][]string {
	t.Helper()
	_, rest, found := strings.Cut(page(t), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/aws.md has no heading %q", heading)
	}
	var rows [][]string
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if rows != nil {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("docs/aws.md has no table below %q", heading)
	}
	return rows[2:]
}

// names are what stands in code in a cell.
func names(cell string) []string {
	var all []string
	for _, m := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}

func resolved(t *testing.T) (*template.Template, *template.Stack) {
	t.Helper()
	parsed, err := template.Parse("../..")
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(template.Site{Name: "hub", Region: "eu-central-1", Account: "123456789012"})
	if err != nil {
		t.Fatal(err)
	}
	return parsed, stack
}

func same(t *testing.T, what string, documented, there []string) {
	t.Helper()
	slices.Sort(documented)
	slices.Sort(there)
	if !slices.Equal(documented, there) {
		t.Errorf("docs/aws.md has the %s %q, the template has %q", what, documented, there)
	}
}

func TestDocumentedParameters(t *testing.T) {
	t.Parallel()
	parsed, _ := resolved(t)
	var documented []string
	for _, row := range section(t, "### Parameters") {
		documented = append(documented, names(row[0])...)
	}
	same(t, "parameters", documented, slices.Clone(parsed.Parameters()))
}

func TestDocumentedAlarms(t *testing.T) {
	t.Parallel()
	_, stack := resolved(t)
	var documented, there []string
	for _, row := range section(t, "## When something goes wrong") {
		documented = append(documented, names(row[0])...)
	}
	for _, alarm := range stack.Alarms {
		there = append(there, strings.Replace(alarm.Name, "hub", "…", 1))
	}
	same(t, "alarms", documented, there)
}

// TestDocumentedPermissions compares the table with the roles, in the table's words.
func TestDocumentedPermissions(t *testing.T) {
	t.Parallel()
	_, stack := resolved(t)
	words := map[string]string{ // by the actions on a resource
		"dynamodb:GetItem": "reads hooks",
		"dynamodb:BatchGetItem dynamodb:ConditionCheckItem dynamodb:DeleteItem dynamodb:GetItem dynamodb:Query dynamodb:UpdateItem": "reads, writes",
		"sqs:SendMessage": "sends",
		"sqs:ChangeMessageVisibility sqs:DeleteMessage sqs:GetQueueAttributes sqs:ReceiveMessage sqs:SendMessage": "sends, consumes",
		"kms:Decrypt":                     "opens",
		"kms:Decrypt kms:GenerateDataKey": "seals, opens",
		"secretsmanager:GetSecretValue":   "reads",
		"codebuild:BatchGetBuilds codebuild:StartBuild codebuild:StopBuild": "starts, looks, stops",
		"codebuild:BatchGetBuilds":                                                                         "looks",
		"logs:DescribeLogStreams logs:GetLogEvents":                                                        "reads",
		"codebuild:BatchGetBuilds codebuild:StopBuild":                                                     "looks, stops",
		"logs:CreateLogStream logs:DescribeLogStreams logs:GetLogEvents logs:PutLogEvents":                 "reads, writes",
		"scheduler:CreateSchedule scheduler:DeleteSchedule scheduler:GetSchedule scheduler:UpdateSchedule": "reads, changes",
		"": "–",
	}
	group := strings.Replace(stack.ScheduleGroups[0].ARN, ":schedule-group/", ":schedule/", 1) + "/*"
	columns := []string{stack.Tables[0].ARN, "", "", "", "", stack.Secrets[0].ARN, stack.Projects[0].ARN, "", group}
	for _, q := range stack.Queues {
		switch q.ID {
		case "Data.DeliveriesQueue":
			columns[1] = q.ARN
		case "Data.ReportsQueue":
			columns[2] = q.ARN
		}
	}
	for _, k := range stack.Keys {
		switch k.ID {
		case "Data.TokensKey":
			columns[3] = k.ARN
		case "Data.HooksKey":
			columns[4] = k.ARN
		}
	}
	for _, g := range stack.LogGroups {
		if g.ID == "Builds.Log" {
			columns[7] = g.ARN
		}
	}
	rows := map[string][]string{}
	for _, row := range section(t, "## What each function may do") {
		rows[row[0]] = row[1:]
	}
	for _, f := range stack.Functions {
		name := strings.ToLower(strings.TrimSuffix(f.ID, "Function"))
		row := rows[name]
		delete(rows, name)
		if len(row) != len(columns) {
			t.Errorf("docs/aws.md has no row for %s", name)
			continue
		}
		for i, resource := range columns {
			actions := map[string]bool{}
			for _, s := range f.Policy {
				if slices.Contains(s.Resources, resource) {
					for _, action := range s.Actions {
						actions[action] = true
					}
				}
			}
			may := strings.Join(slices.Sorted(maps.Keys(actions)), " ")
			if word, ok := words[may]; !ok || word != row[i] {
				t.Errorf("%s: docs/aws.md says %q of %s, where it may %q", name, row[i], resource, may)
			}
		}
	}
	for name := range rows {
		t.Errorf("docs/aws.md has a row for %s, which is not there", name)
	}
}

// TestDocumentedRestore holds what is stopped for a restore against what there is: every function that may write to the table, every
// queue that is worked on and every minute; and that it is set back as the template has it.
func TestDocumentedRestore(t *testing.T) {
	t.Parallel()
	_, stack := resolved(t)
	var writers, works, ticks []string
	for _, f := range stack.Functions {
		name := strings.TrimPrefix(f.Name, "hub-")
		if f.Timeout > time.Minute {
			t.Errorf("docs/aws.md waits a minute, and %s may work for %s", name, f.Timeout)
		}
		writes := slices.ContainsFunc(f.Policy, func(s template.Statement) bool {
			return s.Effect == "Allow" && slices.Contains(s.Resources, stack.Tables[0].ARN) && slices.ContainsFunc(s.Actions, func(action string) bool {
				return !slices.Contains([]string{"dynamodb:GetItem", "dynamodb:BatchGetItem", "dynamodb:Query", "dynamodb:ConditionCheckItem"}, action)
			})
		})
		if !writes {
			continue
		}
		writers = append(writers, name)
		if f.Concurrency != 0 {
			t.Errorf("%s has a reserved concurrency of %d, which docs/aws.md does not set back", name, f.Concurrency)
		}
		for _, s := range stack.Sources {
			if s.Function == f.ID {
				works = append(works, name)
			}
		}
	}
	if len(works) != len(stack.Sources) {
		t.Errorf("%d functions that write work on %d queues", len(works), len(stack.Sources))
	}
	for _, r := range stack.Rates {
		_, rule, _ := strings.Cut(r.Caller, ":rule/hub-")
		ticks = append(ticks, rule)
	}
	columns := []struct{ mapping, rule, function string }{
		{`update-event-source-mapping --no-enabled --uuid`, `aws events disable-rule --name`, `aws lambda put-function-concurrency --function-name $stack-$f --reserved-concurrent-executions 0`},
		{`update-event-source-mapping --enabled --uuid`, `aws events enable-rule --name`, `aws lambda delete-function-concurrency --function-name $stack-$f`},
	}
	for i, c := range columns {
		var mappings, rules, functions []string
		for _, row := range section(t, "### Backup and restore") {
			command := strings.Trim(row[1+i], "`")
			each := regexp.MustCompile(`^for \w+ in ([a-z ]+);`).FindStringSubmatch(command)
			switch {
			case strings.Contains(command, c.mapping):
				mappings = append(mappings, regexp.MustCompile(`--function-name \$stack-(\w+) `).FindStringSubmatch(command)[1])
			case each != nil && strings.Contains(command, c.rule+" $stack-$rule;"):
				rules = strings.Fields(each[1])
			case each != nil && strings.Contains(command, c.function+";"):
				functions = strings.Fields(each[1])
			default:
				t.Errorf("docs/aws.md has the command %q", command)
			}
		}
		same(t, "queues' functions in a restore", mappings, slices.Clone(works))
		same(t, "rules in a restore", rules, slices.Clone(ticks))
		same(t, "functions in a restore", functions, slices.Clone(writers))
	}
}

// TestMessagesFit holds the queue of deliveries and its dead letters to the largest message there is, whenever they were made.
func TestMessagesFit(t *testing.T) {
	t.Parallel()
	_, stack := resolved(t)
	long := strings.Repeat("x", 128)
	largest, err := json.Marshal(message.Dispatch{Delivery: &message.Delivery{
		ID: long, Hook: long, App: long, Workspace: long, Event: long, RequestID: long, ReceivedAt: time.Now(), Body: make([]byte, ingest.MaxBody),
	}})
	if err != nil {
		t.Fatal(err)
	}
	fit := 0
	for _, q := range stack.Queues {
		if !strings.HasPrefix(q.ID, "Data.Deliveries") {
			continue
		}
		if fit++; len(largest) > q.MaxBytes {
			t.Errorf("queue %s takes %d bytes, and a delivery has up to %d", q.Name, q.MaxBytes, len(largest))
		}
	}
	if fit != 2 {
		t.Errorf("there are %d queues of deliveries", fit)
	}
}

// TestIdle sums up what nothing costs, which deploy.sh says before it deploys, and README.md to ten cents.
func TestIdle(t *testing.T) {
	t.Parallel()
	_, stack := resolved(t)
	var sum, together float64
	counted := map[string]int{"KMS keys": len(stack.Keys), "alarms": len(stack.Alarms), "the consumer's secret": len(stack.Secrets)}
	for _, row := range section(t, "### Idle") {
		amount, err := strconv.ParseFloat(strings.Trim(row[2], "*"), 64)
		if err != nil {
			t.Fatal(err)
		}
		if row[0] == "**together**" {
			together = amount
			continue
		}
		sum += amount
		if n, ok := counted[row[0]]; ok {
			delete(counted, row[0])
			if !strings.HasPrefix(row[1], strconv.Itoa(n)+" × ") {
				t.Errorf("there are %d %s, and docs/aws.md counts %q", n, row[0], row[1])
			}
		}
	}
	if len(counted) > 0 || math.Abs(sum-together) > 0.001 {
		t.Errorf("docs/aws.md sums up to %.2f instead of %.2f, and leaves out %v", together, sum, counted)
	}
	script, err := os.ReadFile("deploy.sh")
	if err != nil {
		t.Fatal(err)
	}
	if said := "\nidle=" + strconv.FormatFloat(together, 'f', 2, 64) + " "; !strings.Contains(string(script), said) {
		t.Errorf("deploy.sh has no line that begins with %q", said[1:])
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if said := "(about $" + strconv.FormatFloat(together, 'f', 1, 64) + "0 a month)"; !strings.Contains(string(readme), said) {
		t.Errorf("README.md does not say %q", said)
	}
}

// TestOneMiniStack holds the two lists of what is installed to one version: the tests of drivers and those of the
// deployment speak of the same emulator.
func TestOneMiniStack(t *testing.T) {
	t.Parallel()
	var versions []string
	for _, list := range []string{"requirements.txt", "../ministack/requirements.txt"} {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		version := regexp.MustCompile(`(?m)^ministack==(\S+)`).FindSubmatch(text)
		if version == nil {
			t.Fatalf("%s has no MiniStack", list)
		}
		versions = append(versions, string(version[1]))
	}
	if versions[0] != versions[1] {
		t.Errorf("MiniStack is installed as %q", versions)
	}
}
