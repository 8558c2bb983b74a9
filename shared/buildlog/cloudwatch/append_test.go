package cloudwatch

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"runnerhub/infra/ministack"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
)

// batch is what a request to put events says.
type batch struct {
	LogGroupName, LogStreamName string
	LogEvents                   []struct {
		Timestamp int64
		Message   string
	}
}

// batches are the requests to put events, of a service.
func batches(t *testing.T, s *amazontest.Service) (all []batch) {
	t.Helper()
	for _, r := range s.Requests() {
		if !strings.HasSuffix(r.Target, ".PutLogEvents") {
			continue
		}
		var b batch
		if err := json.Unmarshal([]byte(r.Body), &b); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// stubborn answers "done" to everything.
func stubborn(t *testing.T) (*Log, *amazontest.Service) {
	return over(t, amazontest.Answer{Body: "{}"})
}

// Batches keep to what CloudWatch takes, lines to their order, and time never goes back.
func TestBatches(t *testing.T) {
	t.Parallel()
	l, service := stubborn(t)
	now := time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC)
	l.deps.Now = func() time.Time { now = now.Add(-time.Hour); return now }
	var lines []buildlog.Line
	for i := range 2*maxBatch + 5 {
		lines = append(lines, buildlog.Line{Text: fmt.Sprint(i)})
	}
	for i := range 200 {
		lines = append(lines, buildlog.Line{Text: fmt.Sprint(i) + strings.Repeat("ä", buildlog.MaxText/2-5)})
	}
	if err := l.Append(t.Context(), "b", lines...); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), "b", lines[:1]...); err != nil {
		t.Fatal(err)
	}
	lines = append(lines, lines[0])
	all, last, n := batches(t, service), int64(0), 0
	for i, b := range all {
		if b.LogGroupName != "builds" || b.LogStreamName != all[0].LogStreamName || !strings.HasPrefix(b.LogStreamName, "b/~") {
			t.Errorf("batch %d is for %s in %s", i, b.LogStreamName, b.LogGroupName)
		}
		size := 0
		for _, e := range b.LogEvents {
			size += len(e.Message) + 26
			if e.Timestamp != b.LogEvents[0].Timestamp {
				t.Errorf("batch %d has several timestamps", i)
			}
			n++
			if want := fmt.Sprintf("%d\t0001-01-01T00:00:00Z\t\t%s", n, lines[n-1].Text); e.Message != want {
				t.Fatalf("event %d is %.80q", n, e.Message)
			}
		}
		if size > 1<<20 || len(b.LogEvents) > 10_000 || len(b.LogEvents) == 0 {
			t.Errorf("batch %d has %d bytes and %d events", i, size, len(b.LogEvents))
		}
		if at := b.LogEvents[0].Timestamp; at <= last {
			t.Errorf("batch %d is at %d, the one before at %d", i, at, last)
		} else {
			last = at
		}
	}
	// 10,000 and 10,000 lines, then by bytes, then the last.
	if n != len(lines) || len(all) != 7 || len(service.Requests()) != len(all)+1 {
		t.Errorf("%d lines of %d, in %d batches and %d calls", n, len(lines), len(all), len(service.Requests()))
	}
}

