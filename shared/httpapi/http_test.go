package httpapi_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/catalog"
	"runnerhub/shared/connect"
	"runnerhub/shared/consent"
	"runnerhub/shared/fault"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/ingest"
	"runnerhub/shared/signin"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := httpapi.Deps{PublicURL: "http://127.0.0.1:8080", Now: time.Now, NewRef: func() string { return "r" }, Log: slog.New(slog.DiscardHandler)}
	for name, spoil := range map[string]func(*httpapi.Deps){
		"no clock":        func(d *httpapi.Deps) { d.Now = nil },
		"no refs":         func(d *httpapi.Deps) { d.NewRef = nil },
		"no log":          func(d *httpapi.Deps) { d.Log = nil },
		"no address":      func(d *httpapi.Deps) { d.PublicURL = "" },
		"another address": func(d *httpapi.Deps) { d.PublicURL = "ftp://ci.example" },
	} {
		d := good
		spoil(&d)
		if _, err := httpapi.New(d); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := httpapi.New(good); err != nil {
		t.Error(err)
	}
}

func TestUseCasesRefuseWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	for name, made := range map[string]func() error{
		"consent": func() error { _, err := consent.New(consent.Deps{Store: b.store, Now: b.now}); return err },
		"signin":  func() error { _, err := signin.New(signin.Deps{Store: b.store, Now: b.now}); return err },
		"connect": func() error { _, err := connect.New(connect.Deps{Store: b.store, Now: b.now}); return err },
		"catalog": func() error { _, err := catalog.New(catalog.Deps{Store: b.store, Now: b.now}); return err },
		"httpapi": func() error {
			shows, err := catalog.New(catalog.Deps{Store: b.store, Logs: b.logs, PublicURL: b.public, Now: b.now, NewID: b.newID})
			b.ok(err)
			_, err = httpapi.New(httpapi.Deps{Groups: []httpapi.Group{httpapi.Apps(shows)}, PublicURL: b.public, Now: b.now, NewRef: b.newID, Log: slog.New(slog.DiscardHandler)})
			return err
		},
	} {
		if made() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// refuses takes no webhook.
type refuses struct{}

func (refuses) Accept(context.Context, ingest.Request) error {
	return fault.New(fault.Unauthenticated, "no")
}

// A process that takes webhooks serves nothing else, and needs nothing else.
func TestServesWhatItHas(t *testing.T) {
	t.Parallel()
	a, err := httpapi.New(httpapi.Deps{
		Groups: []httpapi.Group{httpapi.Webhook(refuses{})}, PublicURL: "https://ci.example.com", Now: time.Now, NewRef: func() string { return "r" }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/runner/claim": 404, "/hooks/x": 401, "/api/workspaces": 404, "/auth/logout": 404, "/healthz": 404} {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader("{}")))
		if w.Code != want {
			t.Errorf("%s answers %d, want %d", path, w.Code, want)
		}
	}
	if got := a.Routes(); len(got) != 1 {
		t.Errorf("the routes are %v", got)
	}
}

func TestNoRoute(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	for _, path := range []string{"/api", "/api/", "/api/nothing", "/api/me/", "/favicon.ico", "/api/apps/a/variables", "/builds/", "/hooks/a/b"} {
		a := br.get(path).want(404)
		if a.header.Get("Content-Type") != "application/problem+json" || a.text("ref") == "" {
			t.Errorf("%s: %s %s", path, a.header, a.body)
		}
	}
	for path, allow := range map[string]string{"/api/me": "GET, HEAD", "/hooks/x": "POST", "/api/workspaces": "GET, HEAD, POST", "/api/tokens/x": "DELETE"} {
		a := br.do(http.MethodPatch, path, nil).want(405)
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow is %q", path, got)
		}
		if p := a.json(); p["status"] != 405.0 || p["title"] != "Method Not Allowed" || p["type"] != "about:blank" {
			t.Errorf("the problem is %v", p)
		}
	}
	cross := br.do(http.MethodOptions, "/api/me", nil, "Origin", "https://evil.example", "Access-Control-Request-Method", "GET").want(405)
	for name := range cross.header {
		if strings.HasPrefix(name, "Access-Control") {
			t.Errorf("there is a header %s", name)
		}
	}
}

func TestHeadersAndHead(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	for path, status := range map[string]int{"/": 200, "/healthz": 200, "/api/me": 200, "/nothing": 404, "/builds/x": 404, "/auth/callback": 400} {
		get, head := br.get(path).want(status), br.do(http.MethodHead, path, nil).want(status)
		if head.body != "" {
			t.Errorf("HEAD %s has a body", path)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
		} {
			if got := get.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
			if got := head.header.Get(name); got != want {
				t.Errorf("HEAD %s: %s is %q", path, name, got)
			}
		}
		policy := get.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(policy, want) || strings.Contains(policy, "unsafe") {
				t.Errorf("%s: the policy is %s", path, policy)
			}
		}
	}
}

func TestCrossSiteRequests(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	br.csrf = false
	for _, r := range [][2]string{
		{http.MethodPost, "/auth/logout"},
		{http.MethodPost, "/api/workspaces"},
		{http.MethodPost, "/api/tokens"},
		{http.MethodDelete, "/api/tokens/x"},
		{http.MethodPut, "/api/apps/x/repository"},
	} {
		br.do(r[0], r[1], map[string]string{"name": "x"}).want(403).says("X-RunnerHub-CSRF")
	}
	br.get("/api/me").want(200)
	br.do(http.MethodHead, "/api/me", nil).want(200)
	br.do(http.MethodPost, "/api/workspaces", map[string]string{"name": "x"}, "X-RunnerHub-CSRF", "anything").want(201)
}

