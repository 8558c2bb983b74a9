// Package dispatchtest is for the tests of the use cases that stand around a build:
// grant, dispatch, report and sweep. It puts them together in one process with real
// parts below them (a data file with its table and queues, a key file, log files, and
// the sandbox in Bitbucket's place) and a clock that stands until it is moved.
//
// It is no runner: builds are recorded as started and held, and a test plays their agents.
package dispatchtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/sandbox"
	"runnerhub/shared/bitbucket"
	logfiles "runnerhub/shared/buildlog/files"
	"runnerhub/shared/ci"
	"runnerhub/shared/credential"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/fault"
	"runnerhub/shared/grant"
	"runnerhub/shared/message"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue"
	queues "runnerhub/shared/queue/sqlite"
	"runnerhub/shared/report"
	"runnerhub/shared/runner"
	"runnerhub/shared/schedule"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	"runnerhub/shared/store/storetest"
	"runnerhub/shared/sweep"
	"runnerhub/shared/table"
	"runnerhub/shared/timekeeper"
	"runnerhub/shared/timetable"
	"runnerhub/shared/timetable/timers"
	"runnerhub/shared/vault/keyfile"
)

// The one workspace, app and connection of a Bench.
const (
	Workspace  = "w"
	App        = "app"
	Connection = "connection"
)

// Bench is the service.
type Bench struct {
	*testing.T
	*storetest.Bench
	Sandbox    *sandbox.Sandbox
	URL        string // of the sandbox
	Transport  *Transport
	Bitbucket  *bitbucket.Bitbucket
	Vault      *keyfile.Vault
	Keeper     *grant.Keeper
	Deliveries *Queue
	Reports    *Queue
	Runner     *Runner
	BuildLog   *logfiles.Log
	Dispatch   *dispatch.Dispatch
	Report     *report.Report
	Sweep      *sweep.Sweep
	Timetable  *Timetable
	Plans      *schedule.Schedules // those of users; Store answers what is stored
	Logged     *Buffer             // every log line
	Log        *slog.Logger
	Repository string // UUID of acme/shop
	Main       string // head of its main branch
}

// Offer is what the Bench's runner does for builds.
func Offer() pipeline.Offer {
	return pipeline.Offer{Platforms: []string{"linux"}, Runners: []string{"process"}, Computes: []string{"small", "large"}, Features: []pipeline.Feature{pipeline.StepTimeouts, pipeline.ContinueOnError, pipeline.Groups}}
}

// Limits are those of the Bench's runner.
func Limits() store.Limits { return store.Limits{Runner: 2} }

// New makes a Bench whose app builds acme/shop, as Alice, with a pipeline file on main.
func New(t *testing.T, file string) *Bench {
	t.Helper()
	b := &Bench{T: t, Bench: storetest.New(t), Runner: &Runner{}, Logged: &Buffer{}, Transport: &Transport{}}
	b.Log = slog.New(slog.NewTextHandler(b.Logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.startSandbox()
	b.makeParts()
	b.makeUseCases()
	b.connect()
	if file != "" {
		b.Main = b.Commit("main", "runnerhub.yml", "")
		b.Main = b.Commit("main", ".runnerhub/runnerhub.yml", file)
	}
	return b
}

// Must fails the test when err is one.
func (b *Bench) Must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *Bench) startSandbox() {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.Sandbox.ServeHTTP(w, r) }))
	b.URL = "http://" + server.Listener.Addr().String()
	var err error
	b.Sandbox, err = sandbox.New(sandbox.Deps{
		PublicURL: b.URL, ClientID: "client", ClientSecret: "client-secret", CallbackURL: "http://127.0.0.1:1/auth/callback",
		LoopbackHooks: true, Log: slog.New(slog.DiscardHandler), Now: b.Clock.Now,
	})
	b.Must(err)
	server.Start()
	b.Cleanup(func() {
		server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := b.Sandbox.Close(ctx); err != nil {
			b.Error(err)
		}
	})
}

