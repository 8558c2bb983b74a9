package codebuild_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"runnerhub/infra/codebuild"
	"runnerhub/infra/ministack"
	"runnerhub/shared/amazon/amazontest"
)

func newCloudWatch(t *testing.T, endpoint string) *codebuild.CloudWatch {
	t.Helper()
	c, err := codebuild.NewCloudWatch(codebuild.CloudWatchDeps{Endpoint: endpoint, Region: "us-east-1", Key: "builds", HTTP: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCloudWatch reads with the SDK what was written without it.
func TestCloudWatch(t *testing.T) {
	t.Parallel()
	server, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	client := cloudwatchlogs.NewFromConfig(ministack.Config(server.URL()))
	group, stream := "/of/builds", "b1/a1/x"
	c := newCloudWatch(t, server.URL())
	now := time.Now().UTC().Truncate(time.Millisecond)
	lines := []codebuild.Line{{Time: now, Text: "one\n"}, {Time: now, Text: "zwei €\n"}, {Time: now.Add(time.Second), Text: strings.Repeat("x", 1000) + "\n"}}
	if err := c.Lines(t.Context(), group, stream, lines); err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Errorf("without the group: %v", err)
	}
	if _, err := client.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group}); err != nil {
		t.Fatal(err)
	}
	if err := c.Lines(t.Context(), group, stream, lines[:1]); err != nil {
		t.Fatal(err)
	}
	if err := newCloudWatch(t, server.URL()).Lines(t.Context(), group, stream, lines[1:]); err != nil { // the stream is there already
		t.Fatal(err)
	}
	out, err := client.GetLogEvents(t.Context(), &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: &stream, StartFromHead: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	var got []codebuild.Line
	for _, e := range out.Events {
		got = append(got, codebuild.Line{Time: time.UnixMilli(*e.Timestamp).UTC(), Text: *e.Message})
	}
	if fmt.Sprint(got) != fmt.Sprint(lines) {
		t.Errorf("read %v", got)
	}
}

func TestCloudWatchCalls(t *testing.T) {
	t.Parallel()
	service := amazontest.Serve(t, amazontest.Answer{Body: "{}"})
	c := newCloudWatch(t, *service.Config().BaseEndpoint)
	var lines []codebuild.Line
	for i := range 25 {
		lines = append(lines, codebuild.Line{Time: time.UnixMilli(int64(i)), Text: strings.Repeat("x", 100<<10) + "\n"})
	}
	if err := c.Lines(t.Context(), "g", "s", lines); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range service.Requests() {
		all = append(all, r.Target)
		if len(r.Body) > 1<<20 || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" || !strings.Contains(r.Header.Get("Authorization"), "Credential=builds/") {
			t.Errorf("%s with %d bytes and %v", r.Target, len(r.Body), r.Header)
		}
	}
	put := "Logs_20140328.PutLogEvents"
	if want := fmt.Sprint([]string{"Logs_20140328.CreateLogStream", put, put, put}); fmt.Sprint(all) != want {
		t.Errorf("called %v", all)
	}
	for name, answer := range map[string]amazontest.Answer{
		"refused":  {Status: 400, Body: `{"__type":"AccessDeniedException"}`},
		"rejected": {Body: `{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1}}`},
		"lost":     {Drop: true},
	} {
		c := newCloudWatch(t, *amazontest.Serve(t, amazontest.Answer{Body: "{}"}, answer).Config().BaseEndpoint)
		if err := c.Lines(t.Context(), "g", "s", lines[:1]); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := codebuild.NewCloudWatch(codebuild.CloudWatchDeps{}); err == nil {
		t.Error("made without anything")
	}
	if _, err := codebuild.New(codebuild.Deps{}); err == nil {
		t.Error("an endpoint made without anything")
	}
}
