package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"runnerhub/infra/port"
	"runnerhub/infra/sandbox"
	"runnerhub/infra/visitor"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/table"
	"runnerhub/shared/vault"
)

// The crash points: a server that counts every call it makes to something outside
// itself, from a push to the status of its build, and kills itself with SIGKILL at a
// given one. The test finds out how many there are and goes through all of them.

const (
	childVariable = "RUNNERHUB_TEST_CHILD" // the test binary is the server
	armVariable   = "RUNNERHUB_TEST_ARM"   // file with the number of the call to die at
	twiceVariable = "RUNNERHUB_TEST_TWICE" // every message is published twice
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		os.Exit(run(os.Args, os.Environ()))
	}
	if len(os.Args) > 2 && os.Args[1] == "squat" {
		os.Exit(squat(os.Args[2]))
	}
	if os.Getenv(childVariable) != "" {
		os.Exit(serveChild())
	}
	os.Exit(m.Run())
}

func serveChild() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	between := unseamed()
	if arm := os.Getenv(armVariable); arm != "" {
		between = (&bomb{arm: arm}).seams()
	}
	if os.Getenv(twiceVariable) != "" {
		between.queue = func(_ string, q queue.Queue) queue.Queue { return twice{q} }
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := serveWith(ctx, os.Environ(), log, between); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// bomb counts calls once its file is there, and kills the process at the one the
// file names.
type bomb struct {
	arm   string
	armed atomic.Bool
	count atomic.Int64
	mu    sync.Mutex
}

// point is passed before and after each call.
func (b *bomb) point(name string) {
	if !b.armed.Load() {
		if _, err := os.Stat(b.arm); err != nil {
			return
		}
		b.armed.Store(true)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.count.Add(1)
	text, err := os.ReadFile(b.arm)
	if err != nil {
		return
	}
	fmt.Fprintf(os.Stderr, "POINT %d %s\n", n, name)
	if at, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n == at {
		fmt.Fprintf(os.Stderr, "KILLED AT %d %s\n", n, name)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (b *bomb) seams() seams {
	return seams{
		table:    func(t table.Table) table.Table { return bombTable{t, b} },
		queue:    func(name string, q queue.Queue) queue.Queue { return bombQueue{q, b, name} },
		vault:    func(v vault.Vault) vault.Vault { return bombVault{v, b} },
		buildLog: func(l buildlog.Log) buildlog.Log { return bombLog{l, b} },
		runner:   func(r runner.Runner) runner.Runner { return bombRunner{r, b} },
		http:     func(t http.RoundTripper) http.RoundTripper { return bombTransport{t, b} },
	}
}

// A read is passed once, before it: nothing changes between it and the call after it.
type bombTable struct {
	table.Table
	b *bomb
}

func (t bombTable) Get(ctx context.Context, k table.Key) (table.Item, error) {
	t.b.point("before table.Get " + kind(k))
	return t.Table.Get(ctx, k)
}

func (t bombTable) Query(ctx context.Context, q table.Query) (table.Page, error) {
	if !strings.HasPrefix(q.Partition, "DUE#") { // the sweep's rounds are none of the path
		t.b.point("before table.Query " + kind(table.Key{Partition: q.Partition}))
	}
	return t.Table.Query(ctx, q)
}

func (t bombTable) Transact(ctx context.Context, writes ...table.Write) error {
	name := fmt.Sprintf("table.Transact of %d, first %s", len(writes), kind(writes[0].Item.Key))
	t.b.point("before " + name)
	err := t.Table.Transact(ctx, writes...)
	t.b.point("after " + name)
	return err
}

func kind(k table.Key) string {
	name, _, _ := strings.Cut(k.Partition, "#")
	return name
}

type bombQueue struct {
	queue.Queue
	b    *bomb
	name string
}

func (q bombQueue) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	q.b.point("before " + q.name + ".Publish")
	err := q.Queue.Publish(ctx, body, delay)
	q.b.point("after " + q.name + ".Publish")
	return err
}

func (q bombQueue) Receive(ctx context.Context, limit int, wait time.Duration) ([]queue.Message, error) {
	messages, err := q.Queue.Receive(ctx, limit, wait)
	if len(messages) > 0 {
		q.b.point("after " + q.name + ".Receive")
	}
	return messages, err
}

func (q bombQueue) Delete(ctx context.Context, receipt string) error {
	q.b.point("before " + q.name + ".Delete")
	err := q.Queue.Delete(ctx, receipt)
	q.b.point("after " + q.name + ".Delete")
	return err
}

type bombVault struct {
	vault.Vault
	b *bomb
}

func (v bombVault) Open(ctx context.Context, binding vault.Binding, sealed []byte) ([]byte, error) {
	v.b.point("before vault.Open")
	return v.Vault.Open(ctx, binding, sealed)
}

func (v bombVault) Sealer(ctx context.Context, binding vault.Binding) (vault.Sealer, error) {
	v.b.point("before vault.Sealer")
	return v.Vault.Sealer(ctx, binding)
}

type bombLog struct {
	buildlog.Log
	b *bomb
}

func (l bombLog) Append(ctx context.Context, build string, lines ...buildlog.Line) error {
	l.b.point("before buildlog.Append")
	err := l.Log.Append(ctx, build, lines...)
	l.b.point("after buildlog.Append")
	return err
}

type bombRunner struct {
	runner.Runner
	b *bomb
}

func (r bombRunner) Start(ctx context.Context, job runner.Job) (string, error) {
	r.b.point("before runner.Start")
	reference, err := r.Runner.Start(ctx, job)
	r.b.point("after runner.Start")
	return reference, err
}

type bombTransport struct {
	http.RoundTripper
	b *bomb
}

func (t bombTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	name := req.Method + " " + strings.Split(req.URL.Path, "/")[len(strings.Split(req.URL.Path, "/"))-1]
	t.b.point("before Bitbucket " + name)
	resp, err := t.RoundTripper.RoundTrip(req)
	t.b.point("after Bitbucket " + name)
	return resp, err
}

// twice publishes every message twice.
type twice struct{ queue.Queue }

func (q twice) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	if err := q.Queue.Publish(ctx, body, delay); err != nil {
		return err
	}
	return q.Queue.Publish(ctx, body, delay)
}

// site is a Bitbucket and a place for servers to live and die in.
type site struct {
	t       *testing.T
	forge   string
	hub     string
	listen  string
	data    string
	builds  string
	ran     string // where steps leave their mark
	arm     string
	box     *sandbox.Sandbox
	visitor *visitor.Visitor
	clone   *visitor.Clone
	app     string
	env     []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests need root: builds run as users of their own")
	}
	s := &site{t: t, data: t.TempDir()}
	// Builds have to reach these two: not below t.TempDir, which is closed to others.
	open, err := os.MkdirTemp("", "runnerhub-crash-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(open) })
	s.builds, s.ran, s.arm = filepath.Join(open, "builds"), filepath.Join(open, "ran"), filepath.Join(s.data, "arm")
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.ran, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.ran, 0o777); err != nil {
		t.Fatal(err)
	}
	held, err := port.Hold() // Bitbucket knows it: each life has the same
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = held.Close() })
	s.listen, s.hub = held.Address, "http://"+held.Address
	front := httptest.NewUnstartedServer(nil)
	s.forge = "http://" + front.Listener.Addr().String()
	s.box, err = sandbox.New(sandbox.Deps{
		PublicURL: s.forge, ClientID: "crash", ClientSecret: "crash-secret", CallbackURL: s.hub + "/auth/callback",
		LoopbackHooks: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	front.Config.Handler = s.box
	front.Start()
	t.Cleanup(func() {
		front.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.box.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if s.visitor, err = visitor.New(s.hub, s.forge, "alice", "alice"); err != nil {
		t.Fatal(err)
	}
	return s
}

// child is a server in a process of its own.
type child struct {
	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{}
}

func (s *site) start() *child {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := os.CreateTemp(s.data, "server-*.log")
	if err != nil {
		s.t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(s.listen)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append([]string{
		// Other servers on this machine die as well: each has user ids of its own.
		"RUNNERHUB_BUILD_USERS=" + port + "000",
		"PATH=" + os.Getenv("PATH"), childVariable + "=1",
		"RUNNERHUB_LISTEN=" + s.listen, "RUNNERHUB_DATA=" + s.data, "RUNNERHUB_BUILDS=" + s.builds, "RUNNERHUB_CONCURRENCY=2",
		"BITBUCKET_CLIENT_ID=crash", "BITBUCKET_CLIENT_SECRET=crash-secret",
		"BITBUCKET_WEB_URL=" + s.forge, "BITBUCKET_API_URL=" + s.forge + "/2.0",
	}, s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	c := &child{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(c.ended)
	}()
	s.t.Cleanup(func() { c.kill() })
	s.await(c)
	return c
}

// await waits until the server answers.
func (s *site) await(c *child) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	err := visitor.Until(ctx, "the server", func() (bool, error) {
		select {
		case <-c.ended:
			s.t.Fatalf("the server ended:\n%s", c.text())
		default:
		}
		err := s.visitor.Call(ctx, http.MethodGet, "/healthz", nil, nil)
		return err == nil, err
	})
	if err != nil {
		s.t.Fatalf("%v\n%s", err, c.text())
	}
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}

func (c *child) text() string {
	text, _ := os.ReadFile(c.log.Name())
	return string(text)
}

// pipelineFile marks that its step ran, and by whom.
func (s *site) pipelineFile() string {
	return "name: Crash\ntriggers: [push]\nsteps:\n  - name: mark\n    run: echo ran >> " + s.ran + "/$RUNNERHUB_COMMIT\n"
}

// connect ties an app to the shop and clones it.
func (s *site) connect() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	var err error
	if s.app, err = s.visitor.SetUp(ctx, "Crash", "acme/shop"); err != nil {
		s.t.Fatal(err)
	}
	if s.clone, err = s.visitor.Clone(ctx, "acme/shop", filepath.Join(s.data, "clone")); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.clone.Commit(ctx, ".runnerhub/runnerhub.yml", s.pipelineFile(), "Mark"); err != nil {
		s.t.Fatal(err)
	}
}

// push makes a commit and pushes it.
func (s *site) push(ctx context.Context, n int) string {
	s.t.Helper()
	commit, err := s.clone.Commit(ctx, "n", strconv.Itoa(n), "Change "+strconv.Itoa(n))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.clone.Push(ctx, "HEAD:main"); err != nil {
		s.t.Fatal(err)
	}
	return commit
}

// settled answers nil when everything that tells of a commit tells the same end.
func (s *site) settled(ctx context.Context, commit string) error {
	statuses, err := s.visitor.Statuses(ctx, "acme/shop", commit)
	if err != nil {
		return err
	}
	builds, err := s.visitor.Builds(ctx, s.app)
	if err != nil {
		return err
	}
	var mine []visitor.Build
	for _, b := range builds {
		if b.Commit == commit {
			mine = append(mine, b)
		}
	}
	if len(mine) != 1 {
		return fmt.Errorf("%d builds", len(mine))
	}
	if mine[0].State != "SUCCESSFUL" {
		return fmt.Errorf("build #%d is %s %s", mine[0].Number, mine[0].State, mine[0].Reason)
	}
	if len(statuses) != 1 || statuses[0].State != "SUCCESSFUL" || !strings.HasSuffix(statuses[0].URL, mine[0].ID) {
		return fmt.Errorf("Bitbucket shows %+v", statuses)
	}
	marks, err := os.ReadFile(filepath.Join(s.ran, commit))
	if err != nil {
		return err
	}
	if string(marks) != "ran\n" {
		return fmt.Errorf("the step ran %d times", strings.Count(string(marks), "\n"))
	}
	deliveries, err := s.visitor.Deliveries(ctx, s.app)
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		for _, decision := range d.Decisions {
			if decision.Build == mine[0].ID {
				return nil
			}
		}
	}
	return fmt.Errorf("no delivery tells of build #%d", mine[0].Number)
}

// TestCrashPoints kills the server at every call of the path from a push to the
// status of its build, each in a life of its own, and looks at what the next life
// makes of it: one build, whose step ran once, whose end is on the commit, and a
// delivery that tells of it. Several sites share the calls among them, because most
// of the time goes into waiting for Bitbucket's next attempt.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	const sites = 4
	for first := range sites {
		t.Run(fmt.Sprintf("every %dth from %d", sites, first+1), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			s := newSite(t)
			s.env = []string{armVariable + "=" + s.arm}
			server := s.start()
			s.connect()
			// Bitbucket tries three times: a later attempt has to find the next life.
			if err := s.visitor.Control(ctx, http.MethodPut, "/faults", map[string]any{"attempt_delay_ms": 1500}, nil); err != nil {
				t.Fatal(err)
			}
			for at := first + 1; ; at += sites {
				next, died := s.dieAt(ctx, server, at)
				if !died {
					return
				}
				server = next
			}
		})
	}
}

