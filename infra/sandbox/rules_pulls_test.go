package sandbox

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const pullsAPI = shopAPI + "/pullrequests"

// open makes a branch with one commit and a pull request from it, and answers the
// branch's tip.
func (b *bench) open(branch string) string {
	b.Helper()
	hash := b.put(branch, branch+".txt", "new\n")
	b.call("bob", http.MethodPost, pullsAPI, pullBody("Add "+branch, branch)).want(http.StatusCreated, `"state":"OPEN"`)
	return hash
}

func (b *bench) status(as, hash string, body obj) *answered {
	b.Helper()
	full := obj{"key": "ci", "state": "SUCCESSFUL", "url": "http://127.0.0.1:8080/builds/1"}
	for name, value := range body {
		full[name] = value
	}
	return b.call(as, http.MethodPost, shopAPI+"/commit/"+hash+"/statuses/build", full)
}

func TestRule63_Opening(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.put("topic", "a", "a")
	for _, body := range []obj{
		pullBody("", "topic"), pullBody("T", ""), pullBody("T", "none"), pullBody("T", "main"),
		{"title": "T", "source": obj{"branch": obj{"name": "topic"}}, "destination": obj{"branch": obj{"name": "none"}}},
		{"title": "T", "source": obj{"branch": obj{"name": "topic"}, "repository": obj{"full_name": "elsewhere/attic"}}},
		{"title": "T", "source": obj{"branch": obj{"name": "topic"}, "repository": obj{"full_name": "acme/docs"}}},
	} {
		b.call("bob", http.MethodPost, pullsAPI, body).want(http.StatusBadRequest)
	}
	b.call("mallory", http.MethodPost, pullsAPI, pullBody("T", "topic")).want(http.StatusNotFound)
	a := b.call("carol", http.MethodPost, pullsAPI, obj{"title": "T", "source": obj{"branch": obj{"name": "topic"}}}).want(http.StatusCreated)
	if a.at("id") != 1.0 || a.text("destination", "branch", "name") != "main" {
		t.Errorf("%s", a.body)
	}
	b.call("bob", http.MethodPost, pullsAPI, pullBody("Again", "topic")).want(http.StatusBadRequest)
	b.get("carol", pullsAPI+"/1").want(http.StatusOK, `"title":"T"`)
	b.get("carol", pullsAPI+"/2").want(http.StatusNotFound)
}

