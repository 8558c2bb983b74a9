package runnertest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/runner"
)

// Credential of the repository. The password begins with what a shell, a URL and a line
// of base64 stumble over, and ends differently for every server.
const (
	username      = "x-token-auth"
	passwordStart = `to ken/"$(x)\n'%41+&=` + "ATCTT3xFfGN0oQk7Yw2"
)

// Server is the server's side of a build: real HTTP, the claim protocol, and a git repository
// behind Basic authentication. It can lose answers, refuse, and be away.
type Server struct {
	URL    string
	Commit string // the newest on main
	Older  string // its parent, no branch points to it

	// Password opens the repository. No part of its second half stands in the program.
	Password string

	http *httptest.Server

	mu      sync.Mutex
	changed chan struct{} // closed and made anew at every change
	work    map[string]*work
	oldGit  bool
}

// work is one build as the server knows it.
type work struct {
	claim    runner.Claim
	nonce    string
	asked    int // claims that came, whatever was answered
	claims   int // those that were looked at
	refused  int
	last     runner.Report // the one with the highest sequence
	stop     bool
	over     bool
	lose     map[string]int // path → answers still to lose
	fail     map[string]int // path → calls still to answer with 503
	checkout bool
}

// NewServer starts one; it ends with the test.
func NewServer(t *testing.T) *Server {
	t.Helper()
	s := &Server{changed: make(chan struct{}), work: map[string]*work{}, Password: passwordStart + rand.Text()}
	root := t.TempDir()
	s.repository(t, root)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+runner.ClaimPath, s.claim)
	mux.HandleFunc("POST "+runner.StepsPath, s.steps)
	mux.Handle("/git/", s.git(t, root))
	s.http = httptest.NewServer(mux)
	t.Cleanup(s.http.Close)
	s.URL = s.http.URL
	return s
}

// repository makes a repository with two commits.
func (s *Server) repository(t *testing.T, root string) {
	t.Helper()
	folder := filepath.Join(root, "repo.git")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = folder
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + root, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
			"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org",
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.MkdirAll(filepath.Join(folder, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	git("-c", "init.defaultBranch=main", "init", "-q")
	for i, text := range []string{"old\n", "new\n"} {
		for name, content := range map[string]string{"file": text, "sub/file": "in sub\n"} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			if err := os.Symlink("/", filepath.Join(folder, "out")); err != nil {
				t.Fatal(err)
			}
		}
		git("add", ".")
		git("commit", "-q", "-m", text)
	}
	s.Commit, s.Older = git("rev-parse", "HEAD"), git("rev-parse", "HEAD~1")
}

// git serves the repository as Bitbucket would, to who has the credential.
func (s *Server) git(t *testing.T, root string) http.Handler {
	t.Helper()
	backend, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatalf("find git: %v", err)
	}
	handler := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(backend)), "git-http-backend"),
		Root: "/git",
		Dir:  root,
		Env: []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + root,
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		},
		Stderr: &testWriter{},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, pass, ok := r.BasicAuth(); !ok || name != username || pass != s.Password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		if s.oldGit {
			r.Header.Del("Git-Protocol") // version 0 gives out tips only
		}
		s.mu.Unlock()
		handler.ServeHTTP(w, r)
	})
}

// testWriter swallows what git-http-backend says; the client's side shows what went wrong.
type testWriter struct{}

func (*testWriter) Write(p []byte) (int, error) { return len(p), nil }

// CloneURL is where the repository is.
func (s *Server) CloneURL() string { return s.URL + "/git/repo.git" }

// TicketOf answers the ticket of the build of this name.
func TicketOf(name string) string { return "t1cket-" + name + "-5f0c9e" }

// Offer makes a build of these steps, known by a name, with the ticket of that name.
func (s *Server) Offer(name string, change func(*runner.Claim), steps ...runner.Step) {
	claim := runner.Claim{
		Build:  runner.Build{ID: "b-" + name, Number: 7, URL: s.URL + "/builds/b-" + name},
		Script: runner.Script{Steps: steps, TimeoutSeconds: 120},
		Clone:  runner.Clone{URL: s.CloneURL(), Commit: s.Commit, Ref: "refs/heads/main", Username: username, Password: s.Password},
	}
	if change != nil {
		change(&claim)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work[TicketOf(name)] = &work{claim: claim, lose: map[string]int{}, fail: map[string]int{}}
}

// with changes a build under the lock and wakes who waits.
func (s *Server) with(ticket string, f func(*work)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.work[ticket])
	close(s.changed)
	s.changed = make(chan struct{})
}

