package cloudwatch

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
)

// over makes a log over a service that answers what it is told.
func over(t *testing.T, answers ...amazontest.Answer) (*Log, *amazontest.Service) {
	t.Helper()
	service := amazontest.Serve(t, answers...)
	return open(t, deps(service.Config(), "builds")), service
}

func refusal(code string) amazontest.Answer {
	return amazontest.Answer{Status: 400, Body: `{"__type":"` + code + `","message":"no"}`}
}

// found is the answer that there are these streams.
func found(names ...string) amazontest.Answer {
	var list []string
	for _, name := range names {
		list = append(list, fmt.Sprintf(`{"logStreamName":%q}`, name))
	}
	return amazontest.Answer{Body: `{"logStreams":[` + strings.Join(list, ",") + `]}`}
}

// events is a page of a stream with a token for reading on. An event is its milliseconds, a space and its message.
func events(token string, events ...string) amazontest.Answer {
	var list []string
	for _, e := range events {
		at, message, _ := strings.Cut(e, " ")
		list = append(list, fmt.Sprintf(`{"timestamp":%s,"message":%q}`, at, message))
	}
	return amazontest.Answer{Body: fmt.Sprintf(`{"events":[%s],"nextForwardToken":%q,"nextBackwardToken":"b/1"}`, strings.Join(list, ","), token)}
}

// said is an event of a build's output: texts that the agent wrote, each a line in its form.
func said(at int, texts ...string) string {
	e := []byte(fmt.Sprint(at, " "))
	for _, text := range texts {
		e = append(e, form(text)...)
	}
	return string(e)
}

// form is a text as the agent writes it.
func form(text string) string {
	return string(buildlog.Line{Time: time.Date(2026, 11, 23, 6, 36, 35, 0, time.UTC), Step: "build", Text: text}.AppendText(nil))
}

// container is an event of CodeBuild's own.
func container(at int, text string) string {
	return fmt.Sprintf("%d [Container] 2026/11/23 06:36:35.000000 %s\n", at, text)
}

// texts are the texts of a page's lines.
func texts(p buildlog.Page) string {
	var all []string
	for _, line := range p.Lines {
		all = append(all, line.Text)
	}
	return strings.Join(all, " ")
}

// asked are the calls, in short: the operation, and the token or the stream it was about.
func asked(t *testing.T, s *amazontest.Service) string {
	t.Helper()
	var all []string
	for _, r := range s.Requests() {
		var in struct{ LogStreamName, NextToken string }
		if err := json.Unmarshal([]byte(r.Body), &in); err != nil {
			t.Fatal(err)
		}
		_, operation, _ := strings.Cut(r.Target, ".")
		all = append(all, strings.TrimSpace(strings.Join([]string{operation, in.LogStreamName, in.NextToken}, " ")))
	}
	return strings.Join(all, "\n")
}