func TestRule64_Listing(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, branch := range []string{"one", "two", "three"} {
		b.open(branch)
	}
	b.call("bob", http.MethodPost, pullsAPI+"/1/decline", obj{}).want(http.StatusOK)
	for query, want := range map[string]string{
		"":           "three two",
		"state=OPEN": "three two", "state=DECLINED": "one", "state=OPEN&state=DECLINED": "three two one",
		"state=OPEN&q=" + url.QueryEscape(`source.branch.name="two"`): "two",
		"q=" + url.QueryEscape(`state="DECLINED"`):                    "one",
		"state=MERGED": "",
	} {
		a := b.get("carol", pullsAPI+"?"+query).want(http.StatusOK)
		var got []string
		for i := range a.size("values") {
			got = append(got, a.text("values", i, "source", "branch", "name"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", query, got, want)
		}
	}
	b.get("carol", pullsAPI+"?state=NONE").want(http.StatusBadRequest)
	b.get("carol", pullsAPI+"?pagelen=50").want(http.StatusOK)
	b.get("carol", pullsAPI+"?pagelen=51").want(http.StatusBadRequest, "Invalid pagelen")
}

func TestRule65_ShortHashes(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	b.hook(to.URL, "", "pullrequest:created", "pullrequest:fulfilled")
	head := b.open("topic")
	in := to.next(t)
	if got := in.at(t, "pullrequest", "source", "commit", "hash"); got != head[:12] {
		t.Errorf("source %v, want %s", got, head[:12])
	}
	main := b.put("main", "b", "b")
	if got := b.get("bob", pullsAPI+"/1").want(http.StatusOK).text("destination", "commit", "hash"); got != main[:12] {
		t.Errorf("destination %s, want %s", got, main[:12])
	}
	b.get("bob", shopAPI+"/commit/"+head[:12]).want(http.StatusOK, head)
	merged := b.call("bob", http.MethodPost, pullsAPI+"/1/merge", obj{}).want(http.StatusOK).text("merge_commit", "hash")
	if tip := b.tip("main"); merged != tip[:12] {
		t.Errorf("merged as %s, the tip is %s", merged, tip)
	}
	if got := to.next(t).at(t, "pullrequest", "merge_commit", "hash"); got != merged {
		t.Errorf("announced %v", got)
	}
	b.put("main", "c", "c")
	if got := b.get("bob", pullsAPI+"/1").want(http.StatusOK).text("destination", "commit", "hash"); got != main[:12] {
		t.Errorf("the destination of a closed one moved to %s", got)
	}
}

// keys sorts deliveries by their event.
func keys(t *testing.T, list []received) map[string]received {
	t.Helper()
	found := map[string]received{}
	for _, in := range list {
		key := in.header.Get("X-Event-Key")
		if _, twice := found[key]; twice {
			t.Errorf("%s came twice", key)
		}
		found[key] = in
	}
	return found
}

func TestRule66_PushToTheSource(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.open("topic")
	to := receive(t, nil)
	b.hook(to.URL, "", "repo:push", "pullrequest:updated")
	hash := b.put("topic", "more", "more")
	b.settle()
	got := keys(t, to.all())
	if len(got) != 2 || got["repo:push"].at(t, "push", "changes", 0, "new", "target", "hash") != hash {
		t.Fatalf("%d deliveries", len(got))
	}
	if short := got["pullrequest:updated"].at(t, "pullrequest", "source", "commit", "hash"); short != hash[:12] {
		t.Errorf("source %v", short)
	}
	b.put("main", "other", "other")
	b.settle()
	if got := keys(t, to.all()); len(got) != 1 {
		t.Errorf("a push to the target gave %d deliveries", len(got))
	}
}

func TestRule67_EditingTheTitle(t *testing.T) {
	t.Parallel()
	b := start(t)
	head := b.open("topic")
	to := receive(t, nil)
	b.hook(to.URL, "", "pullrequest:updated", "repo:push")
	b.call("carol", http.MethodPut, pullsAPI+"/1", obj{"title": "Mine"}).want(http.StatusForbidden)
	b.call("bob", http.MethodPut, pullsAPI+"/1", obj{"title": ""}).want(http.StatusBadRequest)
	b.call("alice", http.MethodPut, pullsAPI+"/1", obj{"title": "Better"}).want(http.StatusOK, `"title":"Better"`)
	b.settle()
	got := to.all()
	if len(got) != 1 || got[0].at(t, "pullrequest", "title") != "Better" || got[0].at(t, "pullrequest", "source", "commit", "hash") != head[:12] {
		t.Fatalf("%d deliveries", len(got))
	}
	b.call("bob", http.MethodPut, pullsAPI+"/1", obj{"destination": obj{"branch": obj{"name": "none"}}}).want(http.StatusBadRequest)
	b.call("bob", http.MethodPut, pullsAPI+"/1", obj{"destination": obj{"branch": obj{"name": "develop"}}}).want(http.StatusOK)
	if got := to.next(t).at(t, "pullrequest", "destination", "branch", "name"); got != "develop" {
		t.Errorf("destination %v", got)
	}
}

func TestRule68_Merging(t *testing.T) {
	t.Parallel()
	b := start(t)
	head := b.open("topic")
	before := b.put("main", "other", "other\n")
	to := receive(t, nil)
	b.hook(to.URL, "", "repo:push", "pullrequest:fulfilled")
	b.call("bob", http.MethodPost, pullsAPI+"/1/merge", obj{"close_source_branch": true}).want(http.StatusOK, `"state":"MERGED"`, `"closed_by":{`)
	b.settle()
	tip := b.tip("main")
	var kinds []string
	for _, in := range to.all() {
		kind := in.header.Get("X-Event-Key")
		if kind == "repo:push" {
			change := in.at(t, "push", "changes", 0)
			kind += fmt.Sprintf(" closed=%v", dig(t, change, "closed"))
			if dig(t, change, "closed") == false && (dig(t, change, "new", "target", "hash") != tip || len(dig(t, change, "new", "target", "parents").([]any)) != 2) {
				t.Errorf("%s", in.raw)
			}
		}
		kinds = append(kinds, kind)
	}
	if got := strings.Join(kinds, ", "); len(kinds) != 3 || !strings.Contains(got, "pullrequest:fulfilled") || !strings.Contains(got, "closed=true") || !strings.Contains(got, "closed=false") {
		t.Errorf("deliveries %s", got)
	}
	b.get("bob", shopAPI+"/refs/branches/topic").want(http.StatusNotFound)
	dir := b.clone("carol")
	if parents := b.git(dir, "log", "-1", "--format=%P"); parents != before+" "+head {
		t.Errorf("parents %s", parents)
	}
	b.git(dir, "cat-file", "-e", "HEAD:topic.txt")
	b.git(dir, "cat-file", "-e", "HEAD:other")
	b.git(dir, "fsck", "--strict")

	b.open("squashed")
	b.call("bob", http.MethodPost, pullsAPI+"/2/merge", obj{"merge_strategy": "squash", "message": "Squashed"}).want(http.StatusOK)
	forward := b.open("forward")
	b.call("bob", http.MethodPost, pullsAPI+"/3/merge", obj{"merge_strategy": "fast_forward"}).want(http.StatusOK)
	if got := b.tip("main"); got != forward {
		t.Errorf("main is at %s, want %s", got, forward)
	}
	b.git(dir, "pull", "--quiet")
	if parents := b.git(dir, "log", "-1", "--format=%P %s", "HEAD~1"); parents != tip+" Squashed" {
		t.Errorf("squashed: %s", parents)
	}
	b.put("conflict", "other", "one\n")
	b.call("bob", http.MethodPost, pullsAPI, pullBody("Conflict", "conflict")).want(http.StatusCreated)
	b.put("main", "other", "two\n")
	b.call("bob", http.MethodPost, pullsAPI+"/4/merge", obj{"merge_strategy": "fast_forward"}).want(http.StatusBadRequest)
	b.call("bob", http.MethodPost, pullsAPI+"/4/merge", obj{"merge_strategy": "other"}).want(http.StatusBadRequest)
	b.call("bob", http.MethodPost, pullsAPI+"/4/merge", obj{}).want(http.StatusConflict)
	b.get("bob", pullsAPI+"/4").want(http.StatusOK, `"state":"OPEN"`)
}

func TestRule69_BuildsMustPass(t *testing.T) {
	t.Parallel()
	b := start(t)
	head := b.open("topic")
	rules := shopAPI + "/branch-restrictions"
	b.call("bob", http.MethodPost, rules, obj{"kind": "require_passing_builds_to_merge", "value": 2}).want(http.StatusForbidden)
	b.call("alice", http.MethodPost, rules, obj{"kind": "other"}).want(http.StatusBadRequest)
	b.call("alice", http.MethodPost, rules, obj{"kind": "require_passing_builds_to_merge", "value": 2}).want(http.StatusCreated, `"value":2`)
	b.get("alice", rules).want(http.StatusOK, "require_passing_builds_to_merge")
	refused := func(why string) {
		t.Helper()
		b.call("bob", http.MethodPost, pullsAPI+"/1/merge", obj{}).want(http.StatusBadRequest, "builds must pass", why)
	}
	refused("0 of 2")
	b.status("bob", head, obj{"key": "one", "refname": "topic"}).want(http.StatusCreated)
	refused("1 of 2")
	for _, state := range []string{"INPROGRESS", "FAILED", "STOPPED"} {
		b.status("bob", head, obj{"key": "two", "state": state}).want(http.StatusCreated)
		refused("the build two is " + state)
	}
	b.status("bob", head, obj{"key": "other", "refname": "main", "state": "FAILED"}).want(http.StatusCreated) // of another branch
	b.get("bob", "/acme/shop/pull-requests/1").want(http.StatusOK, "NOT MET", "STOPPED")
	b.status("bob", head, obj{"key": "two"}).want(http.StatusCreated)
	b.get("bob", "/acme/shop/pull-requests/1").want(http.StatusOK, ">MET<")
	b.call("bob", http.MethodPost, pullsAPI+"/1/merge", obj{}).want(http.StatusOK)

	b.open("again")
	refused409 := b.call("bob", http.MethodPost, pullsAPI+"/2/merge", obj{})
	refused409.want(http.StatusBadRequest)
	b.form("bob", "/acme/shop/merge-check", url.Values{"builds": {"0"}}).want(http.StatusForbidden)
	b.form("alice", "/acme/shop/merge-check", url.Values{"builds": {"0"}}).want(http.StatusSeeOther)
	b.call("alice", http.MethodDelete, rules+"/1", nil).want(http.StatusNotFound)
	b.call("bob", http.MethodPost, pullsAPI+"/2/merge", obj{}).want(http.StatusOK)
}

func TestRule70_DecliningAndClosed(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.open("topic")
	to := receive(t, nil)
	b.hook(to.URL, "", "pullrequest:rejected")
	b.call("carol", http.MethodPost, pullsAPI+"/1/decline", obj{}).want(http.StatusForbidden)
	b.call("bob", http.MethodPost, pullsAPI+"/1/decline", obj{}).want(http.StatusOK, `"state":"DECLINED"`)
	if in := to.next(t); in.at(t, "pullrequest", "state") != "DECLINED" || in.at(t, "pullrequest", "closed_by", "display_name") != "Bob Builder" {
		t.Errorf("%s", in.raw)
	}
	for _, action := range []string{"/merge", "/decline"} {
		b.call("bob", http.MethodPost, pullsAPI+"/1"+action, obj{}).want(http.StatusBadRequest)
	}
	b.call("bob", http.MethodPut, pullsAPI+"/1", obj{"title": "x"}).want(http.StatusBadRequest)
	b.put("topic", "later", "later")
	b.settle()
	if n := len(to.all()); n != 0 {
		t.Errorf("%d deliveries of a closed pull request", n)
	}
}

func TestRule71_PullRequestStatuses(t *testing.T) {
	t.Parallel()
	b := start(t)
	head := b.open("topic")
	b.status("bob", head, obj{"key": "none"}).want(http.StatusCreated)
	b.status("bob", head, obj{"key": "topic", "refname": "topic"}).want(http.StatusCreated)
	b.status("bob", head, obj{"key": "main", "refname": "main"}).want(http.StatusCreated)
	list := func() string {
		a := b.get("carol", pullsAPI+"/1/statuses").want(http.StatusOK)
		var got []string
		for i := range a.size("values") {
			got = append(got, a.text("values", i, "key"))
		}
		return strings.Join(got, " ")
	}
	if got := list(); got != "none topic" {
		t.Errorf("statuses %s", got)
	}
	b.put("topic", "more", "more")
	if got := list(); got != "" {
		t.Errorf("after a push: %s", got)
	}
}

func TestRule72_MergingNeedsWrite(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.put("topic", "a", "a")
	b.call("carol", http.MethodPost, pullsAPI, pullBody("T", "topic")).want(http.StatusCreated)
	b.call("carol", http.MethodPost, pullsAPI+"/1/merge", obj{}).want(http.StatusForbidden)
	b.form("carol", "/acme/shop/pull-requests/1/merge", nil).want(http.StatusForbidden)
	b.call("bob", http.MethodPost, pullsAPI+"/1/merge", obj{}).want(http.StatusOK)
}

func TestRule73_Forks(t *testing.T) {
	t.Parallel()
	b := start(t)
	if err := b.AddWorkspace("carols", "Carols", map[string]string{"carol": "admin"}); err != nil {
		t.Fatal(err)
	}
	fork := b.call("carol", http.MethodPost, shopAPI+"/forks", obj{"workspace": obj{"slug": "carols"}}).want(http.StatusCreated, `"parent":{`)
	b.call("bob", http.MethodPost, shopAPI+"/forks", obj{"workspace": obj{"slug": "carols"}}).want(http.StatusBadRequest)
	head, err := b.AddCommit(context.Background(), NewCommit{Repository: "carols/shop", Branch: "idea", User: "carol", Files: map[string][]byte{"idea": []byte("idea\n")}})
	if err != nil {
		t.Fatal(err)
	}
	to := receive(t, nil)
	b.hook(to.URL, "", "pullrequest:created", "pullrequest:updated", "repo:push")
	source := obj{"branch": obj{"name": "idea"}, "repository": obj{"full_name": "carols/shop"}}
	b.call("carol", http.MethodPost, pullsAPI, obj{"title": "Idea", "source": source}).want(http.StatusCreated)
	in := to.next(t)
	if in.at(t, "pullrequest", "source", "repository", "uuid") != fork.text("uuid") || in.at(t, "repository", "full_name") != "acme/shop" {
		t.Errorf("%s", in.raw)
	}
	b.get("alice", shopAPI+"/commit/"+head).want(http.StatusNotFound)
	b.status("alice", head, nil).want(http.StatusNotFound)
	b.get("alice", "/2.0/repositories/carols/shop").want(http.StatusNotFound) // private, and not hers
	b.call("carol", http.MethodPost, shopAPI+"/forks", obj{"name": "open", "workspace": obj{"slug": "carols"}, "is_private": false}).want(http.StatusCreated)
	b.get("alice", "/2.0/repositories/carols/open/commit/"+head).want(http.StatusNotFound)
	b.get("alice", "/2.0/repositories/carols/open").want(http.StatusOK, `"is_private":false`)
	b.call("alice", http.MethodPut, "/2.0/repositories/carols/open", obj{}).want(http.StatusForbidden)

	head, err = b.AddCommit(context.Background(), NewCommit{Repository: "carols/shop", Branch: "idea", User: "carol", Files: map[string][]byte{"idea": []byte("better\n")}})
	if err != nil {
		t.Fatal(err)
	}
	in = to.next(t)
	if in.header.Get("X-Event-Key") != "pullrequest:updated" || in.at(t, "pullrequest", "source", "commit", "hash") != head[:12] {
		t.Errorf("%s", in.raw)
	}
	b.call("alice", http.MethodPost, pullsAPI+"/1/merge", obj{}).want(http.StatusOK)
	b.get("alice", shopAPI+"/src/main/idea").want(http.StatusOK, "better")
	b.call("carol", http.MethodDelete, "/2.0/repositories/carols/shop", nil).want(http.StatusNoContent)
	if a := b.get("alice", pullsAPI+"/1").want(http.StatusOK); a.at("source", "repository") != nil {
		t.Errorf("%s", a.body)
	}
}
