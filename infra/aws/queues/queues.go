// Package queues opens the two queues on SQS, to send, or to be handed to by an event source mapping.
package queues

import (
	"fmt"
	"time"

	"runnerhub/infra/aws"
	"runnerhub/shared/queue/sqs"
)

// Deliveries opens the queue of that name.
func Deliveries(e aws.Environment) (*sqs.Queue, error) { return open(e, "RUNNERHUB_DELIVERIES_QUEUE") }

// Reports opens the queue of that name.
func Reports(e aws.Environment) (*sqs.Queue, error) { return open(e, "RUNNERHUB_REPORTS_QUEUE") }

func open(e aws.Environment, name string) (*sqs.Queue, error) {
	address, err := e.URL(name)
	if err != nil {
		return nil, err
	}
	q, err := sqs.New(sqs.Deps{Config: e.Config, URL: address, Now: time.Now})
	if err != nil {
		return nil, fmt.Errorf("%s is %q: %w", name, address, err)
	}
	return q, nil
}
