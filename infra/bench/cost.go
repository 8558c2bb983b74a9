package main

import (
	"fmt"
	"strings"
	"time"
)

// platformLog is how many bytes Lambda writes about an invocation into the function's own log group, beside what the function
// prints: the lines START (71), END (52) and REPORT (about 150, and more after a start), each with some 26 of its own.
const platformLog = 350

const million = 1e6

// bill is what something used of all that.
type bill struct {
	tally
	requests int
	messages int // sends, receives and deletes of batches
	printed  int // bytes
}

// item is a row of a bill.
type item struct {
	what    string  // as docs/aws.md counts it
	said    string  // as docs/aws.md prices it
	dollars float64 // for one: the list price of us-east-1, as of 2026-11
	amount  float64
	unit    string
}

// items are what is paid for by the piece. Memory is that of the template's functions, 0.25 GB.
func (b bill) items() []item {
	took, keys := float64(b.took)/float64(time.Millisecond), b.calls["kms Decrypt"]+b.calls["kms GenerateDataKey"]
	return []item{
		{"HTTP API", "1.00 a million", 1.00 / million, float64(b.requests), ""},
		{"Lambda, calls", "0.20 a million", 0.20 / million, float64(b.events), ""},
		{"Lambda, duration", "0.0000133334 a GB-second", 0.0000133334 * 0.25 / 1000, took, " ms"},
		{"DynamoDB, read units", "0.125 a million units", 0.125 / million, float64(b.reads), ""},
		{"DynamoDB, write units", "0.625 a million units", 0.625 / million, float64(b.writes), ""},
		{"SQS, sent, received and deleted", "0.40 a million", 0.40 / million, float64(b.messages), ""},
		{"KMS", "0.03 a 10,000", 0.03 / 10_000, float64(keys), ""},
		{"Secrets Manager", "0.05 a 10,000", 0.05 / 10_000, float64(b.calls["secretsmanager GetSecretValue"]), ""},
		{"functions' logs", "0.50 a GB written", 0.50 / million, float64(b.printed+b.events*platformLog) / 1000, " KB"},
	}
}

// of divides what n of something cost by n, and answers a row for each price, in dollars for a million.
func (b bill) of(n int) (rows []string, together float64) {
	for _, i := range b.items() {
		amount := i.amount / float64(max(n, 1))
		cost := amount * i.dollars * million
		together += cost
		rows = append(rows, fmt.Sprintf("%s: %s%s = %.2f", i.what, strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.1f", amount), "0"), "."), i.unit, cost))
	}
	return rows, together
}

// charge answers the bill of events, but for what the queues are asked. The functions that answer requests are routed.
func (l life) charge(works []work, routed map[string]bool) bill {
	b := bill{tally: sum(works)}
	all := by(l.works, func(w work) string { return w.Function })
	for id, some := range by(works, func(w work) string { return w.Function }) {
		if routed[id] {
			b.requests += len(some)
		}
		b.printed += l.printed[id] * len(some) / len(all[id])
	}
	return b
}

// figureCost is what docs/aws.md tells of a million pushes, builds and statuses.
func figureCost(warm life, routed map[string]bool) figure {
	parts := by(warm.works, func(w work) string {
		if function(w) == "webhook" {
			return "pushed"
		}
		return "built"
	})
	pushed, built, posts := warm.charge(parts["pushed"], routed), warm.charge(parts["built"], routed), statuses(warm)
	posted := warm.charge(posts, routed)
	sends := func(b bill) int { return b.calls["sqs SendMessage"] + b.calls["sqs SendMessageBatch"] }
	batches := 0
	for _, p := range warm.polls {
		batches += p.Batches
	}
	// Each batch is received and deleted, by a call each. That of a push has its delivery, that of a status what asks for it.
	pushed.messages = 3 * sends(pushed)
	built.messages = sends(built) + 2*(batches-sends(pushed))
	posted.messages = 3 * len(posts)
	f := figure{what: "cost of a million", reach: "counted", reached: true}
	var measured []string
	for _, b := range []struct {
		name string
		bill
		n int
	}{{"accepted pushes", pushed, 1}, {"builds, CodeBuild apart", built, 1}, {"statuses", posted, len(posts)}} {
		rows, together := b.of(b.n)
		measured = append(measured, fmt.Sprintf("%s $%.2f", b.name, together))
		f.notes = append(f.notes, b.name+": "+strings.Join(rows, ", "))
	}
	f.measured = strings.Join(measured, "; ")
	return f
}
