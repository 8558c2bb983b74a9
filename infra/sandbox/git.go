package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	gitProcesses    = 8                // at once, batch readers apart
	gitTransferTime = 10 * time.Minute // for one fetch or push
	gitCommandTime  = 30 * time.Second // for plumbing
	maxPushBody     = 1 << 30
)

// git runs git on the bare repositories in one folder. Its processes have a cleaned
// environment, a deadline each, and die with their children.
type git struct {
	program     string
	httpBackend string // run directly: behind the program it would be a grandchild
	home        string // HOME of the processes: a folder without a configuration
	dir         string // holds <repository uuid>.git
	slots       chan struct{}
	cache       objectCache

	mu      sync.Mutex
	locks   map[string]*sync.Mutex // held while a repository's refs change
	readers map[string]*batchReader
	uses    int // counts up, to order readers by use
}

func newGit(home string) (*git, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("git is needed: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), gitCommandTime)
	defer cancel()
	tools, err := exec.CommandContext(ctx, program, "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("git --exec-path: %w", err)
	}
	dir := filepath.Join(home, "git")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of repositories: %w", err)
	}
	return &git{
		program: program, httpBackend: filepath.Join(strings.TrimSpace(string(tools)), "git-http-backend"), home: home, dir: dir, slots: make(chan struct{}, gitProcesses),
		locks: map[string]*sync.Mutex{}, readers: map[string]*batchReader{},
	}, nil
}

// path is a repository's folder, by its UUID, so that renames move nothing.
func (g *git) path(repositoryID string) string {
	return filepath.Join(g.dir, strings.Trim(repositoryID, "{}")+".git")
}

// lock serialises what changes a repository's refs, so that each push is compared
// with the one before it.
func (g *git) lock(repositoryID string) (unlock func()) {
	g.mu.Lock()
	lock := g.locks[repositoryID]
	if lock == nil {
		lock = &sync.Mutex{}
		g.locks[repositoryID] = lock
	}
	g.mu.Unlock()
	lock.Lock()
	return lock.Unlock
}