func (b *Bench) makeParts() {
	b.Transport.next = bitbucket.NewHTTPClient().Transport
	var err error
	b.Bitbucket, err = bitbucket.New(bitbucket.Deps{
		APIURL: b.URL + "/2.0", WebURL: b.URL, ClientID: "client", ClientSecret: credential.Fixed(secret.New("client-secret")),
		CallbackURL: "http://127.0.0.1:1/auth/callback", HTTP: &http.Client{Transport: b.Transport}, Now: b.Clock.Now,
	})
	b.Must(err)
	dir := b.TempDir()
	b.Vault, err = keyfile.New(keyfile.Deps{Path: filepath.Join(dir, "key"), Name: "tokens"})
	b.Must(err)
	b.BuildLog, err = logfiles.New(logfiles.Deps{Dir: filepath.Join(dir, "logs")})
	b.Must(err)
	b.Cleanup(func() { _ = b.BuildLog.Close() })
	for name, q := range map[string]**Queue{"deliveries": &b.Deliveries, "reports": &b.Reports} {
		real, err := queues.New(queues.Deps{File: b.File, Name: name, Visibility: 5 * time.Minute, MaxAttempts: 20, Now: b.Clock.Now, Log: slog.New(slog.DiscardHandler)})
		b.Must(err)
		*q = &Queue{Queue: real}
	}
}

func (b *Bench) makeUseCases() {
	b.Keeper = b.NewKeeper(b.Store, b.Bitbucket)
	var err error
	tickets := &storetest.IDs{}
	b.Dispatch, err = dispatch.New(dispatch.Deps{
		Store: b.Store, Clients: b.Keeper, Deliveries: b.Deliveries, Reports: b.Reports, Runner: b.Runner, RunnerName: "local",
		Offer: Offer(), Forks: true, Limits: Limits(), Address: "http://server.example", BuildLog: b.BuildLog,
		Now: b.Clock.Now, NewID: b.IDs.New, NewTicket: func() secret.Text { return secret.New("ticket-" + tickets.New()) }, Log: b.Log,
	})
	b.Must(err)
	b.Report, err = report.New(report.Deps{
		Store: b.Store, Grants: b.Keeper, Deliveries: b.Deliveries, Reports: b.Reports, PublicURL: "http://127.0.0.1:8080",
		Now: b.Clock.Now, NewID: b.IDs.New, Log: b.Log,
	})
	b.Must(err)
	entries, err := timers.New(timers.Deps{Table: b.Table, Queue: b.Deliveries, Now: b.Clock.Now, Log: b.Log})
	b.Must(err)
	b.Timetable = &Timetable{Timetable: entries, entries: map[string]timetable.Schedule{}}
	keeper, err := timekeeper.New(timekeeper.Deps{Store: b.Store, Timetable: b.Timetable, Now: b.Clock.Now, NewID: b.IDs.New})
	b.Must(err)
	b.Plans, err = schedule.New(schedule.Deps{Store: b.Store, Timekeeper: keeper, Now: b.Clock.Now, NewID: b.IDs.New, Log: b.Log})
	b.Must(err)
	b.Sweep, err = sweep.New(sweep.Deps{
		Store: b.Store, Deliveries: b.Deliveries, Reports: b.Reports, Runner: b.Runner, RunnerName: "local", Timekeeper: keeper,
		WaitLimit: dispatch.WaitLimit, HoldLimit: dispatch.HoldLimit, Now: b.Clock.Now, Log: b.Log,
	})
	b.Must(err)
}

// NewKeeper makes another process's Keeper.
func (b *Bench) NewKeeper(s *store.Store, bb *bitbucket.Bitbucket) *grant.Keeper {
	b.Helper()
	k, err := grant.New(grant.Deps{Store: s, Vault: b.Vault, Bitbucket: bb, Now: b.Clock.Now, NewID: b.IDs.New, Log: b.Log})
	b.Must(err)
	return k
}

// connect makes the workspace, the connection and the app.
func (b *Bench) connect() {
	b.Helper()
	ctx := b.Context()
	now := b.Clock.Now()
	b.Must(b.CreateWorkspace(ctx, ci.Workspace{ID: Workspace, Name: "W", CreatedAt: now}, "user"))
	b.Must(b.CreateApp(ctx, ci.App{ID: App, Workspace: Workspace, Name: "Shop", CreatedAt: now}))
	b.Authorize()
	b.Repository, _ = b.Call("alice", http.MethodGet, "/2.0/repositories/acme/shop", nil)["uuid"].(string)
	_, err := b.PutRepository(ctx, ci.Repository{App: App, Connection: Connection, UUID: b.Repository, FullName: "acme/shop", Hook: "hook"})
	b.Must(err)
}

