package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/table"
)

// write is one durable write of the server under test.
type write struct {
	Lane  string // which consumer did it: "deliveries", "reports", or empty
	What  string // "transact", or a queue's name and what was done with it
	Ended time.Time
}

// recorder keeps the latest writes. What it costs is a lock and an append a write.
type recorder struct {
	mu   sync.Mutex
	list []write
}

// mostWrites bounds a list nobody asks for.
const mostWrites = 1000

func (r *recorder) add(ctx context.Context, what string) {
	lane, _ := ctx.Value(laneKey{}).(string)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) < mostWrites {
		r.list = append(r.list, write{lane, what, time.Now()})
	}
}

func (r *recorder) take() []write {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// onTheWay answers which of the writes that one push caused had to be durable, one
// after the other, before its first INPROGRESS could be posted at the time given:
// accepting it; what the first consumer did until it asked for the status; and what
// the second one did from then on. What went on beside that is left out.
func onTheWay(writes []write, posted time.Time) []string {
	asked := slices.IndexFunc(writes, func(w write) bool { return w.What == "reports publish" })
	var way []string
	for i, w := range writes {
		first := i <= asked && (w.Lane == "deliveries" || w.What == "deliveries publish" || w.What == "deliveries receive")
		second := w.Ended.Before(posted) && (w.Lane == "reports" || w.What == "reports receive")
		if first || second {
			way = append(way, w.What)
		}
	}
	return way
}

type laneKey struct{}

// inLane tells the writes of one consumer from those of the other.
func inLane(name string, handle queue.Handler) queue.Handler {
	return func(ctx context.Context, m queue.Message) error {
		return handle(context.WithValue(ctx, laneKey{}, name), m)
	}
}

type recordedTable struct {
	table.Table
	rec *recorder
}

func (t *recordedTable) Transact(ctx context.Context, writes ...table.Write) error {
	err := t.Table.Transact(ctx, writes...)
	t.rec.add(ctx, "transact")
	return err
}

type recordedQueue struct {
	queue.Queue
	name string
	rec  *recorder
}

func (q *recordedQueue) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	err := q.Queue.Publish(ctx, body, delay)
	q.rec.add(ctx, q.name+" publish")
	return err
}

func (q *recordedQueue) Receive(ctx context.Context, limit int, wait time.Duration) ([]queue.Message, error) {
	messages, err := q.Queue.Receive(ctx, limit, wait)
	if len(messages) > 0 {
		q.rec.add(ctx, q.name+" receive")
	}
	return messages, err
}

// holdingRunner takes every build and never runs it.
type holdingRunner struct {
	mu      sync.Mutex
	started map[string]bool // attempts
}

func (h *holdingRunner) Start(_ context.Context, job runner.Job) (string, error) {
	if job.Attempt == "" {
		return "", fault.New(fault.Invalid, "a job has an attempt")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started == nil {
		h.started = map[string]bool{}
	}
	h.started[job.Attempt] = true
	return job.Attempt, nil
}

func (h *holdingRunner) Stop(context.Context, string) error { return nil }

func (h *holdingRunner) State(_ context.Context, ref string) (runner.State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started[ref] {
		return runner.State{Phase: runner.Lost}, nil
	}
	return runner.State{Phase: runner.Pending}, nil
}
