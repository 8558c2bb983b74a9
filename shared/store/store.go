package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Deps is what a Store needs.
type Deps struct {
	Table table.Table
	Now   func() time.Time
	NewID func() string // 128 random bits or more, as text of [a-z0-9]
}

// Store reads and writes records.
type Store struct {
	table table.Table
	now   func() time.Time
	newID func() string
}

// New makes a Store.
func New(d Deps) (*Store, error) {
	if d.Table == nil || d.Now == nil || d.NewID == nil {
		return nil, errors.New("store: Table, Now and NewID are needed")
	}
	return &Store{table: d.Table, now: d.Now, newID: d.NewID}, nil
}

// Page is one page of a list; an empty cursor is the end.
type Page[T any] struct {
	Items  []T
	Cursor string
}

// keyTime is the form of times in keys: fixed width, so that they sort.
const keyTime = "2006-01-02T15:04:05.000000000Z"

func inKey(t time.Time) string { return t.UTC().Format(keyTime) }

func key(partition, sort string) table.Key { return table.Key{Partition: partition, Sort: sort} }

// get reads one record.
func get[T any](ctx context.Context, s *Store, k table.Key, what string) (T, int64, error) {
	var v T
	item, err := s.table.Get(ctx, k)
	if err != nil {
		if fault.Is(err, fault.NotFound) {
			return v, 0, fault.New(fault.NotFound, "no such %s", what)
		}
		return v, 0, fmt.Errorf("store: reading a %s: %w", what, err)
	}
	if err := json.Unmarshal(item.Body, &v); err != nil {
		return v, 0, fmt.Errorf("store: the %s at %s is not readable: %w", what, k, err)
	}
	return v, item.Version, nil
}

// find is get for records whose absence is no error: version 0 says absent.
func find[T any](ctx context.Context, s *Store, k table.Key, what string) (T, int64, error) {
	v, version, err := get[T](ctx, s, k, what)
	if fault.Is(err, fault.NotFound) {
		return v, 0, nil
	}
	return v, version, err
}

// unlessVersion is the condition under which a record found at version may be
// replaced.
func unlessVersion(version int64) table.Condition {
	if version == 0 {
		return table.Absent()
	}
	return table.VersionIs(version)
}

// list reads one page of records.
func list[T any](ctx context.Context, s *Store, q table.Query, what string) (Page[T], error) {
	page, err := s.table.Query(ctx, q)
	if err != nil {
		return Page[T]{}, fmt.Errorf("store: listing %s: %w", what, err)
	}
	out := Page[T]{Items: make([]T, 0, len(page.Items)), Cursor: page.Cursor}
	for _, item := range page.Items {
		var v T
		if err := json.Unmarshal(item.Body, &v); err != nil {
			return Page[T]{}, fmt.Errorf("store: the item at %s is not readable: %w", item.Key, err)
		}
		out.Items = append(out.Items, v)
	}
	return out, nil
}

// first answers the first record of a range. A page may be empty and still have
// a cursor, so only the end of the range says that there is none.
func first[T any](ctx context.Context, s *Store, q table.Query, what string) (v T, found bool, err error) {
	q.Limit = 1
	for {
		page, err := list[T](ctx, s, q, what)
		if err != nil {
			return v, false, err
		}
		if len(page.Items) > 0 {
			return page.Items[0], true, nil
		}
		if page.Cursor == "" {
			return v, false, nil
		}
		q.Cursor = page.Cursor
	}
}

// batch reads the records that exist among at most 100 keys.
func batch[T any](ctx context.Context, s *Store, keys []table.Key, what string) ([]T, error) {
	out := make([]T, 0, len(keys))
	if len(keys) == 0 {
		return out, nil
	}
	items, err := s.table.BatchGet(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("store: reading %s: %w", what, err)
	}
	for _, item := range items {
		var v T
		if err := json.Unmarshal(item.Body, &v); err != nil {
			return nil, fmt.Errorf("store: the item at %s is not readable: %w", item.Key, err)
		}
		out = append(out, v)
	}
	return out, nil
}

// change collects the writes of one transaction.
type change struct {
	writes []table.Write
	err    error
}

func (c *change) put(k table.Key, v any, cond table.Condition) {
	c.putUntil(k, v, cond, time.Time{})
}

