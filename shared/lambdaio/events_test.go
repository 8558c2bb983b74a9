package lambdaio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/shared/budget"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
)

// paused keeps the pauses that messages were given.
type paused struct {
	mu     sync.Mutex
	pauses map[string]time.Duration // by receipt
	err    error
}

func (p *paused) Receipt(handle string) string { return "receipt of " + handle }

func (p *paused) Retry(ctx context.Context, receipt string, delay time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pauses == nil {
		p.pauses = map[string]time.Duration{}
	}
	p.pauses[receipt] = delay
	return p.err
}

// batch is n messages as AWS's own types have them, with the ids 1 to n, which are their bodies, too.
func batch(t *testing.T, n int) []byte {
	t.Helper()
	var e events.SQSEvent
	for i := range n {
		id := strconv.Itoa(i + 1)
		e.Records = append(e.Records, events.SQSMessage{
			MessageId: id, ReceiptHandle: "handle " + id, Body: id, EventSource: "aws:sqs", EventSourceARN: "arn:aws:sqs:us-east-1:1:q",
			Attributes: map[string]string{"ApproximateReceiveCount": "3", "SentTimestamp": "1700000000000"},
		})
	}
	payload, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func handler(t *testing.T, e Events) lambda.Handler {
	t.Helper()
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	h, err := e.Handler()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// failed hands a batch on and answers the ids that Lambda is told not to delete.
func failed(ctx context.Context, t *testing.T, h lambda.Handler, payload []byte) map[string]bool {
	t.Helper()
	out, err := h.Invoke(ctx, payload)
	if err != nil {
		t.Fatal(err)
	}
	var r events.SQSEventResponse
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, f := range r.BatchItemFailures {
		ids[f.ItemIdentifier] = true
	}
	if !bytes.Contains(out, []byte(`"batchItemFailures":[`)) {
		t.Errorf("the answer is %s, of which Lambda takes nothing for a report", out)
	}
	return ids
}

// Each message of a batch fares as its handler says, whatever becomes of the others.
func TestPartsOfABatchFail(t *testing.T) {
	t.Parallel()
	asked := fault.New(fault.RateLimited, "slow down")
	asked.RetryAfter = 7 * time.Minute
	answers := map[string]error{
		"1": nil, "2": fault.New(fault.Invalid, "nonsense"), "3": fault.New(fault.Unavailable, "later"), "4": errors.New("broken"), "5": asked,
	}
	var log bytes.Buffer
	q := &paused{}
	h := handler(t, Events{Log: slog.New(slog.NewTextHandler(&log, nil)), Messages: &Messages{Queue: q, Name: "deliveries", Handle: func(_ context.Context, m queue.Message) error {
		if m.ID == "6" {
			panic("a bug")
		}
		if m.Receipt != "receipt of handle "+m.ID || m.Attempt != 3 || !m.SentAt.Equal(time.UnixMilli(1700000000000)) {
			t.Errorf("the message is %+v", m)
		}
		return answers[string(m.Body)]
	}}})
	got := failed(t.Context(), t, h, batch(t, 6))
	if fmt.Sprint(got) != "map[3:true 4:true 5:true 6:true]" {
		t.Errorf("to be delivered again: %v", got)
	}
	if len(q.pauses) != 4 || q.pauses["receipt of handle 5"] != 7*time.Minute {
		t.Errorf("the pauses are %v", q.pauses)
	}
	for _, id := range []string{"3", "4", "6"} { // of a third attempt
		if d := q.pauses["receipt of handle "+id]; d < 2*time.Second || d > 4*time.Second {
			t.Errorf("message %s waits %v", id, d)
		}
	}
	for _, want := range []string{"refused and is gone", "message=2", "nonsense", "the handler panicked"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log)
		}
	}
}

func TestAllOfABatchIsDone(t *testing.T) {
	t.Parallel()
	q := &paused{}
	h := handler(t, Events{Messages: &Messages{Queue: q, Name: "q", Handle: func(context.Context, queue.Message) error { return nil }}})
	if got := failed(t.Context(), t, h, batch(t, 25)); len(got)+len(q.pauses) != 0 {
		t.Errorf("failed: %v, %v", got, q.pauses)
	}
}

// A message without its pause is told of all the same: it comes again, only not when it should.
func TestAPauseThatIsNotTaken(t *testing.T) {
	t.Parallel()
	q := &paused{err: fault.New(fault.Unavailable, "x")}
	h := handler(t, Events{Messages: &Messages{Queue: q, Name: "q", Handle: func(context.Context, queue.Message) error { return errors.New("x") }}})
	if got := failed(t.Context(), t, h, batch(t, 2)); len(got) != 2 {
		t.Errorf("to be delivered again: %v", got)
	}
}

