// Package tabletest holds every driver of package table to the same contract:
// conditions under races, transactions whole or not at all, also when the
// process is killed among them, versions, ranges, pages, limits.
//
// A driver's test is two lines, a TestMain and a Run. The suite waits for conditions and
// never for time, and knows nothing of a driver but its Harness.
package tabletest

import (
	"context"
	"errors"
	"testing"

	"runnerhub/shared/crashtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Harness is how the suite reaches a driver.
type Harness struct {
	// New makes an empty place for one test and answers its address (a file, the
	// name of a table), good for Open in this process and in others.
	New func(t testing.TB) (address string)
	// Open opens the place. The suite closes it before it is opened elsewhere.
	Open func(address string) (t table.Table, closing func() error, err error)
}

// Main is to be called by the TestMain of the driver.
func Main(m *testing.M, h Harness) {
	crashtest.Main(m, map[string]crashtest.Role{"transact": h.transactUntilKilled})
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for name, test := range map[string]func(*testing.T, table.Table){
		"versions":                 versions,
		"conditions":               conditions,
		"failed indexes":           failedIndexes,
		"one of 32 creates":        oneCreates,
		"no update is lost":        noUpdateLost,
		"transfers keep the sum":   transfersKeepTheSum,
		"acknowledged is readable": acknowledgedIsReadable,
		"limits":                   limits,
		"refused writes":           refusedWrites,
		"bodies come back":         bodiesComeBack,
		"expiry":                   expiry,
		"batch get":                batchGet,
		"byte order":               byteOrder,
		"ranges":                   ranges,
		"prefixes":                 prefixes,
		"pages":                    pages,
		"writes between pages":     writesBetweenPages,
		"page size":                pageSize,
		"cursors":                  cursors,
		"ended context":            endedContext,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h.open(t, h.New(t)))
		})
	}
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		killed(t, h)
	})
}

func (h Harness) open(t *testing.T, address string) table.Table {
	t.Helper()
	tb, closing, err := h.Open(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closing(); err != nil {
			t.Error(err)
		}
	})
	return tb
}

func key(partition, sort string) table.Key { return table.Key{Partition: partition, Sort: sort} }

func put(partition, sort, body string, c table.Condition) table.Write {
	return table.Put(table.Item{Key: key(partition, sort), Body: []byte(body)}, c)
}

func always() table.Condition { return table.Condition{} }

// must writes what has to succeed.
func must(t *testing.T, tb table.Table, writes ...table.Write) {
	t.Helper()
	if err := tb.Transact(t.Context(), writes...); err != nil {
		t.Fatalf("writing: %v", err)
	}
}

// get answers the item, with version 0 when there is none.
func get(t *testing.T, tb table.Table, k table.Key) table.Item {
	t.Helper()
	item, err := tb.Get(t.Context(), k)
	if err != nil && !fault.Is(err, fault.NotFound) {
		t.Fatalf("reading %s: %v", k, err)
	}
	return item
}

// all answers the sort keys of the query, page by page to the end.
func all(t *testing.T, tb table.Table, q table.Query) []string {
	t.Helper()
	var sorts []string
	for {
		page, err := tb.Query(t.Context(), q)
		if err != nil {
			t.Fatalf("querying %+v: %v", q, err)
		}
		for _, item := range page.Items {
			if item.Key.Partition != q.Partition {
				t.Fatalf("an item of %q among those of %q", item.Key.Partition, q.Partition)
			}
			sorts = append(sorts, item.Key.Sort)
		}
		if page.Cursor == "" {
			return sorts
		}
		q.Cursor = page.Cursor
	}
}

// wantKind fails the test unless err is of the kind.
func wantKind(t *testing.T, doing string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want an error of the kind %s", doing, err, kind.Outcome().Name)
	}
}

// lost reports whether err says that another was first, and nothing else.
func lost(err error) bool {
	var conflict *table.Conflict
	return fault.Is(err, fault.Conflict) && errors.As(err, &conflict)
}

// update does one change of an item that others change too: read, write on condition, and again when lost.
func update(ctx context.Context, tb table.Table, keys []table.Key, change func([]table.Item) []table.Write) error {
	for {
		items, err := tb.BatchGet(ctx, keys)
		if err != nil {
			return err
		}
		if err := tb.Transact(ctx, change(items)...); !lost(err) {
			return err
		}
	}
}