func read(t *testing.T, l *Log, cursor string, limit int) buildlog.Page {
	t.Helper()
	page, err := l.Read(t.Context(), "b", cursor, limit)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// A page without events is not the end of a stream: that is the token coming back.
func TestEmptyPages(t *testing.T) {
	t.Parallel()
	l, service := over(t,
		found("b/1/x"), events("f/1"), events("f/2"), events("f/3", said(7, "one")),
		found("b/1/x"), events("f/4"), events("f/4"),
		found("b/1/x"), events("f/4"),
	)
	page := read(t, l, "", 10)
	if got := texts(page); got != "one" {
		t.Errorf("the first page has %q", got)
	}
	for range 2 {
		if page = read(t, l, page.Cursor, 10); len(page.Lines) != 0 {
			t.Errorf("after the end there is %q", texts(page))
		}
	}
	want := `DescribeLogStreams
GetLogEvents b/1/x
GetLogEvents b/1/x f/1
GetLogEvents b/1/x f/2
DescribeLogStreams
GetLogEvents b/1/x f/3
GetLogEvents b/1/x f/4
DescribeLogStreams
GetLogEvents b/1/x f/4`
	if got := asked(t, service); got != want {
		t.Errorf("the calls are\n%s", got)
	}
}

// Nor is a page whose events all fall away, and what is said after it is found: at once, and by a follower who
// was told that there is no more.
func TestPagesOfOthers(t *testing.T) {
	t.Parallel()
	l, service := over(t,
		found("b/1/x"), events("f/1", container(1, "Entering phase INSTALL"), "2 test -n x\n"), events("f/2", "3 \n"), events("f/3", container(4, "Entering phase BUILD"), said(5, "one")),
		found("b/1/x"), events("f/4", container(6, "Phase complete")), events("f/4"),
		found("b/1/x"), events("f/5", container(7, "Entering phase POST_BUILD")), events("f/6", said(8, "two"), container(9, "Phase complete")),
		found("b/1/x"), events("f/6"),
	)
	cursor := ""
	for _, want := range []string{"one", "", "two", ""} {
		page := read(t, l, cursor, 10)
		if got := texts(page); got != want {
			t.Errorf("read %q, want %q", got, want)
		}
		cursor = page.Cursor
	}
	want := `DescribeLogStreams
GetLogEvents b/1/x
GetLogEvents b/1/x f/1
GetLogEvents b/1/x f/2
DescribeLogStreams
GetLogEvents b/1/x f/3
GetLogEvents b/1/x f/4
DescribeLogStreams
GetLogEvents b/1/x f/4
GetLogEvents b/1/x f/5
DescribeLogStreams
GetLogEvents b/1/x f/6`
	if got := asked(t, service); got != want {
		t.Errorf("the calls are\n%s", got)
	}
}

// Few lines are not asked for one event at a time, where many of them may fall away; but what was answered
// already makes a call no larger than it has to be.
func TestHowMuchIsAskedFor(t *testing.T) {
	t.Parallel()
	window := events("f/9", said(1, "one", "two"))
	l, service := over(t,
		found("b/1/x", "b/~x"), window, events("f/1"), events("f/1"),
		found("b/1/x", "b/~x"), window, events("f/1"),
	)
	read(t, l, read(t, l, "", 1).Cursor, 1)
	var limits []int
	for _, r := range service.Requests() {
		var in struct{ Limit int }
		if err := json.Unmarshal([]byte(r.Body), &in); err != nil {
			t.Fatal(err)
		}
		if in.Limit != 0 {
			limits = append(limits, in.Limit)
		}
	}
	if got, want := fmt.Sprint(limits), fmt.Sprint([]int{minEvents, 1, 1, minEvents, 1}); got != want {
		t.Errorf("the limits are %s, want %s", got, want)
	}
}

// What was answered of a page of CloudWatch is left out when it is read again.
func TestPartOfAPage(t *testing.T) {
	t.Parallel()
	window := events("f/9", said(1, "one", "two"), said(2, "three"), said(3, "four"))
	l, service := over(t, found("b/1/x"), window, found("b/1/x"), window, found("b/1/x"), events("f/9"))
	page := read(t, l, "", 1)
	if got := texts(page); got != "one" {
		t.Errorf("the first page has %q", got)
	}
	page = read(t, l, page.Cursor, 10)
	if got := texts(page); got != "two three four" {
		t.Errorf("the second page has %q", got)
	}
	if page = read(t, l, page.Cursor, 10); len(page.Lines) != 0 {
		t.Errorf("the third page has %q", texts(page))
	}
	if got := asked(t, service); !strings.HasSuffix(got, " f/9") || strings.Count(got, "f/9") != 1 {
		t.Errorf("the calls are\n%s", got)
	}
}

// A place that CloudWatch gave is good for a day. After it the stream is read from its beginning, to where it was.
func TestExpiredTokens(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ stream, one, two, three, four string }{
		"output": {"b/1/x", said(1, "one"), said(2, "two"), said(3, "three"), said(4, "four")},
		"ours": {
			"b/~x", "1 1\t2026-11-23T06:36:35Z\t\tone", "1 2\t2026-11-23T06:36:35Z\t\ttwo",
			"1 3\t2026-11-23T06:36:35Z\t\tthree", "2 4\t2026-11-23T06:36:35Z\t\tfour",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := over(t,
				found(test.stream), events("f/2", test.one, test.two),
				found(test.stream), refusal("InvalidParameterException"), events("f/7", test.one), events("f/8", test.two, test.three),
				found(test.stream), events("f/9", test.four),
			)
			page := read(t, l, "", 10)
			for _, want := range []string{"three", "four"} {
				if page = read(t, l, page.Cursor, 10); texts(page) != want {
					t.Errorf("after the token expired: %q, want %q", texts(page), want)
				}
			}
		})
	}
	l, _ := over(t, found("b/1/x"), refusal("InvalidParameterException"))
	if _, err := l.Read(t.Context(), "b", "", 10); !fault.Is(err, fault.Internal) {
		t.Errorf("refused without a token: %v", err)
	}
}

