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

// Limits of one transaction, the smallest of what the drivers can do: those of
// DynamoDB's TransactWriteItems (100 items, 400 KiB an item, 4 MiB) less 1 KiB an
// item for what DynamoDB counts besides keys and body.
const (
	MaxItems     = 100
	MaxItemBytes = 399 << 10                // keys and body of one item
	MaxBytes     = 4<<20 - MaxItems*(1<<10) // keys and bodies of all items
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
	exact   bool // version counts, also when it is 0 by mistake
	version int64
}

// Absent holds when no item has the key.
func Absent() Condition { return Condition{absent: true} }

// VersionIs holds when the item exists at exactly this version. Versions begin at
// 1: VersionIs(0), say of an Item that was never read, is refused by Validate and
// is no way to write without a condition.
func VersionIs(v int64) Condition { return Condition{exact: true, version: v} }

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

// MaxPageBytes is about where a driver ends a page before its limit, so that a
// page of large items does not fill the memory (DynamoDB does the same).
const MaxPageBytes = 1 << 20

// Page is one answer of a query. A page may be shorter than its limit, or even
// empty, and still have a Cursor; the end is an empty Cursor. A cursor is bound to
// its query, whose Limit alone may change: with another one it is refused as
// fault.Invalid. It names the last sort key of its page, readable to whoever decodes it.
type Page struct {
	Items  []Item
	Cursor string
}

// Prefix answers the range [from, before) of all sort keys starting with p. Both
// are UTF-8, as DynamoDB's key conditions demand; byte order is code point order.
func Prefix(p string) (from, before string) {
	for rest := p; rest != ""; {
		last, size := utf8.DecodeLastRuneInString(rest)
		rest = rest[:len(rest)-size]
		switch last {
		case utf8.MaxRune: // nothing follows it: the key before it counts up
		case surrogates - 1:
			return p, rest + string(rune(surrogates+2048))
		default:
			return p, rest + string(last+1)
		}
	}
	return p, ""
}

// surrogates is the first of the 2,048 code points that no UTF-8 text holds.
const surrogates = 0xd800

// Table is the contract. Every read is strongly consistent: it sees each
// transaction acknowledged before it began.
type Table interface {
	// Get answers the item, or fault.NotFound.
	Get(ctx context.Context, key Key) (Item, error)
	// BatchGet answers the items that exist among at most 100 keys, in the order
	// of the keys; absent ones are left out, and a key given twice is answered
	// twice. It is no snapshot of one moment.
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
		if err := ValidateKeys(k); err != nil {
			return err
		}
		if _, twice := seen[k]; twice {
			return fault.New(fault.Invalid, "write %d touches %s a second time", i, k)
		}
		seen[k] = struct{}{}
		if w.Action < ActionPut || w.Action > ActionCheck {
			return fault.New(fault.Invalid, "write %d has no action", i)
		}
		if w.Condition.exact && w.Condition.version < 1 {
			return fault.New(fault.Invalid, "write %d requires version %d, but versions begin at 1", i, w.Condition.version)
		}
		if w.Action == ActionCheck && w.Condition == (Condition{}) {
			return fault.New(fault.Invalid, "write %d checks nothing", i)
		}
		if !utf8.Valid(w.Item.Body) {
			return fault.New(fault.Invalid, "the body of write %d is not UTF-8", i)
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

// ValidateKeys refuses keys no item can have, and more of them than one BatchGet takes.
func ValidateKeys(keys ...Key) error {
	if len(keys) > MaxItems {
		return fault.New(fault.Invalid, "at most %d keys are read at once, not %d", MaxItems, len(keys))
	}
	for _, k := range keys {
		if !validPart(k.Partition) || !validPart(k.Sort) {
			return fault.New(fault.Invalid, "the key %q is not 1 to 1024 bytes of UTF-8 without NUL", k)
		}
	}
	return nil
}

func validPart(part string) bool {
	return part != "" && len(part) <= 1024 && utf8.ValidString(part) && !strings.ContainsRune(part, 0)
}
