package bitbucket_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := (&forge{Server: &httptest.Server{URL: "http://127.0.0.1:7990"}}).deps
	if _, err := bitbucket.New(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*bitbucket.Deps){
		"no API":                func(d *bitbucket.Deps) { d.APIURL = "" },
		"no web":                func(d *bitbucket.Deps) { d.WebURL = "" },
		"API in the clear":      func(d *bitbucket.Deps) { d.APIURL = "http://api.example.com/2.0" },
		"web in the clear":      func(d *bitbucket.Deps) { d.WebURL = "http://10.0.0.1" },
		"loopback in name only": func(d *bitbucket.Deps) { d.APIURL = "http://127.0.0.1.example.com" },
		"another scheme":        func(d *bitbucket.Deps) { d.APIURL = "ftp://127.0.0.1" },
		"user in the address":   func(d *bitbucket.Deps) { d.APIURL = "https://u:p@example.com" },
		"query in the address":  func(d *bitbucket.Deps) { d.APIURL = "https://example.com?x=1" },
		"no client id":          func(d *bitbucket.Deps) { d.ClientID = "" },
		"no client secret":      func(d *bitbucket.Deps) { d.ClientSecret = nil },
		"no callback":           func(d *bitbucket.Deps) { d.CallbackURL = "" },
		"relative callback":     func(d *bitbucket.Deps) { d.CallbackURL = "/auth/callback" },
		"no HTTP":               func(d *bitbucket.Deps) { d.HTTP = nil },
		"no clock":              func(d *bitbucket.Deps) { d.Now = nil },
		"negative timeout":      func(d *bitbucket.Deps) { d.Timeout = -1 },
	} {
		d := good()
		spoil(&d)
		if _, err := bitbucket.New(d); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestCalls holds what each call looks like on the wire and what it makes of the
// answer.
// Lambda freezes a process between its calls, and wakes it when the other end has long closed what was kept.
func TestConnectionsAreNotKeptForLong(t *testing.T) {
	t.Parallel()
	transport, ok := bitbucket.NewHTTPClient().Transport.(*http.Transport)
	if !ok || transport.IdleConnTimeout == 0 || transport.IdleConnTimeout > 30*time.Second {
		t.Errorf("they are kept for %v", transport.IdleConnTimeout)
	}
}

func TestCalls(t *testing.T) {
	t.Parallel()
	status := bitbucket.Status{
		Key: "runnerhub-3f2a9c", State: ci.StatusFailed, URL: "https://ci.example.com/builds/{b7}",
		Name: strings.Repeat("ß", 300), Description: "done", Refname: "main",
	}
	events := bitbucket.HookEvents()
	hook := bitbucket.Hook{
		UUID: hookUUID, Description: "RunnerHub", URL: "https://ci.example.com/hooks/5f1d7a84c1b24be1a4e6f3d2c0b19e77", Active: true, Events: events,
	}
	withSecret, saved := hook, hook
	withSecret.Secret = secret.New("s3cret")
	saved.SecretSet = true
	repo := bitbucket.Repository{
		UUID: shop, FullName: "acme/shop", Name: "Shop", MainBranch: "main", Private: true,
		CloneURL: "/acme/shop.git", WorkspaceUUID: acme,
	}
	pr := ci.PullRequest{
		ID: 42, Title: "Empty the basket after checkout", Open: true,
		SourceBranch: "feature/basket", SourceHash: "8d903c6707d0", SourceRepository: shop, SourceFullName: "acme/shop",
		TargetBranch: "main", TargetHash: "dfbccd9f778e", TargetRepository: shop, Author: "Alice Árvai",
		UpdatedAt: time.Date(2026, 10, 12, 9, 41, 7, 654321000, time.UTC),
	}
	type result = any
	for name, c := range map[string]struct {
		answer      string // a fixture, or a literal body
		status      int
		call        func(context.Context, *bitbucket.Client) (result, error)
		method, uri string
		body        string
		want        result
	}{
		"User": {
			answer: "api/user.json", method: "GET", uri: "/2.0/user",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) { return c.User(ctx) },
			want: bitbucket.Account{UUID: alice, AccountID: "712020:c2ef90b9-02bc-5d53-93cd-92652b6e1b41", Nickname: "alice", Name: "Alice Árvai"},
		},
		"Workspaces": {
			answer: "api/user_workspaces.json", method: "GET", uri: "/2.0/user/workspaces?pagelen=100",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				p, err := c.Workspaces(ctx, "")
				return p.Items[0], err
			},
			want: bitbucket.Workspace{UUID: acme, Slug: "acme", Administrator: true},
		},
		"Repositories": {
			answer: "api/repositories.json", method: "GET",
			uri: "/2.0/repositories/%7B0ec74f05-6b0b-5826-b5c6-c9b0374656d6%7D?fields=next%2Cvalues.uuid%2Cvalues.full_name%2Cvalues.name%2Cvalues.is_private%2Cvalues.mainbranch.name%2Cvalues.workspace.uuid&pagelen=100&q=name+~+%22sh%5C%22%5C%5Cop%22&role=admin&sort=-updated_on",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				p, err := c.Repositories(ctx, acme, `sh"\op`, "", true)
				if len(p.Items) != 2 || p.Items[1].MainBranch != "" || p.Cursor != "" {
					return p, err
				}
				return p.Items[0], err
			},
			want: repo,
		},
		"Repository": {
			answer: "api/repository.json", method: "GET", uri: shopPath + "?fields=uuid%2Cfull_name%2Cname%2Cis_private%2Cmainbranch.name%2Cworkspace.uuid",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) { return c.Repository(ctx, shop) },
			want: repo,
		},
		"Branch": {
			answer: "api/branch.json", method: "GET", uri: shopPath + "/refs/branches/feature%2Fbasket",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				return c.Branch(ctx, shop, "feature/basket")
			},
			want: "8d903c6707d0cf8864bb1df223e4162651d93d2a",
		},
		"Branch with odd characters": {
			answer: "api/branch.json", method: "GET", uri: shopPath + "/refs/branches/100%25%3F%23%7B%C3%BC%7D",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				return c.Branch(ctx, shop, "100%?#{ü}")
			},
			want: "8d903c6707d0cf8864bb1df223e4162651d93d2a",
		},
		"Tag": {
			answer: "api/tag.json", method: "GET", uri: shopPath + "/refs/tags/v1.4.1",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) { return c.Tag(ctx, shop, "v1.4.1") },
			want: head,
		},
		"Commit by short hash": {
			answer: "api/commit.json", method: "GET", uri: shopPath + "/commit/dfbccd9f778e",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) { return c.Commit(ctx, shop, head[:12]) },
			want: bitbucket.Commit{Hash: head, Message: "Round prices to cents", Author: "Bob Okoro", Date: time.Date(2026, 10, 12, 8, 15, 30, 0, time.UTC)},
		},
		"Source": {
			answer: "name: shop\n", method: "GET", uri: shopPath + "/src/" + head + "/.runnerhub/a%20b%3F.yml",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				data, err := c.Source(ctx, shop, head, ".runnerhub/a b?.yml", 11)
				return string(data), err
			},
			want: "name: shop\n",
		},
		"Changes": {
			answer: `{"values": [{"old": {"path": "a"}, "new": {"path": "b"}}, {"old": null, "new": {"path": "c"}}, {"old": {"path": "d"}, "new": {"path": "d"}}]}`, method: "GET",
			uri: shopPath + "/diffstat/" + head + "..8d903c6707d0?fields=next%2Cvalues.old.path%2Cvalues.new.path&pagelen=100&topic=false",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				changes, err := c.Changes(ctx, shop, "8d903c6707d0", head, false)
				return fmt.Sprint(changes), err
			},
			want: "{[a b c d] false}",
		},
		"OpenPullRequests": {
			answer: "api/pullrequests.json", method: "GET",
			uri: shopPath + "/pullrequests?fields=next%2Cvalues.id%2Cvalues.title%2Cvalues.state%2Cvalues.updated_on%2Cvalues.author.display_name%2Cvalues.author.nickname%2Cvalues.source.branch.name%2Cvalues.source.commit.hash%2Cvalues.source.repository.uuid%2Cvalues.source.repository.full_name%2Cvalues.destination.branch.name%2Cvalues.destination.commit.hash%2Cvalues.destination.repository.uuid&pagelen=50&q=source.branch.name%3D%22feature%2Fbasket%22&state=OPEN",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				prs, err := c.OpenPullRequests(ctx, shop, "feature/basket")
				if len(prs) != 2 || prs[0].Fork() || !prs[1].Fork() {
					return prs, err
				}
				return prs[0], err
			},
			want: pr,
		},
		"Heads": {
			answer: `{"values": [{"id": 42, "updated_on": "2026-10-12T09:41:07.654321+00:00", "source": {"commit": {"hash": "8d903c6707d0"}}, "destination": {"branch": {"name": "main"}}},
				{"id": 41, "updated_on": "2026-10-12T09:41:07.654321+00:00", "source": {"commit": null}, "destination": {"branch": {"name": "main"}}},
				{"id": 40, "source": {"commit": {"hash": "8d903c6707d0"}}, "destination": {"branch": {"name": "main"}}},
				{"id": 39, "updated_on": "2026-10-12T09:41:07.654321+00:00", "source": {"commit": {"hash": "8d903c6707d0"}}, "destination": {"branch": {"name": ""}}}]}`,
			method: "GET",
			uri:    shopPath + "/pullrequests?fields=next%2Cvalues.id%2Cvalues.updated_on%2Cvalues.source.commit.hash%2Cvalues.destination.branch.name&pagelen=50&sort=-updated_on&state=OPEN",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				page, err := c.Heads(ctx, shop, "")
				if len(page.Items) != 1 || page.Cursor != "" {
					return page, err
				}
				return page.Items[0], err
			},
			want: bitbucket.Head{ID: 42, Source: "8d903c6707d0", Target: "main", UpdatedAt: pr.UpdatedAt},
		},
		"PullRequest": {
			answer: "api/pullrequest.json", method: "GET", uri: shopPath + "/pullrequests/42",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) { return c.PullRequest(ctx, shop, 42) },
			want: pr,
		},
		"ListHooks": {
			answer: "api/hooks.json", method: "GET", uri: shopPath + "/hooks?pagelen=100",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				hooks, err := c.ListHooks(ctx, shop)
				if len(hooks) != 2 || hooks[1].SecretSet {
					return hooks, err
				}
				return hooks[0], err
			},
			want: saved,
		},
		"CreateHook": {
			answer: "api/hook.json", status: 201, method: "POST", uri: shopPath + "/hooks",
			body: `{"description":"RunnerHub","url":"https://ci.example.com/hooks/5f1d7a84c1b24be1a4e6f3d2c0b19e77","active":true,"events":["repo:push","pullrequest:created","pullrequest:updated","pullrequest:fulfilled","pullrequest:rejected"],"secret":"s3cret"}`,
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				return c.CreateHook(ctx, shop, withSecret)
			},
			want: saved,
		},
		"UpdateHook keeps the secret": {
			answer: "api/hook.json", method: "PUT", uri: shopPath + "/hooks/%7Bf00f3848-55e9-570d-a0fb-f82712d57359%7D",
			body: `{"description":"RunnerHub","url":"https://ci.example.com/hooks/5f1d7a84c1b24be1a4e6f3d2c0b19e77","active":true,"events":["repo:push","pullrequest:created","pullrequest:updated","pullrequest:fulfilled","pullrequest:rejected"]}`,
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) { return c.UpdateHook(ctx, shop, hook) },
			want: saved,
		},
		"DeleteHook": {
			status: 204, method: "DELETE", uri: shopPath + "/hooks/%7Bf00f3848-55e9-570d-a0fb-f82712d57359%7D",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				return nil, c.DeleteHook(ctx, shop, hookUUID)
			},
		},
		"PostStatus": {
			answer: "api/status.json", status: 201, method: "POST", uri: shopPath + "/commit/" + head + "/statuses/build",
			body: `{"key":"runnerhub-3f2a9c","state":"FAILED","url":"https://ci.example.com/builds/%7Bb7%7D","name":"` + strings.Repeat("ß", 255) + `","description":"done","refname":"main"}`,
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				return nil, c.PostStatus(ctx, shop, head, status)
			},
		},
		"ReadStatus": {
			answer: "api/status.json", method: "GET", uri: shopPath + "/commit/" + head + "/statuses/build/runnerhub-3f2a9c",
			call: func(ctx context.Context, c *bitbucket.Client) (result, error) {
				return c.ReadStatus(ctx, shop, head, "runnerhub-3f2a9c")
			},
			want: bitbucket.Status{Key: "runnerhub-3f2a9c", State: ci.StatusFailed, URL: "https://ci.example.com/builds/b7", Name: "shop · #7", Description: `Step "test" failed.`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := c.answer
			if strings.HasPrefix(answer, "api/") {
				answer = string(fixture(t, answer))
			}
			if c.status == 0 {
				c.status = http.StatusOK
			}
			f := newForge(t, says(c.status, "application/json; charset=utf-8", answer))
			got, err := c.call(t.Context(), f.client(t))
			if err != nil {
				t.Fatal(err)
			}
			if r, ok := got.(bitbucket.Repository); ok {
				r.CloneURL = strings.TrimPrefix(r.CloneURL, f.URL)
				got = r
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			contentType := ""
			if c.body != "" {
				contentType = "application/json"
			}
			want := []seen{{c.method, c.uri, "Bearer " + goodToken, contentType, c.body}}
			if r := f.requests(); !reflect.DeepEqual(r, want) {
				t.Errorf("sent %+v\nwant %+v", r, want)
			}
		})
	}
}

