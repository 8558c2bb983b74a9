package httpapi_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/sandbox"
	"runnerhub/shared/ci"
	"runnerhub/shared/vault"
)

func TestConnectAndBrowse(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	connection := br.connects(workspace, "alice")

	conn := br.get("/api/connections/" + connection).want(200).json()
	if conn["state"] != "ACTIVE" || conn["provider"] != "bitbucket" || conn["account"] != b.account("alice") {
		t.Errorf("the connection is %v", conn)
	}
	spaces := br.get("/api/connections/" + connection + "/workspaces").want(200).items()
	if len(spaces) != 1 || spaces[0]["slug"] != "acme" {
		t.Fatalf("the Bitbucket workspaces are %v", spaces)
	}
	list := "/api/connections/" + connection + "/repositories?workspace="
	for _, named := range []string{"acme", url.QueryEscape(spaces[0]["uuid"].(string))} {
		if repos := br.get(list + named).want(200).items(); len(repos) != 2 {
			t.Errorf("%s has %v", named, repos)
		}
	}
	if repos := br.get(list + "acme&q=sho").want(200).items(); len(repos) != 1 || repos[0]["full_name"] != "acme/shop" || repos[0]["id"] != repos[0]["uuid"] {
		t.Errorf("the search finds %v", repos)
	}
	for _, bad := range []string{"", "elsewhere", "%7Bnot-a-uuid%7D"} {
		if field := br.get(list + bad).want(400).text("field"); field != "workspace" {
			t.Errorf("%q: the field is %s", bad, field)
		}
	}
	if field := br.get(list + "acme&cursor=%21").want(400).text("field"); field != "cursor" {
		t.Errorf("the field is %s", field)
	}
	if field := br.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "github"}).want(400).text("field"); field != "provider" {
		t.Errorf("the field is %s", field)
	}

	// Authorising again renews the one there is.
	before, err := b.store.Grant(t.Context(), connection)
	b.ok(err)
	if again := br.connects(workspace, "alice"); again != connection {
		t.Errorf("authorising again makes %s beside %s", again, connection)
	}
	after, err := b.store.Grant(t.Context(), connection)
	b.ok(err)
	if items := br.get("/api/workspaces/" + workspace + "/connections").items(); len(items) != 1 {
		t.Errorf("there are %d connections", len(items))
	}
	if string(before.Sealed) == string(after.Sealed) || after.Generation <= before.Generation {
		t.Error("the tokens are the old ones")
	}
	// In another workspace it is another connection.
	if other := br.connects(br.makes("/api/workspaces", "Other"), "alice"); other == connection {
		t.Error("two workspaces share a connection")
	}
}

func TestRenewalMendsAConnection(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	connection := br.connects(workspace, "alice")
	conn, err := b.store.Connection(t.Context(), connection)
	b.ok(err)
	made := conn.CreatedAt
	conn.State, conn.Reason = ci.ConnectionReconnect, "revoked"
	b.ok(b.store.PutConnection(t.Context(), conn, []byte("dead"), b.now(), b.now()))

	b.clock.Store(int64(time.Minute))
	br.connects(workspace, "alice")
	conn, err = b.store.Connection(t.Context(), connection)
	b.ok(err)
	if conn.State != ci.ConnectionActive || conn.Reason != "" || !conn.CreatedAt.Equal(made) {
		t.Errorf("the connection is %+v", conn)
	}
	br.repositoryNamed(connection, "shop")
}

// The address of the consent page can be copied out of the answer as it stands.
func TestAddressesAreNotEscaped(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	a := br.post("/api/workspaces/"+br.makes("/api/workspaces", "Acme")+"/connections", map[string]string{"provider": "bitbucket"}).want(201)
	a.says(`"` + a.text("authorize_url") + `"`)
}

