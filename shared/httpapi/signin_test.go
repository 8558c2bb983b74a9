package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/signin"
)

func TestSignIn(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.browser()
	br.get("/api/me").want(401)

	page := br.get("/auth/login?return=/builds/b1%3Fx=1").to()
	if !strings.HasPrefix(page, b.forge.address+"/site/oauth2/authorize?") || !strings.Contains(page, "code_challenge_method=S256") {
		t.Fatalf("login sends to %s", page)
	}
	back := b.consents(page, "alice", "grant")
	if to := br.get(back).to(); to != "/builds/b1?x=1" {
		t.Errorf("after the callback the browser goes to %s", to)
	}
	if me := br.get("/api/me").want(200).json(); me["nickname"] != "Alice Admin" || me["account"] == "" {
		t.Errorf("me is %v", me)
	}
	br.get("/").want(200).says("Alice Admin")

	first := br.cookies["session"]
	again := br.get(b.consents(br.get("/auth/login").to(), "alice", "grant"))
	again.want(303)
	if br.cookies["session"] == first {
		t.Error("a second sign-in keeps the session's id")
	}
	old := b.browser()
	old.cookies["session"] = first
	old.get("/api/me").want(401).says("sign in again")

	br.post("/auth/logout", nil).want(204)
	if br.cookies["session"] != "" {
		t.Error("signing out leaves the cookie")
	}
	for name, value := range map[string]string{"the cookie": again.header.Get("Set-Cookie"), "the code": back} {
		if strings.Contains(b.written.String(), value) {
			t.Errorf("%s is in the log", name)
		}
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		public, session, browser string
		secure                   bool
	}{
		{"", "session", "signin", false},
		{"https://ci.example.com", "__Host-session", "__Host-signin", true},
	} {
		b := newBed(t, options{public: test.public})
		br := b.browser()
		login := br.get("/auth/login")
		callback := br.get(b.consents(login.to(), "alice", "grant"))
		callback.want(303)
		for name, a := range map[string]answer{test.browser: login, test.session: callback} {
			lines := a.header["Set-Cookie"]
			if len(lines) != 1 {
				t.Fatalf("%d cookies are set: %q", len(lines), lines)
			}
			cookie, err := http.ParseSetCookie(lines[0])
			if err != nil {
				t.Fatal(err)
			}
			if cookie.Name != name || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Secure != test.secure || cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge <= 0 {
				t.Errorf("the cookie is %s", lines[0])
			}
		}
		if hsts := callback.header.Get("Strict-Transport-Security"); (hsts != "") != test.secure {
			t.Errorf("HSTS is %q", hsts)
		}
		b.clock.Store(int64(signin.SessionLife - time.Minute))
		br.get("/api/me").want(200)
		b.clock.Store(int64(signin.SessionLife + time.Minute))
		br.get("/api/me").want(401)
	}
}

func TestReturnPathAttacks(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	for _, path := range []string{"//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "javascript:alert(1)", "/x\r\nSet-Cookie:a=b"} {
		a := b.browser().get("/auth/login?return=" + url.QueryEscape(path)).want(400)
		if a.header.Get("Location") != "" {
			t.Errorf("%q leads to %s", path, a.header.Get("Location"))
		}
	}
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	a := br.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket", "return": "//evil.example"}).want(400)
	if a.text("field") != "return" {
		t.Errorf("the problem is %s", a.body)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})

	t.Run("replayed", func(t *testing.T) {
		br := b.browser()
		back := b.consents(br.get("/auth/login").to(), "alice", "grant")
		br.get(back).want(303)
		br.get(back).want(400).says("used already")
	})
	t.Run("of another browser", func(t *testing.T) {
		attacker, victim := b.browser(), b.browser()
		back := b.consents(attacker.get("/auth/login").to(), "mallory", "grant")
		victim.get("/auth/login").want(303)
		victim.get(back).want(403).says("another browser")
		if victim.cookies["session"] != "" {
			t.Error("the victim is signed in as the attacker")
		}
		b.browser().get(back).want(400)
		attacker.get(back).want(400) // one try is all there is
	})
	t.Run("of nobody", func(t *testing.T) {
		for _, query := range []string{"", "?code=x", "?code=x&state=", "?code=x&state=signin.made-up", "?code=x&state=connect.made-up", "?code=x&state=confirm.made-up"} {
			a := b.signsIn("alice").get("/auth/callback" + query)
			if a.status != 400 {
				t.Errorf("%q: %d", query, a.status)
			}
		}
	})
	t.Run("changed", func(t *testing.T) {
		br := b.browser()
		back := b.consents(br.get("/auth/login").to(), "alice", "grant")
		br.get(strings.Replace(back, "state=signin.", "state=connect.", 1)).want(401)
		br.get(back).want(303)
	})
	t.Run("two tabs", func(t *testing.T) {
		br := b.browser()
		one, two := br.get("/auth/login?return=/one").to(), br.get("/auth/login?return=/two").to()
		if to := br.get(b.consents(one, "alice", "grant")).to(); to != "/one" {
			t.Errorf("the first tab ends on %s", to)
		}
		if to := br.get(b.consents(two, "alice", "grant")).to(); to != "/two" {
			t.Errorf("the second tab ends on %s", to)
		}
	})
	t.Run("refused", func(t *testing.T) {
		br := b.browser()
		if to := br.get(b.consents(br.get("/auth/login?return=/a%3Fb=c").to(), "alice", "deny")).to(); to != "/a?b=c&error=access_denied" {
			t.Errorf("the browser goes to %s", to)
		}
		br.get("/api/me").want(401)
		br.get("/?error=access_denied").want(200).says("not signed in")
	})
	t.Run("expired", func(t *testing.T) {
		br := b.browser()
		back := b.consents(br.get("/auth/login").to(), "alice", "grant")
		b.clock.Store(int64(11 * time.Minute))
		br.get(back).want(400).says("10 minutes")
	})
}

