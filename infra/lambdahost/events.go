package lambdahost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"runnerhub/infra/template"
)

// What EventBridge does: rules that match events, and rates.

// asyncPause is how long Lambda waits before it tries an event again that a function failed
// on; twice that before the third attempt.
const asyncPause = time.Minute

// Lambda keeps an event that nobody came to work on, and tries again after these pauses, as long as the event's age lets it. Such a try is
// not counted.
const (
	throttledPause = time.Second
	longestPause   = 5 * time.Minute
)

// Event is an event of EventBridge as targets get it.
type Event struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       time.Time       `json:"time"`
	Region     string          `json:"region"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
}

// Emit gives an event to the functions whose rules match it; they work on it in the
// background, until the host stops.
func (h *Host) Emit(text []byte) error {
	var event map[string]any
	if err := json.Unmarshal(text, &event); err != nil {
		return fmt.Errorf("an event is not readable: %w", err)
	}
	for _, rule := range h.Stack.Rules {
		if matches(rule.Pattern, event) {
			f := h.functions[rule.Function]
			if f == nil {
				return fmt.Errorf("a rule leads to %q, which is no function", rule.Function)
			}
			h.background(func(ctx context.Context) { h.async(ctx, f, text) })
			if h.Twice {
				h.background(func(ctx context.Context) { h.async(ctx, f, text) })
			}
		}
	}
	return nil
}

// async invokes a function with an event that nobody waits for, as often as its configuration says, and
// keeps what it fails on among the dead letters it names.
func (h *Host) async(ctx context.Context, f *function, payload []byte) {
	for attempt := 0; ctx.Err() == nil; attempt++ {
		err := f.queued(ctx, payload)
		if err == nil {
			return
		}
		if attempt >= f.Async.Retries || errors.Is(err, errThrottled) {
			h.Log.Error("an event was given up", "function", f.ID, "error", err)
			h.keep(context.WithoutCancel(ctx), f.Async.DeadLetter, payload)
			return
		}
		pause(ctx, asyncPause*time.Duration(attempt+1))
	}
}

// queued invokes a function with an event that Lambda keeps until there is somebody to work on it, or it is too old: then
// the error is errThrottled.
func (f *function) queued(ctx context.Context, payload []byte) error {
	came := time.Now()
	for wait := throttledPause; ; wait = min(2*wait, longestPause) {
		_, err := f.invoke(context.WithoutCancel(ctx), payload)
		if !errors.Is(err, errThrottled) || time.Since(came)+wait > f.Async.MaxAge {
			return err
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return err
		}
	}
}

// keep puts an event that was given up into the queue of an ARN.
func (h *Host) keep(ctx context.Context, queue string, payload []byte) {
	for _, q := range h.Stack.Queues {
		if q.ARN != queue {
			continue
		}
		if err := SendMessage(ctx, h.Services, q, string(payload)); err != nil {
			h.Log.Error("an event was lost", "queue", q.Name, "error", err)
		}
	}
}

// matches evaluates an event pattern: every field that it names has one of the values that
// it lists, or what it says of prefixes and existence.
func matches(pattern map[string]any, event map[string]any) bool {
	for name, want := range pattern {
		got, there := event[name]
		switch want := want.(type) {
		case map[string]any:
			nested, ok := got.(map[string]any)
			if !ok || !matches(want, nested) {
				return false
			}
		case []any:
			if !oneOf(want, got, there) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// oneOf reports whether a value is one of those listed. A list in the event matches by any of its values.
func oneOf(want []any, got any, there bool) bool {
	if values, ok := got.([]any); ok {
		for _, v := range values {
			if oneOf(want, v, true) {
				return true
			}
		}
		return false
	}
	for _, w := range want {
		rule, ok := w.(map[string]any)
		if !ok {
			if there && w == got {
				return true
			}
			continue
		}
		text, _ := got.(string)
		if prefix, ok := rule["prefix"].(string); ok && there && strings.HasPrefix(text, prefix) {
			return true
		}
		if exists, ok := rule["exists"].(bool); ok && exists == there {
			return true
		}
	}
	return false
}

// every invokes the function of a rate until ctx ends.
func (h *Host) every(ctx context.Context, rate template.Rate) {
	ticker := time.NewTicker(rate.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := h.Tick(ctx, rate.Function, time.Now()); err != nil {
			h.Log.Warn("a scheduled run failed", "function", rate.Function, "error", err)
		}
	}
}

// Tick invokes a function as its rate does, with the time at which that was due.
func (h *Host) Tick(ctx context.Context, function string, at time.Time) error {
	f := h.functions[function]
	if f == nil {
		return fmt.Errorf("there is no function %q", function)
	}
	payload, err := json.Marshal(Event{
		Version: "0", ID: requestID(), DetailType: "Scheduled Event", Source: "aws.events", Account: h.Account, Time: at.UTC().Truncate(time.Second),
		Region: h.Region, Resources: []string{"arn:aws:events:" + h.Region + ":" + h.Account + ":rule/" + function}, Detail: json.RawMessage("{}"),
	})
	if err != nil {
		return err
	}
	return f.queued(ctx, payload)
}
