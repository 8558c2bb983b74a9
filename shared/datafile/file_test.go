package datafile

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runnerhub/shared/crashtest"
	"runnerhub/shared/fault"
)

func TestMain(m *testing.M) {
	crashtest.Main(m, map[string]crashtest.Role{
		"open": func(args []string, say func(string)) error {
			if _, err := Open(Deps{Path: args[0]}); err != nil {
				return err
			}
			say("open")
			select {}
		},
	})
}

func place(t testing.TB) string { return filepath.Join(t.TempDir(), "data", "runnerhub.db") }

func open(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(Deps{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// put writes one item by its sort key.
func put(sort string) func(*Tx) error {
	return func(tx *Tx) error {
		_, err := tx.Exec(`INSERT INTO items (partition, sort, version, body) VALUES ('p', ?, 1, '{}')`, sort)
		return err
	}
}

// stored answers the sort keys, as another program sees them.
func stored(t *testing.T, path string) []string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT sort FROM items ORDER BY sort`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var sorts []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		sorts = append(sorts, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return sorts
}

func TestCloseLeavesOneWholeFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a folder?with#signs%41", "runner hub.db")
	f := open(t, path)
	if err := f.Write(t.Context(), put("x")); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{
		filepath.Dir(path): fs.ModeDir | 0o700, path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600, path + ".lock": 0o600,
	} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", p, info.Mode(), err, want)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
	for doing, err := range map[string]error{
		"writing": f.Write(t.Context(), put("y")),
		"reading": f.Read(t.Context(), func(*Tx) error { return nil }),
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s the closed file: %v", doing, err)
		}
	}
	// SQLite removes these when the last connection is closed.
	for _, beside := range []string{path + "-wal", path + "-shm"} {
		if _, err := os.Stat(beside); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", beside, err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "moved.db")
	if err := os.WriteFile(moved, content, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, moved)
	if got := stored(t, moved); len(got) != 1 || got[0] != "x" {
		t.Errorf("the copied file holds %q", got)
	}
	if info, err := os.Stat(moved); err != nil || info.Mode() != 0o600 {
		t.Errorf("a file that others could read is %v, %v", info.Mode(), err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	f := open(t, place(t))
	for _, run := range []func(context.Context, func(*Tx) error) error{f.Write, f.Read} {
		err := run(t.Context(), func(tx *Tx) error {
			for query, want := range map[string]string{"PRAGMA synchronous": "2", "PRAGMA journal_mode": "wal", "PRAGMA encoding": "UTF-8"} {
				var got string
				if found, err := tx.First([]any{&got}, query); err != nil || !found || got != want {
					t.Errorf("%s is %q, %v, want %q", query, got, err, want)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	err := f.Read(t.Context(), func(tx *Tx) error { return put("x")(tx) })
	if err == nil {
		t.Error("a reader wrote")
	}
}

func TestForeignFilesAreRefusedAndNotTouched(t *testing.T) {
	t.Parallel()
	statements := func(path string, texts ...string) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, text := range texts {
			if _, err := db.Exec(text); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		make func(path string)
		want string
	}{
		"a newer version": {func(path string) {
			f, err := Open(Deps{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			statements(path, "PRAGMA user_version=7", "CREATE TABLE future (x)")
		}, "was written by a newer version (schema 7, this program knows 1); use that version or another RUNNERHUB_DATA"},
		"another program": {func(path string) {
			statements(path, "CREATE TABLE theirs (x)")
		}, "is an SQLite file of another program; use another RUNNERHUB_DATA"},
		"no database": {func(path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("a text\n", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "file is not a database"},
	} {
		path := filepath.Join(t.TempDir(), "runnerhub.db")
		test.make(path)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time, to see that the lock was given back
			f, err := Open(Deps{Path: path})
			if err == nil {
				t.Fatalf("%s: opened, %v", name, f.Close())
			}
			if text := err.Error(); !strings.Contains(text, test.want) || !strings.Contains(text, path) || strings.Contains(text, "\n") {
				t.Errorf("%s: %q, want one line with the path and %q", name, text, test.want)
			}
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed, %v", name, err)
		}
	}
	if _, err := Open(Deps{}); err == nil {
		t.Error("opened no path")
	}
}

func TestOneServerAFile(t *testing.T) {
	t.Parallel()
	path := place(t)
	child := crashtest.Start(t, "open", path)
	child.Line()
	_, err := Open(Deps{Path: path})
	if err == nil || !strings.Contains(err.Error(), "is in use by another server (process ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("opening what another process serves: %v", err)
	}
	child.Kill()
	f := open(t, path) // the lock died with the process
	_, err = Open(Deps{Path: path})
	if want := fmt.Sprintf("(process %d)", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("opening twice in one process: %v, want %s in it", err, want)
	}
	if err := f.Write(t.Context(), put("x")); err != nil {
		t.Errorf("after another was refused: %v", err)
	}
}
