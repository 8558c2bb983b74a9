package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"runnerhub/infra/sandbox"
	"runnerhub/shared/authoring"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/buildlog/files"
	"runnerhub/shared/catalog"
	"runnerhub/shared/ci"
	"runnerhub/shared/connect"
	"runnerhub/shared/consent"
	"runnerhub/shared/control"
	"runnerhub/shared/credential"
	"runnerhub/shared/datafile"
	"runnerhub/shared/fault"
	"runnerhub/shared/grant"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/ingest"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue"
	queuesqlite "runnerhub/shared/queue/sqlite"
	"runnerhub/shared/runner"
	"runnerhub/shared/schedule"
	"runnerhub/shared/secret"
	"runnerhub/shared/signin"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
	tablesqlite "runnerhub/shared/table/sqlite"
	"runnerhub/shared/timekeeper"
	"runnerhub/shared/timetable"
	"runnerhub/shared/timetable/timers"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/keyfile"
)

// options of a bed; the zero value is an installation on loopback, open to anyone.
type options struct {
	public  string // PUBLIC_URL, when it is another than where the server listens
	allowed []string
	scopes  []string // of the OAuth consumer
	one     bool     // builds are not kept apart
	// settling is how long lines may come after a build's end.
	settling time.Duration
}

// bed is an installation over SQLite with a sandbox as its Bitbucket.
type bed struct {
	t         *testing.T
	contract  contract
	address   string // of the server
	public    string
	api       *httpapi.API
	forge     *forge
	sandbox   *sandbox.Sandbox
	table     table.Table
	store     *store.Store
	hooks     *switchedVault
	tokens    *switchedVault
	watch     atomic.Pointer[chan int] // gets the status of each answer to a webhook
	logs      *files.Log
	queue     queue.Queue // of deliveries; nobody consumes it
	timetable *switchedTimetable
	grants    *grant.Keeper
	clock     atomic.Int64 // what the clock is ahead, in nanoseconds
	ids       atomic.Int64
	written   *output // the server's log
}

func (b *bed) now() time.Time { return time.Now().Add(time.Duration(b.clock.Load())) }

func (b *bed) newID() string { return fmt.Sprintf("id%026d", b.ids.Add(1)) }

