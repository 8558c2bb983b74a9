package sandbox

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRule49_Headers(t *testing.T) {
	t.Parallel()
	b := start(t)
	signed, plain := receive(t, nil), receive(t, nil)
	secret := "It's a Secret to Everybody"
	id := b.hook(signed.URL, secret, "repo:push")
	b.hook(plain.URL, "", "repo:push")
	b.put("main", "a", "a")
	in := signed.next(t)
	for name, want := range map[string]string{
		"X-Event-Key": "repo:push", "X-Hook-Uuid": strings.Trim(id, "{}"), "X-Attempt-Number": "1", "User-Agent": "Bitbucket-Webhooks/2.0",
		"Content-Type": "application/json", "X-Hub-Signature": sign(secret, in.raw),
	} {
		if got := in.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if len(in.header.Get("X-Request-UUID")) != 36 {
		t.Errorf("request %q", in.header.Get("X-Request-UUID"))
	}
	if _, there := plain.next(t).header["X-Hub-Signature"]; there {
		t.Error("signed without a secret")
	}
	// Atlassian's own example.
	if got := sign(secret, []byte("Hello World!")); got != "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9" {
		t.Errorf("vector: %s", got)
	}
}

func TestRule50_ThreeAttempts(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.faults(obj{"attempt_delay_ms": 1})
	to := receive(t, func(int) int { return http.StatusServiceUnavailable })
	b.hook(to.URL, "s", "repo:push")
	b.put("main", "a", "a")
	b.settle()
	got := to.all()
	if len(got) != 3 {
		t.Fatalf("%d attempts", len(got))
	}
	for i, in := range got {
		if in.header.Get("X-Attempt-Number") != fmt.Sprint(i+1) || in.header.Get("X-Request-UUID") != got[0].header.Get("X-Request-UUID") || string(in.raw) != string(got[0].raw) {
			t.Errorf("attempt %d: %v", i+1, in.header)
		}
	}
	b.get("", "/_sandbox/deliveries?state=failed").want(http.StatusOK, `"status":503`, `"number":3`, `"response_bytes":5`)

	once := receive(t, func(n int) int { return map[bool]int{true: 500, false: 200}[n == 1] })
	b.hook(once.URL, "", "pullrequest:created")
	b.call("bob", http.MethodPost, shopAPI+"/pullrequests", pullBody("T", "develop")).want(http.StatusCreated)
	b.settle()
	if n := len(once.all()); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
	b.get("", "/_sandbox/deliveries?state=delivered").want(http.StatusOK, "pullrequest:created")
}

func TestRule51_Timeout(t *testing.T) {
	t.Parallel()
	b := start(t)
	if b.courier.client.Timeout != 10*time.Second {
		t.Errorf("timeout %v", b.courier.client.Timeout)
	}
	b.courier.client.Timeout = 20 * time.Millisecond // nothing has been sent yet
	b.faults(obj{"attempt_delay_ms": 0})
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	b.hook(server.URL, "", "repo:push")
	b.put("main", "a", "a")
	b.settle()
	a := b.get("", "/_sandbox/deliveries").want(http.StatusOK, `"state":"failed"`)
	if a.size("items", 0, "attempts") != 3 || a.at("items", 0, "attempts", 2, "status") != 0.0 {
		t.Errorf("%s", a.body)
	}
}

func TestRule52_RefusedForGood(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 404, 410, 413, 429, 302} {
		b := start(t)
		b.faults(obj{"attempt_delay_ms": 0})
		elsewhere := receive(t, nil)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, status)
		}))
		defer server.Close()
		b.hook(server.URL, "", "repo:push")
		b.put("main", "a", "a")
		b.settle()
		a := b.get("", "/_sandbox/deliveries").want(http.StatusOK, `"state":"failed"`)
		if n := a.size("items", 0, "attempts"); n != 1 || len(elsewhere.all()) != 0 {
			t.Errorf("%d: %d attempts", status, n)
		}
	}
}

func TestRule53_LargeBodiesAreDropped(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	b.hook(to.URL, "", "pullrequest:created", "repo:push")
	large := pullBody("T", "develop")
	large["description"] = strings.Repeat("x", 100<<10) // stands in the body three times
	b.call("bob", http.MethodPost, shopAPI+"/pullrequests", large).want(http.StatusCreated)
	b.settle()
	if n := len(to.all()); n != 0 {
		t.Errorf("%d deliveries", n)
	}
	b.get("", "/_sandbox/deliveries").want(http.StatusOK, `"state":"dropped"`, `"attempts":[]`)
	b.get("alice", "/acme/shop/webhooks").want(http.StatusOK, "dropped", "bytes are more than 262144")
	b.put("main", "a", "a")
	to.next(t)
}

