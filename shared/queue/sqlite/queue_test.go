package sqlite

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"runnerhub/shared/datafile"
)

func open(t testing.TB) *Queue {
	f, err := datafile.Open(datafile.Deps{Path: filepath.Join(t.TempDir(), "data", "runnerhub.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	q, err := New(Deps{File: f, Name: "bench", Visibility: time.Minute, MaxAttempts: 3, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return q
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
