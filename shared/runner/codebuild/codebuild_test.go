package codebuild_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	endpoint "runnerhub/infra/codebuild"
	"runnerhub/infra/ministack"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
	"runnerhub/shared/runner/codebuild"
	"runnerhub/shared/runner/runnertest"
	"runnerhub/shared/secret"
)

const (
	projectName = "builds"
	logGroup    = "/runnerhub/builds"
)

// front is where builds find the server: it has the agent, as the server on AWS has, and hands all
// else on to the address that the job names.
type front struct{ url string }

// newFront builds the agent that ships, and serves it.
func newFront(t *testing.T) *front {
	t.Helper()
	program := filepath.Join(t.TempDir(), "agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../../../infra/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	// go test answers from its cache unless a file changed that the test looked at.
	for _, sources := range []string{"../../../infra/agent", "../../agent"} {
		if err := filepath.WalkDir(sources, func(_ string, _ os.DirEntry, err error) error { return err }); err != nil {
			t.Fatal(err)
		}
	}
	body, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{host}/runner/agent/linux-"+runtime.GOARCH, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/gzip")
		_, _ = w.Write(packed.Bytes())
	})
	mux.Handle("/{host}/", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: r.In.PathValue("host")})
			r.Out.URL.Path = strings.TrimPrefix(r.In.URL.Path, "/"+r.In.PathValue("host"))
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }, // a lost answer stays lost
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return &front{server.URL}
}

// behind is the driver, its jobs going through the front.
type behind struct {
	*codebuild.Runner
	front *front
}

func (b behind) Start(ctx context.Context, job runner.Job) (string, error) {
	job.Address = b.front.url + "/" + strings.TrimPrefix(job.Address, "http://")
	return b.Runner.Start(ctx, job)
}

// site is one account with a project, whose buildspec is the one that ships.
type site struct {
	t       *testing.T
	front   *front
	host    *endpoint.Host
	address string
	clock   atomic.Int64 // what the clock is ahead, in nanoseconds

	mu     sync.Mutex
	logs   map[string][]endpoint.Line // by stream
	order  []string
	notify func(context.Context, string) // of the process that listens to events; nil: there is none
	open   chan struct{}                 // closed when there is one
}

