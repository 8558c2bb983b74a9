// Command webhook takes webhook requests in.
//
// Trigger: POST /hooks/{hook} of the HTTP API. Timeout: 10 s, of which the work may take 8; Bitbucket gives up after 10.
//
// Retries: by Bitbucket, which sends a request again, twice, that is answered 5xx or not at all. The repeat has the same request id,
// and so the same delivery id.
//
//	verified            200, once it is in the queue
//	not to be verified  401, and nothing is kept
//	too long            413
//	not stored          5xx: the hook, its secret or the queue could not be reached, or did not say
//	crash, timeout      500 by the gateway; the message may be in the queue, then the repeat is known by its id
//
// It reads rows of hooks, opens hook secrets and sends to one queue; it can do nothing else.
package main

import (
	"errors"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/keys"
	"runnerhub/infra/aws/queues"
	"runnerhub/infra/aws/web"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/ingest"
)

func main() { aws.Run(start) }

func start(e aws.Environment) (lambda.Handler, error) {
	stored, err := aws.Store(e)
	secrets, err2 := keys.Hooks(e)
	deliveries, err3 := queues.Deliveries(e)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	accept, err := ingest.New(ingest.Deps{Hooks: stored, Vault: secrets, Queue: deliveries, Now: time.Now})
	if err != nil {
		return nil, err
	}
	return web.Serve(e, nil, httpapi.Webhook(accept))
}
