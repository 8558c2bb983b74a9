// Command refresh renews the grants of connections that nobody uses, before Bitbucket drops them, and confirms refusals.
//
// Trigger: an EventBridge rate, every minute. Timeout: 60 s, as long as it takes until the next one.
//
// Retries: none, the next minute comes anyway. What is due stays due until it is done, and two at once are kept apart by the leases of grants.
//
//	success             nothing is due any more, or 50 of each shard are done and the rest waits
//	refusal             a grant that Bitbucket refuses is tried again a minute later; after three refusals it is revoked, and says "reconnect"
//	failure             an error, for the alarm; what could be done is
//	crash, timeout      what is not done is due again; a grant in the middle is free when its lease ends, with its old tokens
//
// The time of the event says what is due. It uses the tokens of connections, and reads the consumer's secret.
package main

import (
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/forge"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/refresh"
)

func main() { aws.Run(start) }

func start(e aws.Environment) (lambda.Handler, error) {
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
	renewal, err := refresh.New(refresh.Deps{Store: stored, Grants: grants, Now: time.Now, Log: e.Log})
	if err != nil {
		return nil, err
	}
	return lambdaio.Events{Due: renewal.RunBy, Log: e.Log}.Handler()
}
