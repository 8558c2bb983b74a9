package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"time"

	"runnerhub/shared/bitbucket"
	buildlogfile "runnerhub/shared/buildlog/files"
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
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue"
	queuefile "runnerhub/shared/queue/sqlite"
	"runnerhub/shared/random"
	"runnerhub/shared/report"
	"runnerhub/shared/secret"
	"runnerhub/shared/signin"
	"runnerhub/shared/store"
	tablefile "runnerhub/shared/table/sqlite"
	"runnerhub/shared/vault/keyfile"
)

// heldBuilds is how many builds the runner holds; what comes after them waits.
const heldBuilds = 200

// serverConfig is what the parent tells the server under test, as a line of JSON on
// its standard input.
type serverConfig struct {
	Listen  string // host:port
	Data    string // folder
	Forge   string // address
	Profile string // file for a CPU profile; empty: none
}

func (c serverConfig) url() string { return "http://" + c.Listen }

// server is the standalone server's use cases over the same drivers and with as many
// workers, except that its runner only notes what it is given, and that what
// it does every minute is left out.
type server struct {
	config serverConfig
	log    *slog.Logger
	rec    *recorder
	file   *datafile.File
	drains [2]*queuefile.Queue // deliveries, reports

	items               *recordedTable
	deliveries, reports *recordedQueue
	store               *store.Store
	bitbucket           *bitbucket.Bitbucket
	grants              *grant.Keeper
	dispatch            *dispatch.Dispatch
	report              *report.Report
}

// runServer is the process of the server under test. It ends when in does.
func runServer(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	var c serverConfig
	if err := json.Unmarshal(line, &c); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	if c.Profile != "" {
		profile, err := os.Create(c.Profile)
		if err != nil {
			return fmt.Errorf("making the profile: %w", err)
		}
		defer func() { _ = profile.Close() }()
		if err := pprof.StartCPUProfile(profile); err != nil {
			return fmt.Errorf("profiling: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		cancel()
	}()
	return serve(ctx, c, func() { _, _ = fmt.Fprintln(out, "ready") })
}

// serve serves until ctx ends. ready is called once it listens.
func serve(ctx context.Context, c serverConfig, ready func()) (err error) {
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("the server's listener: %w", err)
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return errors.Join(err, listener.Close())
	}
	journal, err := os.Create(filepath.Join(c.Data, "log"))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	s := &server{config: c, log: slog.New(slog.NewTextHandler(journal, nil)), rec: &recorder{}}
	defer func() {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
		}
		err = errors.Join(err, journal.Close())
	}()
	handler, err := s.wire()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	var working sync.WaitGroup
	working.Go(func() {
		queue.Consumer{Queue: s.deliveries, Handle: inLane("deliveries", s.dispatch.Handle), Workers: 8, Name: "deliveries", Log: s.log}.Run(ctx)
	})
	working.Go(func() {
		queue.Consumer{Queue: s.reports, Handle: inLane("reports", s.report.Handle), Workers: 8, Name: "reports", Log: s.log}.Run(ctx)
	})
	defer working.Wait()
	web := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = web.Close() })()
	ready()
	if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// wire makes the use cases, lowest first, and answers the HTTP side.
