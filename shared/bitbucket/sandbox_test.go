package bitbucket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/sandbox"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

// A trial is a sandbox, our client to it, and what plays the browser and the
// people there.
type trial struct {
	*testing.T
	*bitbucket.Bitbucket
	sandbox *sandbox.Sandbox
	url     string

	mu  sync.Mutex
	now time.Time
}

func (tr *trial) clock() time.Time {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.now
}

func (tr *trial) advance(d time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.now = tr.now.Add(d)
}

func newTrial(t *testing.T) *trial {
	t.Helper()
	tr := &trial{T: t, now: noon()}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { tr.sandbox.ServeHTTP(w, r) }))
	tr.url = "http://" + server.Listener.Addr().String()
	d := (&forge{Server: server}).deps()
	d.APIURL, d.WebURL, d.Now = tr.url+"/2.0", tr.url, tr.clock
	var err error
	tr.sandbox, err = sandbox.New(sandbox.Deps{
		PublicURL: tr.url, ClientID: d.ClientID, ClientSecret: clientSecret, CallbackURL: d.CallbackURL,
		LoopbackHooks: true, Log: slog.New(slog.DiscardHandler), Now: tr.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	if tr.Bitbucket, err = bitbucket.New(d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.HTTP.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := tr.sandbox.Close(ctx); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return tr
}

// consent is what a person does on the consent page; it answers the callback's query.
func (tr *trial) consent(user, state, action string) url.Values {
	tr.Helper()
	form := url.Values{"user": {user}, "password": {user}, "action": {action}}
	req, err := http.NewRequestWithContext(tr.Context(), http.MethodPost, tr.AuthorizeURL(state, verifier), strings.NewReader(form.Encode()))
	if err != nil {
		tr.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		tr.Fatal(err)
	}
	defer resp.Body.Close()
	callback, err := resp.Location()
	if err != nil {
		tr.Fatalf("%s: %v", resp.Status, err)
	}
	return callback.Query()
}

func (tr *trial) connect(user string) bitbucket.Token {
	tr.Helper()
	token, err := tr.Exchange(tr.Context(), tr.consent(user, "state", "grant").Get("code"), verifier)
	if err != nil {
		tr.Fatal(err)
	}
	return token
}

// as answers a client with a fixed token.
func (tr *trial) as(token bitbucket.Token) *bitbucket.Client {
	return tr.As(func(context.Context, secret.Text) (secret.Text, error) { return token.Access, nil })
}

// by makes a call as a person does, with a password.
func (tr *trial) by(user, method, path string, body any) {
	tr.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		tr.Fatal(err)
	}
	req, err := http.NewRequestWithContext(tr.Context(), method, tr.url+path, bytes.NewReader(data))
	if err != nil {
		tr.Fatal(err)
	}
	req.SetBasicAuth(user, user)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tr.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		text, _ := io.ReadAll(resp.Body)
		tr.Fatalf("%s %s: %s: %s", method, path, resp.Status, text)
	}
}

func (tr *trial) faults(f map[string]any) {
	tr.Helper()
	tr.by("alice", http.MethodPut, "/_sandbox/faults", f)
}

func (tr *trial) commit(branch string) string {
	tr.Helper()
	hash, err := tr.sandbox.AddCommit(tr.Context(), sandbox.NewCommit{
		Repository: "acme/shop", Branch: branch, User: "bob", Message: "Change " + branch, Files: map[string][]byte{"new.txt": []byte(branch)},
	})
	if err != nil {
		tr.Fatal(err)
	}
	return hash
}

// shop finds acme's repository the way the picker does.
func (tr *trial) shop(c *bitbucket.Client) bitbucket.Repository {
	tr.Helper()
	workspaces, err := c.Workspaces(tr.Context(), "")
	if err != nil {
		tr.Fatal(err)
	}
	for _, w := range workspaces.Items {
		if w.Slug != "acme" {
			continue
		}
		repos, err := c.Repositories(tr.Context(), w.UUID, "sho", "", false)
		if err != nil || len(repos.Items) != 1 {
			tr.Fatalf("%+v, %v", repos, err)
		}
		return repos.Items[0]
	}
	tr.Fatalf("no acme in %+v", workspaces)
	return bitbucket.Repository{}
}

func (tr *trial) want(err error, kind fault.Kind) {
	tr.Helper()
	if !fault.Is(err, kind) {
		tr.Errorf("%v is of kind %v, want %v", err, fault.KindOf(err), kind)
	}
}