func TestConnectStates(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	begin := func() string {
		return br.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket", "return": "/w?x=1"}).want(201).text("authorize_url")
	}
	none := func(t *testing.T) {
		t.Helper()
		if items := br.get("/api/workspaces/" + workspace + "/connections").want(200).items(); len(items) != 0 {
			t.Errorf("there are connections: %v", items)
		}
	}
	t.Run("refused", func(t *testing.T) {
		if to := br.get(b.consents(begin(), "alice", "deny")).to(); to != "/w?error=access_denied&x=1" {
			t.Errorf("the browser goes to %s", to)
		}
		none(t)
	})
	t.Run("without a sign-in", func(t *testing.T) {
		b.browser().get(b.consents(begin(), "alice", "grant")).want(401).says("Sign in")
		none(t)
	})
	t.Run("of another user", func(t *testing.T) {
		b.signsIn("mallory").get(b.consents(begin(), "mallory", "grant")).want(403)
		none(t)
	})
	t.Run("of another session", func(t *testing.T) {
		b.signsIn("alice").get(b.consents(begin(), "alice", "grant")).want(403)
		none(t)
	})
	t.Run("role lost on the way", func(t *testing.T) {
		back := b.consents(begin(), "alice", "grant")
		b.joins(br.id(), workspace, ci.Editor)
		br.get(back).want(403).says("MEMBER")
		b.joins(br.id(), workspace, ci.Owner)
		none(t)
	})
	t.Run("for something else", func(t *testing.T) {
		u, err := url.Parse(begin())
		b.ok(err)
		br.post("/auth/confirm", url.Values{"ticket": {u.Query().Get("state")}, "answer": {"yes"}}).want(400).says("something else")
		none(t)
	})
	t.Run("expired", func(t *testing.T) {
		back := b.consents(begin(), "alice", "grant")
		b.clock.Store(int64(11 * time.Minute))
		br.get(back).want(400)
		none(t)
	})
	t.Run("replayed", func(t *testing.T) {
		back := b.consents(begin(), "alice", "grant")
		br.get(back).want(303)
		br.get(back).want(400)
	})
	t.Run("begun by a script", func(t *testing.T) {
		script := b.browser()
		script.bearer = br.post("/api/tokens", map[string]string{"name": "script"}).want(201).text("token")
		page := script.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket"}).want(201).text("authorize_url")
		b.signsIn("mallory").get(b.consents(page, "alice", "grant")).want(403)
		page = script.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket"}).want(201).text("authorize_url")
		if to := br.get(b.consents(page, "alice", "grant")).to(); to != "/" {
			t.Errorf("the browser goes to %s", to)
		}
	})
}

func TestMissingScopes(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{scopes: []string{"account", "repository"}})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	page := br.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket"}).want(201).text("authorize_url")
	br.get(b.consents(page, "alice", "grant")).want(403).says("pullrequest, webhook")
	if items := br.get("/api/workspaces/" + workspace + "/connections").items(); len(items) != 0 {
		t.Errorf("there are connections: %v", items)
	}
}

func TestAnotherAccountIsConfirmed(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	ticketIn := regexp.MustCompile(`name="ticket" value="([^"]+)"`)
	ask := func() url.Values {
		page := br.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket", "return": "/w"}).want(201).text("authorize_url")
		a := br.get(b.consents(page, "bob", "grant")).want(200).says("Connect the Bitbucket account Bob Builder?")
		found := ticketIn.FindStringSubmatch(a.body)
		if found == nil {
			t.Fatalf("the page has no ticket: %s", a.body)
		}
		return url.Values{"ticket": {found[1]}, "answer": {"yes"}}
	}
	connections := func() int {
		return len(br.get("/api/workspaces/" + workspace + "/connections").want(200).items())
	}
	plain := br.clone() // a form sends no header
	plain.csrf = false

	form := ask()
	if n := connections(); n != 0 {
		t.Errorf("%d connections before the answer", n)
	}
	b.browser().post("/auth/confirm", form).want(401)
	b.signsIn("mallory").post("/auth/confirm", form).want(403)
	plain.post("/auth/confirm", form).want(400) // that was the one try

	form = ask()
	form.Set("answer", "no")
	if to := plain.post("/auth/confirm", form).to(); to != "/w?error=access_denied" {
		t.Errorf("a no leads to %s", to)
	}
	form.Set("answer", "yes")
	plain.post("/auth/confirm", form).want(400)
	plain.post("/auth/confirm", url.Values{"ticket": {"made up"}, "answer": {"yes"}}).want(400)

	form = ask()
	b.joins(br.id(), workspace, ci.Viewer)
	plain.post("/auth/confirm", form).want(403)
	b.joins(br.id(), workspace, ci.Owner)
	if n := connections(); n != 0 {
		t.Errorf("%d connections without a yes", n)
	}

	if to := plain.post("/auth/confirm", ask()).to(); to != "/w" {
		t.Errorf("a yes leads to %s", to)
	}
	items := br.get("/api/workspaces/" + workspace + "/connections").items()
	if len(items) != 1 || items[0]["nickname"] != "Bob Builder" || items[0]["account"] != b.account("bob") {
		t.Fatalf("the connections are %v", items)
	}
	br.repositoryNamed(items[0]["id"].(string), "shop")
}

