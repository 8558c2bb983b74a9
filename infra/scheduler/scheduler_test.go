package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// call answers the status and the body, or the code of an error.
func call(t *testing.T, s *Scheduler, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	if code := w.Header().Get("X-Amzn-Errortype"); code != "" {
		return w.Code, code
	}
	return w.Code, w.Body.String()
}

// body is a schedule that is taken, with parts exchanged: old, new, old, new …
func body(parts ...string) string {
	return strings.NewReplacer(parts...).Replace(`{"ClientToken":"one","GroupName":"group","ScheduleExpression":"cron(* * * * ? *)",` +
		`"FlexibleTimeWindow":{"Mode":"OFF"},"Target":{"Arn":"target","RoleArn":"role","Input":"at <aws.scheduler.scheduled-time>"}}`)
}

func newScheduler(t *testing.T, send func(context.Context, Delivery) error) *Scheduler {
	t.Helper()
	s, err := New(Deps{Groups: []string{"group"}, Now: time.Now, Send: send, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCalls(t *testing.T) {
	t.Parallel()
	s := newScheduler(t, func(context.Context, Delivery) error { return nil })
	for i, test := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/schedules/s?groupName=group", "", 404, "ResourceNotFoundException"},
		{"PUT", "/schedules/s", body(), 404, "ResourceNotFoundException"},
		{"DELETE", "/schedules/s?groupName=group", "", 404, "ResourceNotFoundException"},
		{"POST", "/schedules/s", body(), 200, "schedule/group/s"},
		{"POST", "/schedules/s", body(), 200, "schedule/group/s"}, // its repeat
		{"POST", "/schedules/s", body("one", "two"), 409, "ConflictException"},
		{"GET", "/schedules/s?groupName=group", "", 200, `"ScheduleExpressionTimezone":"UTC"`},
		{"GET", "/schedules/s", "", 404, "ResourceNotFoundException"}, // of the group "default"
		{"PUT", "/schedules/s", body("(*", "(7"), 200, "schedule/group/s"},
		{"GET", "/schedules/s?groupName=group", "", 200, `"cron(7 * * * ? *)"`},
		{"DELETE", "/schedules/s?groupName=group&clientToken=x", "", 200, "{}"},
		{"GET", "/schedules/s?groupName=group", "", 404, "ResourceNotFoundException"},
		{"POST", "/schedules/s", body(`"group"`, `"another"`), 404, "ResourceNotFoundException"},
		{"POST", "/schedule-groups/another", "{}", 200, "schedule-group/another"},
		{"POST", "/schedule-groups/another", "{}", 409, "ConflictException"},
		{"POST", "/schedules/s", body(`"group"`, `"another"`), 200, "schedule/another/s"},
	} {
		if status, got := call(t, s, test.method, test.path, test.body); status != test.status || !strings.Contains(got, test.says) {
			t.Errorf("%d: %s %s answers %d, %s; want %d, %s", i, test.method, test.path, status, got, test.status, test.says)
		}
	}
	for name, test := range map[string]struct{ method, path, body string }{
		"no JSON":             {"POST", "/schedules/x", "{"},
		"an unknown member":   {"POST", "/schedules/x", body(`{"ClientToken"`, `{"Nonsense":1,"ClientToken"`)},
		"a start":             {"POST", "/schedules/x", body(`{"ClientToken"`, `{"StartDate":1,"ClientToken"`)},
		"a window":            {"POST", "/schedules/x", body("OFF", "FLEXIBLE")},
		"a rate":              {"POST", "/schedules/x", body("cron(* * * * ? *)", "rate(1 minute)")},
		"a zone":              {"POST", "/schedules/x", body(`{"ClientToken"`, `{"ScheduleExpressionTimezone":"Mars/Olympus","ClientToken"`)},
		"a long zone":         {"POST", "/schedules/x", body(`{"ClientToken"`, `{"ScheduleExpressionTimezone":"`+strings.Repeat("x", 51)+`","ClientToken"`)},
		"a long expression":   {"POST", "/schedules/x", body("cron(*", "cron("+strings.Repeat("1,", 128)+"1")},
		"a state":             {"POST", "/schedules/x", body(`{"ClientToken"`, `{"State":"ON","ClientToken"`)},
		"no target":           {"POST", "/schedules/x", body(`"target"`, `""`)},
		"no role":             {"POST", "/schedules/x", body(`"role"`, `""`)},
		"no input":            {"POST", "/schedules/x", body(`at <aws.scheduler.scheduled-time>`, "")},
		"a token":             {"POST", "/schedules/x", body("one", "o.e")},
		"a group":             {"POST", "/schedules/x", body(`"group"`, `"g/g"`)},
		"a name":              {"POST", "/schedules/" + strings.Repeat("x", 65), body()},
		"another path":        {"POST", "/tags/x", body()},
		"another method":      {"PATCH", "/schedules/s?groupName=another", ""},
		"no name for a group": {"POST", "/schedule-groups/a:b", "{}"},
	} {
		if status, got := call(t, s, test.method, test.path, test.body); status != http.StatusBadRequest || got != "ValidationException" {
			t.Errorf("%s: %d, %s", name, status, got)
		}
	}
}

// What could not be sent is sent again, as often as the schedule says, and a disabled one sends nothing.
func TestSends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		failures := map[string]int{"fails": 2, "given-up": 100, "dead": 100}
		s := newScheduler(t, func(_ context.Context, d Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if failures[d.Name] > 0 && d.Target != "letters" {
				failures[d.Name]--
				return errors.New("no")
			}
			got = append(got, fmt.Sprintf("%s %s to %s as %s after %v", d.Name, d.Input, d.Target, d.Role, time.Since(d.At)))
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { s.Run(ctx) })
		for name, text := range map[string]string{
			"works": body("(*", "(1"), "fails": body("(*", "(2"), "disabled": body(`{"ClientToken"`, `{"State":"DISABLED","ClientToken"`),
			"dead":     body("(*", "(4", `"role"`, `"role","RetryPolicy":{"MaximumRetryAttempts":5},"DeadLetterConfig":{"Arn":"letters"}`),
			"given-up": body("(*", "(3", `"role"`, `"role","RetryPolicy":{"MaximumRetryAttempts":5}`),
		} {
			if status, said := call(t, s, "POST", "/schedules/"+name, text); status != http.StatusOK {
				t.Fatal(name, said)
			}
		}
		time.Sleep(30 * time.Minute)
		cancel()
		running.Wait()
		want := "works at 2000-01-01T00:01:00Z to target as role after 0s\nfails at 2000-01-01T00:02:00Z to target as role after 2s\n" +
			"dead at 2000-01-01T00:04:00Z to letters as role after 5s"
		if strings.Join(got, "\n") != want || failures["given-up"] != 94 || failures["dead"] != 94 {
			t.Errorf("sent\n%s\nand %d failures are left", strings.Join(got, "\n"), failures["given-up"])
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	send := func(context.Context, Delivery) error { return nil }
	for _, d := range []Deps{{}, {Send: send, Log: slog.Default()}, {Now: time.Now, Log: slog.Default()}, {Now: time.Now, Send: send}} {
		if _, err := New(d); err == nil {
			t.Errorf("%+v is taken", d)
		}
	}
}
