package aws_test

import (
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"runnerhub/infra/template"
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