func newBed(t *testing.T, o options) *bed {
	t.Helper()
	b := &bed{t: t, contract: readContract(t), written: &output{}, forge: &forge{}}
	logger := slog.New(slog.NewTextHandler(b.written, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir := t.TempDir()

	server := httptest.NewUnstartedServer(nil)
	b.address = "http://" + server.Listener.Addr().String()
	b.public = b.address
	if o.public != "" {
		b.public = o.public
	}
	callback := b.public + "/auth/callback"

	forgeServer := httptest.NewUnstartedServer(b.forge)
	b.forge.address = "http://" + forgeServer.Listener.Addr().String()
	var err error
	b.sandbox, err = sandbox.New(sandbox.Deps{
		PublicURL: b.forge.address, ClientID: "client", ClientSecret: "client-secret", CallbackURL: callback, Scopes: o.scopes,
		LoopbackHooks: true, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	b.ok(err)
	t.Cleanup(func() { b.ok(b.sandbox.Close(context.Background())) })
	b.forge.next = b.sandbox
	forgeServer.Start()
	t.Cleanup(forgeServer.Close)

	file, err := datafile.Open(datafile.Deps{Path: filepath.Join(dir, "data.db")})
	b.ok(err)
	t.Cleanup(func() { b.ok(file.Close()) })
	b.table, err = tablesqlite.New(tablesqlite.Deps{File: file, Now: b.now})
	b.ok(err)
	queue, err := queuesqlite.New(queuesqlite.Deps{File: file, Name: "deliveries", Visibility: time.Minute, MaxAttempts: 3, Now: b.now, Log: logger})
	b.ok(err)
	b.queue = queue
	b.store, err = store.New(store.Deps{Table: b.table, Now: b.now, NewID: b.newID})
	b.ok(err)
	hooks, err := keyfile.New(keyfile.Deps{Path: filepath.Join(dir, "key"), Name: "hooks"})
	b.ok(err)
	b.hooks = &switchedVault{Vault: hooks}
	tokens, err := keyfile.New(keyfile.Deps{Path: filepath.Join(dir, "key"), Name: "tokens"})
	b.ok(err)
	b.tokens = &switchedVault{Vault: tokens}
	b.logs, err = files.New(files.Deps{Dir: filepath.Join(dir, "logs")})
	b.ok(err)
	bb, err := bitbucket.New(bitbucket.Deps{
		APIURL: b.forge.address + "/2.0", WebURL: b.forge.address, ClientID: "client", ClientSecret: credential.Fixed(secret.New("client-secret")),
		CallbackURL: callback, HTTP: bitbucket.NewHTTPClient(), Now: b.now,
	})
	b.ok(err)
	b.grants, err = grant.New(grant.Deps{Store: b.store, Vault: b.tokens, Bitbucket: bb, Now: b.now, NewID: b.newID, Log: logger})
	b.ok(err)
	trips, err := consent.New(consent.Deps{Store: b.store, Bitbucket: bb, Now: b.now})
	b.ok(err)
	signIn, err := signin.New(signin.Deps{
		Store: b.store, Bitbucket: bb, Consent: trips, PublicURL: b.public, Allowed: o.allowed, Now: b.now, NewID: b.newID, Log: logger,
	})
	b.ok(err)
	connects, err := connect.New(connect.Deps{
		Store: b.store, Bitbucket: bb, Consent: trips, Grants: b.grants, Hooks: b.hooks, PublicURL: b.public, Now: b.now, Log: logger,
	})
	b.ok(err)
	shows, err := catalog.New(catalog.Deps{
		Store: b.store, Logs: b.logs, Settling: o.settling, Queue: queue, PublicURL: b.public, OneWorkspace: o.one, Now: b.now, NewID: b.newID,
	})
	b.ok(err)
	b.timetable = &switchedTimetable{}
	b.timetable.Timetable, err = timers.New(timers.Deps{Table: b.table, Queue: queue, Now: b.now, Log: logger})
	b.ok(err)
	keeper, err := timekeeper.New(timekeeper.Deps{Store: b.store, Timetable: b.timetable, Now: b.now, NewID: b.newID})
	b.ok(err)
	schedules, err := schedule.New(schedule.Deps{Store: b.store, Timekeeper: keeper, Now: b.now, NewID: b.newID, Log: logger})
	b.ok(err)
	files, err := authoring.New(authoring.Deps{Store: b.store, Offer: pipeline.Offer{Platforms: []string{"linux"}}, Forks: true, Now: b.now})
	b.ok(err)
	takes, err := ingest.New(ingest.Deps{Hooks: b.store, Vault: b.hooks, Queue: queue, Now: b.now})
	b.ok(err)
	orders, err := control.New(control.Deps{Store: b.store, Deliveries: queue, Reports: queue, Now: b.now, Log: logger})
	b.ok(err)
	b.api, err = httpapi.New(httpapi.Deps{
		Groups: []httpapi.Group{
			httpapi.Auth(signIn, connects), httpapi.Repos(connects), httpapi.Apps(shows),
			httpapi.Builds(shows, orders, agents{}, b.forge.address), httpapi.Schedules(schedules), httpapi.Webhook(takes), httpapi.Pipelines(files),
			httpapi.Agents(fstest.MapFS{"linux-arm64.gz": {Data: []byte(packedAgent)}}),
		},
		Callers: signIn, PublicURL: b.public, Now: b.now, NewRef: b.newID, Log: logger,
	})
	b.ok(err)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watch := b.watch.Load()
		if watch == nil || !strings.HasPrefix(r.URL.Path, "/hooks/") {
			b.api.ServeHTTP(w, r)
			return
		}
		seen := httptest.NewRecorder()
		b.api.ServeHTTP(seen, r)
		w.WriteHeader(seen.Code)
		*watch <- seen.Code
	})
	server.Start()
	t.Cleanup(server.Close)
	return b
}

func (b *bed) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// packedAgent is what the installation has for one of the two platforms.
const packedAgent = "\x1f\x8b\x08 an agent\x00\xff"

// agents answers agents by their ticket: only how the answers look is of interest here.
type agents struct{}

func (agents) Claim(_ context.Context, r runner.ClaimRequest) (runner.Claim, error) {
	return runner.Claim{Build: runner.Build{ID: "b1"}}, ticketError(r.Ticket)
}

func (agents) Steps(_ context.Context, r runner.Report) (runner.ReportAnswer, error) {
	if r.Ticket == "panic" {
		panic("a report that panics")
	}
	return runner.ReportAnswer{Stop: true}, ticketError(r.Ticket)
}

func ticketError(ticket string) error {
	switch ticket {
	case "good":
		return nil
	case "claimed":
		return fault.New(fault.Conflict, "another agent has this attempt")
	case "odd":
		return fmt.Errorf("disk on fire at /secret/place")
	default:
		return fault.New(fault.Unauthenticated, "unknown ticket")
	}
}

// switchedVault is a vault that can be switched off, or wait before it seals.
type switchedVault struct {
	vault.Vault
	off    atomic.Bool
	before atomic.Pointer[func(context.Context)]
}

func (v *switchedVault) Sealer(ctx context.Context, b vault.Binding) (vault.Sealer, error) {
	if v.off.Load() {
		return nil, fault.New(fault.Unavailable, "no keys today")
	}
	if before := v.before.Load(); before != nil {
		(*before)(ctx)
	}
	return v.Vault.Sealer(ctx, b)
}

// switchedTimetable is a timetable that can be switched off.
type switchedTimetable struct {
	timetable.Timetable
	off atomic.Bool
}

func (s *switchedTimetable) Put(ctx context.Context, entry timetable.Schedule) error {
	if s.off.Load() {
		return fault.New(fault.Unavailable, "no timetable today")
	}
	return s.Timetable.Put(ctx, entry)
}

// forge passes calls on to the sandbox, and spoils some.
type forge struct {
	address string
	next    http.Handler

	mu sync.Mutex
	// before is asked about each call and may hold it up.
	before func(*http.Request)
	// lose carries a call out and drops its answer.
	lose func(*http.Request) bool
}

func (f *forge) set(before func(*http.Request), lose func(*http.Request) bool) {
	f.mu.Lock()
	f.before, f.lose = before, lose
	f.mu.Unlock()
}

func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	before, lose := f.before, f.lose
	f.mu.Unlock()
	if before != nil {
		before(r)
	}
	if lose != nil && lose(r) {
		f.next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	f.next.ServeHTTP(w, r)
}

// output is a log that can be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// browser keeps cookies and follows no redirects. With a bearer it is a script.
type browser struct {
	bed     *bed
	cookies map[string]string
	bearer  string
	csrf    bool
}

func (b *bed) browser() *browser {
	return &browser{bed: b, cookies: map[string]string{}, csrf: true}
}

func (br *browser) clone() *browser {
	c := *br
	c.cookies = maps.Clone(br.cookies)
	return &c
}

// answer is what a request got.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   string
}

func (br *browser) do(method, path string, body any, header ...string) answer {
	t := br.bed.t
	t.Helper()
	var reader io.Reader
	contentType := ""
	switch v := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(v)
	case url.Values:
		reader, contentType = strings.NewReader(v.Encode()), "application/x-www-form-urlencoded"
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		reader, contentType = bytes.NewReader(raw), "application/json"
	}
	if rest, here := strings.CutPrefix(path, br.bed.public); here {
		path = rest
	}
	req, err := http.NewRequestWithContext(t.Context(), method, br.bed.address+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for name, value := range br.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	if br.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+br.bearer)
	}
	if br.csrf {
		req.Header.Set("X-RunnerHub-CSRF", "1")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	a := send(t, req)
	if err := br.bed.contract.check(method, req.URL.Path, a); err != nil {
		t.Error(err)
	}
	for _, line := range a.header["Set-Cookie"] {
		cookie, err := http.ParseSetCookie(line)
		if err != nil {
			t.Fatal(err)
		}
		if cookie.MaxAge < 0 {
			delete(br.cookies, cookie.Name)
		} else {
			br.cookies[cookie.Name] = cookie.Value
		}
	}
	return a
}

