package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"runnerhub/infra/sandbox"
	"runnerhub/infra/visitor"
)

const (
	consumerID     = "bench"
	consumerSecret = "bench-consumer-secret"
	// pipelineFile starts a build for a push as for a pull request, so that a push
	// has to be looked up among the open pull requests: the dearer path. Its step
	// holds the place of the only build where the real runner is at work.
	pipelineFile = "name: Bench\nplatform: linux\ntriggers: [push, pull_request]\nsteps:\n  - name: Hold\n    run: sleep 600\n"
	branchName   = "topic"
)

// repository is a repository at the forge, with commits to announce one by one.
type repository struct {
	visitor.Repository
	api     string   // its address in the REST API
	commits []string // oldest first; the first one is on the branch before the first push
}

// hook is an installed webhook, as whoever sends to it knows it.
type hook struct{ address, secret string }

// forge is a sandbox Bitbucket that answers from memory, in this process, and notes
// what the server under test asks of it.
type forge struct {
	address      string
	box          *sandbox.Sandbox
	http         *http.Server
	serving      chan error
	repositories []repository

	mu    sync.Mutex
	asked []*call         // of the API, since the last forget
	hooks map[string]hook // the last one installed, by the UUID of its repository
	posts map[string]*posted
	said  map[string]string // the last state posted, by commit
}

// call is one call of the API.
type call struct {
	took time.Duration // what the sandbox itself took for it; 0 while it is under way
}

// posted is the first INPROGRESS of a commit.
type posted struct {
	done  chan struct{} // closed once the rest is set
	at    time.Time     // when the forge had stored it
	calls int           // how many calls had been asked by then, itself among them
}

// newForge starts a forge with repositories of so many commits each.
func newForge(ctx context.Context, callback string, repositories, commits int) (*forge, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the forge's listener: %w", err)
	}
	f := &forge{
		address: "http://" + listener.Addr().String(), serving: make(chan error, 1),
		hooks: map[string]hook{}, posts: map[string]*posted{}, said: map[string]string{},
	}
	f.box, err = sandbox.New(sandbox.Deps{
		PublicURL: f.address, ClientID: consumerID, ClientSecret: consumerSecret, CallbackURL: callback,
		LoopbackHooks: true, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the forge: %w", err), listener.Close())
	}
	f.http = &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second}
	go func() { f.serving <- f.http.Serve(listener) }()
	if err := f.fill(ctx, repositories, commits, pipelineFile); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *forge) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := f.http.Close()
	if served := <-f.serving; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(err, f.box.Close(ctx))
}

// fill makes the repositories. Nobody is subscribed yet, so nothing is delivered.
func (f *forge) fill(ctx context.Context, repositories, commits int, pipeline string) error {
	alice, err := visitor.New("", f.address, "alice", "alice")
	if err != nil {
		return err
	}
	f.repositories = make([]repository, repositories)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for i := range f.repositories {
		group.Go(func() error {
			r := &f.repositories[i]
			path := fmt.Sprintf("/repositories/acme/bench-%02d", i)
			if err := alice.Ask(ctx, http.MethodPost, path, map[string]string{"scm": "git"}, &r.Repository); err != nil {
				return fmt.Errorf("making a repository: %w", err)
			}
			r.api = "https://api.bitbucket.org/2.0/repositories/" + r.FullName
			files := map[string][]byte{".runnerhub/runnerhub.yml": []byte(pipeline)}
			for range commits + 1 {
				hash, err := f.box.AddCommit(ctx, sandbox.NewCommit{Repository: r.FullName, Branch: branchName, User: "alice", Files: files})
				if err != nil {
					return err
				}
				r.commits = append(r.commits, hash)
				files = nil
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("filling the forge: %w", err)
	}
	return nil
}

// ServeHTTP passes everything to the sandbox and notes the calls of the API, the
// secrets of webhooks, and the first INPROGRESS of each commit.
func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/2.0/") {
		f.box.ServeHTTP(w, r)
		return
	}
	c, began := &call{}, time.Now()
	f.mu.Lock()
	f.asked = append(f.asked, c)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		c.took = time.Since(began)
		f.mu.Unlock()
	}()
	if r.Method == http.MethodGet {
		f.box.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "the body is too long", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	out := &outcome{w, http.StatusOK}
	f.box.ServeHTTP(out, r)
	if out.status > 299 {
		return
	}
	var sent struct{ State, URL, Secret string }
	if json.Unmarshal(body, &sent) != nil {
		return
	}
	segments := strings.Split(r.URL.Path, "/")
	if i := slices.Index(segments, "hooks"); i > 0 && sent.Secret != "" {
		f.mu.Lock()
		f.hooks[segments[i-1]] = hook{sent.URL, sent.Secret}
		f.mu.Unlock()
	}
	if rest, ok := strings.CutSuffix(r.URL.Path, "/statuses/build"); ok {
		f.note(rest[strings.LastIndexByte(rest, '/')+1:], sent.State)
	}
}

// outcome remembers the status of an answer.
type outcome struct {
	http.ResponseWriter
	status int
}

func (o *outcome) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}

func (f *forge) note(commit, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said[commit] = state
	p := f.expected(commit)
	if state == "INPROGRESS" && p.at.IsZero() {
		p.at, p.calls = time.Now(), len(f.asked)
		close(p.done)
	}
}

func (f *forge) expected(commit string) *posted {
	p := f.posts[commit]
	if p == nil {
		p = &posted{done: make(chan struct{})}
		f.posts[commit] = p
	}
	return p
}

// forget drops the calls and statuses noted so far.
func (f *forge) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = nil
	clear(f.posts)
	clear(f.said)
}

// took answers what the sandbox took for each of the calls noted so far.
func (f *forge) took() (all sample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.asked {
		if c.took > 0 {
			all = append(all, c.took)
		}
	}
	return all
}

// hook answers the webhook of a repository.
func (f *forge) hook(r repository) (hook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.hooks[r.UUID]
	if !ok {
		return hook{}, fmt.Errorf("%s has no webhook", r.FullName)
	}
	return h, nil
}

// await waits for the first INPROGRESS of a commit, as long as a server may work at
// what it accepted.
func (f *forge) await(ctx context.Context, commit string) (*posted, error) {
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	f.mu.Lock()
	p := f.expected(commit)
	f.mu.Unlock()
	select {
	case <-p.done:
		return p, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for INPROGRESS on %.12s: %w", commit, context.Cause(ctx))
	}
}

// told answers when the first INPROGRESS of a commit was stored, if it was.
func (f *forge) told(commit string) (at time.Time, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.posts[commit]
	if p == nil || p.at.IsZero() {
		return time.Time{}, false
	}
	return p.at, true
}

// state answers what a commit was last said to be; nothing, when nobody said anything.
func (f *forge) state(commit string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said[commit]
}

// slow makes each call of the API take that much longer.
func (f *forge) slow(ctx context.Context, latency time.Duration) error {
	alice, err := visitor.New("", f.address, "alice", "alice")
	if err != nil {
		return err
	}
	return alice.Control(ctx, http.MethodPut, "/faults", map[string]int64{"latency_ms": latency.Milliseconds()}, nil)
}