func TestSandboxGrant(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	ctx := t.Context()
	if q := tr.consent("alice", "st", "deny"); q.Get("error") != "access_denied" || q.Get("state") != "st" {
		t.Errorf("%v", q)
	}
	code := tr.consent("alice", "st", "grant").Get("code")
	_, err := tr.Exchange(ctx, code, strings.Repeat("x", 43))
	tr.want(err, fault.Invalid)
	code = tr.consent("alice", "st", "grant").Get("code")
	first, err := tr.Exchange(ctx, code, verifier)
	if err != nil {
		t.Fatal(err)
	}
	if missing := bitbucket.MissingScopes(first.Scopes); len(missing) > 0 || len(first.Access.Reveal()) < 2500 || !first.ExpiresAt.After(tr.clock()) {
		t.Errorf("lacks %q, expires %v", missing, first.ExpiresAt)
	}
	_, err = tr.Exchange(ctx, code, verifier)
	tr.want(err, fault.Invalid)

	// Past its life the token is refused, the source refreshes, the call succeeds.
	tr.advance(first.ExpiresAt.Sub(tr.clock()) + time.Second)
	current := first
	c := tr.As(func(ctx context.Context, refused secret.Text) (secret.Text, error) {
		if !refused.Empty() {
			var err error
			if current, err = tr.Refresh(ctx, current.Refresh); err != nil {
				return secret.Text{}, err
			}
		}
		return current.Access, nil
	})
	account, err := c.User(ctx)
	if err != nil || account.Name != "Alice Admin" || current.Refresh.Equal(first.Refresh) {
		t.Fatalf("%+v, %v", account, err)
	}
	_, err = tr.as(first).User(ctx)
	tr.want(err, fault.Revoked)

	// The rotated token works within its grace and not after it.
	if _, err := tr.Refresh(ctx, first.Refresh); err != nil {
		t.Error(err)
	}
	tr.advance(11 * time.Minute)
	_, err = tr.Refresh(ctx, first.Refresh)
	tr.want(err, fault.Revoked)

	tr.faults(map[string]any{"revoked": true})
	_, err = c.User(ctx)
	tr.want(err, fault.Revoked)
}

func TestSandboxContent(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	ctx := t.Context()
	c := tr.as(tr.connect("alice"))
	found := tr.shop(c)
	repo, err := c.Repository(ctx, found.UUID)
	if err != nil || repo != found || repo.FullName != "acme/shop" || repo.MainBranch != "main" || !repo.Private || repo.CloneURL != tr.url+"/acme/shop.git" {
		t.Fatalf("%+v, %v", repo, err)
	}
	hash := tr.commit("feature/x")
	if got, err := c.Branch(ctx, repo.UUID, "feature/x"); err != nil || got != hash {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := c.Commit(ctx, repo.UUID, hash[:12]); err != nil || got.Hash != hash || got.Message != "Change feature/x" || got.Date.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if data, err := c.Source(ctx, repo.UUID, hash, ".runnerhub/runnerhub.yml", 0); err != nil || !bytes.Contains(data, []byte("steps:")) {
		t.Errorf("%q, %v", data, err)
	}
	_, err = c.Source(ctx, repo.UUID, hash, ".runnerhub/runnerhub.yml", 10)
	tr.want(err, fault.TooLarge)
	_, err = c.Source(ctx, repo.UUID, hash, ".runnerhub", 0)
	tr.want(err, fault.Invalid)
	_, err = c.Source(ctx, repo.UUID, hash, "none.yml", 0)
	tr.want(err, fault.NotFound)
	_, err = c.Branch(ctx, repo.UUID, "none")
	tr.want(err, fault.NotFound)
	_, err = c.Tag(ctx, repo.UUID, "none")
	tr.want(err, fault.NotFound)
	_, err = tr.as(tr.connect("mallory")).Repository(ctx, repo.UUID)
	if kind := fault.KindOf(err); kind != fault.NotFound && kind != fault.Forbidden {
		t.Errorf("a stranger: %v", err)
	}

	tr.by("bob", http.MethodPost, "/2.0/repositories/acme/shop/pullrequests", map[string]any{
		"title": "X", "source": map[string]any{"branch": map[string]any{"name": "feature/x"}},
	})
	prs, err := c.OpenPullRequests(ctx, repo.UUID, "feature/x")
	if err != nil || len(prs) != 1 || prs[0].Fork() || !prs[0].Open || prs[0].TargetBranch != "main" || len(prs[0].SourceHash) != 12 {
		t.Fatalf("%+v, %v", prs, err)
	}
	if pr, err := c.PullRequest(ctx, repo.UUID, prs[0].ID); err != nil || pr != prs[0] {
		t.Errorf("%+v, %v", pr, err)
	}
	heads, err := c.Heads(ctx, repo.UUID, "")
	if want := (bitbucket.Head{ID: prs[0].ID, Source: prs[0].SourceHash, Target: "main", UpdatedAt: prs[0].UpdatedAt}); err != nil || len(heads.Items) != 1 || heads.Items[0] != want {
		t.Errorf("%+v, %v, want %+v", heads, err, want)
	}
	if got, err := c.Commit(ctx, repo.UUID, prs[0].SourceHash); err != nil || got.Hash != hash {
		t.Errorf("%+v, %v", got, err)
	}
	if prs, err := c.OpenPullRequests(ctx, repo.UUID, `x" OR state="OPEN`); err != nil || len(prs) != 0 {
		t.Errorf("a quote got out: %+v, %v", prs, err)
	}
}

func TestSandboxHooks(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	ctx := t.Context()
	c := tr.as(tr.connect("alice"))
	repo := tr.shop(c).UUID

	type delivery struct {
		key, signature string
		body           []byte
	}
	deliveries := make(chan delivery, 10)
	ours := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		deliveries <- delivery{r.Header.Get("X-Event-Key"), r.Header.Get("X-Hub-Signature"), body}
	}))
	t.Cleanup(ours.Close)

	arrives := func() delivery {
		t.Helper()
		select {
		case d := <-deliveries:
			return d
		case <-time.After(time.Minute):
			t.Fatal("no delivery came")
			return delivery{}
		}
	}

	first, second := secret.New("first secret"), secret.New("second secret")
	hook, err := c.CreateHook(ctx, repo, bitbucket.Hook{
		Description: "RunnerHub", URL: ours.URL, Active: true, Events: bitbucket.HookEvents(), Secret: first,
	})
	if err != nil || !hook.SecretSet {
		t.Fatalf("%+v, %v", hook, err)
	}
	push := func(key secret.Text) {
		t.Helper()
		hash := tr.commit("main")
		d := arrives()
		if !bitbucket.Verify(key, d.body, d.signature) || bitbucket.Verify(secret.New("other"), d.body, d.signature) {
			t.Errorf("signature %s", d.signature)
		}
		event, err := bitbucket.ParseEvent(d.key, d.body)
		if err != nil || event.Repository != repo || len(event.Changes) != 1 || event.Changes[0].New != hash || event.Changes[0].Old == "" {
			t.Errorf("%+v, %v", event, err)
		}
	}
	push(first)
	hook.Description = "RunnerHub, renamed"
	if hook, err = c.UpdateHook(ctx, repo, hook); err != nil || !hook.SecretSet {
		t.Fatalf("%+v, %v", hook, err)
	}
	push(first) // an update without a secret leaves it
	hook.Secret = second
	if hook, err = c.UpdateHook(ctx, repo, hook); err != nil {
		t.Fatal(err)
	}
	push(second)

	tr.commit("topic")
	arrives()
	tr.by("bob", http.MethodPost, "/2.0/repositories/acme/shop/pullrequests", map[string]any{
		"title": "Topic", "source": map[string]any{"branch": map[string]any{"name": "topic"}},
	})
	d := arrives()
	event, err := bitbucket.ParseEvent(d.key, d.body)
	if err != nil || event.PullRequest == nil || event.PullRequest.Action != ci.PullRequestOpened || event.PullRequest.SourceBranch != "topic" {
		t.Errorf("%+v, %v", event, err)
	}

	if hooks, err := c.ListHooks(ctx, repo); err != nil || len(hooks) != 1 || hooks[0].UUID != hook.UUID || hooks[0].URL != ours.URL {
		t.Errorf("%+v, %v", hooks, err)
	}
	_, err = tr.as(tr.connect("bob")).ListHooks(ctx, repo)
	tr.want(err, fault.Forbidden)
	if err := c.DeleteHook(ctx, repo, hook.UUID); err != nil {
		t.Error(err)
	}
	tr.want(c.DeleteHook(ctx, repo, hook.UUID), fault.NotFound)
}