func send(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{t, req.Method + " " + req.URL.Path, resp.StatusCode, resp.Header, string(body)}
}

func (br *browser) get(path string) answer            { return br.do(http.MethodGet, path, nil) }
func (br *browser) post(path string, body any) answer { return br.do(http.MethodPost, path, body) }
func (br *browser) put(path string, body any) answer  { return br.do(http.MethodPut, path, body) }

func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s answered %d, want %d: %.500s", a.what, a.status, status, a.body)
	}
	return a
}

// to is the address of a redirect.
func (a answer) to() string {
	a.t.Helper()
	a.want(http.StatusSeeOther)
	return a.header.Get("Location")
}

func (a answer) says(text string) answer {
	a.t.Helper()
	if !strings.Contains(a.body, text) {
		a.t.Errorf("%s does not say %q: %s", a.what, text, a.body)
	}
	return a
}

// json reads the answer; text reads one member of it.
func (a answer) json() map[string]any {
	a.t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		a.t.Fatalf("%s answered no JSON object: %s", a.what, a.body)
	}
	return v
}

func (a answer) text(member string) string {
	a.t.Helper()
	s, _ := a.json()[member].(string)
	if s == "" {
		a.t.Fatalf("%s answered no %s: %s", a.what, member, a.body)
	}
	return s
}