func TestWhoMaySignIn(t *testing.T) {
	t.Parallel()
	try := func(b *bed, name string) int {
		br := b.browser()
		return br.get(b.consents(br.get("/auth/login").to(), name, "grant")).status
	}
	t.Run("the first owns it", func(t *testing.T) {
		b := newBed(t, options{public: "https://ci.example.com"})
		if got := try(b, "alice"); got != 303 {
			t.Fatalf("the first gets %d", got)
		}
		if got := try(b, "alice"); got != 303 {
			t.Errorf("the owner, again, gets %d", got)
		}
		br := b.browser()
		br.get(b.consents(br.get("/auth/login").to(), "mallory", "grant")).want(403).says("belongs to somebody else")
		br.get("/api/me").want(401)
	})
	t.Run("members of a workspace of it", func(t *testing.T) {
		b := newBed(t, options{public: "https://ci.example.com"})
		owner := b.signsIn("alice")
		workspace := owner.makes("/api/workspaces", "Acme")
		if got := try(b, "bob"); got != 403 {
			t.Fatalf("bob, no member, gets %d", got)
		}
		bob, err := b.store.SignIn(t.Context(), b.account("bob"), "bob", "Bob Builder")
		b.ok(err)
		b.joins(bob.ID, workspace, ci.Viewer)
		if got := try(b, "bob"); got != 303 {
			t.Errorf("bob, a member, gets %d", got)
		}
	})
	t.Run("members of an allowed workspace", func(t *testing.T) {
		b := newBed(t, options{public: "https://ci.example.com", allowed: []string{"nobody-has-this", "acme"}})
		for user, want := range map[string]int{"alice": 303, "carol": 303, "mallory": 403} {
			if got := try(b, user); got != want {
				t.Errorf("%s gets %d, want %d", user, got, want)
			}
		}
		if !strings.Contains(b.written.String(), "slug=acme workspace={") {
			t.Error("the log does not say which workspace the slug stands for")
		}
	})
	t.Run("a slug that somebody took over", func(t *testing.T) {
		b := newBed(t, options{public: "https://ci.example.com", allowed: []string{"Acme"}})
		_, err := b.store.PinAllowedWorkspace(t.Context(), "acme", "{00000000-0000-0000-0000-000000000001}")
		b.ok(err)
		if got := try(b, "alice"); got != 403 {
			t.Errorf("a member of another workspace with that slug gets %d", got)
		}
	})
	t.Run("a workspace that gave up its slug", func(t *testing.T) {
		b := newBed(t, options{public: "https://ci.example.com", allowed: []string{"before"}})
		var workspaces struct {
			Values []struct{ Workspace struct{ UUID string } }
		}
		b.ok(json.Unmarshal([]byte(b.asAlice(http.MethodGet, "/2.0/user/workspaces", nil).want(200).body), &workspaces))
		_, err := b.store.PinAllowedWorkspace(t.Context(), "before", workspaces.Values[0].Workspace.UUID)
		b.ok(err)
		if got := try(b, "alice"); got != 303 {
			t.Errorf("a member gets %d", got)
		}
	})
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	made := br.post("/api/tokens", map[string]any{"name": " deploy ", "expires_at": b.now().Add(time.Hour)}).want(201)
	bearer := made.text("token")
	if !strings.HasPrefix(bearer, "rh_") || made.text("name") != "deploy" {
		t.Errorf("the token is %s", made.body)
	}
	for _, item := range br.get("/api/tokens").want(200).items() {
		if item["token"] != nil || item["hash"] != nil {
			t.Errorf("the list shows secrets: %v", item)
		}
	}
	script := b.browser()
	script.csrf, script.bearer = false, bearer
	script.get("/api/me").want(200)
	script.post("/api/workspaces", map[string]string{"name": "from a script"}).want(201)
	script.post("/api/tokens", map[string]string{"name": "another"}).want(403)

	// A bearer that is no good is not rescued by a cookie.
	both := br.clone()
	both.bearer = "rh_no"
	both.get("/api/me").want(401)
	for _, header := range []string{"Basic YWxpY2U6YWxpY2U=", "Bearer", "Bearer ", "rh_x"} {
		if got := b.browser().do(http.MethodGet, "/api/me", nil, "Authorization", header).want(401).header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
			t.Errorf("WWW-Authenticate is %q", got)
		}
	}

	// Another's token cannot be deleted, nor seen.
	other := b.signsIn("bob")
	other.do(http.MethodDelete, "/api/tokens/"+made.text("id"), nil).want(404)
	if items := other.get("/api/tokens").want(200).items(); len(items) != 0 {
		t.Errorf("bob sees %v", items)
	}
	lasting := br.post("/api/tokens", map[string]string{"name": "lasting"}).want(201)
	b.clock.Store(int64(2 * time.Hour))
	script.get("/api/me").want(401)
	script.bearer = lasting.text("token")
	script.get("/api/me").want(200)
	br.do(http.MethodDelete, "/api/tokens/"+lasting.text("id"), nil).want(204)
	script.get("/api/me").want(401)
	for name, body := range map[string]any{
		"expires_at": map[string]any{"name": "x", "expires_at": b.now().Add(-time.Minute)},
		"name":       map[string]any{"name": "  "},
		"color":      map[string]any{"name": "x", "color": "red"},
	} {
		if got := br.post("/api/tokens", body).want(400).text("field"); got != name {
			t.Errorf("the field is %s, want %s", got, name)
		}
	}
	if strings.Contains(b.written.String(), bearer) {
		t.Error("the token is in the log")
	}
}
