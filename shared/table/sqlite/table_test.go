package sqlite

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/table"
	"runnerhub/shared/table/tabletest"
)

func harness() tabletest.Harness {
	return tabletest.Harness{
		New: func(t testing.TB) string { return filepath.Join(t.TempDir(), "data", "runnerhub.db") },
		Open: func(address string) (table.Table, func() error, error) {
			f, err := datafile.Open(datafile.Deps{Path: address})
			if err != nil {
				return nil, nil, err
			}
			tb, err := New(Deps{File: f, Now: time.Now})
			return tb, f.Close, err
		},
	}
}

func TestMain(m *testing.M) { tabletest.Main(m, harness()) }

func TestContract(t *testing.T) {
	t.Parallel()
	tabletest.Run(t, harness())
}

func open(t testing.TB, now func() time.Time) *Table {
	f, err := datafile.Open(datafile.Deps{Path: filepath.Join(t.TempDir(), "data", "runnerhub.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	tb, err := New(Deps{File: f, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

func TestSweepDeletesOnlyWhatHasExpired(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	tb := open(t, func() time.Time { return now })
	const expired = 450 // more than one portion
	for i := range expired {
		put(t, tb, fmt.Sprintf("old %d", i), now.Add(-time.Duration(i)*time.Second))
	}
	put(t, tb, "later", now.Add(time.Second))
	put(t, tb, "never", time.Time{})
	if n, err := tb.Sweep(t.Context()); n != expired || err != nil {
		t.Errorf("Sweep = %d, %v, want %d", n, err, expired)
	}
	page, err := tb.Query(t.Context(), table.Query{Partition: "p"})
	if err != nil || len(page.Items) != 2 || page.Items[0].Key.Sort != "later" || page.Items[1].Key.Sort != "never" {
		t.Errorf("left are %v, %v", page.Items, err)
	}
}

func put(t *testing.T, tb *Table, sort string, expires time.Time) {
	t.Helper()
	item := table.Item{Key: table.Key{Partition: "p", Sort: sort}, Body: []byte("{}"), ExpiresAt: expires}
	if err := tb.Transact(t.Context(), table.Put(item, table.Condition{})); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkTransact(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			t := open(b, time.Now)
			body := []byte(`{"state":"RUNNING","commit":"0123456789abcdef0123456789abcdef01234567"}`)
			var next atomic.Int64
			var group sync.WaitGroup
			b.ResetTimer()
			for w := range writers {
				group.Go(func() {
					key := table.Key{Partition: "bench", Sort: string(rune('a' + w))}
					condition := table.Absent()
					for v := int64(1); next.Add(1) <= int64(b.N); v++ {
						if err := t.Transact(context.Background(), table.Put(table.Item{Key: key, Body: body}, condition)); err != nil {
							b.Error(err)
							return
						}
						condition = table.VersionIs(v)
					}
				})
			}
			group.Wait()
		})
	}
}
