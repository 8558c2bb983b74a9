package datafile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"runnerhub/shared/fault"
)

// gathered runs fns so that they share one commit: the first is kept at work until all
// others wait behind it. It answers their errors.
func gathered(t *testing.T, f *File, fns ...func(*Tx) error) []error {
	t.Helper()
	errs := make([]error, len(fns))
	begun, proceed := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		errs[0] = f.Write(t.Context(), func(tx *Tx) error {
			close(begun)
			<-proceed
			return fns[0](tx)
		})
	})
	<-begun
	for i, fn := range fns[1:] {
		group.Go(func() {
			defer func() {
				if recovered := recover(); recovered != nil {
					errs[i+1] = fmt.Errorf("panic: %v", recovered)
				}
			}()
			errs[i+1] = f.Write(t.Context(), fn)
		})
	}
	for int(f.waiting.Load()) < len(fns)-1 {
		runtime.Gosched()
	}
	close(proceed)
	group.Wait()
	return errs
}

func TestWritesOfAGroupFailAlone(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	then := func(sort string, err error) func(*Tx) error {
		return func(tx *Tx) error { return errors.Join(put(sort)(tx), err) }
	}
	for name, fns := range map[string][]func(*Tx) error{
		"the first":           {then("bad", broken), put("a"), put("b"), put("c")},
		"another":             {put("a"), then("bad", broken), put("b"), put("c")},
		"most":                {then("bad", broken), then("bad", broken), put("a"), then("bad", broken), put("b"), put("c"), then("bad", broken)},
		"a panic":             {put("a"), func(tx *Tx) error { panic(put("bad")(tx)) }, put("b"), put("c")},
		"a failing statement": {put("a"), func(tx *Tx) error { return errors.Join(put("bad")(tx), put("a")(tx), put("b")(tx)) }, put("b"), put("c")},
		"the last":            {put("a"), put("b"), put("c"), then("bad", fault.New(fault.Conflict, "lost"))},
	} {
		path := place(t)
		f := open(t, path)
		failed := 0
		for _, err := range gathered(t, f, fns...) {
			if err != nil {
				failed++
			}
			if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Unknown) {
				t.Errorf("%s: took another one down: %v", name, err)
			}
		}
		if failed != len(fns)-3 {
			t.Errorf("%s: %d of %d failed", name, failed, len(fns))
		}
		if got := stored(t, path); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("%s: stored is %q", name, got)
		}
		if err := f.Write(t.Context(), put("after")); err != nil {
			t.Errorf("%s: the next write: %v", name, err)
		}
	}
}

// Nobody gets an answer, a good or a bad one, before what it rests on is on the disk.
func TestNoAnswerBeforeTheCommit(t *testing.T) {
	t.Parallel()
	path := place(t)
	f := open(t, path)
	answered := make(chan string, 3)
	write := func(name string, fn func(*Tx) error) func() {
		return func() {
			_ = f.Write(t.Context(), fn)
			answered <- name
		}
	}
	var group sync.WaitGroup
	begun, proceed := make(chan struct{}), make(chan struct{})
	last, end := make(chan struct{}), make(chan struct{})
	group.Go(write("first", func(tx *Tx) error { close(begun); <-proceed; return put("first")(tx) }))
	<-begun
	var once sync.Once
	for _, fails := range []bool{true, false} {
		group.Go(write("behind", func(tx *Tx) error {
			// Whichever of the two has its turn first, the other waits behind it, so the
			// commit must not come before the end of both.
			once.Do(func() { close(last); <-end })
			if fails {
				return errors.New("refused")
			}
			return put("second")(tx)
		}))
	}
	for f.waiting.Load() < 2 {
		runtime.Gosched()
	}
	close(proceed)
	<-last
	select {
	case name := <-answered:
		t.Errorf("%s was answered before the commit", name)
	default:
	}
	if got := stored(t, path); len(got) != 0 {
		t.Errorf("before the commit another program sees %q", got)
	}
	close(end)
	group.Wait()
	if got := stored(t, path); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("stored is %q", got)
	}
}