func newSite(t *testing.T, f *front, limit int, change func(*endpoint.Deps)) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "codebuild") // others can get to it, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in the builds' folder: %v, %v", left, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, front: f, logs: map[string][]endpoint.Line{}, open: make(chan struct{})}
	deps := endpoint.Deps{
		Region: "us-east-1", Account: "000000000000", Dir: dir, Path: os.Getenv("PATH"), Grace: 20 * time.Second,
		Lines: s.lines, Event: s.event, Now: func() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }, NewID: newUUID,
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	if change != nil {
		change(&deps)
	}
	if s.host, err = endpoint.New(deps); err != nil {
		t.Fatal(err)
	}
	spec, err := os.ReadFile("../../../infra/aws/buildspec.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.host.Register(endpoint.Project{Name: projectName, Buildspec: string(spec), Limit: limit, Type: "LINUX_CONTAINER"}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.host)
	s.address = server.URL
	t.Cleanup(func() {
		server.Close()
		if err := s.host.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// testLog fails the test for whatever the endpoint has to complain about.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Errorf("the endpoint logged: %s", bytes.TrimSpace(p))
	return len(p), nil
}

func (s *site) lines(_ context.Context, group, stream string, lines []endpoint.Line) error {
	if group != logGroup {
		s.t.Errorf("lines for the group %s", group)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[stream] == nil {
		s.order = append(s.order, stream)
	}
	s.logs[stream] = append(s.logs[stream], lines...)
	return nil
}

// log answers a build's log: of what is in its streams, the lines in the agent's form.
func (s *site) log(name string) []buildlog.Line {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []buildlog.Line
	for _, stream := range s.order {
		if !strings.HasPrefix(stream, name+"/") {
			continue
		}
		for _, l := range s.logs[stream] {
			if line, ok := buildlog.ParseForm(strings.TrimSuffix(l.Text, "\n")); ok {
				all = append(all, line)
			}
		}
	}
	return all
}

// event delivers an event to who listens, and waits until somebody does, as EventBridge
// tries again until it is heard.
func (s *site) event(ctx context.Context, body []byte) {
	var e struct {
		Detail struct {
			BuildID string `json:"build-id"`
		} `json:"detail"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		s.t.Errorf("an event is no JSON: %v", err)
	}
	for {
		s.mu.Lock()
		notify, open := s.notify, s.open
		s.mu.Unlock()
		if notify != nil {
			notify(ctx, e.Detail.BuildID)
			return
		}
		select {
		case <-open:
		case <-ctx.Done():
			return
		}
	}
}

// listen sets who hears of events.
func (s *site) listen(notify func(ctx context.Context, id string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify = notify
	if notify == nil {
		s.open = make(chan struct{})
	} else {
		close(s.open)
	}
}

// driver opens the driver as a process of the server does.
func (s *site) driver() *codebuild.Runner {
	s.t.Helper()
	r, err := codebuild.New(codebuild.Deps{Config: ministack.Config(s.address), Project: projectName, LogGroup: logGroup})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func alive(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatalf("process id %q: %v", pid, err)
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return !errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
	}
	return !strings.Contains(string(stat), ") Z ")
}

// TestEndpoint runs the suite, and what only faults show, on an endpoint that runs the buildspec that ships.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	f := newFront(t)
	t.Run("Suite", func(t *testing.T) {
		t.Parallel()
		runnertest.Run(t, func(t *testing.T) runnertest.Subject { return subject(t, f) })
	})
	for name, test := range map[string]struct {
		run    func(*stage)
		change func(*endpoint.Deps)
	}{
		"LostAnswers":    {lostAnswers, nil},
		"TokenForgotten": {tokenForgotten, nil},
		"Capacity":       {capacity, nil},
		"Events":         {events, nil},
		"RunningEvent":   {runningEvent, nil},
		"Unasked":        {unasked, func(d *endpoint.Deps) { d.Grace, d.Running = -1, 1 }},
		"NoCurl":         {noAgent("the agent could not be fetched: "), func(d *endpoint.Deps) { d.Path = bare(t, "curl") }},
		"NoGzip":         {noAgent("the agent could not be unpacked: "), func(d *endpoint.Deps) { d.Path = bare(t, "gzip") }},
		"Limit":          {limit, func(d *endpoint.Deps) { d.Minute = 100 * time.Millisecond }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.run(newStage(t, f, test.change))
		})
	}
}

// subject is a driver for the suite. The suite is over long before a token is forgotten, so an attempt never starts
// twice in it; tokenForgotten is about that.
func subject(t *testing.T, f *front) runnertest.Subject {
	const slots = 3
	s := newSite(t, f, slots, nil)
	return runnertest.Subject{
		Slots: slots, Alive: alive, Private: true,
		Open: func(t *testing.T, notify func(context.Context, runner.Event)) runnertest.Instance {
			r := s.driver()
			s.listen(func(ctx context.Context, id string) {
				e, err := r.Event(ctx, id)
				if err != nil {
					t.Errorf("Event: %v", err)
					return
				}
				notify(ctx, e)
			})
			var once sync.Once
			return runnertest.Instance{
				Runner: behind{r, f},
				Log:    func(_ *testing.T, name string) []buildlog.Line { return s.log(name) },
				Close:  func() { once.Do(func() { s.listen(nil) }) },
			}
		},
	}
}

// Who only looks at builds needs no log group, and cannot start one.
func TestStartingNeedsALogGroup(t *testing.T) {
	t.Parallel()
	r, err := codebuild.New(codebuild.Deps{Config: ministack.Config("http://127.0.0.1:1"), Project: projectName})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Start(t.Context(), runner.Job{Build: "b", Log: "l", Attempt: "a", Address: "https://ci.example.com", Ticket: secret.New("t"), Timeout: time.Minute}); !fault.Is(err, fault.Internal) {
		t.Errorf("started without a log group: %v", err)
	}
}
