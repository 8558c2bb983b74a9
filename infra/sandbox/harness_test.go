package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const shopAPI = "/2.0/repositories/acme/shop"

// A bench is a running sandbox and what a test does with it.
type bench struct {
	*testing.T
	*Sandbox
	url   string
	clock *clock
}

// clock is set by the test and never runs by itself.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func testDeps(dir, address string, now func() time.Time) Deps {
	return Deps{
		Dir: dir, PublicURL: "http://" + address, ClientID: "client", ClientSecret: "client-secret",
		CallbackURL: "http://127.0.0.1:1/auth/callback", LoopbackHooks: true, Log: slog.New(slog.DiscardHandler), Now: now,
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			switch host {
			case "hooks.example.com":
				return []netip.Addr{netip.MustParseAddr("203.0.113.9")}, nil
			case "inside.example.com":
				return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
	}
}

// start runs a sandbox in memory; adjust changes what it is made of.
func start(t *testing.T, adjust ...func(*Deps)) *bench {
	t.Helper()
	b := startAt(t, "", adjust...)
	t.Cleanup(b.stop)
	return b
}

// startAt runs one on a folder. The caller stops it.
func startAt(t *testing.T, dir string, adjust ...func(*Deps)) *bench {
	t.Helper()
	b := &bench{T: t, clock: &clock{now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.ServeHTTP(w, r) }))
	deps := testDeps(dir, server.Listener.Addr().String(), b.clock.Now)
	for _, change := range adjust {
		change(&deps)
	}
	var err error
	if b.Sandbox, err = New(deps); err != nil {
		t.Fatal(err)
	}
	server.Start()
	b.url = server.URL
	t.Cleanup(server.Close)
	return b
}

func (b *bench) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		b.Errorf("close: %v", err)
	}
}

// An answered is what came back, read whole.
type answered struct {
	b      *bench
	what   string
	status int
	header http.Header
	body   []byte
}

// send makes a request without following redirects. as is a user's name for Basic
// authentication, "Bearer …", or "".
func (b *bench) send(as, method, path string, header http.Header, body io.Reader) (*answered, error) {
	target := path
	if strings.HasPrefix(path, "/") {
		target = b.url + path
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	switch {
	case strings.HasPrefix(as, "Bearer "):
		req.Header.Set("Authorization", as)
	case as != "":
		req.SetBasicAuth(as, as)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return &answered{b, method + " " + path, response.StatusCode, response.Header, text}, err
}

// call sends JSON, when there is any, and fails the test if no answer comes.
func (b *bench) call(as, method, path string, body any) *answered {
	b.Helper()
	header := http.Header{}
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			b.Fatal(err)
		}
		header.Set("Content-Type", "application/json")
		reader = bytes.NewReader(text)
	}
	a, err := b.send(as, method, path, header, reader)
	if err != nil {
		b.Fatal(err)
	}
	return a
}

func (b *bench) get(as, path string) *answered {
	b.Helper()
	return b.call(as, http.MethodGet, path, nil)
}

func (b *bench) form(as, path string, values url.Values) *answered {
	b.Helper()
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	a, err := b.send(as, http.MethodPost, path, header, strings.NewReader(values.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// want checks the status, and that the body has each text in it.
func (a *answered) want(status int, texts ...string) *answered {
	a.b.Helper()
	if a.status != status {
		a.b.Fatalf("%s: got %d, want %d: %.600s", a.what, a.status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(string(a.body), text) {
			a.b.Fatalf("%s: the body has no %q: %.1500s", a.what, text, a.body)
		}
	}
	return a
}

// at digs in the JSON body: at("values", 0, "name").
func (a *answered) at(path ...any) any {
	a.b.Helper()
	var value any
	if err := json.Unmarshal(a.body, &value); err != nil {
		a.b.Fatalf("%s: %v: %.300s", a.what, err, a.body)
	}
	return dig(a.b.T, value, path...)
}

func (a *answered) text(path ...any) string {
	a.b.Helper()
	text, isText := a.at(path...).(string)
	if !isText {
		a.b.Fatalf("%s: %v is no text: %v", a.what, path, a.at(path...))
	}
	return text
}

func dig(t *testing.T, value any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch key := step.(type) {
		case string:
			object, isObject := value.(map[string]any)
			if !isObject {
				t.Fatalf("%v: no object at %q: %v", path, key, value)
			}
			value = object[key]
		case int:
			list, isList := value.([]any)
			if !isList || key >= len(list) {
				t.Fatalf("%v: no element %d: %v", path, key, value)
			}
			value = list[key]
		}
	}
	return value
}

// size is the length of a list.
func (a *answered) size(path ...any) int {
	a.b.Helper()
	list, isList := a.at(path...).([]any)
	if !isList {
		a.b.Fatalf("%s: %v is no list", a.what, path)
	}
	return len(list)
}

// put adds one commit to a branch of acme/shop.
func (b *bench) put(branch, file, content string) string {
	b.Helper()
	hash, err := b.AddCommit(context.Background(), NewCommit{
		Repository: "acme/shop", Branch: branch, User: "bob", Message: "Change " + file, Files: map[string][]byte{file: []byte(content)},
	})
	if err != nil {
		b.Fatal(err)
	}
	return hash
}

func (b *bench) faults(f obj) {
	b.Helper()
	b.call("", http.MethodPut, "/_sandbox/faults", f).want(http.StatusOK)
}

func (b *bench) settle() {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Settle(ctx); err != nil {
		b.Fatal(err)
	}
}

// A received is one delivery as it arrived.
type received struct {
	header http.Header
	raw    []byte
	body   map[string]any
}

// A receiver is where hooks lead. answer decides the status by the number of the
// request, counted from 1.
type receiver struct {
	*httptest.Server
	got chan received
}

func receive(t *testing.T, answer func(n int) int) *receiver {
	t.Helper()
	r := &receiver{got: make(chan received, 100)}
	var mu sync.Mutex
	n := 0
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		n++
		count := n
		mu.Unlock()
		in := received{header: req.Header.Clone(), raw: raw}
		if err := json.Unmarshal(raw, &in.body); err != nil {
			t.Error(err)
		}
		r.got <- in
		status := http.StatusOK
		if answer != nil {
			status = answer(count)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "taken")
	}))
	t.Cleanup(r.Close)
	return r
}