func (a answer) items() []map[string]any {
	a.t.Helper()
	list, ok := a.json()["items"].([]any)
	if !ok {
		a.t.Fatalf("%s answered no items: %s", a.what, a.body)
	}
	out := make([]map[string]any, 0, len(list))
	for _, item := range list {
		out = append(out, item.(map[string]any))
	}
	return out
}

// consents has a Bitbucket user decide on the consent page; it answers where on our
// server the browser is sent.
func (b *bed) consents(page, name, action string) string {
	b.t.Helper()
	form := url.Values{"user": {name}, "password": {name}, "action": {action}}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, page, strings.NewReader(form.Encode()))
	b.ok(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a := send(b.t, req)
	if a.status != http.StatusFound && a.status != http.StatusSeeOther {
		b.t.Fatalf("the consent page answered %d: %s", a.status, a.body)
	}
	return a.header.Get("Location")
}

// signsIn signs a user of the sandbox in.
func (b *bed) signsIn(name string) *browser {
	b.t.Helper()
	br := b.browser()
	br.get(b.consents(br.get("/auth/login").to(), name, "grant")).to()
	return br
}

func (br *browser) id() string { return br.get("/api/me").want(200).text("id") }

func (br *browser) makes(path, name string) string {
	br.bed.t.Helper()
	return br.post(path, map[string]string{"name": name}).want(201).text("id")
}

// connects has the browser's own account authorise for a workspace.
func (br *browser) connects(workspace, name string) string {
	br.bed.t.Helper()
	page := br.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket", "return": "/w"}).want(201).text("authorize_url")
	if to := br.get(br.bed.consents(page, name, "grant")).to(); to != "/w" {
		br.bed.t.Fatalf("connecting ended on %s", to)
	}
	account := br.bed.account(name)
	items := br.get("/api/workspaces/" + workspace + "/connections").want(200).items()
	for _, c := range items {
		if c["account"] == account {
			return c["id"].(string)
		}
	}
	br.bed.t.Fatalf("no connection of %s: %v", name, items)
	return ""
}

// repositoryNamed finds a repository of acme through a connection.
func (br *browser) repositoryNamed(connection, name string) string {
	br.bed.t.Helper()
	for _, r := range br.get("/api/connections/" + connection + "/repositories?workspace=acme&all=true&q=" + name).want(200).items() {
		if r["full_name"] == "acme/"+name {
			return r["uuid"].(string)
		}
	}
	br.bed.t.Fatalf("no repository %s", name)
	return ""
}

// joins makes a user a member of a workspace. There is no API for it yet.
func (b *bed) joins(user, workspace string, role ci.Role) {
	b.t.Helper()
	body, err := json.Marshal(ci.Member{Workspace: workspace, User: user, Role: role, CreatedAt: b.now()})
	b.ok(err)
	b.ok(b.table.Transact(
		b.t.Context(),
		table.Put(table.Item{Key: table.Key{Partition: "WORKSPACE#" + workspace, Sort: "MEMBER#" + user}, Body: body}, table.Condition{}),
		table.Put(table.Item{Key: table.Key{Partition: "USER#" + user, Sort: "WORKSPACE#" + workspace}, Body: body}, table.Condition{}),
	))
}

// hooksOf lists the webhooks that a repository of acme has on Bitbucket.
func (b *bed) hooksOf(name string) []map[string]any {
	b.t.Helper()
	var out []map[string]any
	for _, h := range b.asAlice(http.MethodGet, "/2.0/repositories/acme/"+name+"/hooks?pagelen=100", nil).want(200).json()["values"].([]any) {
		out = append(out, h.(map[string]any))
	}
	return out
}

// asAlice calls the sandbox's API.
func (b *bed) asAlice(method, path string, body any) answer {
	b.t.Helper()
	return b.as("alice", method, path, body)
}

func (b *bed) as(name, method, path string, body any) answer {
	b.t.Helper()
	raw, err := json.Marshal(body)
	b.ok(err)
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.forge.address+path, bytes.NewReader(raw))
	b.ok(err)
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(name, name)
	return send(b.t, req)
}

// account is the UUID of a user of the sandbox.
func (b *bed) account(name string) string {
	b.t.Helper()
	return b.as(name, http.MethodGet, "/2.0/user", nil).want(200).text("uuid")
}
