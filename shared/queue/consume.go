package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"runnerhub/shared/fault"
)

// Consumer polls a queue and hands its messages to Handle, Workers at a time.
type Consumer struct {
	Queue   Queue
	Handle  Handler
	Workers int
	Name    string // in logs
	Log     *slog.Logger
}

// Run works until ctx ends, then waits for the handlers at work. A message that a
// handler refuses (see Handler) is gone, with one line in the log. A handler has
// until its message's deadline. What it leaves is retried after a pause that
// grows with the attempts, or the one a dependency asked for.
func (c Consumer) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range max(1, c.Workers) {
		workers.Go(func() {
			for ctx.Err() == nil {
				messages, err := c.Queue.Receive(ctx, 1, 20*time.Second)
				if err != nil && ctx.Err() == nil {
					c.Log.Error("receiving messages failed", "queue", c.Name, "error", err)
					pause(ctx, time.Second)
					continue
				}
				for _, m := range messages {
					c.work(context.WithoutCancel(ctx), m)
				}
			}
		})
	}
	workers.Wait()
}

func (c Consumer) work(ctx context.Context, m Message) {
	handling, cancel := context.WithDeadline(ctx, m.Deadline)
	err := c.handle(handling, m)
	cancel()
	// Ending the message has its own deadline: a handler that used up all of its
	// time must still be able to say so.
	ending, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var ended error
	if Keeps(err) {
		outcome := fault.KindOf(err).Outcome()
		c.Log.Log(ctx, outcome.Level, "a message will be tried again",
			"queue", c.Name, "message", m.ID, "attempt", m.Attempt, "kind", outcome.Name, "error", err)
		ended = c.Queue.Retry(ending, m.Receipt, Backoff(m.Attempt, err))
	} else {
		if err != nil {
			// A caller hears of a refusal, the sender of a message does not: this line is
			// all that is left of it.
			outcome := fault.KindOf(err).Outcome()
			c.Log.Log(ctx, max(outcome.Level, slog.LevelWarn), "a message was refused and is gone",
				"queue", c.Name, "message", m.ID, "attempt", m.Attempt, "kind", outcome.Name, "error", err)
		}
		ended = c.Queue.Delete(ending, m.Receipt)
	}
	if ended != nil && !errors.Is(ended, context.Canceled) {
		c.Log.Warn("ending a message failed, it will be delivered again", "queue", c.Name, "message", m.ID, "error", ended)
	}
}

// handle turns a panic into an error: one message that meets a bug must not take
// the process down, with all that is at work, at each of its attempts.
func (c Consumer) handle(ctx context.Context, m Message) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the handler panicked: %v\n%s", cause, debug.Stack())
		}
	}()
	return c.Handle(ctx, m)
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

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
