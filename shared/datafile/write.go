package datafile

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"runnerhub/shared/fault"
)

// maxGroup bounds how many writes share a commit, and with it how long the first
// of them waits for the last.
const maxGroup = 64

// group is the writes of one commit.
type group struct {
	size int
	done chan struct{} // closed when err is final
	err  error
}

// Write runs fn in a write transaction of its own and answers when that is on
// the disk. An error of fn undoes what fn did, and nothing else, and is
// answered as it is. When the commit fails the error is fault.Unknown.
//
// Writes run one after the other, in the goroutine of their caller. Those that
// come together share one commit, because the disk's flush is most of its cost:
// each is a savepoint in the group's transaction, and whoever finds nobody
// waiting behind him commits for all. No write waits for another to come.
//
// The context counts until fn begins: from then on the end is near, and an
// outcome that is known is worth more than a few milliseconds.
func (f *File) Write(ctx context.Context, fn func(*Tx) error) error {
	g, err := f.join(ctx, fn)
	if g == nil {
		return explain(err)
	}
	// Even the answer of a write that failed waits for the group: it has seen
	// the others' changes, which are not true before they are on the disk.
	<-g.done
	if g.err != nil {
		return g.err
	}
	return explain(err)
}

// join runs fn and answers the group whose commit decides over it; nil when
// there is none, because fn alone began the transaction and failed.
func (f *File) join(ctx context.Context, fn func(*Tx) error) (*group, error) {
	f.waiting.Add(1)
	f.turn.Lock()
	defer f.turn.Unlock()
	f.waiting.Add(-1)
	// The duty of the last one, who may be one that does nothing himself.
	defer func() {
		if f.group != nil && (f.waiting.Load() == 0 || f.group.size >= maxGroup) {
			f.commit()
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f.closed.Load() {
		return nil, errClosed()
	}
	return f.part(fn)
}

// part runs fn as one part of the group's transaction, and undoes the part when
// fn fails or panics.
func (f *File) part(fn func(*Tx) error) (_ *group, err error) {
	first := f.group == nil
	if first {
		if _, err := f.writes.Exec("BEGIN IMMEDIATE"); err != nil {
			return nil, err
		}
		f.group = &group{done: make(chan struct{})}
	} else if _, err := f.writes.Exec("SAVEPOINT part"); err != nil {
		return nil, err
	}
	g, kept := f.group, false
	defer func() {
		switch {
		case kept:
			g.size++
		case first:
			f.abandon(nil)
		default:
			f.undo()
		}
	}()
	err = fn(f.writes)
	if err == nil && !first {
		_, err = f.writes.Exec("RELEASE part")
	}
	kept = err == nil
	if first && !kept {
		return nil, err
	}
	return g, err
}

// undo takes back the last part. Some failures (a full disk, for one) make
// SQLite roll back the whole transaction by itself; then it is over for all.
func (f *File) undo() {
	_, err := f.writes.Exec("ROLLBACK TO part")
	if err == nil {
		_, err = f.writes.Exec("RELEASE part")
	}
	if err != nil {
		f.abandon(fault.Wrap(fault.Unavailable, err, "the data file cannot be written right now"))
	}
}

// abandon rolls the transaction back and tells its group.
func (f *File) abandon(err error) {
	// An error here says that there is no transaction, which is what is wanted.
	_, _ = f.writes.Exec("ROLLBACK")
	f.settle(err)
}

// commit ends the group, if there is one. A failed commit has an unknown outcome: the log may have
// reached the disk, and would be read back from there after a crash.
func (f *File) commit() {
	if f.group == nil {
		return
	}
	if _, err := f.writes.Exec("COMMIT"); err != nil {
		f.abandon(fault.Wrap(fault.Unknown, err, "the data file may or may not have been written"))
		return
	}
	f.settle(nil)
}

func (f *File) settle(err error) {
	f.group.err = err
	close(f.group.done)
	f.group = nil
}

// Tx runs statements inside Write or Read. Each text is prepared once and kept,
// so texts are constants and values are arguments. It must not be used after
// the function it was given to returned.
type Tx struct {
	prepare    func(context.Context, string) (*sql.Stmt, error)
	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

func (t *Tx) statement(query string) (*sql.Stmt, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.statements[query]; ok {
		return s, nil
	}
	s, err := t.prepare(context.Background(), query)
	if err != nil {
		return nil, err
	}
	if t.statements == nil {
		t.statements = make(map[string]*sql.Stmt)
	}
	t.statements[query] = s
	return s, nil
}

func (t *Tx) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for query, s := range t.statements {
		errs = append(errs, s.Close())
		delete(t.statements, query)
	}
	return errors.Join(errs...)
}

// Exec runs a statement and answers how many rows it changed.
func (t *Tx) Exec(query string, args ...any) (int64, error) {
	s, err := t.statement(query)
	if err != nil {
		return 0, err
	}
	result, err := s.Exec(args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Query runs a statement that answers rows and calls each once per row with its
// scanner, until each answers false or an error. Each runs no statement itself:
// it would wait for a connection that those who wait like it may all hold.
func (t *Tx) Query(each func(scan func(...any) error) (more bool, err error), query string, args ...any) error {
	s, err := t.statement(query)
	if err != nil {
		return err
	}
	rows, err := s.Query(args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if more, err := each(rows.Scan); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

// First runs a statement and scans its first row into dest; found is false when
// there is none.
func (t *Tx) First(dest []any, query string, args ...any) (found bool, err error) {
	err = t.Query(func(scan func(...any) error) (bool, error) {
		found = true
		return false, scan(dest...)
	}, query, args...)
	return found, err
}
