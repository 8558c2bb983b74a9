// Package table is the contract of the one store of state: items under a
// partition and a sort key, read consistently, written in transactions under
// conditions. It knows items, keys and conditions, never builds or users; the
// key schema stands in package store. Drivers live one level below and pass
// package tabletest.
package table

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"runnerhub/shared/fault"
)

// Limits of one transaction, the smaller of what every driver can do
// (DynamoDB TransactWriteItems).
const (
	MaxItems     = 100
	MaxItemBytes = 400 << 10 // keys and body of one item
	MaxBytes     = 4 << 20   // all items of one transaction
)

// Key names an item. Both parts are UTF-8, not empty, at most 1,024 bytes, and
// hold no NUL. Sort keys order by bytes.
type Key struct{ Partition, Sort string }

func (k Key) String() string { return k.Partition + " / " + k.Sort }

// Item is what is stored. Version is 1 after the first put of a key and rises by
// one with each put; a driver sets it, callers only quote it in conditions. A
// key that was deleted starts again at 1.
type Item struct {
	Key     Key
	Version int64
	Body    []byte // JSON text, so that an operator can read it
	// ExpiresAt is when the item may vanish, at second precision; zero is never.
	// It is a hint for cleaning: an expired item may still be read, for days.
	ExpiresAt time.Time
}

// Condition guards one write. The zero Condition always holds.
type Condition struct {
	absent  bool
	version int64
}

// Absent holds when no item has the key.
func Absent() Condition { return Condition{absent: true} }

// VersionIs holds when the item exists at exactly this version.
func VersionIs(v int64) Condition { return Condition{version: v} }

// IsAbsent reports whether c is Absent().
func (c Condition) IsAbsent() bool { return c.absent }

// Version answers the version c requires, or 0 when it requires none.
func (c Condition) Version() int64 { return c.version }

// Action is what a Write does.
type Action int

const (
	ActionPut Action = iota + 1
	ActionDelete
	ActionCheck // writes nothing, but fails the transaction with its condition
)

// Write is one part of a transaction. Make it with Put, Delete or Check.
type Write struct {
	Action    Action
	Item      Item // for Delete and Check only its Key counts
	Condition Condition
}

// Put stores item (its Version field is ignored) when c holds.
func Put(item Item, c Condition) Write {
	return Write{Action: ActionPut, Item: item, Condition: c}
}

// Delete removes the item with the key when c holds. Deleting what is absent,
// without a condition, is no error.
func Delete(key Key, c Condition) Write {
	return Write{Action: ActionDelete, Item: Item{Key: key}, Condition: c}
}

// Check holds the transaction to c without writing.
func Check(key Key, c Condition) Write {
	return Write{Action: ActionCheck, Item: Item{Key: key}, Condition: c}
}

// Query selects items of one partition by a range of sort keys.
type Query struct {
	Partition string
	From      string // first sort key, inclusive; empty: from the beginning
	Before    string // end of the range, exclusive; empty: to the end
	Reverse   bool   // from the last to the first
	Limit     int    // items a page at most; 0 means 100; never more than 1,000
	Cursor    string // of the page before; empty: the first page
}

// Page is one answer of a query. A page may be shorter than its limit, or even
// empty, and still have a Cursor; the end is an empty Cursor. A cursor is bound to
// its query: with another one it is refused as fault.Invalid.
type Page struct {
	Items  []Item
	Cursor string
}

// Prefix answers the range [from, before) of all sort keys starting with p.
func Prefix(p string) (from, before string) {
	b := []byte(p)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return p, string(b[:i+1])
		}
	}
	return p, ""
}

// Table is the contract. Every read is strongly consistent: it sees each
// transaction acknowledged before it began.
type Table interface {
	// Get answers the item, or fault.NotFound.
	Get(ctx context.Context, key Key) (Item, error)
	// BatchGet answers the items that exist among at most 100 keys, in the order
	// of the keys; absent ones are left out. It is no snapshot of one moment.
	BatchGet(ctx context.Context, keys []Key) ([]Item, error)
	// Query answers a page.
	Query(ctx context.Context, q Query) (Page, error)
	// Transact does all of the writes or none. It touches each key at most once;
	// what breaks the limits is fault.Invalid or fault.TooLarge and writes nothing.
	// A condition that does not hold is fault.Conflict with a
	// *Conflict inside (see Conflicted); an outcome not learned is fault.Unknown. A driver's own
	// retries never apply a transaction twice.
	Transact(ctx context.Context, writes ...Write) error
}

// Conflict is the cause inside the error of a transaction whose conditions did
// not all hold; the error itself is of kind fault.Conflict.
type Conflict struct {
	// Failed holds the index of each write whose condition did not hold, as far
	// as the driver learned them: it may be empty when the transaction lost a
	// race against another one.
	Failed []int
}

// Error implements error.
func (c *Conflict) Error() string {
	return fmt.Sprintf("the conditions of writes %v did not hold", c.Failed)
}

// Conflicted makes the error a driver answers when conditions failed.
func Conflicted(failed ...int) error {
	return &fault.Error{Kind: fault.Conflict, Message: "the stored state has changed", Cause: &Conflict{Failed: failed}}
}

// Failed reports whether err says that the condition of write i did not hold.
func Failed(err error, i int) bool {
	var c *Conflict
	return errors.As(err, &c) && slices.Contains(c.Failed, i)
}

// Validate refuses what no driver accepts: the checks every driver makes before
// it starts a transaction, in one place so that all refuse the same.
func Validate(writes []Write) error {
	if len(writes) == 0 || len(writes) > MaxItems {
		return fault.New(fault.Invalid, "a transaction holds 1 to %d writes, not %d", MaxItems, len(writes))
	}
	total := 0
	seen := make(map[Key]struct{}, len(writes))
	for i, w := range writes {
		k := w.Item.Key
		if err := validateKey(k); err != nil {
			return err
		}
		if _, twice := seen[k]; twice {
			return fault.New(fault.Invalid, "write %d touches %s a second time", i, k)
		}
		seen[k] = struct{}{}
		if w.Action < ActionPut || w.Action > ActionCheck {
			return fault.New(fault.Invalid, "write %d has no action", i)
		}
		if w.Action == ActionCheck && w.Condition == (Condition{}) {
			return fault.New(fault.Invalid, "write %d checks nothing", i)
		}
		size := len(k.Partition) + len(k.Sort) + len(w.Item.Body)
		if size > MaxItemBytes {
			return fault.New(fault.TooLarge, "item %s has %d bytes, the limit is %d", k, size, MaxItemBytes)
		}
		total += size
	}
	if total > MaxBytes {
		return fault.New(fault.TooLarge, "the transaction has %d bytes, the limit is %d", total, MaxBytes)
	}
	return nil
}

func validateKey(k Key) error {
	for _, part := range []string{k.Partition, k.Sort} {
		if part == "" || len(part) > 1024 || !utf8.ValidString(part) || strings.ContainsRune(part, 0) {
			return fault.New(fault.Invalid, "the key %q is not 1 to 1024 bytes of UTF-8 without NUL", k)
		}
	}
	return nil
}