// Authorize has Alice consent, and stores the grant.
func (b *Bench) Authorize() {
	b.Helper()
	const verifier = "a-verifier-of-forty-three-characters-or-more"
	seal, err := b.Keeper.Seal(b.Context(), Connection)
	b.Must(err)
	form := url.Values{"action": {"grant"}, "user": {"alice"}, "password": {"alice"}}
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.PostForm(b.Bitbucket.AuthorizeURL("state", verifier), form)
	b.Must(err)
	b.Must(resp.Body.Close())
	back, err := resp.Location()
	b.Must(err)
	token, err := b.Bitbucket.Exchange(b.Context(), back.Query().Get("code"), verifier)
	b.Must(err)
	sealed, err := seal(token)
	b.Must(err)
	conn := ci.Connection{ID: Connection, Workspace: Workspace, Provider: "bitbucket", State: ci.ConnectionActive}
	b.Must(b.PutConnection(b.Context(), conn, sealed, token.ExpiresAt, b.Keeper.Due()))
	b.Keeper.Forget(Connection)
}

// Call makes a request to the sandbox with a user's password and answers its JSON.
func (b *Bench) Call(user, method, path string, body any) map[string]any {
	b.Helper()
	text, err := json.Marshal(body)
	b.Must(err)
	req, err := http.NewRequestWithContext(b.Context(), method, b.URL+path, bytes.NewReader(text))
	b.Must(err)
	req.Header.Set("Content-Type", "application/json")
	if user != "" {
		req.SetBasicAuth(user, user)
	}
	resp, err := http.DefaultClient.Do(req)
	b.Must(err)
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	b.Must(err)
	if resp.StatusCode > 299 {
		b.Fatalf("%s %s: %d %.300s", method, path, resp.StatusCode, answer)
	}
	out := map[string]any{}
	if len(answer) > 0 {
		b.Must(json.Unmarshal(answer, &out))
	}
	return out
}

// Faults sets what the sandbox does wrong; nil ends all of it.
func (b *Bench) Faults(faults map[string]any) {
	b.Helper()
	if faults == nil {
		b.Call("", http.MethodDelete, "/_sandbox/faults", nil)
		return
	}
	b.Call("", http.MethodPut, "/_sandbox/faults", faults)
}

// Commit pushes one file to a branch of acme/shop and answers the commit. Nobody is
// told: deliver an event.
func (b *Bench) Commit(branch, path, text string) string {
	b.Helper()
	return b.CommitSaying(branch, path, text, "Change "+path)
}

// CommitSaying is Commit with the commit's message.
func (b *Bench) CommitSaying(branch, path, text, message string) string {
	b.Helper()
	hash, err := b.Sandbox.AddCommit(b.Context(), sandbox.NewCommit{
		Repository: "acme/shop", Branch: branch, User: "bob", Message: message, Files: map[string][]byte{path: []byte(text)},
	})
	b.Must(err)
	return hash
}

// OpenPullRequest opens one and answers its number.
func (b *Bench) OpenPullRequest(source, target string) int {
	b.Helper()
	end := func(branch string) map[string]any { return map[string]any{"branch": map[string]any{"name": branch}} }
	pr := b.Call("alice", http.MethodPost, "/2.0/repositories/acme/shop/pullrequests", map[string]any{
		"title": source + " into " + target, "source": end(source), "destination": end(target),
	})
	return int(pr["id"].(float64))
}

// Statuses answers the statuses of a commit as Bitbucket shows them: refname, state
// and description by key.
func (b *Bench) Statuses(commit string) map[string][3]string {
	b.Helper()
	out := map[string][3]string{}
	page := b.Call("alice", http.MethodGet, "/2.0/repositories/acme/shop/commit/"+commit+"/statuses?pagelen=100", nil)
	for _, v := range page["values"].([]any) {
		st := v.(map[string]any)
		refname, _ := st["refname"].(string)
		out[st["key"].(string)] = [3]string{refname, st["state"].(string), st["description"].(string)}
	}
	return out
}

// Shown answers the state of the one status of a commit on a branch, or "".
func (b *Bench) Shown(commit, branch string) ci.StatusState {
	b.Helper()
	for key, st := range b.Statuses(commit) {
		if st[0] == branch && (key == dispatch.StatusKey(App) || key == dispatch.BranchKey(App, branch)) {
			return ci.StatusState(st[1])
		}
	}
	return ""
}

