package scheduler

import (
	"context"
	"crypto/rand"
	"encoding/json"
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

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/aws-sdk-go-v2/service/scheduler/types"

	"runnerhub/infra/ministack"
	simulated "runnerhub/infra/scheduler"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/fault"
	"runnerhub/shared/timetable"
	"runnerhub/shared/timetable/timetabletest"
)

const (
	queueARN = "arn:aws:sqs:us-east-1:000000000000:deliveries"
	roleARN  = "arn:aws:iam::000000000000:role/schedules"
	deadARN  = "arn:aws:sqs:us-east-1:000000000000:schedules-dead"
)

func deps(config aws.Config, group string) Deps {
	return Deps{Config: config, Group: group, Queue: queueARN, Role: roleARN, DeadLetters: deadARN, NewID: rand.Text}
}

func open(t *testing.T, d Deps) *Timetable {
	t.Helper()
	made, err := New(d)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// direct calls a handler in the place of a server: without sockets, so that the clock of a bubble goes on.
type direct struct{ http.Handler }

func (d direct) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

// simulate starts a scheduler of ours, and answers how the SDK reaches it and what it sends.
func simulate(t *testing.T) (aws.Config, <-chan simulated.Delivery) {
	t.Helper()
	sent := make(chan simulated.Delivery, 10_000)
	s, err := simulated.New(simulated.Deps{
		Groups: []string{"runnerhub"}, Now: time.Now, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Send: func(_ context.Context, d simulated.Delivery) error { sent <- d; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return aws.Config{
		Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		BaseEndpoint: aws.String("http://scheduler.test"), HTTPClient: direct{s},
	}, sent
}

func next(ctx context.Context, sent <-chan simulated.Delivery) (due timetable.Due, err error) {
	select {
	case d := <-sent:
		if d.Target != queueARN || d.Role != roleARN {
			return due, fmt.Errorf("sent to %s as %s", d.Target, d.Role)
		}
		return due, json.Unmarshal([]byte(d.Input), &due)
	case <-ctx.Done():
		return due, ctx.Err()
	}
}

func TestContract(t *testing.T) {
	t.Parallel()
	timetabletest.Run(t, timetabletest.Driver{
		Bubble: synctest.Test,
		Open: func(t *testing.T) timetabletest.Running {
			config, sent := simulate(t)
			return timetabletest.Running{
				Timetable: open(t, deps(config, "runnerhub")),
				Due:       func(ctx context.Context) (timetable.Due, error) { return next(ctx, sent) },
			}
		},
	})
}

// Either day suffices: there are two entries, which come and go with the expression, whatever the length of the id.
func TestTwoEntries(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"s", strings.Repeat("a", 59), strings.Repeat("a", 60), strings.Repeat("a", 64)} {
		synctest.Test(t, func(t *testing.T) {
			config, sent := simulate(t)
			tt := open(t, deps(config, "runnerhub"))
			put := func(cron string) {
				t.Helper()
				if err := tt.Put(t.Context(), timetable.Schedule{ID: id, Cron: cron, Zone: "Europe/Berlin"}); err != nil {
					t.Fatal(err)
				}
			}
			within := func(d time.Duration) string {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				minutes := ""
				for {
					due, err := next(ctx, sent)
					if errors.Is(err, context.DeadlineExceeded) {
						return strings.TrimSpace(minutes)
					}
					if err != nil || due.Schedule != id {
						t.Fatal(due, err)
					}
					minutes += " " + due.Minute
				}
			}
			const day = 24 * time.Hour
			put("0 9 3 * WED") // the bubble begins on Saturday, 1 January 2000
			if got := within(7 * day); got != "2000-01-03T08:00:00Z 2000-01-05T08:00:00Z" {
				t.Errorf("either day: %s", got)
			}
			put("0 9 * * WED")
			if got := within(30 * day); got != "2000-01-12T08:00:00Z 2000-01-19T08:00:00Z 2000-01-26T08:00:00Z 2000-02-02T08:00:00Z" {
				t.Errorf("one day: %s", got)
			}
			put("0 9 13 * SUN") // the 13th of February is one
			if got := within(8 * day); got != "2000-02-13T08:00:00Z 2000-02-13T08:00:00Z" {
				t.Errorf("both at once: %s", got)
			}
			if err := tt.Delete(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if got := within(60 * day); got != "" {
				t.Errorf("deleted: %s", got)
			}
		})
	}
	seen := map[string]bool{}
	for _, id := range []string{"s", strings.Repeat("a", 60), strings.Repeat("a", 61), strings.Repeat("a", 64)} {
		for _, name := range names(id) {
			if len(name) > maxName || seen[name] {
				t.Errorf("%s has the entry %s", id, name)
			}
			seen[name] = true
		}
	}
}

// A second opinion of the wire, and what an entry looks like.
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
	config := ministack.Config(server.URL())
	keepsWhatIsSet(t, config)
	absent := open(t, deps(config, "absent"))
	if err := absent.Put(t.Context(), timetable.Schedule{ID: "s", Cron: "* * * * *", Zone: "UTC"}); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "no schedule group absent") {
		t.Errorf("without the group: %v", err)
	}
}

func TestOnOurs(t *testing.T) {
	t.Parallel()
	config, _ := simulate(t)
	keepsWhatIsSet(t, config)
	absent := open(t, deps(config, "absent"))
	if err := absent.Put(t.Context(), timetable.Schedule{ID: "s", Cron: "* * * * *", Zone: "UTC"}); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "no schedule group absent") {
		t.Errorf("without the group: %v", err)
	}
}

// keepsWhatIsSet makes, changes and deletes a schedule; what an operator sets on it stays.
func keepsWhatIsSet(t *testing.T, config aws.Config) {
	client, group := scheduler.NewFromConfig(config), rand.Text()
	if _, err := client.CreateScheduleGroup(t.Context(), &scheduler.CreateScheduleGroupInput{Name: &group}); err != nil {
		t.Fatal(err)
	}
	tt := open(t, deps(config, group))
	put := func(cron string) *scheduler.GetScheduleOutput {
		t.Helper()
		if err := tt.Put(t.Context(), timetable.Schedule{ID: "s", Cron: cron, Zone: "Europe/Berlin"}); err != nil {
			t.Fatal(err)
		}
		out, err := client.GetSchedule(t.Context(), &scheduler.GetScheduleInput{GroupName: &group, Name: aws.String("s")})
		if err != nil {
			t.Fatal(err)
		}
		if out.State != types.ScheduleStateEnabled || *out.ScheduleExpressionTimezone != "Europe/Berlin" || out.FlexibleTimeWindow.Mode != types.FlexibleTimeWindowModeOff ||
			*out.Target.Arn != queueARN || *out.Target.RoleArn != roleARN || *out.Target.DeadLetterConfig.Arn != deadARN || *out.Target.Input != `{"schedule":"s","minute":"<aws.scheduler.scheduled-time>"}` {
			t.Errorf("%q is the entry %+v with the target %+v", cron, out, out.Target)
		}
		return out
	}
	made := put("0 9 * * *")
	if *made.ScheduleExpression != "cron(0 9 * * ? *)" || made.Target.RetryPolicy != nil && made.Target.RetryPolicy.MaximumRetryAttempts != nil {
		t.Errorf("it is made as %s, %+v", *made.ScheduleExpression, made.Target.RetryPolicy)
	}
	target := *made.Target
	target.RetryPolicy = &types.RetryPolicy{MaximumRetryAttempts: aws.Int32(7)}
	target.DeadLetterConfig = nil // as an older version made it
	if _, err := client.UpdateSchedule(t.Context(), &scheduler.UpdateScheduleInput{
		GroupName: &group, Name: made.Name, ScheduleExpression: made.ScheduleExpression, FlexibleTimeWindow: made.FlexibleTimeWindow,
		Target: &target, State: types.ScheduleStateDisabled, Description: aws.String("watched"),
	}); err != nil { // the zone is UTC now, and it is disabled
		t.Fatal(err)
	}
	changed := put("0 9 * * *")
	if aws.ToInt32(changed.Target.RetryPolicy.MaximumRetryAttempts) != 7 || *changed.Description != "watched" {
		t.Errorf("changed it is %+v with the target %+v", changed, changed.Target)
	}
	// An entry that lacks nothing but its dead letters gets them.
	target = *changed.Target
	target.DeadLetterConfig = nil
	if _, err := client.UpdateSchedule(t.Context(), &scheduler.UpdateScheduleInput{
		GroupName: &group, Name: made.Name, ScheduleExpression: changed.ScheduleExpression, ScheduleExpressionTimezone: changed.ScheduleExpressionTimezone,
		FlexibleTimeWindow: changed.FlexibleTimeWindow, Target: &target, State: changed.State,
	}); err != nil {
		t.Fatal(err)
	}
	put("0 9 * * *")
	for range 2 {
		if err := tt.Delete(t.Context(), "s"); err != nil {
			t.Error(err)
		}
	}
	_, err := client.GetSchedule(t.Context(), &scheduler.GetScheduleInput{GroupName: &group, Name: aws.String("s")})
	var gone *types.ResourceNotFoundException
	if !errors.As(err, &gone) {
		t.Errorf("deleted it is still there: %v", err)
	}
}

// Over a line that loses two answers of three, everything is as if it lost none.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config, _ := simulate(t)
		client := scheduler.NewFromConfig(config)
		config.HTTPClient = amazontest.Losing(config.HTTPClient, func(n int) bool { return n%3 != 2 })
		tt := open(t, deps(config, "runnerhub"))
		for _, cron := range []string{"0 9 13 * FRI", "0 9 13 * FRI", "0 10 13 * FRI", "0 10 * * *"} {
			if err := tt.Put(t.Context(), timetable.Schedule{ID: "s", Cron: cron, Zone: "UTC"}); err != nil {
				t.Fatalf("%s: %v", cron, err)
			}
		}
		out, err := client.GetSchedule(t.Context(), &scheduler.GetScheduleInput{GroupName: aws.String("runnerhub"), Name: aws.String("s")})
		if err != nil || *out.ScheduleExpression != "cron(0 10 * * ? *)" {
			t.Errorf("%+v, %v", out, err)
		}
		if err := tt.Delete(t.Context(), "s"); err != nil {
			t.Error(err)
		}
		for _, name := range names("s") {
			if _, err := client.GetSchedule(t.Context(), &scheduler.GetScheduleInput{GroupName: aws.String("runnerhub"), Name: &name}); err == nil {
				t.Errorf("%s is still there", name)
			}
		}
	})
}