// A repeat of what was put stands twice in a stream of ours.
func TestRepeats(t *testing.T) {
	t.Parallel()
	line := func(n int, text string) string { return fmt.Sprintf("5 %d\t2026-11-23T06:36:35Z\tstep\t%s", n, text) }
	l, _ := over(t,
		found("b/~x"), events("f/1", line(1, "one"), line(2, "two"), line(1, "one"), line(2, "two"), "5 scribbled", "5 3\tscribbled", line(3, "three"), line(1, "one")),
		found("b/~x"), events("f/2", line(3, "three"), line(2, "two"), line(4, "four")),
	)
	page := read(t, l, "", 10)
	if got := texts(page); got != "one two three" {
		t.Errorf("read %q", got)
	}
	if got := texts(read(t, l, page.Cursor, 10)); got != "four" {
		t.Errorf("read on %q", got)
	}
}

// Streams are merged by their times, as far as it is known what comes next in each.
func TestMerge(t *testing.T) {
	t.Parallel()
	l, _ := over(t,
		found("b/1/x", "b/2/y"), events("f/1", said(1, "a1"), said(4, "a4")), events("f/2", said(2, "b2"), said(3, "b3")),
		found("b/1/x", "b/2/y"), events("f/1", said(1, "a1"), said(4, "a4")), events("f/2"),
	)
	page := read(t, l, "", 10)
	if got := texts(page); got != "a1 b2 b3" { // there may be more of b before a4
		t.Errorf("the first page is %q", got)
	}
	if got := texts(read(t, l, page.Cursor, 10)); got != "a4" {
		t.Errorf("the second page is %q", got)
	}
}

// A stream that was not found, or that is gone when it is read, keeps its place.
func TestStreamsComeAndGo(t *testing.T) {
	t.Parallel()
	l, _ := over(t,
		found("b/1/x"), events("f/1", said(1, "one")),
		found(),
		found("b/1/x"), refusal("ResourceNotFoundException"),
		amazontest.Answer{Body: `{"logStreams":[{"logStreamName":"b/1/x"}],"nextToken":"more"}`}, found("b/2/y"),
		events("f/1"), events("f/2", said(2, "two")),
	)
	page := read(t, l, "", 10)
	for _, want := range []string{"", "", "two"} {
		if page = read(t, l, page.Cursor, 10); texts(page) != want {
			t.Errorf("read %q, want %q", texts(page), want)
		}
	}
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		calls   int
		kind    fault.Kind
		says    string
	}{
		"no group":           {[]amazontest.Answer{refusal("ResourceNotFoundException")}, 1, fault.Internal, "no log group builds"},
		"throttled":          {[]amazontest.Answer{refusal("ThrottlingException")}, 3, fault.Unavailable, ""},
		"throttled, reading": {[]amazontest.Answer{found("b/1/x"), refusal("ThrottlingException")}, 4, fault.Unavailable, ""},
		"trouble of its own": {[]amazontest.Answer{{Status: 503, Body: `{"__type":"ServiceUnavailableException"}`}}, 3, fault.Unavailable, ""},
		"no permission":      {[]amazontest.Answer{refusal("AccessDeniedException")}, 1, fault.Internal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, service := over(t, test.answers...)
			_, err := l.Read(t.Context(), "b", "", 10)
			var f *fault.Error
			if !fault.Is(err, test.kind) || !errors.As(err, &f) || !strings.Contains(f.Message, test.says) || len(service.Requests()) != test.calls {
				t.Errorf("%v after %d calls", err, len(service.Requests()))
			}
		})
	}
	l, service := over(t, refusal("ThrottlingException"), found("b/1/x"), refusal("ThrottlingException"), events("f/1", said(1, "one")))
	if got := texts(read(t, l, "", 10)); got != "one" || len(service.Requests()) != 4 {
		t.Errorf("throttled for a moment: %q after %d calls", got, len(service.Requests()))
	}
}

