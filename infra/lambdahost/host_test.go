package lambdahost

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"runnerhub/infra/ministack"
	"runnerhub/infra/template"
)

// TestMain is the function, too: the test binary stands where a bootstrap does.
func TestMain(m *testing.M) {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") == "" {
		os.Exit(m.Run())
	}
	if os.Getenv("BREAK") == "start" {
		fmt.Fprintln(os.Stderr, "cannot start")
		os.Exit(1)
	}
	if early := os.Getenv("EARLY"); early != "" {
		if _, err := obey(context.Background(), order{Do: "read", File: early}); err != nil {
			fmt.Fprintln(os.Stderr, "a call before the first event:", err)
			os.Exit(1)
		}
	}
	lambda.Start(handle)
}

// order is an event of the tests' own.
type order struct {
	Do   string
	File string
}

func handle(ctx context.Context, event json.RawMessage) (any, error) {
	var kind struct {
		order
		RouteKey string
		Records  []events.SQSMessage
	}
	if err := json.Unmarshal(event, &kind); err != nil {
		return nil, err
	}
	switch {
	case kind.RouteKey != "":
		return answerHTTP(event)
	case kind.Records != nil:
		return answerBatch(kind.Records), nil
	}
	return obey(ctx, kind.order)
}

func obey(ctx context.Context, o order) (any, error) {
	switch o.Do {
	case "crash":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hang":
		select {}
	case "fail":
		return nil, errors.New("as asked")
	case "eat":
		eaten := make([]byte, 300<<20)
		for i := 0; i < len(eaten); i += 4096 {
			eaten[i] = 1
		}
		return len(eaten), os.WriteFile(os.DevNull, eaten[:1], 0)
	case "flood":
		return strings.Repeat("x", maxAnswer), nil
	case "background": // goes on after the answer, were it not frozen
		appendTo(o.File, "begun")
		go func() {
			for range time.Tick(time.Millisecond) {
				appendTo(o.File, ".")
			}
		}()
		return "begun", nil
	case "wait":
		for range time.Tick(time.Millisecond) {
			if _, err := os.Stat(o.File); err == nil {
				return os.Getpid(), nil
			}
		}
	case "read":
		client := dynamodb.NewFromConfig(aws.Config{
			Region: os.Getenv("AWS_REGION"), BaseEndpoint: aws.String(os.Getenv("AWS_ENDPOINT_URL")), RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider(os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), ""),
		})
		_, err := client.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("stack-table"), Key: map[string]types.AttributeValue{
			"pk": &types.AttributeValueMemberS{Value: o.File}, "sk": &types.AttributeValueMemberS{Value: "x"},
		}})
		return "read", err
	case "environment":
		return os.Environ(), nil
	}
	deadline, _ := ctx.Deadline()
	return map[string]any{"pid": os.Getpid(), "left": time.Until(deadline).Seconds()}, nil
}

func appendTo(file, text string) {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, _ = f.WriteString(text)
		_ = f.Close()
	}
}

// answerHTTP answers the event itself, so that a test sees what the function saw.
func answerHTTP(event json.RawMessage) (any, error) {
	var e events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(event, &e); err != nil {
		return nil, err
	}
	switch e.RawPath {
	case "/fail":
		return nil, errors.New("as asked")
	case "/nonsense":
		return "no answer", nil
	}
	return events.APIGatewayV2HTTPResponse{
		StatusCode: 201, Headers: map[string]string{"Content-Type": "application/json"}, Cookies: []string{"a=1", "b=2"},
		IsBase64Encoded: true, Body: base64.StdEncoding.EncodeToString(event),
	}, nil
}

// answerBatch does with each message what its body says, and notes it in the file named there.
func answerBatch(messages []events.SQSMessage) events.SQSEventResponse {
	var out events.SQSEventResponse
	for _, m := range messages {
		var o order
		if err := json.Unmarshal([]byte(m.Body), &o); err != nil {
			panic(err)
		}
		appendTo(o.File, o.Do+"\n")
		switch {
		case o.Do == "crash" && m.Attributes["ApproximateReceiveCount"] == "1":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case o.Do == "fail":
			out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: m.MessageId})
		}
	}
	return out
}

