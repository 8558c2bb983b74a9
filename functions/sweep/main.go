// Command sweep finds what got lost, and has it done.
//
// Trigger: an EventBridge rate, every minute. Timeout: 60 s, as long as it takes until the next one.
//
// Retries: none, the next minute comes anyway. What is due stays due until it is dealt with, and two at once leave messages twice,
// which do no harm.
//
//	success             what was due has its message, or was postponed; the rest of more than 100 of each shard waits
//	refusal             an entry whose record is gone, or says something else, is dropped
//	failure             an error, for the alarm; what could be done is
//	crash, timeout      what is not done is due again
//
// The time of the event says what is due. It sends to both queues, looks at builds and stops those past their time, and tells
// the timetable of schedules; it starts no build, and has no secret.
package main

import (
	"errors"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/builders"
	"runnerhub/infra/aws/queues"
	"runnerhub/infra/aws/timers"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/sweep"
)

func main() { aws.Run(start) }

func start(e aws.Environment) (lambda.Handler, error) {
	stored, err := aws.Store(e)
	if err != nil {
		return nil, err
	}
	deliveries, err := queues.Deliveries(e)
	reports, err2 := queues.Reports(e)
	watcher, err3 := builders.Watcher(e)
	keeper, err4 := timers.Keeper(e, stored)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return nil, err
	}
	lost, err := sweep.New(sweep.Deps{
		Store: stored, Deliveries: deliveries, Reports: reports, Runner: watcher, RunnerName: builders.Name, Timekeeper: keeper,
		WaitLimit: dispatch.WaitLimit, HoldLimit: dispatch.HoldLimit, Now: time.Now, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	return lambdaio.Events{Due: lost.RunBy, Log: e.Log}.Handler()
}
