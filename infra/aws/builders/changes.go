package builders

import (
	"context"
	"fmt"

	"runnerhub/shared/fault"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
)

// Events tells what there is to say of a build of CodeBuild.
type Events interface {
	Event(ctx context.Context, id string) (runner.Event, error)
}

// Changes makes messages of reports of what EventBridge tells of builds: a hint leads to looking at the build, and what that
// shows is durable before the hint is done with. From there on it is tried as often as any message.
func Changes(builds Events, reports queue.Publisher) func(context.Context, lambdaio.Change) error {
	return func(ctx context.Context, c lambdaio.Change) error {
		if c.Runner != lambdaio.CodeBuild {
			return fault.New(fault.NotFound, "no builds of this installation run on %s", c.Runner)
		}
		event, err := builds.Event(ctx, c.ARN)
		if err != nil {
			return fmt.Errorf("looking at a build that has changed: %w", err)
		}
		return message.Send(ctx, reports, message.Report{Runner: &event}, 0)
	}
}
