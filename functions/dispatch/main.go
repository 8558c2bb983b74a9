// Command dispatch decides what deliveries lead to, admits builds, starts and stops them.
//
// Trigger: batches of the queue deliveries. Timeout: 60 s; each message of a batch has until 12 s before.
//
// Retries: a message that fails is delivered again, alone, after a pause of 1 s, 2 s, 4 s … up to 5 minutes, or as long as Bitbucket
// asked for. After 20 deliveries it is a dead letter, which raises an alarm and can be sent back.
//
//	success             the message is gone
//	refusal             gone, with a line in the log: it repeats what is stored. A delivery is never refused, it fails
//	failure, panic      that message comes again; what was stored stands and is found
//	partial failure     the other messages of the batch are gone
//	timeout             a message that uses up its time fails; where nothing can be told any more, the whole batch comes again after
//	                    the queue's visibility timeout
//	crash               likewise
//
// It reads Bitbucket with the tokens of connections, starts and stops builds of one project and appends to their logs.
package main

import (
	"errors"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/builders"
	"runnerhub/infra/aws/buildlogs"
	"runnerhub/infra/aws/forge"
	"runnerhub/infra/aws/offers"
	"runnerhub/infra/aws/queues"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/random"
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
	builder, err4 := builders.Starter(e)
	logs, err5 := buildlogs.Open(e)
	limits, err6 := builders.Limits(e)
	public, err7 := aws.PublicURL(e)
	offer, err8 := offers.CodeBuild(e)
	if err := errors.Join(err, err2, err3, err4, err5, err6, err7, err8); err != nil {
		return nil, err
	}
	decide, err := dispatch.New(dispatch.Deps{
		Store: stored, Clients: grants, Deliveries: deliveries, Reports: reports, Runner: builder, RunnerName: builders.Name,
		Offer: offer, Forks: true, Limits: limits, Address: public, BuildLog: logs,
		Now: time.Now, NewID: random.ID, NewTicket: random.Secret, NewLogName: random.ID, Log: e.Log,
	})
	if err != nil {
		return nil, err
	}
	return lambdaio.Events{Messages: &lambdaio.Messages{Queue: deliveries, Handle: decide.Handle, Name: "deliveries"}, Log: e.Log}.Handler()
}
