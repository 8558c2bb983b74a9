package sandbox

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestRule84_CloneAndFetch(t *testing.T) {
	t.Parallel()
	b := start(t)
	dir := b.clone("carol")
	if got := b.git(dir, "branch", "--show-current"); got != "main" {
		t.Errorf("on %s", got)
	}
	b.git(dir, "cat-file", "-e", "HEAD:.runnerhub/runnerhub.yml")
	for _, c := range []struct {
		address, want string
	}{
		{b.cloneURL("carol", "wrong"), "Authentication failed"},
		{b.url + "/acme/shop.git", "could not read Username"},
		{b.cloneURL("mallory", "mallory"), "not found"},
		{strings.Replace(b.cloneURL("carol", "carol"), "shop", "none", 1), "not found"},
	} {
		if out, err := b.gitIn(dir, "ls-remote", c.address); !isExit(err) || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s", c.address, err, out)
		}
	}
	b.call("alice", http.MethodPut, shopAPI, obj{"is_private": false}).want(http.StatusOK)
	b.git(dir, "ls-remote", b.url+"/acme/shop.git")
}

func TestRule85_PushNeedsWrite(t *testing.T) {
	t.Parallel()
	b := start(t)
	before := b.tip("main")
	dir := b.clone("carol")
	b.commit(dir, "a", "a")
	if out, err := b.gitIn(dir, "push", "origin", "main"); !isExit(err) || !strings.Contains(out, "403") {
		t.Errorf("%v\n%s", err, out)
	}
	if b.tip("main") != before {
		t.Error("it was pushed")
	}
	b.git(dir, "push", "--quiet", b.cloneURL("bob", "bob"), "main")
}

func TestRule86_TokensAndGit(t *testing.T) {
	t.Parallel()
	b := start(t)
	access, _ := b.connect("bob")
	dir := t.TempDir()
	b.git(dir, "clone", "--quiet", b.cloneURL("x-token-auth", access), "shop")
	dir = filepath.Join(dir, "shop")
	b.git(dir, "-c", "http.extraHeader=Authorization: Bearer "+access, "ls-remote", b.url+"/acme/shop.git")
	b.commit(dir, "a", "a")
	if out, err := b.gitIn(dir, "push", "origin", "main"); !isExit(err) || !strings.Contains(out, "403") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := b.gitIn(dir, "ls-remote", b.cloneURL("x-token-auth", "made-up")); !isExit(err) {
		t.Errorf("%v\n%s", err, out)
	}
	writer := start(t, func(d *Deps) { d.Scopes = []string{"repository:write"} })
	access, _ = writer.connect("bob")
	dir = t.TempDir()
	writer.git(dir, "clone", "--quiet", writer.cloneURL("x-token-auth", access), "shop")
	dir = filepath.Join(dir, "shop")
	hash := writer.commit(dir, "a", "a")
	writer.git(dir, "push", "--quiet", "origin", "main")
	if writer.tip("main") != hash {
		t.Error("it was not pushed")
	}
}

func TestRule87_LargePush(t *testing.T) {
	t.Parallel()
	b := start(t)
	dir := b.clone("bob")
	large := make([]byte, 3<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), large, 0o600); err != nil {
		t.Fatal(err)
	}
	b.git(dir, "add", ".")
	b.git(dir, "commit", "--quiet", "-m", "Large")
	b.git(dir, "push", "--quiet", "origin", "main")
	if a := b.get("bob", shopAPI+"/src/main/large").want(http.StatusOK); string(a.body) != string(large) {
		t.Errorf("%d bytes came back", len(a.body))
	}
}

func TestRule88_FetchWhatIsNoTip(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.put("topic", "a", "a")
	old := b.tip("topic")
	dir := b.clone("bob")
	b.git(dir, "push", "--quiet", "origin", "+main:topic")
	for _, protocol := range []string{"0", "2"} {
		clean := t.TempDir()
		b.git(clean, "init", "--quiet")
		b.git(clean, "-c", "protocol.version="+protocol, "fetch", "--quiet", "--depth=1", b.cloneURL("carol", "carol"), old)
		if got := b.git(clean, "rev-parse", "FETCH_HEAD"); got != old {
			t.Errorf("fetched %s", got)
		}
	}
	b.get("carol", shopAPI+"/src/"+old+"/a").want(http.StatusOK)
}

func TestRule89_TheMainBranchStays(t *testing.T) {
	t.Parallel()
	b := start(t)
	dir := b.clone("bob")
	if out, err := b.gitIn(dir, "push", "origin", ":main"); !isExit(err) {
		t.Errorf("%v\n%s", err, out)
	}
	b.tip("main")
	b.git(dir, "push", "--quiet", "origin", ":develop")
}

func TestRule90_SmartProtocolOnly(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.get("alice", "/acme/shop.git/info/refs?service=git-upload-pack").want(http.StatusOK, "git-upload-pack")
	b.get("alice", "/acme/shop.git/info/refs").want(http.StatusForbidden)
	b.get("alice", "/acme/shop.git/info/refs?service=git-upload-archive").want(http.StatusForbidden)
	b.get("alice", "/acme/shop.git/HEAD").want(http.StatusNotFound)
	b.get("alice", "/acme/shop.git/objects/info/packs").want(http.StatusNotFound)
	b.get("alice", "/acme/shop/info/refs?service=git-upload-pack").want(http.StatusNotFound)
}

// A push that git gives up on early ends, although the client is still sending.
func TestBrokenRepository(t *testing.T) {
	t.Parallel()
	b := start(t)
	dir := b.clone("bob")
	large := make([]byte, 3<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "large"), large, 0o600); err != nil {
		t.Fatal(err)
	}
	b.git(dir, "add", ".")
	b.git(dir, "commit", "--quiet", "-m", "Large")
	folder := b.path(b.get("alice", shopAPI).text("uuid"))
	if err := os.RemoveAll(filepath.Join(folder, "objects")); err != nil {
		t.Fatal(err)
	}
	if out, err := b.gitIn(dir, "push", "origin", "main"); !isExit(err) {
		t.Errorf("%v\n%s", err, out)
	}
	a, err := b.send("bob", http.MethodPost, "/acme/shop.git/git-receive-pack", http.Header{"Content-Type": {"application/x-git-receive-pack-request"}}, bytes.NewReader(large))
	if err == nil && a.status == http.StatusOK {
		t.Errorf("%d", a.status)
	}
}

// A body that breaks off ends the process that waits for the rest.
func TestBodyBreaksOff(t *testing.T) {
	t.Parallel()
	b := start(t)
	r := httptest.NewRequest(http.MethodPost, "/acme/shop.git/git-receive-pack", io.MultiReader(strings.NewReader("0014"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r.ContentLength = 20
	r.Header.Set("Content-Type", "application/x-git-receive-pack-request")
	r.SetBasicAuth("bob", "bob")
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.ServeHTTP(httptest.NewRecorder(), r)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("still waiting for the rest")
	}
}
