// Command builds shows builds, their logs and pages, asks for replays of deliveries, and is what the agents of builds talk to.
//
// Trigger: the routes of httpapi.Builds and httpapi.Agents, by the HTTP API. Timeout: 29 s, of which the work may take 20 and recording what came of it 8; the gateway gives up after 30.
//
// Retries: by agents, which repeat what was not answered, for minutes; a claim or a report that comes again is answered as the first.
//
//	success             200; 202 for a replay, which dispatch then decides
//	refusal             400, 401, 403, 404; 409 for an agent whose ticket is spent or whose attempt is over
//	failure             500 or 503 with a reference to the log
//	crash, timeout      500 by the gateway; a build's state has moved or not, and what hangs on it with it
//
// It makes clone credentials with the tokens of connections, sends to both queues, and reads logs; it starts and stops no build: who cancels one asks dispatch.
package main

import (
	"errors"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/buildlogs"
	"runnerhub/infra/aws/forge"
	"runnerhub/infra/aws/queues"
	"runnerhub/infra/aws/web"
	"runnerhub/shared/catalog"
	"runnerhub/shared/control"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/random"
	"runnerhub/shared/report"
	"runnerhub/shared/signin"
)

func main() { aws.Run(start) }

func start(e aws.Environment) (lambda.Handler, error) {
	stored, err := aws.Store(e)
	bb, err2 := forge.Bitbucket(e)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	grants, err := forge.Grants(e, stored, bb)
	deliveries, err2 := queues.Deliveries(e)
	reports, err3 := queues.Reports(e)
	logs, err4 := buildlogs.Open(e)
	agents, err5 := aws.Agents(e)
	public, err6 := aws.PublicURL(e)
	pages, err7 := aws.WebURL(e)
	if err := errors.Join(err, err2, err3, err4, err5, err6, err7); err != nil {
		return nil, err
	}
	told, err := report.New(report.Deps{
		Store: stored, Grants: grants, Deliveries: deliveries, Reports: reports, PublicURL: public, Now: time.Now, NewID: random.ID, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	orders, err := control.New(control.Deps{Store: stored, Deliveries: deliveries, Reports: reports, Now: time.Now, Log: e.Log})
	if err != nil {
		return nil, err
	}
	things, err := catalog.New(catalog.Deps{
		Store: stored, Queue: deliveries, Logs: logs, Settling: buildlogs.Settling, PublicURL: public, Now: time.Now, NewID: random.ID,
	})
	if err != nil {
		return nil, err
	}
	callers, err := signin.NewCallers(stored)
	if err != nil {
		return nil, err
	}
	return web.Serve(e, callers, httpapi.Builds(things, orders, told, pages), httpapi.Agents(agents))
}
