package e2e

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/lambdahost"
	"runnerhub/infra/ministack"
	"runnerhub/infra/rehearsal"
)

// lambda is the deployment: the built functions, run from the template. Its installations share
// a MiniStack and nothing else.
type lambda struct {
	programs *rehearsal.Programs
	services string
}

func newLambda(t *testing.T) stack {
	if os.Getuid() != 0 {
		t.Fatal("the end-to-end scripts need root: builds run as users of their own")
	}
	programs, err := rehearsal.Build(t.Context(), "../..", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	watchSources(t, "../../functions", "../aws", "../rehearsal", "../lambdahost", "../codebuild", "../template", "../agent", "../sandbox", "../../shared")
	if _, err := os.Stat("../../template.yaml"); err != nil {
		t.Fatal(err)
	}
	services, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := services.Close(); err != nil {
			t.Error(err)
		}
	})
	return &lambda{programs, services.URL()}
}

func (*lambda) scripts() []script {
	return []script{
		{"dies at each call", diesAtEachCall},
		{"dies while tokens are renewed", graceOver},
		{"everything twice", everythingTwice},
		{"lost answers and throttling", lostAndBusy},
		{"functions die during builds", functionsDie},
		{"calls of a push", callsOfAPush},
		{"sample events", sampleEvents},
		{"what is there", func(t *testing.T, in stack) { whatIsThere(t, in, "codebuild\ncompute: large", "xlarge") }},
		{"an account's limit", accountLimit},
	}
}

func (l *lambda) install(t *testing.T, settings ...string) installation {
	if len(settings) > 0 {
		t.Fatalf("a stack of functions has no settings %q", settings)
	}
	return l.account(t, rehearsal.Deps{})
}

// account is an installation of functions.
type account struct {
	*rehearsal.Installation
	t        *testing.T
	root     string
	log      *lines
	services string // address of MiniStack
}

// account prepares an installation; what deps leaves out is as every test has it.
func (l *lambda) account(t *testing.T, deps rehearsal.Deps) *account {
	t.Helper()
	root, err := os.MkdirTemp("", "runnerhub-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	a := &account{t: t, root: root, log: &lines{}, services: l.services}
	builds := filepath.Join(root, "builds")
	for _, dir := range []string{root, builds} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	deps.Programs, deps.Services, deps.Name, deps.Dir = l.programs, l.services, "e2e-"+strings.ToLower(rand.Text()[:10]), builds
	deps.Output, deps.Instances = func(string) io.Writer { return a.log }, 10
	if deps.Concurrency == 0 {
		deps.Concurrency = 2
	}
	if deps.Visibility == 0 {
		deps.Visibility = 5 * time.Second
	}
	early := &earlyCalls{}
	deps.Watch = early.watch(deps.Watch)
	if a.Installation, err = rehearsal.New(t.Context(), deps); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var denied []string
		if host := a.Host(); host != nil {
			denied = host.Denied()
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		for _, call := range denied {
			t.Errorf("the template does not allow what a function does: %s", call)
		}
		for _, call := range early.made() {
			t.Errorf("a function makes a call before its first event, which that could have waited for: %s", call)
		}
		if t.Failed() {
			t.Logf("== the functions' log\n%s", a.said())
		}
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return a
}

// earlyCalls keeps the calls that functions made while they started.
type earlyCalls struct {
	mu    sync.Mutex
	calls []string
}

func (e *earlyCalls) watch(next func(lambdahost.Call, bool) lambdahost.Fate) func(lambdahost.Call, bool) lambdahost.Fate {
	return func(c lambdahost.Call, after bool) lambdahost.Fate {
		if c.Init && !after {
			e.mu.Lock()
			e.calls = append(e.calls, c.Function+": "+c.Name())
			e.mu.Unlock()
		}
		if next == nil {
			return lambdahost.Pass
		}
		return next(c, after)
	}
}

func (e *earlyCalls) made() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	slices.Sort(e.calls)
	return slices.Compact(e.calls)
}

func (a *account) start() (hub, forge string) {
	a.t.Helper()
	if err := a.Start(); err != nil {
		a.t.Fatal(err)
	}
	return a.Hub, a.Forge
}

func (a *account) stop() {
	a.t.Helper()
	if err := a.Stop(); err != nil {
		a.t.Error(err)
	}
}

func (a *account) kill() {
	a.t.Helper()
	if err := a.Kill(); err != nil {
		a.t.Error(err)
	}
}

func (a *account) folder() string { return a.root }
func (a *account) said() string   { return a.log.String() }

// lines keeps what functions say, up to a bound.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text.Len() < 4<<20 {
		_, _ = l.text.Write(p)
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