// environment is all a git process sees. The settings go with it, so nothing depends
// on a file that someone might edit.
func (g *git) environment() []string {
	settings := [][2]string{
		{"uploadpack.allowAnySHA1InWant", "true"}, // a build fetches a commit that is no tip any more
		{"uploadpack.allowFilter", "true"},
		{"http.receivepack", "true"},
		{"http.getanyfile", "false"},
		{"gc.auto", "0"}, // nothing is pruned: statuses and deliveries keep naming old commits
		{"receive.autogc", "false"},
		{"safe.directory", "*"},
		{"init.defaultBranch", "main"},
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + g.home, "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_COUNT=" + strconv.Itoa(len(settings)),
	}
	for i, s := range settings {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	return env
}

// command prepares a git process that ends, with its children, when ctx does.
func (g *git) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = g.environment()
	cmd.SysProcAttr = processAttributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// slot waits for one of the bounded number of processes.
func (g *git) slot(ctx context.Context) (release func(), err error) {
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run is one plumbing command in a repository. A command that exits with a status
// other than 0 gives an *exec.ExitError, and what it printed.
func (g *git) run(ctx context.Context, repositoryID string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, gitCommandTime)
	defer cancel()
	release, err := g.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	cmd := g.command(ctx, g.program, append([]string{"--git-dir=" + g.path(repositoryID)}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// initRepository makes an empty bare repository whose main branch has that name.
func (g *git) initRepository(ctx context.Context, repositoryID, mainBranch string) error {
	_, err := g.run(ctx, repositoryID, "init", "--quiet", "--bare", "--template=", "--initial-branch="+mainBranch)
	return err
}

// close ends the batch readers.
func (g *git) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, r := range g.readers {
		delete(g.readers, id)
		r.stop()
	}
}

// serveGit answers the smart protocol at /{workspace}/{repository}.git/… by way of git
// http-backend.
func (s *Sandbox) serveGit(w http.ResponseWriter, r *http.Request) {
	if s.faults.current().Down {
		unavailable(w)
		return
	}
	name, isGit := strings.CutSuffix(r.PathValue("repository"), ".git")
	if !isGit {
		http.NotFound(w, r)
		return
	}
	action := strings.TrimPrefix(r.URL.Path, "/"+r.PathValue("workspace")+"/"+r.PathValue("repository"))
	service := strings.TrimPrefix(action, "/")
	if service == "info/refs" {
		service = r.URL.Query().Get("service")
	}
	var needed role
	switch service {
	case "git-upload-pack":
		needed = read
	case "git-receive-pack":
		needed = write
	default:
		http.Error(w, "only git's smart protocol is served", http.StatusForbidden)
		return
	}
	caller, repo, refusal := s.admitGit(r, name, needed)
	if refusal != nil {
		if refusal.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="Bitbucket Sandbox"`)
		}
		http.Error(w, refusal.message, refusal.status)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), gitTransferTime)
	defer cancel()
	r = r.WithContext(ctx)
	r.Body = http.MaxBytesReader(w, r.Body, maxPushBody)
	var err error
	if service == "git-receive-pack" && r.Method == http.MethodPost {
		err = s.receive(ctx, w, r, caller, repo, action)
	} else {
		err = s.git.backend(ctx, w, r, repo.ID, action, caller)
	}
	if err != nil {
		s.log.Warn("sandbox: git over http failed", "repository", repo.ID, "action", action, "error", err)
	}
}

// admitGit authenticates a git client: a user with his password, or the user
// x-token-auth (or a Bearer header) with an access token.
func (s *Sandbox) admitGit(r *http.Request, name string, needed role) (*user, *repository, *apiError) {
	if userName, password, isBasic := r.BasicAuth(); isBasic && userName == "x-token-auth" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+password)
	}
	c, err := s.authenticate(r)
	if err != nil {
		return nil, nil, refuse(http.StatusUnauthorized, "Invalid credentials")
	}
	var repo *repository
	var have role
	s.store.read(func(d *data) {
		repo = d.repositoryAt(r.PathValue("workspace"), name)
		have = d.roleOf(c.user, repo)
	})
	scope := "repository"
	if needed == write {
		scope = "repository:write"
	}
	switch {
	case c.user == nil && have < needed:
		return nil, nil, refuse(http.StatusUnauthorized, "Authentication required")
	case have == none:
		return nil, nil, refuse(http.StatusNotFound, "Repository not found")
	case have < needed:
		return nil, nil, refuse(http.StatusForbidden, "Your account may not push to this repository")
	case c.need(scope) != nil:
		return nil, nil, refuse(http.StatusForbidden, "The token lacks the scope %s", scope)
	}
	return c.user, repo, nil
}

// backend runs git http-backend, which is a CGI program, and copies its answer. It
// is not run by net/http/cgi because that can neither end a process at a deadline nor
// take a body in chunks.
func (g *git) backend(ctx context.Context, w http.ResponseWriter, r *http.Request, repositoryID, action string, caller *user) error {
	release, err := g.slot(ctx)
	if err != nil {
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return err
	}
	defer release()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := g.command(ctx, g.httpBackend)
	cmd.Env = append(cmd.Env,
		"GIT_PROJECT_ROOT="+g.dir, "GIT_HTTP_EXPORT_ALL=1", "GATEWAY_INTERFACE=CGI/1.1",
		"PATH_INFO=/"+filepath.Base(g.path(repositoryID))+action,
		"REQUEST_METHOD="+r.Method, "QUERY_STRING="+r.URL.RawQuery,
		"CONTENT_TYPE="+r.Header.Get("Content-Type"),
		"HTTP_CONTENT_ENCODING="+r.Header.Get("Content-Encoding"), "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"),
	)
	// Git sends pushes of more than a megabyte in chunks. The server has put them
	// together; without a length, http-backend reads to the end.
	if r.ContentLength >= 0 {
		cmd.Env = append(cmd.Env, "CONTENT_LENGTH="+strconv.FormatInt(r.ContentLength, 10))
	}
	if caller != nil {
		cmd.Env = append(cmd.Env, "REMOTE_USER="+caller.Name)
	}
	cmd.Stdin = &endsWith{r.Body, cancel}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		http.Error(w, "git did not start", http.StatusInternalServerError)
		return err
	}
	copyErr := copyCGI(w, stdout)
	if copyErr != nil {
		_ = cmd.Cancel() // nobody reads what it would go on writing
	}
	if err := cmd.Wait(); err != nil || copyErr != nil {
		return fmt.Errorf("git http-backend: %w: %s", errors.Join(err, copyErr), strings.TrimSpace(stderr.String()))
	}
	return nil
}

// endsWith is a body that ends what it is for when it breaks off: http-backend would
// wait in a busy loop for the rest of it.
type endsWith struct {
	body   io.Reader
	cancel context.CancelCauseFunc
}

func (e *endsWith) Read(p []byte) (int, error) {
	n, err := e.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		e.cancel(fmt.Errorf("the body broke off: %w", err))
	}
	return n, err
}

// copyCGI writes a CGI program's answer: header lines, an empty line, the body.
func copyCGI(w http.ResponseWriter, from io.Reader) error {
	reader := bufio.NewReader(from)
	header, err := textproto.NewReader(reader).ReadMIMEHeader()
	if err != nil {
		http.Error(w, "git gave no answer", http.StatusInternalServerError)
		return fmt.Errorf("read the answer's header: %w", err)
	}
	status := http.StatusOK
	if text := header.Get("Status"); text != "" {
		number, _, _ := strings.Cut(text, " ")
		if status, err = strconv.Atoi(number); err != nil {
			status = http.StatusInternalServerError
		}
	}
	header.Del("Status")
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	_, err = io.Copy(w, reader)
	return err
}
