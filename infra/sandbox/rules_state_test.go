package sandbox

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const childDir = "SANDBOX_TEST_CHILD_DIR"

// TestMain runs a sandbox on a folder instead of the tests when it is asked to, so
// that a test can kill one.
func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		var s *Sandbox
		if s, err = New(testDeps(dir, listener.Addr().String(), time.Now)); err == nil {
			fmt.Println(listener.Addr())
			err = http.Serve(listener, s)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// child starts a sandbox in a process of its own.
func child(t *testing.T, dir string) (b *bench, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child did not start: %v", err)
	}
	return &bench{T: t, url: "http://" + strings.TrimSpace(address), Sandbox: &Sandbox{callbackURL: "http://127.0.0.1:1/auth/callback"}}, kill
}

func TestRule100_KillAndGoOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, kill := child(t, dir)
	access, refresh := old.connect("alice")
	// One attempt fails, and the next is far off.
	to := receive(t, func(n int) int { return map[bool]int{true: 503, false: 200}[n == 1] })
	hookID := old.hook(to.URL, "s", "repo:push")
	old.faults(obj{"attempt_delay_ms": 3600000})
	clone := old.clone("bob")
	hash := old.commit(clone, "a", "a")
	old.git(clone, "push", "--quiet", "origin", "main", "main:refs/heads/topic")
	first := to.next(t)
	old.status("bob", hash, obj{"refname": "main"}).want(http.StatusCreated)
	old.call("bob", http.MethodPost, pullsAPI, pullBody("T", "develop")).want(http.StatusCreated)
	old.call("alice", http.MethodPost, shopAPI+"/branch-restrictions", obj{"kind": passingBuilds}).want(http.StatusCreated)
	old.call("bob", http.MethodPost, "/2.0/repositories/acme/tools", obj{}).want(http.StatusOK)
	// The answer to the first attempt is recorded when the list shows it.
	deadline := time.Now().Add(time.Minute)
	for old.get("", "/_sandbox/deliveries").size("items", 0, "attempts") == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	kill()

	b := startAt(t, dir, func(d *Deps) { d.Now = time.Now })
	t.Cleanup(b.stop)
	second := to.next(t)
	if second.header.Get("X-Request-UUID") != first.header.Get("X-Request-UUID") || second.header.Get("X-Attempt-Number") != "2" || string(second.raw) != string(first.raw) {
		t.Errorf("%v", second.header)
	}
	b.settle()
	if more := to.all(); len(more) != 0 {
		t.Errorf("%d more deliveries", len(more))
	}
	bearer := "Bearer " + access
	b.get(bearer, shopAPI+"/src/"+hash+"/a").want(http.StatusOK)
	b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}).want(http.StatusOK)
	b.get(bearer, shopAPI+"/hooks/"+url.PathEscape(hookID)).want(http.StatusOK, `"secret_set":true`)
	b.get(bearer, shopAPI+"/commit/"+hash+"/statuses/build/ci").want(http.StatusOK, `"refname":"main"`)
	b.get(bearer, pullsAPI+"/1").want(http.StatusOK, `"state":"OPEN"`)
	b.get("alice", shopAPI+"/branch-restrictions").want(http.StatusOK, passingBuilds)
	b.get("bob", "/2.0/repositories/acme?role=admin").want(http.StatusOK, `"slug":"tools"`)
	if b.tip("topic") != hash {
		t.Error("the topic is lost")
	}
}

func TestRule101_MissedPush(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := startAt(t, dir)
	hold := make(chan struct{})
	to := receive(t, func(n int) int { // what would be sent twice is under way twice
		if n > 1 {
			<-hold
		}
		return http.StatusOK
	})
	old.hook(to.URL, "", "repo:push")
	clone := old.clone("bob")
	old.git(clone, "push", "--quiet", "origin", "main:refs/heads/known")
	to.next(t)
	hash := old.commit(clone, "a", "a")
	folder := old.path(old.get("alice", shopAPI).text("uuid"))
	old.stop()
	old.git(clone, "push", "--quiet", folder, "main") // taken by git, known to nobody else

	b := startAt(t, dir)
	t.Cleanup(b.stop)
	in := to.next(t)
	close(hold)
	if in.at(t, "push", "changes", 0, "new", "target", "hash") != hash || in.at(t, "actor", "display_name") != "Bob Builder" {
		t.Errorf("%s", in.raw)
	}
	b.settle()
	if b.tip("main") != hash || len(to.all()) != 0 {
		t.Error("not announced as it should be")
	}
}

func TestRule102_NewerDataFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "sandbox.db")
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(context.Background(), "PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = New(testDeps(dir, "127.0.0.1:1", time.Now))
	if err == nil || !strings.Contains(err.Error(), "newer program") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

func TestRule103_OneProcessPerFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := startAt(t, dir)
	if _, err := New(testDeps(dir, "127.0.0.1:1", time.Now)); err == nil {
		t.Error("two on one folder")
	}
	b.stop()
	again := startAt(t, dir)
	again.get("alice", shopAPI).want(http.StatusOK)
	again.stop()
}

func TestNewRefusesWhatIsMissing(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Deps){
		"no address": func(d *Deps) { d.PublicURL = "" }, "a path": func(d *Deps) { d.PublicURL += "/" },
		"no client": func(d *Deps) { d.ClientID = "" }, "no secret": func(d *Deps) { d.ClientSecret = "" },
		"no log": func(d *Deps) { d.Log = nil }, "no clock": func(d *Deps) { d.Now = nil },
	} {
		deps := testDeps("", "127.0.0.1:1", time.Now)
		spoil(&deps)
		if _, err := New(deps); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
