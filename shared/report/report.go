// Package report takes what builds and runners say, moves builds forward, and
// tells Bitbucket: it hands a build its work against its ticket, takes the states
// of steps, and posts commit statuses. It starts no build; room that became free is
// a message to package dispatch.
package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/budget"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
)

// Grants hands out clients and tokens of connections.
type Grants interface {
	Client(ctx context.Context, connection string) (*bitbucket.Client, error)
	Token(ctx context.Context, connection string, refused secret.Text) (secret.Text, error)
}

// Deps is what a Report needs.
type Deps struct {
	Store      *store.Store
	Grants     Grants
	Deliveries queue.Publisher // the queue of package dispatch
	Reports    queue.Publisher // its own queue, for what has to be tried later
	PublicURL  string          // of the dashboard, without a slash at the end
	Now        func() time.Time
	NewID      func() string
	Log        *slog.Logger
}

// Report handles the messages of the queue "reports" and the calls of builds.
type Report struct{ Deps }

// grace is how long past its timeout a running build is left alone: its agent ends
// it by itself at the timeout, its runner a little later.
const grace = 5 * time.Minute

// unstarted is how long past its time another attempt is taken for lost.
const unstarted = 2 * time.Minute

// New makes a Report.
func New(d Deps) (*Report, error) {
	switch {
	case d.Store == nil || d.Grants == nil || d.Deliveries == nil || d.Reports == nil:
		return nil, errors.New("report: Store, Grants, Deliveries and Reports are needed")
	case d.PublicURL == "" || d.Now == nil || d.NewID == nil || d.Log == nil:
		return nil, errors.New("report: PublicURL, Now, NewID and Log are needed")
	}
	return &Report{d}, nil
}

// Handle is the queue.Handler of the queue "reports".
func (r *Report) Handle(ctx context.Context, m queue.Message) error {
	msg, err := message.Read[message.Report](m)
	if err != nil {
		return err
	}
	switch {
	case msg.Status != nil:
		return r.post(ctx, *msg.Status)
	case msg.Runner != nil:
		return r.runner(ctx, *msg.Runner)
	}
	return fault.New(fault.Internal, "message %s says nothing", m.ID)
}

// BuildURL is the address of a build's page; status links to it live for ever.
func (r *Report) BuildURL(build string) string { return r.PublicURL + "/builds/" + build }

// Claim admits the first nonce that comes with a ticket, and answers it what the
// build needs until it has reported its checkout. A ticket nobody knows is
// fault.Unauthenticated, another nonce fault.Conflict.
func (r *Report) Claim(ctx context.Context, c runner.ClaimRequest) (runner.Claim, error) {
	if len(c.Nonce) < 16 || len(c.Nonce) > 128 {
		return runner.Claim{}, fault.Field("nonce", "is not 16 to 128 characters")
	}
	b, err := r.ticket(ctx, c.Ticket)
	if err != nil {
		return runner.Claim{}, err
	}
	ticket := b.Ticket
	b, _, err = r.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
		switch {
		case b.State.Final() || b.Ticket != ticket:
			return false, fault.New(fault.Conflict, "the attempt is over")
		case b.Stopping:
			return false, fault.New(fault.Conflict, "the build is to end")
		case b.Nonce == c.Nonce && !b.CheckedOut:
			return false, nil
		case b.Nonce != "":
			return false, fault.New(fault.Conflict, "the ticket has been used")
		}
		b.Nonce, b.CheckedOut, b.Sequence = c.Nonce, false, 0
		b.State, b.Reason = ci.Running, ""
		b.StartedAt = r.Now().UTC()
		b.DueAt = b.StartedAt.Add(time.Duration(b.TimeoutSeconds)*time.Second + grace)
		return true, nil
	})
	if err != nil {
		return runner.Claim{}, fmt.Errorf("report: claiming: %w", err)
	}
	claim := runner.Claim{
		Build:     runner.Build{ID: b.ID, Number: int64(b.Number), URL: r.BuildURL(b.ID)},
		Variables: r.variables(b),
	}
	if err := r.Store.Script(ctx, b.ID, &claim.Script); err != nil {
		return runner.Claim{}, fmt.Errorf("report: %w", err)
	}
	claim.Clone, err = r.clone(ctx, b)
	if err != nil && !queue.Keeps(err) {
		return runner.Claim{}, r.unreadable(ctx, b, err)
	}
	reason := ""
	if err != nil {
		reason, _ = fault.Public(err)
		reason = strings.TrimSuffix("the repository cannot be read yet: "+reason, ": ")
	}
	if err := errors.Join(err, r.waits(ctx, b, reason)); err != nil {
		return runner.Claim{}, fmt.Errorf("report: preparing the checkout: %w", err)
	}
	return claim, nil
}

