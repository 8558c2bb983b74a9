package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
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

	"runnerhub/shared/authoring"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/buildlog/files"
	"runnerhub/shared/catalog"
	"runnerhub/shared/connect"
	"runnerhub/shared/consent"
	"runnerhub/shared/control"
	"runnerhub/shared/credential"
	"runnerhub/shared/datafile"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/grant"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/ingest"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	queuefile "runnerhub/shared/queue/sqlite"
	"runnerhub/shared/random"
	"runnerhub/shared/refresh"
	"runnerhub/shared/report"
	"runnerhub/shared/runner"
	"runnerhub/shared/runner/process"
	"runnerhub/shared/schedule"
	"runnerhub/shared/signin"
	"runnerhub/shared/store"
	"runnerhub/shared/sweep"
	"runnerhub/shared/table"
	tablefile "runnerhub/shared/table/sqlite"
	"runnerhub/shared/timekeeper"
	"runnerhub/shared/timetable/timers"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/keyfile"
)

const (
	// runnerName is under which name builds wait for this machine.
	runnerName = "process"
	// visibility hides a message from other workers; longer than any handler needs.
	visibility = 2 * time.Minute
	// maxAttempts makes a message a dead letter. With the pauses in between this is
	// about an hour.
	maxAttempts = 20
	// sweepEvery and cleanEvery are the rates at which lost things are looked for, and
	// expired ones removed.
	sweepEvery = time.Minute
	cleanEvery = time.Hour
	// deciders and posters are how many messages of each queue are worked on at once.
	// They wait for Bitbucket most of the time; more of them would leave
	// less of a small machine to webhooks.
	deciders = 8
	posters  = 8
	// stopWithin bounds an orderly end.
	stopWithin = 20 * time.Second
)

// server is everything that runs in this process.
type server struct {
	config config
	log    *slog.Logger
	seams  seams

	// What has to be closed.
	file    *datafile.File
	logs    *files.Log
	process *process.Runner
	sandbox *sandboxChild

	// The contracts, as the use cases see them.
	items               table.Table
	deliveries, reports queue.Queue
	tokens, hooks       vault.Vault
	buildLog            buildlog.Log
	runner              runner.Runner
	timers              *timers.Timers

	store     *store.Store
	grants    *grant.Keeper
	keeper    *timekeeper.Keeper
	bitbucket *bitbucket.Bitbucket
	ingest    *ingest.Ingest
	dispatch  *dispatch.Dispatch
	report    *report.Report
	sweep     *sweep.Sweep
	refresh   *refresh.Refresh
	clean     func(context.Context) error

	// restricted says that builds are not kept apart from the server.
	restricted bool
}

// seams are where a test stands between the use cases and what they call: each
// is given a driver and answers what is used in its place.
type seams struct {
	table    func(table.Table) table.Table
	queue    func(name string, q queue.Queue) queue.Queue
	vault    func(vault.Vault) vault.Vault
	buildLog func(buildlog.Log) buildlog.Log
	runner   func(runner.Runner) runner.Runner
	http     func(http.RoundTripper) http.RoundTripper
}

// unseamed uses the drivers as they are.
func unseamed() seams {
	return seams{
		table:    func(t table.Table) table.Table { return t },
		queue:    func(_ string, q queue.Queue) queue.Queue { return q },
		vault:    func(v vault.Vault) vault.Vault { return v },
		buildLog: func(l buildlog.Log) buildlog.Log { return l },
		runner:   func(r runner.Runner) runner.Runner { return r },
		http:     func(t http.RoundTripper) http.RoundTripper { return t },
	}
}

func serve(ctx context.Context, environ []string, log *slog.Logger) error {
	return serveWith(ctx, environ, log, unseamed())
}

func serveWith(ctx context.Context, environ []string, log *slog.Logger, between seams) error {
	c, err := readConfig(environ)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("git"); err != nil {
		return errors.New("git is missing: builds check out with it; install it")
	}
	if err := keepDescriptors(); err != nil {
		log.Warn("builds may see what the server inherited", "error", err)
	}
	listener, taken := bind("RUNNERHUB_LISTEN", c.listen)
	if taken != nil && !c.takenByBuild(taken) {
		return taken
	}
	defer func() {
		if listener != nil {
			_ = listener.Close()
		}
	}()
	if c.publicURL == "" {
		if c.publicURL, err = c.address(listener); err != nil {
			return err
		}
	}
	s := &server{config: c, log: log, seams: between}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return err
	}
	if taken != nil {
		if listener, err = s.takePort(taken); err != nil {
			return err
		}
	}
	return s.run(ctx, listener)
}

