package sandbox

import (
	"net/http"
	"testing"
)

// The way a product uses it all: connect, hook, push, read the pipeline, report.
func TestFlow(t *testing.T) {
	t.Parallel()
	b := start(t)
	access, _ := b.connect("alice")
	bearer := "Bearer " + access
	to := receive(t, nil)
	b.call(bearer, http.MethodPost, shopAPI+"/hooks", obj{"url": to.URL, "secret": "s3cret", "events": []string{"repo:push"}}).want(http.StatusCreated)

	dir := b.clone("bob")
	hash := b.commit(dir, "new.txt", "new\n")
	b.git(dir, "push", "--quiet", "origin", "main")
	in := to.next(t)
	if got := in.header.Get("X-Hub-Signature"); got != sign("s3cret", in.raw) {
		t.Errorf("signature %q", got)
	}
	if got := in.at(t, "push", "changes", 0, "new", "target", "hash"); got != hash {
		t.Errorf("pushed %v, want %s", got, hash)
	}
	b.get(bearer, shopAPI+"/src/"+hash+"/.runnerhub/runnerhub.yml").want(http.StatusOK, "name: Shop")
	status := obj{"key": "k", "state": "SUCCESSFUL", "url": "http://127.0.0.1:8080/builds/1", "refname": "main"}
	b.call(bearer, http.MethodPost, shopAPI+"/commit/"+hash+"/statuses/build", status).want(http.StatusCreated)
	b.get(bearer, shopAPI+"/commit/"+hash+"/statuses").want(http.StatusOK, `"state":"SUCCESSFUL"`)
	b.get("carol", "/acme/shop").want(http.StatusOK, "SUCCESSFUL", "Change new.txt")
}