func TestAnEndedContextWritesNothing(t *testing.T) {
	t.Parallel()
	path := place(t)
	f := open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var first, behind error
	begun, proceed := make(chan struct{}), make(chan struct{})
	group.Go(func() {
		first = f.Write(ctx, func(tx *Tx) error { close(begun); <-proceed; return put("begun")(tx) })
	})
	<-begun
	group.Go(func() { behind = f.Write(ctx, put("waited")) })
	for f.waiting.Load() == 0 {
		runtime.Gosched()
	}
	cancel()
	close(proceed)
	group.Wait()
	if first != nil {
		t.Errorf("what had begun was given up: %v", first)
	}
	if !errors.Is(behind, context.Canceled) {
		t.Errorf("what had not begun answered %v", behind)
	}
	if err := f.Read(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("reading answered %v", err)
	}
	if got := stored(t, path); !slices.Equal(got, []string{"begun"}) {
		t.Errorf("stored is %q", got)
	}
}

// A full disk refuses some writes. What was acknowledged is there, what was
// refused is not, and when there is room again all goes on.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	path := place(t)
	f := open(t, path)
	limit := func(pages int) {
		if _, err := f.writes.Exec(fmt.Sprintf("PRAGMA max_page_count=%d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(40)
	large := func(sort string) func(*Tx) error {
		return func(tx *Tx) error {
			_, err := tx.Exec(`INSERT INTO items (partition, sort, version, body) VALUES ('p', ?, 1, ?)`, sort, strings.Repeat("x", 30_000))
			return err
		}
	}
	var fns []func(*Tx) error
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("%02d", i))
		fns = append(fns, large(names[i]))
	}
	var want []string
	refused := 0
	for i, err := range gathered(t, f, fns...) {
		switch {
		case err == nil:
			want = append(want, names[i])
		case fault.Is(err, fault.Unavailable):
			refused++
		default:
			t.Errorf("write %d: %v", i, err)
		}
	}
	if got := stored(t, path); !slices.Equal(got, want) || refused == 0 {
		t.Errorf("acknowledged are %q, stored %q, refused %d", want, got, refused)
	}
	limit(1_000_000)
	if err := f.Write(t.Context(), large("after")); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// A loss of power leaves some first part of the log. Wherever it ends, what is
// read back are whole transactions, in their order.
func TestATornLogHoldsWholeTransactions(t *testing.T) {
	t.Parallel()
	path := place(t)
	f := open(t, path)
	const writes = 30
	for i := range writes {
		err := f.Write(t.Context(), func(tx *Tx) error {
			return errors.Join(put(fmt.Sprintf("%02d a", i))(tx), put(fmt.Sprintf("%02d b", i))(tx))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	main, err := os.ReadFile(path) // which ends SQLite's locks on it: nothing is written any more
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for cut := 0; cut <= len(log); cut += 1 + len(log)/97 {
		torn := filepath.Join(t.TempDir(), "torn.db")
		if err := errors.Join(os.WriteFile(torn, main, 0o600), os.WriteFile(torn+"-wal", log[:cut], 0o600)); err != nil {
			t.Fatal(err)
		}
		f, err := Open(Deps{Path: torn})
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, len(log), err)
		}
		got := stored(t, torn)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if len(got)%2 != 0 || len(got) < last {
			t.Fatalf("cut at %d of %d: %d items, %d before", cut, len(log), len(got), last)
		}
		for i, sort := range got {
			if want := fmt.Sprintf("%02d %c", i/2, "ab"[i%2]); sort != want {
				t.Fatalf("cut at %d: item %d is %q, want %q", cut, i, sort, want)
			}
		}
		last = len(got)
	}
	if last < writes { // the last cut is a little before the end
		t.Errorf("nearly the whole log holds %d items of %d", last, 2*writes)
	}
}

// Another program that holds the file for a moment is waited for.
func TestAnotherProgramIsWaitedFor(t *testing.T) {
	t.Parallel()
	path := place(t)
	f := open(t, path)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tool, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tool.ExecContext(t.Context(), "BEGIN IMMEDIATE; INSERT INTO items (partition, sort, version, body) VALUES ('p', 'by hand', 1, '{}')"); err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() { written <- f.Write(t.Context(), put("server")) }()
	err = f.Read(t.Context(), func(tx *Tx) error { // reading goes on meanwhile
		var n int
		_, err := tx.First([]any{&n}, "SELECT count(*) FROM items")
		if n != 0 {
			t.Errorf("%d items are seen before anybody committed", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := tool.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if got := stored(t, path); !slices.Equal(got, []string{"by hand", "server"}) {
		t.Errorf("stored is %q", got)
	}
}
