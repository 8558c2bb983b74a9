package sandbox

import (
	"net/http"
	"strings"
	"testing"
)

func TestRule74_CreateAndUpdate(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	path := shopAPI + "/commit/" + hash + "/statuses"
	for _, missing := range []string{"key", "state", "url"} {
		body := obj{"key": "ci", "state": "INPROGRESS", "url": "http://127.0.0.1/"}
		delete(body, missing)
		b.call("bob", http.MethodPost, path+"/build", body).want(http.StatusBadRequest, missing+": ", `"fields":{"`+missing)
	}
	b.status("bob", hash, obj{"state": "INPROGRESS", "name": "CI", "description": "queued"}).want(http.StatusCreated, `"refname":null`, `"type":"build"`)
	b.status("bob", hash, obj{"state": "FAILED"}).want(http.StatusCreated, `"name":"CI"`)
	if n := b.get("carol", path).want(http.StatusOK).size("values"); n != 1 {
		t.Errorf("%d statuses", n)
	}
	b.call("bob", http.MethodPut, path+"/build/ci", obj{"state": "SUCCESSFUL"}).want(http.StatusOK, `"state":"SUCCESSFUL"`, `"description":"queued"`)
	b.call("bob", http.MethodPut, path+"/build/ci", obj{"key": "other"}).want(http.StatusBadRequest)
	b.call("bob", http.MethodPut, path+"/build/none", obj{"state": "FAILED"}).want(http.StatusNotFound)
	b.get("carol", path+"/build/ci").want(http.StatusOK, `"state":"SUCCESSFUL"`, `"hash":"`+hash)
	b.get("carol", path+"/build/none").want(http.StatusNotFound)
	b.status("bob", hash, obj{"key": "a/b c", "refname": "main"}).want(http.StatusCreated)
	b.get("carol", path+"/build/a%2Fb%20c").want(http.StatusOK)
	if n := b.get("carol", path+"?refname=develop&sort=-created_on").want(http.StatusOK).size("values"); n != 1 {
		t.Errorf("%d for develop", n)
	}
}