func TestSandboxStatuses(t *testing.T) {
	t.Parallel()
	tr := newTrial(t)
	ctx := t.Context()
	c := tr.as(tr.connect("alice"))
	repo := tr.shop(c).UUID
	hash := tr.commit("main")
	status := bitbucket.Status{
		Key: "runnerhub-1", State: ci.StatusInProgress, URL: "https://ci.example.com/builds/{1}", Name: "shop", Description: "waiting", Refname: "main",
	}
	_, err := c.ReadStatus(ctx, repo, hash, status.Key)
	tr.want(err, fault.NotFound)
	tr.want(c.PostStatus(ctx, repo, strings.Repeat("0", 40), status), fault.NotFound)

	for _, state := range []ci.StatusState{ci.StatusInProgress, ci.StatusFailed, ci.StatusStopped} {
		status.State = state
		if err := c.PostStatus(ctx, repo, hash, status); err != nil {
			t.Fatal(err)
		}
		got, err := c.ReadStatus(ctx, repo, hash, status.Key)
		want := status
		want.URL = "https://ci.example.com/builds/%7B1%7D"
		if err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
	other := tr.as(tr.connect("bob"))
	tr.want(other.PostStatus(ctx, repo, hash, status), fault.Forbidden)

	// The answer is lost, the post is not: reading it back tells.
	tr.faults(map[string]any{"lose_answers": 1})
	status.State = ci.StatusSuccessful
	tr.want(c.PostStatus(ctx, repo, hash, status), fault.Unknown)
	if got, err := c.ReadStatus(ctx, repo, hash, status.Key); err != nil || got.State != ci.StatusSuccessful {
		t.Errorf("%+v, %v", got, err)
	}
	tr.faults(map[string]any{"rate_limited": true})
	err = c.PostStatus(ctx, repo, hash, status)
	if tr.want(err, fault.RateLimited); fault.RetryAfter(err) != time.Minute {
		t.Errorf("retry after %v", fault.RetryAfter(err))
	}
	tr.faults(map[string]any{"down": true})
	tr.want(c.PostStatus(ctx, repo, hash, status), fault.Unavailable)
}
