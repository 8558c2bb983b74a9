// Package codebuild is an endpoint that speaks the wire format of AWS CodeBuild and really
// runs the builds, for tests of what starts builds there and for running the functions
// locally. It knows three operations (StartBuild, BatchGetBuilds, StopBuild) and as much of
// a buildspec as ours has; what it does not know it refuses, and never passes over. It
// writes a build's output as events of CloudWatch Logs and says how it goes by events of EventBridge.
//
// It is no container: a build is a group of processes of this machine, with a folder and,
// as root on Linux, a user of its own. What else differs from AWS is in docs/emulator.md.
package codebuild

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Limits of CodeBuild.
const (
	// TokenLife is how long an idempotency token is known.
	TokenLife = 5 * time.Minute

	minTimeout       = 5    // minutes
	maxTimeout       = 2160 // minutes
	maxQueuedTimeout = 480  // minutes
	maxBatch         = 100  // builds in one question
	queueFactor      = 5    // builds that may wait for each one that may run
)

var (
	projectPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9\-_]{1,149}$`)
	namePattern    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	groupPattern   = regexp.MustCompile(`^[\w./#-]{1,512}$`)
	prefixPattern  = regexp.MustCompile(`^[^:*\x00-\x1f]{1,256}$`)
)

// Why a build ended before its commands did.
var (
	errStopped     = errors.New("the build was stopped")
	errTimedOut    = errors.New("the build ran for longer than it may")
	errQueuedOut   = errors.New("the build was queued for longer than it may be")
	errClosed      = errors.New("the endpoint was closed")
	errUnavailable = errors.New("new codebuild: a dependency is missing")
)

// Line is an event of CloudWatch Logs. Text ends with a newline, as CodeBuild's do.
type Line struct {
	Time time.Time
	Text string
}

// Deps is what a Host needs. What has no remark is required.
type Deps struct {
	Region, Account string
	// Dir is for the builds' folders, absolute. As root, other users must be able to
	// get there (every folder above it has the x bit for others).
	Dir  string
	Path string // PATH of builds
	// Running is how many builds of the account run at once; the others are queued. 0: all.
	Running int
	// Minute is how long a minute of the timeouts lasts; 0: a minute.
	Minute time.Duration
	// Grace is the time from SIGTERM to SIGKILL when a build is ended; negative: it is killed without having been asked.
	Grace time.Duration
	// Lines takes output. A build's come in order, a call at a time; after an error they
	// are brought again, a few times.
	Lines func(ctx context.Context, group, stream string, lines []Line) error
	// Event takes an event as EventBridge would deliver it. They come one after the other.
	Event func(ctx context.Context, event []byte)
	Now   func() time.Time // for what is shown and for the life of tokens
	NewID func() string    // UUIDs
	Log   *slog.Logger
}

// Variable is a variable of a build's environment, of type PLAINTEXT.
type Variable struct{ Name, Value string }

// Project is a build project without source, as it is registered.
type Project struct {
	Name        string
	Buildspec   string // its text
	Environment []Variable
	Image       string // shown, not used
	Type        string // of the environment, as LINUX_CONTAINER; shown, not used
	Compute     string // type of the machine, as BUILD_GENERAL1_SMALL, which it is if empty; shown, not used
	// Timeout and QueuedTimeout are in minutes; 0 is what CodeBuild takes then, 60 and 480.
	Timeout, QueuedTimeout int
	// Limit is how many builds of the project may be under way; 0: any number.
	Limit int
	// LogGroup and LogStream are where output goes; the empty ones are CodeBuild's own choice.
	LogGroup, LogStream string
}

// Faults is what a test makes go wrong. The counts, by operation ("StartBuild"), run down.
type Faults struct {
	Lose     map[string]int // answers that get lost: the work is done, the connection breaks
	Throttle map[string]int // calls refused with ThrottlingException
	Full     bool           // StartBuild is refused with AccountLimitExceededException
	Twice    bool           // each event is sent twice
	Reversed bool           // a build's first event is sent after its last one
}

// Host is the endpoint: an http.Handler. Its builds live until they end, or Close.
type Host struct {
	deps   Deps
	ctx    context.Context
	cancel context.CancelCauseFunc
	builds sync.WaitGroup
	slots  chan struct{} // nil without a limit
	events *feed[[]byte]
	posted chan struct{} // closed when no more events are sent

	mu       sync.Mutex
	projects map[string]*project
	known    map[string]*build
	tokens   map[string]token
	faults   Faults
	uids     map[int]bool // in use
}

// project is a registered project, with its counters.
type project struct {
	Project
	spec   buildspec
	number int64 // of its last build
}