// The messages of a batch are worked on together, ten at the most.
func TestABatchAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		h := handler(t, Events{Messages: &Messages{Queue: &paused{}, Name: "q", Handle: func(context.Context, queue.Message) error {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		}}})
		began := time.Now()
		failed(t.Context(), t, h, batch(t, 25))
		if took := time.Since(began); most != 10 || took != 3*time.Second {
			t.Errorf("%d at once, %v for all", most, took)
		}
	})
}

// A handler that uses up its time leaves enough of the invocation's to say so.
func TestTimeIsLeftForPauses(t *testing.T) {
	t.Parallel()
	for limit, want := range map[time.Duration]time.Duration{60 * time.Second: 48 * time.Second, 8 * time.Second: 6 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			q := &paused{}
			began := time.Now()
			h := handler(t, Events{Messages: &Messages{Queue: q, Name: "q", Handle: func(ctx context.Context, _ queue.Message) error {
				<-ctx.Done()
				return ctx.Err()
			}}})
			got := failed(ctx, t, h, batch(t, 1))
			if took := time.Since(began); took != want || len(got) != 1 || len(q.pauses) != 1 {
				t.Errorf("of %v it took %v; failed %v, pauses %v", limit, took, got, q.pauses)
			}
		})
	}
}

// changeEvent is an event of EventBridge as AWS's own type has it.
func changeEvent(t *testing.T, source, kind, detail string) []byte {
	t.Helper()
	payload, err := json.Marshal(events.EventBridgeEvent{
		Version: "0", ID: "7bf73129", DetailType: kind, Source: source, AccountID: "123456789012", Region: "us-east-1",
		Time: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC), Detail: json.RawMessage(detail),
	})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestChanges(t *testing.T) {
	t.Parallel()
	build := changeEvent(t, "aws.codebuild", "CodeBuild Build State Change", `{"build-status":"SUCCEEDED","build-id":"arn:build","additional-information":{}}`)
	task := changeEvent(t, "aws.ecs", "ECS Task State Change", `{"taskArn":"arn:task","lastStatus":"STOPPED"}`)
	for name, test := range map[string]struct {
		payload []byte
		answer  error
		want    Change
		fails   bool
	}{
		"a build":               {build, nil, Change{CodeBuild, "arn:build"}, false},
		"a task":                {task, nil, Change{Fargate, "arn:task"}, false},
		"of nobody here":        {build, fault.New(fault.NotFound, "x"), Change{CodeBuild, "arn:build"}, false},
		"to be asked again":     {build, fault.New(fault.Unavailable, "x"), Change{CodeBuild, "arn:build"}, true},
		"nobody knows":          {build, errors.New("x"), Change{CodeBuild, "arn:build"}, true},
		"an answer that's lost": {task, fault.New(fault.Unknown, "x"), Change{Fargate, "arn:task"}, true},
	} {
		var got Change
		h := handler(t, Events{Change: func(_ context.Context, c Change) error { got = c; return test.answer }})
		out, err := h.Invoke(t.Context(), test.payload)
		if got != test.want || (err != nil) != test.fails || len(out) != 0 {
			t.Errorf("%s: %+v, answered %q, %v", name, got, out, err)
		}
	}
	h := handler(t, Events{Change: func(context.Context, Change) error { panic("a bug") }})
	if _, err := h.Invoke(t.Context(), build); err == nil {
		t.Error("a panic is no failure")
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	var got time.Time
	h := handler(t, Events{Due: func(_ context.Context, by time.Time) error { got = by; return broken }})
	for _, source := range []string{"aws.events", "aws.scheduler"} {
		got = time.Time{}
		_, err := h.Invoke(t.Context(), changeEvent(t, source, "Scheduled Event", `{}`))
		if !errors.Is(err, broken) || !got.Equal(time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: due by %v, %v", source, got, err)
		}
	}
}

// A round that uses up its time leaves enough of the invocation's to end what it began.
func TestTimeIsLeftForEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		h := handler(t, Events{Due: func(ctx context.Context, _ time.Time) error { <-ctx.Done(); return ctx.Err() }})
		_, err := h.Invoke(ctx, changeEvent(t, "aws.events", "Scheduled Event", `{}`))
		if took := time.Since(began); err == nil || took != 48*time.Second {
			t.Errorf("it took %v, %v", took, err)
		}
	})
}