func TestRule75_KeyLength(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	b.status("bob", hash, obj{"key": strings.Repeat("k", 40)}).want(http.StatusCreated)
	a := b.status("bob", hash, obj{"key": strings.Repeat("k", 48)}).want(http.StatusBadRequest)
	want := `{"error":{"fields":{"key":["Ensure this value has at most 40 characters (it has 48)."]},"message":"key: Ensure this value has at most 40 characters (it has 48)."},"type":"error"}`
	if got := strings.TrimSpace(string(a.body)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	b.status("bob", hash, obj{"key": ""}).want(http.StatusBadRequest)
}

func TestRule76_States(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	for _, state := range []string{"INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"} {
		b.status("bob", hash, obj{"state": state}).want(http.StatusCreated)
	}
	for _, state := range []string{"PENDING", "successful", "CANCELLED", ""} {
		b.status("bob", hash, obj{"state": state}).want(http.StatusBadRequest)
	}
}

func TestRule77_StatusURL(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	for address, status := range map[string]int{
		"https://ci.example.com/builds/1":         201,
		"http://127.0.0.1:8080/builds/1":          201,
		"http://[::1]:8080/builds/1":              201,
		"https://ci.example.com/%7Babc%7D":        201,
		"https://ci.example.com/{abc}":            400,
		"http://localhost:8080/builds/1":          400,
		"http://jenkins/builds/1":                 400,
		"/builds/1":                               400,
		"ftp://ci.example.com/":                   400,
		"javascript:alert(1)":                     400,
		"":                                        400,
		"https://ci.example.com/builds/1?x={uid}": 400,
	} {
		b.status("bob", hash, obj{"url": address}).want(status)
	}
}

func TestRule78_StatusCommit(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	for _, name := range []string{hash[:12], hash[:39], strings.Repeat("1", 40), "main", strings.Repeat("2", 12)} {
		b.status("bob", name, nil).want(http.StatusNotFound)
		b.get("bob", shopAPI+"/commit/"+name+"/statuses").want(http.StatusNotFound)
	}
}

func TestRule79_ReadIsEnough(t *testing.T) {
	t.Parallel()
	b := start(t, func(d *Deps) { d.Scopes = []string{"repository"} })
	access, _ := b.connect("carol")
	hash := b.tip("main")
	b.status("Bearer "+access, hash, nil).want(http.StatusCreated)
	b.status("mallory", hash, nil).want(http.StatusNotFound)
	b.status("", hash, nil).want(http.StatusNotFound)
}

func TestRule80_Ownership(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	b.status("bob", hash, obj{"state": "INPROGRESS"}).want(http.StatusCreated)
	b.status("carol", hash, nil).want(http.StatusForbidden)
	b.call("carol", http.MethodPut, shopAPI+"/commit/"+hash+"/statuses/build/ci", obj{"state": "FAILED"}).want(http.StatusForbidden)
	b.status("carol", hash, obj{"key": "mine"}).want(http.StatusCreated)
	b.status("bob", hash, obj{"key": "mine"}).want(http.StatusForbidden)
	b.status("alice", hash, nil).want(http.StatusCreated)
	b.status("bob", hash, obj{"state": "FAILED"}).want(http.StatusCreated) // still its creator
}

func TestRule81_RefNames(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	path := shopAPI + "/commit/" + hash + "/statuses"
	b.status("bob", hash, obj{"refname": "refs/heads/main"}).want(http.StatusBadRequest)
	b.status("bob", hash, nil).want(http.StatusCreated, `"refname":null`)
	b.status("bob", hash, obj{"refname": "main"}).want(http.StatusCreated, `"refname":"main"`)
	b.status("bob", hash, obj{"refname": nil}).want(http.StatusCreated, `"refname":"main"`)
	b.status("bob", hash, obj{"refname": ""}).want(http.StatusCreated, `"refname":"main"`)
	b.status("bob", hash, nil).want(http.StatusCreated, `"refname":"main"`)
	b.call("bob", http.MethodPut, path+"/build/ci", obj{"refname": "main"}).want(http.StatusOK)
	b.call("bob", http.MethodPut, path+"/build/ci", obj{"refname": "develop"}).want(http.StatusInternalServerError)
	if n := b.get("bob", path).want(http.StatusOK).size("values"); n != 1 {
		t.Errorf("%d statuses", n)
	}
	b.status("bob", hash, obj{"refname": "develop", "state": "FAILED"}).want(http.StatusCreated)
	a := b.get("bob", path+"?q=key%3D%22ci%22").want(http.StatusOK)
	if a.size("values") != 2 || a.text("values", 0, "state") != "SUCCESSFUL" || a.text("values", 1, "state") != "FAILED" {
		t.Errorf("%s", a.body)
	}
	b.call("bob", http.MethodPut, path+"/build/ci", obj{"state": "STOPPED"}).want(http.StatusInternalServerError)
	b.status("bob", hash, obj{"refname": "main", "state": "STOPPED"}).want(http.StatusCreated)
}

func TestRule82_StatusesStay(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	b.status("bob", hash, nil).want(http.StatusCreated)
	b.call("alice", http.MethodDelete, shopAPI+"/commit/"+hash+"/statuses/build/ci", nil).want(http.StatusNotFound)
	b.get("bob", shopAPI+"/commit/"+hash+"/statuses/build/ci").want(http.StatusOK)
}

func TestRule83_StatusEvents(t *testing.T) {
	t.Parallel()
	b := start(t)
	to := receive(t, nil)
	b.hook(to.URL, "", "repo:commit_status_created", "repo:commit_status_updated")
	hash := b.tip("main")
	for _, key := range []string{"repo:commit_status_created", "repo:commit_status_updated"} {
		b.status("bob", hash, nil).want(http.StatusCreated)
		in := to.next(t)
		if in.header.Get("X-Event-Key") != key || in.at(t, "commit_status", "commit", "hash") != hash {
			t.Errorf("%s: %s", key, in.raw)
		}
	}
}