func TestAppendErrors(t *testing.T) {
	t.Parallel()
	done, long := amazontest.Answer{Body: "{}"}, strings.Repeat("x", buildlog.MaxText)
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		lines   int // of 16 KiB, 63 in a batch
		calls   int
		kind    fault.Kind
		ok      bool
		says    string
	}{
		"done":                      {answers: []amazontest.Answer{done}, lines: 1, calls: 2, ok: true},
		"nothing":                   {answers: []amazontest.Answer{done}, ok: true},
		"the stream was made":       {answers: []amazontest.Answer{{Drop: true}, refusal("ResourceAlreadyExistsException"), done}, lines: 1, calls: 3, ok: true},
		"no group":                  {answers: []amazontest.Answer{refusal("ResourceNotFoundException")}, lines: 1, calls: 1, kind: fault.Internal, says: "no log group builds"},
		"no stream made":            {answers: []amazontest.Answer{refusal("ThrottlingException")}, lines: 1, calls: 3, kind: fault.Unavailable},
		"lost":                      {answers: []amazontest.Answer{done, {Drop: true}, done}, lines: 1, calls: 3, ok: true},
		"always lost":               {answers: []amazontest.Answer{done, {Drop: true}}, lines: 1, calls: 4, kind: fault.Unknown},
		"throttled for a moment":    {answers: []amazontest.Answer{done, refusal("ThrottlingException"), done}, lines: 1, calls: 3, ok: true},
		"throttled":                 {answers: []amazontest.Answer{done, refusal("ThrottlingException")}, lines: 1, calls: 4, kind: fault.Unavailable},
		"throttled in the middle":   {answers: []amazontest.Answer{done, done, refusal("ThrottlingException")}, lines: 100, calls: 5, kind: fault.Unknown},
		"refused":                   {answers: []amazontest.Answer{done, refusal("AccessDeniedException")}, lines: 1, calls: 2, kind: fault.Internal},
		"too old for CloudWatch":    {answers: []amazontest.Answer{done, {Body: `{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1}}`}}, lines: 1, calls: 2, kind: fault.Internal, says: "clock"},
		"too new, in the middle":    {answers: []amazontest.Answer{done, done, {Body: `{"rejectedLogEventsInfo":{"tooNewLogEventStartIndex":0}}`}}, lines: 100, calls: 3, kind: fault.Unknown},
		"the stream is gone":        {answers: []amazontest.Answer{done, refusal("ResourceNotFoundException"), done}, lines: 1, calls: 4, ok: true},
		"the stream is always gone": {answers: []amazontest.Answer{done, refusal("ResourceNotFoundException"), done, refusal("ResourceNotFoundException")}, lines: 1, calls: 4, kind: fault.Internal},
		"lost, then gone":           {answers: []amazontest.Answer{done, {Drop: true}, refusal("ResourceNotFoundException")}, lines: 1, calls: 3, kind: fault.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, service := over(t, test.answers...)
			var lines []buildlog.Line
			for range test.lines {
				lines = append(lines, buildlog.Line{Text: long})
			}
			err := l.Append(t.Context(), "b", lines...)
			if test.ok != (err == nil) || !test.ok && (!fault.Is(err, test.kind) || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("%v of kind %v", err, fault.KindOf(err))
			}
			if n := len(service.Requests()); n != test.calls {
				t.Errorf("%d calls:\n%s", n, asked(t, service))
			}
		})
	}
}

// What was sent in vain may still arrive, so nothing is put after it.
func TestAStreamIsLeftAfterAFailure(t *testing.T) {
	t.Parallel()
	lost, done := amazontest.Answer{Drop: true}, amazontest.Answer{Body: "{}"}
	l, service := over(t, done, lost, lost, lost, done)
	if err := l.Append(t.Context(), "b", buildlog.Line{Text: "one"}); !fault.Is(err, fault.Unknown) {
		t.Error(err)
	}
	if err := l.Append(t.Context(), "b", buildlog.Line{Text: "two"}); err != nil {
		t.Error(err)
	}
	all := batches(t, service)
	first, last := all[0], all[len(all)-1]
	if first.LogStreamName == last.LogStreamName || !strings.HasPrefix(last.LogEvents[0].Message, "1\t") || last.LogEvents[0].Timestamp <= first.LogEvents[0].Timestamp {
		t.Errorf("first %+v, then %+v", first, last)
	}
}

// Two who append to a build take turns, and nobody waits longer than he likes.
func TestAppendsTakeTurns(t *testing.T) {
	t.Parallel()
	l, service := stubborn(t)
	w := l.writer("b")
	w.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ctx, "b", buildlog.Line{}); !fault.Is(err, fault.Unavailable) || len(service.Requests()) != 0 {
		t.Errorf("while another one appends: %v, %d calls", err, len(service.Requests()))
	}
	<-w.turn
	if err := l.Append(t.Context(), "b", buildlog.Line{}); err != nil {
		t.Error(err)
	}
	for i := range 2 * maxWriters {
		if l.writer(fmt.Sprint(i)); len(l.writers) > maxWriters {
			t.Fatalf("%d writers are remembered", len(l.writers))
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*Deps){
		"credentials":     func(d *Deps) { d.Config.Credentials = nil },
		"region":          func(d *Deps) { d.Config.Region = "" },
		"a group":         func(d *Deps) { d.Group = "" },
		"a clock":         func(d *Deps) { d.Now = nil },
		"a source of ids": func(d *Deps) { d.NewID = nil },
	} {
		d := deps(ministack.Config("http://127.0.0.1:1"), "builds")
		if _, err := New(d); err != nil {
			t.Fatal(err)
		}
		take(&d)
		if _, err := New(d); err == nil {
			t.Errorf("without %s it is made", name)
		}
	}
}

