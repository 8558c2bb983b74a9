package sandbox

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestRule16_RemovedLists(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, path := range []string{"/2.0/repositories", "/2.0/workspaces", "/2.0/user/permissions/workspaces", "/2.0/user/permissions/repositories?pagelen=100"} {
		b.get("alice", path).want(http.StatusGone, `"CHANGE-2770 - Functionality has been deprecated"`, `"announcement_url"`, `"type":"error"`)
	}
}

func TestRule17_Authentication(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.get("alice", "/2.0/user").want(http.StatusOK)
	b.get("", "/2.0/user").want(http.StatusUnauthorized, `"type":"error"`)
	b.get("", "/2.0/repositories/acme").want(http.StatusUnauthorized)
	for _, header := range []string{basic("alice", "wrong"), basic("nobody", "nobody"), "Token x"} {
		a, err := b.send("", http.MethodGet, "/2.0/user", http.Header{"Authorization": {header}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.want(http.StatusUnauthorized)
	}
}

func TestRule18_HiddenRepositories(t *testing.T) {
	t.Parallel()
	b := start(t)
	hidden := b.get("mallory", shopAPI).want(http.StatusNotFound)
	missing := b.get("mallory", "/2.0/repositories/acme/none").want(http.StatusNotFound)
	if string(hidden.body) != string(missing.body) {
		t.Errorf("%s\n%s", hidden.body, missing.body)
	}
	for _, path := range []string{"/hooks", "/src/main/README.md", "/pullrequests", "/refs/branches", "/commit/" + b.tip("main") + "/statuses"} {
		b.get("mallory", shopAPI+path).want(http.StatusNotFound)
		b.get("", shopAPI+path).want(http.StatusNotFound)
	}
	b.get("mallory", "/2.0/repositories/acme").want(http.StatusNotFound)
	b.call("alice", http.MethodPut, shopAPI, obj{"is_private": false}).want(http.StatusOK)
	b.get("", shopAPI+"/src/main/README.md").want(http.StatusOK)
	b.get("mallory", shopAPI).want(http.StatusOK)
	b.get("", shopAPI+"/hooks").want(http.StatusUnauthorized)
	b.call("", http.MethodPost, shopAPI+"/commit/"+b.tip("main")+"/statuses/build", obj{}).want(http.StatusUnauthorized)
}

func TestRule19_UserNames(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.get("alice", "/2.0/user").want(http.StatusOK, `"username":"alice"`, `"account_id"`, `"uuid":"{`)
	for _, path := range []string{shopAPI, shopAPI + "/commit/main", "/2.0/user/workspaces/acme/permission"} {
		if a := b.get("alice", path).want(http.StatusOK); strings.Contains(string(a.body), "username") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

func TestRule20_Workspaces(t *testing.T) {
	t.Parallel()
	b := start(t)
	a := b.get("alice", "/2.0/user/workspaces?pagelen=100&sort=slug").want(http.StatusOK)
	if a.size("values") != 1 || a.at("values", 0, "administrator") != true || a.text("values", 0, "workspace", "slug") != "acme" {
		t.Errorf("%s", a.body)
	}
	if name := a.at("values", 0, "workspace", "name"); name != nil || a.at("values", 0, "role") != nil {
		t.Errorf("name %v", name)
	}
	if n := b.get("bob", "/2.0/user/workspaces?administrator=true").want(http.StatusOK).size("values"); n != 0 {
		t.Errorf("bob administers %d", n)
	}
	b.get("bob", "/2.0/user/workspaces?administrator=maybe").want(http.StatusBadRequest)
}

func TestRule21_WorkspacePermission(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.get("alice", "/2.0/user/workspaces/acme/permission").want(http.StatusOK, `"permission":"owner"`)
	b.get("bob", "/2.0/user/workspaces/acme/permission").want(http.StatusOK, `"permission":"member"`)
	b.get("mallory", "/2.0/user/workspaces/acme/permission").want(http.StatusNotFound)
	b.get("mallory", "/2.0/workspaces/acme").want(http.StatusNotFound)
	b.get("bob", "/2.0/workspaces/acme").want(http.StatusOK, `"name":"Acme"`)
}

func TestRule22_RepositoryPermissions(t *testing.T) {
	t.Parallel()
	b := start(t)
	list := func(as, q string) int {
		return b.get(as, "/2.0/user/workspaces/acme/permissions/repositories?q="+url.QueryEscape(q)).want(http.StatusOK).size("values")
	}
	for _, c := range []struct {
		as, q string
		n     int
	}{
		{"alice", `permission="admin"`, 2},
		{"bob", `permission="admin"`, 0},
		{"bob", `permission>"read"`, 2},
		{"carol", `permission>"read"`, 0},
		{"carol", `permission>="read" AND repository.name~"SHO"`, 1},
	} {
		if n := list(c.as, c.q); n != c.n {
			t.Errorf("%s %s: got %d, want %d", c.as, c.q, n, c.n)
		}
	}
	b.get("bob", `/2.0/user/workspaces/acme/permissions/repositories?q=permission%3D%22boss%22`).want(http.StatusBadRequest)
	b.get("mallory", "/2.0/user/workspaces/acme/permissions/repositories").want(http.StatusNotFound)
}

func TestRule23_RepositoriesByRole(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.call("bob", http.MethodPost, "/2.0/repositories/acme/tools", obj{}).want(http.StatusOK)
	if err := b.AddUser("dave", "Dave Director"); err != nil {
		t.Fatal(err)
	}
	err := b.store.update(func(t *tx) error {
		w := *t.workspaceAt("acme")
		members := map[string]member{t.userNamed("dave").ID: {Administrator: true}}
		for id, m := range w.Members {
			members[id] = m
		}
		w.Members = members
		t.put(&w)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		as, query string
		n         int
	}{
		{"carol", "", 3},
		{"carol", "role=member", 3},
		{"carol", "role=contributor", 0},
		{"bob", "role=contributor", 3},
		{"bob", "role=admin", 1},
		{"bob", "role=owner", 0},
		{"alice", "role=admin&pagelen=100&sort=-updated_on", 3},
		{"dave", "", 3},
		{"dave", "role=admin", 0},
		{"dave", "role=owner", 3},
		{"alice", "q=" + url.QueryEscape(`name~"SH"`), 1},
	} {
		if n := b.get(c.as, "/2.0/repositories/acme?"+c.query).want(http.StatusOK).size("values"); n != c.n {
			t.Errorf("%s %s: got %d, want %d", c.as, c.query, n, c.n)
		}
	}
	b.get("alice", "/2.0/repositories/acme?role=boss").want(http.StatusBadRequest)
	b.get("alice", "/2.0/repositories/none").want(http.StatusNotFound)
}

func TestRule24_Pages(t *testing.T) {
	t.Parallel()
	b := start(t)
	for i := range 13 {
		b.call("alice", http.MethodPost, fmt.Sprintf("/2.0/repositories/acme/r%02d", i), obj{}).want(http.StatusOK)
	}
	first := b.get("alice", "/2.0/repositories/acme?sort=slug").want(http.StatusOK)
	if first.size("values") != 10 || first.at("pagelen") != 10.0 {
		t.Errorf("%d on a page", first.size("values"))
	}
	next := first.text("next")
	if !strings.HasPrefix(next, b.url+"/2.0/repositories/acme?") || strings.Contains(next, "page=2") {
		t.Errorf("next %s", next)
	}
	second := b.get("alice", next).want(http.StatusOK)
	if second.size("values") != 5 || second.at("next") != nil || second.text("values", 0, "slug") != "r09" {
		t.Errorf("%.300s", second.body)
	}
	b.get("alice", second.text("previous")).want(http.StatusOK, `"docs"`)
	page := mustQuery(t, next).Get("page")
	for _, query := range []string{"page=2", "page=1", "page=abc", "pagelen=101", "pagelen=0", "pagelen=x", "sort=-slug&page=" + page} {
		b.get("alice", "/2.0/repositories/acme?"+query).want(http.StatusBadRequest)
	}
	b.get("alice", "/2.0/repositories/acme/shop/refs/branches?page="+page).want(http.StatusBadRequest)
	if n := b.get("alice", "/2.0/repositories/acme?pagelen=100").want(http.StatusOK).size("values"); n != 15 {
		t.Errorf("%d", n)
	}
}

func mustQuery(t *testing.T, address string) url.Values {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func TestRule25_QueryAndSort(t *testing.T) {
	t.Parallel()
	b := start(t)
	for q, n := range map[string]int{
		`name="shop"`: 1, `name!="shop"`: 1, `name!~"o"`: 0, `slug="shop" OR slug="docs"`: 2, `(slug="shop")`: 1,
		`is_private=true AND slug="docs"`: 1, `updated_on > 2020-01-01`: 2, `description = "Has no pipeline file"`: 1,
	} {
		if got := b.get("alice", "/2.0/repositories/acme?q="+url.QueryEscape(q)).want(http.StatusOK).size("values"); got != n {
			t.Errorf("%s: got %d, want %d", q, got, n)
		}
	}
	for _, q := range []string{`name`, `name=`, `name="x`, `=x`, `boss="x"`, `name~1`, `(name="x"`, `name="x" name="y"`, strings.Repeat("(", 50)} {
		b.get("alice", "/2.0/repositories/acme?q="+url.QueryEscape(q)).want(http.StatusBadRequest)
	}
	b.get("alice", "/2.0/repositories/acme?sort=boss").want(http.StatusBadRequest)
	if got := b.get("alice", "/2.0/repositories/acme?sort=-name").want(http.StatusOK).text("values", 0, "name"); got != "shop" {
		t.Errorf("first by -name: %s", got)
	}
}

func TestRule26_Fields(t *testing.T) {
	t.Parallel()
	b := start(t)
	a := b.get("alice", "/2.0/repositories/acme?sort=slug&fields=next,values.uuid,values.mainbranch.name").want(http.StatusOK)
	if got := len(a.at("values", 0).(map[string]any)); got != 2 || a.text("values", 0, "mainbranch", "name") != "main" || a.at("pagelen") != nil {
		t.Errorf("%s", a.body)
	}
	if a := b.get("alice", shopAPI+"?fields=-links,-owner.links").want(http.StatusOK); a.at("links") != nil || a.text("slug") != "shop" || a.at("owner", "links") != nil {
		t.Errorf("%s", a.body)
	}
}

func TestRule27_Identity(t *testing.T) {
	t.Parallel()
	b := start(t)
	repo := b.get("alice", shopAPI).want(http.StatusOK)
	id, workspaceID := url.PathEscape(repo.text("uuid")), url.PathEscape(repo.text("workspace", "uuid"))
	if !strings.HasPrefix(id, "%7B") {
		t.Fatalf("uuid %s", id)
	}
	paths := []string{"/2.0/repositories/acme/" + id, "/2.0/repositories/" + workspaceID + "/shop", "/2.0/repositories/" + workspaceID + "/" + id, "/2.0/repositories/%7B%7D/" + id}
	for _, path := range paths {
		b.get("alice", path).want(http.StatusOK, `"full_name":"acme/shop"`)
		b.get("alice", path+"/src/main/README.md").want(http.StatusOK)
	}
	b.get("alice", "/2.0/repositories/%7B%7D/shop").want(http.StatusNotFound)
	b.get("mallory", "/2.0/repositories/elsewhere/"+id).want(http.StatusNotFound)
	b.call("alice", http.MethodPut, shopAPI, obj{"name": "Web Shop"}).want(http.StatusOK, `"full_name":"acme/web-shop"`, `"name":"Web Shop"`)
	b.get("alice", paths[0]).want(http.StatusOK, `"slug":"web-shop"`)
	b.get("alice", shopAPI).want(http.StatusNotFound)
	b.call("alice", http.MethodPut, "/2.0/repositories/acme/web-shop", obj{"name": "docs"}).want(http.StatusBadRequest)
}

func TestRule28_RepositoryObject(t *testing.T) {
	t.Parallel()
	b := start(t)
	repo := b.get("bob", shopAPI).want(http.StatusOK)
	if got, want := repo.text("links", "clone", 0, "href"), strings.Replace(b.url, "://", "://bob@", 1)+"/acme/shop.git"; got != want {
		t.Errorf("clone %s, want %s", got, want)
	}
	empty := b.call("bob", http.MethodPost, "/2.0/repositories/acme/empty", obj{}).want(http.StatusOK)
	if empty.at("mainbranch") != nil || empty.at("is_private") != true {
		t.Errorf("%s", empty.body)
	}
	dir := t.TempDir()
	b.git(dir, "init", "--quiet", "--initial-branch=trunk")
	b.commit(dir, "a", "a")
	b.git(dir, "push", "--quiet", strings.Replace(b.cloneURL("bob", "bob"), "shop", "empty", 1), "trunk")
	if got := b.get("bob", "/2.0/repositories/acme/empty").want(http.StatusOK).text("mainbranch", "name"); got != "trunk" {
		t.Errorf("main branch %s", got)
	}
}

func TestRule29_CreateRepository(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.call("carol", http.MethodPost, "/2.0/repositories/acme/mine", obj{}).want(http.StatusForbidden)
	b.call("mallory", http.MethodPost, "/2.0/repositories/acme/mine", obj{}).want(http.StatusNotFound)
	b.call("", http.MethodPost, "/2.0/repositories/acme/mine", obj{}).want(http.StatusUnauthorized)
	b.call("bob", http.MethodPost, "/2.0/repositories/acme/mine", obj{"description": "Mine"}).want(http.StatusOK, "Mine")
	b.get("bob", "/2.0/repositories/acme/mine/hooks").want(http.StatusOK)
	b.call("bob", http.MethodPost, "/2.0/repositories/acme/mine", obj{}).want(http.StatusBadRequest)
	b.call("bob", http.MethodPost, "/2.0/repositories/acme/Not%20A%20Slug", obj{}).want(http.StatusBadRequest)
}

func TestRule30_BranchesAndTags(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.put("release/1.0", "a", "a")
	for _, path := range []string{"release/1.0", "release%2F1.0"} {
		if got := b.get("carol", shopAPI+"/refs/branches/"+path).want(http.StatusOK, `"type":"branch"`).text("target", "hash"); got != hash {
			t.Errorf("%s: %s", path, got)
		}
	}
	b.get("carol", shopAPI+"/refs/branches/release").want(http.StatusNotFound)
	b.get("carol", shopAPI+"/refs/tags/v1").want(http.StatusNotFound)
	a := b.get("carol", shopAPI+"/refs/branches?pagelen=1&sort=-name").want(http.StatusOK)
	if a.text("values", 0, "name") != "release/1.0" || a.at("size") != 3.0 {
		t.Errorf("%s", a.body)
	}
	if n := b.get("carol", shopAPI+"/refs/branches?q="+url.QueryEscape(`name="main"`)).want(http.StatusOK).size("values"); n != 1 {
		t.Errorf("%d", n)
	}
	dir := b.clone("bob")
	b.git(dir, "tag", "-a", "v1", "-m", "One")
	b.git(dir, "push", "--quiet", "origin", "v1")
	b.get("carol", shopAPI+"/refs/tags/v1").want(http.StatusOK, `"type":"tag"`, `"message":"One\n"`, b.tip("main"))
	b.get("carol", shopAPI+"/refs/tags").want(http.StatusOK, `"name":"v1"`)
}

func TestRule31_Commits(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	for _, name := range []string{hash, hash[:12], hash[:7], hash[:4], "main"} {
		a := b.get("carol", shopAPI+"/commit/"+name).want(http.StatusOK, `"type":"commit"`, `"raw":"Alice Admin <alice@example.com>"`)
		if a.text("hash") != hash || a.text("repository", "full_name") != "acme/shop" {
			t.Errorf("%s: %s", name, a.body)
		}
	}
	tree := b.git(b.path(b.get("alice", shopAPI).text("uuid")), "rev-parse", "main^{tree}")
	for _, name := range []string{strings.Repeat("0", 40), "123456789abc", hash[:3], "none", "HEAD", "main~0", tree, strings.ToUpper(hash)} {
		b.get("carol", shopAPI+"/commit/"+name).want(http.StatusNotFound)
	}
}

// path is a repository's folder.
func (b *bench) path(id string) string { return b.Sandbox.git.path(id) }

func TestRule32_RawFiles(t *testing.T) {
	t.Parallel()
	b := start(t)
	text := "name: Ünïcode\n\x00binary\r\n"
	hash := b.put("main", "dir/data file.bin", text)
	a := b.get("carol", shopAPI+"/src/"+hash+"/dir/data%20file.bin").want(http.StatusOK)
	if string(a.body) != text {
		t.Errorf("%q", a.body)
	}
	tag := a.header.Get("Etag")
	if tag == "" || !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment") || strings.Contains(a.header.Get("Content-Type"), "charset") {
		t.Errorf("%v", a.header)
	}
	again, err := b.send("carol", http.MethodGet, shopAPI+"/src/main/dir/data%20file.bin", http.Header{"If-None-Match": {tag}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.want(http.StatusNotModified)
	empty := b.put("main", "empty.yml", "")
	if a := b.get("carol", shopAPI+"/src/"+empty+"/empty.yml").want(http.StatusOK); len(a.body) != 0 || strings.Contains(a.header.Get("Content-Type"), "charset") {
		t.Errorf("%q %v", a.body, a.header)
	}
}

func TestRule33_Folders(t *testing.T) {
	t.Parallel()
	b := start(t)
	dir := b.clone("bob")
	b.write(dir, "bin", "a\x00b")
	b.write(dir, "run", "#!/bin/sh\n")
	b.git(dir, "add", ".")
	b.git(dir, "update-index", "--chmod=+x", "run")
	b.git(dir, "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",module")
	blob := b.git(dir, "hash-object", "-w", "bin")
	b.git(dir, "update-index", "--add", "--cacheinfo", "120000,"+blob+",linked")
	b.git(dir, "commit", "--quiet", "-m", "Kinds")
	b.git(dir, "push", "--quiet", "origin", "main")
	hash := b.tip("main")

	root := b.get("carol", shopAPI+"/src/"+hash+"/?pagelen=3").want(http.StatusOK, "commit_directory", "commit_file")
	if root.size("values") != 3 || root.at("next") == nil {
		t.Errorf("%s", root.body)
	}
	b.get("carol", root.text("next")).want(http.StatusOK)
	b.get("carol", shopAPI+"/src/"+hash+"/src").want(http.StatusOK, `"path":"src/total.sh"`)
	b.get("carol", shopAPI+"/src/"+hash).want(http.StatusNotFound)
	if to := b.get("carol", shopAPI+"/src").want(http.StatusFound).header.Get("Location"); to != b.url+shopAPI+"/src/"+hash+"/" {
		t.Errorf("sent to %s", to)
	}
	for name, attribute := range map[string]string{"bin": `["binary"]`, "run": `["executable"]`, "module": `["subrepository"]`, "linked": `["link","binary"]`, "README.md": `[]`} {
		b.get("carol", shopAPI+"/src/"+hash+"/"+name+"?format=meta").want(http.StatusOK, `"attributes":`+attribute, `"path":"`+name+`"`, `"size":`)
	}
	b.get("carol", shopAPI+"/src/"+hash+"/src/?format=meta").want(http.StatusOK, "commit_directory")
	b.get("carol", shopAPI+"/src/"+hash+"/module").want(http.StatusNotFound)
}

func TestRule34_NoSuchSource(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	for _, path := range []string{hash + "/none", hash + "/README.md/below", hash + "/README.md/", hash + "/src/none", strings.Repeat("1", 40) + "/README.md", "none/README.md", hash + "/..%2fREADME.md"} {
		b.get("alice", shopAPI+"/src/"+path).want(http.StatusNotFound, `"type":"error"`)
	}
	b.get("mallory", shopAPI+"/src/"+hash+"/README.md").want(http.StatusNotFound)
}

func TestRule35_Diffstat(t *testing.T) {
	t.Parallel()
	b := start(t)
	base := b.tip("main")
	topic := b.put("topic", "added.txt", "1\n2\n")
	main := b.put("main", "README.md", "changed\n")
	paths := func(spec string) string {
		a := b.get("carol", shopAPI+"/diffstat/"+spec).want(http.StatusOK)
		var list []string
		for i := range a.size("values") {
			side := "new"
			if a.at("values", i, "new") == nil {
				side = "old"
			}
			list = append(list, a.text("values", i, "status")+" "+a.text("values", i, side, "path"))
		}
		return strings.Join(list, ", ")
	}
	for spec, want := range map[string]string{
		topic: "added added.txt", topic + ".." + main: "added added.txt", main + ".." + topic: "modified README.md",
		topic + ".." + main + "?topic=false": "modified README.md, added added.txt", base + ".." + base: "",
	} {
		if got := paths(spec); got != want {
			t.Errorf("%s: got %q, want %q", spec, got, want)
		}
	}
	a := b.get("carol", shopAPI+"/diffstat/"+topic).want(http.StatusOK)
	if a.at("values", 0, "lines_added") != 2.0 || a.at("values", 0, "old") != nil {
		t.Errorf("%s", a.body)
	}
	dir := b.clone("bob")
	b.git(dir, "mv", "src/total.sh", "src/sum.sh")
	b.git(dir, "rm", "--quiet", "examples/order.txt")
	b.git(dir, "commit", "--quiet", "-m", "Move")
	b.git(dir, "push", "--quiet", "origin", "main")
	if got := paths("main"); got != "removed examples/order.txt, renamed src/sum.sh" {
		t.Errorf("moved: %q", got)
	}
	if n := b.get("carol", shopAPI+"/diffstat/"+base+"?pagelen=2").want(http.StatusOK).size("values"); n != 2 {
		t.Errorf("%d", n)
	}
	b.get("carol", shopAPI+"/diffstat/none.."+base).want(http.StatusNotFound)
}

func TestRule36_ErrorEnvelope(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, path := range []string{"/2.0/nothing", shopAPI + "/nothing", shopAPI + "/commit/none", "/2.0/"} {
		a := b.get("alice", path).want(http.StatusNotFound)
		if a.text("type") != "error" || a.text("error", "message") == "" || !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

func TestRule37_Bodies(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.form("alice", shopAPI+"/hooks", url.Values{"url": {"http://127.0.0.1/"}}).want(http.StatusUnsupportedMediaType)
	b.call("alice", http.MethodPost, shopAPI+"/hooks", "no object").want(http.StatusBadRequest)
	b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{"url": 7}).want(http.StatusBadRequest)
	b.call("alice", http.MethodPost, shopAPI+"/hooks", obj{"description": strings.Repeat("x", maxAPIBody)}).want(http.StatusRequestEntityTooLarge)
}

func TestRule38_CommitList(t *testing.T) {
	t.Parallel()
	b := start(t)
	first := b.tip("main")
	second := b.put("main", "a", "a")
	a := b.get("carol", shopAPI+"/commits/main?pagelen=1").want(http.StatusOK)
	if a.text("values", 0, "hash") != second || a.at("size") != 2.0 {
		t.Errorf("%s", a.body)
	}
	a = b.get("carol", shopAPI+"/commits?include="+second+"&exclude="+first).want(http.StatusOK)
	if a.size("values") != 1 || a.text("values", 0, "hash") != second {
		t.Errorf("%s", a.body)
	}
	if n := b.get("carol", shopAPI+"/commits").want(http.StatusOK).size("values"); n != 3 {
		t.Errorf("%d in all", n)
	}
	b.get("carol", shopAPI+"/commits/none").want(http.StatusNotFound)
}
