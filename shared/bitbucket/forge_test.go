package bitbucket_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/credential"
	"runnerhub/shared/secret"
)

// What the fixtures are about.
const (
	shop      = "{e959ee76-68fd-5175-9ec1-b42f84a2ce0b}"
	acme      = "{0ec74f05-6b0b-5826-b5c6-c9b0374656d6}"
	alice     = "{e3109057-5037-5674-b298-60cf6fa9907f}"
	hookUUID  = "{f00f3848-55e9-570d-a0fb-f82712d57359}"
	head      = "dfbccd9f778eb9450a1a3c5a97817b26bd031096"
	shopPath  = "/2.0/repositories/%7B%7D/%7Be959ee76-68fd-5175-9ec1-b42f84a2ce0b%7D"
	goodToken = "access-token-of-alice"

	clientSecret = "consumer-secret"
)

// noon is a clock that stands.
func noon() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }

// seen is a request as it came over the wire.
type seen struct {
	Method, URI, Authorization, ContentType, Body string
}

// forge is an HTTP server in Bitbucket's place, which remembers what it was asked.
type forge struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

func newForge(t testing.TB, answer http.HandlerFunc) *forge {
	t.Helper()
	f := &forge{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.seen = append(f.seen, seen{r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body)})
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// requests answers what came so far.
func (f *forge) requests() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]seen(nil), f.seen...)
}

func (f *forge) deps() bitbucket.Deps {
	return bitbucket.Deps{
		APIURL: f.URL + "/2.0", WebURL: f.URL,
		ClientID: "consumer", ClientSecret: credential.Fixed(secret.New(clientSecret)), CallbackURL: "https://ci.example.com/auth/callback",
		HTTP: bitbucket.NewHTTPClient(), Now: noon, Timeout: 5 * time.Second,
	}
}

func (f *forge) bitbucket(t testing.TB, change ...func(*bitbucket.Deps)) *bitbucket.Bitbucket {
	t.Helper()
	d := f.deps()
	for _, c := range change {
		c(&d)
	}
	t.Cleanup(d.HTTP.CloseIdleConnections)
	b, err := bitbucket.New(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// client calls with goodToken, and has no other.
func (f *forge) client(t testing.TB, change ...func(*bitbucket.Deps)) *bitbucket.Client {
	t.Helper()
	return f.bitbucket(t, change...).As(func(context.Context, secret.Text) (secret.Text, error) {
		return secret.New(goodToken), nil
	})
}

// says answers every request with the status and the body.
func says(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hangsUp reads the request and cuts the connection without an answer.
func hangsUp(w http.ResponseWriter, _ *http.Request) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

func mustContain(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q lacks %q", text, p)
		}
	}
}