// TestArguments holds what is refused before anything is sent.
func TestArguments(t *testing.T) {
	t.Parallel()
	f := newForge(t, says(200, "application/json", `{}`))
	c, ctx := f.client(t), t.Context()
	good := bitbucket.Status{Key: "k", State: ci.StatusFailed, URL: "https://ci.example.com"}
	post := func(change func(*bitbucket.Status)) error {
		s := good
		change(&s)
		return c.PostStatus(ctx, shop, head, s)
	}
	source := func(path string) error { _, err := c.Source(ctx, shop, head, path, 0); return err }
	two := func(_ any, err error) error { return err }
	for name, c := range map[string]struct {
		err   error
		field string
	}{
		"repository by name":     {two(c.Repository(ctx, "acme/shop")), "repository"},
		"repository by path":     {two(c.Repository(ctx, "{e959ee76-68fd-5175-9ec1-b42f84a2ce0b}/hooks")), "repository"},
		"workspace by slug":      {two(c.Repositories(ctx, "acme", "", "", false)), "workspace"},
		"empty branch":           {two(c.Branch(ctx, shop, "")), "name"},
		"branch of dots":         {two(c.Branch(ctx, shop, "..")), "name"},
		"tag with a line":        {two(c.Tag(ctx, shop, "a\nb")), "name"},
		"commit by branch":       {two(c.Commit(ctx, shop, "main")), "commit"},
		"commit of 6":            {two(c.Commit(ctx, shop, head[:6])), "commit"},
		"source at a short hash": {two(c.Source(ctx, shop, head[:12], "a", 0)), "commit"},
		"source upwards":         {source("a/../../b"), "path"},
		"source absolute":        {source("/etc/passwd"), "path"},
		"source of a folder":     {source("a/"), "path"},
		"source of nothing":      {source(""), "path"},
		"source, long path":      {source(strings.Repeat("a", 1025)), "path"},
		"pull requests, branch":  {two(c.OpenPullRequests(ctx, shop, "")), "branch"},
		"pull request 0":         {two(c.PullRequest(ctx, shop, 0)), "id"},
		"hook without secret":    {two(c.CreateHook(ctx, shop, bitbucket.Hook{})), "secret"},
		"hook with long secret":  {two(c.CreateHook(ctx, shop, bitbucket.Hook{Secret: secret.New(strings.Repeat("x", 129))})), "secret"},
		"hook without uuid":      {two(c.UpdateHook(ctx, shop, bitbucket.Hook{})), "hook"},
		"delete without uuid":    {c.DeleteHook(ctx, shop, ""), "hook"},
		"status, short commit":   {c.PostStatus(ctx, shop, head[:12], good), "commit"},
		"status, key of 41":      {post(func(s *bitbucket.Status) { s.Key = strings.Repeat("k", 41) }), "key"},
		"status, no key":         {post(func(s *bitbucket.Status) { s.Key = "" }), "key"},
		"status, state":          {post(func(s *bitbucket.Status) { s.State = "PENDING" }), "state"},
		"status, relative url":   {post(func(s *bitbucket.Status) { s.URL = "/builds/7" }), "url"},
		"status, script url":     {post(func(s *bitbucket.Status) { s.URL = "javascript://x/" }), "url"},
		"read status, key":       {two(c.ReadStatus(ctx, shop, head, "")), "key"},
		"cursor, no base64":      {two(c.Workspaces(ctx, "page=2")), "cursor"},
		"cursor, empty inside":   {two(c.Workspaces(ctx, base64.RawURLEncoding.EncodeToString([]byte("&")))), "cursor"},
		"cursor, long":           {two(c.Workspaces(ctx, strings.Repeat("A", 4096))), "cursor"},
	} {
		if _, field := fault.Public(c.err); !fault.Is(c.err, fault.Invalid) || field != c.field {
			t.Errorf("%s: field %q of %v, want %q", name, field, c.err, c.field)
		}
	}
	const name = "acme/shop"
	for call, err := range map[string]error{
		"Branch":           two(c.Branch(ctx, name, "main")),
		"Commit":           two(c.Commit(ctx, name, head)),
		"Source":           two(c.Source(ctx, name, head, "a", 0)),
		"OpenPullRequests": two(c.OpenPullRequests(ctx, name, "main")),
		"PullRequest":      two(c.PullRequest(ctx, name, 1)),
		"Heads":            two(c.Heads(ctx, name, "")),
		"ListHooks":        two(c.ListHooks(ctx, name)),
		"CreateHook":       two(c.CreateHook(ctx, name, bitbucket.Hook{Secret: secret.New("s")})),
		"DeleteHook":       c.DeleteHook(ctx, name, hookUUID),
		"PostStatus":       c.PostStatus(ctx, name, head, good),
		"ReadStatus":       two(c.ReadStatus(ctx, name, head, "k")),
	} {
		if _, field := fault.Public(err); field != "repository" {
			t.Errorf("%s with a repository by name: %v", call, err)
		}
	}
	if r := f.requests(); len(r) != 0 {
		t.Errorf("sent %+v", r)
	}
}