// TipsOnly makes git refuse commits that no branch points to.
func (s *Server) TipsOnly() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.oldGit = true
}

// Lose makes the server do what the next n calls of path ask, and break the connection.
func (s *Server) Lose(name, path string, n int) {
	s.with(TicketOf(name), func(w *work) { w.lose[path] = n })
}

// Fail answers the next n calls of path with 503.
func (s *Server) Fail(name, path string, n int) {
	s.with(TicketOf(name), func(w *work) { w.fail[path] = n })
}

// Stop asks the agent to stop, in the answer to its next report.
func (s *Server) Stop(name string) { s.with(TicketOf(name), func(w *work) { w.stop = true }) }

// Over refuses everything from now on with 409.
func (s *Server) Over(name string) { s.with(TicketOf(name), func(w *work) { w.over = true }) }

// Last answers the newest report, and how many claims came and were refused.
func (s *Server) Last(name string) (last runner.Report, claims, refused int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.work[TicketOf(name)]
	return w.last, w.claims, w.refused
}

// Await waits until the newest report is as wanted, and answers it.
func (s *Server) Await(t *testing.T, name, what string, wanted func(runner.Report) bool) runner.Report {
	t.Helper()
	var last runner.Report
	s.await(t, what, func() bool {
		last = s.work[TicketOf(name)].last
		return wanted(last)
	})
	return last
}

// await waits until is, which is asked under the lock after every change.
func (s *Server) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		ready, changed := is(), s.changed
		s.mu.Unlock()
		if ready {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

// AwaitClaims waits until n claims came, whatever was answered.
func (s *Server) AwaitClaims(t *testing.T, name string, n int) {
	t.Helper()
	s.await(t, fmt.Sprint(n, " claims"), func() bool { return s.work[TicketOf(name)].asked >= n })
}

// AwaitResult waits for the end of the build.
func (s *Server) AwaitResult(t *testing.T, name string) runner.Report {
	t.Helper()
	return s.Await(t, name, "a result", func(r runner.Report) bool { return r.Result != "" })
}

func (s *Server) claim(w http.ResponseWriter, r *http.Request) {
	var in runner.ClaimRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || len(in.Nonce) < 32 {
		http.Error(w, "bad claim", http.StatusBadRequest)
		return
	}
	s.answer(w, runner.ClaimPath, in.Ticket, func(job *work) (int, any) {
		job.claims++
		if job.checkout || (job.nonce != "" && job.nonce != in.Nonce) {
			job.refused++
			return http.StatusConflict, nil
		}
		job.nonce = in.Nonce
		return http.StatusOK, job.claim
	})
}

func (s *Server) steps(w http.ResponseWriter, r *http.Request) {
	var in runner.Report
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Sequence < 1 {
		http.Error(w, "bad report", http.StatusBadRequest)
		return
	}
	s.answer(w, runner.StepsPath, in.Ticket, func(job *work) (int, any) {
		if job.nonce != in.Nonce {
			return http.StatusConflict, nil
		}
		if in.Sequence > job.last.Sequence {
			job.last = in
		}
		job.checkout = job.checkout || in.Checkout == runner.VerdictSuccessful
		job.over = in.Result != "" // so a repeat of the last report is refused
		return http.StatusOK, runner.ReportAnswer{Stop: job.stop}
	})
}

func (s *Server) answer(w http.ResponseWriter, path, ticket string, do func(*work) (int, any)) {
	s.mu.Lock()
	job := s.work[ticket]
	s.mu.Unlock()
	if job == nil {
		http.Error(w, "unknown ticket", http.StatusUnauthorized)
		return
	}
	var status int
	var body any
	var lose bool
	s.with(ticket, func(job *work) {
		if path == runner.ClaimPath {
			job.asked++
		}
		switch {
		case job.over:
			status = http.StatusConflict
		case job.fail[path] > 0:
			job.fail[path]--
			status = http.StatusServiceUnavailable
		default:
			status, body = do(job)
			if lose = job.lose[path] > 0; lose {
				job.lose[path]--
			}
		}
	})
	if lose {
		panic(http.ErrAbortHandler) // breaks the connection
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		_, _ = fmt.Fprintln(w, err)
	}
}