func (c *change) putUntil(k table.Key, v any, cond table.Condition, expires time.Time) {
	body, err := json.Marshal(v)
	if err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("store: encoding %s: %w", k, err))
		return
	}
	c.writes = append(c.writes, table.Put(table.Item{Key: k, Body: body, ExpiresAt: expires}, cond))
}

func (c *change) delete(k table.Key, cond table.Condition) {
	c.writes = append(c.writes, table.Delete(k, cond))
}

// check holds the transaction to a condition on an item that it does not write.
func (c *change) check(k table.Key, cond table.Condition) {
	c.writes = append(c.writes, table.Check(k, cond))
}

// settle is commit for writes without conditions, which may simply be made again
// when their outcome was not learned.
func (s *Store) settle(ctx context.Context, c *change) error {
	return s.again(ctx, func() error { return s.commit(ctx, c) })
}

func (s *Store) commit(ctx context.Context, c *change) error {
	if c.err != nil {
		return c.err
	}
	if err := s.table.Transact(ctx, c.writes...); err != nil {
		return fmt.Errorf("store: writing %d items: %w", len(c.writes), err)
	}
	return nil
}

// again runs f until it neither loses a race nor misses its outcome. f reads
// before it writes, each time, and finds what an earlier run already did.
func (s *Store) again(ctx context.Context, f func() error) error {
	const most = 40
	for try := 1; ; try++ {
		err := f()
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown) {
			return err
		}
		// A conflict that is no race of ours (a state that forbids the change) has
		// no table.Conflict inside: it would be the same the next time.
		var race *table.Conflict
		if fault.Is(err, fault.Conflict) && !errors.As(err, &race) {
			return err
		}
		if try == most {
			return err
		}
		wait := time.NewTimer(rand.N(time.Millisecond << min(try, 7)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("store: giving up after %d tries: %w", try, errors.Join(err, ctx.Err()))
		case <-wait.C:
		}
	}
}

// pin stores a value that is chosen once: the first to come wins, and everybody is
// answered what he chose.
func (s *Store) pin(ctx context.Context, k table.Key, value, what string) (string, error) {
	var kept string
	err := s.again(ctx, func() error {
		known, version, err := find[string](ctx, s, k, what)
		if err != nil {
			return err
		}
		if version != 0 {
			kept = known
			return nil
		}
		kept = value
		var c change
		c.put(k, value, table.Absent())
		return s.commit(ctx, &c)
	})
	return kept, err
}

// Kinds of due entries.
const (
	DueBuild      = "build"
	DueStatus     = "status"
	DueDelivery   = "delivery"
	DueConnection = "connection"
	DueSchedule   = "schedule"
	DueTurn       = "turn"
)

// dueShards spreads each kind of due entries over partitions, which on DynamoDB
// have a limit of writes each.
const dueShards = 8

// Due is something to look at from At on.
type Due struct {
	Kind      string    `json:"kind"`
	Reference string    `json:"reference"`
	At        time.Time `json:"at"`
}

func dueKey(kind, reference string, at time.Time) table.Key {
	h := fnv.New32a()
	_, _ = h.Write([]byte(reference))
	return key(fmt.Sprintf("DUE#%s#%d", kind, h.Sum32()%dueShards), inKey(at)+"#"+reference)
}

// due moves the entry of a reference from one time to another; a zero time is none.
func (c *change) due(kind, reference string, from, to time.Time) {
	if from.Equal(to) {
		return
	}
	if !from.IsZero() {
		c.delete(dueKey(kind, reference, from), table.Condition{})
	}
	if !to.IsZero() {
		c.put(dueKey(kind, reference, to), Due{Kind: kind, Reference: reference, At: to}, table.Condition{})
	}
}

// DueBefore answers up to limit entries of a kind from each shard whose time is
// before t, oldest first within a shard.
func (s *Store) DueBefore(ctx context.Context, kind string, t time.Time, limit int) ([]Due, error) {
	var out []Due
	for shard := range dueShards {
		page, err := list[Due](ctx, s, table.Query{
			Partition: fmt.Sprintf("DUE#%s#%d", kind, shard), Before: inKey(t), Limit: limit,
		}, "due entries")
		if err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
	}
	return out, nil
}

// DropDue removes an entry whose record has no use for it (any more): what a
// crash between two releases of the program could leave behind.
func (s *Store) DropDue(ctx context.Context, d Due) error {
	var c change
	c.delete(dueKey(d.Kind, d.Reference, d.At), table.Condition{})
	return s.settle(ctx, &c)
}
