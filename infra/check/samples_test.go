package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/secret"
)

// sampleSecret is what the sample webhooks are signed with; events/README.md has it, too.
const sampleSecret = "a-sample-hook-secret-of-no-worth"

// samples answers the events of a function by their case.
func (t *tree) samples(function string) map[string][]byte {
	found := map[string][]byte{}
	for name, text := range t.texts {
		if path.Dir(name) == "events/"+function && path.Ext(name) == ".json" {
			found[strings.TrimSuffix(path.Base(name), ".json")] = []byte(text)
		}
	}
	return found
}

// strict decodes what has no member that the type does not know.
func strict(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("it goes on after the first value")
	}
	return nil
}

// Every sample of a function that the HTTP API calls has the shape that AWS's own type has, and is a request for one of
// the function's routes, as the function sees it; every route has a sample.
func TestSamplesOfRequests(t *testing.T) {
	t.Parallel()
	tr, sampled := readTree(t), map[string]bool{}
	muxes, asked := map[string]*http.ServeMux{}, ""
	stack, wrong := tr.stack()
	if stack == nil {
		t.Fatal(wrong)
	}
	routes := stack.Routes
	for _, r := range routes {
		name, key, pattern := folder(r.Function), r.Method+" "+r.Path, r.Method+" "+r.Path
		if r.Path == "/" {
			pattern += "{$}"
		}
		if muxes[name] == nil {
			muxes[name] = http.NewServeMux()
		}
		muxes[name].HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
			asked = key
			if body, err := io.ReadAll(r.Body); err != nil || strconv.Itoa(len(body)) != r.Header.Get("Content-Length") && len(body) > 0 {
				t.Errorf("%s: %d bytes of %s, %v", key, len(body), r.Header.Get("Content-Length"), err)
			}
		})
	}
	for name, mux := range muxes {
		for sample, text := range tr.samples(name) {
			var e events.APIGatewayV2HTTPRequest
			if err := strict(text, &e); err != nil {
				t.Errorf("%s/%s: %v", name, sample, err)
			}
			asked = ""
			out, err := lambdaio.HTTP(mux).Invoke(t.Context(), text)
			if err != nil || asked == "" || asked != e.RouteKey || asked != e.RequestContext.RouteKey {
				t.Errorf("%s/%s: %q is asked, the keys are %q and %q; answered %s, %v", name, sample, asked, e.RouteKey, e.RequestContext.RouteKey, out, err)
			}
			sampled[asked] = true
		}
	}
	for _, r := range routes {
		if key := r.Method + " " + r.Path; !sampled[key] {
			t.Errorf("%s: no sample in events/%s", key, folder(r.Function))
		}
	}
}

// The webhooks are signed with the secret that the document names, those that say otherwise are not.
func TestSamplesOfWebhooks(t *testing.T) {
	t.Parallel()
	tr := readTree(t)
	if !strings.Contains(tr.texts["events/README.md"], "`"+sampleSecret+"`") {
		t.Error("events/README.md does not have the secret")
	}
	for sample, text := range tr.samples("webhook") {
		want := !slices.Contains([]string{"wrong-signature", "unsigned", "ping"}, sample)
		handler := lambdaio.HTTP(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if got := bitbucket.Verify(secret.New(sampleSecret), body, r.Header.Get("X-Hub-Signature")); err != nil || got != want {
				t.Errorf("webhook/%s: its signature fits: %t, %v", sample, got, err)
			}
			if _, err := bitbucket.ParseEvent(r.Header.Get("X-Event-Key"), body); err != nil && sample != "ping" {
				t.Errorf("webhook/%s: %v", sample, err)
			}
		}))
		if _, err := handler.Invoke(t.Context(), text); err != nil {
			t.Errorf("webhook/%s: %v", sample, err)
		}
	}
}

// sampleQueue takes whatever it is told.
type sampleQueue struct{}

func (sampleQueue) Receipt(handle string) string                       { return handle }
func (sampleQueue) Retry(context.Context, string, time.Duration) error { return nil }

// Every sample of a function that takes messages and events has the shape that AWS's own types have, and messages of each kind there is;
// what it leads to is known.
func TestSamplesOfEvents(t *testing.T) {
	t.Parallel()
	tr := readTree(t)
	kinds := map[string]bool{}
	var seen []string
	read := func(name string) func(context.Context, queue.Message) error {
		return func(_ context.Context, m queue.Message) error {
			var v any = &message.Dispatch{}
			if name == "report" {
				v = &message.Report{}
			}
			if err := strict(m.Body, v); err != nil {
				return err
			}
			var members map[string]any
			if err := json.Unmarshal(m.Body, &members); err != nil {
				return err
			}
			kind := strings.Join(slices.Sorted(maps.Keys(members)), "+")
			kinds[kind], seen = true, append(seen, kind)
			return nil
		}
	}
	for _, name := range []string{"dispatch", "report", "refresh", "sweep"} {
		e := lambdaio.Events{Log: slog.New(slog.DiscardHandler)}
		switch name {
		case "dispatch", "report":
			e.Messages = &lambdaio.Messages{Queue: sampleQueue{}, Name: name, Handle: one(read(name))}
			e.Change = func(_ context.Context, c lambdaio.Change) error {
				seen = append(seen, c.Runner)
				return nil
			}
		default:
			e.Due = func(_ context.Context, by time.Time) error {
				seen = append(seen, by.Format(time.RFC3339))
				return nil
			}
		}
		handler, err := e.Handler()
		if err != nil {
			t.Fatal(err)
		}
		for sample, text := range tr.samples(name) {
			var shape any = &events.EventBridgeEvent{}
			switch {
			case bytes.Contains(text, []byte("Records")):
				shape = &events.SQSEvent{}
			case strings.HasPrefix(sample, "codebuild"):
				shape = &events.CodeBuildEvent{}
			}
			if err := strict(text, shape); err != nil {
				t.Errorf("%s/%s: %v", name, sample, err)
			}
			seen = nil
			out, err := handler.Invoke(t.Context(), text)
			if err != nil || len(seen) == 0 || len(out) > 0 && strings.TrimSpace(string(out)) != `{"batchItemFailures":[]}` {
				t.Errorf("%s/%s: saw %q, answered %s, %v", name, sample, seen, out, err)
			}
			for _, s := range seen {
				kinds[s] = true
			}
		}
	}
	for _, kind := range []string{
		"delivery", "again", "admit", "attempt+start", "minute+schedule", "status", "runner", lambdaio.CodeBuild, lambdaio.Fargate, "2026-11-24T10:00:00Z",
	} {
		if !kinds[kind] {
			t.Errorf("no sample of %s", kind)
		}
	}
}

// one lets a handler work on one message at a time.
func one(handle queue.Handler) queue.Handler {
	turn := make(chan struct{}, 1)
	return func(ctx context.Context, m queue.Message) error {
		turn <- struct{}{}
		defer func() { <-turn }()
		return handle(ctx, m)
	}
}
