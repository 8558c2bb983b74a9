// Package queue is the contract of durable messages: published once they are
// acknowledged, delivered at least once, held by a receipt while somebody works
// on them, delivered again when he dies, set aside as dead letters after too many
// attempts. Order is not promised. Drivers live one level below and pass package
// queuetest; Consume is the loop for processes that poll.
package queue

import (
	"context"
	"time"
	"unicode/utf8"

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

// Queue is the contract. A body is text: UTF-8 without the control characters
// that SQS refuses (all below U+0020 but tab and line ends, U+FFFE, U+FFFF); JSON as encoding/json
// writes it, with anything binary in base64, always is. What is not is fault.Invalid,
// and one that is too long fault.TooLarge.
type Queue interface {
	// Publish stores body durably, to be delivered not before delay has passed
	// (at most MaxDelay). After nil the message is delivered at
	// least once, whatever process dies. After fault.Unknown it may have been stored.
	Publish(ctx context.Context, body []byte, delay time.Duration) error
	// Receive answers up to limit messages (1 to 10), each hidden from others for
	// the queue's visibility time. With none it waits up to wait (at most 20 s) and
	// answers an empty slice.
	Receive(ctx context.Context, limit int, wait time.Duration) ([]Message, error)
	// Delete ends a message. A receipt that is stale, because the message was
	// delivered again or is gone, deletes nothing and is no error; what is no
	// receipt at all is fault.Invalid.
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
// mend, ends the message; any other leaves it for another attempt, and in the end among
// the dead letters. So a refusal acknowledges: only a handler whose message repeats what
// is stored, so that a sweep leaves it again where it matters, may let the kinds of its
// dependencies through. One whose message is the only trace of somebody's event records
// the refusal first, or answers fault.Internal, which is kept.
type Handler func(ctx context.Context, m Message) error

// CheckBody refuses what no driver takes: a body is text of 1 to MaxBody bytes.
func CheckBody(body []byte) error {
	if len(body) == 0 {
		return fault.New(fault.Invalid, "a message has a body")
	}
	if len(body) > MaxBody {
		return fault.New(fault.TooLarge, "a message of %d bytes is over the limit of %d", len(body), MaxBody)
	}
	for i := 0; i < len(body); {
		// The common byte is judged without decoding: a body can be a megabyte.
		if c := body[i]; c >= ' ' && c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRune(body[i:])
		if (r == utf8.RuneError && size == 1) || (r < ' ' && r != '\t' && r != '\n' && r != '\r') || r == 0xfffe || r == 0xffff {
			return fault.New(fault.Invalid, "the message has a byte at %d that no text holds", i)
		}
		i += size
	}
	return nil
}

// MaxDelay is the longest delay a message can be given (the limit of SQS).
const MaxDelay = 15 * time.Minute

// CheckDelay refuses what no driver takes.
func CheckDelay(delay time.Duration) error {
	if delay < 0 || delay > MaxDelay {
		return fault.New(fault.Invalid, "a delay of %v is not within 0 to %v", delay, MaxDelay)
	}
	return nil
}

// CheckReceive refuses what no driver takes.
func CheckReceive(limit int, wait time.Duration) error {
	if limit < 1 || limit > 10 || wait < 0 || wait > 20*time.Second {
		return fault.New(fault.Invalid, "receiving %d messages within %v is not 1 to 10 within 20s", limit, wait)
	}
	return nil
}