// waits records what a claimed build waits for before its checkout; nothing, when
// reason is empty.
func (r *Report) waits(ctx context.Context, claimed store.Build, reason string) error {
	if claimed.Reason == reason {
		return nil
	}
	// The caller's time may be what ran out.
	ctx, cancel := budget.Record(ctx)
	defer cancel()
	_, _, err := r.Store.ChangeBuild(ctx, claimed.ID, func(b *store.Build) (bool, error) {
		if b.State.Final() || b.Nonce != claimed.Nonce || b.CheckedOut || b.Stopping {
			return false, nil
		}
		b.Reason = reason
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("recording what the build waits for: %w", err)
	}
	return nil
}

// unreadable ends a build whose repository cannot be read any more, and sends its
// agent home.
func (r *Report) unreadable(ctx context.Context, claimed store.Build, cause error) error {
	reason, _ := fault.Public(cause)
	b, _, err := r.Store.ChangeBuild(ctx, claimed.ID, func(b *store.Build) (bool, error) {
		if b.State.Final() || b.Nonce != claimed.Nonce {
			return false, nil
		}
		b.State, b.Reason = ci.Errored, "the repository cannot be read: "+reason
		if b.Fork != "" {
			b.Reason = "the fork that has the commit cannot be read by the account of the app's connection: " + reason
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("report: ending a build without a repository: %w", err)
	}
	if b.State.Final() {
		err = r.ended(ctx, b)
	}
	return errors.Join(fault.Wrap(fault.Conflict, cause, "the attempt is over: the repository cannot be read"), err)
}

// ticket finds the build of a ticket. A used-up ticket is not told from one that
// never was.
func (r *Report) ticket(ctx context.Context, ticket string) (store.Build, error) {
	b, err := r.Store.BuildOfTicket(ctx, secret.New(ticket).Hash())
	if fault.Is(err, fault.NotFound) {
		return store.Build{}, fault.New(fault.Unauthenticated, "unknown ticket")
	}
	if err != nil {
		return store.Build{}, fmt.Errorf("report: %w", err)
	}
	return b, nil
}

// clone reads the repository afresh: its address changes with renames, and the
// token has to be good for the fetch that follows.
func (r *Report) clone(ctx context.Context, b store.Build) (runner.Clone, error) {
	client, err := r.Grants.Client(ctx, b.Connection)
	if err != nil {
		return runner.Clone{}, err
	}
	repository, err := client.Repository(ctx, cmp.Or(b.Fork, b.Repository))
	if err != nil {
		return runner.Clone{}, err
	}
	token, err := r.Grants.Token(ctx, b.Connection, secret.Text{})
	if err != nil {
		return runner.Clone{}, err
	}
	clone := runner.Clone{
		URL: repository.CloneURL, Commit: b.Commit,
		Username: "x-token-auth", Password: token.Reveal(),
	}
	switch {
	case b.Tag != "":
		clone.Ref = "refs/tags/" + b.Tag
	case b.Branch != "":
		clone.Ref = "refs/heads/" + b.Branch
	}
	return clone, nil
}

// variables are those every build has.
func (r *Report) variables(b store.Build) []runner.Variable {
	values := [][2]string{
		{"CI", "true"},
		{"RUNNERHUB", "true"},
		{"RUNNERHUB_TRIGGER", string(b.Trigger)},
		{"RUNNERHUB_BUILD_ID", b.ID},
		{"RUNNERHUB_BUILD_NUMBER", strconv.Itoa(b.Number)},
		{"RUNNERHUB_BUILD_URL", r.BuildURL(b.ID)},
		{"RUNNERHUB_APP", b.App},
		{"RUNNERHUB_BRANCH", b.Branch},
		{"RUNNERHUB_TAG", b.Tag},
		{"RUNNERHUB_COMMIT", b.Commit},
		{"RUNNERHUB_REPOSITORY", b.FullName},
	}
	if b.PullRequest != 0 {
		values = append(values,
			[2]string{"RUNNERHUB_PR_ID", strconv.Itoa(b.PullRequest)},
			[2]string{"RUNNERHUB_PR_SOURCE_BRANCH", b.Branch},
			[2]string{"RUNNERHUB_PR_TARGET_BRANCH", b.Target})
	}
	out := make([]runner.Variable, 0, len(values))
	for _, v := range values {
		if v[1] != "" {
			out = append(out, runner.Variable{Name: v[0], Value: v[1]})
		}
	}
	return out
}

// Steps takes an agent's report. Only the one who claimed the attempt is heard; a
// report older than one already taken changes nothing.
func (r *Report) Steps(ctx context.Context, p runner.Report) (runner.ReportAnswer, error) {
	b, err := r.ticket(ctx, p.Ticket)
	if err != nil {
		return runner.ReportAnswer{}, err
	}
	ticket, again := b.Ticket, false
	b, _, err = r.Store.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
		again = false
		if b.State.Final() || b.Ticket != ticket || b.Nonce == "" || b.Nonce != p.Nonce {
			return false, fault.New(fault.Conflict, "the attempt is over, or another agent runs it")
		}
		if int(p.Sequence) <= b.Sequence {
			return false, nil
		}
		if p.Result == runner.VerdictError && p.Checkout == "" && mayRepeat(*b) {
			again = true
			r.abandon(b, p.Message)
			return true, nil
		}
		return true, take(b, p)
	})
	if err != nil {
		return runner.ReportAnswer{}, fmt.Errorf("report: taking a report: %w", err)
	}
	switch {
	case again:
		err = r.another(ctx, b)
	case b.State.Final():
		err = r.ended(ctx, b)
	}
	return runner.ReportAnswer{Stop: b.Stopping}, err
}

// mayRepeat reports whether another attempt may be made when this one ends: an agent
// reports its checkout before the first step, and goes no further until that is stored, so
// without it nothing has run.
func mayRepeat(b store.Build) bool { return !b.CheckedOut && !b.Stopping }

// abandon frees a build from an attempt that ended before its checkout. Whoever had
// claimed it is not heard any more.
func (r *Report) abandon(b *store.Build, detail string) {
	b.Nonce = ""
	b.DueAt = r.Now().Add(pause(*b) + unstarted)
	if b.Reason == "" {
		b.Reason = brief(strings.TrimSuffix("an attempt ended before it had the repository: "+detail, ": "))
	}
}

// another asks for the attempt after one that ended before its checkout.
func (r *Report) another(ctx context.Context, b store.Build) error {
	r.Log.Warn("an attempt ended before it began", "build", b.ID, "attempt", b.Attempt, "attempts", b.Attempts, "reason", b.Reason)
	return message.Send(ctx, r.Deliveries, message.Dispatch{Start: b.ID, Attempt: b.Attempt}, pause(b))
}

// pause is how long to wait before the next attempt: an outage that ended this one may last.
func pause(b store.Build) time.Duration {
	return time.Second << min(2*b.Attempts, 8)
}

// maxMessage cuts what an agent says of a build's end.
const maxMessage = 1000

// take copies a report into a build. Foreign values are checked: a step can speak
// for its agent.
func take(b *store.Build, p runner.Report) error {
	b.Sequence = int(p.Sequence)
	b.CheckedOut = b.CheckedOut || p.Checkout != ""
	for _, s := range p.Steps {
		if s.Index < 0 || s.Index >= len(b.Steps) {
			return fault.Field("steps", "the build has no step %d", s.Index)
		}
		state := ci.StepState(s.State)
		switch state {
		case ci.StepPending, ci.StepRunning, ci.StepSuccessful, ci.StepFailed, ci.StepSkipped:
		default:
			return fault.Field("steps", "%.20q is no state of a step", s.State)
		}
		step := &b.Steps[s.Index]
		step.State, step.StartedAt, step.FinishedAt = state, s.StartedAt, s.FinishedAt
		if s.ExitCode != nil {
			step.ExitCode = *s.ExitCode
		}
	}
	switch p.Result {
	case "":
	case runner.VerdictSuccessful:
		b.State = ci.Successful
	case runner.VerdictFailed:
		b.State = ci.Failed
	case runner.VerdictTimeout:
		b.State = ci.TimedOut
	case runner.VerdictStopped:
		b.State = ci.Stopped
	case runner.VerdictError:
		b.State = ci.Errored
		if b.Stopping { // what it was told to do went before what went wrong
			b.State = ci.Stopped
		}
	default:
		return fault.Field("result", "%.20q is no result", p.Result)
	}
	if b.State.Final() {
		b.Reason = brief(p.Message)
	}
	return nil
}

func brief(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxMessage)], "") }

