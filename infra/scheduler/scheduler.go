// Package scheduler stands for Amazon EventBridge Scheduler where MiniStack falls
// short: it knows time zones, evaluates cron expressions as AWS documents them, and puts the
// scheduled time into what it sends. It speaks the wire format, so the SDK works with it.
//
// It is no part of the service, and knows cron expressions alone: no rates, no single times, no flexible windows. What it does not
// understand it refuses. It keeps everything in memory, and whom it sends to is its owner's affair.
package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Deps is what a Scheduler needs.
type Deps struct {
	Groups []string         // that exist from the start; "default" always does
	Now    func() time.Time // must advance with the time that timers wait for
	// Send gives an input to its target. What fails is sent again after a second, as often as the schedule says, and then to
	// its dead letters, if it has any.
	Send func(ctx context.Context, d Delivery) error
	Log  *slog.Logger
}

// Delivery is what a schedule sends when its minute comes.
type Delivery struct {
	Group, Name  string // of the schedule
	Target, Role string // ARNs
	Input        string // with the context attributes filled in
	At           time.Time
}

// Scheduler holds schedules, answers calls about them, and sends. It is safe for concurrent use.
type Scheduler struct {
	deps    Deps
	changed chan struct{} // wakes Run; holds one

	mu        sync.Mutex
	groups    map[string]bool
	schedules map[string]*schedule // by group and name, with a slash between
}

// New makes a Scheduler; Run sends.
func New(d Deps) (*Scheduler, error) {
	if d.Now == nil || d.Send == nil || d.Log == nil {
		return nil, errors.New("scheduler: Now, Send and Log are needed")
	}
	s := &Scheduler{deps: d, changed: make(chan struct{}, 1), groups: map[string]bool{"default": true}, schedules: map[string]*schedule{}}
	for _, group := range d.Groups {
		s.groups[group] = true
	}
	return s, nil
}

// description is a schedule on the wire.
type description struct {
	ClientToken                string  `json:",omitempty"`
	Arn, Name                  string  `json:",omitempty"`
	GroupName                  string  `json:",omitempty"`
	Description                string  `json:",omitempty"`
	State                      string  `json:",omitempty"`
	ActionAfterCompletion      string  `json:",omitempty"`
	KmsKeyArn                  string  `json:",omitempty"`
	CreationDate               float64 `json:",omitempty"`
	LastModificationDate       float64 `json:",omitempty"`
	ScheduleExpression         string
	ScheduleExpressionTimezone string
	FlexibleTimeWindow         struct{ Mode string }
	Target                     target
}

type target struct {
	Arn, RoleArn, Input string
	RetryPolicy         *struct {
		MaximumEventAgeInSeconds int `json:",omitempty"`
		MaximumRetryAttempts     *int
	} `json:",omitempty"`
	DeadLetterConfig *struct{ Arn string } `json:",omitempty"`
}

// Entry is a schedule as it is held.
type Entry struct {
	Group, Name string
	Expression  string
	Zone        string
	Input       string // before the context attributes are filled in
}

// Entries answers all enabled schedules, in no order.
func (s *Scheduler) Entries() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Entry
	for _, held := range s.schedules {
		if held.State == "ENABLED" {
			all = append(all, Entry{held.GroupName, held.Name, held.ScheduleExpression, held.ScheduleExpressionTimezone, held.Target.Input})
		}
	}
	return all
}

// schedule is one that is held.
type schedule struct {
	description
	expression *Expression
	next       time.Time // zero: never
}

// failure is an error on the wire.
type failure struct {
	status        int
	code, message string
}

func (f *failure) Error() string { return f.code + ": " + f.message }

func invalid(format string, args ...any) *failure {
	return &failure{http.StatusBadRequest, "ValidationException", fmt.Sprintf(format, args...)}
}

func absent(format string, args ...any) *failure {
	return &failure{http.StatusNotFound, "ResourceNotFoundException", fmt.Sprintf(format, args...)}
}

