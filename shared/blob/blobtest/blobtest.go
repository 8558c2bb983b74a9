// Package blobtest is the contract suite of package blob: every driver runs it.
package blobtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"runnerhub/shared/blob"
	"runnerhub/shared/fault"
)

// Storage is one empty place of the driver under test.
type Storage struct {
	// Open answers a store on it, anew each time, as after a restart.
	Open func(t *testing.T) blob.Store
	// Process answers a command, not yet started, whose process opens a store on it and
	// calls Overwrite with its standard output: usually the test binary itself, told by its
	// environment.
	Process func(t *testing.T) *exec.Cmd
}

// Run runs the suite. NewStorage makes a place that no call before answered.
func Run(t *testing.T, newStorage func(t *testing.T) Storage) {
	for name, test := range map[string]func(*testing.T, Storage){
		"answers what was put":                  answersWhatWasPut,
		"refuses a wrong size":                  refusesWrongSizes,
		"a failing reader stores nothing":       refusesFailingReaders,
		"an ended context stores nothing":       refusesEndedContexts,
		"refuses what is no key":                refusesBadKeys,
		"keys do not touch each other":          keysAreApart,
		"deletes":                               deletes,
		"a reader keeps what it began to read":  readersKeepTheirContent,
		"concurrent readers see whole contents": overwritesWhole,
		"a killed writer leaves whole contents": survivesKills,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newStorage(t))
		})
	}
}

func answersWhatWasPut(t *testing.T, storage Storage) {
	s := storage.Open(t)
	for name, content := range map[string][]byte{
		"empty":       {},
		"small":       []byte("content"),
		"binary":      {0, 0xff, '\n', '\r', 0},
		"large":       bytes.Repeat([]byte("0123456789abcdef"), 1<<18),
		"a/b/c-d_e.f": []byte("deep"),
	} {
		put(t, s, name, content)
		for _, s := range []blob.Store{s, storage.Open(t)} {
			if got := get(t, s, name); !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes come back as %d others", name, len(content), len(got))
			}
		}
	}
	put(t, s, "small", []byte("new"))
	if got := get(t, s, "small"); string(got) != "new" {
		t.Errorf("overwritten, it is %q", got)
	}
	absent(t, s, "other")
}

func refusesWrongSizes(t *testing.T, storage Storage) {
	s := storage.Open(t)
	put(t, s, "kept", []byte("old"))
	for _, size := range []int64{-1, 0, 6, 8, 1 << 40} {
		for _, key := range []string{"kept", "fresh"} {
			err := s.Put(t.Context(), key, strings.NewReader("content"), size)
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("7 bytes as %d: %v, want fault.Invalid", size, err)
			}
		}
	}
	if got := get(t, s, "kept"); string(got) != "old" {
		t.Errorf("a refused put left %q", got)
	}
	absent(t, s, "fresh")
}

func refusesFailingReaders(t *testing.T, storage Storage) {
	s := storage.Open(t)
	put(t, s, "kept", []byte("old"))
	broken := errors.New("the sender went away")
	for _, key := range []string{"kept", "fresh"} {
		r := io.MultiReader(strings.NewReader("half of "), failing{broken})
		if err := s.Put(t.Context(), key, r, 16); !errors.Is(err, broken) {
			t.Errorf("Put answers %v, want the reader's error in it", err)
		}
	}
	if got := get(t, s, "kept"); string(got) != "old" {
		t.Errorf("a failed put left %q", got)
	}
	absent(t, s, "fresh")
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func refusesEndedContexts(t *testing.T, storage Storage) {
	s := storage.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "fresh", strings.NewReader("content"), 7); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Put answers %v, want fault.Unavailable", err)
	}
	absent(t, s, "fresh")
}

func refusesBadKeys(t *testing.T, storage Storage) {
	s := storage.Open(t)
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a b", "a\\b", "a\x00", "a\n", "ä", "a:b", "a~", "\xff",
		strings.Repeat("k", blob.MaxKey+1),
	} {
		if err := s.Put(t.Context(), key, strings.NewReader("x"), 1); !fault.Is(err, fault.Invalid) {
			t.Errorf("Put(%q) = %v, want fault.Invalid", key, err)
		}
		if _, err := s.Get(t.Context(), key); !fault.Is(err, fault.Invalid) {
			t.Errorf("Get(%q) = %v, want fault.Invalid", key, err)
		}
		if err := s.Delete(t.Context(), key); !fault.Is(err, fault.Invalid) {
			t.Errorf("Delete(%q) = %v, want fault.Invalid", key, err)
		}
	}
}