// A build can make as many streams of its log as it likes. What is read of it ends with a line that says so, once, and what the
// first streams go on to hold is read on.
func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	many := make([]string, 0, maxStreams+1)
	for i := range maxStreams + 1 {
		many = append(many, fmt.Sprintf("b/%02d/x", i))
	}
	answers := []amazontest.Answer{found(many...), events("", said(2, "two"))}
	for range maxStreams - 1 {
		answers = append(answers, events(""))
	}
	answers = append(answers, found(many...), events("", said(2, "two"), said(3, "three")), events(""))
	l, service := over(t, answers...)
	page := read(t, l, "", 10)
	if got := texts(page); !strings.HasPrefix(got, "two The log is cut here") || !strings.Contains(got, "more than 64 streams") {
		t.Errorf("read %q", got)
	}
	if strings.Contains(asked(t, service), many[maxStreams]) {
		t.Error("more streams were read than a cursor holds")
	}
	if n := len(page.Lines); n != 2 || page.Lines[1].Time.IsZero() {
		t.Errorf("the lines are %+v", page.Lines)
	}
	if got := texts(read(t, l, page.Cursor, 10)); got != "three" {
		t.Errorf("read on %q", got)
	}
}

// Output of a build: what the agent wrote, what CodeBuild adds, and what nobody expects.
func TestOutput(t *testing.T) {
	t.Parallel()
	const at = "2026-11-23T06:36:35.5Z"
	told := time.Date(2026, 11, 23, 6, 36, 35, 500_000_000, time.UTC)
	long := strings.Repeat("ä", buildlog.MaxText)
	for name, test := range map[string]struct {
		message string
		want    []buildlog.Line
	}{
		"a line of the agent":      {at + "\tbuild\tgo build\n", []buildlog.Line{{Time: told, Step: "build", Text: "go build"}}},
		"CodeBuild's own":          {"[Container] 2026/11/23 06:36:35 Entering phase BUILD\n", nil},
		"a command, echoed":        {"[Container] 2026/11/23 06:36:35 Running command printf '%s\\t\\t%s\\n' x\n  exit 1\n", nil},
		"without a newline":        {at + "\ta\tx", []buildlog.Line{{Time: told, Step: "a", Text: "x"}}},
		"without a text":           {at + "\ta\t\n", []buildlog.Line{{Time: told, Step: "a"}}},
		"empty":                    {"\n", nil},
		"several":                  {at + "\ta\tone\n\n[Container] x\n" + at + "\ta\ttwo\n", []buildlog.Line{{Time: told, Step: "a", Text: "one"}, {Time: told, Step: "a", Text: "two"}}},
		"numbered like ours":       {"1\t" + at + "\ta\tone\n", nil},
		"a time and no more":       {at + "\tone\n", nil},
		"columns without a time":   {"yesterday\ta\tone\n", nil},
		"as long as may be":        {at + "\ta\t" + long[:buildlog.MaxText], []buildlog.Line{{Time: told, Step: "a", Text: long[:buildlog.MaxText]}}},
		"longer than agents write": {at + "\ta\tx" + long, []buildlog.Line{{Time: told, Step: "a", Text: "x" + long[:buildlog.MaxText-2]}}},
		"breaks within the line":   {at + "\ta\t10 %\r20 %\r\n", []buildlog.Line{{Time: told, Step: "a", Text: "10 % 20 % "}}},
	} {
		s := &stream{name: "b/1/x"}
		s.take(types.OutputLogEvent{Message: &test.message, Timestamp: aws.Int64(1_700_000_000_123)})
		var got []buildlog.Line
		for i, line := range s.pending {
			if line.number != int64(i+1) || !utf8.ValidString(line.Text) {
				t.Errorf("%s: line %d has the number %d", name, i, line.number)
			}
			got = append(got, line.Line)
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: %.200q, want %.200q", name, got, test.want)
		}
	}
}
