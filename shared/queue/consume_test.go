package queue_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
	"runnerhub/shared/queue/sqlite"
)

func open(t *testing.T, visibility time.Duration) *sqlite.Queue {
	t.Helper()
	f, err := datafile.Open(datafile.Deps{Path: filepath.Join(t.TempDir(), "runnerhub.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	q, err := sqlite.New(sqlite.Deps{File: f, Name: "test", Visibility: visibility, MaxAttempts: 5, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// consume runs a consumer until handle answers a last time, which is when it has
// called stop, and answers the queue as the consumer left it.
func consume(t *testing.T, q *sqlite.Queue, workers int, handle func(ctx context.Context, m queue.Message, stop func()) error) sqlite.Stats {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	queue.Consumer{
		Queue: q, Workers: workers, Name: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Handle: func(ctx context.Context, m queue.Message) error { return handle(ctx, m, stop) },
	}.Run(ctx)
	stats, err := q.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

func TestConsumerEndsOrKeepsMessages(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer error
		kept   bool
	}{
		"done":            {nil, false},
		"invalid":         {fault.New(fault.Invalid, "x"), false},
		"gone":            {fault.New(fault.Gone, "x"), false},
		"conflict":        {fault.New(fault.Conflict, "x"), true},
		"unavailable":     {fault.New(fault.Unavailable, "x"), true},
		"outcome unknown": {fault.New(fault.Unknown, "x"), true},
		"unclassified":    {errors.New("x"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := open(t, time.Minute)
			if err := q.Publish(t.Context(), []byte("x"), 0); err != nil {
				t.Fatal(err)
			}
			stats := consume(t, q, 1, func(_ context.Context, _ queue.Message, stop func()) error {
				stop() // what is at work is still brought to its end
				return test.answer
			})
			want := sqlite.Stats{}
			if test.kept {
				want.Waiting = 1
			}
			if stats != want {
				t.Errorf("left %+v, want %+v", stats, want)
			}
		})
	}
}

func TestConsumerTriesAgain(t *testing.T) {
	t.Parallel()
	q := open(t, time.Minute)
	if err := q.Publish(t.Context(), []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	var attempts []int
	stats := consume(t, q, 1, func(_ context.Context, m queue.Message, stop func()) error {
		attempts = append(attempts, m.Attempt)
		if m.Attempt == 1 {
			return errors.New("broken")
		}
		stop()
		return nil
	})
	if len(attempts) != 2 || stats != (sqlite.Stats{}) {
		t.Errorf("attempts %v, left %+v", attempts, stats)
	}
}

// A handler that panics costs its message an attempt, and not the process its life.
func TestConsumerSurvivesAPanic(t *testing.T) {
	t.Parallel()
	q := open(t, time.Minute)
	if err := q.Publish(t.Context(), []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	stats := consume(t, q, 1, func(_ context.Context, _ queue.Message, stop func()) error {
		stop()
		panic("a bug")
	})
	if stats != (sqlite.Stats{Waiting: 1}) {
		t.Errorf("left %+v", stats)
	}
}

func TestAHandlerEndsWithItsDeadline(t *testing.T) {
	t.Parallel()
	q := open(t, 50*time.Millisecond)
	if err := q.Publish(t.Context(), []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	consume(t, q, 1, func(ctx context.Context, m queue.Message, stop func()) error {
		if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(m.Deadline) {
			t.Errorf("the handler has until %v, the message until %v", deadline, m.Deadline)
		}
		<-ctx.Done()
		stop()
		return ctx.Err()
	})
}

func TestWorkersWorkAtOnce(t *testing.T) {
	t.Parallel()
	const workers = 4
	q := open(t, time.Minute)
	for range workers {
		if err := q.Publish(t.Context(), []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	var arrived atomic.Int64
	all := make(chan struct{})
	stats := consume(t, q, workers, func(ctx context.Context, _ queue.Message, stop func()) error {
		if arrived.Add(1) == workers {
			close(all)
		}
		select {
		case <-all: // only when each has one
		case <-ctx.Done():
			t.Error("the workers are not at work together")
		}
		stop()
		return nil
	})
	if stats != (sqlite.Stats{}) {
		t.Errorf("left %+v", stats)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	asked := fault.New(fault.RateLimited, "slow down")
	asked.RetryAfter = 7 * time.Minute
	endless := fault.New(fault.RateLimited, "slow down")
	endless.RetryAfter = 24 * time.Hour
	for _, test := range []struct {
		attempt     int
		err         error
		least, most time.Duration
	}{
		{0, nil, 500 * time.Millisecond, time.Second},
		{1, nil, 500 * time.Millisecond, time.Second},
		{3, nil, 2 * time.Second, 4 * time.Second},
		{50, nil, 150 * time.Second, 5 * time.Minute},
		{1, asked, 7 * time.Minute, 7 * time.Minute},
		{1, endless, queue.MaxDelay, queue.MaxDelay},
	} {
		for range 50 {
			if d := queue.Backoff(test.attempt, test.err); d < test.least || d > test.most {
				t.Fatalf("Backoff(%d, %v) = %v, want %v to %v", test.attempt, test.err, d, test.least, test.most)
			}
		}
	}
}
