package lambdahost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"runnerhub/infra/template"
)

// receiveWait is how long one receive waits, in seconds. Lambda waits 20; a host that
// stops waits for its receives, because a message that was handed to nobody stays hidden.
const receiveWait = 1

// source is an event source mapping: it receives batches from a queue, invokes the function,
// and deletes what did not fail. What failed becomes visible again by the queue's own
// time, or by that which the function set.
type source struct {
	template.Source
	host     *Host
	function *function
	queue    template.Queue
	busy     atomic.Int64 // batches that were throttled since one was not
	empty    atomic.Int64
	batches  atomic.Int64
	deletes  atomic.Int64
	refused  atomic.Int64
}

// Polls is what an event source mapping asked of its queue so far.
type Polls struct {
	Empty   int // receives that waited and got nothing
	Batches int // receives that got messages
	Deletes int // messages deleted, each by a call of its own; Lambda deletes those of a batch together
	Refused int // batches for which there was no room among the account's
}

// Polls answers what the event source mappings of a queue asked of it. Watch sees none of that: on AWS, too, it is not the function that
// asks.
func (h *Host) Polls(queue string) (p Polls) {
	for _, s := range h.sources {
		if s.queue.ID == queue {
			p.Empty += int(s.empty.Load())
			p.Batches += int(s.batches.Load())
			p.Deletes += int(s.deletes.Load())
			p.Refused += int(s.refused.Load())
		}
	}
	return p
}

// received is a message as SQS answers it.
type received struct {
	MessageID     string            `json:"MessageId"`
	ReceiptHandle string            `json:"ReceiptHandle"`
	Body          string            `json:"Body"`
	MD5           string            `json:"MD5OfBody"`
	Attributes    map[string]string `json:"Attributes"`
}

// run receives until ctx ends, and waits for the batches at work. One receive at a time is enough on
// one machine; batches are delivered side by side.
func (s *source) run(ctx context.Context) {
	most := s.Concurrency
	if most == 0 {
		most = s.host.Instances
	}
	if s.function.Concurrency > 0 {
		most = min(most, s.function.Concurrency)
	}
	room := make(chan struct{}, most)
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		batch, err := s.receive(ctx)
		if err != nil {
			s.host.Log.Error("polling", "queue", s.queue.Name, "error", err)
			pause(ctx, time.Second)
		}
		if len(batch) == 0 {
			<-room
			continue
		}
		all.Go(func() {
			defer func() { <-room }()
			err := s.deliver(ctx, batch)
			if errors.Is(err, errThrottled) {
				s.refused.Add(1)
				// The batch comes again when its time is over, and this poller waits, as Lambda polls less.
				pause(ctx, throttledPause<<min(s.busy.Add(1)-1, 3))
				return
			}
			s.busy.Store(0)
			if err != nil {
				s.host.Log.Error("delivering", "queue", s.queue.Name, "error", err)
			}
		})
	}
}

// receive answers a batch, or none.
func (s *source) receive(ctx context.Context) ([]received, error) {
	var batch struct {
		Messages []received `json:"Messages"`
	}
	err := s.host.services.call(context.WithoutCancel(ctx), "sqs", "AmazonSQS.ReceiveMessage", map[string]any{
		"QueueUrl": s.queue.URL, "MaxNumberOfMessages": min(s.BatchSize, 10), "WaitTimeSeconds": receiveWait,
		"AttributeNames": []string{"All"}, "MessageSystemAttributeNames": []string{"All"},
	}, &batch)
	if err != nil {
		return nil, err
	}
	if len(batch.Messages) == 0 {
		s.empty.Add(1)
	} else {
		s.batches.Add(1)
	}
	if ctx.Err() != nil {
		return nil, s.giveBack(context.WithoutCancel(ctx), batch.Messages)
	}
	return batch.Messages, nil
}