// runner takes what a runner says of an attempt. The agent's own report is more
// exact and, when it came, has ended the build already.
func (r *Report) runner(ctx context.Context, e runner.Event) error {
	again := false
	b, _, err := r.Store.ChangeBuild(ctx, e.Build, func(b *store.Build) (bool, error) {
		again = false
		if b.State.Final() || b.Attempt != e.Attempt {
			return false, nil
		}
		switch e.State.Phase {
		case runner.Lost, runner.Ended:
		default:
			return false, nil
		}
		// One that was ended on purpose after it was claimed is not made again.
		onPurpose := e.State.Result == runner.Stopped || e.State.Result == runner.TimedOut
		if mayRepeat(*b) && (b.Nonce == "" || !onPurpose) {
			again = true
			if b.Nonce != "" {
				r.abandon(b, e.State.Detail)
				return true, nil
			}
			// No agent has said why: the runner's words are all there is.
			if b.Reason != "" || e.State.Detail == "" {
				return false, nil
			}
			b.Reason = brief("an attempt ended before its agent began: " + e.State.Detail)
			return true, nil
		}
		b.State, b.Reason = verdict(e.State)
		if b.Stopping && (b.State == ci.Errored || b.Nonce == "") {
			b.State = ci.Stopped // an end without a word, as it was to be; or nothing ran at all
		}
		return true, nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("report: taking a runner's word: %w", err)
	}
	switch {
	case again:
		return r.another(ctx, b)
	case b.State.Final():
		return r.ended(ctx, b)
	}
	return nil
}

// verdict is what an attempt's end means when its agent did not say.
func verdict(s runner.State) (ci.State, string) {
	detail := ""
	if s.Detail != "" {
		detail = ": " + s.Detail
	}
	switch s.Result {
	case runner.Succeeded:
		return ci.Successful, ""
	case runner.Failed:
		return ci.Failed, "the build ended without a report" + detail
	case runner.Stopped:
		return ci.Stopped, "stopped" + detail
	case runner.TimedOut:
		return ci.TimedOut, "the runner ended the build at its limit" + detail
	default: // lost, or an end that its steps did not bring about
		return ci.Errored, "the runner lost the build" + detail
	}
}

// ended leaves the messages that follow the end of a build. It runs for every
// repeat: a message too many is harmless, one too few is not.
func (r *Report) ended(ctx context.Context, b store.Build) error {
	r.Log.Info("ended", "build", b.ID, "state", b.State)
	ref := store.StatusOf(b)
	if err := message.Send(ctx, r.Reports, message.Report{Status: &ref}, 0); err != nil {
		return fmt.Errorf("report: asking for a status: %w", err)
	}
	if err := message.Send(ctx, r.Deliveries, message.Dispatch{Admit: b.Runner}, 0); err != nil {
		return fmt.Errorf("report: saying that there is room: %w", err)
	}
	return nil
}