// Deliver puts a verified webhook request into the queue, and answers its id.
func (b *Bench) Deliver(request, event string, body any) string {
	b.Helper()
	text, err := json.Marshal(body)
	b.Must(err)
	b.Must(message.Send(b.Context(), b.Deliveries, message.Dispatch{Delivery: &message.Delivery{
		ID: request, Hook: "hook", App: App, Workspace: Workspace, Event: event, RequestID: request,
		ReceivedAt: b.Clock.Now().UTC(), Body: text,
	}}, 0))
	return request
}

// Decisions answers what was decided for a delivery.
func (b *Bench) Decisions(id string) []ci.Decision {
	b.Helper()
	d, err := b.Delivery(b.Context(), id)
	b.Must(err)
	if d.DecidedAt.IsZero() {
		b.Fatalf("%s is not decided: %s", id, d.Note)
	}
	return d.Decisions
}

// TheBuild answers the newest build of the app.
func (b *Bench) TheBuild() store.Build {
	b.Helper()
	page, err := b.Builds(b.Context(), App, "", 1)
	b.Must(err)
	if len(page.Items) != 1 {
		b.Fatal("there is no build")
	}
	return page.Items[0]
}

// Count answers how many builds there are.
func (b *Bench) Count() int {
	b.Helper()
	page, err := b.Builds(b.Context(), App, "", 100)
	b.Must(err)
	return len(page.Items)
}

// Pump handles what is in the queues until nothing is due.
func (b *Bench) Pump() {
	b.Helper()
	for range 1000 {
		if b.step(b.Deliveries, b.Dispatch.Handle)+b.step(b.Reports, b.Report.Handle) == 0 {
			return
		}
	}
	b.Fatal("the queues never come to rest")
}

// PumpFor moves the clock by a second at a time and pumps.
func (b *Bench) PumpFor(d time.Duration) {
	b.Helper()
	for ; d > 0; d -= time.Second {
		b.Pump()
		b.Clock.Add(time.Second)
	}
	b.Pump()
}

func (b *Bench) step(q queue.Queue, handle queue.Handler) int {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	messages, err := q.Receive(ctx, 10, 0)
	b.Must(err)
	for _, m := range messages {
		if err := handle(ctx, m); queue.Keeps(err) {
			b.Must(q.Retry(ctx, m.Receipt, queue.Backoff(m.Attempt, err)))
		} else {
			b.Must(q.Delete(ctx, m.Receipt))
		}
	}
	return len(messages)
}

// Drop throws away everything in the queues, due or not.
func (b *Bench) Drop() {
	b.Helper()
	b.Clock.Add(queue.MaxDelay)
	defer b.Clock.Add(-queue.MaxDelay)
	for _, q := range []queue.Queue{b.Deliveries, b.Reports} {
		for {
			messages, err := q.Receive(b.Context(), 10, 0)
			b.Must(err)
			for _, m := range messages {
				b.Must(q.Delete(b.Context(), m.Receipt))
			}
			if len(messages) == 0 {
				break
			}
		}
	}
}

// Queue passes everything on to a real queue, and fails on order.
type Queue struct {
	queue.Queue

	mu        sync.Mutex
	published int
	act       func(n int, do func() error) error
}

// OnPublish has every Publish done by act, which is given its number, counted from 1
// on, and a function that does it. Nil ends that.
func (q *Queue) OnPublish(act func(n int, do func() error) error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.published, q.act = 0, act
}

// Refuse has every Publish fail with err, until it is nil.
func (q *Queue) Refuse(err error) {
	if err == nil {
		q.OnPublish(nil)
		return
	}
	q.OnPublish(func(int, func() error) error { return err })
}

// Published answers how often something was published since OnPublish.
func (q *Queue) Published() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.published
}

// Publish implements queue.Queue.
func (q *Queue) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	do := func() error { return q.Queue.Publish(ctx, body, delay) }
	q.mu.Lock()
	q.published++
	n, act := q.published, q.act
	q.mu.Unlock()
	if act == nil {
		return do()
	}
	return act(n, do)
}

// Timetable passes everything on to a real timetable, which publishes nothing because it
// does not run, and fails on order.
type Timetable struct {
	timetable.Timetable

	mu      sync.Mutex
	entries map[string]timetable.Schedule
	act     func(do func() error) error
}

