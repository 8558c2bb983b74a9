// Command builds shows builds, their logs and pages, asks for replays of deliveries, and is what the agents of builds talk to.
//
// Trigger: the routes of httpapi.Builds and httpapi.Agents, by the HTTP API. Timeout: 29 s, of which the work may take 25; the gateway gives up after 30.
//
// Retries: by agents, which repeat what was not answered, for minutes; a claim or a report that comes again is answered as the first.
//
//	success             200; 202 for a replay, which dispatch then decides
//	refusal             400, 401, 403, 404; 409 for an agent whose ticket is spent or whose attempt is over
//	failure             500 or 503 with a reference to the log
//	crash, timeout      502 or 504 by the gateway; a build's state has moved or not, and what hangs on it with it
//
// It makes clone credentials with the tokens of connections, sends to both queues, and reads logs; it starts and stops no build: who cancels one asks dispatch.
package main

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
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
	if err != nil {
		return nil, err
	}
	bb, err := aws.Bitbucket(e)
	if err != nil {
		return nil, err
	}
	d := report.Deps{Store: stored, Now: time.Now, NewID: random.ID, Log: e.Log}
	if d.Grants, err = aws.Grants(e, stored, bb); err != nil {
		return nil, err
	}
	if d.Deliveries, d.Reports, err = aws.Queues(e); err != nil {
		return nil, err
	}
	if d.PublicURL, err = aws.PublicURL(e); err != nil {
		return nil, err
	}
	told, err := report.New(d)
	if err != nil {
		return nil, err
	}
	orders, err := control.New(control.Deps{Store: stored, Deliveries: d.Deliveries, Reports: d.Reports, Now: time.Now, Log: e.Log})
	if err != nil {
		return nil, err
	}
	c := catalog.Deps{Store: stored, Queue: d.Deliveries, PublicURL: d.PublicURL, Now: time.Now, NewID: random.ID}
	if c.Logs, err = aws.Logs(e); err != nil {
		return nil, err
	}
	things, err := catalog.New(c)
	if err != nil {
		return nil, err
	}
	callers, err := signin.NewCallers(stored)
	if err != nil {
		return nil, err
	}
	web, err := aws.WebURL(e)
	if err != nil {
		return nil, err
	}
	agents, err := aws.Agents(e)
	if err != nil {
		return nil, err
	}
	return aws.Serve(e, callers, httpapi.Builds(things, orders, told, web), httpapi.Agents(agents))
}