func refusal(status int, code, message string) amazontest.Answer {
	return amazontest.Answer{Status: status, Header: map[string]string{"X-Amzn-Errortype": code}, Body: `{"Message":"` + message + `"}`}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	done := amazontest.Answer{Body: `{"ScheduleArn":"a"}`}
	none, taken := refusal(404, "ResourceNotFoundException", "Schedule s does not exist."), refusal(409, "ConflictException", "no")
	other := amazontest.Answer{Body: `{"Name":"s","ScheduleExpression":"cron(1 2 * * ? *)","Target":{"Arn":"a","RoleArn":"r","Input":"i"},"FlexibleTimeWindow":{"Mode":"OFF"},"State":"ENABLED"}`}
	right := amazontest.Answer{Body: `{"Name":"s","ScheduleExpression":"cron(* * * * ? *)","ScheduleExpressionTimezone":"UTC","State":"ENABLED","FlexibleTimeWindow":{"Mode":"OFF"},` +
		`"Target":{"Arn":"` + queueARN + `","RoleArn":"` + roleARN + `","DeadLetterConfig":{"Arn":"` + deadARN + `"},"Input":"{\"schedule\":\"s\",\"minute\":\"<aws.scheduler.scheduled-time>\"}"}}`}
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		calls   string // their methods, in order
		kind    fault.Kind
		ok      bool
		field   string
	}{
		"made":                     {[]amazontest.Answer{none, done}, "GET POST DELETE", 0, true, ""},
		"changed":                  {[]amazontest.Answer{other, done}, "GET PUT DELETE", 0, true, ""},
		"right already":            {[]amazontest.Answer{right, done}, "GET DELETE", 0, true, ""},
		"made by another":          {[]amazontest.Answer{none, taken, other, done}, "GET POST GET PUT DELETE", 0, true, ""},
		"deleted by another":       {[]amazontest.Answer{other, none, none, done}, "GET PUT GET POST DELETE", 0, true, ""},
		"being changed":            {[]amazontest.Answer{other, taken, done}, "GET PUT PUT DELETE", 0, true, ""},
		"changed all the time":     {[]amazontest.Answer{none, taken, none, taken, none, taken}, "GET POST GET POST GET POST", fault.Conflict, false, ""},
		"throttled":                {[]amazontest.Answer{refusal(429, "ThrottlingException", "no")}, "GET GET GET", fault.Unavailable, false, ""},
		"throttled, making":        {[]amazontest.Answer{none, refusal(429, "ThrottlingException", "no")}, "GET POST POST POST", fault.Unavailable, false, ""},
		"lost":                     {[]amazontest.Answer{none, {Drop: true}}, "GET POST POST POST", fault.Unknown, false, ""},
		"trouble of its own":       {[]amazontest.Answer{none, refusal(500, "InternalServerException", "no")}, "GET POST POST POST", fault.Unknown, false, ""},
		"too many":                 {[]amazontest.Answer{none, refusal(402, "ServiceQuotaExceededException", "no")}, "GET POST", fault.Unavailable, false, ""},
		"no permission":            {[]amazontest.Answer{refusal(403, "AccessDeniedException", "no")}, "GET", fault.Internal, false, ""},
		"no such zone":             {[]amazontest.Answer{none, refusal(400, "ValidationException", "The provided timezone is not supported")}, "GET POST", fault.Invalid, false, "zone"},
		"something else is wrong":  {[]amazontest.Answer{none, refusal(400, "ValidationException", "Invalid Schedule Expression")}, "GET POST", fault.Internal, false, ""},
		"the other is not deleted": {[]amazontest.Answer{none, done, refusal(429, "ThrottlingException", "no")}, "GET POST DELETE DELETE DELETE", fault.Unavailable, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := amazontest.Serve(t, test.answers...)
			d, made := deps(service.Config(), "runnerhub"), 0
			d.NewID = func() string { made++; return fmt.Sprint("token-", made) }
			err := open(t, d).Put(t.Context(), timetable.Schedule{ID: "s", Cron: "* * * * *", Zone: "UTC"})
			_, field := fault.Public(err)
			if test.ok != (err == nil) || !test.ok && !fault.Is(err, test.kind) || field != test.field {
				t.Errorf("%v of kind %v and field %q", err, fault.KindOf(err), field)
			}
			calls, tokens := "", map[string]bool{}
			for _, r := range service.Requests() {
				calls += " " + r.Method
				var in struct{ ClientToken string }
				if r.Method == http.MethodPost {
					if err := json.Unmarshal([]byte(r.Body), &in); err != nil || !strings.HasPrefix(in.ClientToken, "token-") {
						t.Errorf("a call without a token: %s", r.Body)
					}
					tokens[in.ClientToken] = true
				}
			}
			if calls = strings.TrimSpace(calls); calls != test.calls {
				t.Errorf("the calls are %s, want %s", calls, test.calls)
			}
			if strings.Count(calls, "POST POST") > 0 && len(tokens) != 1 {
				t.Errorf("a repeat is not known by its token: %v", tokens)
			}
		})
	}
	service := amazontest.Serve(t, done)
	zone := timetable.Schedule{ID: "s", Cron: "0 0 */10 * MON", Zone: "UTC"}
	if err := open(t, deps(service.Config(), "runnerhub")).Put(t.Context(), zone); !fault.Is(err, fault.Invalid) || len(service.Requests()) != 0 {
		t.Errorf("what it cannot say: %v after %d calls", err, len(service.Requests()))
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(*Deps){
		"credentials":     func(d *Deps) { d.Config.Credentials = nil },
		"region":          func(d *Deps) { d.Config.Region = "" },
		"a group":         func(d *Deps) { d.Group = "" },
		"a queue":         func(d *Deps) { d.Queue = "" },
		"a role":          func(d *Deps) { d.Role = "" },
		"dead letters":    func(d *Deps) { d.DeadLetters = "" },
		"a source of ids": func(d *Deps) { d.NewID = nil },
	} {
		d := deps(ministack.Config("http://127.0.0.1:1"), "runnerhub")
		if _, err := New(d); err != nil {
			t.Fatal(err)
		}
		take(&d)
		if _, err := New(d); err == nil {
			t.Errorf("without %s it is made", name)
		}
	}
}
