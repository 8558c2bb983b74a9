// Command auth signs people in and out, takes browsers back from Bitbucket, and keeps API tokens.
//
// Trigger: the routes of httpapi.Auth, by the HTTP API. Timeout: 29 s, of which the work may take 20 and recording what came of it 8; the gateway gives up after 30.
//
// Retries: none. A browser that comes back from Bitbucket has one try: its state ends with it, and the page says to start again.
//
//	success             200, 201, 204; 303 to where the browser wanted to go
//	refusal             400, 401, 403, 404, 409, as a page where a browser asked and as problem+json elsewhere
//	failure             500 or 503 with a reference to the log
//	crash, timeout      500 by the gateway; a session, a connection or a token is there as a whole, or not at all
//
// It seals the tokens of new connections, and reads the consumer's secret. It has no hook secrets, ties no repositories and sends to no queue.
package main

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/forge"
	"runnerhub/infra/aws/web"
	"runnerhub/shared/connect"
	"runnerhub/shared/consent"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/random"
	"runnerhub/shared/signin"
)

func main() { aws.Run(start) }

func start(e aws.Environment) (lambda.Handler, error) {
	public, err := aws.PublicURL(e)
	if err != nil {
		return nil, err
	}
	stored, err := aws.Store(e)
	if err != nil {
		return nil, err
	}
	bb, err := forge.Bitbucket(e)
	if err != nil {
		return nil, err
	}
	grants, err := forge.Grants(e, stored, bb)
	if err != nil {
		return nil, err
	}
	consents, err := consent.New(consent.Deps{Store: stored, Bitbucket: bb, Now: time.Now})
	if err != nil {
		return nil, err
	}
	people, err := signin.New(signin.Deps{
		Store: stored, Bitbucket: bb, Consent: consents, PublicURL: public, Allowed: aws.Allowed(e),
		Now: time.Now, NewID: random.ID, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	connections, err := connect.New(connect.Deps{
		Store: stored, Bitbucket: bb, Consent: consents, Grants: grants, PublicURL: public, Now: time.Now, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	return web.Serve(e, people, httpapi.Auth(people, connections))
}
