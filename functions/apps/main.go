// Command apps shows and makes workspaces and apps, and shows what came for them.
//
// Trigger: the routes of httpapi.Apps, by the HTTP API. Timeout: 29 s, of which the work may take 20 and recording what came of it 8; the gateway gives up after 30.
//
// Retries: none. Who asked sees what came of it and may ask again; reading changes nothing, and what was made is in the list.
//
//	success             200; 201 with what was made
//	refusal             400, 401, 403, 404, 409 as problem+json
//	failure             500 or 503 with a reference to the log
//	crash, timeout      500 by the gateway; a workspace or an app is there as a whole, or not at all
//
// It reads and writes the table, and nothing else: no secret, no queue, no log of a build.
package main

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/offers"
	"runnerhub/infra/aws/web"
	"runnerhub/shared/authoring"
	"runnerhub/shared/catalog"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/random"
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
	public, err := aws.PublicURL(e)
	if err != nil {
		return nil, err
	}
	things, err := catalog.New(catalog.Deps{Store: stored, PublicURL: public, Now: time.Now, NewID: random.ID})
	if err != nil {
		return nil, err
	}
	offer, err := offers.CodeBuild(e)
	if err != nil {
		return nil, err
	}
	files, err := authoring.New(authoring.Deps{Store: stored, Offer: offer, Forks: true, Now: time.Now})
	if err != nil {
		return nil, err
	}
	return web.Serve(e, callers, httpapi.Apps(things), httpapi.Pipelines(files))
}
