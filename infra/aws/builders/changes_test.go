package builders

import (
	"context"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
)

// told is CodeBuild with one build, and a queue.
type told struct {
	event runner.Event
	err   error
	sent  []string
}

func (c *told) Event(_ context.Context, id string) (runner.Event, error) {
	if id != "arn:build" {
		return runner.Event{}, fault.New(fault.NotFound, "no such build")
	}
	return c.event, c.err
}

func (c *told) Publish(_ context.Context, body []byte, _ time.Duration) error {
	c.sent = append(c.sent, string(body))
	return nil
}

func TestChanges(t *testing.T) {
	t.Parallel()
	event := runner.Event{Build: "b", Attempt: "a", Ref: "project:1", State: runner.State{Phase: runner.Running}, At: time.Unix(1700000000, 0).UTC()}
	for name, test := range map[string]struct {
		change lambdaio.Change
		err    error
		sent   int
		want   fault.Kind
	}{
		"a build":       {lambdaio.Change{Runner: lambdaio.CodeBuild, ARN: "arn:build"}, nil, 1, 0},
		"another build": {lambdaio.Change{Runner: lambdaio.CodeBuild, ARN: "arn:other"}, nil, 0, fault.NotFound},
		"out of reach":  {lambdaio.Change{Runner: lambdaio.CodeBuild, ARN: "arn:build"}, fault.New(fault.Unavailable, "x"), 0, fault.Unavailable},
		"a task":        {lambdaio.Change{Runner: lambdaio.Fargate, ARN: "arn:build"}, nil, 0, fault.NotFound},
	} {
		c := &told{event: event, err: test.err}
		err := Changes(c, c)(t.Context(), test.change)
		if (err != nil) != (test.want != 0) || err != nil && !fault.Is(err, test.want) || len(c.sent) != test.sent {
			t.Errorf("%s: %v, sent %q", name, err, c.sent)
		}
		if test.sent == 1 {
			m, err := message.Read[message.Report](queue.Message{Body: []byte(c.sent[0])})
			if err != nil || m.Runner == nil || *m.Runner != event {
				t.Errorf("%s: sent %s, %v", name, c.sent[0], err)
			}
		}
	}
}
