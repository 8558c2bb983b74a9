package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
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
	outcome := Work(ctx, c.Handle, m, c.Name, c.Log)
	// Ending the message has its own deadline: a handler that used up all of its
	// time must still be able to say so.
	ending, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var ended error
	if outcome.Again {
		ended = c.Queue.Retry(ending, m.Receipt, outcome.Pause)
	} else {
		ended = c.Queue.Delete(ending, m.Receipt)
	}
	if ended != nil && !errors.Is(ended, context.Canceled) {
		c.Log.Warn("ending a message failed, it will be delivered again", "queue", c.Name, "message", m.ID, "error", ended)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