// TestStrangeAnswers has a Bitbucket that answers something else than asked.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	pr := strings.Replace(string(fixture(t, "api/pullrequest.json")), `"hash": "8d903c6707d0"`, `"hash": "main"`, 1)
	for name, c := range map[string]struct {
		answer string
		call   func(context.Context, *bitbucket.Client) (any, error)
	}{
		"a branch without hash":  {`{"target":{"hash":"dfbccd9f778e"}}`, func(ctx context.Context, c *bitbucket.Client) (any, error) { return c.Branch(ctx, shop, "main") }},
		"another commit":         {string(fixture(t, "api/commit.json")), func(ctx context.Context, c *bitbucket.Client) (any, error) { return c.Commit(ctx, shop, "0123456") }},
		"another status":         {string(fixture(t, "api/status.json")), func(ctx context.Context, c *bitbucket.Client) (any, error) { return c.ReadStatus(ctx, shop, head, "k") }},
		"a pull request":         {pr, func(ctx context.Context, c *bitbucket.Client) (any, error) { return c.PullRequest(ctx, shop, 42) }},
		"a repository elsewhere": {`{"uuid":"` + shop + `","full_name":"acme/shop@evil.example"}`, func(ctx context.Context, c *bitbucket.Client) (any, error) { return c.Repository(ctx, shop) }},
		"a hook without uuid":    {`{"values":[{}]}`, func(ctx context.Context, c *bitbucket.Client) (any, error) { return c.ListHooks(ctx, shop) }},
		"a workspace without":    {`{"values":[{}]}`, func(ctx context.Context, c *bitbucket.Client) (any, error) { return c.Workspaces(ctx, "") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForge(t, says(200, "application/json", c.answer))
			if got, err := c.call(t.Context(), f.client(t)); !fault.Is(err, fault.Unavailable) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestStatusCodes is the whole table of what an answer means, for a read and for
// each kind of write.
func TestStatusCodes(t *testing.T) {
	t.Parallel()
	table := []struct {
		status      int
		read, write fault.Kind
	}{
		{301, fault.Invalid, fault.Invalid}, // without a Location
		{304, fault.Invalid, fault.Invalid},
		{400, fault.Invalid, fault.Invalid},
		{401, fault.Revoked, fault.Revoked},
		{402, fault.Invalid, fault.Invalid},
		{403, fault.Forbidden, fault.Forbidden},
		{404, fault.NotFound, fault.NotFound},
		{405, fault.Invalid, fault.Invalid},
		{408, fault.Unavailable, fault.Unavailable},
		{409, fault.Conflict, fault.Conflict},
		{410, fault.Gone, fault.Gone},
		{413, fault.TooLarge, fault.TooLarge},
		{422, fault.Invalid, fault.Invalid},
		{429, fault.RateLimited, fault.RateLimited},
		{500, fault.Unavailable, fault.Unavailable},
		{502, fault.Unavailable, fault.Unknown},
		{503, fault.Unavailable, fault.Unavailable},
		{504, fault.Unavailable, fault.Unknown},
		{555, fault.Unavailable, fault.Unavailable},
	}
	calls := map[string]func(context.Context, *bitbucket.Client) error{
		"GET": func(ctx context.Context, c *bitbucket.Client) error {
			_, err := c.ReadStatus(ctx, shop, head, "k")
			return err
		},
		"GET raw": func(ctx context.Context, c *bitbucket.Client) error {
			_, err := c.Source(ctx, shop, head, "a", 10)
			return err
		},
		"POST": func(ctx context.Context, c *bitbucket.Client) error {
			return c.PostStatus(ctx, shop, head, bitbucket.Status{Key: "k", State: ci.StatusFailed, URL: "https://ci.example.com"})
		},
		"PUT": func(ctx context.Context, c *bitbucket.Client) error {
			_, err := c.UpdateHook(ctx, shop, bitbucket.Hook{UUID: hookUUID})
			return err
		},
		"DELETE": func(ctx context.Context, c *bitbucket.Client) error { return c.DeleteHook(ctx, shop, hookUUID) },
	}
	for name, call := range calls {
		for _, row := range table {
			t.Run(fmt.Sprintf("%s/%d", name, row.status), func(t *testing.T) {
				t.Parallel()
				f := newForge(t, says(row.status, "application/json", `{"type":"error","error":{"message":"no\nway","detail":"because"}}`))
				err := call(t.Context(), f.client(t))
				want := row.write
				tries := 1
				if strings.HasPrefix(name, "GET") {
					want = row.read
					if want == fault.Unavailable {
						tries = 3
					}
				}
				if !fault.Is(err, want) {
					t.Errorf("%v is of kind %v, want %v", err, fault.KindOf(err), want)
				}
				if n := len(f.requests()); n != tries {
					t.Errorf("asked %d times, want %d", n, tries)
				}
				if row.status >= 400 {
					mustContain(t, err.Error(), "no way; because", fmt.Sprint(row.status))
				}
				if want == fault.RateLimited && fault.RetryAfter(err) != time.Minute {
					t.Errorf("retry after %v", fault.RetryAfter(err))
				}
			})
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"":                              time.Minute,
		"soon":                          time.Minute,
		"-5":                            time.Minute,
		"0":                             time.Minute,
		"7":                             7 * time.Second,
		"99999999":                      time.Hour,
		"Mon, 23 Nov 2026 12:02:00 GMT": 2 * time.Minute,
		"Mon, 23 Nov 2026 11:59:00 GMT": time.Minute,
		"Tue, 24 Nov 2026 12:00:00 GMT": time.Hour,
	} {
		f := newForge(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", header)
			http.Error(w, "Rate limit for this resource has been exceeded", http.StatusTooManyRequests)
		})
		if _, err := f.client(t).User(t.Context()); fault.RetryAfter(err) != want {
			t.Errorf("%q: %v, want %v", header, fault.RetryAfter(err), want)
		}
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	account := string(fixture(t, "api/user.json"))

	t.Run("a read survives two failures", func(t *testing.T) {
		t.Parallel()
		var n atomic.Int32
		f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
			switch n.Add(1) {
			case 1:
				hangsUp(w, r)
			case 2:
				says(503, "text/html", "<h1>down</h1>")(w, r)
			default:
				says(200, "application/json", account)(w, r)
			}
		})
		if a, err := f.client(t).User(t.Context()); err != nil || a.UUID != alice {
			t.Errorf("%+v, %v", a, err)
		}
	})
	t.Run("not without the time for it", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, says(503, "text/plain", ""))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := f.client(t).User(ctx); !fault.Is(err, fault.Unavailable) || len(f.requests()) != 1 {
			t.Errorf("%v after %d requests", err, len(f.requests()))
		}
	})
	t.Run("not once the caller is gone", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		f := newForge(t, func(w http.ResponseWriter, _ *http.Request) {
			cancel()
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		if _, err := f.client(t).User(ctx); !fault.Is(err, fault.Unavailable) || len(f.requests()) != 1 {
			t.Errorf("%v after %d requests", err, len(f.requests()))
		}
	})
}

// TestLostAnswers makes every way an answer can fail to arrive happen.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + refused.Addr().String()
	if err := refused.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer      http.HandlerFunc
		api         string
		timeout     time.Duration
		read, write fault.Kind
	}{
		"nobody listens":    {api: nobody, read: fault.Unavailable, write: fault.Unavailable},
		"connection cut":    {answer: hangsUp, read: fault.Unavailable, write: fault.Unknown},
		"no answer in time": {answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, timeout: 200 * time.Millisecond, read: fault.Unavailable, write: fault.Unknown},
		"answer breaks off": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"uuid`))
		}, read: fault.Unavailable, write: fault.Unknown},
		"no JSON":               {answer: says(200, "text/html", "<html>"), read: fault.Unavailable, write: fault.Unknown},
		"JSON of another shape": {answer: says(200, "application/json", `{"uuid":7}`), read: fault.Unavailable, write: fault.Unknown},
		"nothing in it":         {answer: says(200, "application/json", `{}`), read: fault.Unavailable, write: fault.Unknown},
		"endless":               {answer: says(200, "application/json", strings.Repeat(" ", 1<<20+1)), read: fault.TooLarge, write: fault.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForge(t, c.answer)
			client := f.client(t, func(d *bitbucket.Deps) {
				if c.api != "" {
					d.APIURL = c.api
				}
				if c.timeout != 0 {
					d.Timeout = c.timeout
				}
			})
			if _, err := client.User(t.Context()); !fault.Is(err, c.read) {
				t.Errorf("read: %v is of kind %v, want %v", err, fault.KindOf(err), c.read)
			}
			before := len(f.requests())
			if _, err := client.CreateHook(t.Context(), shop, bitbucket.Hook{Secret: secret.New("s")}); !fault.Is(err, c.write) {
				t.Errorf("write: %v is of kind %v, want %v", err, fault.KindOf(err), c.write)
			}
			if n := len(f.requests()) - before; n > 1 {
				t.Errorf("a write was sent %d times", n)
			}
		})
	}
}

