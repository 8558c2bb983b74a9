package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"runnerhub/infra/template"
)

// function is a function with its instances.
type function struct {
	template.Function
	host *Host
	room chan struct{} // one token an instance that may exist

	mu    sync.Mutex
	idle  []*instance   // the last one is used next
	freed chan struct{} // closed, and made anew, when an instance became idle or went
}

// errThrottled is the error of an event for which there was no instance.
var errThrottled = errors.New("the function's concurrency is used up")

func newFunction(h *Host, f template.Function) *function {
	most := h.Instances
	if f.Concurrency > 0 {
		most = f.Concurrency
	}
	return &function{
		Function: f, host: h, room: make(chan struct{}, most),
		freed: make(chan struct{}),
	}
}

// folder is where the function's program lies below the programs.
func (f *function) folder() string { return strings.ToLower(strings.TrimSuffix(f.ID, "Function")) }

// environment is all that the process gets: what Lambda sets, and what the template says.
func (f *function) environment(key, runtime string) []string {
	h := f.host
	env := []string{
		"AWS_LAMBDA_RUNTIME_API=" + runtime, "AWS_LAMBDA_FUNCTION_NAME=" + f.Name, "AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + strconv.Itoa(f.Memory), "_HANDLER=bootstrap", "LAMBDA_TASK_ROOT=/var/task",
		"AWS_REGION=" + h.Region, "AWS_DEFAULT_REGION=" + h.Region, "TZ=:UTC", "PATH=/usr/local/bin:/usr/bin:/bin",
		"AWS_ACCESS_KEY_ID=" + key, "AWS_SECRET_ACCESS_KEY=secret", "AWS_SESSION_TOKEN=session",
		"AWS_ENDPOINT_URL=" + h.gateway.url, "AWS_ENDPOINT_URL_CODEBUILD=" + h.gateway.url,
	}
	for name, value := range f.Environment {
		if rest, ok := strings.CutPrefix(value, "/opt/"); ok {
			value = f.layered(rest)
		}
		switch name {
		case "BITBUCKET_API_URL":
			value = h.gateway.forge(key) + "/2.0"
		case "BITBUCKET_WEB_URL": // tokens are obtained there
			value = h.gateway.forge(key)
		}
		env = append(env, name+"="+value)
	}
	return env
}

// layered is the path of a file that stands in one of the function's layers.
func (f *function) layered(path string) string {
	for _, id := range f.Layers {
		full := filepath.Join(f.host.Layers[id], path)
		if _, err := os.Stat(full); err == nil {
			return full
		}
	}
	return "/opt/" + path
}

// invoke sends one event to an instance of its own and waits for the answer. When all are busy, it waits for
// one, except where the template reserves a number, or the account has a limit: then it is errThrottled, as on AWS.
func (f *function) invoke(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) > maxAnswer {
		return nil, fmt.Errorf("an event of %d bytes for %s is over the limit of %d", len(payload), f.ID, maxAnswer)
	}
	leave, err := f.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	out := outcome{err: errGone}
	for errors.Is(out.err, errGone) {
		i, err := f.take(ctx)
		if err != nil {
			return nil, err
		}
		out = i.run(payload)
	}
	if out.err != nil {
		f.host.Log.Warn("an invocation failed", "function", f.ID, "error", out.err)
	}
	return out.body, out.err
}

// enter takes an invocation off what the functions of the account share, where there is a limit and the template reserves
// none for this one.
func (f *function) enter() (leave func(), err error) {
	if f.host.shared == nil || f.Concurrency > 0 {
		return func() {}, nil
	}
	if !f.host.crowded.Load() {
		select {
		case f.host.shared <- struct{}{}:
			return func() { <-f.host.shared }, nil
		default:
		}
	}
	f.host.throttles.Add(1)
	return nil, errThrottled
}

// take answers an instance that has no event.
func (f *function) take(ctx context.Context) (*instance, error) {
	for {
		f.mu.Lock()
		if n := len(f.idle); n > 0 {
			i := f.idle[n-1]
			f.idle = f.idle[:n-1]
			f.mu.Unlock()
			return i, nil
		}
		freed := f.freed
		f.mu.Unlock()
		select {
		case f.room <- struct{}{}:
			i, err := f.start(ctx)
			if err != nil {
				return nil, err
			}
			return i, nil
		default:
		}
		if f.Concurrency > 0 {
			f.host.throttles.Add(1)
			return nil, errThrottled
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// busy reports whether an instance has an event, or starts for one.
func (f *function) busy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.room) > len(f.idle)
}

// release freezes an instance that waits for an event, and lets others have it.
func (f *function) release(i *instance) {
	_ = i.cmd.Process.Signal(syscall.SIGSTOP)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = append(f.idle, i)
	f.wake()
}

// gone makes room for another instance.
func (f *function) gone(i *instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.idle = slices.DeleteFunc(f.idle, func(other *instance) bool { return other == i })
	<-f.room
	f.wake()
}

func (f *function) wake() {
	close(f.freed)
	f.freed = make(chan struct{})
}
