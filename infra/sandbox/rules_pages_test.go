package sandbox

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// browse makes a request with a cookie, as a browser does.
func (b *bench) browse(cookie, method, path string, more http.Header) *answered {
	b.Helper()
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Cookie": {cookie}}
	for name, values := range more {
		header[name] = values
	}
	a, err := b.send("", method, path, header, io.NopCloser(strings.NewReader("")))
	if err != nil {
		b.Fatal(err)
	}
	return a
}

func (b *bench) signInAs(user string) string {
	b.Helper()
	a := b.form("", "/signin", url.Values{"user": {user}, "password": {user}, "return": {"/acme/shop"}}).want(http.StatusSeeOther)
	if to := a.header.Get("Location"); to != "/acme/shop" {
		b.Errorf("sent to %s", to)
	}
	cookie := a.header.Get("Set-Cookie")
	if !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") {
		b.Errorf("cookie %s", cookie)
	}
	value, _, _ := strings.Cut(cookie, ";")
	return value
}

func TestRule104_PagesNeedASignIn(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.open("topic")
	b.status("bob", hash, nil).want(http.StatusCreated)
	b.hook("http://127.0.0.1:9/", "s", "repo:push")
	pages := []string{"/", "/acme/shop", "/acme/shop?branch=topic", "/acme/shop/branch/topic", "/acme/shop/commits/" + hash, "/acme/shop/pull-requests", "/acme/shop/pull-requests/1", "/acme/shop/webhooks", "/account/authorizations"}
	alice, mallory, carol := b.signInAs("alice"), b.signInAs("mallory"), b.signInAs("carol")
	for _, path := range pages {
		if to := b.get("", path).want(http.StatusSeeOther).header.Get("Location"); to != "/signin?return="+url.QueryEscape(path) {
			t.Errorf("%s: sent to %s", path, to)
		}
		b.browse(alice, http.MethodGet, path, nil).want(http.StatusOK, "Alice Admin")
		if strings.HasPrefix(path, "/acme") {
			b.browse(mallory, http.MethodGet, path, nil).want(http.StatusNotFound)
		}
	}
	b.browse(mallory, http.MethodGet, "/", nil).want(http.StatusOK, "elsewhere/attic")
	b.browse(carol, http.MethodGet, "/acme/shop/webhooks", nil).want(http.StatusForbidden)
	b.browse(carol, http.MethodGet, "/acme/shop/pull-requests/1", nil).want(http.StatusOK, "Merging needs write access", "SUCCESSFUL")
	b.form("", "/signin", url.Values{"user": {"alice"}, "password": {"x"}}).want(http.StatusUnauthorized, "do not match")
	b.form("alice", "/acme/shop/pull-requests", url.Values{"title": {"From the page"}, "source": {"develop"}, "destination": {"main"}}).want(http.StatusSeeOther)
	b.browse(alice, http.MethodGet, "/acme/shop/pull-requests/2", nil).want(http.StatusOK, "From the page")
	b.browse(alice, http.MethodPost, "/acme/shop/pull-requests/2/merge", nil).want(http.StatusSeeOther)
	b.browse(alice, http.MethodGet, "/acme/shop/pull-requests/2", nil).want(http.StatusOK, "MERGED")
	b.browse(alice, http.MethodPost, "/signout", nil).want(http.StatusSeeOther)
	b.browse(alice, http.MethodGet, "/", nil).want(http.StatusSeeOther)
}

func TestRule105_OtherSites(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.open("topic")
	alice := b.signInAs("alice")
	other := http.Header{"Origin": {"http://evil.example.com"}, "Sec-Fetch-Site": {"cross-site"}}
	b.browse(alice, http.MethodPost, "/acme/shop/pull-requests/1/decline", other).want(http.StatusForbidden)
	b.get("bob", pullsAPI+"/1").want(http.StatusOK, `"state":"OPEN"`)
	for _, to := range []string{"http://evil.example.com/", "//evil.example.com", "///evil.example.com", `/\evil.example.com`, "javascript:alert(1)", ""} {
		a := b.form("", "/signin", url.Values{"user": {"alice"}, "password": {"alice"}, "return": {to}}).want(http.StatusSeeOther)
		if got := a.header.Get("Location"); got != "/" {
			t.Errorf("%s: sent to %s", to, got)
		}
	}
}