// app makes a workspace with a connection of alice and an app.
func (b *bed) app() (br *browser, connection, app string) {
	b.t.Helper()
	br = b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	return br, br.connects(workspace, "alice"), br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
}

func tie(connection, repository string) map[string]string {
	return map[string]string{"connection": connection, "repository": repository}
}

// signed checks that what signs with the hook's secret is accepted, and nothing else.
func (b *bed) signed(app string) {
	b.t.Helper()
	repo, err := b.store.Repository(b.t.Context(), app)
	b.ok(err)
	hook, err := b.store.Hook(b.t.Context(), repo.Hook)
	b.ok(err)
	key, err := b.hooks.Open(b.t.Context(), vault.Binding{Owner: hook.ID, Purpose: "hook-secret"}, hook.Sealed)
	b.ok(err)
	body := `{"push":{}}`
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(body))
	signature := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	post := func(hook, signature string) answer {
		return b.browser().do(http.MethodPost, "/hooks/"+hook, body, "x-event-key", "repo:push", "X-REQUEST-UUID", "r1", "X-Hub-Signature", signature)
	}
	if a := post(hook.ID, signature).want(200); a.body != "{\"accepted\":true}\n" {
		b.t.Errorf("the answer is %s", a.body)
	}
	wrong, unknown := post(hook.ID, "sha256="+strings.Repeat("0", 64)).want(401), post("nosuchhook", signature).want(401)
	if wrong.text("detail") != unknown.text("detail") {
		b.t.Errorf("an unknown hook says %s, a wrong signature %s", unknown.body, wrong.body)
	}
}

