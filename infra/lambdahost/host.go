// Package lambdahost runs the deployable functions on this machine: the built
// bootstraps, each process behind a Lambda Runtime API of its own, fed from what the
// deployment's template says and nothing else. Its routes become events of an HTTP API, its queues batches
// with partial failures, its rules and rates EventBridge events; it enforces timeouts, memory and
// concurrency. The services behind are MiniStack's and our CodeBuild's; between them
// and the functions stands a gateway that knows which function calls, allows what the template's
// policies allow, and lets a test look at each call, lose its answer or kill the caller.
//
// It is for tests and figures. It is not AWS: docs/emulator.md says where it differs.
package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"runnerhub/infra/template"
)

// Deps is what a Host needs.
type Deps struct {
	Stack    *template.Stack // the template, resolved with what Provision made
	Region   string          // of the site it was resolved for
	Account  string
	Programs string            // folder with <function>/bootstrap
	Layers   map[string]string // layer id → the folder that stands for /opt
	Listener net.Listener      // of the HTTP API; the host closes it

	Services  string       // URL of MiniStack
	CodeBuild http.Handler // speaks the wire format of CodeBuild; may be nil
	Scheduler http.Handler // that of EventBridge Scheduler; nil: MiniStack's
	Forge     string       // URL of Bitbucket, which functions reach through the gateway

	Instances int // the most instances of a function, where the template reserves none
	// AccountLimit is how many invocations there are at once, of all functions together, as an account has such a limit: 10 when it is
	// new. What the template reserves for a function is taken off it. Beyond it, events are throttled. 0: there is none.
	AccountLimit int
	Twice        bool // every batch and every event is delivered twice, at the same time
	// Watch is called before and after each call of a function to a service or to
	// Bitbucket, and decides what becomes of it; may be nil.
	Watch func(c Call, after bool) Fate
	// Done is told of each event that a function got, after its end; may be nil.
	Done func(Invocation)
	// Output answers where the output of a function, named by its id, goes; may be nil.
	Output func(function string) io.Writer
	Log    *slog.Logger
}

// Host runs functions.
type Host struct {
	Deps

	functions map[string]*function
	sources   []*source
	gateway   *gateway
	services  *wire
	server    *http.Server

	mu        sync.Mutex
	instances map[string]*instance // by access key

	stop    context.CancelFunc // ends what polls and ticks
	working context.Context

	shared    chan struct{} // one token an invocation of those that share the account's limit; nil: there is none
	crowded   atomic.Bool
	throttles atomic.Int64

	at sync.WaitGroup // that, and what is in the background
}

// New makes a Host that is at work: its HTTP API answers, its queues are polled.
func New(d Deps) (*Host, error) {
	if d.Stack == nil || d.Region == "" || d.Account == "" || d.Programs == "" || d.Listener == nil || d.Services == "" || d.Instances < 1 || d.Log == nil {
		return nil, errors.New("lambdahost: Stack, Region, Account, Programs, Listener, Services, Instances and Log are needed")
	}
	h := &Host{
		Deps: d, functions: map[string]*function{}, instances: map[string]*instance{}, services: newWire(d.Services),
	}
	left := d.AccountLimit
	for _, f := range d.Stack.Functions {
		h.functions[f.ID] = newFunction(h, f)
		left -= f.Concurrency
	}
	if d.AccountLimit > 0 {
		if left < 1 {
			return nil, fmt.Errorf("lambdahost: the template reserves all of the account's %d", d.AccountLimit)
		}
		h.shared = make(chan struct{}, left)
	}
	front, err := h.front()
	if err != nil {
		return nil, err
	}
	for _, s := range d.Stack.Sources {
		made := &source{Source: s, host: h, function: h.functions[s.Function]}
		for _, q := range d.Stack.Queues {
			if q.ID == s.Queue {
				made.queue = q
			}
		}
		if made.function == nil || made.queue.ID == "" || made.BatchSize < 1 || made.BatchSize > 10 {
			return nil, fmt.Errorf("lambdahost: the event source of %s with queue %s and batches of %d cannot be polled", s.Function, s.Queue, s.BatchSize)
		}
		h.sources = append(h.sources, made)
	}
	if h.gateway, err = newGateway(h); err != nil {
		return nil, err
	}
	h.working, h.stop = context.WithCancel(context.Background())
	for _, s := range h.sources {
		h.at.Go(func() { s.run(h.working) })
	}
	for _, r := range d.Stack.Rates {
		h.at.Go(func() { h.every(h.working, r) })
	}
	h.server = &http.Server{Handler: front, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = h.server.Serve(d.Listener) }()
	return h, nil
}

// Crowd has the functions of the account's other stacks take all that is left of its limit, until they let go again: no invocation
// begins that has none reserved. Those at work go on.
func (h *Host) Crowd(full bool) error {
	if h.shared == nil {
		return errors.New("lambdahost: this account has no limit (AccountLimit)")
	}
	h.crowded.Store(full)
	return nil
}

// Throttled answers how many invocations were refused so far because too many were at work.
func (h *Host) Throttled() int { return int(h.throttles.Load()) }

// background does what nobody waits for.
func (h *Host) background(f func(context.Context)) {
	if h.working.Err() == nil {
		h.at.Go(func() { f(h.working) })
	}
}

// Invoke sends an event to a function, named by its id, and answers what it answered.
func (h *Host) Invoke(ctx context.Context, function string, payload []byte) ([]byte, error) {
	f := h.functions[function]
	if f == nil {
		return nil, fmt.Errorf("there is no function %q", function)
	}
	return f.invoke(ctx, payload)
}

// Close ends everything in order: no request and no batch begins, those at work are waited for,
// then the processes end.
func (h *Host) Close() error {
	h.stop()
	ending, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := h.server.Shutdown(ending)
	h.at.Wait()
	h.killAll()
	return errors.Join(err, h.gateway.close())
}

// Kill ends every process at once, in the middle of whatever it does, and then the host.
func (h *Host) Kill() error {
	h.stop()
	err := h.server.Close()
	h.killAll()
	h.at.Wait()
	h.killAll() // what was started meanwhile
	return errors.Join(err, h.gateway.close())
}

func (h *Host) killAll() {
	h.mu.Lock()
	all := make([]*instance, 0, len(h.instances))
	for _, i := range h.instances {
		all = append(all, i)
	}
	h.mu.Unlock()
	for _, i := range all {
		i.kill()
		<-i.ended
	}
}

// launch starts the process of an instance, which is known before it can call anybody.
func (h *Host) launch(i *instance) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := i.cmd.Start(); err != nil {
		return err
	}
	h.instances[i.id] = i
	return nil
}

func (h *Host) forget(i *instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.instances, i.id)
}

func (h *Host) instance(key string) *instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.instances[key]
}

// output is where a function's own output goes.
func (h *Host) output(f *function) io.Writer {
	if h.Output == nil {
		return io.Discard
	}
	return h.Output(f.ID)
}