// TestRefusedToken holds the contract of the token source.
func TestRefusedToken(t *testing.T) {
	t.Parallel()
	accepts := func(token string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer "+token {
				says(200, "application/json", string(fixture(t, "api/hook.json")))(w, r)
				return
			}
			says(401, "application/json", `{"type":"error","error":{"message":"OAuth2 access token expired."}}`)(w, r)
		}
	}
	for name, c := range map[string]struct {
		works, first, second string
		secondErr            error
		want                 fault.Kind
		sent                 int
		asked                []string
	}{
		"works at once":         {works: "a", first: "a", sent: 1, asked: []string{""}},
		"works once refreshed":  {works: "b", first: "a", second: "b", sent: 2, asked: []string{"", "a"}},
		"refused twice":         {works: "c", first: "a", second: "b", want: fault.Revoked, sent: 2, asked: []string{"", "a"}},
		"nothing fresher":       {works: "c", first: "a", second: "a", want: fault.Revoked, sent: 1, asked: []string{"", "a"}},
		"refresh not possible":  {works: "c", first: "a", secondErr: fault.New(fault.Unavailable, "later"), want: fault.Unavailable, sent: 1, asked: []string{"", "a"}},
		"refresh says it's off": {works: "c", first: "a", secondErr: fault.New(fault.Revoked, "reconnect"), want: fault.Revoked, sent: 1, asked: []string{"", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForge(t, accepts(c.works))
			var asked []string
			client := f.bitbucket(t).As(func(_ context.Context, refused secret.Text) (secret.Text, error) {
				asked = append(asked, refused.Reveal())
				if refused.Empty() {
					return secret.New(c.first), nil
				}
				return secret.New(c.second), c.secondErr
			})
			_, err := client.CreateHook(t.Context(), shop, bitbucket.Hook{Secret: secret.New("s")})
			if (err == nil) != (c.want == 0) || err != nil && !fault.Is(err, c.want) {
				t.Errorf("%v, want kind %v", err, c.want)
			}
			if c.secondErr != nil && !errors.Is(err, c.secondErr) {
				t.Errorf("%v does not carry %v", err, c.secondErr)
			}
			if n := len(f.requests()); n != c.sent || !reflect.DeepEqual(asked, c.asked) {
				t.Errorf("sent %d, asked %q", n, asked)
			}
		})
	}
	t.Run("no token at all", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, accepts("a"))
		_, err := f.bitbucket(t).As(func(context.Context, secret.Text) (secret.Text, error) {
			return secret.Text{}, fault.New(fault.Revoked, "reconnect")
		}).User(t.Context())
		if !fault.Is(err, fault.Revoked) || len(f.requests()) != 0 {
			t.Errorf("%v after %d requests", err, len(f.requests()))
		}
	})
}