// losesAnswers appends over a line that loses two answers of three: everything is there three times, and read once.
func losesAnswers(t *testing.T, d Deps) {
	d.Config.HTTPClient = amazontest.Losing(d.Config.HTTPClient, func(n int) bool { return n%3 != 2 })
	l, want := open(t, d), ""
	for i := range 5 {
		if err := l.Append(t.Context(), "b", buildlog.Line{Text: fmt.Sprint(2 * i)}, buildlog.Line{Text: fmt.Sprint(2*i + 1)}); err != nil {
			t.Fatal(err)
		}
		want += fmt.Sprintf(" %d %d", 2*i, 2*i+1)
	}
	got, cursor := "", ""
	for {
		page := read(t, l, cursor, 3)
		if len(page.Lines) == 0 {
			break
		}
		got, cursor = got+" "+texts(page), page.Cursor
	}
	if got != want {
		t.Errorf("read%s", got)
	}
	client := cloudwatchlogs.NewFromConfig(d.Config)
	stream := "b/" + own + "lost"
	out, err := client.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: &d.Group, LogStreamName: &stream})
	if err != nil || len(out.Events) != 30 {
		t.Errorf("%d events are there, %v", len(out.Events), err)
	}
}

// mergesAttempts reads what two attempts and the server wrote, as they come. CodeBuild's own lines are among it.
func mergesAttempts(t *testing.T, d Deps) {
	client, clock := cloudwatchlogs.NewFromConfig(d.Config), time.Now()
	d.Now = func() time.Time { return clock }
	l, cursor := open(t, d), ""
	const others = 2 * minEvents // more than one call asks for
	output := func(attempt string, texts ...string) {
		t.Helper()
		clock = clock.Add(time.Second)
		stream := "b/" + attempt + "/0a1b"
		_, _ = client.CreateLogStream(t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &d.Group, LogStreamName: &stream}) // it may be there
		in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: &d.Group, LogStreamName: &stream}
		messages := slices.Repeat([]string{"[Container] 2026/11/23 06:36:35 Running command exit 0\n"}, others)
		for _, text := range texts {
			messages = append(messages, form(text), "\n")
		}
		for _, message := range messages {
			at := clock.UnixMilli()
			in.LogEvents = append(in.LogEvents, types.InputLogEvent{Message: &message, Timestamp: &at})
		}
		if _, err := client.PutLogEvents(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	server := func(text string) {
		t.Helper()
		clock = clock.Add(time.Second)
		if err := l.Append(t.Context(), "b", buildlog.Line{Time: clock, Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	follow := func(want string) {
		t.Helper()
		got := ""
		for {
			page := read(t, l, cursor, 2)
			if cursor = page.Cursor; len(page.Lines) == 0 {
				break
			}
			got += " " + texts(page)
		}
		if strings.TrimSpace(got) != want {
			t.Errorf("read%s, want %s", got, want)
		}
	}
	server("made")
	output("1")
	follow("made")
	output("1", "one")
	follow("one")
	output("1", "two")
	server("again")
	output("2", "three", "four", "five")
	output("1", "late")
	follow("two again three four five late")
	follow("")
	whole := ""
	for cursor = ""; ; {
		page := read(t, l, cursor, 100)
		if cursor = page.Cursor; len(page.Lines) == 0 {
			break
		}
		whole += " " + texts(page)
	}
	if whole != " made one two again three four five late" {
		t.Errorf("the whole log is%s", whole)
	}
}
