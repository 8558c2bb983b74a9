package sqlite

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/queue"
	"runnerhub/shared/queue/queuetest"
)

func harness() queuetest.Harness {
	return queuetest.Harness{
		New: func(t testing.TB, _ queuetest.Settings) string {
			return filepath.Join(t.TempDir(), "data", "runnerhub.db")
		},
		Open: func(address string, s queuetest.Settings) (queue.Queue, func() error, error) {
			f, err := datafile.Open(datafile.Deps{Path: address})
			if err != nil {
				return nil, nil, err
			}
			q, err := New(Deps{File: f, Name: "test", Visibility: s.Visibility, MaxAttempts: s.MaxAttempts, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
			return q, f.Close, err
		},
		Shortest: 100 * time.Millisecond,
	}
}

func TestMain(m *testing.M) { queuetest.Main(m, harness()) }

func TestContract(t *testing.T) {
	t.Parallel()
	queuetest.Run(t, harness())
}

func file(t testing.TB, path string) *datafile.File {
	t.Helper()
	f, err := datafile.Open(datafile.Deps{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func named(t testing.TB, f *datafile.File, name string) *Queue {
	t.Helper()
	q, err := New(Deps{File: f, Name: name, Visibility: time.Hour, MaxAttempts: 3, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func open(t testing.TB) *Queue {
	return named(t, file(t, filepath.Join(t.TempDir(), "runnerhub.db")), "queue")
}

func publish(t testing.TB, q *Queue, body string) {
	t.Helper()
	if err := q.Publish(t.Context(), []byte(body), 0); err != nil {
		t.Fatal(err)
	}
}

func receive(t testing.TB, q *Queue) queue.Message {
	t.Helper()
	messages, err := q.Receive(t.Context(), 1, 0)
	if err != nil || len(messages) != 1 {
		t.Fatalf("received %v, %v", messages, err)
	}
	return messages[0]
}

func TestQueuesOfAFileAreApart(t *testing.T) {
	t.Parallel()
	f := file(t, filepath.Join(t.TempDir(), "runnerhub.db"))
	a, b := named(t, f, "a"), named(t, f, "b")
	publish(t, a, "for a")
	if messages, err := b.Receive(t.Context(), 10, 0); len(messages) != 0 || err != nil {
		t.Errorf("b received %v, %v", messages, err)
	}
	m := receive(t, a)
	if err := errors.Join(b.Delete(t.Context(), m.Receipt), b.Retry(t.Context(), m.Receipt, 0)); err != nil {
		t.Error(err)
	}
	if stats, err := a.Stats(t.Context()); stats != (Stats{Held: 1}) || err != nil {
		t.Errorf("b's call changed a: %+v, %v", stats, err)
	}
}

// A message is free at once when the process that held it is gone, and only then:
// opening the queue a second time in the same process frees nothing.
func TestTheHeldAreFreeAfterARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "runnerhub.db")
	first := file(t, path)
	q := named(t, first, "queue")
	publish(t, q, "held")
	m := receive(t, q)
	if messages, err := named(t, first, "queue").Receive(t.Context(), 1, 0); len(messages) != 0 || err != nil {
		t.Errorf("the same process received %v, %v", messages, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := named(t, file(t, path), "queue")
	if got := receive(t, again); got.ID != m.ID || got.Attempt != 2 {
		t.Errorf("after the restart came %+v", got)
	}
	if err := again.Delete(t.Context(), m.Receipt); err != nil {
		t.Error(err)
	}
	if stats, err := again.Stats(t.Context()); stats != (Stats{Held: 1}) || err != nil {
		t.Errorf("the dead process's receipt deleted: %+v, %v", stats, err)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	q := open(t)
	for range 4 {
		publish(t, q, "x")
	}
	if err := q.Publish(t.Context(), []byte("delayed"), time.Minute); err != nil {
		t.Fatal(err)
	}
	dying := receive(t, q)
	for range 3 {
		if err := q.Retry(t.Context(), dying.Receipt, 0); err != nil {
			t.Fatal(err)
		}
		// The rest came as well and are deleted, so that one message alone dies.
		messages, err := q.Receive(t.Context(), 10, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if m.ID == dying.ID {
				dying = m
				continue
			}
			if err := q.Delete(t.Context(), m.Receipt); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(t, q, "held")
	receive(t, q)
	if stats, err := q.Stats(t.Context()); stats != (Stats{Waiting: 1, Held: 1, Dead: 1}) || err != nil {
		t.Errorf("Stats = %+v, %v", stats, err)
	}
}

func TestADelayIsNeverCutShort(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_000).Add(300 * time.Microsecond)
	for d, want := range map[time.Duration]int64{0: 1_000, 1: 1_001, 700 * time.Microsecond: 1_001, 701 * time.Microsecond: 1_002, time.Second: 2_001} {
		if got := after(at, d); got != want {
			t.Errorf("%v after %v is %d, want %d", d, at, got, want)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	q := open(b)
	body := []byte(`{"delivery":"0123456789abcdef0123456789abcdef"}`)
	for b.Loop() {
		if err := q.Publish(context.Background(), body, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReceiveDelete(b *testing.B) {
	for name, backlog := range map[string]struct {
		count int
		delay time.Duration
	}{"behind=0": {}, "behind=5000 delayed": {5000, time.Minute}, "behind=100000 waiting": {100_000, 0}} {
		b.Run(name, func(b *testing.B) {
			q := open(b)
			body := []byte(`{"delivery":"0123456789abcdef0123456789abcdef"}`)
			fill(b, q, backlog.count, backlog.delay)
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				if err := q.Publish(context.Background(), body, 0); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				messages, err := q.Receive(context.Background(), 1, 0)
				if err != nil || len(messages) != 1 {
					b.Fatal(messages, err)
				}
				if err := q.Delete(context.Background(), messages[0].Receipt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Nobody else sees a message become a dead letter: no handler gets it any more.
func TestDeadLettersAreLogged(t *testing.T) {
	t.Parallel()
	var written bytes.Buffer
	q, err := New(Deps{
		File: file(t, filepath.Join(t.TempDir(), "runnerhub.db")), Name: "queue", Visibility: time.Hour, MaxAttempts: 2, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(&written, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, q, "bad")
	for range 2 {
		if err := q.Retry(t.Context(), receive(t, q).Receipt, 0); err != nil {
			t.Fatal(err)
		}
	}
	if messages, err := q.Receive(t.Context(), 1, 0); len(messages) != 0 || err != nil {
		t.Errorf("received %v, %v", messages, err)
	}
	if got := written.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "queue=queue message=1 attempts=2") || strings.Contains(got, "bad") {
		t.Errorf("the log is %q", got)
	}
}

// fill publishes many messages in one transaction.
func fill(t testing.TB, q *Queue, count int, delay time.Duration) {
	err := q.deps.File.Write(context.Background(), func(tx *datafile.Tx) error {
		now := time.Now()
		for range count {
			if _, err := tx.Exec(`INSERT INTO messages (queue, visible_at, attempts, sent_at, body) VALUES (?, ?, 0, ?, ?)`,
				q.deps.Name, after(now, delay), now.UnixMilli(), `{"delivery":"0123456789abcdef0123456789abcdef"}`); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