// OnCall has every call done by act, which is given a function that does it. Nil ends that.
func (t *Timetable) OnCall(act func(do func() error) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.act = act
}

// Entries answers what the timetable knows, by id.
func (t *Timetable) Entries() map[string]timetable.Schedule {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.entries)
}

// Put implements timetable.Timetable.
func (t *Timetable) Put(ctx context.Context, s timetable.Schedule) error {
	return t.do(func() error {
		if err := t.Timetable.Put(ctx, s); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.entries[s.ID] = s
		return nil
	})
}

// Delete implements timetable.Timetable.
func (t *Timetable) Delete(ctx context.Context, id string) error {
	return t.do(func() error {
		if err := t.Timetable.Delete(ctx, id); err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.entries, id)
		return nil
	})
}

func (t *Timetable) do(call func() error) error {
	t.mu.Lock()
	act := t.act
	t.mu.Unlock()
	if act == nil {
		return call()
	}
	return act(call)
}

// Call is a request to Bitbucket and the status of its answer; 0 when there was none.
type Call struct {
	Method, Path string
	Status       int
}

// Transport counts the calls to Bitbucket.
type Transport struct {
	next http.RoundTripper

	mu     sync.Mutex
	calls  []Call
	before func(r *http.Request)
	answer func(r *http.Request) int
	say    func(r *http.Request) any
}

// Say has say answer a call in Bitbucket's place, with what is encoded as JSON; nil leaves the call to Bitbucket.
func (t *Transport) Say(say func(r *http.Request) any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.say = say
}

// Answer has answer say the status of an answer in Bitbucket's place; 0 leaves the
// call to Bitbucket.
func (t *Transport) Answer(answer func(r *http.Request) int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = answer
}

// Before calls see before each call. Nil ends that.
func (t *Transport) Before(see func(r *http.Request)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before = see
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.mu.Lock()
	before, answer, say := t.before, t.answer, t.say
	t.mu.Unlock()
	if before != nil {
		before(r)
	}
	if answer != nil {
		if status := answer(r); status != 0 {
			if r.Body != nil {
				_ = r.Body.Close()
			}
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}
	}
	if say != nil {
		if said := say(r); said != nil {
			text, err := json.Marshal(said)
			header := http.Header{"Content-Type": {"application/json"}}
			return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(bytes.NewReader(text)), Request: r}, err
		}
	}
	resp, err := t.next.RoundTrip(r)
	call := Call{Method: r.Method, Path: r.URL.Path}
	if err == nil {
		call.Status = resp.StatusCode
	}
	t.mu.Lock()
	t.calls = append(t.calls, call)
	t.mu.Unlock()
	return resp, err
}

// Take answers the calls so far whose path contains part, and forgets all.
func (t *Transport) Take(part string) []Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Call
	for _, c := range t.calls {
		if strings.Contains(c.Path, part) {
			out = append(out, c)
		}
	}
	t.calls = nil
	return out
}

// Runner records what it is given and holds it.
type Runner struct {
	mu      sync.Mutex
	jobs    []runner.Job
	stopped []string
	states  map[string]runner.State
	act     func(runner.Job) error
}

// OnStart has act decide about starts; the job counts as started when it fails, too.
func (r *Runner) OnStart(act func(runner.Job) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.act = act
}

// Start implements runner.Runner.
func (r *Runner) Start(_ context.Context, job runner.Job) (string, error) {
	r.mu.Lock()
	r.jobs = append(r.jobs, job)
	act := r.act
	r.mu.Unlock()
	if act != nil {
		if err := act(job); err != nil {
			return "", err
		}
	}
	return "ref-" + job.Attempt, nil
}

// Stop implements runner.Runner.
func (r *Runner) Stop(_ context.Context, ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = append(r.stopped, ref)
	return nil
}

// State implements runner.Runner.
func (r *Runner) State(_ context.Context, ref string) (runner.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.states[ref]; ok {
		return s, nil
	}
	return runner.State{Phase: runner.Running}, nil
}

// Set makes s the state of an attempt.
func (r *Runner) Set(ref string, s runner.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.states == nil {
		r.states = map[string]runner.State{}
	}
	r.states[ref] = s
}

// Jobs answers what was started, and Stopped what was stopped.
func (r *Runner) Jobs() []runner.Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]runner.Job(nil), r.jobs...)
}

