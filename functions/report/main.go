// Command report takes what runners say of builds, and brings commits' statuses in line.
//
// Trigger: batches of the queue reports, and what EventBridge tells of the project's builds. Timeout: 60 s; each message has until 12 s before.
//
// Retries: a message that fails is delivered again, alone, after a pause of 1 s, 2 s, 4 s … up to 5 minutes, or as long as Bitbucket
// asked for; after 20 deliveries it is a dead letter. Lambda tries an event that fails twice more, and keeps it then; the sweep finds what it would have said.
//
//	success             the message is gone; an event has become a message of the same queue
//	refusal             gone, with a line in the log: a build that is no attempt of ours, a status that nobody may post any more
//	failure, panic      that message comes again; what was stored stands and is found
//	partial failure     the other messages of the batch are gone
//	timeout             a message that uses up its time fails; where nothing can be told any more, the whole batch comes again after
//	                    the queue's visibility timeout, and a status in doubt is read back first
//	crash               likewise
//
// It posts to Bitbucket with the tokens of connections, and looks at builds; it starts and stops none.
package main

import (
	"errors"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/builders"
	"runnerhub/infra/aws/forge"
	"runnerhub/infra/aws/queues"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/random"
	"runnerhub/shared/report"
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
	watcher, err4 := builders.Watcher(e)
	public, err5 := aws.PublicURL(e)
	if err := errors.Join(err, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	told, err := report.New(report.Deps{
		Store: stored, Grants: grants, Deliveries: deliveries, Reports: reports, PublicURL: public, Now: time.Now, NewID: random.ID, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	return lambdaio.Events{
		Messages: &lambdaio.Messages{Queue: reports, Handle: told.Handle, Name: "reports"},
		Change:   builders.Changes(watcher, reports), Log: e.Log,
	}.Handler()
}
