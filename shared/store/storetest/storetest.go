// Package storetest is for the tests of package store and of the use cases above it:
// a store on a real data file, a clock that stands until it is moved, a table that
// fails on order, and the check that all indexes agree with their records.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
	"runnerhub/shared/table/sqlite"
)

// Clock stands until it is moved.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock makes a clock that stands at a moment with a fraction of a second.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 11, 23, 9, 0, 0, 123456789, time.UTC)}
}

// Now answers the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Add moves the clock.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// IDs makes ids that are the same in every run: id0001, id0002 …
type IDs struct {
	mu   sync.Mutex
	last int
}

// New answers the next one.
func (i *IDs) New() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.last++
	return fmt.Sprintf("id%04d", i.last)
}

// Bench is a store with what it stands on.
type Bench struct {
	*store.Store
	File  *datafile.File // nil when it stands on another table
	Table *Table
	Clock *Clock
	IDs   *IDs

	dump func(testing.TB) map[table.Key]string
}

// New makes a Bench on a file of its own.
func New(t testing.TB) *Bench {
	t.Helper()
	file, err := datafile.Open(datafile.Deps{Path: filepath.Join(t.TempDir(), "data.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	clock := NewClock()
	real, err := sqlite.New(sqlite.Deps{File: file, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	b := over(t, real, clock)
	b.File, b.dump = file, b.items
	return b
}

// On makes a Bench on any table; dump answers all of its items.
func On(t testing.TB, real table.Table, dump func(testing.TB) map[table.Key]string) *Bench {
	t.Helper()
	b := over(t, real, NewClock())
	b.dump = dump
	return b
}

func over(t testing.TB, real table.Table, clock *Clock) *Bench {
	t.Helper()
	b := &Bench{Table: &Table{Table: real}, Clock: clock, IDs: &IDs{}}
	var err error
	b.Store, err = store.New(store.Deps{Table: b.Table, Now: clock.Now, NewID: b.IDs.New})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Table passes everything on to a real table, and fails on order.
type Table struct {
	table.Table

	mu        sync.Mutex
	transacts int
	act       func(n int, writes []table.Write, do func() error) error
	read      func(k table.Key)
}

// OnTransact has every transaction done by act, which is given the number of the
// transaction, counted from 1 on, and a function that does it. Nil ends that.
func (t *Table) OnTransact(act func(n int, writes []table.Write, do func() error) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.transacts, t.act = 0, act
}

// OnGet calls see before each Get. Nil ends that.
func (t *Table) OnGet(see func(k table.Key)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.read = see
}

// Transacts answers how many transactions there were since OnTransact.
func (t *Table) Transacts() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.transacts
}

// Get implements table.Table.
func (t *Table) Get(ctx context.Context, k table.Key) (table.Item, error) {
	t.mu.Lock()
	see := t.read
	t.mu.Unlock()
	if see != nil {
		see(k)
	}
	return t.Table.Get(ctx, k)
}

// Transact implements table.Table.
func (t *Table) Transact(ctx context.Context, writes ...table.Write) error {
	do := func() error { return t.Table.Transact(ctx, writes...) }
	t.mu.Lock()
	t.transacts++
	n, act := t.transacts, t.act
	t.mu.Unlock()
	if act == nil {
		return do()
	}
	return act(n, writes, do)
}

// PutStray stores due entries that no record knows, given as kind and reference in
// turn, the way a crash between two releases of the program might leave them.
func (b *Bench) PutStray(at time.Time, kindsAndReferences ...string) error {
	var writes []table.Write
	for i := 0; i < len(kindsAndReferences); i += 2 {
		d := store.Due{Kind: kindsAndReferences[i], Reference: kindsAndReferences[i+1], At: at}
		body, err := json.Marshal(d)
		if err != nil {
			return err
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(d.Reference))
		k := table.Key{
			Partition: fmt.Sprintf("DUE#%s#%d", d.Kind, h.Sum32()%8),
			Sort:      at.UTC().Format("2006-01-02T15:04:05.000000000Z") + "#" + d.Reference,
		}
		writes = append(writes, table.Put(table.Item{Key: k, Body: body}, table.Condition{}))
	}
	return b.Table.Transact(context.Background(), writes...)
}