// takenByBuild reports whether taking the port failed because a build may have it. Builds live
// on when the server dies, and then its port is anybody's.
func (c *config) takenByBuild(err error) bool {
	port, bad := c.port()
	return bad == nil && errors.Is(err, syscall.EADDRINUSE) && process.PortMayBeBuilds(port, c.buildUsers)
}

func (c *config) port() (int, error) {
	_, port, err := net.SplitHostPort(c.listen)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// address is the URL of the port, which is yet to be taken when there is no listener.
func (c *config) address(l net.Listener) (string, error) {
	if l != nil {
		return "http://" + reachable(l.Addr().String()), nil
	}
	addr, err := net.ResolveTCPAddr("tcp", c.listen)
	if err != nil {
		return "", fmt.Errorf("RUNNERHUB_LISTEN: %w", err)
	}
	return "http://" + reachable(addr.String()), nil
}

// takePort ends the builds that have the server's port until it can be taken, or nobody is left
// to end: taken is why it could not be taken so far.
func (s *server) takePort(taken error) (net.Listener, error) {
	port, err := s.config.port()
	if err != nil {
		return nil, err
	}
	for errors.Is(taken, syscall.EADDRINUSE) && s.process.FreePort(port) {
		var l net.Listener
		if l, taken = bind("RUNNERHUB_LISTEN", s.config.listen); taken == nil {
			return l, nil
		}
	}
	return nil, taken
}

// open wires everything, lowest first.
func (s *server) open(ctx context.Context) error {
	c := &s.config
	path := filepath.Join(c.data, "runnerhub.db")
	// The key comes first: data without it is a loss to be told of, not to be
	// papered over with a new key.
	_, err := os.Stat(path)
	if err := s.vaults(err == nil); err != nil {
		return err
	}
	if s.file, err = datafile.Open(datafile.Deps{Path: path}); err != nil {
		return err
	}
	// A start that has to be refused is refused before the runner takes up what is left
	// of earlier builds.
	if c.sandbox {
		if s.sandbox, err = startSandbox(ctx, c, s.log); err != nil {
			return err
		}
	}
	if err := s.contracts(ctx); err != nil {
		return err
	}
	client := bitbucket.NewHTTPClient()
	client.Transport = s.seams.http(client.Transport)
	s.bitbucket, err = bitbucket.New(bitbucket.Deps{
		APIURL: c.apiURL, WebURL: c.webURL, ClientID: c.clientID, ClientSecret: credential.Fixed(c.clientSecret),
		CallbackURL: c.publicURL + "/auth/callback", HTTP: client, Now: time.Now,
	})
	if err != nil {
		return err
	}
	return s.useCases()
}

// vaults opens the key file that seals tokens and secrets.
func (s *server) vaults(mustExist bool) error {
	if err := os.MkdirAll(s.config.data, 0o700); err != nil {
		return fmt.Errorf("RUNNERHUB_DATA: %w", err)
	}
	for name, v := range map[string]*vault.Vault{"tokens": &s.tokens, "hooks": &s.hooks} {
		opened, err := keyfile.New(keyfile.Deps{Path: filepath.Join(s.config.data, "key"), Name: name, MustExist: mustExist})
		if err != nil {
			return err
		}
		*v = s.seams.vault(opened)
	}
	return nil
}

// contracts opens the drivers.
func (s *server) contracts(ctx context.Context) error {
	c := s.config
	items, err := tablefile.New(tablefile.Deps{File: s.file, Now: time.Now})
	if err != nil {
		return err
	}
	s.items = s.seams.table(items)
	s.clean = func(ctx context.Context) error {
		_, err := items.Sweep(ctx)
		return err
	}
	for name, q := range map[string]*queue.Queue{"deliveries": &s.deliveries, "reports": &s.reports} {
		opened, err := queuefile.New(queuefile.Deps{File: s.file, Name: name, Visibility: visibility, MaxAttempts: maxAttempts, Now: time.Now, Log: s.log})
		if err != nil {
			return err
		}
		if err := s.deadLetters(ctx, name, opened); err != nil {
			return err
		}
		*q = s.seams.queue(name, opened)
	}
	s.timers, err = timers.New(timers.Deps{Table: s.items, Queue: s.deliveries, Now: time.Now, Log: s.log})
	if err != nil {
		return err
	}
	if s.logs, err = files.New(files.Deps{Dir: filepath.Join(c.data, "logs")}); err != nil {
		return err
	}
	s.buildLog = s.seams.buildLog(s.logs)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.process, err = process.New(process.Deps{
		Dir: c.builds, Program: []string{self, "agent"}, Path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		BaseUID: c.buildUsers,
		Log:     s.logs.File, Notify: s.notify, Slots: slots(c.concurrency), Grace: 15 * time.Second, Logger: s.log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	s.runner = s.seams.runner(s.process)
	if s.restricted = !s.process.Isolated() && !c.trustBuilds; s.restricted {
		if !loopback(c.publicURL) || !loopback("http://"+c.listen) {
			return fmt.Errorf("PUBLIC_URL is %s and RUNNERHUB_LISTEN %s, but without root builds run as the server's own user and could read its data: "+
				"run as root, keep to a loopback address, or set RUNNERHUB_TRUST_BUILDS=1 if everyone who can push may read everything here", c.publicURL, c.listen)
		}
		s.log.Warn("builds run as the server's own user and can read its data: one workspace only, no forks (run as root to keep builds apart)")
	}
	return nil
}

// deadLetters delivers those of a queue again if that was asked for, and tells of
// them otherwise.
func (s *server) deadLetters(ctx context.Context, name string, q *queuefile.Queue) error {
	if s.config.redrive {
		n, err := q.Redrive(ctx, math.MaxInt32)
		if err != nil {
			return err
		}
		s.log.Info("dead letters are delivered again", "queue", name, "messages", n)
		return nil
	}
	stats, err := q.Stats(ctx)
	if err != nil {
		return err
	}
	if stats.Dead > 0 {
		s.log.Error("there are dead letters; see docs/operations.md", "queue", name, "messages", stats.Dead)
	}
	return nil
}

// slots is how many builds the runner has room for. Admission is what limits them; an
// attempt that has said how it ended still has a slot until all of it is gone, and the
// next one shall not wait for that.
func slots(concurrency int) int { return 2*concurrency + 2 }

// useCases wires what works over the contracts.
func (s *server) useCases() error {
	c := s.config
	var err error
	if s.store, err = store.New(store.Deps{Table: s.items, Now: time.Now, NewID: random.ID}); err != nil {
		return err
	}
	if s.grants, err = grant.New(grant.Deps{
		Store: s.store, Vault: s.tokens, Bitbucket: s.bitbucket, Now: time.Now, NewID: random.ID, Log: s.log,
	}); err != nil {
		return err
	}
	if s.ingest, err = ingest.New(ingest.Deps{Hooks: s.store, Vault: s.hooks, Queue: s.deliveries, Now: time.Now}); err != nil {
		return err
	}
	if s.dispatch, err = dispatch.New(dispatch.Deps{
		Store: s.store, Clients: s.grants, Deliveries: s.deliveries, Reports: s.reports,
		Runner: s.runner, RunnerName: runnerName, Offer: offer(),
		Limits: store.Limits{Runner: c.concurrency}, OneWorkspace: s.restricted, Forks: s.process.Isolated(),
		Address: s.process.Address(), BuildLog: s.buildLog,
		Now: time.Now, NewID: random.ID, NewTicket: random.Secret, Log: s.log,
	}); err != nil {
		return err
	}
	if s.report, err = report.New(report.Deps{
		Store: s.store, Grants: s.grants, Deliveries: s.deliveries, Reports: s.reports,
		PublicURL: c.publicURL, Now: time.Now, NewID: random.ID, Log: s.log,
	}); err != nil {
		return err
	}
	if s.keeper, err = timekeeper.New(timekeeper.Deps{Store: s.store, Timetable: s.timers, Now: time.Now, NewID: random.ID}); err != nil {
		return err
	}
	if s.sweep, err = sweep.New(sweep.Deps{
		Store: s.store, Deliveries: s.deliveries, Reports: s.reports, Runner: s.runner, RunnerName: runnerName,
		Timekeeper: s.keeper, WaitLimit: dispatch.WaitLimit, HoldLimit: dispatch.HoldLimit, Now: time.Now, Log: s.log,
	}); err != nil {
		return err
	}
	s.refresh, err = refresh.New(refresh.Deps{Store: s.store, Grants: s.grants, Now: time.Now, Log: s.log})
	return err
}

// notify passes on what the runner says of itself.
func (s *server) notify(ctx context.Context, event runner.Event) {
	if err := message.Send(ctx, s.reports, message.Report{Runner: &event}, 0); err != nil {
		s.log.Error("a runner's event was not stored; the sweep will find it", "build", event.Build, "error", err)
	}
}

// run serves until ctx ends or something that cannot be done without fails.
func (s *server) run(ctx context.Context, listener net.Listener) error {
	handler, err := s.handler()
	if err != nil {
		return err
	}
	httpServer := newHTTPServer(handler, s.log)
	// Nobody else works on this data: what is unfinished, and every lease, was left by a
	// process that is dead. The doors open afterwards, because callers take leases.
	if err := s.sweep.Recover(ctx); err != nil {
		s.log.Error("looking for what an earlier run left unfinished", "error", err)
	}
	failed := make(chan error, 2)
	ended := func(err error) {
		select {
		case failed <- err:
		default: // one reason to end is enough
		}
	}
	agentServer := newHTTPServer(agentsOnly(handler), s.log)
	defer func() { _ = agentServer.Close() }()
	if err := s.process.Serve(func(l net.Listener) { ended(agentServer.Serve(l)) }); err != nil {
		return err
	}
	go func() { ended(httpServer.Serve(listener)) }()
	if s.sandbox != nil {
		go func() {
			err := <-s.sandbox.ended
			s.sandbox.ended <- err
			ended(errors.Join(errors.New("the sandbox ended"), err))
		}()
	}
	deciding, stopDeciding := context.WithCancel(context.WithoutCancel(ctx))
	reporting, stopReporting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReporting()
	defer stopDeciding()
	var atWork, atReports sync.WaitGroup
	atWork.Go(func() {
		queue.Consumer{Queue: s.deliveries, Handle: s.dispatch.Handle, Workers: deciders, Name: "deliveries", Log: s.log}.Run(deciding)
	})
	atWork.Go(func() { s.timers.Run(deciding) })
	atWork.Go(func() { s.every(deciding, sweepEvery, "sweep", s.sweep.Run) })
	atWork.Go(func() { s.every(deciding, sweepEvery, "refresh", s.refresh.Run) })
	atWork.Go(func() { s.every(deciding, cleanEvery, "clean", s.clean) })
	atReports.Go(func() {
		queue.Consumer{Queue: s.reports, Handle: s.report.Handle, Workers: posters, Name: "reports", Log: s.log}.Run(reporting)
	})
	s.greet()

	select {
	case err = <-failed:
	case <-ctx.Done():
		s.log.Info("stopping")
	}
	// In the order in which one needs the other: nothing new starts, builds at work
	// end and say so, their statuses go out, and then the doors close.
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	stopDeciding()
	atWork.Wait()
	s.endBuilds(stopping)
	stopReporting()
	atReports.Wait()
	for _, h := range []*http.Server{httpServer, agentServer} {
		if shut := h.Shutdown(stopping); shut != nil {
			_ = h.Close()
		}
	}
	return err
}

// agentsOnly lets the calls of agents through, which are all there is at their socket.
func agentsOnly(handler http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/runner/", handler)
	return mux
}

func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// endBuilds stops the builds at work and waits until they are recorded and
// reported, as long as ctx allows.
func (s *server) endBuilds(ctx context.Context) {
	ids, err := s.store.Admitted(ctx, runnerName)
	if err != nil {
		s.log.Error("looking for builds to stop", "error", err)
		return
	}
	for _, id := range ids {
		b, err := s.store.Build(ctx, id)
		if err == nil && b.Reference != "" {
			err = s.runner.Stop(ctx, b.Reference)
		}
		if err != nil {
			s.log.Error("stopping a build", "build", id, "error", err)
		}
	}
	for len(ids) > 0 {
		if err := s.settled(ctx, ids); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.log.Warn("some builds did not end in time; the next start finishes them")
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// settled answers nil once all builds have ended and their commits say so.
func (s *server) settled(ctx context.Context, ids []string) error {
	for _, id := range ids {
		b, err := s.store.Build(ctx, id)
		if err != nil {
			return err
		}
		if b.Reference == "" && !b.State.Final() {
			continue // never started: the next start of the server gives it to a runner
		}
		st, err := s.store.Status(ctx, store.StatusOf(b))
		if err != nil {
			return err
		}
		if !b.State.Final() || st.Build == b.ID && st.Posted != st.Revision && st.Ended == "" && st.Problem == "" {
			return errors.New("not yet")
		}
	}
	return nil
}

// handler is the HTTP side of the use cases.
func (s *server) handler() (http.Handler, error) {
	consents, err := consent.New(consent.Deps{Store: s.store, Bitbucket: s.bitbucket, Now: time.Now})
	if err != nil {
		return nil, err
	}
	people, err := signin.New(signin.Deps{
		Store: s.store, Bitbucket: s.bitbucket, Consent: consents, PublicURL: s.config.publicURL,
		Allowed: s.config.allowed, Now: time.Now, NewID: random.ID, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	connections, err := connect.New(connect.Deps{
		Store: s.store, Bitbucket: s.bitbucket, Consent: consents, Grants: s.grants, Hooks: s.hooks,
		PublicURL: s.config.publicURL, Now: time.Now, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	things, err := catalog.New(catalog.Deps{
		Store: s.store, Logs: s.buildLog, Queue: s.deliveries, PublicURL: s.config.publicURL, OneWorkspace: s.restricted, Now: time.Now, NewID: random.ID,
	})
	if err != nil {
		return nil, err
	}
	files, err := authoring.New(authoring.Deps{Store: s.store, Offer: offer(), Forks: s.process.Isolated(), Now: time.Now})
	if err != nil {
		return nil, err
	}
	plans, err := schedule.New(schedule.Deps{Store: s.store, Timekeeper: s.keeper, Now: time.Now, NewID: random.ID, Log: s.log})
	if err != nil {
		return nil, err
	}
	orders, err := control.New(control.Deps{Store: s.store, Deliveries: s.deliveries, Reports: s.reports, Now: time.Now, Log: s.log})
	if err != nil {
		return nil, err
	}
	return httpapi.New(httpapi.Deps{
		Groups: []httpapi.Group{
			httpapi.Auth(people, connections), httpapi.Repos(connections), httpapi.Apps(things),
			httpapi.Builds(things, orders, s.report, s.config.webURL), httpapi.Schedules(plans), httpapi.Webhook(s.ingest),
			httpapi.Pipelines(files),
		},
		Callers: people, PublicURL: s.config.publicURL, Now: time.Now, NewRef: random.Ref, Log: s.log,
	})
}

// every runs f at a rate until ctx ends.
func (s *server) every(ctx context.Context, rate time.Duration, name string, f func(context.Context) error) {
	ticker := time.NewTicker(rate)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		running, cancel := context.WithTimeout(ctx, rate)
		if err := f(running); err != nil && ctx.Err() == nil {
			s.log.Error(name+" failed", "error", err)
		}
		cancel()
	}
}

// close lets go of everything that open took, highest first.
func (s *server) close() {
	var errs []error
	if s.process != nil {
		errs = append(errs, s.process.Close())
	}
	if s.sandbox != nil {
		errs = append(errs, s.sandbox.stop())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.Close())
	}
	if s.file != nil {
		errs = append(errs, s.file.Close())
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Error("closing", "error", err)
	}
}

// greet says where things are and what to do next.
func (s *server) greet() {
	c := s.config
	var b strings.Builder
	fmt.Fprintf(&b, "\nRunnerHub is at %s\n", c.publicURL)
	if c.sandbox {
		fmt.Fprintf(&b, "A sandbox Bitbucket is at %s (users alice, bob, carol; the password is the name)\n", c.webURL)
	} else {
		fmt.Fprintf(&b, "Bitbucket is %s\n", c.webURL)
	}
	fmt.Fprintf(&b, "Its state is in %s, builds work in %s, %d at a time\n", c.data, c.builds, c.concurrency)
	if c.sandbox {
		demo := "make demo"
		if c.publicURL != "http://127.0.0.1:8080" || c.webURL != "http://127.0.0.1:7990" {
			demo = "PUBLIC_URL=" + c.publicURL + " SANDBOX_URL=" + c.webURL + " make demo"
		}
		fmt.Fprintf(&b, "\nNext: run `%s` in another terminal: it connects a repository, pushes, and shows the build.\n"+
			"Or do it yourself: sign in at %s/auth/login as alice.\n", demo, c.publicURL)
	} else {
		fmt.Fprintf(&b, "\nNext: sign in at %s/auth/login; the consumer's callback on Bitbucket has to be %s/auth/callback\n", c.publicURL, c.publicURL)
	}
	fmt.Fprintf(&b, "Stop with Ctrl-C.\n\n")
	fmt.Print(b.String())
}
