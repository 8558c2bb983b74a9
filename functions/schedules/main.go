// Command schedules shows, makes, changes and deletes the schedules of apps.
//
// Trigger: the routes of httpapi.Schedules, by the HTTP API. Timeout: 29 s, of which the work may take 20 and recording what came of it 8; the gateway gives up after 30.
//
// Retries: none. Who asked sees what came of it and may ask again; what the timetable was not told, the sweep tells it.
//
//	success             200, 204; 201 with what was made; with a note where the timetable is behind
//	refusal             400, 401, 403, 404, 409 as problem+json
//	failure             500 or 503 with a reference to the log
//	crash, timeout      500 by the gateway; a schedule is changed as a whole or not at all, and the sweep looks at it
//
// It reads and writes the table, and schedules of one group with one role; it has no secret and sends to no queue.
package main

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/timers"
	"runnerhub/infra/aws/web"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/random"
	"runnerhub/shared/schedule"
	"runnerhub/shared/signin"
)

func main() { aws.Run(start) }

func start(e aws.Environment) (lambda.Handler, error) {
	stored, err := aws.Store(e)
	if err != nil {
		return nil, err
	}
	callers, err := signin.NewCallers(stored)
	if err != nil {
		return nil, err
	}
	keeper, err := timers.Keeper(e, stored)
	if err != nil {
		return nil, err
	}
	plans, err := schedule.New(schedule.Deps{Store: stored, Timekeeper: keeper, Now: time.Now, NewID: random.ID, Log: e.Log})
	if err != nil {
		return nil, err
	}
	return web.Serve(e, callers, httpapi.Schedules(plans))
}
