package lambdahost

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
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
	// runtimePath begins the paths of the Lambda Runtime API
	// (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
	runtimePath = "/2018-06-01/runtime"
	// initTimeout is what Lambda gives a function until it asks for its first event.
	initTimeout = 10 * time.Second
	// maxAnswer is the most bytes a function may answer, and be sent.
	maxAnswer = 6 << 20
)

// invocation is one event on its way through a function.
type invocation struct {
	id       string
	payload  []byte
	deadline time.Time
	outcome  chan outcome // holds one
}

// outcome is how an invocation ended: with an answer, or with an error.
type outcome struct {
	body []byte
	err  error
	at   time.Time // when it was told, which a process that is gone does not
}

// Invocation is an event that a function got, after its end.
type Invocation struct {
	Function string        // id
	ID       string        // as calls have it
	Cold     bool          // the first event of its process
	Took     time.Duration // from the event to the answer; the start of the process is not in it
	Err      error
}

// instance is one execution environment of a function: a process and the Runtime API
// that it alone talks to. Between two events it is frozen, as on AWS: what a function leaves
// running in the background does not go on.
type instance struct {
	id       string // also its access key, by which the gateway knows who calls
	function *function
	cmd      *exec.Cmd
	server   *http.Server
	log      *slog.Logger

	next   chan *invocation // to the poll that waits
	ready  chan struct{}    // closed at the first poll
	idle   chan struct{}    // holds one: it asks for another event
	ended  chan struct{}    // closed when the process is gone
	output *tail

	mu      sync.Mutex
	current *invocation
	served  int   // invocations begun
	failed  error // what it said of its own start
}

// start starts a process and waits for its first poll.
func (f *function) start(ctx context.Context) (*instance, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		<-f.room
		return nil, err
	}
	i := &instance{
		id: "AKIA" + rand.Text()[:16], function: f, log: f.host.Log,
		next: make(chan *invocation), ready: make(chan struct{}), idle: make(chan struct{}, 1), ended: make(chan struct{}), output: &tail{},
	}
	i.server = &http.Server{Handler: i.runtime(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = i.server.Serve(listener) }()
	i.cmd = exec.Command(filepath.Join(f.host.Programs, f.folder(), "bootstrap"))
	i.cmd.Env = f.environment(i.id, listener.Addr().String())
	i.cmd.Stdout, i.cmd.Stderr = io.MultiWriter(i.output, f.host.output(f)), io.MultiWriter(i.output, f.host.output(f))
	i.cmd.Dir = "/"
	if err := f.host.launch(i); err != nil {
		_ = i.server.Close()
		<-f.room
		return nil, fmt.Errorf("starting %s: %w", f.ID, err)
	}
	go func() {
		_ = i.cmd.Wait()
		_ = i.server.Close()
		f.host.forget(i)
		f.gone(i)
		close(i.ended)
	}()
	timer := time.NewTimer(initTimeout)
	defer timer.Stop()
	select {
	case <-i.ready:
		return i, nil
	case <-i.ended:
		err = errors.New("it ended before it asked for an event")
	case <-timer.C:
		err = fmt.Errorf("it did not ask for an event within %s", initTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	i.kill()
	i.mu.Lock()
	defer i.mu.Unlock()
	return nil, fmt.Errorf("starting %s: %w", f.ID, errors.Join(err, i.failed, errors.New(i.output.String())))
}

// kill ends the process without notice.
func (i *instance) kill() { _ = i.cmd.Process.Kill() }

// run sends an event, waits for what comes of it, and tells.
func (i *instance) run(payload []byte) outcome {
	timeout := i.function.Timeout
	inv := &invocation{id: requestID(), payload: payload, deadline: time.Now().Add(timeout), outcome: make(chan outcome, 1)}
	i.mu.Lock()
	i.current = inv
	i.served++
	cold := i.served == 1
	i.mu.Unlock()
	select {
	case <-i.idle:
	default:
	}
	began := time.Now()
	_ = i.cmd.Process.Signal(syscall.SIGCONT)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case i.next <- inv:
	case <-i.ended:
		return outcome{err: errGone}
	}
	out := i.wait(inv, timer)
	if done := i.function.host.Done; done != nil {
		if out.at.IsZero() {
			out.at = time.Now()
		}
		done(Invocation{Function: i.function.ID, ID: inv.id, Cold: cold, Took: out.at.Sub(began), Err: out.err})
	}
	return out
}

// wait waits for the end of an invocation, at the latest until the timer's.
func (i *instance) wait(inv *invocation, timer *time.Timer) outcome {
	select {
	case out := <-inv.outcome:
		if used := i.memory(); used > i.function.Memory {
			i.kill()
			<-i.ended
			return outcome{err: fmt.Errorf("%s used %d MB of %d MB of memory", i.function.ID, used, i.function.Memory)}
		}
		// A caller who has the answer and comes again at once shall find it idle.
		select {
		case <-i.idle:
		case <-i.ended:
		case <-timer.C:
		}
		return out
	case <-i.ended:
		select {
		case out := <-inv.outcome: // it answered, and ended then
			return out
		default:
		}
		return outcome{err: &Crash{Function: i.function.ID, Output: i.output.String()}}
	case <-timer.C:
		i.kill()
		<-i.ended
		return outcome{err: fmt.Errorf("%s timed out after %s", i.function.ID, i.function.Timeout)}
	}
}

// errGone is the error of an event that was not sent: its process had ended before.
var errGone = errors.New("the process ended before the event")

// Crash is the error of an invocation whose process ended.
type Crash struct {
	Function string
	Output   string // the end of what the process said
}

// Error implements error.
func (c *Crash) Error() string { return c.Function + " ended in the middle of an event: " + c.Output }

// memory is the most megabytes the process had resident.
func (i *instance) memory() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	rest, _, _ = strings.Cut(rest, "kB")
	kilobytes, _ := strconv.Atoi(strings.TrimSpace(rest))
	return kilobytes >> 10
}

