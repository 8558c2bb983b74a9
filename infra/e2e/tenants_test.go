package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"runnerhub/infra/visitor"
)

// tenants asks for alice's things as bob, who is no member, as nobody, and as a script
// of alice's.
func tenants(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	b := s.pushSteps("echo private")
	s.ended(b.ID, "SUCCESSFUL")
	var app struct{ Workspace string }
	s.must(s.Call(t.Context(), http.MethodGet, "/api/apps/"+s.app, nil, &app))
	var connections visitor.List[visitor.Object]
	s.must(s.Call(t.Context(), http.MethodGet, "/api/workspaces/"+app.Workspace+"/connections", nil, &connections))
	connection := connections.Items[0].ID

	bob, nobody := s.person(s.Hub, s.Forge, "bob"), s.person(s.Hub, s.Forge, "nobody")
	s.must(bob.SignIn(t.Context()))
	named := map[string]string{"name": "Mine"}
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{http.MethodGet, "/api/workspaces/" + app.Workspace, nil},
		{http.MethodGet, "/api/workspaces/" + app.Workspace + "/apps", nil},
		{http.MethodPost, "/api/workspaces/" + app.Workspace + "/apps", named},
		{http.MethodGet, "/api/workspaces/" + app.Workspace + "/connections", nil},
		{http.MethodPost, "/api/workspaces/" + app.Workspace + "/connections", map[string]string{"provider": "bitbucket"}},
		{http.MethodGet, "/api/connections/" + connection, nil},
		{http.MethodGet, "/api/connections/" + connection + "/workspaces", nil},
		{http.MethodGet, "/api/connections/" + connection + "/repositories?workspace=acme", nil},
		{http.MethodGet, "/api/apps/" + s.app, nil},
		{http.MethodGet, "/api/apps/" + s.app + "/repository", nil},
		{http.MethodPut, "/api/apps/" + s.app + "/repository", map[string]string{"connection": connection, "repository": "{00000000-0000-0000-0000-000000000000}"}},
		{http.MethodGet, "/api/apps/" + s.app + "/deliveries", nil},
		{http.MethodGet, "/api/apps/" + s.app + "/builds", nil},
		{http.MethodGet, "/api/builds/" + b.ID, nil},
		{http.MethodGet, "/api/builds/" + b.ID + "/log", nil},
		{http.MethodGet, "/builds/" + b.ID, nil},
	} {
		s.refused(bob.Call(t.Context(), c.method, c.path, c.body, nil), http.StatusNotFound, "bob, "+c.method+" "+c.path)
		s.refused(nobody.Call(t.Context(), c.method, c.path, c.body, nil), http.StatusUnauthorized, "nobody, "+c.method+" "+c.path)
	}
	// His own workspace does not help him to her connection.
	workspace, err := bob.Workspace(t.Context(), "Bob's")
	s.must(err)
	his, err := bob.App(t.Context(), workspace, "Shop")
	s.must(err)
	repository, err := s.Pick(t.Context(), connection, shop)
	s.must(err)
	s.refused(bob.Tie(t.Context(), his, connection, repository.UUID), http.StatusNotFound, "bob's app with alice's connection")
	var list visitor.List[visitor.Object]
	s.must(bob.Call(t.Context(), http.MethodGet, "/api/workspaces", nil, &list))
	if len(list.Items) != 1 || list.Items[0].ID != workspace {
		t.Errorf("bob's workspaces are %+v", list.Items)
	}

	var token struct{ ID, Token string }
	s.must(s.Call(t.Context(), http.MethodPost, "/api/tokens", map[string]string{"name": "script"}, &token))
	script := s.person(s.Hub, s.Forge, "script")
	script.Token = token.Token
	got, err := script.Build(t.Context(), b.ID)
	if err != nil || got.ID != b.ID {
		t.Errorf("alice's token reads %+v, %v", got, err)
	}
	s.must(s.Call(t.Context(), http.MethodDelete, "/api/tokens/"+token.ID, nil, nil))
	_, err = script.Build(t.Context(), b.ID)
	s.refused(err, http.StatusUnauthorized, "a deleted token")

	status, _, err := s.Send(s.request(http.MethodPost, s.Hub+"/api/workspaces", []byte(`{"name": "From another site"}`), nil))
	if err != nil || status != http.StatusForbidden {
		t.Errorf("a session without the CSRF header got %d, %v; expected 403", status, err)
	}
}

// request makes a request with a JSON body.
func (s *site) request(method, address string, body []byte, header http.Header) *http.Request {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, address, bytes.NewReader(body))
	s.must(err)
	req.Header.Set("Content-Type", "application/json")
	for name, values := range header {
		req.Header[name] = values
	}
	return req
}

// webhooks sends requests that are not from Bitbucket, or say too much.
func webhooks(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	var hooks struct {
		Values []struct{ URL string }
	}
	s.must(s.Ask(t.Context(), http.MethodGet, "/repositories/"+shop+"/hooks", nil, &hooks))
	if len(hooks.Values) != 1 || !strings.HasPrefix(hooks.Values[0].URL, s.Hub+"/hooks/") {
		t.Fatalf("the hooks are %+v", hooks.Values)
	}
	known := hooks.Values[0].URL
	unknown, err := url.JoinPath(s.Hub, "hooks", strings.Repeat("0", 32))
	s.must(err)
	signed := "sha256=" + strings.Repeat("0", 64)
	send := func(address, event, signature string, body []byte) (int, string) {
		t.Helper()
		header := http.Header{"X-Event-Key": {event}, "X-Request-Uuid": {"1"}}
		if signature != "" {
			header.Set("X-Hub-Signature", signature)
		}
		resp, err := http.DefaultClient.Do(s.request(http.MethodPost, address, body, header))
		s.must(err)
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		s.must(err)
		before, _, _ := strings.Cut(string(text), `"ref"`) // which is another one each time
		return resp.StatusCode, before
	}
	status, said := send(known, "repo:push", signed, []byte("{}"))
	if status != http.StatusUnauthorized {
		t.Errorf("a wrong signature got %d %s", status, said)
	}
	for what, c := range map[string]struct{ address, signature string }{
		"unknown hook": {unknown, signed}, "unknown hook, no signature": {unknown, ""}, "no signature": {known, ""},
		"no such scheme": {known, "md5=" + strings.Repeat("0", 32)},
	} {
		if got, text := send(c.address, "repo:push", c.signature, []byte("{}")); got != status || text != said {
			t.Errorf("%s got %d %s; a wrong signature got %d %s", what, got, text, status, said)
		}
	}
	if got, text := send(known, "repo:push", signed, make([]byte, 513<<10)); got != http.StatusRequestEntityTooLarge {
		t.Errorf("a body over the limit got %d %s", got, text)
	}
	for _, address := range []string{known, unknown} {
		if got, text := send(address, "diagnostics:ping", "", []byte(`{"test": true}`)); got != http.StatusOK {
			t.Errorf("a ping got %d %s", got, text)
		}
	}
	if all, err := s.Deliveries(t.Context(), s.app); err != nil || len(all) > 0 {
		t.Errorf("the deliveries are %+v, %v; none was Bitbucket's", all, err)
	}
}
