package sqlite

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/table"
)

func open(t testing.TB) *Table {
	f, err := datafile.Open(datafile.Deps{Path: filepath.Join(t.TempDir(), "data", "runnerhub.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	tb, err := New(Deps{File: f, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

func BenchmarkTransact(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(map[int]string{1: "writers=1", 8: "writers=8"}[writers], func(b *testing.B) {
			t := open(b)
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
