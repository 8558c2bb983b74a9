// Package dispatch decides: what each change of a delivery leads to and why, which
// build goes next, and that it starts. It reads Bitbucket (the pipeline file, the
// open pull requests) and never writes there; what the commit is told is package
// report's.
//
// Every handler may run again from its beginning, on the same message, at the same
// time somewhere else: what makes a build single is the record of its change, what
// makes its steps run once is its ticket.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/budget"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
)

// Clients hands out a client acting for a connection.
type Clients interface {
	Client(ctx context.Context, connection string) (*bitbucket.Client, error)
}

// Deps is what a Dispatch needs.
type Deps struct {
	Store      *store.Store
	Clients    Clients
	Deliveries queue.Publisher // its own queue, for what has to be tried later
	Reports    queue.Publisher
	Runner     runner.Runner
	RunnerName string         // under which builds wait
	Offer      pipeline.Offer // what the runner does for builds
	Limits     store.Limits   // what it is given at once
	// OneWorkspace restricts builds to the first workspace that had one: the runner
	// does not keep builds apart.
	OneWorkspace bool
	// Forks says that the runner keeps builds apart, so that those of forks may run.
	Forks     bool
	Address   string // of the server, as builds reach it
	BuildLog  buildlog.Log
	Now       func() time.Time
	NewID     func() string
	NewTicket func() secret.Text
	// NewLogName names the log of each build so that nobody guesses it, where builds could write into any whose name they
	// know; nil: logs have the names of their builds.
	NewLogName func() string
	Log        *slog.Logger
}

// Dispatch handles the messages of the queue "deliveries".
type Dispatch struct{ Deps }

const (
	// startLimit is after how long an admitted build that no runner took is looked at.
	startLimit = 2 * time.Minute
	// WaitLimit is how long a build waits for a runner, in the line or admitted.
	WaitLimit = 24 * time.Hour
	// HoldLimit is how long a build waits for a member to approve its commit.
	HoldLimit = 14 * 24 * time.Hour
	// fullPause is how long a runner without capacity is left alone.
	fullPause = 10 * time.Second
	// maxAttempts is how often a build is given to the runner before it is given up.
	maxAttempts = 5
	// undecided is after how long a delivery that could not be decided is looked at.
	undecided = 15 * time.Minute
)

// New makes a Dispatch.
func New(d Deps) (*Dispatch, error) {
	switch {
	case d.Store == nil || d.Clients == nil || d.Deliveries == nil || d.Reports == nil || d.Runner == nil:
		return nil, errors.New("dispatch: Store, Clients, Deliveries, Reports and Runner are needed")
	case d.RunnerName == "" || len(d.Offer.Platforms) == 0 || d.Limits.Runner < 1 || d.Address == "":
		return nil, errors.New("dispatch: RunnerName, Offer, Limits and Address are needed")
	case d.BuildLog == nil || d.Now == nil || d.NewID == nil || d.NewTicket == nil || d.Log == nil:
		return nil, errors.New("dispatch: BuildLog, Now, NewID, NewTicket and Log are needed")
	}
	return &Dispatch{d}, nil
}

// Handle is the queue.Handler of the queue "deliveries". Whatever goes wrong with a
// delivery, its message is kept: that is somebody's event, and Bitbucket has been
// told that it is safe. So is the minute of a schedule, of which nobody tells again. The
// other messages only ask for what the sweep asks for again.
func (d *Dispatch) Handle(ctx context.Context, m queue.Message) error {
	msg, err := message.Read[message.Dispatch](m)
	if err != nil {
		return err
	}
	switch {
	case msg.Delivery != nil:
		return kept(d.delivery(ctx, msg))
	case msg.Again != "":
		return kept(d.again(ctx, msg))
	case msg.Schedule != "":
		return kept(d.minute(ctx, msg))
	case msg.Admit != "":
		return d.Admit(ctx)
	case msg.Start != "":
		return d.restart(ctx, msg.Start, msg.Attempt)
	case msg.Stop != "":
		return d.stop(ctx, msg.Stop)
	}
	return fault.New(fault.Internal, "message %s asks for nothing", m.ID)
}

// kept makes an error that no retry mends one that ends, loudly, as a dead letter.
func kept(err error) error {
	if err == nil || queue.Keeps(err) {
		return err
	}
	return fault.Wrap(fault.Internal, err, "a delivery or a minute could not be decided")
}

