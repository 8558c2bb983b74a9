// Package sqlite is the table in the data file of a standalone server: one row
// an item, its body as text, for an operator to read with the sqlite3 tool.
//
// Conditions are part of the statements and are judged inside the write
// transaction, of which the file runs one at a time; so there are no lost races
// and no unknown outcomes but those of a failing disk.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Deps is what a Table needs.
type Deps struct {
	File *datafile.File
	Now  func() time.Time // decides only which items Sweep takes for expired
}

// Table implements table.Table.
type Table struct{ deps Deps }

var _ table.Table = (*Table)(nil)

// New makes the table of the file; all tables of a file are the same one.
func New(deps Deps) (*Table, error) {
	if deps.File == nil || deps.Now == nil {
		return nil, errors.New("table/sqlite: no file or no clock")
	}
	return &Table{deps}, nil
}

// Get implements table.Table.
func (t *Table) Get(ctx context.Context, key table.Key) (table.Item, error) {
	items, err := t.BatchGet(ctx, []table.Key{key})
	if err != nil {
		return table.Item{}, err
	}
	if len(items) == 0 {
		return table.Item{}, fault.New(fault.NotFound, "there is no item %s", key)
	}
	return items[0], nil
}

// BatchGet implements table.Table.
func (t *Table) BatchGet(ctx context.Context, keys []table.Key) ([]table.Item, error) {
	if err := table.ValidateKeys(keys...); err != nil {
		return nil, err
	}
	items := make([]table.Item, 0, len(keys))
	err := t.deps.File.Read(ctx, func(tx *datafile.Tx) error {
		for _, k := range keys {
			item := table.Item{Key: k}
			var expires sql.NullInt64
			found, err := tx.First([]any{&item.Version, &item.Body, &expires},
				`SELECT version, body, expires_at FROM items WHERE partition = ? AND sort = ?`, k.Partition, k.Sort)
			if err != nil {
				return err
			}
			if found {
				item.ExpiresAt = expiry(expires)
				items = append(items, item)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading items: %w", err)
	}
	return items, nil
}

// The four ways through a partition. An absent bound is the empty text below all
// sort keys, or the blob that SQLite orders behind every text.
const (
	forward  = `SELECT sort, version, body, expires_at FROM items WHERE partition = ? AND sort >= ? AND sort < ? ORDER BY sort LIMIT ?`
	onward   = `SELECT sort, version, body, expires_at FROM items WHERE partition = ? AND sort > ? AND sort < ? ORDER BY sort LIMIT ?`
	backward = `SELECT sort, version, body, expires_at FROM items WHERE partition = ? AND sort >= ? AND sort < ? ORDER BY sort DESC LIMIT ?`
)

// Query implements table.Table.
func (t *Table) Query(ctx context.Context, q table.Query) (table.Page, error) {
	r, err := q.Range()
	if err != nil {
		return table.Page{}, err
	}
	statement, from, before := forward, r.From, any(r.Before)
	if r.Before == "" {
		before = []byte{0}
	}
	switch {
	case r.Reverse:
		statement = backward
		if r.After != "" {
			before = r.After
		}
	case r.After != "":
		statement, from = onward, r.After
	}
	var page table.Page
	size, more := 0, false
	err = t.deps.File.Read(ctx, func(tx *datafile.Tx) error {
		return tx.Query(func(scan func(...any) error) (bool, error) {
			// One row past the limit is asked for, to know whether there is more.
			if more = len(page.Items) == r.Limit || size >= table.MaxPageBytes; more {
				return false, nil
			}
			item := table.Item{Key: table.Key{Partition: r.Partition}}
			var expires sql.NullInt64
			if err := scan(&item.Key.Sort, &item.Version, &item.Body, &expires); err != nil {
				return false, err
			}
			item.ExpiresAt = expiry(expires)
			page.Items = append(page.Items, item)
			size += len(item.Key.Sort) + len(item.Body)
			return true, nil
		}, statement, r.Partition, from, before, r.Limit+1)
	})
	if err != nil {
		return table.Page{}, fmt.Errorf("querying %s: %w", r.Partition, err)
	}
	if more {
		page.Cursor = r.Cursor(page.Items[len(page.Items)-1].Key.Sort)
	}
	return page, nil
}

// Transact implements table.Table.
func (t *Table) Transact(ctx context.Context, writes ...table.Write) error {
	if err := table.Validate(writes); err != nil {
		return err
	}
	err := t.deps.File.Write(ctx, func(tx *datafile.Tx) error {
		var failed []int
		for i, w := range writes {
			held, err := apply(tx, w)
			if err != nil {
				return err
			}
			if !held {
				failed = append(failed, i)
			}
		}
		if len(failed) > 0 {
			return table.Conflicted(failed...) // which undoes the rest
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing items: %w", err)
	}
	return nil
}

// apply does one write if its condition holds, and answers whether it does. The
// condition is part of the statement wherever a changed row can tell.
func apply(tx *datafile.Tx, w table.Write) (held bool, err error) {
	k, version := w.Item.Key, w.Condition.Version()
	if w.Action == table.ActionCheck || (w.Action == table.ActionDelete && w.Condition.IsAbsent()) {
		var stored int64
		found, err := tx.First([]any{&stored}, `SELECT version FROM items WHERE partition = ? AND sort = ?`, k.Partition, k.Sort)
		if w.Condition.IsAbsent() {
			return !found, err
		}
		return found && stored == version, err
	}
	var changed int64
	body, expires := string(w.Item.Body), expiresAt(w.Item.ExpiresAt)
	switch {
	case w.Action == table.ActionDelete && version > 0:
		changed, err = tx.Exec(`DELETE FROM items WHERE partition = ? AND sort = ? AND version = ?`, k.Partition, k.Sort, version)
	case w.Action == table.ActionDelete:
		_, err = tx.Exec(`DELETE FROM items WHERE partition = ? AND sort = ?`, k.Partition, k.Sort)
		return true, err
	case w.Condition.IsAbsent():
		changed, err = tx.Exec(`INSERT INTO items (partition, sort, version, body, expires_at) VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING`,
			k.Partition, k.Sort, body, expires)
	case version > 0:
		changed, err = tx.Exec(`UPDATE items SET version = version + 1, body = ?, expires_at = ? WHERE partition = ? AND sort = ? AND version = ?`,
			body, expires, k.Partition, k.Sort, version)
	default:
		changed, err = tx.Exec(`INSERT INTO items (partition, sort, version, body, expires_at) VALUES (?, ?, 1, ?, ?)
			ON CONFLICT DO UPDATE SET version = version + 1, body = excluded.body, expires_at = excluded.expires_at`,
			k.Partition, k.Sort, body, expires)
	}
	return changed == 1, err
}

// Sweep deletes the items that have expired and answers how many. A few at a
// time, so that no other write waits long behind it.
func (t *Table) Sweep(ctx context.Context) (int, error) {
	const portion = 200
	for total := 0; ; {
		var deleted int64
		err := t.deps.File.Write(ctx, func(tx *datafile.Tx) (err error) {
			deleted, err = tx.Exec(`DELETE FROM items WHERE (partition, sort) IN
				(SELECT partition, sort FROM items WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)`, t.deps.Now().Unix(), portion)
			return err
		})
		if err != nil {
			return total, fmt.Errorf("deleting expired items: %w", err)
		}
		total += int(deleted)
		if deleted < portion {
			return total, nil
		}
	}
}

func expiresAt(at time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: at.Unix(), Valid: !at.IsZero()}
}

func expiry(seconds sql.NullInt64) time.Time {
	if !seconds.Valid {
		return time.Time{}
	}
	return time.Unix(seconds.Int64, 0).UTC()
}