// When the time of work is over, what came of it is recorded for as long as there is room in the invocation, and no longer.
func TestTimeIsLeftForRecording(t *testing.T) {
	t.Parallel()
	records := func(ctx context.Context) error {
		<-ctx.Done()
		ctx, cancel := budget.Record(ctx)
		defer cancel()
		<-ctx.Done() // the table does not answer
		ctx, cancel = budget.Record(ctx)
		defer cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	served := func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), budget.Request)
		defer cancel()
		if records(ctx) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	q := &paused{}
	for name, test := range map[string]struct {
		limit, want time.Duration
		handler     lambda.Handler
		payload     []byte
	}{
		"a request": {29 * time.Second, 28 * time.Second, HTTP(http.HandlerFunc(served)), []byte(`{"version":"2.0","rawPath":"/","requestContext":{"domainName":"x","http":{"method":"GET","sourceIp":"::1"}}}`)},
		"a batch": {
			time.Minute, 56 * time.Second,
			handler(t, Events{Messages: &Messages{Queue: q, Name: "q", Handle: func(ctx context.Context, _ queue.Message) error { return records(ctx) }}}), batch(t, 3),
		},
		"a tick":   {time.Minute, 56 * time.Second, handler(t, Events{Due: func(ctx context.Context, _ time.Time) error { return records(ctx) }}), changeEvent(t, "aws.events", "Scheduled Event", `{}`)},
		"a change": {time.Minute, 56 * time.Second, handler(t, Events{Change: func(ctx context.Context, _ Change) error { return records(ctx) }}), changeEvent(t, "aws.codebuild", "CodeBuild Build State Change", `{"build-id":"x"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.limit)
				defer cancel()
				began := time.Now()
				out, err := test.handler.Invoke(ctx, test.payload)
				if took := time.Since(began); took != test.want || (err == nil) != (out != nil) {
					t.Errorf("it took %v, answered %s, %v", took, out, err)
				}
			})
		})
	}
}

// What nobody expects is an error, and nothing of it is worked on.
func TestUnexpectedEvents(t *testing.T) {
	t.Parallel()
	called := false
	messages := &Messages{Queue: &paused{}, Name: "q", Handle: func(context.Context, queue.Message) error { called = true; return nil }}
	changes := func(context.Context, Change) error { called = true; return nil }
	due := func(context.Context, time.Time) error { called = true; return nil }
	all := Events{Messages: messages, Change: changes, Due: due}
	one := batch(t, 1)
	build := changeEvent(t, "aws.codebuild", "CodeBuild Build State Change", `{"build-id":"arn:build"}`)
	tick := changeEvent(t, "aws.events", "Scheduled Event", `{}`)
	for name, test := range map[string]struct {
		takes   Events
		payload []byte
	}{
		"nothing":                        {all, []byte(`{}`)},
		"no JSON":                        {all, []byte(`hidden`)},
		"a call":                         {all, []byte(`{"version":"2.0","rawPath":"/","requestContext":{"http":{"method":"GET"}}}`)},
		"a test event of the console":    {all, []byte(`{"key1":"hidden"}`)},
		"no records":                     {all, []byte(`{"Records":[]}`)},
		"another phase":                  {all, changeEvent(t, "aws.codebuild", "CodeBuild Build Phase Change", `{"build-id":"arn:build"}`)},
		"a build without an id":          {all, changeEvent(t, "aws.codebuild", "CodeBuild Build State Change", `{}`)},
		"a pretender":                    {all, changeEvent(t, "com.example", "CodeBuild Build State Change", `{"build-id":"arn:build"}`)},
		"a tick without a time":          {all, []byte(`{"source":"aws.events","detail-type":"Scheduled Event","detail":{}}`)},
		"records of another service":     {all, bytes.ReplaceAll(one, []byte("aws:sqs"), []byte("aws:s3"))},
		"one among others":               {all, bytes.Replace(batch(t, 3), []byte(`"eventSource":"aws:sqs"`), []byte(`"eventSource":"aws:sns"`), 1)},
		"a message without its attempt":  {all, bytes.ReplaceAll(one, []byte(`"ApproximateReceiveCount":"3"`), []byte(`"X":"3"`))},
		"a message without a handle":     {all, bytes.ReplaceAll(one, []byte("handle 1"), nil)},
		"messages, where there are none": {Events{Change: changes, Due: due}, one},
		"a change, where there is none":  {Events{Messages: messages, Due: due}, build},
		"a tick, where there is none":    {Events{Messages: messages, Change: changes}, tick},
	} {
		out, err := handler(t, test.takes).Invoke(t.Context(), test.payload)
		if err == nil || called || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: answered %q, %v", name, out, err)
		}
	}
}

func TestHandlerRefuses(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	handle := func(context.Context, queue.Message) error { return nil }
	for name, e := range map[string]Events{
		"no log":     {Due: func(context.Context, time.Time) error { return nil }},
		"no events":  {Log: log},
		"no queue":   {Log: log, Messages: &Messages{Handle: handle, Name: "q"}},
		"no handler": {Log: log, Messages: &Messages{Queue: &paused{}, Name: "q"}},
		"no name":    {Log: log, Messages: &Messages{Queue: &paused{}, Handle: handle}},
	} {
		if _, err := e.Handler(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
