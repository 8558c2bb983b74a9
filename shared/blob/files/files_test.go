package files

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/blob"
	"runnerhub/shared/blob/blobtest"
)

// folderVariable tells the test binary to be the process that blobtest kills.
const folderVariable = "BLOB_FILES_TEST_FOLDER"

func TestMain(m *testing.M) {
	dir := os.Getenv(folderVariable)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := New(Deps{Dir: dir, Now: time.Now})
	if err == nil {
		err = blobtest.Overwrite(s, os.Stdout)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func open(t *testing.T, dir string, now func() time.Time) *Store {
	t.Helper()
	s, err := New(Deps{Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) blobtest.Storage {
		dir := filepath.Join(t.TempDir(), "blobs")
		return blobtest.Storage{
			Open: func(t *testing.T) blob.Store { return open(t, dir, time.Now) },
			Process: func(t *testing.T) *exec.Cmd {
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), folderVariable+"="+dir)
				cmd.Stderr = t.Output()
				return cmd
			},
		}
	})
}

func TestFailedPutsLeaveNoFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, time.Now)
	if err := s.Put(t.Context(), "a", strings.NewReader("long"), 1); err == nil {
		t.Error("a wrong size is accepted")
	}
	if left := list(t, filepath.Join(dir, incoming)); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestNewRemovesWhatDied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir, time.Now)
	for _, name := range []string{"died", "alive"} {
		if err := os.WriteFile(filepath.Join(dir, incoming, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-abandoned - time.Hour)
	if err := os.Chtimes(filepath.Join(dir, incoming, "died"), long, long); err != nil {
		t.Fatal(err)
	}
	open(t, dir, time.Now)
	if left := list(t, filepath.Join(dir, incoming)); len(left) != 1 || left[0] != "alive" {
		t.Errorf("%v is left, want the file of a writer at work", left)
	}
	open(t, dir, func() time.Time { return time.Now().Add(2 * abandoned) })
	if left := list(t, filepath.Join(dir, incoming)); len(left) != 0 {
		t.Errorf("%v is left two days later", left)
	}
}

// A link planted where a blob belongs leads nowhere.
func TestLinksLeadNowhere(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := open(t, dir, time.Now)
	if err := os.Symlink(outside, filepath.Join(dir, path("a"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "a"); err == nil {
		t.Error("a link is followed out of the folder")
	}
	if err := s.Put(t.Context(), "a", strings.NewReader("new"), 3); err != nil {
		t.Errorf("a link keeps its place: %v", err)
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "secret" {
		t.Errorf("the file outside holds %q, %v", text, err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Deps{{}, {Dir: t.TempDir()}, {Now: time.Now}, {Dir: file, Now: time.Now}} {
		if _, err := New(d); err == nil {
			t.Errorf("New(%q) is accepted", d.Dir)
		}
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