// called is a call that the process makes now, as far as that says what it is.
func (i *instance) called() Call {
	i.mu.Lock()
	defer i.mu.Unlock()
	call := Call{Function: i.function.ID, Cold: i.served <= 1, Init: i.served == 0}
	if i.current != nil {
		call.Invocation = i.current.id
	}
	return call
}

// runtime is the Runtime API: four calls.
func (i *instance) runtime() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+runtimePath+"/invocation/next", i.poll)
	mux.HandleFunc("POST "+runtimePath+"/invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
		if err == nil && len(body) > maxAnswer {
			err = fmt.Errorf("%s answered more than %d bytes", i.function.ID, maxAnswer)
		}
		i.answer(w, r.PathValue("id"), outcome{body: body, err: err})
	})
	mux.HandleFunc("POST "+runtimePath+"/invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) {
		i.answer(w, r.PathValue("id"), outcome{err: i.fault(r)})
	})
	mux.HandleFunc("POST "+runtimePath+"/init/error", func(w http.ResponseWriter, r *http.Request) {
		err := i.fault(r)
		i.mu.Lock()
		i.failed = err
		i.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})
	return mux
}

// Failure is the error that a function answered.
type Failure struct {
	Function string
	Message  string
}

// Error implements error.
func (f *Failure) Error() string { return f.Function + " failed: " + f.Message }

func (i *instance) fault(r *http.Request) error {
	var said struct {
		Message string `json:"errorMessage"`
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer))
	if err := errors.Join(err, json.Unmarshal(body, &said)); err != nil {
		return fmt.Errorf("%s failed and did not say how: %w", i.function.ID, err)
	}
	return &Failure{i.function.ID, said.Message}
}

// poll answers the next event, for which it waits frozen.
func (i *instance) poll(w http.ResponseWriter, r *http.Request) {
	select {
	case <-i.ready:
		i.function.release(i)
		select {
		case i.idle <- struct{}{}:
		default:
		}
	default:
		close(i.ready) // whoever started it has an event for it
	}
	select {
	case inv := <-i.next:
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", i.function.ARN)
		h.Set("Lambda-Runtime-Trace-Id", "Root=1-00000000-000000000000000000000000;Sampled=0")
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(inv.payload) // a process that cannot read it ends, and is seen to
	case <-r.Context().Done():
	}
}

// answer takes what came of the event at work.
func (i *instance) answer(w http.ResponseWriter, id string, out outcome) {
	i.mu.Lock()
	inv := i.current
	mine := inv != nil && inv.id == id
	if mine {
		i.current = nil
	}
	i.mu.Unlock()
	if !mine {
		http.Error(w, "no such invocation", http.StatusForbidden)
		return
	}
	out.at = time.Now()
	inv.outcome <- out
	w.WriteHeader(http.StatusAccepted)
}

// requestID looks like those of Lambda.
func requestID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// tail keeps the end of what a process said.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if most := 4 << 10; len(t.text) > most {
		t.text = bytes.Clone(t.text[len(t.text)-most:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}