func TestPutRepository(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, connection, app := b.app()
	shop, docs := br.repositoryNamed(connection, "shop"), br.repositoryNamed(connection, "docs")
	path := "/api/apps/" + app + "/repository"
	br.get(path).want(404)

	made := br.put(path, tie(connection, shop)).want(201)
	if made.text("uuid") != shop || made.text("full_name") != "acme/shop" || made.text("id") != shop || made.text("main_branch") != "main" {
		t.Errorf("the repository is %s", made.body)
	}
	if got := br.get(path).want(200); got.body != made.body {
		t.Errorf("put %s, got %s", made.body, got.body)
	}
	hooks := b.hooksOf("shop")
	if len(hooks) != 1 || hooks[0]["description"] != "RunnerHub" || hooks[0]["active"] != true || hooks[0]["secret_set"] != true ||
		hooks[0]["uuid"] != made.text("hook_uuid") || !strings.HasPrefix(hooks[0]["url"].(string), b.public+"/hooks/") || len(hooks[0]["events"].([]any)) != 5 {
		t.Errorf("the hooks are %v", hooks)
	}
	b.signed(app)
	if hook := strings.TrimPrefix(hooks[0]["url"].(string), b.public+"/hooks/"); !strings.HasPrefix(hook, "id0") {
		t.Errorf("the address %s is not made of a fresh id, so it may be computed", hook)
	}

	t.Run("repairs", func(t *testing.T) {
		address := hooks[0]["url"]
		id := url.PathEscape(hooks[0]["uuid"].(string))
		b.asAlice(http.MethodPut, "/2.0/repositories/acme/shop/hooks/"+id, map[string]any{
			"description": "switched off", "url": address, "active": false, "events": []string{"repo:push"}, "secret": "",
		}).want(200)
		br.put(path, tie(connection, shop)).want(200)
		if got := b.hooksOf("shop"); len(got) != 1 || got[0]["active"] != true || got[0]["secret_set"] != true || got[0]["url"] != address || len(got[0]["events"].([]any)) != 5 {
			t.Errorf("the hooks are %v", got)
		}
		b.asAlice(http.MethodDelete, "/2.0/repositories/acme/shop/hooks/"+id, nil).want(204)
		again := br.put(path, tie(connection, shop)).want(200)
		if got := b.hooksOf("shop"); len(got) != 1 || got[0]["url"] != address || again.text("hook_uuid") != got[0]["uuid"] {
			t.Errorf("the hooks are %v", got)
		}
		if again.text("connected_at") != made.text("connected_at") {
			t.Error("a repair changes the time of connecting")
		}
		b.signed(app)
	})
	t.Run("leaves others alone, takes dead ones", func(t *testing.T) {
		other := br.makes("/api/workspaces/"+br.get("/api/apps/"+app).text("workspace")+"/apps", "Shop, once more")
		for _, address := range []string{b.public + "/hooks/fromanolddatabase", "http://127.0.0.1:1/hooks/elsewhere"} {
			b.asAlice(http.MethodPost, "/2.0/repositories/acme/shop/hooks", map[string]any{
				"description": "x", "url": address, "active": true, "events": []string{"repo:push"}, "secret": "s",
			}).want(201)
		}
		br.put("/api/apps/"+other+"/repository", tie(connection, shop)).want(201)
		if got := b.hooksOf("shop"); len(got) != 3 { // ours, the other app's, and the stranger's
			t.Errorf("the hooks are %v", got)
		}
		b.signed(app)
		b.signed(other)
	})
	t.Run("another repository", func(t *testing.T) {
		before := len(b.hooksOf("shop"))
		br.put(path, tie(connection, docs)).want(200)
		if got := b.hooksOf("docs"); len(got) != 1 {
			t.Errorf("the hooks of the new one are %v", got)
		}
		if got := b.hooksOf("shop"); len(got) != before-1 {
			t.Errorf("the hooks of the old one are %v", got)
		}
		if !strings.Contains(b.written.String(), "removed the webhook") {
			t.Error("the log does not say that the old hook was removed")
		}
		b.signed(app)
	})
	t.Run("and back", func(t *testing.T) {
		br.put(path, tie(connection, shop)).want(200)
		b.signed(app)
		br.put(path, tie(connection, docs)).want(200)
	})
	t.Run("a webhook that is not removed at once", func(t *testing.T) {
		b.forge.set(func(r *http.Request) {
			if r.Method == http.MethodDelete {
				panic(http.ErrAbortHandler)
			}
		}, nil)
		br.put(path, tie(connection, shop)).want(200)
		b.forge.set(nil, nil)
		if got := b.hooksOf("docs"); len(got) != 1 {
			t.Errorf("Bitbucket failed, and the hooks are %v", got)
		}
		br.put(path, tie(connection, shop)).want(200)
		if got := b.hooksOf("docs"); len(got) != 0 {
			t.Errorf("after tying again, the hooks are %v", got)
		}
		br.put(path, tie(connection, docs)).want(200)
		b.signed(app)
	})
	t.Run("a secret that does not open", func(t *testing.T) {
		repo, err := b.store.Repository(t.Context(), app)
		b.ok(err)
		hook, err := b.store.Hook(t.Context(), repo.Hook)
		b.ok(err)
		hook.Sealed = []byte("sealed with a key that is lost")
		b.ok(b.store.PutHook(t.Context(), hook))
		br.put(path, tie(connection, docs)).want(200)
		b.signed(app)
	})
	t.Run("refusals", func(t *testing.T) {
		elsewhere := br.connects(br.makes("/api/workspaces", "Elsewhere"), "alice")
		for field, body := range map[string]map[string]string{
			"connection": tie(elsewhere, shop),
			"repository": tie(connection, "{00000000-0000-0000-0000-000000000000}"),
		} {
			if got := br.put(path, body).want(404).text("field"); got != field {
				t.Errorf("the field is %s, want %s", got, field)
			}
		}
		br.put(path, tie("", shop)).want(404)
		br.put(path, tie(connection, "acme/shop")).want(400)
		if uuid := br.get(path).text("uuid"); uuid != docs {
			t.Errorf("a refused change leaves %s", uuid)
		}
	})
}