func keysAreApart(t *testing.T, storage Storage) {
	s := storage.Open(t)
	keys := []string{
		"a", "A", "a/b", "a/b/c", "a.b", "a-b", "...", ".hidden", "a/...", "tmp", "incoming/a", "whole/a",
		strings.Repeat("k", blob.MaxKey), strings.Repeat("k", blob.MaxKey-1) + "l", strings.Repeat("p/", blob.MaxKey/2-1) + "pp",
	}
	for _, key := range keys {
		put(t, s, key, []byte("of "+key))
	}
	for _, key := range keys {
		if got := get(t, s, key); string(got) != "of "+key {
			t.Errorf("%q holds %q", key, got)
		}
	}
}

func deletes(t *testing.T, storage Storage) {
	s := storage.Open(t)
	put(t, s, "a", []byte("content"))
	put(t, s, "a/b", []byte("content"))
	for range 2 { // the second time it is absent
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Errorf("Delete: %v", err)
		}
		absent(t, s, "a")
	}
	absent(t, storage.Open(t), "a")
	if got := get(t, s, "a/b"); string(got) != "content" {
		t.Errorf("its neighbour holds %q", got)
	}
}

func readersKeepTheirContent(t *testing.T, storage Storage) {
	s := storage.Open(t)
	for _, change := range []func() error{
		func() error { return s.Put(t.Context(), "a", strings.NewReader("new"), 3) },
		func() error { return s.Delete(t.Context(), "a") },
	} {
		old := bytes.Repeat([]byte("old "), 1<<18)
		put(t, s, "a", old)
		r, err := s.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		begin := make([]byte, 10)
		if _, err := io.ReadFull(r, begin); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(append(begin, rest...), old) {
			t.Errorf("%d bytes of other content were read, %v", len(begin)+len(rest), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func overwritesWhole(t *testing.T, storage Storage) {
	s := storage.Open(t)
	put(t, s, key, version(0))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if err := checkWhole(s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			for i := range 10 {
				content := version(w*10 + i)
				if err := s.Put(ctx, key, bytes.NewReader(content), int64(len(content))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	stop()
	readers.Wait()
	if err := checkWhole(s); err != nil {
		t.Error(err)
	}
}

func survivesKills(t *testing.T, storage Storage) {
	s := storage.Open(t)
	put(t, s, key, version(0))
	for round := range 8 {
		cmd := storage.Process(t)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It says each version twice, before and after the put: killed on an odd
		// line it dies within a put, on an even one between two.
		acknowledged, seen := 0, 0
		lines := bufio.NewScanner(out)
		for seen <= round && lines.Scan() {
			seen++
			fmt.Sscanf(lines.Text(), "put %d", &acknowledged)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		for lines.Scan() { // what it said before it died
			fmt.Sscanf(lines.Text(), "put %d", &acknowledged)
		}
		if err := cmd.Wait(); err == nil || seen <= round {
			t.Fatalf("the writing process ended by itself after %d lines: %v", seen, err)
		}
		if err := checkWhole(s); err != nil {
			t.Errorf("after kill %d: %v", round, err)
		}
		content := get(t, s, key)
		if !bytes.Equal(content, version(acknowledged)) && !bytes.Equal(content, version(acknowledged+1)) {
			t.Errorf("after kill %d: the last acknowledged content, number %d, is not there", round, acknowledged)
		}
		put(t, s, key, version(0))
	}
}

// Overwrite puts one content after the other under one key until it is killed, and says so.
func Overwrite(s blob.Store, out io.Writer) error {
	for i := 1; ; i++ {
		content := version(i)
		fmt.Fprintf(out, "putting %d\n", i)
		if err := s.Put(context.Background(), key, bytes.NewReader(content), int64(len(content))); err != nil {
			return err
		}
		fmt.Fprintf(out, "put %d\n", i)
	}
}

const key = "overwritten/content"

// version is a content that no part of another passes for: one byte, repeated, in a
// length of its own.
func version(i int) []byte {
	return bytes.Repeat([]byte{byte(i)}, 1<<20+i)
}

func checkWhole(s blob.Store) error {
	r, err := s.Get(context.Background(), key)
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(content) < 1<<20 || !bytes.Equal(content, version(len(content)-1<<20)) {
		return fmt.Errorf("%d bytes were read that nobody put", len(content))
	}
	return nil
}

func put(t *testing.T, s blob.Store, key string, content []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatalf("put %d bytes as %s: %v", len(content), key, err)
	}
}

func get(t *testing.T, s blob.Store, key string) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	content, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return content
}

func absent(t *testing.T, s blob.Store, key string) {
	t.Helper()
	if _, err := s.Get(t.Context(), key); !fault.Is(err, fault.NotFound) {
		t.Errorf("Get(%s) = %v, want fault.NotFound", key, err)
	}
}