// New makes an endpoint without projects.
func New(deps Deps) (*Host, error) {
	switch {
	case deps.Region == "" || deps.Account == "" || deps.Path == "" || deps.Grace == 0 || deps.Running < 0 || deps.Lines == nil ||
		deps.Event == nil || deps.Now == nil || deps.NewID == nil || deps.Log == nil:
		return nil, errUnavailable
	case !filepath.IsAbs(deps.Dir):
		return nil, fmt.Errorf("new codebuild: the folder %q is not absolute", deps.Dir)
	}
	if deps.Minute == 0 {
		deps.Minute = time.Minute
	}
	if err := os.MkdirAll(deps.Dir, 0o711); err != nil {
		return nil, fmt.Errorf("new codebuild: %w", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	h := &Host{
		deps: deps, ctx: ctx, cancel: cancel, events: newFeed[[]byte](), posted: make(chan struct{}),
		projects: map[string]*project{}, known: map[string]*build{}, tokens: map[string]token{}, uids: map[int]bool{},
	}
	if deps.Running > 0 {
		h.slots = make(chan struct{}, deps.Running)
	}
	go h.post()
	return h, nil
}

// Close kills the builds and forgets everything.
func (h *Host) Close() error {
	h.mu.Lock()
	h.cancel(errClosed) // under the lock: no build begins from here on
	h.mu.Unlock()
	h.builds.Wait()
	h.events.close()
	<-h.posted
	return nil
}

// Register makes a project, or changes the one of that name.
func (h *Host) Register(p Project) error {
	spec, err := parseBuildspec(p.Buildspec)
	switch {
	case err != nil:
		return fmt.Errorf("project %s: %w", p.Name, err)
	case !projectPattern.MatchString(p.Name):
		return fmt.Errorf("%q is no name of a project", p.Name)
	case p.Timeout != 0 && (p.Timeout < minTimeout || p.Timeout > maxTimeout):
		return fmt.Errorf("project %s: a timeout is %d to %d minutes, not %d", p.Name, minTimeout, maxTimeout, p.Timeout)
	case p.QueuedTimeout != 0 && (p.QueuedTimeout < minTimeout || p.QueuedTimeout > maxQueuedTimeout):
		return fmt.Errorf("project %s: a timeout in the queue is %d to %d minutes, not %d", p.Name, minTimeout, maxQueuedTimeout, p.QueuedTimeout)
	case p.Limit < 0:
		return fmt.Errorf("project %s: a limit of %d builds", p.Name, p.Limit)
	case p.LogGroup != "" && !groupPattern.MatchString(p.LogGroup), p.LogStream != "" && !prefixPattern.MatchString(p.LogStream):
		return fmt.Errorf("project %s: %q %q is no log group and stream", p.Name, p.LogGroup, p.LogStream)
	}
	for _, v := range p.Environment {
		if !namePattern.MatchString(v.Name) {
			return fmt.Errorf("project %s: %q is no name of a variable", p.Name, v.Name)
		}
	}
	if p.Timeout == 0 {
		p.Timeout = 60
	}
	if p.QueuedTimeout == 0 {
		p.QueuedTimeout = maxQueuedTimeout
	}
	if p.LogGroup == "" {
		p.LogGroup = "/aws/codebuild/" + p.Name
	}
	p.Environment = slices.Clone(p.Environment)
	h.mu.Lock()
	defer h.mu.Unlock()
	var number int64
	if old := h.projects[p.Name]; old != nil {
		number = old.number
	}
	h.projects[p.Name] = &project{Project: p, spec: spec, number: number}
	return nil
}

// Spoil sets what goes wrong from now on, in place of what did before.
func (h *Host) Spoil(f Faults) {
	copied := f
	copied.Lose, copied.Throttle = map[string]int{}, map[string]int{}
	for name, n := range f.Lose {
		copied.Lose[name] = n
	}
	for name, n := range f.Throttle {
		copied.Throttle[name] = n
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = copied
}

// takes counts one off a fault, and reports whether it was set.
func (h *Host) takes(fault func(*Faults) map[string]int, operation string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	left := fault(&h.faults)
	if left[operation] == 0 {
		return false
	}
	left[operation]--
	return true
}

// feed hands items over to one goroutine, in order and as many as there are. Adding
// never waits.
type feed[T any] struct {
	mu     sync.Mutex
	items  []T
	closed bool
	ready  chan struct{} // holds a token while there is something to see
}

func newFeed[T any]() *feed[T] { return &feed[T]{ready: make(chan struct{}, 1)} }

func (f *feed[T]) add(items ...T) {
	f.mu.Lock()
	f.items = append(f.items, items...)
	f.mu.Unlock()
	f.wake()
}

func (f *feed[T]) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wake()
}

func (f *feed[T]) wake() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// take waits for items; ok is false once there will be none.
func (f *feed[T]) take() (items []T, ok bool) {
	for {
		f.mu.Lock()
		items, f.items = f.items, nil
		closed := f.closed
		f.mu.Unlock()
		if len(items) > 0 || closed {
			return items, len(items) > 0
		}
		<-f.ready
	}
}
