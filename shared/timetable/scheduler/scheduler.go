// Package scheduler is the timetable on Amazon EventBridge Scheduler: an entry of a
// schedule group for each schedule, or two where cron means that one of two days suffices. When a minute comes, EventBridge
// sends timetable.Due to the queue by itself; nothing of ours runs for it.
//
// A minute comes within its sixty seconds, at least once; where both entries are right, twice. When
// clocks go forward, EventBridge leaves out what they leave out.
//
// It needs scheduler:GetSchedule, CreateSchedule, UpdateSchedule and DeleteSchedule on the schedules of the
// group, and iam:PassRole for the role, to scheduler.amazonaws.com. The role may send messages to the queue, and to that of dead letters. Group and
// role are made by the template, not here.
package scheduler

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/aws-sdk-go-v2/service/scheduler/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/fault"
	"runnerhub/shared/timetable"
)

const (
	maxName = 64 // characters of an entry's name
	maxZone = 50 // characters of a time zone

	missing  = "ResourceNotFoundException"
	conflict = "ConflictException"
)

// Deps is what New needs.
type Deps struct {
	Config aws.Config
	Group  string // the schedule group
	Queue  string // ARN of the queue that gets each timetable.Due as JSON
	Role   string // ARN of the role with which EventBridge sends
	// DeadLetters is the ARN of the queue that gets what EventBridge has given up sending; the role may send there as well.
	DeadLetters string
	NewID       func() string // tells a call from its repeat; of [A-Za-z0-9_-]{1,64}
}

// Timetable implements timetable.Timetable. It is safe for concurrent use; of two who put
// one schedule at the same time, either may win.
type Timetable struct {
	deps   Deps
	client *scheduler.Client
}

var _ timetable.Timetable = (*Timetable)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Timetable, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.Group == "" || deps.Queue == "" || deps.Role == "" || deps.DeadLetters == "" || deps.NewID == nil {
		return nil, errors.New("timetable/scheduler: no credentials, region, schedule group, queue, role, queue of dead letters or source of ids")
	}
	client := scheduler.NewFromConfig(deps.Config, func(o *scheduler.Options) { o.Retryer = aws.NopRetryer{} })
	return &Timetable{deps: deps, client: client}, nil
}