// TestRedirects proves that the token never leaves the API host.
func TestRedirects(t *testing.T) {
	t.Parallel()
	account := string(fixture(t, "api/user.json"))
	to := func(status int, address string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, address, status) }
	}
	t.Run("a read on the same host", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/2.0/user" {
				http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
				return
			}
			says(200, "application/json", account)(w, r)
		})
		if _, err := f.client(t).User(t.Context()); err != nil || f.requests()[1].Authorization != "Bearer "+goodToken {
			t.Errorf("%v, %+v", err, f.requests())
		}
	})
	t.Run("a read on another host is not followed", func(t *testing.T) {
		t.Parallel()
		other := newForge(t, says(200, "application/json", account))
		f := newForge(t, to(302, other.URL))
		if _, err := f.client(t).User(t.Context()); !fault.Is(err, fault.Invalid) || len(other.requests()) != 0 {
			t.Errorf("%v, %+v", err, other.requests())
		}
	})
	t.Run("a write is not followed anywhere", func(t *testing.T) {
		t.Parallel()
		for _, status := range []int{301, 302, 303, 307, 308} {
			f := newForge(t, to(status, "/elsewhere"))
			_, err := f.client(t).CreateHook(t.Context(), shop, bitbucket.Hook{Secret: secret.New("s")})
			if !fault.Is(err, fault.Invalid) || len(f.requests()) != 1 {
				t.Errorf("%d: %v, %+v", status, err, f.requests())
			}
		}
	})
	t.Run("a file elsewhere is read without the token", func(t *testing.T) {
		t.Parallel()
		other := newForge(t, says(200, "text/plain", "content"))
		f := newForge(t, to(301, other.URL+"/media?signature=1"))
		data, err := f.client(t).Source(t.Context(), shop, head, "large.bin", 10)
		if r := other.requests(); err != nil || string(data) != "content" || len(r) != 1 || r[0].Authorization != "" || r[0].URI != "/media?signature=1" {
			t.Errorf("%q, %v, %+v", data, err, r)
		}
	})
	t.Run("a token does not come back on the way home", func(t *testing.T) {
		t.Parallel()
		var home atomic.Value
		other := newForge(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, home.Load().(string)+"/back", http.StatusFound)
		})
		f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/back" {
				says(200, "text/plain", "content")(w, r)
				return
			}
			http.Redirect(w, r, other.URL, http.StatusFound)
		})
		home.Store(f.URL)
		_, err := f.client(t).Source(t.Context(), shop, head, "a", 10)
		if r := f.requests(); err != nil || len(r) != 2 || r[1].Authorization != "" {
			t.Errorf("%v, %+v", err, r)
		}
	})
	t.Run("another host's 401 is not about our token", func(t *testing.T) {
		t.Parallel()
		other := newForge(t, says(401, "text/plain", ""))
		f := newForge(t, to(302, other.URL))
		if _, err := f.client(t).Source(t.Context(), shop, head, "a", 10); !fault.Is(err, fault.Forbidden) {
			t.Error(err)
		}
	})
	t.Run("a file by another scheme is not followed", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, to(302, "https://127.0.0.1:1/"))
		if _, err := f.client(t).Source(t.Context(), shop, head, "a", 10); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	})
	t.Run("round and round", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, to(302, "/2.0/user"))
		if _, err := f.client(t).User(t.Context()); !fault.Is(err, fault.Invalid) || len(f.requests()) != 4 {
			t.Errorf("%v after %d", err, len(f.requests()))
		}
	})
}

