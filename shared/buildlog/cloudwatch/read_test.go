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
		found("b/1/x"), events("f/1"), events("f/2"), events("f/3", "7 one\n"),
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

// What was answered of a page of CloudWatch is left out when it is read again.
func TestPartOfAPage(t *testing.T) {
	t.Parallel()
	window := events("f/9", "1 one\ntwo\n", "2 three", "3 four")
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
		"output": {"b/1/x", "1 one\n", "2 two\n", "3 three\n", "4 four\n"},
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
		found("b/1/x", "b/2/y"), events("f/1", "1 a1\n", "4 a4\n"), events("f/2", "2 b2\n", "3 b3\n"),
		found("b/1/x", "b/2/y"), events("f/1", "1 a1\n", "4 a4\n"), events("f/2"),
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
		found("b/1/x"), events("f/1", "1 one\n"),
		found(),
		found("b/1/x"), refusal("ResourceNotFoundException"),
		amazontest.Answer{Body: `{"logStreams":[{"logStreamName":"b/1/x"}],"nextToken":"more"}`}, found("b/2/y"),
		events("f/1"), events("f/2", "2 two\n"),
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
	var many []string
	for i := range maxStreams + 1 {
		many = append(many, fmt.Sprintf("b/%d", i))
	}
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		calls   int
		kind    fault.Kind
		says    string
	}{
		"no group":             {[]amazontest.Answer{refusal("ResourceNotFoundException")}, 1, fault.Internal, "no log group builds"},
		"throttled":            {[]amazontest.Answer{refusal("ThrottlingException")}, 3, fault.Unavailable, ""},
		"throttled, reading":   {[]amazontest.Answer{found("b/1/x"), refusal("ThrottlingException")}, 4, fault.Unavailable, ""},
		"trouble of its own":   {[]amazontest.Answer{{Status: 503, Body: `{"__type":"ServiceUnavailableException"}`}}, 3, fault.Unavailable, ""},
		"no permission":        {[]amazontest.Answer{refusal("AccessDeniedException")}, 1, fault.Internal, ""},
		"far too many streams": {[]amazontest.Answer{found(many...)}, 1, fault.Internal, "more than 64 streams"},
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
	l, service := over(t, refusal("ThrottlingException"), found("b/1/x"), refusal("ThrottlingException"), events("f/1", "1 one"))
	if got := texts(read(t, l, "", 10)); got != "one" || len(service.Requests()) != 4 {
		t.Errorf("throttled for a moment: %q after %d calls", got, len(service.Requests()))
	}
}

// Output of a build: what the agent wrote, what CodeBuild adds, and what nobody expects.
func TestOutput(t *testing.T) {
	t.Parallel()
	const at = "2026-11-23T06:36:35.5Z"
	when, told := time.UnixMilli(1_700_000_000_123).UTC(), time.Date(2026, 11, 23, 6, 36, 35, 500_000_000, time.UTC)
	long := strings.Repeat("ä", buildlog.MaxText)
	for name, test := range map[string]struct {
		message string
		want    []buildlog.Line
	}{
		"a line of the agent":    {at + "\tbuild\tgo build\n", []buildlog.Line{{Time: told, Step: "build", Text: "go build"}}},
		"CodeBuild's own":        {"[Container] 2026/11/23 06:36:35 Entering phase BUILD\n", []buildlog.Line{{Time: when, Text: "[Container] 2026/11/23 06:36:35 Entering phase BUILD"}}},
		"without a newline":      {"x", []buildlog.Line{{Time: when, Text: "x"}}},
		"empty":                  {"\n", []buildlog.Line{{Time: when}}},
		"several":                {at + "\ta\tone\n\ntwo\n", []buildlog.Line{{Time: told, Step: "a", Text: "one"}, {Time: when}, {Time: when, Text: "two"}}},
		"numbered like ours":     {"1\t" + at + "\ta\tone\n", []buildlog.Line{{Time: when, Text: "1\t" + at + "\ta\tone"}}},
		"as long as may be":      {long[:buildlog.MaxText], []buildlog.Line{{Time: when, Text: long[:buildlog.MaxText]}}},
		"too long":               {long, []buildlog.Line{{Time: when, Text: long[:buildlog.MaxText]}, {Time: when, Text: long[:buildlog.MaxText]}}},
		"too long, at a letter":  {"x" + long[:buildlog.MaxText], []buildlog.Line{{Time: when, Text: "x" + long[:buildlog.MaxText-2]}, {Time: when, Text: "ä"}}},
		"breaks within the line": {"10 %\r20 %\r\n", []buildlog.Line{{Time: when, Text: "10 % 20 % "}}},
	} {
		s := &stream{name: "b/1/x"}
		s.take(types.OutputLogEvent{Message: &test.message, Timestamp: aws.Int64(when.UnixMilli())})
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
