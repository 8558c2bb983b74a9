// Package lambdaio turns the events of AWS Lambda into what the rest of the code
// takes, and answers into what Lambda wants: requests of an HTTP API, batches of messages, what EventBridge
// tells of builds, and the ticks of a schedule. It knows the shapes of events and
// nothing of what they mean. Of an event only its source is held to be exact: one that nobody here
// expects is an error, because it would be lost without a trace otherwise; what else AWS adds to an event is passed over.
package lambdaio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/shared/budget"
	"runnerhub/shared/queue"
)

// Events is what a function takes that is not called over HTTP. What is nil is not expected.
type Events struct {
	// Messages are those of a queue.
	Messages *Messages
	// Change is told that something outside has changed its state. Its error is judged as
	// that of a queue.Handler: what no retry can mend is logged and over, anything else is Lambda's to try again.
	Change func(ctx context.Context, c Change) error
	// Due is to do all that is due by the time of a tick. A tick is not tried again: the next one comes. Its context ends
	// a while before the invocation does, so that what is begun by then is brought to its end, and an error is told.
	Due func(ctx context.Context, by time.Time) error
	Log *slog.Logger
}

// Runners that tell of their changes by EventBridge.
const (
	CodeBuild = "codebuild"
	Fargate   = "fargate"
)

// Change is a hint that an attempt may have changed its state: hints come twice, late and in any order,
// and say nothing that would not have to be asked for again.
type Change struct {
	Runner string // CodeBuild or Fargate
	ARN    string // of the build or the task
}

// event is what is needed of an event that is no call.
type event struct {
	// Of a batch.
	Records []record `json:"Records"`
	// Of EventBridge.
	ID         string    `json:"id"`
	Source     string    `json:"source"`
	DetailType string    `json:"detail-type"`
	Time       time.Time `json:"time"`
	Detail     struct {
		BuildID string `json:"build-id"`
		TaskARN string `json:"taskArn"`
	} `json:"detail"`
}

// Handler answers the handler for these events.
func (v Events) Handler() (lambda.Handler, error) {
	switch {
	case v.Log == nil || (v.Messages == nil && v.Change == nil && v.Due == nil):
		return nil, errors.New("lambdaio: Log and a kind of events are needed")
	case v.Messages != nil && (v.Messages.Queue == nil || v.Messages.Handle == nil || v.Messages.Name == ""):
		return nil, errors.New("lambdaio: messages need Queue, Handle and Name")
	}
	return eventHandler{v}, nil
}

type eventHandler struct{ Events }

// Invoke implements lambda.Handler.
func (h eventHandler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var e event
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, undecodable(err)
	}
	switch {
	case len(e.Records) > 0 && h.Messages != nil:
		failures, err := h.Messages.work(ctx, e.Records, h.Log)
		if err != nil {
			return nil, err
		}
		return encode(failures)
	case h.Change != nil && e.Source == "aws.codebuild" && e.DetailType == "CodeBuild Build State Change" && e.Detail.BuildID != "":
		return nil, h.change(ctx, e, Change{CodeBuild, e.Detail.BuildID})
	case h.Change != nil && e.Source == "aws.ecs" && e.DetailType == "ECS Task State Change" && e.Detail.TaskARN != "":
		return nil, h.change(ctx, e, Change{Fargate, e.Detail.TaskARN})
	case h.Due != nil && e.DetailType == "Scheduled Event" && (e.Source == "aws.events" || e.Source == "aws.scheduler") && !e.Time.IsZero():
		return nil, h.due(ctx, e.Time)
	}
	return nil, fmt.Errorf("lambdaio: nobody here expects this event: %d records, source %.40q, detail type %.40q", len(e.Records), e.Source, e.DetailType)
}

// change hands a change on as if it were a message: one that is refused is told of in the
// log, and a panic fails the event, not the process.
func (h eventHandler) change(ctx context.Context, e event, c Change) error {
	ctx, work, _ := deadlines(ctx)
	m := queue.Message{ID: e.ID, Attempt: 1, Deadline: work}
	outcome := queue.Work(ctx, func(ctx context.Context, _ queue.Message) error { return h.Change(ctx, c) }, m, e.Source, h.Log)
	if outcome.Again {
		return fmt.Errorf("lambdaio: event %.40q of %s was not dealt with, the log says why", e.ID, e.Source)
	}
	return nil
}

func (h eventHandler) due(ctx context.Context, by time.Time) error {
	ctx, work, _ := deadlines(ctx)
	ctx, cancel := context.WithDeadline(ctx, work)
	defer cancel()
	return h.Due(ctx, by)
}

// forAnswer is the least that is left when it has been told what a batch left.
const forAnswer = 500 * time.Millisecond

// deadlines answers until when handlers work, and until when it is told what they left. Of an invocation the last part is not
// for handlers: when their time is over, they still record what came of a call to Bitbucket or to a runner, which
// the context that is answered bounds. Of an invocation that is short, the parts are.
func deadlines(ctx context.Context) (recorded context.Context, work, tell time.Time) {
	now := time.Now()
	end, ok := ctx.Deadline()
	if !ok {
		end = now.Add(15 * time.Minute) // nothing runs longer on Lambda
	}
	left := end.Sub(now)
	recorded = budget.Until(ctx, end.Add(-min(budget.Telling, left/12)))
	return recorded, end.Add(-min(budget.Recording+budget.Telling, left/4)), end.Add(-min(forAnswer, left/40))
}