func TestSource(t *testing.T) {
	t.Parallel()
	listing := string(fixture(t, "api/src_directory.json"))
	for name, c := range map[string]struct {
		contentType, body string
		max               int
		attachment        bool
		want              fault.Kind
	}{
		"exactly the limit":        {"text/plain", "12345", 5, false, 0},
		"one byte more":            {"text/plain", "123456", 5, false, fault.TooLarge},
		"the package's limit":      {"text/plain", strings.Repeat("x", bitbucket.MaxSource), 0, false, 0},
		"more than that":           {"text/plain", strings.Repeat("x", bitbucket.MaxSource+1), 1 << 30, false, fault.TooLarge},
		"empty":                    {"text/plain", "", 5, false, 0},
		"a directory":              {"application/json; charset=utf-8", listing, 0, false, fault.Invalid},
		"a JSON file":              {"application/json", `{"values":[{"type":"x"}]}`, 0, false, 0},
		"a file like a directory":  {"application/json", listing, 0, true, 0},
		"a JSON file that is none": {"application/json", `[`, 0, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
				if c.attachment {
					w.Header().Set("Content-Disposition", "attachment")
				}
				says(200, c.contentType, c.body)(w, r)
			})
			data, err := f.client(t).Source(t.Context(), shop, head, "a/b", c.max)
			if c.want != 0 {
				if !fault.Is(err, c.want) {
					t.Errorf("%v, want kind %v", err, c.want)
				}
			} else if err != nil || string(data) != c.body {
				t.Errorf("%d bytes, %v", len(data), err)
			}
		})
	}
}