func TestNotAnAdministrator(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("bob")
	workspace := br.makes("/api/workspaces", "Bob's")
	connection := br.connects(workspace, "bob")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	if listed := br.get("/api/connections/" + connection + "/repositories?workspace=acme").want(200).items(); len(listed) != 0 {
		t.Errorf("bob, who administers nothing, is offered %v", listed)
	}
	shop := br.repositoryNamed(connection, "shop")
	br.put("/api/apps/"+app+"/repository", tie(connection, shop)).want(403).says("Bob Builder is no administrator of acme/shop").says("give it admin permission")
	br.get("/api/apps/" + app + "/repository").want(404)
}

func TestOneHookAfterALostAnswer(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, connection, app := b.app()
	shop := br.repositoryNamed(connection, "shop")
	lost := 0
	b.forge.set(nil, func(r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/hooks") {
			return false
		}
		lost++
		return true
	})
	br.put("/api/apps/"+app+"/repository", tie(connection, shop)).want(201)
	if got := b.hooksOf("shop"); len(got) != 1 || lost != 1 {
		t.Errorf("after %d lost answers the hooks are %v", lost, got)
	}
	b.signed(app)

	// So does the answer to a change, and to a removal.
	b.forge.set(nil, func(r *http.Request) bool {
		once := r.Method == http.MethodPut && lost == 1
		if once {
			lost++
		}
		return once
	})
	br.put("/api/apps/"+app+"/repository", tie(connection, shop)).want(200)
	if lost != 2 {
		t.Error("no answer was lost")
	}
	b.signed(app)
}

// meeting answers a function whose callers wait until there are n of them.
func meeting(n int) func(context.Context) {
	var mu sync.Mutex
	here, all := 0, make(chan struct{})
	return func(ctx context.Context) {
		mu.Lock()
		if here++; here == n {
			close(all)
		}
		mu.Unlock()
		select {
		case <-all:
		case <-ctx.Done():
		}
	}
}

// Two that find neither hook nor secret, and make one each, leave one hook, signing with the
// secret that is kept. Which of the two that is differs from round to round.
func TestOneHookAfterTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, connection, app := b.app()
	shop := br.repositoryNamed(connection, "shop")
	workspace := br.get("/api/apps/" + app).text("workspace")
	const rounds, both = 8, 2
	for range rounds {
		app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
		sealing, creating := meeting(both), meeting(both)
		b.hooks.before.Store(&sealing)
		b.forge.set(func(r *http.Request) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/hooks") {
				creating(r.Context()) // each has read a list without the hook
			}
		}, nil)
		statuses := make(chan int, both)
		for range both {
			go func() { statuses <- br.clone().put("/api/apps/"+app+"/repository", tie(connection, shop)).status }()
		}
		for range both {
			if got := <-statuses; got != 200 && got != 201 {
				t.Errorf("one gets %d", got)
			}
		}
	}
	b.forge.set(nil, nil)
	if got := b.hooksOf("shop"); len(got) != rounds {
		t.Fatalf("the hooks are %v", got)
	}

	// Bitbucket has the secrets only from us, and signs with what it has.
	answered := make(chan int, rounds)
	b.watch.Store(&answered)
	_, err := b.sandbox.AddCommit(t.Context(), sandbox.NewCommit{
		Repository: "acme/shop", Branch: "topic", User: "alice", Files: map[string][]byte{"a.txt": []byte("a")},
	})
	b.ok(err)
	for range rounds {
		if got := <-answered; got != 200 {
			t.Errorf("a delivery got %d", got)
		}
	}
}

