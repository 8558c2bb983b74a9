package lambdaio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"runnerhub/shared/queue"
)

// Messages is a queue whose messages an event source mapping hands to a function, in batches. The
// mapping has to take reports of partial failures (ReportBatchItemFailures).
type Messages struct {
	Queue  Queue
	Handle queue.Handler
	Name   string // of the queue, in logs
}

// Queue is what a batch needs of its queue: Lambda deletes what was dealt with.
type Queue interface {
	// Receipt answers the receipt of a delivery by its handle at the service.
	Receipt(handle string) string
	// Retry makes a message visible again after delay.
	Retry(ctx context.Context, receipt string, delay time.Duration) error
}

// atOnce is how many messages of a batch are worked on at the same time.
const atOnce = 10

// record is what is needed of a message in a batch.
type record struct {
	MessageID     string `json:"messageId"`
	ReceiptHandle string `json:"receiptHandle"`
	Body          string `json:"body"`
	EventSource   string `json:"eventSource"`
	Attributes    struct {
		ReceiveCount string `json:"ApproximateReceiveCount"`
		SentAt       string `json:"SentTimestamp"`
	} `json:"attributes"`
}

// failures are the messages that Lambda does not delete.
type failures struct {
	Items []failure `json:"batchItemFailures"`
}

type failure struct {
	ID string `json:"itemIdentifier"`
}

// work deals with a batch: each message by itself, so that one that fails, or panics, fails alone. One that is
// to be delivered again gets its pause first, which its queue would not give it.
func (m *Messages) work(ctx context.Context, records []record, log *slog.Logger) (failures, error) {
	// Nothing of a batch that is not understood is worked on: it comes again, and ends among the dead letters.
	recorded, work, tell := deadlines(ctx)
	messages := make([]queue.Message, len(records))
	for i, r := range records {
		var err error
		if messages[i], err = m.message(r, work); err != nil {
			return failures{}, err
		}
	}
	var (
		mu      sync.Mutex
		out     = failures{Items: []failure{}}
		room    = make(chan struct{}, atOnce)
		working sync.WaitGroup
	)
	telling, cancel := context.WithDeadline(ctx, tell)
	defer cancel()
	for _, msg := range messages {
		room <- struct{}{}
		working.Go(func() {
			defer func() { <-room }()
			outcome := queue.Work(recorded, m.Handle, msg, m.Name, log)
			if !outcome.Again {
				return
			}
			if err := m.Queue.Retry(telling, msg.Receipt, outcome.Pause); err != nil {
				log.Warn("a message did not get its pause, it is delivered again when its time is over", "queue", m.Name, "message", msg.ID, "error", err)
			}
			mu.Lock()
			defer mu.Unlock()
			out.Items = append(out.Items, failure{msg.ID})
		})
	}
	working.Wait()
	return out, nil
}

func (m *Messages) message(r record, deadline time.Time) (queue.Message, error) {
	if r.EventSource != "aws:sqs" {
		return queue.Message{}, fmt.Errorf("lambdaio: nobody here expects records of %.40q", r.EventSource)
	}
	attempt, err := strconv.Atoi(r.Attributes.ReceiveCount)
	sent, err2 := strconv.ParseInt(r.Attributes.SentAt, 10, 64)
	if err := errors.Join(err, err2); err != nil || r.MessageID == "" || r.ReceiptHandle == "" {
		return queue.Message{}, fmt.Errorf("lambdaio: message %.40q of %s lacks something that SQS always sends", r.MessageID, m.Name)
	}
	return queue.Message{
		ID: r.MessageID, Body: []byte(r.Body), Attempt: attempt, Receipt: m.Queue.Receipt(r.ReceiptHandle),
		SentAt: time.UnixMilli(sent).UTC(), Deadline: deadline,
	}, nil
}