// TestPages follows cursors, and shows that neither Bitbucket nor whoever holds a
// cursor can lead a call elsewhere.
func TestPages(t *testing.T) {
	t.Parallel()
	workspace := func(slug string) string {
		return `{"administrator":true,"workspace":{"slug":"` + slug + `","uuid":"` + acme + `"}}`
	}
	t.Run("page by page", func(t *testing.T) {
		t.Parallel()
		var base string
		f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
			body := `{"values":[` + workspace("second") + `]}`
			if r.URL.Query().Get("page") == "" {
				body = `{"values":[` + workspace("first") + `],"next":"` + base + `/2.0/user/workspaces?pagelen=100&page=tok%2Ben"}`
			}
			says(200, "application/json", body)(w, r)
		})
		base = f.URL
		c := f.client(t)
		first, err := c.Workspaces(t.Context(), "")
		if err != nil || first.Items[0].Slug != "first" || first.Cursor == "" || len(first.Cursor) > 40 || strings.Contains(first.Cursor, "/") {
			t.Fatalf("%+v, %v", first, err)
		}
		second, err := c.Workspaces(t.Context(), first.Cursor)
		if err != nil || second.Items[0].Slug != "second" || second.Cursor != "" {
			t.Fatalf("%+v, %v", second, err)
		}
		if got := f.requests()[1].URI; got != "/2.0/user/workspaces?page=tok%2Ben&pagelen=100" {
			t.Error(got)
		}
	})
	for name, next := range map[string]string{
		"another host":    "https://api.bitbucket.example/2.0/user/workspaces?page=2",
		"another port":    "http://127.0.0.1:1/2.0/user/workspaces?page=2",
		"another scheme":  "https://HOST/2.0/user/workspaces?page=2",
		"a user in it":    "http://u@HOST/2.0/user/workspaces?page=2",
		"no host":         "/2.0/user/workspaces?page=2",
		"nothing new":     "http://HOST/2.0/user/workspaces?pagelen=100",
		"a long token":    "http://HOST/2.0/user/workspaces?page=" + strings.Repeat("x", 3000),
		"no address":      "http://HOST/%zz",
		"schemeless host": "//api.bitbucket.example/2.0/user/workspaces?page=2",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
				link := strings.Replace(next, "HOST", r.Host, 1)
				says(200, "application/json", `{"values":[],"next":"`+link+`"}`)(w, r)
			})
			if p, err := f.client(t).Workspaces(t.Context(), ""); !fault.Is(err, fault.Invalid) || len(f.requests()) != 1 {
				t.Errorf("%+v, %v after %d", p, err, len(f.requests()))
			}
		})
	}
	t.Run("a made-up cursor", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, says(200, "application/json", `{"values":[]}`))
		cursor := base64.RawURLEncoding.EncodeToString([]byte("pagelen=1&q=x&role=owner&sort=name&fields=*&page=../../user"))
		if _, err := f.client(t).Repositories(t.Context(), acme, "shop", cursor, true); err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(f.requests()[0].URI)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if u.Path != "/2.0/repositories/"+acme || q.Get("role") != "admin" || q.Get("q") != `name ~ "shop"` || q.Get("pagelen") != "100" {
			t.Errorf("sent %s", u)
		}
	})
	t.Run("all pages", func(t *testing.T) {
		t.Parallel()
		var n atomic.Int32
		f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
			next := ""
			if i := n.Add(1); i < 3 {
				next = fmt.Sprintf("http://%s%s&page=%d", r.Host, r.RequestURI, i+1)
			}
			body, err := json.Marshal(map[string]any{"values": []any{json.RawMessage(fixture(t, "api/hook.json"))}, "next": next})
			if err != nil {
				t.Error(err)
			}
			says(200, "application/json", string(body))(w, r)
		})
		if hooks, err := f.client(t).ListHooks(t.Context(), shop); err != nil || len(hooks) != 3 {
			t.Errorf("%d, %v", len(hooks), err)
		}
	})
	t.Run("without end", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
			says(200, "application/json", `{"values":[],"next":"http://`+r.Host+`/?page=2"}`)(w, r)
		})
		if _, err := f.client(t).ListHooks(t.Context(), shop); !fault.Is(err, fault.TooLarge) || len(f.requests()) != 10 {
			t.Errorf("%v after %d", err, len(f.requests()))
		}
	})
	t.Run("an item of another shape", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, says(200, "application/json", `{"values":[{"full_name":"acme/../shop","uuid":"`+shop+`"}]}`))
		if _, err := f.client(t).Repositories(t.Context(), acme, "", "", false); !fault.Is(err, fault.Unavailable) {
			t.Error(err)
		}
	})
}

