package sandbox

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestRule39_HooksNeedAdmin(t *testing.T) {
	t.Parallel()
	b := start(t)
	id := url.PathEscape(b.hook("http://127.0.0.1:9/", "", "repo:push"))
	body := obj{"url": "http://127.0.0.1:9/", "events": []string{"repo:push"}}
	for _, as := range []string{"bob", "carol"} {
		b.get(as, shopAPI+"/hooks").want(http.StatusForbidden)
		b.call(as, http.MethodPost, shopAPI+"/hooks", body).want(http.StatusForbidden)
		b.get(as, shopAPI+"/hooks/"+id).want(http.StatusForbidden)
		b.call(as, http.MethodPut, shopAPI+"/hooks/"+id, body).want(http.StatusForbidden)
		b.call(as, http.MethodDelete, shopAPI+"/hooks/"+id, nil).want(http.StatusForbidden)
	}
	b.call("mallory", http.MethodPost, shopAPI+"/hooks", body).want(http.StatusNotFound)
	access, _ := b.connect("bob")
	b.call("Bearer "+access, http.MethodPost, shopAPI+"/hooks", body).want(http.StatusForbidden)
}

func TestRule40_HookScopes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scopes []string
		event  string
		status int
	}{
		{[]string{"webhook", "repository"}, "repo:push", http.StatusCreated},
		{[]string{"webhook", "repository"}, "pullrequest:created", http.StatusForbidden},
		{[]string{"webhook", "pullrequest"}, "pullrequest:created", http.StatusCreated},
		{[]string{"webhook", "pullrequest"}, "repo:push", http.StatusCreated},
		{[]string{"webhook"}, "repo:push", http.StatusForbidden},
		{[]string{"repository", "pullrequest"}, "repo:push", http.StatusForbidden},
	} {
		b := start(t, func(d *Deps) { d.Scopes = c.scopes })
		access, _ := b.connect("alice")
		b.call("Bearer "+access, http.MethodPost, shopAPI+"/hooks", obj{"url": "http://127.0.0.1:9/", "events": []string{c.event}}).want(c.status)
	}
}

func TestRule41_CreatingTwiceMakesTwo(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	first, second := b.hook(to.URL, "", "repo:push"), b.hook(to.URL, "", "repo:push")
	if first == second {
		t.Fatal("the same hook")
	}
	b.put("main", "a", "a")
	b.settle()
	got := to.all()
	if len(got) != 2 || got[0].header.Get("X-Request-UUID") == got[1].header.Get("X-Request-UUID") {
		t.Errorf("%d deliveries", len(got))
	}
	if n := b.get("alice", shopAPI+"/hooks").want(http.StatusOK).size("values"); n != 2 {
		t.Errorf("%d hooks", n)
	}
}

func TestRule42_HookEvents(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, events := range []any{[]string{"repo:push", "repo:push"}, []string{"repo:pushed"}, []string{"pull_request:created"}, []string{}, nil, "repo:push"} {
		b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{"url": "http://127.0.0.1:9/", "events": events}).want(http.StatusBadRequest, `"type":"error"`)
	}
}

func TestRule43_HookSecrets(t *testing.T) {
	t.Parallel()
	b := start(t)
	secret := strings.Repeat("s", 128)
	id := url.PathEscape(b.hook("http://127.0.0.1:9/", secret, "repo:push"))
	for _, path := range []string{"", "/" + id} {
		a := b.get("alice", shopAPI+"/hooks"+path).want(http.StatusOK, `"secret_set":true`)
		if strings.Contains(string(a.body), secret) {
			t.Errorf("%s", a.body)
		}
	}
	b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{"url": "http://127.0.0.1:9/", "events": []string{"repo:push"}, "secret": secret + "s"}).
		want(http.StatusBadRequest, "secret: Ensure this value has at most 128 characters (it has 129).")
	b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{"url": "http://127.0.0.1:9/", "events": []string{"repo:push"}, "secret": 7}).want(http.StatusBadRequest)
}