func (s *server) wire() (http.Handler, error) {
	c := s.config
	tokens, err := keyfile.New(keyfile.Deps{Path: filepath.Join(c.Data, "key"), Name: "tokens"})
	if err != nil {
		return nil, err
	}
	hooks, err := keyfile.New(keyfile.Deps{Path: filepath.Join(c.Data, "key"), Name: "hooks"})
	if err != nil {
		return nil, err
	}
	logs, err := buildlogfile.New(buildlogfile.Deps{Dir: filepath.Join(c.Data, "logs")})
	if err != nil {
		return nil, err
	}
	if err := s.drivers(); err != nil {
		return nil, err
	}
	if s.bitbucket, err = bitbucket.New(bitbucket.Deps{
		APIURL: c.Forge + "/2.0", WebURL: c.Forge, ClientID: consumerID, ClientSecret: credential.Fixed(secret.New(consumerSecret)),
		CallbackURL: c.url() + "/auth/callback", HTTP: bitbucket.NewHTTPClient(), Now: time.Now,
	}); err != nil {
		return nil, err
	}
	if s.grants, err = grant.New(grant.Deps{
		Store: s.store, Vault: tokens, Bitbucket: s.bitbucket, Now: time.Now, NewID: random.ID, Log: s.log,
	}); err != nil {
		return nil, err
	}
	taking, err := ingest.New(ingest.Deps{Hooks: s.store, Vault: hooks, Queue: s.deliveries, Now: time.Now})
	if err != nil {
		return nil, err
	}
	if s.dispatch, err = dispatch.New(dispatch.Deps{
		Store: s.store, Clients: s.grants, Deliveries: s.deliveries, Reports: s.reports,
		Runner: &holdingRunner{}, RunnerName: "hold", Offer: pipeline.Offer{Platforms: []string{"linux"}},
		Limits: store.Limits{Runner: heldBuilds}, Address: c.url(), BuildLog: logs,
		Now: time.Now, NewID: random.ID, NewTicket: random.Secret, Log: s.log,
	}); err != nil {
		return nil, err
	}
	if s.report, err = report.New(report.Deps{
		Store: s.store, Grants: s.grants, Deliveries: s.deliveries, Reports: s.reports,
		PublicURL: c.url(), Now: time.Now, NewID: random.ID, Log: s.log,
	}); err != nil {
		return nil, err
	}
	consents, err := consent.New(consent.Deps{Store: s.store, Bitbucket: s.bitbucket, Now: time.Now})
	if err != nil {
		return nil, err
	}
	people, err := signin.New(signin.Deps{
		Store: s.store, Bitbucket: s.bitbucket, Consent: consents, PublicURL: c.url(), Now: time.Now, NewID: random.ID, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	connections, err := connect.New(connect.Deps{
		Store: s.store, Bitbucket: s.bitbucket, Consent: consents, Grants: s.grants, Hooks: hooks,
		PublicURL: c.url(), Now: time.Now, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	things, err := catalog.New(catalog.Deps{Store: s.store, Logs: logs, PublicURL: c.url(), Now: time.Now, NewID: random.ID})
	if err != nil {
		return nil, err
	}
	orders, err := control.New(control.Deps{Store: s.store, Deliveries: s.deliveries, Reports: s.reports, Now: time.Now, Log: s.log})
	if err != nil {
		return nil, err
	}
	api, err := httpapi.New(httpapi.Deps{
		Groups: []httpapi.Group{
			httpapi.Auth(people, connections), httpapi.Repos(connections), httpapi.Apps(things),
			httpapi.Builds(things, orders, s.report, ""), httpapi.Webhook(taking),
		},
		Callers: people, PublicURL: c.url(), Now: time.Now, NewRef: random.ID, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.HandleFunc("GET /bench/writes", s.writes)
	mux.HandleFunc("GET /bench/queues", s.queues)
	mux.HandleFunc("POST /bench/floor", s.floor)
	return mux, nil
}

// drivers opens the data file, and the recorders before what it holds.
func (s *server) drivers() error {
	var err error
	if s.file, err = datafile.Open(datafile.Deps{Path: filepath.Join(s.config.Data, "runnerhub.db")}); err != nil {
		return err
	}
	items, err := tablefile.New(tablefile.Deps{File: s.file, Now: time.Now})
	if err != nil {
		return err
	}
	s.items = &recordedTable{items, s.rec}
	for i, name := range []string{"deliveries", "reports"} {
		s.drains[i], err = queuefile.New(queuefile.Deps{File: s.file, Name: name, Visibility: 2 * time.Minute, MaxAttempts: 20, Now: time.Now, Log: s.log})
		if err != nil {
			return err
		}
	}
	s.deliveries, s.reports = &recordedQueue{s.drains[0], "deliveries", s.rec}, &recordedQueue{s.drains[1], "reports", s.rec}
	s.store, err = store.New(store.Deps{Table: s.items, Now: time.Now, NewID: random.ID})
	return err
}

// queues answers how many messages there are, of all queues and in any state.
func (s *server) queues(w http.ResponseWriter, r *http.Request) {
	var all queuefile.Stats
	for _, q := range s.drains {
		stats, err := q.Stats(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		all.Waiting, all.Held, all.Dead = all.Waiting+stats.Waiting, all.Held+stats.Held, all.Dead+stats.Dead
	}
	answer(w, all)
}

// writes answers the writes recorded since the last time it was asked.
func (s *server) writes(w http.ResponseWriter, _ *http.Request) { answer(w, s.rec.take()) }

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
