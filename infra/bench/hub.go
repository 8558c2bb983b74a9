package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"runnerhub/infra/visitor"
	"runnerhub/shared/ci"
	"runnerhub/shared/random"
)

// target is a repository that is connected to an app of the server under test.
type target struct {
	repository
	hook hook
	app  string
}

// hub is a server under test, as its clients see it.
type hub struct {
	address string
	forge   *forge
	alice   *visitor.Visitor // signed in
	targets []target
	next    int // how many commits have been dealt
	client  *http.Client
	drain   func(context.Context) error // waits until no message is left

	mu       sync.Mutex
	accepted map[string]int // requests that were answered 200, by app
}

// newHub signs in and connects the first repositories of the forge.
func newHub(ctx context.Context, f *forge, address string, repositories int) (*hub, error) {
	alice, err := visitor.New(address, f.address, "alice", "alice")
	if err != nil {
		return nil, err
	}
	h := &hub{
		address: address, forge: f, alice: alice, targets: make([]target, repositories), accepted: map[string]int{},
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}},
	}
	h.drain = h.idle
	if err := alice.SignIn(ctx); err != nil {
		return nil, fmt.Errorf("signing in: %w", err)
	}
	workspace, err := alice.Workspace(ctx, "Bench")
	if err != nil {
		return nil, fmt.Errorf("making a workspace: %w", err)
	}
	connection, err := alice.Connect(ctx, workspace)
	if err != nil {
		return nil, fmt.Errorf("connecting Bitbucket: %w", err)
	}
	for i := range h.targets {
		t := &h.targets[i]
		t.repository = f.repositories[i]
		if t.app, err = alice.App(ctx, workspace, t.FullName); err != nil {
			return nil, fmt.Errorf("making an app: %w", err)
		}
		if err := alice.Tie(ctx, t.app, connection, t.UUID); err != nil {
			return nil, fmt.Errorf("connecting a repository: %w", err)
		}
		if t.hook, err = f.hook(t.repository); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// request is a signed webhook request, ready to be sent.
type request struct {
	event
	target    target
	signature string
}

// dealt is a commit that one repository has to be told of.
type dealt struct {
	target
	old, commit string
}

// deal answers commits that have not been dealt yet, of all targets in turn.
func (h *hub) deal(count int) ([]dealt, error) {
	var all []dealt
	for range count {
		t, n := h.targets[h.next%len(h.targets)], h.next/len(h.targets)
		if n+1 >= len(t.commits) {
			return nil, fmt.Errorf("%s has no more than %d commits", t.FullName, len(t.commits))
		}
		all = append(all, dealt{t, t.commits[n], t.commits[n+1]})
		h.next++
	}
	return all, nil
}

func (d dealt) push() (request, error) {
	e, err := push(d.repository, branchName, d.old, d.commit)
	return request{e, d.target, sign(d.hook.secret, e.body)}, err
}

func (d dealt) pullRequest(id int) (request, error) {
	e, err := pullRequest(d.repository, id, branchName, d.commit)
	return request{e, d.target, sign(d.hook.secret, e.body)}, err
}

// pushes are signed pushes of commits that have not been dealt yet.
func (h *hub) pushes(count int) ([]request, error) {
	commits, err := h.deal(count)
	if err != nil {
		return nil, err
	}
	all := make([]request, len(commits))
	for i, c := range commits {
		if all[i], err = c.push(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// send delivers a request and answers when it began and how long the answer took. An
// answer other than 200 is an error.
func (h *hub) send(ctx context.Context, r request) (began time.Time, took time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.target.hook.address, bytes.NewReader(r.body))
	if err != nil {
		return began, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Event-Key", r.key)
	req.Header.Set("X-Request-UUID", random.ID())
	req.Header.Set("X-Attempt-Number", "1")
	req.Header.Set("X-Hub-Signature", r.signature)
	began = time.Now()
	resp, err := h.client.Do(req)
	if err != nil {
		return began, 0, fmt.Errorf("delivering: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	took = time.Since(began)
	switch {
	case err != nil:
		return began, took, fmt.Errorf("delivering: %w", err)
	case resp.StatusCode != http.StatusOK:
		return began, took, fmt.Errorf("delivering: the server answered %d: %.200s", resp.StatusCode, text)
	}
	h.mu.Lock()
	h.accepted[r.target.app]++
	h.mu.Unlock()
	return began, took, nil
}

// ask calls the server under test about itself.
func (h *hub) ask(ctx context.Context, method, path string, in, out any) error {
	return h.alice.Call(ctx, method, "/bench/"+path, in, out)
}

// idle waits until no message is left. A dead letter is an error: nothing here fails
// on purpose.
func (h *hub) idle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var q struct{ Waiting, Held, Dead int }
		if err := h.ask(ctx, http.MethodGet, "queues", nil, &q); err != nil {
			return err
		}
		switch {
		case q.Dead > 0:
			return fmt.Errorf("%d messages became dead letters", q.Dead)
		case q.Waiting+q.Held == 0:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d messages: %w", q.Waiting+q.Held, context.Cause(ctx))
		}
	}
}

// drainWithin bounds how long the server under test may work at what it accepted.
const drainWithin = 2 * time.Minute

// audit reads everything back through the API and answers what is missing or too
// much: each accepted request has to have made a delivery with one decision, and
// that a build of its own.
func (h *hub) audit(ctx context.Context) error {
	for _, t := range h.targets {
		deliveries, err := pages[visitor.Delivery](ctx, h, t.app, "deliveries")
		if err != nil {
			return err
		}
		builds, err := pages[visitor.Build](ctx, h, t.app, "builds")
		if err != nil {
			return err
		}
		made := map[string]bool{}
		for _, d := range deliveries {
			if len(d.Decisions) != 1 || d.Decisions[0].Decision != string(ci.Built) {
				return fmt.Errorf("%s: delivery %s was decided %v", t.FullName, d.ID, d.Decisions)
			}
			made[d.Decisions[0].Build] = true
		}
		if n := h.accepted[t.app]; len(deliveries) != n || len(builds) != n || len(made) != n {
			return fmt.Errorf("%s: %d requests were accepted, but there are %d deliveries that made %d of %d builds",
				t.FullName, n, len(deliveries), len(made), len(builds))
		}
	}
	return nil
}

func pages[T any](ctx context.Context, h *hub, app, what string) ([]T, error) {
	var all []T
	for cursor := ""; ; {
		var page visitor.List[T]
		path := "/api/apps/" + app + "/" + what + "?cursor=" + url.QueryEscape(cursor)
		if err := h.alice.Call(ctx, http.MethodGet, path, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if cursor = page.Cursor; cursor == "" {
			return all, nil
		}
	}
}

// child is a process under test.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan error
}

// startServer runs this program as the server under test, in a fresh data folder.
func startServer(ctx context.Context, c serverConfig) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "server")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started, err := start(cmd, stdin)
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(stdin).Encode(c); err != nil {
		return nil, errors.Join(err, started.stop())
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		return nil, errors.Join(fmt.Errorf("the server under test did not start: %q, %w", line, err), started.stop())
	}
	return started, ctx.Err()
}

// start starts a process in a group of its own: a Ctrl-C is for this program, which
// ends the others.
func start(cmd *exec.Cmd, stdin io.Closer) (*child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	c := &child{cmd, stdin, make(chan error, 1)}
	go func() { c.ended <- cmd.Wait() }()
	return c, nil
}

// stop ends the process in an orderly way, or after a while in another.
func (c *child) stop() error {
	err := errors.Join(c.stdin.Close(), c.cmd.Process.Signal(syscall.SIGTERM))
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	select {
	case ended := <-c.ended:
		return errors.Join(err, ended)
	case <-patience.C:
		return errors.Join(err, errors.New("it did not end"), c.cmd.Process.Kill())
	}
}

// cpu answers the processor time the process has used.
func (c *child) cpu() (time.Duration, error) {
	text, err := os.ReadFile(c.file("stat"))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold spaces; utime and stime are the 12th and 13th
	// fields after it, in hundredths of a second on every Linux.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("the process's stat is not as documented")
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// resident answers the memory that the process has in use, in bytes (VmRSS).
func (c *child) resident() (int64, error) { return residentOf(c.cmd.Process.Pid) }

func residentOf(pid int) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, errors.New("the process's status has no VmRSS")
}

func (c *child) file(name string) string {
	return filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), name)
}

// freeAddress answers an address on loopback that was free a moment ago. The forge
// has to know it before the server under test exists.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