// TestErrorsKeepSecrets has a server that repeats whatever it was told.
func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	const hookSecret = "the-secret-of-the-hook"
	f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
		message, err := json.Marshal("you sent " + r.Header.Get("Authorization") + " and " + hookSecret)
		if err != nil {
			t.Error(err)
		}
		says(400, "application/json", `{"error":{"message":`+string(message)+`}}`)(w, r)
	})
	c := f.client(t)
	_, readErr := c.User(t.Context())
	_, writeErr := c.UpdateHook(t.Context(), shop, bitbucket.Hook{UUID: hookUUID, Secret: secret.New(hookSecret)})
	for err, hidden := range map[error][]string{readErr: {goodToken}, writeErr: {goodToken, hookSecret}} {
		text := fmt.Sprintf("%v %+v", err, err)
		for _, h := range hidden {
			if err == nil || strings.Contains(text, h) {
				t.Errorf("%q shows %q", text, h)
			}
		}
	}
	long := newForge(t, says(400, "application/json", `{"error":{"message":"`+strings.Repeat("x", 5000)+`"}}`))
	if _, err := long.client(t).User(t.Context()); err == nil || len(err.Error()) > 500 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

// Of a long list of changed files only the first pages are read, and the rest is known to be missing.
func TestChangesAreCut(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pages, asked int
		cut          bool
	}{"as many pages as are read": {10, 10, false}, "one more": {11, 10, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var f *forge
			f = newForge(t, func(w http.ResponseWriter, r *http.Request) {
				page := max(1, len(f.requests()))
				next := ""
				if page < tt.pages {
					next = fmt.Sprintf(`, "next": "%s%s?page=%d"`, f.URL, r.URL.Path, page+1)
				}
				says(200, "application/json", fmt.Sprintf(`{"values": [{"old": null, "new": {"path": "file-%d"}}]%s}`, page, next))(w, r)
			})
			changes, err := f.client(t).Changes(t.Context(), shop, "8d903c6707d0", head, false)
			if err != nil || changes.Cut != tt.cut || len(changes.Paths) != tt.asked || len(f.requests()) != tt.asked {
				t.Errorf("got %+v, %v after %d requests; want %d files, cut: %v", changes, err, len(f.requests()), tt.asked, tt.cut)
			}
		})
	}
}

// What asks for no build is found wherever it stands in a commit's message.
func TestMarks(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"Squash\n\n" + strings.Repeat("* [PROJ-1234] change [x]\n", 100) + "[Skip CI]\n": "[Skip CI]",
		"[[ci skip] [skip ci]": "[ci skip]",
		"[skip  ci] [skip]":    "",
		"[skip ci":             "",
	} {
		body, err := json.Marshal(map[string]any{"hash": head, "message": message, "date": noon(), "author": map[string]string{"raw": "Bob <b@x>"}})
		if err != nil {
			t.Fatal(err)
		}
		commit, err := newForge(t, says(200, "application/json", string(body))).client(t).Commit(t.Context(), shop, head)
		if err != nil || commit.Marks != want {
			t.Errorf("%.40q has the mark %q (%v), want %q", message, commit.Marks, err, want)
		}
	}
}