func TestRule44_ChangingASecret(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	path := shopAPI + "/hooks/" + url.PathEscape(b.hook(to.URL, "one", "repo:push"))
	for i, c := range []struct {
		change obj
		set    bool
		key    string
	}{
		{obj{"description": "new"}, true, "one"},
		{obj{"secret": "two"}, true, "two"},
		{obj{"secret": nil}, false, ""},
		{obj{"secret": "three"}, true, "three"},
		{obj{"secret": ""}, false, ""},
	} {
		b.call("alice", http.MethodPut, path, c.change).want(http.StatusOK, fmt.Sprintf(`"secret_set":%t`, c.set), `"description":"new"`)
		b.put("main", "file", fmt.Sprint(i))
		in := to.next(t)
		want := ""
		if c.key != "" {
			want = sign(c.key, in.raw)
		}
		if got := in.header.Get("X-Hub-Signature"); got != want {
			t.Errorf("%v: signature %q, want %q", c.change, got, want)
		}
	}
}

func TestRule45_HookAddresses(t *testing.T) {
	t.Parallel()
	open, strict := start(t), start(t, func(d *Deps) { d.LoopbackHooks = false })
	for address, want := range map[string][2]int{
		"https://hooks.example.com/x":  {201, 201},
		"https://203.0.113.9/x":        {201, 201},
		"http://127.0.0.1:8080/x":      {201, 400},
		"http://[::1]:8080/x":          {201, 400},
		"http://169.254.169.254/x":     {400, 400},
		"http://10.1.2.3/x":            {400, 400},
		"https://inside.example.com/x": {400, 400},
		"https://unknown.example.com/": {400, 400},
		"/relative":                    {400, 400},
		"ftp://hooks.example.com/":     {400, 400},
		"https:///x":                   {400, 400},
		"":                             {400, 400},
	} {
		body := obj{"url": address, "events": []string{"repo:push"}}
		open.call("alice", http.MethodPost, shopAPI+"/hooks", body).want(want[0])
		strict.call("alice", http.MethodPost, shopAPI+"/hooks", body).want(want[1])
	}
	// A name that leads inside only later is stopped when the connection is made.
	later := start(t, func(d *Deps) { d.LoopbackHooks = false })
	to := receive(t, nil)
	later.hook("https://hooks.example.com/x", "", "repo:push")
	err := later.store.update(func(tx *tx) error {
		h := *tx.hooks[tx.repositoryAt("acme", "shop").ID][0]
		h.URL = to.URL
		tx.put(&h)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	later.faults(obj{"attempt_delay_ms": 0})
	later.put("main", "a", "a")
	later.settle()
	later.get("", "/_sandbox/deliveries").want(http.StatusOK, `"state":"failed"`, "is an internal address")
	if got := to.all(); len(got) != 0 {
		t.Errorf("%d deliveries to an internal address", len(got))
	}
}

func TestRule46_FiftyHooks(t *testing.T) {
	t.Parallel()
	b := start(t)
	for range 50 {
		b.hook("http://127.0.0.1:9/", "", "repo:push")
	}
	b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{"url": "http://127.0.0.1:9/", "events": []string{"repo:push"}}).want(http.StatusBadRequest, "at most 50")
}

func TestRule47_HookByUUID(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	id := b.hook(to.URL, "", "repo:push")
	if !strings.HasPrefix(id, "{") || !strings.HasSuffix(id, "}") {
		t.Errorf("uuid %s", id)
	}
	path := shopAPI + "/hooks/" + url.PathEscape(id)
	if got := b.get("alice", path).want(http.StatusOK).text("links", "self", "href"); got != b.url+path {
		t.Errorf("self %s", got)
	}
	b.get("alice", shopAPI+"/hooks/"+strings.Trim(id, "{}")).want(http.StatusNotFound)
	b.call("alice", http.MethodDelete, path, nil).want(http.StatusNoContent)
	b.get("alice", path).want(http.StatusNotFound)
	b.call("alice", http.MethodDelete, path, nil).want(http.StatusNotFound)
	b.put("main", "a", "a")
	b.settle()
	if got := to.all(); len(got) != 0 {
		t.Errorf("%d deliveries", len(got))
	}
}

func TestRule48_HookEventList(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.get("", "/2.0/hook_events/repository?pagelen=100").want(http.StatusOK, "repo:push", "pullrequest:fulfilled")
	b.get("", "/2.0/hook_events/user").want(http.StatusNotFound)
}