func TestRule54_WhoGetsNothing(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	b.hook(to.URL, "", "pullrequest:created", "repo:fork")
	off := b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{"url": to.URL, "events": []string{"repo:push"}, "active": false})
	off.want(http.StatusCreated, `"active":false`)
	b.put("main", "a", "a")
	b.settle()
	if n := len(to.all()); n != 0 {
		t.Errorf("%d deliveries", n)
	}
	b.get("", "/_sandbox/deliveries").want(http.StatusOK, `"items":[]`)
}

// pushes makes a hook for pushes, a clone, and a way to push and get the delivery.
func pushes(t *testing.T) (b *bench, dir string, push func(refs ...string) received) {
	t.Helper()
	b = start(t)
	to := receive(t, nil)
	b.hook(to.URL, "", "repo:push")
	dir = b.clone("bob")
	return b, dir, func(refs ...string) received {
		t.Helper()
		b.git(dir, append([]string{"push", "--quiet", "origin"}, refs...)...)
		in := to.next(t)
		b.settle()
		if more := to.all(); len(more) != 0 {
			t.Fatalf("%d more deliveries of one push", len(more))
		}
		return in
	}
}

func TestRule55_OnePushOneDelivery(t *testing.T) {
	t.Parallel()
	b, dir, push := pushes(t)
	b.commit(dir, "a", "a")
	b.git(dir, "tag", "v1")
	b.git(dir, "branch", "feature/x")
	in := push("main", "v1", "feature/x", ":develop")
	var names []string
	for _, change := range in.at(t, "push", "changes").([]any) {
		side := "new"
		if dig(t, change, "new") == nil {
			side = "old"
		}
		names = append(names, dig(t, change, side, "type").(string)+" "+dig(t, change, side, "name").(string))
	}
	if got := strings.Join(names, ", "); got != "branch develop, branch feature/x, branch main, tag v1" {
		t.Errorf("changes %s", got)
	}
}

func TestRule56_FiveCommits(t *testing.T) {
	t.Parallel()
	b, dir, push := pushes(t)
	hashes := []string{b.tip("main")}
	for i := range 6 {
		hashes = append(hashes, b.commit(dir, "a", fmt.Sprint(i)))
	}
	check := func(in received, truncated bool, want ...string) {
		t.Helper()
		change := in.at(t, "push", "changes", 0)
		list := dig(t, change, "commits").([]any)
		if dig(t, change, "truncated") != truncated || len(list) != len(want) {
			t.Fatalf("truncated %v, %d commits", dig(t, change, "truncated"), len(list))
		}
		for i, hash := range want {
			if got := dig(t, list[i], "hash"); got != hash {
				t.Errorf("commit %d: %v, want %s", i, got, hash)
			}
		}
	}
	check(push("HEAD~1:main"), false, hashes[5], hashes[4], hashes[3], hashes[2], hashes[1])
	check(push("main"), false, hashes[6])
	check(push("HEAD~4:refs/heads/history"), false, hashes[2], hashes[1], hashes[0])
	check(push("HEAD:refs/heads/long"), true, hashes[6], hashes[5], hashes[4], hashes[3], hashes[2])
	check(push("main:history"), false, hashes[6], hashes[5], hashes[4], hashes[3])
	// A merge brings what is new on both of its sides.
	b.git(dir, "checkout", "--quiet", "-b", "side", "HEAD~1")
	side := b.commit(dir, "side", "side")
	b.git(dir, "checkout", "--quiet", "main")
	b.git(dir, "merge", "--quiet", "--no-ff", "-m", "Merge", "side")
	check(push("main"), false, b.git(dir, "rev-parse", "HEAD"), side)
}

func TestRule57_NewAndDeletedRefs(t *testing.T) {
	t.Parallel()
	_, _, push := pushes(t)
	made := push("main:refs/heads/topic").at(t, "push", "changes", 0).(map[string]any)
	if made["old"] != nil || made["created"] != true || made["closed"] != false || made["forced"] != false || made["links"] == nil {
		t.Errorf("made: %v", made)
	}
	gone := push(":topic").at(t, "push", "changes", 0).(map[string]any)
	_, commits := gone["commits"]
	_, links := gone["links"]
	if gone["new"] != nil || gone["closed"] != true || gone["created"] != false || gone["truncated"] != false || commits || links {
		t.Errorf("gone: %v", gone)
	}
}

func TestRule58_Forced(t *testing.T) {
	t.Parallel()
	b, dir, push := pushes(t)
	b.commit(dir, "a", "1")
	if in := push("main"); in.at(t, "push", "changes", 0, "forced") != false {
		t.Error("a fast-forward is forced")
	}
	b.git(dir, "commit", "--quiet", "--amend", "-m", "Another")
	in := push("+main")
	if in.at(t, "push", "changes", 0, "forced") != true || in.at(t, "push", "changes", 0, "commits", 0, "hash") != b.tip("main") {
		t.Errorf("%v", in.at(t, "push", "changes", 0, "forced"))
	}
	if in := push("+HEAD~1:main"); in.at(t, "push", "changes", 0, "forced") != true || len(in.at(t, "push", "changes", 0, "commits").([]any)) != 0 {
		t.Error("going back is not forced")
	}
}

