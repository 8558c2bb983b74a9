package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where SQLite's header has the version and the owner of a file, as big-endian numbers of
// 4 bytes (https://sqlite.org/fileformat2.html#the_database_header).
const (
	userVersionAt   = 60
	applicationIDAt = 68
)

// troubleAtStart starts the server with what cannot work: each has to be told in a line,
// and nothing may change.
func troubleAtStart(t *testing.T, in stack) {
	h := in.install(t).(*home)
	s := newShop(t, h)
	s.ended(s.pushSteps("echo fine").ID, "SUCCESSFUL")

	// While it runs.
	h.refuses("in use by another server", "RUNNERHUB_LISTEN=127.0.0.1:0", "SANDBOX_LISTEN=127.0.0.1:0")
	h.refuses("cannot listen on "+h.hubPort.Address, "RUNNERHUB_DATA="+filepath.Join(h.root, "other"))
	s.ended(s.pushSteps("echo not disturbed").ID, "SUCCESSFUL")
	h.stop()

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	s.must(err)
	defer func() { _ = busy.Close() }()
	database, key := filepath.Join(h.data(), "runnerhub.db"), filepath.Join(h.data(), "key")
	patched := func(at int, value uint32) []byte {
		text, err := os.ReadFile(database)
		s.must(err)
		binary.BigEndian.PutUint32(text[at:], value)
		return text
	}
	for name, c := range map[string]struct {
		setting string
		file    string // replaced by text, or removed where that is nil
		text    []byte
		told    string
	}{
		"taken port":              {setting: "RUNNERHUB_LISTEN=" + busy.Addr().String(), told: "cannot listen on " + busy.Addr().String()},
		"taken port of sandbox":   {setting: "SANDBOX_LISTEN=" + busy.Addr().String(), told: "cannot listen on " + busy.Addr().String()},
		"no port":                 {setting: "RUNNERHUB_LISTEN=localhost", told: `RUNNERHUB_LISTEN is "localhost"; it is host:port`},
		"foreign host":            {setting: "RUNNERHUB_LISTEN=ci.example.com:80", told: "RUNNERHUB_LISTEN"},
		"no such port":            {setting: "SANDBOX_LISTEN=127.0.0.1:99999", told: "SANDBOX_LISTEN"},
		"no secret":               {setting: "BITBUCKET_CLIENT_ID=some", told: "BITBUCKET_CLIENT_SECRET"},
		"address without id":      {setting: "BITBUCKET_API_URL=https://api.bitbucket.org/2.0", told: "BITBUCKET_CLIENT_ID"},
		"no such concurrency":     {setting: "RUNNERHUB_CONCURRENCY=none", told: "RUNNERHUB_CONCURRENCY"},
		"no address":              {setting: "PUBLIC_URL=ci.example.com", told: "PUBLIC_URL"},
		"builds inside the data":  {setting: "RUNNERHUB_BUILDS=" + filepath.Join(h.data(), "builds"), told: "RUNNERHUB_BUILDS"},
		"data is a file":          {setting: "RUNNERHUB_DATA=" + h.program, told: "RUNNERHUB_DATA"},
		"newer data":              {file: database, text: patched(userVersionAt, 4711), told: "was written by a newer version"},
		"data of another program": {file: database, text: patched(applicationIDAt, 4711), told: "another program"},
		"no database":             {file: database, text: bytes.Repeat([]byte("not a database\n"), 1000), told: "runnerhub.db"},
		"no key":                  {file: key, told: "key file"},
		"no key in the file":      {file: key, text: []byte("something else\n"), told: "key file"},
	} {
		restore := func() {}
		if c.file != "" {
			restore = s.replace(c.file, c.text)
		}
		before := h.contents()
		if c.setting == "" {
			c.setting = "TZ=UTC" // none
		}
		h.refuses(c.told, c.setting)
		if now := h.contents(); !same(before, now) {
			t.Errorf("%s: the refused start changed what was there", name)
		}
		restore()
	}
	if left := h.processes(); len(left) > 0 {
		t.Errorf("the refused starts left %v", left)
	}
	h.start()
	s.must(s.Call(t.Context(), http.MethodGet, "/api/apps/"+s.app, nil, nil))
	s.ended(s.pushSteps("echo nothing is damaged").ID, "SUCCESSFUL")
}

// refuses starts a server with further settings and expects it to end at once, saying
// why in a line.
func (h *home) refuses(told string, settings ...string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	cmd := h.command(ctx, settings...)
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil || cmd.ProcessState.ExitCode() < 1 {
		h.t.Errorf("%q: the server started or did not end by itself: %v\n%s", settings, err, out)
		return
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	// The sandbox speaks for itself, and the server after it.
	if len(lines) > 1 && (len(lines) > 2 || !strings.HasSuffix(lines[1], "its own message is above")) || !strings.Contains(lines[0], told) {
		h.t.Errorf("%q: the server said\n%s\nexpected a line with %q", settings, out, told)
	}
}

// replace replaces or removes a file of the data, and answers how to take that back.
func (s *site) replace(path string, text []byte) (restore func()) {
	s.t.Helper()
	before, err := os.ReadFile(path)
	s.must(err)
	if text == nil {
		s.must(os.Remove(path))
	} else {
		s.must(os.WriteFile(path, text, 0o600))
	}
	return func() { s.must(os.WriteFile(path, before, 0o600)) }
}

// contents answers the files of the data by name. The lock names who held it last.
func (h *home) contents() map[string][]byte {
	h.t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(h.data(), func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasSuffix(path, "lock") {
			return err
		}
		found[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

func same(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			return false
		}
	}
	return true
}
