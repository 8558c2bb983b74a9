// Package datafile opens the one SQLite file in which a standalone server keeps
// its state, and runs statements on it: writes one after the other, several in
// one durable commit when they come together, and reads beside them.
//
// It owns the file: its lock, its rights, its layout and the version of that
// layout (schema.go). It knows nothing of what the rows mean; that is the
// business of the drivers table/sqlite and queue/sqlite. An operator may read
// and back up the file with the sqlite3 tool while the server runs.
package datafile

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"runnerhub/shared/fault"
)

const (
	// readers is how many reads run at once; each connection keeps its own page
	// cache, so more of them cost memory and, on a small machine, gain nothing.
	readers = 2
	// busyTimeout is how long to wait for an operator's tool that holds the file.
	busyTimeout = 5 * time.Second
)

// Deps is what a File needs.
type Deps struct {
	// Path of the file. It and its folder are made when absent; beside it SQLite
	// keeps Path-wal and Path-shm, and the lock is Path.lock.
	Path string
}

// File is an open data file. Its methods may be called from many goroutines.
type File struct {
	path    string
	session string
	lock    *os.File
	closed  atomic.Bool

	reading *sql.DB
	reads   *Tx

	writing *sql.DB
	writer  *sql.Conn // the only connection of writing
	writes  *Tx
	waiting atomic.Int32 // writers that have not had their turn
	turn    sync.Mutex   // held by the writer at work; guards group and writes
	group   *group
}

// Open opens the file for this process alone. It refuses, with one line an
// operator can act on, a file that another server has open, one written by a
// newer version of the program, and one that is not a data file; it then leaves
// the file as it was.
func Open(deps Deps) (*File, error) {
	if deps.Path == "" {
		return nil, errors.New("datafile: no path")
	}
	path, err := filepath.Abs(deps.Path)
	if err != nil {
		return nil, fmt.Errorf("finding the data file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, session: rand.Text()[:8], lock: lock}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, f.release())
	}
	return f, nil
}

func (f *File) open() error {
	// Made before SQLite opens it: SQLite would take the process's umask, and the
	// files it keeps beside this one inherit these rights. Closing any handle of the
	// file later would drop SQLite's own locks (POSIX locks belong to the process).
	made, err := os.OpenFile(f.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("making the data file: %w", err)
	}
	if err := errors.Join(made.Chmod(0o600), made.Close()); err != nil {
		return fmt.Errorf("making the data file private: %w", err)
	}
	ctx := context.Background()
	if f.writing, err = sql.Open("sqlite", f.source("_txlock=immediate")); err != nil {
		return fmt.Errorf("opening the data file: %w", err)
	}
	// The writer is one connection for as long as the file is open: transactions
	// are spelled out on it, so it must never be exchanged for another.
	f.writing.SetMaxOpenConns(1)
	if f.writer, err = f.writing.Conn(ctx); err != nil {
		return fmt.Errorf("opening %s: %w", f.path, explain(err))
	}
	if err := prepareSchema(ctx, f.writer, f.path); err != nil {
		return err
	}
	f.writes = &Tx{prepare: f.writer.PrepareContext}

	if f.reading, err = sql.Open("sqlite", f.source("_query_only=1")); err != nil {
		return fmt.Errorf("opening the data file for reading: %w", err)
	}
	f.reading.SetMaxOpenConns(readers)
	f.reading.SetMaxIdleConns(readers)
	f.reads = &Tx{prepare: f.reading.PrepareContext}
	return nil
}

// Session names this opening of the file: 8 letters and digits, another each
// time. What a row says of another session concerns a process that is dead.
func (f *File) Session() string { return f.session }

// source names the file as SQLite wants it, with the settings that concern one
// connection and change nothing in the file.
func (f *File) source(extra string) string {
	settings := fmt.Sprintf("_busy_timeout=%d&_synchronous=FULL&_pragma=cache_size(-1024)&_pragma=temp_store(MEMORY)&_dqs=0&%s",
		busyTimeout.Milliseconds(), extra)
	return (&url.URL{Scheme: "file", Path: f.path, RawQuery: settings}).String()
}

// Read runs fn with statements that see every write acknowledged before they
// began. Each statement sees one moment; two of them may see two.
func (f *File) Read(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.closed.Load() {
		return errClosed()
	}
	return explain(fn(f.reads))
}

// Close ends what is under way, moves the log into the file, so that the file
// alone is the whole state, and lets another process open it.
func (f *File) Close() error {
	f.turn.Lock()
	defer f.turn.Unlock()
	if f.closed.Swap(true) {
		return nil
	}
	f.commit()
	_, err := f.writes.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	return errors.Join(explain(err), f.release())
}

func (f *File) release() error {
	var errs []error
	// A connection with a statement left is not closed, it only looks so.
	for _, tx := range []*Tx{f.reads, f.writes} {
		if tx != nil {
			errs = append(errs, tx.close())
		}
	}
	if f.writer != nil {
		errs = append(errs, f.writer.Close())
	}
	for _, db := range []*sql.DB{f.reading, f.writing} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, f.lock.Close())...)
}

func errClosed() error { return fault.New(fault.Unavailable, "the data file is closed") }

// explain gives SQLite's errors a kind: what passes when the operator frees the
// disk or ends his own transaction is Unavailable, anything else stays Internal.
func explain(err error) error {
	var failure *sqlite.Error
	if !errors.As(err, &failure) {
		return err
	}
	switch failure.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_INTERRUPT:
		return fault.Wrap(fault.Unavailable, err, "the data file cannot be used right now")
	default:
		return err
	}
}