// delivery decides a webhook request that has arrived.
func (d *Dispatch) delivery(ctx context.Context, msg message.Dispatch) error {
	m := *msg.Delivery
	known, err := d.Store.Delivery(ctx, m.ID)
	if err == nil && !known.DecidedAt.IsZero() {
		return d.Admit(ctx) // a repeat; what follows a decision may still be missing
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("dispatch: %w", err)
	}
	record := store.Delivery{
		Delivery: ci.Delivery{
			ID: m.ID, App: m.App, Event: m.Event, RequestID: m.RequestID, Attempt: m.Attempt, ReceivedAt: m.ReceivedAt,
			Decisions: known.Decisions,
		},
		Workspace: m.Workspace, Hook: m.Hook, Replays: known.Replays, DecidedBefore: known.DecidedBefore,
		ReplayedAt: known.ReplayedAt, Version: known.Version,
	}
	record.Content, err = bitbucket.ParseEvent(m.Event, m.Body)
	if err != nil {
		reason, _ := fault.Public(err)
		record.Decisions = []ci.Decision{{Ref: "the whole body", Verdict: ci.Skipped, Code: codeUnreadable, Reason: "the body cannot be read: " + reason}}
		return d.decided(ctx, record)
	}
	record.Content.Considered = known.Content.Considered
	return d.decideAll(ctx, record, msg)
}

// again decides what is undecided of a recorded delivery. One that is replayed was made
// undecided before this was asked for, so asking twice decides it once.
func (d *Dispatch) again(ctx context.Context, msg message.Dispatch) error {
	record, err := d.Store.Delivery(ctx, msg.Again)
	if fault.Is(err, fault.NotFound) {
		return nil // it went with its app
	}
	if err != nil {
		return fmt.Errorf("dispatch: %w", err)
	}
	if !record.DecidedAt.IsZero() {
		return nil
	}
	return d.decideAll(ctx, record, msg)
}

// decideAll decides what is undecided. When that takes more than one go, each that
// got further leaves msg anew: the attempts of a message are for going nowhere.
func (d *Dispatch) decideAll(ctx context.Context, record store.Delivery, msg message.Dispatch) error {
	before := record.Content.Considered
	cause := d.decide(ctx, &record)
	if cause == nil {
		return d.decided(ctx, record)
	}
	// The caller's time may be what ran out.
	ctx, cancel := budget.Record(ctx)
	defer cancel()
	if err := d.undecided(ctx, record, cause); err != nil || record.Content.Considered == before {
		return errors.Join(cause, err)
	}
	if err := message.Send(ctx, d.Deliveries, msg, queue.Backoff(1, cause)); err != nil {
		return errors.Join(cause, err)
	}
	d.Log.Warn("a delivery takes another go", "delivery", record.ID, "considered", record.Content.Considered,
		"changes", len(record.Content.Changes), "error", cause)
	return nil
}

// undecided records that a delivery is there, what is decided of it and why not
// all is, so that the dashboard shows it while it is tried again. Where the record has no
// room for the event, the message alone knows it, and the sweep is not to look.
func (d *Dispatch) undecided(ctx context.Context, record store.Delivery, cause error) error {
	reason, _ := fault.Public(cause)
	if reason == "" {
		reason = "an internal error"
	}
	record.Note = "not decided yet, it will be tried again: " + reason
	if record.Content.Considered > 0 {
		record.Note = fmt.Sprintf("%d of %d changes are decided, the others will be: %s", record.Content.Considered, len(record.Content.Changes), reason)
	}
	record.Decisions = fit(record.Decisions)
	record.DueAt = d.Now().Add(min(fault.RetryAfter(cause), queue.MaxDelay) + undecided) // behind the next try
	if size(record.Content) > maxContent {
		record.Content.Changes, record.DueAt = nil, time.Time{}
	}
	if _, err := d.Store.PutDelivery(ctx, record); err != nil {
		return fmt.Errorf("dispatch: recording what is decided: %w", err)
	}
	return nil
}

func (d *Dispatch) decided(ctx context.Context, record store.Delivery) error {
	record.Decisions = fit(record.Decisions)
	record.DecidedAt, record.Content.Considered, record.Note, record.DueAt = d.Now().UTC(), 0, "", time.Time{}
	if _, err := d.Store.PutDelivery(ctx, record); err != nil {
		return fmt.Errorf("dispatch: recording the decisions: %w", err)
	}
	for _, decision := range record.Decisions {
		d.Log.Info("decided", "delivery", record.ID, "app", record.App, "ref", decision.Ref, "decision", decision.Verdict, "build", decision.Build)
	}
	return d.Admit(ctx)
}