// Two that tie one app to two repositories leave the hook of the one it is tied to.
func TestOneRepositoryAfterTwoAtOnce(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, connection, app := b.app()
	workspace := br.get("/api/apps/" + app).text("workspace")
	repositories := map[string]string{}
	for _, name := range []string{"shop", "docs"} {
		repositories[br.repositoryNamed(connection, name)] = name
	}
	for range 4 {
		app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
		path := "/api/apps/" + app + "/repository"
		creating := meeting(len(repositories))
		b.forge.set(func(r *http.Request) {
			if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/hooks") {
				creating(r.Context()) // each has read that the app has no repository
			}
		}, nil)
		statuses := make(chan int, len(repositories))
		for uuid := range repositories {
			go func() { statuses <- br.clone().put(path, tie(connection, uuid)).status }()
		}
		created := 0
		for range repositories {
			switch got := <-statuses; got {
			case 201:
				created++
			case 200:
			default:
				t.Errorf("one gets %d", got)
			}
		}
		if created != 1 {
			t.Errorf("%d are the first repository of the app", created)
		}
		b.forge.set(nil, nil)
		tied := repositories[br.get(path).text("uuid")]
		for _, name := range repositories {
			hooks := b.hooksOf(name)
			if name == tied && len(hooks) != 1 || name != tied && len(hooks) != 0 {
				t.Errorf("the app is tied to %s, and the hooks of %s are %v", tied, name, hooks)
			}
		}
		b.signed(app)
		// The next round begins without hooks.
		for _, h := range b.hooksOf(tied) {
			b.asAlice(http.MethodDelete, "/2.0/repositories/acme/"+tied+"/hooks/"+url.PathEscape(h["uuid"].(string)), nil).want(204)
		}
	}
}

func TestTroubleAtBitbucket(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, connection, app := b.app()
	shop := br.repositoryNamed(connection, "shop")
	list := "/api/connections/" + connection + "/workspaces"
	path := "/api/apps/" + app + "/repository"
	if state := br.put(path, tie(connection, shop)).want(201).text("state"); state != "ACTIVE" {
		t.Errorf("the repository's connection is %s", state)
	}
	fault := func(name string) {
		b.asAlice(http.MethodPut, "/_sandbox/faults", map[string]bool{name: true}).want(200)
	}
	fault("rate_limited")
	for _, a := range []answer{br.get(list), br.put("/api/apps/"+app+"/repository", tie(connection, shop))} {
		if a.want(429).header.Get("Retry-After") == "" {
			t.Errorf("%s does not say when to come again", a.what)
		}
	}
	fault("down")
	br.get(list).want(503)
	tab := b.browser()
	tab.get(b.consents(tab.get("/auth/login").to(), "alice", "grant")).want(503).says("Reference")
	tab.get("/api/me").want(401)

	// Refused once, a grant is only perhaps revoked; after the third time it is.
	fault("revoked")
	if br.get(list).want(503).header.Get("Retry-After") == "" {
		t.Error("a grant that is perhaps revoked may be tried again at once")
	}
	for range 2 {
		b.clock.Add(int64(2 * time.Minute))
		br.get(list)
	}
	br.get(list).want(409).says("authorised again")
	if conn := br.get("/api/connections/" + connection).want(200); conn.text("state") != "RECONNECT" || conn.text("reason") == "" {
		t.Errorf("the connection is %s", conn.body)
	}
	if repo := br.get(path).want(200); repo.text("state") != "RECONNECT" || repo.text("reason") == "" {
		t.Errorf("the repository is %s", repo.body)
	}
}

// When nothing can be sealed, Bitbucket is not asked for anything.
func TestNothingIsObtainedThatCannotBeSealed(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, connection, app := b.app()
	shop := br.repositoryNamed(connection, "shop")
	b.hooks.off.Store(true)
	br.put("/api/apps/"+app+"/repository", tie(connection, shop)).want(503)
	if got := b.hooksOf("shop"); len(got) != 0 {
		t.Errorf("the hooks are %v", got)
	}
	b.tokens.off.Store(true)
	workspace := br.get("/api/apps/" + app).text("workspace")
	page := br.post("/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket"}).text("authorize_url")
	exchanged := false
	b.forge.set(func(r *http.Request) { exchanged = exchanged || strings.HasSuffix(r.URL.Path, "/access_token") }, nil)
	br.get(b.consents(page, "alice", "grant")).want(503)
	if exchanged {
		t.Error("the code was exchanged")
	}
}