// bed is a host with one function and whatever a test adds.
type bed struct {
	*testing.T
	*Host
	url, dir string
	log      *bytes.Buffer
}

const (
	region  = "us-east-1"
	account = "000000000000"
)

func newBed(t *testing.T, services string, change func(*Deps)) *bed {
	t.Helper()
	b := &bed{T: t, dir: t.TempDir(), log: &bytes.Buffer{}}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(b.dir, "work"), 0o700), os.Symlink(self, filepath.Join(b.dir, "work", "bootstrap"))); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.url = "http://" + listener.Addr().String()
	f := template.Function{ID: "WorkFunction", Name: "stack-work", Timeout: 30 * time.Second, Memory: 512}
	d := Deps{
		Stack: &template.Stack{Functions: []template.Function{f}}, Region: region, Account: account, Programs: b.dir, Listener: listener,
		Services: services, Instances: 4, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&d)
	}
	if b.Host, err = New(d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// do sends an order and answers what came back.
func (b *bed) do(o order) (string, error) {
	payload, err := json.Marshal(o)
	if err != nil {
		b.Fatal(err)
	}
	text, err := b.Invoke(b.Context(), "WorkFunction", payload)
	return string(text), err
}

func nobody(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	return s.URL
}

func TestInvocations(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var ended []Invocation
	b := newBed(t, nobody(t), func(d *Deps) {
		d.Done = func(i Invocation) {
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, i)
		}
		d.Stack.Functions[0].Memory = 256
		d.Stack.Functions[0].Timeout = 8 * time.Second
		d.Stack.Functions[0].Environment = map[string]string{"SAID": "by the template", "AGENTS": "/opt/agents"}
		d.Stack.Functions[0].Layers = []string{"Layer"}
		d.Layers = map[string]string{"Layer": t.TempDir()}
		if err := os.Mkdir(filepath.Join(d.Layers["Layer"], "agents"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	type said struct {
		PID  int
		Left float64
	}
	last := func() Invocation {
		mu.Lock()
		defer mu.Unlock()
		return ended[len(ended)-1]
	}
	hear := func() (s said) {
		t.Helper()
		text, err := b.do(order{})
		if err = errors.Join(err, json.Unmarshal([]byte(text), &s)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := hear()
	if first.Left < 6 || first.Left > 8 {
		t.Errorf("%v seconds are left of 8", first.Left)
	}
	if i := last(); !i.Cold || i.Function != "WorkFunction" || i.Took <= 0 || i.ID == "" || i.Err != nil {
		t.Errorf("the first invocation: %+v", i)
	}
	if again := hear(); again.PID != first.PID {
		t.Error("an idle instance was not used again")
	}
	if last().Cold {
		t.Error("the second invocation is told as cold")
	}
	var crash *Crash
	var failure *Failure
	for _, test := range []struct {
		do    string
		fits  func(error) bool
		fresh bool // the instance does not live on
	}{
		{"fail", func(err error) bool { return errors.As(err, &failure) && failure.Message == "as asked" }, false},
		{"crash", func(err error) bool { return errors.As(err, &crash) }, true},
		{"hang", func(err error) bool { return strings.Contains(err.Error(), "timed out") }, true},
		{"eat", func(err error) bool { return strings.Contains(err.Error(), "of memory") }, true},
		{"flood", func(err error) bool { return strings.Contains(err.Error(), "answered more than") }, false},
	} {
		before := hear()
		if _, err := b.do(order{Do: test.do}); err == nil || !test.fits(err) {
			t.Errorf("%s: %v", test.do, err)
		} else if i := last(); !errors.Is(err, i.Err) {
			t.Errorf("%s: %+v was told", test.do, i)
		}
		if after := hear(); (after.PID != before.PID) != test.fresh {
			t.Errorf("%s: the instance before was %d, the one after %d", test.do, before.PID, after.PID)
		}
	}
	text, err := b.do(order{Do: "environment"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SAID=by the template", "AGENTS=" + b.Layers["Layer"], "AWS_LAMBDA_FUNCTION_NAME=stack-work", "AWS_REGION=" + region} {
		if !strings.Contains(text, want) {
			t.Errorf("the environment lacks %q: %s", want, text)
		}
	}
	if strings.Contains(text, "HOME=") || strings.Contains(text, "GOPATH") {
		t.Errorf("the environment is not the function's own: %s", text)
	}
}

// TestFrozen lets a function leave something running: between two events it must not.
func TestFrozen(t *testing.T) {
	t.Parallel()
	b := newBed(t, nobody(t), nil)
	dots, gate := filepath.Join(b.dir, "dots"), filepath.Join(b.dir, "work")
	for range 3 {
		pid, err := b.do(order{Do: "wait", File: gate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.do(order{Do: "background", File: dots}); err != nil {
			t.Fatal(err)
		}
		until(t, func() bool {
			text, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil {
				t.Fatal(err)
			}
			_, state, _ := strings.Cut(string(text), ") ")
			return strings.HasPrefix(state, "T ") // stopped
		})
	}
}

func TestConcurrency(t *testing.T) {
	t.Parallel()
	for _, reserved := range []int{0, 2} {
		b := newBed(t, nobody(t), func(d *Deps) {
			d.Instances = 2
			d.Stack.Functions[0].Concurrency = reserved
		})
		gate := filepath.Join(b.dir, "gate")
		var all sync.WaitGroup
		var mu sync.Mutex
		pids, throttled := map[string]bool{}, 0
		begun := make(chan struct{}, 3)
		for range 3 {
			all.Go(func() {
				text, err := b.do(order{Do: "wait", File: gate})
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, errThrottled) {
					throttled++
					begun <- struct{}{}
				} else if err != nil {
					t.Error(err)
				}
				pids[text] = true
			})
		}
		if reserved > 0 {
			<-begun // one is refused while two are at work
		}
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		delete(pids, "")
		if want := min(reserved, 1); throttled != want || len(pids) != 2 {
			t.Errorf("reserved %d: %d throttled, %d instances", reserved, throttled, len(pids))
		}
	}
}

// What all functions of an account share is used up by any of them. Requests are refused then; events are kept and tried again.
func TestAccountLimit(t *testing.T) {
	t.Parallel()
	b := newBed(t, nobody(t), func(d *Deps) {
		d.AccountLimit = 3
		work := d.Stack.Functions[0]
		work.Async.MaxAge = time.Minute
		other, own := work, work
		other.ID, other.Name = "OtherFunction", "stack-other"
		own.ID, own.Name, own.Concurrency = "OwnFunction", "stack-own", 1
		d.Stack.Functions = []template.Function{work, other, own}
		d.Stack.Routes = []template.Route{{Method: "GET", Path: "/", Function: "OtherFunction", Timeout: 10 * time.Second}}
		d.Stack.Rules = []template.Rule{{Function: "OtherFunction", Pattern: map[string]any{"Do": []any{"background"}}}}
		for _, name := range []string{"other", "own"} {
			if err := os.Symlink(filepath.Join(d.Programs, "work"), filepath.Join(d.Programs, name)); err != nil {
				t.Fatal(err)
			}
		}
	})
	gate, file := filepath.Join(b.dir, "gate"), filepath.Join(b.dir, "file")
	invoke := func(function string, o order) error {
		payload, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Invoke(t.Context(), function, payload)
		return err
	}
	get := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		return r.StatusCode
	}
	var working sync.WaitGroup
	for _, function := range []string{"WorkFunction", "OtherFunction"} {
		working.Go(func() {
			if err := invoke(function, order{Do: "wait", File: gate}); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, func() bool { return len(b.shared) == 2 })
	for _, function := range []string{"WorkFunction", "OtherFunction"} {
		if err := invoke(function, order{}); !errors.Is(err, errThrottled) {
			t.Errorf("beyond the limit, %s: %v", function, err)
		}
	}
	if err := invoke("OwnFunction", order{}); err != nil {
		t.Errorf("one that has its own: %v", err)
	}
	if status := get(); status != http.StatusServiceUnavailable {
		t.Errorf("a request is answered %d", status)
	}
	event, err := json.Marshal(order{Do: "background", File: file})
	if err = errors.Join(err, b.Emit(event)); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return b.Throttled() == 4 })
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	working.Wait()
	until(t, func() bool { _, err := os.Stat(file); return err == nil }) // the event
	if status := get(); status != http.StatusCreated {
		t.Errorf("a request is answered %d when there is room", status)
	}
	for _, full := range []bool{true, false} {
		if err := errors.Join(b.Crowd(full), invoke("OwnFunction", order{})); err != nil {
			t.Error(err)
		}
		if err := invoke("WorkFunction", order{}); errors.Is(err, errThrottled) != full {
			t.Errorf("crowded: %t: %v", full, err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	all := b.Deps
	all.AccountLimit, all.Listener = 1, listener
	if _, err := New(all); err == nil || !strings.Contains(err.Error(), "reserves all") {
		t.Errorf("with everything reserved: %v", err)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	b := newBed(t, nobody(t), func(d *Deps) { d.Stack.Functions[0].Environment = map[string]string{"BREAK": "start"} })
	for range 6 { // more than there are instances: each makes room again
		if _, err := b.do(order{}); err == nil || !strings.Contains(err.Error(), "cannot start") {
			t.Errorf("%v", err)
		}
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	b := newBed(t, nobody(t), func(d *Deps) {
		for _, key := range []string{"GET /", "POST /hooks/{hook}", "GET /fail", "GET /nonsense", "GET /once"} {
			method, path, _ := strings.Cut(key, " ")
			d.Stack.Routes = append(d.Stack.Routes, template.Route{Method: method, Path: path, Function: "WorkFunction", Timeout: 30 * time.Second})
		}
		d.Stack.API.Routes = map[string]template.Throttle{"GET /once": {Rate: 0.001, Burst: 1}}
	})
	request := func(method, path, kind string, body []byte) (*http.Response, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header["X-Event-Key"] = []string{"repo:push", "again"}
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Cookie", "session=s; other=o")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, text
	}
	for kind, encoded := range map[string]bool{"application/json; charset=utf-8": false, "application/octet-stream": true, "": true} {
		resp, text := request(http.MethodPost, "/hooks/abc?x=1&x=2&y", kind, []byte("{\"a\": 1}"))
		var e events.APIGatewayV2HTTPRequest
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatal(err)
		}
		body := []byte(e.Body)
		if e.IsBase64Encoded {
			body, _ = base64.StdEncoding.DecodeString(e.Body)
		}
		if resp.StatusCode != 201 || !slices.Equal(resp.Header["Set-Cookie"], []string{"a=1", "b=2"}) || e.RawPath != "/hooks/abc" || e.RawQueryString != "x=1&x=2&y" ||
			e.QueryStringParameters["x"] != "1,2" || e.PathParameters["hook"] != "abc" || e.RouteKey != "POST /hooks/{hook}" ||
			e.Headers["x-event-key"] != "repo:push,again" || e.IsBase64Encoded != encoded || string(body) != "{\"a\": 1}" ||
			!slices.Equal(e.Cookies, []string{"session=s", "other=o"}) || e.RequestContext.HTTP.SourceIP != "127.0.0.1" || e.Version != "2.0" {
			t.Errorf("%q: %d %v, the event was %+v", kind, resp.StatusCode, resp.Header, e)
		}
	}
	_, text := request(http.MethodPost, "/hooks/a%20b%25%2Fc%3Fd?e=%2F", "", nil)
	var e events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(text, &e); err != nil || e.RawPath != "/hooks/a b%/c?d" || e.RequestContext.HTTP.Path != e.RawPath || e.RawQueryString != "e=%2F" {
		t.Errorf("with a path that has escapes, the event is %+v, %v", e, err)
	}
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/", 201},
		{http.MethodGet, "/elsewhere", 404},
		{http.MethodPost, "/", 404},
		{http.MethodGet, "/fail", 500},
		{http.MethodGet, "/nonsense", 500},
		{http.MethodGet, "/once", 201},
		{http.MethodGet, "/once", 429},
	} {
		if resp, text := request(test.method, test.path, "", nil); resp.StatusCode != test.status {
			t.Errorf("%s %s: %d %s, want %d", test.method, test.path, resp.StatusCode, text, test.status)
		}
	}
	if resp, _ := request(http.MethodPost, "/hooks/abc", "", make([]byte, maxRequest+1)); resp.StatusCode != 413 {
		t.Errorf("a body over the limit got %d", resp.StatusCode)
	}
}

func TestRulesAndRates(t *testing.T) {
	t.Parallel()
	pattern := map[string]any{
		"source": []any{"aws.codebuild"}, "detail": map[string]any{"project": []any{"mine"}, "status": []any{map[string]any{"prefix": "S"}}},
	}
	for text, want := range map[string]bool{
		`{"source": "aws.codebuild", "detail": {"project": "mine", "status": "SUCCEEDED"}}`:  true,
		`{"source": "aws.codebuild", "detail": {"project": ["x", "mine"], "status": "S"}}`:   true,
		`{"source": "aws.codebuild", "detail": {"project": "mine", "status": "FAILED"}}`:     false,
		`{"source": "aws.codebuild", "detail": {"project": "another", "status": "STOPPED"}}`: false,
		`{"source": "aws.ecs", "detail": {"project": "mine", "status": "STOPPED"}}`:          false,
		`{"source": "aws.codebuild"}`: false,
	} {
		var event map[string]any
		if err := json.Unmarshal([]byte(text), &event); err != nil {
			t.Fatal(err)
		}
		if got := matches(pattern, event); got != want {
			t.Errorf("%s matches: %v", text, got)
		}
	}
	b := newBed(t, nobody(t), func(d *Deps) {
		d.Stack.Rates = []template.Rate{{Function: "WorkFunction", Every: 10 * time.Millisecond}}
		d.Stack.Rules = []template.Rule{{Function: "WorkFunction", Pattern: map[string]any{"do": []any{"background", "fail"}}}}
	})
	file := filepath.Join(b.dir, "dots")
	event, err := json.Marshal(map[string]string{"do": "background", "file": file})
	if err = errors.Join(err, b.Emit(event)); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { _, err := os.Stat(file); return err == nil })
	if err := b.Tick(t.Context(), "NoFunction", time.Now()); err == nil {
		t.Error("a function that is not there had a turn")
	}
}

func until(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestOnMiniStack(t *testing.T) {
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
	services := newWire(server.URL())
	t.Run("batches", func(t *testing.T) {
		t.Parallel()
		batches(t, services)
	})
	t.Run("permissions and fates", func(t *testing.T) {
		t.Parallel()
		permissions(t, services)
	})
}

// makeQueue makes a queue whose messages are hidden for a second.
func makeQueue(t *testing.T, w *wire, name string) template.Queue {
	t.Helper()
	q := template.Queue{ID: "Queue", Name: name, ARN: "arn:aws:sqs:" + region + ":" + account + ":" + name}
	var out struct {
		QueueURL string `json:"QueueUrl"`
	}
	err := w.call(t.Context(), "sqs", "AmazonSQS.CreateQueue", map[string]any{"QueueName": name, "Attributes": map[string]string{"VisibilityTimeout": "1"}}, &out)
	if err != nil {
		t.Fatal(err)
	}
	q.URL = out.QueueURL
	return q
}

func batches(t *testing.T, w *wire) {
	q := makeQueue(t, w, "batches")
	b := newBed(t, w.url, func(d *Deps) {
		d.Stack.Queues = []template.Queue{q}
		d.Stack.Sources = []template.Source{{Function: "WorkFunction", Queue: "Queue", BatchSize: 10, ReportsFailures: true}}
	})
	file := filepath.Join(b.dir, "did")
	send := func(do string) {
		t.Helper()
		body, _ := json.Marshal(order{Do: do, File: file})
		if err := w.call(t.Context(), "sqs", "AmazonSQS.SendMessage", map[string]any{"QueueUrl": q.URL, "MessageBody": string(body)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	times := func(do string) int {
		text, _ := os.ReadFile(file)
		return strings.Count(string(text), do+"\n")
	}
	send("done")
	send("fail")
	send("crash")
	until(t, func() bool { return times("fail") >= 3 && times("crash") >= 2 && times("done") >= 1 })
	until(t, func() bool {
		state, err := b.Queue(t.Context(), "Queue")
		if err != nil {
			t.Fatal(err)
		}
		return state.Visible+state.Hidden+state.Delayed == 1 // the one that always fails
	})
	if p := b.Polls("Queue"); p.Deletes != 2 || p.Batches < 3 || b.Polls("another") != (Polls{}) {
		t.Errorf("the polls were %+v", p)
	}
	idle := func() bool {
		idle, err := b.Idle(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return idle
	}
	if idle() {
		t.Error("with a message that comes again, nobody has anything to do")
	}
	if err := PurgeQueue(t.Context(), w.url, q); err != nil {
		t.Fatal(err)
	}
	until(t, idle)
}

func permissions(t *testing.T, w *wire) {
	err := w.call(t.Context(), "dynamodb", "DynamoDB_20120810.CreateTable", map[string]any{
		"TableName": "stack-table", "BillingMode": "PAY_PER_REQUEST",
		"AttributeDefinitions": []map[string]string{{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"}},
		"KeySchema":            []map[string]string{{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var calls []Call
	var ended []Invocation
	fates := map[string]Fate{}
	b := newBed(t, w.url, func(d *Deps) {
		d.Stack.Functions[0].Role = "WorkRole"
		d.Stack.Functions[0].Environment = map[string]string{"EARLY": "HOOK#0"}
		d.Stack.Roles = []template.Role{{ID: "WorkRole", Policy: template.Policy{{
			Effect:  "Allow",
			Actions: []string{"dynamodb:GetItem"}, Resources: []string{"arn:aws:dynamodb:*:*:table/stack-table"},
			Conditions: []template.Condition{{Operator: "ForAllValues:StringLike", Key: "dynamodb:LeadingKeys", Values: []string{"HOOK#*"}}},
		}}}}
		d.Watch = func(c Call, after bool) Fate {
			mu.Lock()
			defer mu.Unlock()
			if !after {
				calls = append(calls, c)
			}
			return fates[fmt.Sprint(c.Resource, after)]
		}
		d.Done = func(i Invocation) {
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, i)
		}
	})
	if _, err := b.do(order{Do: "read", File: "HOOK#1"}); err != nil {
		t.Error(err)
	}
	if _, err := b.do(order{Do: "read", File: "USER#1"}); err == nil || !strings.Contains(err.Error(), "AccessDenied") || len(b.Denied()) != 1 {
		t.Errorf("%v, denied %v", err, b.Denied())
	}
	mu.Lock()
	want := []Call{
		{Function: "WorkFunction", Cold: true, Init: true, Service: "dynamodb", Action: "GetItem", Resource: "HOOK#0"},
		{Function: "WorkFunction", Cold: true, Service: "dynamodb", Action: "GetItem", Resource: "HOOK#1"},
	}
	if len(ended) > 0 {
		want[1].Invocation = ended[0].ID
	}
	if !slices.Equal(calls, want) || want[1].Invocation == "" {
		t.Errorf("the calls were %+v in %+v", calls, ended)
	}
	for name, fate := range map[string]Fate{"kill": Kill, "lose": Lose} {
		fates["HOOK#"+name+"true"] = fate
		fates["HOOK#"+name+" before"+"false"] = fate
	}
	fates["HOOK#busyfalse"] = Throttle
	mu.Unlock()
	var crash *Crash
	var failure *Failure
	for _, name := range []string{"kill", "kill before"} {
		if _, err := b.do(order{Do: "read", File: "HOOK#" + name}); !errors.As(err, &crash) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"lose", "lose before", "busy"} {
		if _, err := b.do(order{Do: "read", File: "HOOK#" + name}); !errors.As(err, &failure) || (name == "busy") != strings.Contains(err.Error(), "ThrottlingException") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