func TestBodies(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	for body, want := range map[string]struct {
		status int
		field  string
	}{
		``:                                {400, ""},
		`null`:                            {400, "name"},
		`[]`:                              {400, ""},
		`{"name":"a"`:                     {400, ""},
		`{"name":"a"} {}`:                 {400, ""},
		`{"name":5}`:                      {400, "name"},
		`{"name":"a","nmae":"b"}`:         {400, "nmae"},
		`{"name":""}`:                     {400, "name"},
		`{"name":" \t "}`:                 {400, "name"},
		`{"name":"a\u0000b"}`:             {400, "name"},
		`{"name":"a\nb"}`:                 {400, "name"},
		`{"name":"a\u202eb"}`:             {400, "name"},
		name(100):                         {201, ""},
		name(101):                         {400, "name"},
		`{"name":" ÄÖÜ 東京 "}`:             {201, ""},
		strings.Repeat(" ", 1<<20) + `{}`: {413, ""},
	} {
		a := br.post("/api/workspaces", body)
		field, _ := a.json()["field"].(string)
		if a.status != want.status || field != want.field {
			t.Errorf("%.40q: %d about %q: %s", body, a.status, field, a.body)
		}
	}
	items := br.get("/api/workspaces").want(200).items()
	for _, item := range items {
		if n := item["name"].(string); n != strings.TrimSpace(n) {
			t.Errorf("a name is kept as %q", n)
		}
	}
	if len(items) != 2 {
		t.Errorf("the workspaces are %v", items)
	}
}

func name(n int) string { return fmt.Sprintf(`{"name":%q}`, strings.Repeat("ü", n)) }

func TestMachines(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.browser()
	br.csrf = false
	if a := br.get("/healthz").want(200); a.text("status") != "ok" {
		t.Errorf("health is %s", a.body)
	}
	for path, rest := range map[string]string{"/runner/claim": `"nonce":"n"`, "/runner/steps": `"nonce":"n","sequence":1,"steps":[],"result":""`} {
		for ticket, status := range map[string]int{"good": 200, "claimed": 409, "unknown": 401, "odd": 500} {
			br.post(path, fmt.Sprintf(`{"ticket":%q,%s}`, ticket, rest)).want(status)
		}
	}
	odd := br.post("/runner/claim", `{"ticket":"odd","nonce":"n"}`)
	if strings.Contains(odd.body, "secret/place") || !strings.Contains(odd.text("detail"), "internal error (ref "+odd.text("ref")+")") {
		t.Errorf("an unforeseen error says %s", odd.body)
	}
	panicked := br.post("/runner/steps", `{"ticket":"panic","nonce":"n","sequence":1,"steps":[],"result":""}`).want(500)
	log := b.written.String()
	for _, a := range []answer{odd, panicked} {
		if !strings.Contains(log, "ref="+a.text("ref")) {
			t.Errorf("the log has no ref %s", a.text("ref"))
		}
	}
	if !strings.Contains(log, "a report that panics") || !strings.Contains(log, "/secret/place") {
		t.Error("the log does not say what was wrong")
	}

	br.do(http.MethodPost, "/hooks/x", "{}", "X-Event-Key", "diagnostics:ping").want(200)
	br.do(http.MethodPost, "/hooks/x", "{}", "X-Event-Key", "repo:push").want(401)
	br.do(http.MethodPost, "/hooks/x", strings.Repeat("x", 512<<10), "X-Hub-Signature", "sha256=00").want(401)
	br.do(http.MethodPost, "/hooks/x", strings.Repeat("x", 512<<10+1), "X-Hub-Signature", "sha256=00").want(413)
}

func TestAgentsProgram(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.browser()
	a := br.get("/runner/agent/linux-arm64").want(200)
	if a.body != packedAgent || a.header.Get("Content-Type") != "application/gzip" || a.header.Get("Content-Encoding") != "" {
		t.Errorf("the agent comes as %q with %v", a.body, a.header)
	}
	tag := a.header.Get("ETag")
	if tag == "" || a.header.Get("Cache-Control") != "public, no-cache" {
		t.Errorf("its header is %v", a.header)
	}
	if again := br.do(http.MethodGet, "/runner/agent/linux-arm64", nil, "If-None-Match", tag).want(304); again.header.Get("ETag") != tag {
		t.Errorf("asked again, the header is %v", again.header)
	}
	br.do(http.MethodGet, "/runner/agent/linux-arm64", nil, "If-None-Match", `"another"`).want(200)
	br.do(http.MethodHead, "/runner/agent/linux-arm64", nil).want(200)
	br.get("/runner/agent/linux-amd64").want(404).says("has no agent for linux-amd64")
	for _, platform := range []string{"darwin-arm64", "linux-arm64.gz", "..%2flinux-arm64", "x"} {
		br.get("/runner/agent/" + platform).want(404).says("there is no agent")
	}
	br.post("/runner/agent/linux-arm64", nil).want(405)
}

func TestTheLogKeepsQueriesOut(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	br.get("/api/workspaces?cursor=surely-not-in-the-log").want(400)
	br.post("/api/workspaces", map[string]string{"name": "not-in-the-log-either"}).want(201)
	log := b.written.String()
	for _, unwanted := range []string{"surely-not", "not-in-the-log", "code=", "state=", br.cookies["session"], "Bearer "} {
		if strings.Contains(log, unwanted) {
			t.Errorf("the log holds %q", unwanted)
		}
	}
	for _, wanted := range []string{"route=/api/workspaces", "status=201", "method=POST", "user=" + br.id(), "duration="} {
		if !strings.Contains(log, wanted) {
			t.Errorf("the log does not hold %q: %s", wanted, log)
		}
	}
}
