package queue

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"runnerhub/shared/fault"
)

// Outcome is what becomes of a message that a handler had: it is done with, or it is to
// be delivered again after a pause.
type Outcome struct {
	Again bool
	Pause time.Duration
}

// Work hands m to handle, which has until the message's deadline, and answers what
// becomes of m; to end it is up to the caller. Name is the queue's in the log, which gets one line of what
// is not done. A message that a handler refuses (see Handler) is over; what it leaves, also by a panic, is to be
// delivered again after a pause that grows with the attempts, or the one a dependency asked for.
func Work(ctx context.Context, handle Handler, m Message, name string, log *slog.Logger) Outcome {
	handling, cancel := context.WithDeadline(ctx, m.Deadline)
	err := survive(handling, handle, m)
	cancel()
	switch outcome := fault.KindOf(err).Outcome(); {
	case err == nil:
	case outcome.Retry:
		log.Log(ctx, outcome.Level, "a message will be tried again",
			"queue", name, "message", m.ID, "attempt", m.Attempt, "kind", outcome.Name, "error", err)
		return Outcome{Again: true, Pause: Backoff(m.Attempt, err)}
	default:
		// A caller hears of a refusal, the sender of a message does not: this line is
		// all that is left of it.
		log.Log(ctx, max(outcome.Level, slog.LevelWarn), "a message was refused and is gone",
			"queue", name, "message", m.ID, "attempt", m.Attempt, "kind", outcome.Name, "error", err)
	}
	return Outcome{}
}

// survive turns a panic into an error: one message that meets a bug must not take
// the process down, with all that is at work, at each of its attempts.
func survive(ctx context.Context, handle Handler, m Message) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the handler panicked: %v\n%s", cause, debug.Stack())
		}
	}()
	return handle(ctx, m)
}

// Keeps reports whether a message whose handler answered err must be delivered again.
func Keeps(err error) bool {
	return err != nil && fault.KindOf(err).Outcome().Retry
}

// Backoff answers how long to wait before the attempt after this one: half to
// all of 1 s, 2 s, 4 s … up to 5 minutes, or what a dependency asked for if longer.
func Backoff(attempt int, err error) time.Duration {
	d := min(time.Second<<min(max(attempt-1, 0), 10), 5*time.Minute)
	d = d/2 + rand.N(d/2+1)
	return min(max(d, fault.RetryAfter(err)), MaxDelay)
}