// ServeHTTP implements http.Handler.
func (s *Scheduler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := s.answer(r)
	var f *failure
	status := http.StatusOK
	if errors.As(err, &f) {
		w.Header().Set("X-Amzn-Errortype", f.code)
		status, answer = f.status, map[string]string{"Message": f.message}
	} else if err != nil {
		status, answer = http.StatusInternalServerError, map[string]string{"Message": err.Error()}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.deps.Log.Error("answering a call", "error", err)
	}
}

func (s *Scheduler) answer(r *http.Request) (any, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := strings.CutPrefix(r.URL.Path, "/schedule-groups/"); ok && r.Method == http.MethodPost {
		return s.createGroup(name)
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/schedules/")
	if !ok || !nameLike(name) {
		return nil, invalid("%s %s is not understood", r.Method, r.URL.Path)
	}
	switch r.Method {
	case http.MethodPost:
		return s.put(name, body, true)
	case http.MethodPut:
		return s.put(name, body, false)
	}
	group := r.URL.Query().Get("groupName")
	if group == "" {
		group = "default"
	}
	held := s.schedules[group+"/"+name]
	switch {
	case held == nil:
		return nil, absent("Schedule %s does not exist.", name)
	case r.Method == http.MethodGet:
		shown := held.description
		shown.ClientToken = ""
		return shown, nil
	case r.Method == http.MethodDelete:
		delete(s.schedules, group+"/"+name)
		return struct{}{}, nil
	}
	return nil, invalid("%s %s is not understood", r.Method, r.URL.Path)
}

func (s *Scheduler) createGroup(name string) (any, error) {
	if !nameLike(name) {
		return nil, invalid("%q is no name of a schedule group", name)
	}
	if s.groups[name] {
		return nil, &failure{http.StatusConflict, "ConflictException", "Schedule group " + name + " already exists."}
	}
	s.groups[name] = true
	return map[string]string{"ScheduleGroupArn": arn("schedule-group/" + name)}, nil
}

// put creates or updates.
func (s *Scheduler) put(name string, body []byte, create bool) (any, error) {
	d := description{ScheduleExpressionTimezone: "UTC", State: "ENABLED", GroupName: "default", ActionAfterCompletion: "NONE"}
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return nil, invalid("%v", err)
	}
	expression, err := check(d)
	if err != nil {
		return nil, err
	}
	key, now := d.GroupName+"/"+name, s.deps.Now()
	held := s.schedules[key]
	switch {
	case !s.groups[d.GroupName]:
		return nil, absent("Schedule group %s does not exist.", d.GroupName)
	case create && held != nil && d.ClientToken != "" && d.ClientToken == held.ClientToken:
		return map[string]string{"ScheduleArn": held.Arn}, nil // the repeat of the call that made it
	case create && held != nil:
		return nil, &failure{http.StatusConflict, "ConflictException", "Schedule " + name + " already exists."}
	case !create && held == nil:
		return nil, absent("Schedule %s does not exist.", name)
	}
	d.Name, d.Arn, d.CreationDate = name, arn("schedule/"+key), float64(now.Unix())
	d.LastModificationDate = d.CreationDate
	if held != nil {
		d.CreationDate = held.CreationDate
	}
	made := &schedule{description: d, expression: expression}
	made.advance(now)
	s.schedules[key] = made
	select {
	case s.changed <- struct{}{}:
	default: // Run is about to look already
	}
	return map[string]string{"ScheduleArn": d.Arn}, nil
}