// next waits for a delivery.
func (r *receiver) next(t *testing.T) received {
	t.Helper()
	select {
	case in := <-r.got:
		return in
	case <-time.After(time.Minute):
		t.Fatal("no delivery came")
		return received{}
	}
}

// all is what has come by now; for use after settle.
func (r *receiver) all() []received {
	var list []received
	for {
		select {
		case in := <-r.got:
			list = append(list, in)
		default:
			return list
		}
	}
}

func (in received) at(t *testing.T, path ...any) any {
	t.Helper()
	return dig(t, any(in.body), path...)
}

// hook makes a webhook on acme/shop and answers its UUID.
func (b *bench) hook(to, secret string, events ...string) string {
	b.Helper()
	return b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{
		"description": "test", "url": to, "active": true, "secret": secret, "events": events,
	}).want(http.StatusCreated).text("uuid")
}

// consent goes through the consent page and answers the callback's query.
func (b *bench) consent(user, action string, query url.Values) url.Values {
	b.Helper()
	all := url.Values{"client_id": {"client"}, "response_type": {"code"}, "state": {"st4te"}}
	for name, values := range query {
		all[name] = values
	}
	address := "/site/oauth2/authorize?" + all.Encode()
	b.get("", address).want(http.StatusOK, "Grant access")
	a := b.form("", address, url.Values{"user": {user}, "password": {user}, "action": {action}}).want(http.StatusFound)
	to, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		b.Fatal(err)
	}
	if got := to.Scheme + "://" + to.Host + to.Path; got != b.callbackURL {
		b.Fatalf("sent to %s, want the callback", got)
	}
	return to.Query()
}

// token asks the token endpoint as the consumer.
func (b *bench) token(values url.Values) *answered {
	b.Helper()
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	req := header.Clone()
	req.Set("Authorization", basic("client", "client-secret"))
	a, err := b.send("", http.MethodPost, "/site/oauth2/access_token", req, strings.NewReader(values.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	return a
}

func basic(name, password string) string {
	req := http.Request{Header: http.Header{}}
	req.SetBasicAuth(name, password)
	return req.Header.Get("Authorization")
}

// connect gets a user's tokens.
func (b *bench) connect(user string) (access, refresh string) {
	b.Helper()
	code := b.consent(user, "grant", nil).Get("code")
	a := b.token(url.Values{"grant_type": {"authorization_code"}, "code": {code}}).want(http.StatusOK)
	return a.text("access_token"), a.text("refresh_token")
}

// gitIn runs a git client in a folder.
func (b *bench) gitIn(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second // its helpers hold the pipe, too
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Bob Builder", "GIT_AUTHOR_EMAIL=bob@example.com",
		"GIT_COMMITTER_NAME=Bob Builder", "GIT_COMMITTER_EMAIL=bob@example.com",
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (b *bench) git(dir string, args ...string) string {
	b.Helper()
	out, err := b.gitIn(dir, args...)
	if err != nil {
		b.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

// cloneURL is acme/shop for a user and password.
func (b *bench) cloneURL(user, password string) string {
	return strings.Replace(b.url, "://", "://"+user+":"+password+"@", 1) + "/acme/shop.git"
}

// clone checks out acme/shop and answers the folder.
func (b *bench) clone(user string) string {
	b.Helper()
	dir := b.TempDir()
	b.git(dir, "clone", "--quiet", b.cloneURL(user, user), "shop")
	return filepath.Join(dir, "shop")
}

func (b *bench) write(dir, name, content string) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		b.Fatal(err)
	}
}

// commit writes a file, commits it and answers the hash.
func (b *bench) commit(dir, name, content string) string {
	b.Helper()
	b.write(dir, name, content)
	b.git(dir, "add", ".")
	b.git(dir, "commit", "--quiet", "-m", "Change "+name)
	return b.git(dir, "rev-parse", "HEAD")
}

// tip is the hash of a branch of acme/shop.
func (b *bench) tip(branch string) string {
	b.Helper()
	return b.get("alice", shopAPI+"/refs/branches/"+branch).want(http.StatusOK).text("target", "hash")
}

func isExit(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit)
}
