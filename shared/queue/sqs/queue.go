// Package sqs is the queue on Amazon SQS: a standard queue, and another one for its
// dead letters. On AWS most messages are delivered by an event source mapping, which
// receives by itself; this driver is for who publishes, polls or redrives.
//
// How often a message is tried and where it goes then is the queue's own setting,
// its redrive policy. SQS counts in seconds: what is shorter is rounded up.
package sqs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
)

// Deps is what a Queue needs.
type Deps struct {
	Config aws.Config
	URL    string // of the queue
	// DeadURL is that of the dead letters' queue, for Redrive alone; empty for who does not redrive.
	DeadURL string
	// Visibility is how long a delivery hides its message from others: whole seconds, at
	// least one and at most 11 hours (SQS allows 12 for all that a message is held). Zero for who does not receive.
	Visibility time.Duration
	Now        func() time.Time // for the deadlines of messages
}

// Queue implements queue.Queue.
type Queue struct {
	deps   Deps
	client *sqs.Client
}

var _ queue.Queue = (*Queue)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Queue, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.URL == "" || deps.Now == nil {
		return nil, errors.New("queue/sqs: no credentials, region, queue or clock")
	}
	if v := deps.Visibility; v != 0 && v < time.Second || v > 11*time.Hour || v%time.Second != 0 {
		return nil, fmt.Errorf("queue/sqs: a visibility of %v is not 1 s to 11 h in whole seconds", v)
	}
	client := sqs.NewFromConfig(deps.Config, func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
	return &Queue{deps: deps, client: client}, nil
}

// Publish implements queue.Queue. Whose answer is lost publishes again: SQS has no way to
// tell, and a message may come twice anyway.
func (q *Queue) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	if err := errors.Join(queue.CheckBody(body), queue.CheckDelay(delay)); err != nil {
		return err
	}
	return q.send(ctx, string(body), seconds(delay))
}

func (q *Queue) send(ctx context.Context, body string, delay int32) error {
	err := amazon.Usual().Do(ctx, func(ctx context.Context) error {
		_, err := q.client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q.deps.URL, MessageBody: &body, DelaySeconds: delay})
		return err
	})
	return amazon.Fault(err, true, kindOf, "the queue did not take a message")
}

// Receive implements queue.Queue.
func (q *Queue) Receive(ctx context.Context, limit int, wait time.Duration) ([]queue.Message, error) {
	if err := queue.CheckReceive(limit, wait); err != nil {
		return nil, err
	}
	if q.deps.Visibility == 0 {
		return nil, errors.New("receiving messages: this queue was opened without a visibility")
	}
	received, err := q.receive(ctx, q.deps.URL, limit, seconds(wait), seconds(q.deps.Visibility))
	if err != nil {
		return nil, err
	}
	// SQS does not say when it handed the messages out. It was a little before now, so the
	// deadline is a little before what it would be from now.
	deadline := q.deps.Now().Add(q.deps.Visibility - min(q.deps.Visibility/10, 500*time.Millisecond)).UTC()
	messages := make([]queue.Message, 0, len(received))
	for _, r := range received {
		m, err := q.message(r, deadline)
		if err != nil {
			return nil, fmt.Errorf("receiving a message: %w", err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// receive asks one of the two queues. What an attempt took whose answer was lost is
// visible again when its time is over.
func (q *Queue) receive(ctx context.Context, url string, limit int, wait, visibility int32) ([]types.Message, error) {
	calls := amazon.Usual()
	calls.Each += time.Duration(wait) * time.Second
	var out *sqs.ReceiveMessageOutput
	err := calls.Do(ctx, func(ctx context.Context) (err error) {
		out, err = q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: int32(limit), WaitTimeSeconds: wait, VisibilityTimeout: visibility,
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{
				types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameSentTimestamp,
			},
		})
		return err
	})
	if err != nil {
		return nil, amazon.Fault(err, false, kindOf, "the queue does not answer")
	}
	return out.Messages, nil
}

func (q *Queue) message(r types.Message, deadline time.Time) (queue.Message, error) {
	attempt, err := strconv.Atoi(r.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
	sent, err2 := strconv.ParseInt(r.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)], 10, 64)
	if err = errors.Join(err, err2); err != nil || r.Body == nil || r.MessageId == nil || r.ReceiptHandle == nil {
		return queue.Message{}, errors.Join(errors.New("the queue left out a part of it"), err)
	}
	return queue.Message{
		ID: *r.MessageId, Body: []byte(*r.Body), Attempt: attempt, Receipt: q.Receipt(*r.ReceiptHandle),
		SentAt: time.UnixMilli(sent).UTC(), Deadline: deadline,
	}, nil
}

// Receipt makes a receipt of a handle of this queue, as SQS calls a delivery. The mark tells nonsense from what is stale,
// which SQS answers alike; it is no secret.
func (q *Queue) Receipt(handle string) string {
	sum := sha256.Sum256([]byte(q.deps.URL + "\n" + handle))
	return hex.EncodeToString(sum[:8]) + "." + handle
}

// handle is the reverse of Receipt.
func (q *Queue) handle(receipt string) (string, error) {
	_, handle, ok := strings.Cut(receipt, ".")
	if !ok || q.Receipt(handle) != receipt {
		return "", fault.New(fault.Invalid, "that is not a receipt of this queue")
	}
	return handle, nil
}

// Delete implements queue.Queue.
func (q *Queue) Delete(ctx context.Context, receipt string) error {
	handle, err := q.handle(receipt)
	if err != nil {
		return err
	}
	return q.delete(ctx, q.deps.URL, handle)
}

func (q *Queue) delete(ctx context.Context, url, handle string) error {
	err := amazon.Usual().Do(ctx, func(ctx context.Context) error {
		_, err := q.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: &handle})
		return unlessStale(err)
	})
	return amazon.Fault(err, true, kindOf, "the queue did not delete a message")
}