// dieAt pushes to a server that is to die at a call, and checks what the next one
// makes of it. Died is false when the path has no such call.
func (s *site) dieAt(ctx context.Context, server *child, at int) (next *child, died bool) {
	t := s.t
	if err := os.WriteFile(s.arm, []byte(strconv.Itoa(at)), 0o600); err != nil {
		t.Fatal(err)
	}
	commit := s.push(ctx, at)
	// Nobody asks the server anything meanwhile: answering would be calls as well.
	calls, quiet := 0, 0
	err := visitor.Until(ctx, fmt.Sprintf("the end of call %d", at), func() (bool, error) {
		select {
		case <-server.ended:
			died = true
			return true, nil
		default:
		}
		if now := strings.Count(server.text(), "POINT "); now != calls {
			calls, quiet = now, 0
		}
		statuses, err := s.visitor.Statuses(ctx, "acme/shop", commit)
		if len(statuses) == 1 && statuses[0].State == "SUCCESSFUL" {
			quiet++
		}
		return quiet > 20, err
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, server.text())
	}
	if !died {
		t.Logf("the path has %d calls", calls)
		if at <= calls || calls < 50 {
			t.Fatalf("call %d of %d killed nobody:\n%s", at, calls, server.text())
		}
		return nil, false
	}
	point := server.text()[strings.LastIndex(server.text(), "KILLED AT"):]
	t.Log(strings.TrimSpace(point))
	if err := os.Remove(s.arm); err != nil {
		t.Fatal(err)
	}
	next = s.start()
	within, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	err = visitor.Until(within, "the next life", func() (bool, error) {
		err := s.settled(within, commit)
		return err == nil, err
	})
	if err != nil {
		t.Fatalf("%s: %v\n== first life\n%s\n== second life\n%s", point, err, server.text(), next.text())
	}
	return next, true
}

// TestEveryMessageTwice runs a server whose messages all come twice, most of them at
// the same time.
func TestEveryMessageTwice(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env = []string{twiceVariable + "=1"}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	server := s.start()
	s.connect()
	for n := range 20 {
		commit := s.push(ctx, n)
		within, stop := context.WithTimeout(ctx, time.Minute)
		err := visitor.Until(within, "the build", func() (bool, error) {
			err := s.settled(within, commit)
			return err == nil, err
		})
		stop()
		if err != nil {
			t.Fatalf("push %d: %v\n%s", n, err, server.text())
		}
	}
}