// giveBack makes messages visible that nobody was given.
func (s *source) giveBack(ctx context.Context, messages []received) error {
	for _, m := range messages {
		err := s.host.services.call(ctx, "sqs", "AmazonSQS.ChangeMessageVisibility", map[string]any{
			"QueueUrl": s.queue.URL, "ReceiptHandle": m.ReceiptHandle, "VisibilityTimeout": 0,
		}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// deliver invokes the function and deletes what it did not report as failed.
func (s *source) deliver(ctx context.Context, messages []received) error {
	event := events.SQSEvent{}
	for _, m := range messages {
		event.Records = append(event.Records, events.SQSMessage{
			MessageId: m.MessageID, ReceiptHandle: m.ReceiptHandle, Body: m.Body, Md5OfBody: m.MD5, Attributes: m.Attributes,
			MessageAttributes: map[string]events.SQSMessageAttribute{}, EventSource: "aws:sqs", EventSourceARN: s.queue.ARN, AWSRegion: s.host.Region,
		})
	}
	payload, err := json.Marshal(event)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if s.host.Twice {
		var other sync.WaitGroup
		other.Go(func() { _, _ = s.function.invoke(ctx, payload) })
		defer other.Wait()
	}
	answer, err := s.function.invoke(ctx, payload)
	if errors.Is(err, errThrottled) {
		return err
	}
	if err != nil {
		return nil // logged; the batch comes again
	}
	failed, err := s.failed(answer, messages)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if slices.Contains(failed, m.MessageID) {
			continue
		}
		err := s.host.services.call(ctx, "sqs", "AmazonSQS.DeleteMessage", map[string]any{"QueueUrl": s.queue.URL, "ReceiptHandle": m.ReceiptHandle}, nil)
		if err != nil {
			return err
		}
		s.deletes.Add(1)
	}
	return nil
}

// failed answers the ids of what the function reports. An answer that is none, or names a message that was
// not in the batch, means that all failed, as on AWS.
func (s *source) failed(answer []byte, messages []received) ([]string, error) {
	if !s.ReportsFailures {
		return nil, nil
	}
	var out events.SQSEventResponse
	if err := json.Unmarshal(answer, &out); err != nil {
		return nil, fmt.Errorf("%s answered no batch response: %.200s", s.function.ID, answer)
	}
	var failed []string
	for _, f := range out.BatchItemFailures {
		if !slices.ContainsFunc(messages, func(m received) bool { return m.MessageID == f.ItemIdentifier }) {
			return nil, fmt.Errorf("%s reports message %q as failed, which was not in its batch", s.function.ID, f.ItemIdentifier)
		}
		failed = append(failed, f.ItemIdentifier)
	}
	return failed, nil
}

// SendMessage puts a message into a queue of the services at an address.
func SendMessage(ctx context.Context, services string, q template.Queue, body string) error {
	return newWire(services).call(ctx, "sqs", "AmazonSQS.SendMessage", map[string]any{"QueueUrl": q.URL, "MessageBody": body}, nil)
}

// PurgeQueue deletes all messages of a queue, also those that somebody is at.
func PurgeQueue(ctx context.Context, services string, q template.Queue) error {
	return newWire(services).call(ctx, "sqs", "AmazonSQS.PurgeQueue", map[string]any{"QueueUrl": q.URL}, nil)
}

// QueueState is how many messages a queue holds.
type QueueState struct{ Visible, Hidden, Delayed int }

// Queue answers the state of the queue of an id.
func (h *Host) Queue(ctx context.Context, id string) (QueueState, error) {
	for _, q := range h.Stack.Queues {
		if q.ID != id {
			continue
		}
		var out struct {
			Attributes map[string]string `json:"Attributes"`
		}
		err := h.services.call(ctx, "sqs", "AmazonSQS.GetQueueAttributes", map[string]any{"QueueUrl": q.URL, "AttributeNames": []string{"All"}}, &out)
		n := func(name string) int {
			v, bad := strconv.Atoi(out.Attributes[name])
			if bad != nil && err == nil {
				err = fmt.Errorf("queue %s does not say %s", id, name)
			}
			return v
		}
		return QueueState{n("ApproximateNumberOfMessages"), n("ApproximateNumberOfMessagesNotVisible"), n("ApproximateNumberOfMessagesDelayed")}, err
	}
	return QueueState{}, fmt.Errorf("the template has no queue %s", id)
}

// Idle reports whether no function is at an event and no queue that a function works on holds a message. Events that come again after
// a pause, and what others have yet to send, are not looked at.
func (h *Host) Idle(ctx context.Context) (bool, error) {
	for _, s := range h.sources {
		q, err := h.Queue(ctx, s.queue.ID)
		if err != nil || q != (QueueState{}) {
			return false, err
		}
	}
	for _, f := range h.functions { // after the queues: what was taken from one is at work by now
		if f.busy() {
			return false, nil
		}
	}
	return true, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
