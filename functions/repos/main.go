// Command repos shows and begins connections to Bitbucket, and ties repositories to apps.
//
// Trigger: the routes of httpapi.Repos, by the HTTP API. Timeout: 29 s, of which the work may take 20 and recording what came of it 8; the gateway gives up after 30.
//
// Retries: none. Whoever ties a repository may do so again, with the same outcome: one hook, with the secret that is stored.
//
//	success             200; 201 with what was made
//	refusal             400, 401, 403, 404, 409 as problem+json
//	failure             500 or 503 with a reference to the log
//	crash, timeout      500 by the gateway; a hook may be there that is not stored, which the next try finds
//
// It uses the tokens of connections, makes and opens hook secrets, and reads the consumer's secret. It sends to no queue.
package main

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/forge"
	"runnerhub/infra/aws/keys"
	"runnerhub/infra/aws/web"
	"runnerhub/shared/connect"
	"runnerhub/shared/consent"
	"runnerhub/shared/httpapi"
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
	hooks, err := keys.Hooks(e)
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
	connections, err := connect.New(connect.Deps{
		Store: stored, Bitbucket: bb, Consent: consents, Grants: grants, Hooks: hooks, PublicURL: public, Now: time.Now, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	callers, err := signin.NewCallers(stored)
	if err != nil {
		return nil, err
	}
	return web.Serve(e, callers, httpapi.Repos(connections))
}
