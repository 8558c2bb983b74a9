// Package queue is the contract of durable messages: published once they are
// acknowledged, delivered at least once, held by a receipt while somebody works
// on them, delivered again when he dies, set aside as dead letters after too many
// attempts. Order is not promised. Drivers live one level below and pass package
// queuetest; Consume is the loop for processes that poll.
package queue

import (
	"context"
	"time"

	"runnerhub/shared/fault"
)

// MaxBody is the longest body in bytes a queue takes (the limit of SQS is 1 MiB
// for the message with its attributes; this leaves room for them).
const MaxBody = 1<<20 - 4<<10

// Message is one delivery of a published body.
type Message struct {
	ID       string
	Body     []byte
	Attempt  int       // 1 for the first delivery, counted by the driver
	Receipt  string    // names this delivery; a later delivery of the message has another
	SentAt   time.Time // when it was published
	Deadline time.Time // when the message becomes visible to others unless it is deleted
}

// Queue is the contract. An empty or too long body is fault.Invalid or
// fault.TooLarge.
type Queue interface {
	// Publish stores body durably, to be delivered not before delay has passed
	// (at most 15 minutes, the limit of SQS). After nil the message is delivered at
	// least once, whatever process dies. After fault.Unknown it may have been stored.
	Publish(ctx context.Context, body []byte, delay time.Duration) error
	// Receive answers up to limit messages (1 to 10), each hidden from others for
	// the queue's visibility time. With none it waits up to wait (at most 20 s) and
	// answers an empty slice.
	Receive(ctx context.Context, limit int, wait time.Duration) ([]Message, error)
	// Delete ends a message. A receipt that is stale, because the message was
	// delivered again or is gone, deletes nothing and is no error.
	Delete(ctx context.Context, receipt string) error
	// Retry makes a message visible again after delay. A stale receipt changes nothing.
	Retry(ctx context.Context, receipt string, delay time.Duration) error
	// Redrive moves up to limit dead letters back, their attempts counted from zero, and
	// answers how many.
	Redrive(ctx context.Context, limit int) (int, error)
}

// Publisher is the part of a queue that senders need.
type Publisher interface {
	Publish(ctx context.Context, body []byte, delay time.Duration) error
}

// Handler works on one message. A nil error, or one of a kind that no retry can
// mend, ends the message; any other leaves it for another attempt.
type Handler func(ctx context.Context, m Message) error

// CheckBody refuses what no driver takes.
func CheckBody(body []byte) error {
	if len(body) == 0 {
		return fault.New(fault.Invalid, "a message has a body")
	}
	if len(body) > MaxBody {
		return fault.New(fault.TooLarge, "a message of %d bytes is over the limit of %d", len(body), MaxBody)
	}
	return nil
}
