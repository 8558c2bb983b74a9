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
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/infra/aws"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/lambdaio"
	"runnerhub/shared/random"
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
	d := dispatch.Deps{
		Store: stored, RunnerName: aws.RunnerName, Offer: aws.Offer(),
		Now: time.Now, NewID: random.ID, NewTicket: random.Secret, Log: e.Log,
	}
	if d.Clients, err = aws.Grants(e, stored, bb); err != nil {
		return nil, err
	}
	deliveries, err := aws.Deliveries(e)
	if err != nil {
		return nil, err
	}
	if d.Reports, err = aws.Reports(e); err != nil {
		return nil, err
	}
	if d.Runner, err = aws.Starter(e); err != nil {
		return nil, err
	}
	if d.BuildLog, err = aws.Logs(e); err != nil {
		return nil, err
	}
	if d.Limits, err = aws.Limits(e); err != nil {
		return nil, err
	}
	if d.Address, err = aws.PublicURL(e); err != nil {
		return nil, err
	}
	d.Deliveries = deliveries
	decide, err := dispatch.New(d)
	if err != nil {
		return nil, err
	}
	return lambdaio.Events{Messages: &lambdaio.Messages{Queue: deliveries, Handle: decide.Handle, Name: "deliveries"}, Log: e.Log}.Handler()
}