// Retry implements queue.Queue.
func (q *Queue) Retry(ctx context.Context, receipt string, delay time.Duration) error {
	if err := queue.CheckDelay(delay); err != nil {
		return err
	}
	handle, err := q.handle(receipt)
	if err != nil {
		return err
	}
	err = amazon.Usual().Do(ctx, func(ctx context.Context) error {
		_, err := q.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
			QueueUrl: &q.deps.URL, ReceiptHandle: &handle, VisibilityTimeout: seconds(delay),
		})
		return unlessStale(err)
	})
	return amazon.Fault(err, true, kindOf, "the queue did not take a message back")
}

// Redrive implements queue.Queue. Each message is published anew before its dead letter is
// deleted; who dies in between leaves both. The tasks of SQS that move messages take no
// limit and say nothing of what they moved.
func (q *Queue) Redrive(ctx context.Context, limit int) (moved int, err error) {
	if limit < 1 {
		return 0, fault.New(fault.Invalid, "redriving %d messages is not at least one", limit)
	}
	if q.deps.DeadURL == "" {
		return 0, errors.New("redriving: this queue was opened without its dead letters")
	}
	const (
		wait = 1 // second: without any, SQS asks only some of its servers
		held = 60
	)
	for moved < limit {
		dead, err := q.receive(ctx, q.deps.DeadURL, min(limit-moved, 10), wait, held)
		if err != nil || len(dead) == 0 {
			return moved, err
		}
		for _, m := range dead {
			if m.Body == nil || m.ReceiptHandle == nil {
				return moved, errors.New("redriving: the queue left out a part of a message")
			}
			if err := q.send(ctx, *m.Body, 0); err != nil {
				return moved, fmt.Errorf("redriving: %w", err)
			}
			moved++
			if err := q.delete(ctx, q.deps.DeadURL, *m.ReceiptHandle); err != nil {
				return moved, fmt.Errorf("redriving: %w", err)
			}
		}
	}
	return moved, nil
}

// unlessStale takes what SQS answers for a receipt of a delivery that is over for success:
// on a standard queue it answers in one way or another, by the age of the receipt.
func unlessStale(err error) error {
	var invalid *types.ReceiptHandleIsInvalid
	var over *types.MessageNotInflight
	if errors.As(err, &invalid) || errors.As(err, &over) || amazon.Code(err) == "InvalidParameterValue" {
		return nil
	}
	return err
}

// kindOf is the table of the refusals of SQS. Bodies, delays and limits are checked before
// SQS sees them, so what it does not accept is a fault of ours, and so is a missing queue.
func kindOf(code string) fault.Kind {
	if code == "OverLimit" {
		return fault.Unavailable // 120,000 messages are in flight
	}
	return fault.Internal
}

// seconds rounds up: nothing comes earlier than was asked.
func seconds(d time.Duration) int32 {
	return int32((d + time.Second - 1) / time.Second)
}
