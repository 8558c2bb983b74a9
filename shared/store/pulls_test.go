package store_test

import (
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/store"
	"runnerhub/shared/store/storetest"
	"runnerhub/shared/table"
)

const ours = "{repository}"

func TestListed(t *testing.T) {
	t.Parallel()
	listed(t, storetest.New)
}

func TestListedOnDynamoDB(t *testing.T) {
	t.Parallel()
	listed(t, onDynamoDB(t))
}

func listed(t *testing.T, open func(testing.TB) *storetest.Bench) {
	full := strings.Repeat("ab", 20)
	short, other := full[:12], strings.Repeat("cd", 6)
	at := time.Date(2026, 11, 23, 10, 0, 0, 123456000, time.UTC)
	after := func(minutes int) time.Time { return at.Add(time.Duration(minutes) * time.Minute) }
	for name, tt := range map[string]struct {
		before, want store.Revision // of what is listed as short into main, after(2)
	}{
		"of nothing known":         {store.Revision{}, store.Revision{Source: short, Target: "main", UpdatedAt: after(2), Listed: after(2)}},
		"over one decided before":  {store.Revision{Source: other, Target: "main", Delivery: "d", UpdatedAt: after(1)}, store.Revision{Source: short, Target: "main", UpdatedAt: after(2), Listed: after(2)}},
		"over another target":      {store.Revision{Source: full, Target: "develop", Delivery: "d", UpdatedAt: after(1)}, store.Revision{Source: short, Target: "main", UpdatedAt: after(2), Listed: after(2)}},
		"over one listed before":   {store.Revision{Source: short, Target: "main", UpdatedAt: after(1), Listed: after(1)}, store.Revision{Source: short, Target: "main", UpdatedAt: after(2), Listed: after(2)}},
		"not over the same":        {store.Revision{Source: full, Target: "main", Delivery: "d", UpdatedAt: after(1)}, store.Revision{Source: full, Target: "main", Delivery: "d", UpdatedAt: after(1)}},
		"not over a later one":     {store.Revision{Source: other, Target: "main", Delivery: "d", UpdatedAt: after(3)}, store.Revision{Source: other, Target: "main", Delivery: "d", UpdatedAt: after(3)}},
		"not over a later listing": {store.Revision{Source: other, Target: "main", UpdatedAt: after(3), Listed: after(3)}, store.Revision{Source: other, Target: "main", UpdatedAt: after(3), Listed: after(3)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			revision := func(repository string) store.Revision {
				t.Helper()
				r, err := b.Revision(t.Context(), "app", repository, 7)
				must(err)
				return r
			}
			elsewhere := store.Revision{Source: full, Target: "main", Delivery: "of another repository", UpdatedAt: after(9)}
			must(b.PutRevision(t.Context(), "app", "{another}", 7, elsewhere))
			must(b.PutRevision(t.Context(), "app", ours, 7, tt.before))
			for range 2 {
				must(b.PutListed(t.Context(), "app", ours, []store.Listed{{Number: 7, Source: short, Target: "main", UpdatedAt: after(2)}}))
				if got := revision(ours); got != tt.want {
					t.Errorf("it is %+v, want %+v", got, tt.want)
				}
			}
			if got := revision("{another}"); got != elsewhere {
				t.Errorf("of another repository it is %+v", got)
			}
			// Once the app is tied, only deliveries say what it is.
			_, err := b.PutRepository(t.Context(), ci.Repository{App: "app", Connection: "c", UUID: ours, Hook: "hook"})
			must(err)
			must(b.PutListed(t.Context(), "app", ours, []store.Listed{{Number: 7, Source: other, Target: "x", UpdatedAt: after(20)}}))
			if got := revision(ours); got != tt.want {
				t.Errorf("of an app that is tied it is %+v, want %+v", got, tt.want)
			}
		})
	}
}

// Many are stored in several transactions, none of which passes the limit, and none after the app was tied by another process.
func TestManyListed(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	var open []store.Listed
	for i := range 250 {
		open = append(open, store.Listed{Number: i + 1, Source: "0123456789ab", Target: "main", UpdatedAt: b.Clock.Now()})
	}
	tie := ci.Repository{App: "app", Connection: "c", UUID: ours, Hook: "hook"}
	b.Table.OnTransact(func(n int, writes []table.Write, do func() error) error {
		if len(writes) > 100 {
			t.Errorf("%d items at once", len(writes))
		}
		if n == 3 {
			if _, err := b.PutRepository(t.Context(), tie); err != nil {
				t.Error(err)
			}
		}
		return do()
	})
	if err := b.PutListed(t.Context(), "app", ours, open); err != nil {
		t.Fatal(err)
	}
	stored := 0
	for key := range b.Dump(t) {
		if strings.HasPrefix(key.Sort, "PULL#") {
			stored++
		}
	}
	if stored != 2*99 {
		t.Errorf("%d are stored", stored)
	}
}