// check refuses what AWS documents that it refuses, and what is not understood here.
func check(d description) (*Expression, error) {
	switch {
	case !nameLike(d.GroupName):
		return nil, invalid("GroupName is no name")
	case d.ClientToken != "" && !regexp.MustCompile(`^[a-zA-Z0-9-_]{1,64}$`).MatchString(d.ClientToken):
		return nil, invalid("ClientToken has other characters, or too many")
	case d.Target.Arn == "" || d.Target.RoleArn == "":
		return nil, invalid("Target needs Arn and RoleArn")
	case d.Target.Input == "":
		return nil, invalid("Target needs Input")
	case d.FlexibleTimeWindow.Mode != "OFF":
		return nil, invalid("FlexibleTimeWindow %q is not understood", d.FlexibleTimeWindow.Mode)
	case d.State != "ENABLED" && d.State != "DISABLED":
		return nil, invalid("State %q is not understood", d.State)
	case len(d.ScheduleExpression) > 256:
		return nil, invalid("ScheduleExpression has more than 256 characters")
	case len(d.ScheduleExpressionTimezone) > 50:
		return nil, invalid("ScheduleExpressionTimezone has more than 50 characters")
	}
	expression, err := Parse(d.ScheduleExpression, d.ScheduleExpressionTimezone)
	if err != nil {
		return nil, invalid("Invalid Schedule Expression: %v", err)
	}
	return expression, nil
}

func nameLike(name string) bool {
	return regexp.MustCompile(`^[0-9a-zA-Z-_.]{1,64}$`).MatchString(name)
}

func arn(resource string) string { return "arn:aws:scheduler:us-east-1:000000000000:" + resource }

func (s *schedule) advance(after time.Time) {
	s.next = time.Time{}
	if next, ok := s.expression.Next(after); ok && s.State == "ENABLED" {
		s.next = next
	}
}

// Run sends what is due, until ctx ends.
func (s *Scheduler) Run(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	for ctx.Err() == nil {
		due, next := s.due()
		for _, d := range due {
			sending.Go(func() { s.send(ctx, d) })
		}
		timer := time.NewTimer(min(next.Sub(s.deps.Now()), time.Hour))
		select {
		case <-ctx.Done():
		case <-s.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// attempt is a delivery and how often it may be tried.
type attempt struct {
	Delivery
	retries int
	dead    string // ARN of where it goes then; may be empty
}

// due answers what is due now, and when to look again.
func (s *Scheduler) due() (due []attempt, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.deps.Now()
	next = now.Add(time.Hour)
	for _, held := range s.schedules {
		for !held.next.IsZero() && !held.next.After(now) {
			retries := 185 // as AWS has it
			if policy := held.Target.RetryPolicy; policy != nil && policy.MaximumRetryAttempts != nil {
				retries = *policy.MaximumRetryAttempts
			}
			dead := ""
			if held.Target.DeadLetterConfig != nil {
				dead = held.Target.DeadLetterConfig.Arn
			}
			due = append(due, attempt{Delivery{
				Group: held.GroupName, Name: held.Name, Target: held.Target.Arn, Role: held.Target.RoleArn, At: held.next,
				Input: strings.NewReplacer(
					"<aws.scheduler.schedule-arn>", held.Arn, "<aws.scheduler.scheduled-time>", held.next.UTC().Format(time.RFC3339),
					"<aws.scheduler.execution-id>", strconv.FormatInt(held.next.Unix(), 16), "<aws.scheduler.attempt-number>", "1",
				).Replace(held.Target.Input),
			}, retries, dead})
			held.advance(held.next)
		}
		if !held.next.IsZero() && held.next.Before(next) {
			next = held.next
		}
	}
	return due, next
}

func (s *Scheduler) send(ctx context.Context, a attempt) {
	for n := 0; ; n++ {
		err := s.deps.Send(ctx, a.Delivery)
		if err == nil || ctx.Err() != nil {
			return
		}
		if n >= a.retries {
			s.deps.Log.Error("a schedule's message is given up", "schedule", a.Name, "minute", a.At, "error", err)
			if a.dead != "" {
				a.Target = a.dead
				if err := s.deps.Send(ctx, a.Delivery); err != nil {
					s.deps.Log.Error("nor is it among the dead letters", "schedule", a.Name, "minute", a.At, "error", err)
				}
			}
			return
		}
		again := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
		case <-again.C:
		}
		again.Stop()
	}
}
