package main

import (
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"runnerhub/infra/lambdahost"
)

// cells answers the rows of the first table of a text after a line that starts so.
func cells(t *testing.T, text, start string) (rows [][]string) {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n"+start)
	if !found {
		t.Fatalf("docs/aws.md has no line that starts with %q", start)
	}
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") {
			if rows != nil {
				break
			}
			continue
		}
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	if len(rows) < 3 {
		t.Fatalf("docs/aws.md has no table after %q", start)
	}
	return rows[2:]
}

// TestDocumentedCost holds the cost table of docs/aws.md to the prices it names: each sum is its count times its price.
func TestDocumentedCost(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, row := range cells(t, string(text), "### What is done") {
		said = append(said, row[1])
	}
	items := bill{}.items()
	for _, i := range items {
		if !slices.ContainsFunc(said, func(cell string) bool { return strings.HasPrefix(cell, i.said) }) {
			t.Errorf("docs/aws.md has no price that begins with %q", i.said)
		}
	}
	number := regexp.MustCompile(`^([0-9]+(?:\.([0-9]+))?)( ms| KB)?$`)
	sums := make([]float64, 3)
	rows := cells(t, string(text), "These are the calls that")
	if len(rows) != len(items)+1 {
		t.Fatalf("docs/aws.md counts %d things, and %d have a price", len(rows)-1, len(items))
	}
	for n, row := range rows {
		for column := range sums {
			cost, err := strconv.ParseFloat(strings.Trim(row[2+2*column], "*"), 64)
			if err != nil {
				t.Fatal(err)
			}
			if n == len(items) {
				if math.Abs(cost-sums[column]) > 0.001 {
					t.Errorf("column %d sums up to %.2f, not to %.2f", column+1, sums[column], cost)
				}
				continue
			}
			sums[column] += cost
			i, count := items[n], number.FindStringSubmatch(row[1+2*column])
			if !strings.HasPrefix(row[0], i.what) || count == nil || count[3] != i.unit {
				t.Errorf("row %q, column %d: %q is no count of %s in%s", row[0], column+1, row[1+2*column], i.what, i.unit)
				continue
			}
			amount, _ := strconv.ParseFloat(count[1], 64)
			// A count that is measured is rounded.
			slack := 0.0051
			if i.unit != "" {
				slack += 0.5 * math.Pow10(-len(count[2])) * i.dollars * million
			}
			if want := amount * i.dollars * million; math.Abs(cost-want) > slack {
				t.Errorf("%s, column %d: %s at %s come to %.2f a million, not to %.2f", i.what, column+1, row[1+2*column], i.said, want, cost)
			}
		}
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	did := func(function string, calls ...string) work {
		w := work{Invocation: lambdahost.Invocation{Function: function, Took: 10 * time.Millisecond}}
		for _, name := range calls {
			service, action, _ := strings.Cut(name, " ")
			c := lambdahost.Call{Service: service, Action: action}
			if service == "dynamodb" {
				c.Units = 2
			}
			w.calls = append(w.calls, c)
		}
		return w
	}
	l := life{
		works: []work{
			did("WebhookFunction", "dynamodb GetItem", "sqs SendMessage"),
			did("DispatchFunction", "dynamodb TransactWriteItems", "sqs SendMessage"),
			did("BuildsFunction", "dynamodb TransactWriteItems"),
			did("ReportFunction", "dynamodb Query", "bitbucket POST /2.0/repositories/a/b/commit/c/statuses/build"),
			did("ReportFunction", "kms Decrypt"),
		},
		polls:   map[string]lambdahost.Polls{"deliveries": {Batches: 1}, "reports": {Batches: 1}},
		printed: map[string]int{"WebhookFunction": 150, "ReportFunction": 300, "SweepFunction": 1_000_000},
	}
	want := []string{
		"accepted pushes: HTTP API: 1 = 1.00, Lambda, calls: 1 = 0.20, Lambda, duration: 10 ms = 0.03, DynamoDB, read units: 2 = 0.25, DynamoDB, write units: 0 = 0.00, " +
			"SQS, sent, received and deleted: 3 = 1.20, KMS: 0 = 0.00, Secrets Manager: 0 = 0.00, functions' logs: 0.5 KB = 0.25",
		"builds, CodeBuild apart: HTTP API: 1 = 1.00, Lambda, calls: 4 = 0.80, Lambda, duration: 40 ms = 0.13, DynamoDB, read units: 2 = 0.25, DynamoDB, write units: 4 = 2.50, " +
			"SQS, sent, received and deleted: 3 = 1.20, KMS: 1 = 3.00, Secrets Manager: 0 = 0.00, functions' logs: 1.7 KB = 0.85",
		"statuses: HTTP API: 0 = 0.00, Lambda, calls: 1 = 0.20, Lambda, duration: 10 ms = 0.03, DynamoDB, read units: 2 = 0.25, DynamoDB, write units: 0 = 0.00, " +
			"SQS, sent, received and deleted: 3 = 1.20, KMS: 0 = 0.00, Secrets Manager: 0 = 0.00, functions' logs: 0.5 KB = 0.25",
	}
	if got := figureCost(l, map[string]bool{"WebhookFunction": true, "BuildsFunction": true}).notes; !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}
