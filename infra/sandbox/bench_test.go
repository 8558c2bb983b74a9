package sandbox

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The API answers from memory; these are what a benchmark of the product calls most.
func BenchmarkAPI(b *testing.B) {
	s, err := New(testDeps("", "127.0.0.1:1", time.Now))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	hash := ""
	s.store.read(func(d *data) { hash = d.branch(d.repositoryAt("acme", "shop").ID, "main").Commit })
	status := `{"key":"k","state":"INPROGRESS","url":"http://127.0.0.1/"}`
	for name, c := range map[string]struct{ method, path, body string }{
		"repository": {"GET", shopAPI, ""},
		"commit":     {"GET", shopAPI + "/commit/" + hash[:12], ""},
		"full":       {"GET", shopAPI + "/commit/" + hash, ""},
		"src":        {"GET", shopAPI + "/src/" + hash + "/.runnerhub/runnerhub.yml", ""},
		"branch":     {"GET", shopAPI + "/refs/branches/main", ""},
		"hooks":      {"GET", shopAPI + "/hooks?pagelen=100", ""},
		"status":     {"POST", shopAPI + "/commit/" + hash + "/statuses/build", status},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
				r.SetBasicAuth("alice", "alice")
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				if s.ServeHTTP(w, r); w.Code >= http.StatusMultipleChoices {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		})
	}
	b.Run("AddCommit", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			_, err := s.AddCommit(context.Background(), NewCommit{
				Repository: "acme/shop", Branch: "main", User: "bob", Files: map[string][]byte{"count": fmt.Append(nil, n)},
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