// Put implements timetable.Timetable. It looks before it writes, so that an entry which is right already is not
// begun anew, and so that what an operator has set on it, its retries and its description, stays.
func (t *Timetable) Put(ctx context.Context, s timetable.Schedule) error {
	if err := s.Check(); err != nil {
		return err
	}
	if len(s.Zone) > maxZone {
		return fault.Field("zone", "%q is longer than the %d characters that EventBridge Scheduler takes", s.Zone, maxZone)
	}
	wanted, err := expressions(s)
	if err != nil {
		return err
	}
	for i, name := range names(s.ID) {
		if i >= len(wanted) {
			err = t.delete(ctx, name)
		} else {
			err = t.put(ctx, name, wanted[i], s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Delete implements timetable.Timetable.
func (t *Timetable) Delete(ctx context.Context, id string) error {
	if err := timetable.CheckID(id); err != nil {
		return err
	}
	for _, name := range names(id) {
		if err := t.delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// names are those of the entries of a schedule. No id has a dot, so the second is no other's first.
func names(id string) [2]string {
	const week = ".week"
	second := id
	if len(id)+len(week) > maxName {
		sum := sha256.Sum256([]byte(id))
		second = hex.EncodeToString(sum[:16]) + ".of"
	}
	return [2]string{id, second + week}
}

// put makes the entry what it should be. Others may make and delete it meanwhile, so it
// looks again when it was wrong about that.
func (t *Timetable) put(ctx context.Context, name, expression string, s timetable.Schedule) error {
	want, err := t.entry(name, expression, s)
	if err != nil {
		return err
	}
	for range 3 {
		found, err := t.get(ctx, name)
		switch {
		case amazon.Code(err) == missing:
			if err = t.create(ctx, want); amazon.Code(err) == missing {
				return fault.Wrap(fault.Internal, err, "there is no schedule group %s: deploy the template again, which makes it, or create it", t.deps.Group)
			}
		case err != nil:
			return err
		case same(found, want):
			return nil
		default:
			err = t.update(ctx, found, want)
		}
		if code := amazon.Code(err); code != conflict && code != missing {
			return zoneFault(err, s.Zone)
		}
	}
	return fault.New(fault.Conflict, "the schedule is changed by others all the time")
}

// entry is what the entry should be, as it is created.
func (t *Timetable) entry(name, expression string, s timetable.Schedule) (*scheduler.CreateScheduleInput, error) {
	// EventBridge puts the time into the text of the input, where it finds this very text: so without escapes.
	var input bytes.Buffer
	text := json.NewEncoder(&input)
	text.SetEscapeHTML(false)
	if err := text.Encode(timetable.Due{Schedule: s.ID, Minute: "<aws.scheduler.scheduled-time>"}); err != nil {
		return nil, fmt.Errorf("encode a minute: %w", err)
	}
	return &scheduler.CreateScheduleInput{
		GroupName: &t.deps.Group, Name: &name, State: types.ScheduleStateEnabled,
		ScheduleExpression: &expression, ScheduleExpressionTimezone: &s.Zone,
		FlexibleTimeWindow: &types.FlexibleTimeWindow{Mode: types.FlexibleTimeWindowModeOff},
		Target: &types.Target{
			Arn: &t.deps.Queue, RoleArn: &t.deps.Role, Input: aws.String(strings.TrimSpace(input.String())),
			DeadLetterConfig: &types.DeadLetterConfig{Arn: &t.deps.DeadLetters},
		},
	}, nil
}

func same(found *scheduler.GetScheduleOutput, want *scheduler.CreateScheduleInput) bool {
	if found.Target == nil || found.Target.DeadLetterConfig == nil || found.FlexibleTimeWindow == nil {
		return false
	}
	equal := func(a, b *string) bool { return aws.ToString(a) == aws.ToString(b) }
	return found.State == want.State && found.FlexibleTimeWindow.Mode == want.FlexibleTimeWindow.Mode && found.StartDate == nil && found.EndDate == nil &&
		equal(found.ScheduleExpression, want.ScheduleExpression) && equal(found.ScheduleExpressionTimezone, want.ScheduleExpressionTimezone) &&
		equal(found.Target.Arn, want.Target.Arn) && equal(found.Target.RoleArn, want.Target.RoleArn) && equal(found.Target.Input, want.Target.Input) &&
		equal(found.Target.DeadLetterConfig.Arn, want.Target.DeadLetterConfig.Arn)
}

func (t *Timetable) get(ctx context.Context, name string) (out *scheduler.GetScheduleOutput, err error) {
	err = amazon.Usual().Do(ctx, func(ctx context.Context) (err error) {
		out, err = t.client.GetSchedule(ctx, &scheduler.GetScheduleInput{GroupName: &t.deps.Group, Name: &name})
		return err
	})
	return out, amazon.Fault(err, false, kindOf, "the timetable does not answer")
}

// create answers a conflict when the entry is there: made by another process.
func (t *Timetable) create(ctx context.Context, want *scheduler.CreateScheduleInput) error {
	want.ClientToken = aws.String(t.deps.NewID())
	err := amazon.Usual().Do(ctx, func(ctx context.Context) error {
		_, err := t.client.CreateSchedule(ctx, want)
		return err
	})
	return amazon.Fault(err, true, kindOf, "the timetable did not take a schedule")
}

// update replaces the entry. What it leaves out is reset, so what is not ours is handed back.
func (t *Timetable) update(ctx context.Context, found *scheduler.GetScheduleOutput, want *scheduler.CreateScheduleInput) error {
	target := *want.Target
	in := &scheduler.UpdateScheduleInput{
		GroupName: want.GroupName, Name: want.Name, State: want.State, ClientToken: aws.String(t.deps.NewID()),
		ScheduleExpression: want.ScheduleExpression, ScheduleExpressionTimezone: want.ScheduleExpressionTimezone,
		FlexibleTimeWindow: want.FlexibleTimeWindow, Target: &target,
		Description: found.Description, KmsKeyArn: found.KmsKeyArn, ActionAfterCompletion: found.ActionAfterCompletion,
	}
	if found.Target != nil {
		in.Target.RetryPolicy = found.Target.RetryPolicy
	}
	err := changing().Do(ctx, func(ctx context.Context) error {
		_, err := t.client.UpdateSchedule(ctx, in)
		return err
	})
	return amazon.Fault(err, true, kindOf, "the timetable did not take a schedule")
}

func (t *Timetable) delete(ctx context.Context, name string) error {
	in := &scheduler.DeleteScheduleInput{GroupName: &t.deps.Group, Name: &name, ClientToken: aws.String(t.deps.NewID())}
	err := changing().Do(ctx, func(ctx context.Context) error {
		_, err := t.client.DeleteSchedule(ctx, in)
		if amazon.Code(err) == missing {
			return nil
		}
		return err
	})
	return amazon.Fault(err, true, kindOf, "the timetable did not delete a schedule")
}

// changing is for calls about an entry that is there: a conflict says that it is being changed this moment.
func changing() amazon.Calls {
	calls := amazon.Usual()
	calls.Judge = func(err error) amazon.Verdict {
		if amazon.Code(err) == conflict {
			return amazon.Busy
		}
		return amazon.Judge(err)
	}
	return calls
}

// kindOf is the table of the refusals. What an entry says is checked before EventBridge sees it.
func kindOf(code string) fault.Kind {
	switch code {
	case conflict:
		return fault.Conflict
	case "ServiceQuotaExceededException":
		return fault.Unavailable // the account has its million schedules, until somebody makes room
	}
	return fault.Internal
}

// zoneFault knows the one thing that a user can get wrong and only EventBridge knows: it may not know the
// newest zones, or the oldest names of some.
func zoneFault(err error, zone string) error {
	var refused *types.ValidationException
	if errors.As(err, &refused) {
		message := strings.ToLower(refused.ErrorMessage())
		if strings.Contains(message, "timezone") || strings.Contains(message, "time zone") {
			return &fault.Error{Kind: fault.Invalid, Field: "zone", Message: fmt.Sprintf("zone: EventBridge Scheduler does not know %s; choose another name of it", zone), Cause: err}
		}
	}
	return err
}