func TestRule59_Tags(t *testing.T) {
	t.Parallel()
	b, dir, push := pushes(t)
	b.git(dir, "tag", "light")
	b.git(dir, "tag", "-a", "annotated", "-m", "It is\nannotated")
	light := push("light").at(t, "push", "changes", 0).(map[string]any)
	tag := light["new"].(map[string]any)
	if _, there := light["commits"]; there || tag["type"] != "tag" || tag["message"] != nil || tag["tagger"] != nil || tag["date"] != nil || dig(t, tag, "target", "hash") != b.tip("main") {
		t.Errorf("%v", light)
	}
	annotated := push("annotated").at(t, "push", "changes", 0).(map[string]any)
	tag = annotated["new"].(map[string]any)
	if _, there := annotated["commits"]; there || tag["message"] != "It is\nannotated\n" || dig(t, tag, "tagger", "raw") != "Bob Builder <bob@example.com>" ||
		tag["date"] == nil || dig(t, tag, "target", "hash") != b.tip("main") {
		t.Errorf("%v", annotated)
	}
	b.git(dir, "tag", "-f", "-a", "annotated", "-m", "Again")
	if moved := push("+annotated").at(t, "push", "changes", 0).(map[string]any); moved["old"] == nil || dig(t, moved, "new", "message") != "Again\n" {
		t.Errorf("%v", moved)
	}
	if gone := push(":light").at(t, "push", "changes", 0).(map[string]any); gone["closed"] != true || dig(t, gone, "old", "type") != "tag" {
		t.Errorf("%v", gone)
	}
}

func TestRule60_EmptyPush(t *testing.T) {
	t.Parallel()
	b, dir, push := pushes(t)
	b.git(dir, "notes", "add", "-m", "A note")
	if list := push("refs/notes/commits").at(t, "push", "changes").([]any); len(list) != 0 {
		t.Errorf("%v", list)
	}
}

func TestRule61_ShapesInDeliveries(t *testing.T) {
	t.Parallel()
	b, dir, push := pushes(t)
	b.commit(dir, "a", "a")
	in := push("main")
	if hash := in.at(t, "push", "changes", 0, "new", "target", "hash").(string); len(hash) != 40 {
		t.Errorf("hash %s", hash)
	}
	if _, there := in.at(t, "actor").(map[string]any)["username"]; there || in.at(t, "actor", "display_name") != "Bob Builder" {
		t.Errorf("actor %v", in.at(t, "actor"))
	}
	repo := in.at(t, "repository").(map[string]any)
	_, slug := repo["slug"]
	_, main := repo["mainbranch"]
	if slug || main || repo["full_name"] != "acme/shop" || dig(t, any(repo), "workspace", "slug") != "acme" || repo["project"] == nil {
		t.Errorf("%v", repo)
	}
	if in.at(t, "push", "changes", 0, "new", "target", "author", "user", "display_name") != "Bob Builder" {
		t.Error("the author is nobody")
	}
}

func TestRule62_RepositoryEvents(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	b.hook(to.URL, "s", "repo:updated", "repo:deleted", "repo:fork")
	b.call("alice", http.MethodPut, shopAPI, obj{"name": "store"}).want(http.StatusOK)
	in := to.next(t)
	if in.header.Get("X-Event-Key") != "repo:updated" || in.at(t, "changes", "name", "old") != "shop" || in.at(t, "changes", "full_name", "new") != "acme/store" {
		t.Errorf("%s", in.raw)
	}
	if err := b.AddWorkspace("bobs", "Bobs", map[string]string{"bob": "admin"}); err != nil {
		t.Fatal(err)
	}
	b.call("bob", http.MethodPost, "/2.0/repositories/acme/store/forks", obj{"workspace": obj{"slug": "bobs"}}).want(http.StatusCreated, `"full_name":"bobs/store"`)
	if in := to.next(t); in.header.Get("X-Event-Key") != "repo:fork" || in.at(t, "fork", "full_name") != "bobs/store" {
		t.Errorf("%s", in.raw)
	}
	b.call("bob", http.MethodDelete, "/2.0/repositories/acme/store", nil).want(http.StatusForbidden)
	b.call("alice", http.MethodDelete, "/2.0/repositories/acme/store", nil).want(http.StatusNoContent)
	if in := to.next(t); in.header.Get("X-Event-Key") != "repo:deleted" || in.header.Get("X-Hub-Signature") != sign("s", in.raw) {
		t.Errorf("%v", in.header)
	}
	b.get("alice", "/2.0/repositories/acme/store").want(http.StatusNotFound)
}

func pullBody(title, source string) obj {
	return obj{"title": title, "source": obj{"branch": obj{"name": source}}, "destination": obj{"branch": obj{"name": "main"}}}
}