// Stopped answers the references that were stopped.
func (r *Runner) Stopped() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.stopped...)
}

// Last answers the last job.
func (b *Bench) Last() runner.Job {
	b.Helper()
	jobs := b.Runner.Jobs()
	if len(jobs) == 0 {
		b.Fatal("nothing was started")
	}
	return jobs[len(jobs)-1]
}

// Agent is one that claimed a job and checked out.
type Agent struct {
	b        *Bench
	job      runner.Job
	sequence int64
}

// Nonce is the one of every Agent.
const Nonce = "0123456789abcdef"

// Claim has an agent claim a job and report its checkout.
func (b *Bench) Claim(job runner.Job) *Agent {
	b.Helper()
	_, err := b.Report.Claim(b.Context(), runner.ClaimRequest{Ticket: job.Ticket.Reveal(), Nonce: Nonce})
	b.Must(err)
	a := &Agent{b: b, job: job}
	a.report(runner.Report{})
	return a
}

// AgentOf is the agent that claimed a job before, and said nothing since.
func (b *Bench) AgentOf(job runner.Job) *Agent { return &Agent{b: b, job: job, sequence: 1} }

// Says has the agent report a verdict ("" while it works).
func (a *Agent) Says(result runner.Verdict) {
	a.b.Helper()
	state := runner.StepSuccessful
	if result == runner.VerdictFailed {
		state = runner.StepFailed
	}
	a.report(runner.Report{Result: result, Steps: []runner.StepReport{{Index: 0, State: state}}})
}

func (a *Agent) report(r runner.Report) {
	a.b.Helper()
	a.sequence++
	r.Ticket, r.Nonce, r.Sequence, r.Checkout = a.job.Ticket.Reveal(), Nonce, a.sequence, runner.VerdictSuccessful
	_, err := a.b.Report.Steps(a.b.Context(), r)
	a.b.Must(err)
}

// Buffer collects log lines.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String answers everything written.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Change is one change of a push; a hash is empty where the ref is new or gone.
type Change struct {
	Kind, Name, Old, New string
	Forced               bool
	Message              string // of the head commit; "Change it" when empty
}

// Push makes the body of a repo:push.
func (b *Bench) Push(changes ...Change) map[string]any {
	list := []any{}
	for _, c := range changes {
		kind := c.Kind
		if kind == "" {
			kind = "branch"
		}
		side := func(hash string) any {
			if hash == "" {
				return nil
			}
			return map[string]any{"type": kind, "name": c.Name, "target": map[string]any{"hash": hash, "message": cmp.Or(c.Message, "Change it\n")}}
		}
		list = append(list, map[string]any{"old": side(c.Old), "new": side(c.New), "forced": c.Forced})
	}
	return b.event("push", map[string]any{"changes": list})
}

// PullRequest makes the body of a pullrequest event; hash is cut to 12 characters.
func (b *Bench) PullRequest(id int, source, hash, target string, change ...func(map[string]any)) map[string]any {
	end := func(branch, hash string) map[string]any {
		return map[string]any{
			"branch": map[string]any{"name": branch}, "commit": map[string]any{"hash": hash[:12]},
			"repository": map[string]any{"uuid": b.Repository, "full_name": "acme/shop"},
		}
	}
	pr := map[string]any{"id": id, "title": fmt.Sprint("PR ", id), "state": "OPEN", "source": end(source, hash), "destination": end(target, hash)}
	for _, c := range change {
		c(pr)
	}
	return b.event("pullrequest", pr)
}

func (b *Bench) event(name string, content any) map[string]any {
	return map[string]any{
		"actor": map[string]any{"display_name": "Bob Builder"}, name: content,
		"repository": map[string]any{"uuid": b.Repository, "full_name": "acme/shop"},
	}
}

// DiesAt has the process die at a transaction, counted from 1: before it, or when it is done and nobody knows.
func (b *Bench) DiesAt(at int, done bool) {
	b.Table.OnTransact(Numbered(func(n int, do func() error) error {
		if n != at {
			return do()
		}
		if done {
			b.Must(do())
		}
		return fault.New(fault.Unavailable, "the process died")
	}))
}

// Numbered is for Table.OnTransact, where what is written does not matter.
func Numbered(act func(n int, do func() error) error) func(int, []table.Write, func() error) error {
	return func(n int, _ []table.Write, do func() error) error { return act(n, do) }
}
