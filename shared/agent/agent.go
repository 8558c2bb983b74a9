// Package agent is the program that stands inside a build, the same one on every
// runner: it claims its work with a ticket, checks out one commit, runs the steps one
// after the other and says how they went. Its standard output is the build's log in
// the text form of package buildlog, secrets masked; its configuration is two
// environment variables; its working folder is empty and its own.
//
// It runs in two phases, in one process. The first holds the credential for the clone,
// and runs nothing of the build. Before the first step it executes itself anew: the second
// phase has neither the credential nor the ticket in its environment, and never had
// the credential in its memory. That no build reads another's memory or files is the
// runner's work, and what a build may do at all is the server's.
package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/runner"
)

// Folders inside the agent's own.
const (
	sourceDir  = "source"
	homeDir    = "home"
	tempDir    = "tmp"
	scriptsDir = "scripts"
)

// handoverVariable names the descriptor from which the second phase reads its work.
const handoverVariable = "RUNNERHUB_HANDOVER"

// Why a build ended before its last step did.
var (
	errStopped = errors.New("the build was stopped")
	errTimeout = errors.New("the build took longer than it may")
)

// Limits are the agent's patience.
type Limits struct {
	LogBytes  int64         // what the steps may print in all
	Pause     time.Duration // before the first repeat of a call, doubled from then on
	ClaimFor  time.Duration // how long the claim is tried
	ReportFor time.Duration // how long the last report is tried: longer than a server is away
	StopFor   time.Duration // the same, when the runner asked the agent to end
	Every     time.Duration // the server hears from a running build at least this often
	Grace     time.Duration // from asking a step to end to killing it
}

// DefaultLimits are those of real builds.
func DefaultLimits() Limits {
	return Limits{
		LogBytes: 32 << 20, Pause: 500 * time.Millisecond, ClaimFor: 5 * time.Minute,
		ReportFor: 10 * time.Minute, StopFor: 10 * time.Second, Every: 15 * time.Second, Grace: 5 * time.Second,
	}
}

// Deps is what an agent needs. All of it is required.
type Deps struct {
	Environ []string // as os.Environ answers it
	Args    []string // os.Args, with which the agent executes itself anew
	Dir     string   // absolute; empty, and the agent's own
	Stdout  io.Writer
	Stderr  io.Writer // for the runner's operator, not for the log
	Now     func() time.Time
	Limits  Limits
}

// Run is the whole program. It answers the exit code (see package runner). A ctx that
// ends asks it to stop. It changes its process (it executes it anew, and kills all its
// descendants), so nothing else may run in it.
func Run(ctx context.Context, deps Deps) int {
	a, err := newAgent(deps)
	if err == nil {
		err = protect()
	}
	if err != nil {
		return fail(deps.Stderr, err)
	}
	if fd := a.getenv(handoverVariable); fd != "" {
		return a.second(ctx, fd)
	}
	return a.first(ctx)
}

func fail(stderr io.Writer, err error) int {
	code := runner.ExitOther
	if errors.Is(err, errNotOurs) {
		code = runner.ExitNotOurs
	}
	if stderr != nil {
		_, _ = fmt.Fprintln(stderr, "runnerhub agent:", err)
	}
	return code
}

type agent struct {
	Deps
	log *logbook
}

func newAgent(deps Deps) (*agent, error) {
	switch {
	case deps.Stdout == nil || deps.Stderr == nil || deps.Now == nil || len(deps.Args) == 0:
		return nil, errors.New("new agent: Args, Stdout, Stderr and Now are required")
	case !filepath.IsAbs(deps.Dir):
		return nil, errors.New("new agent: Dir must be absolute")
	case min(deps.Limits.LogBytes, int64(deps.Limits.Pause), int64(deps.Limits.ClaimFor), int64(deps.Limits.ReportFor),
		int64(deps.Limits.StopFor), int64(deps.Limits.Every), int64(deps.Limits.Grace)) <= 0:
		return nil, errors.New("new agent: every limit must be positive")
	}
	return &agent{Deps: deps, log: &logbook{now: deps.Now, limit: deps.Limits.LogBytes, out: deps.Stdout}}, nil
}

func (a *agent) getenv(name string) string {
	for _, e := range a.Environ {
		if n, value, ok := strings.Cut(e, "="); ok && n == name {
			return value
		}
	}
	return ""
}

func (a *agent) path() string {
	if p := a.getenv("PATH"); p != "" {
		return p
	}
	return defaultPath
}

// handover is what the second phase gets from the first. The clone is not in it.
type handover struct {
	Address   string            `json:"address"`
	Ticket    string            `json:"ticket"`
	Nonce     string            `json:"nonce"`
	Sequence  int64             `json:"sequence"`
	Deadline  time.Time         `json:"deadline"`
	Script    runner.Script     `json:"script"`
	Variables []runner.Variable `json:"variables"`
}

// first claims and checks out. It only returns when there is nothing left to do.
func (a *agent) first(ctx context.Context) int {
	work := handover{Address: a.getenv(runner.AddressVariable), Ticket: a.getenv(runner.TicketVariable), Nonce: nonce()}
	if work.Address == "" || work.Ticket == "" {
		return fail(a.Stderr, fmt.Errorf("%s and %s must be set", runner.AddressVariable, runner.TicketVariable))
	}
	c := newClient(work.Address, a.Limits.Pause)
	var claim runner.Claim
	claiming, cancel := context.WithTimeout(ctx, a.Limits.ClaimFor)
	err := c.call(claiming, runner.ClaimPath, runner.ClaimRequest{Ticket: work.Ticket, Nonce: work.Nonce}, &claim)
	cancel()
	if err != nil {
		return fail(a.Stderr, fmt.Errorf("claim the build: %w", err))
	}
	work.Script, work.Variables = claim.Script, claim.Variables
	// A build without time is refused in prepare, for which there must be some.
	work.Deadline = a.Now().Add(time.Duration(max(claim.Script.TimeoutSeconds, 1)) * time.Second)
	m := newMask(append(work.secrets(), claim.Clone.Password))
	a.log.say("Build #%d, attempt claimed: %s", claim.Build.Number, claim.Build.URL)

	report := work.report()
	stopping := ctx
	ctx, cancel = context.WithTimeoutCause(ctx, work.Deadline.Sub(a.Now()), errTimeout)
	defer cancel()
	if err := a.prepare(ctx, work, claim.Clone, m); err != nil {
		report.Checkout = runner.VerdictFailed
		report.Message = m.text("checkout: " + err.Error())
		return a.finish(stopping, c, &work, report, verdictOf(ctx, runner.VerdictError))
	}
	report.Checkout = runner.VerdictSuccessful
	var answer runner.ReportAnswer
	if err := c.call(ctx, runner.StepsPath, work.next(report), &answer); err != nil || answer.Stop {
		if errors.Is(err, errNotOurs) || errors.Is(err, errRefused) {
			return fail(a.Stderr, fmt.Errorf("report the checkout: %w", err))
		}
		verdict := verdictOf(ctx, runner.VerdictError)
		if answer.Stop {
			verdict = runner.VerdictStopped
		}
		return a.finish(stopping, c, &work, report, verdict)
	}
	return fail(a.Stderr, fmt.Errorf("hand over to the second phase: %w", work.exec(a.Args, a.path())))
}

// prepare makes the folders and checks out.
func (a *agent) prepare(ctx context.Context, work handover, clone runner.Clone, m *mask) error {
	if len(work.Script.Steps) == 0 || work.Script.TimeoutSeconds <= 0 {
		return errors.New("the script has no steps or no time to run")
	}
	if err := checkVariables(work.Script, work.Variables); err != nil {
		return err
	}
	for _, name := range []string{homeDir, tempDir, scriptsDir} {
		if err := os.Mkdir(filepath.Join(a.Dir, name), 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return (&checkout{
		clone: clone, source: filepath.Join(a.Dir, sourceDir), home: filepath.Join(a.Dir, homeDir),
		path: a.path(), mask: m, log: a.log, pause: a.Limits.Pause,
	}).run(ctx)
}

// second runs the steps.
func (a *agent) second(stopping context.Context, fd string) int {
	work, err := receive(fd)
	if err != nil {
		return fail(a.Stderr, fmt.Errorf("take over from the first phase: %w", err))
	}
	ctx, end := context.WithCancelCause(stopping)
	defer end(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, work.Deadline.Sub(a.Now()), errTimeout)
	defer cancel()
	c := newClient(work.Address, a.Limits.Pause)
	reports := startReporter(c, a.Limits.Every, end)
	shop := &workshop{
		dir: a.Dir, path: a.path(), env: work.Variables, mask: newMask(work.secrets()), log: a.log, grace: a.Limits.Grace,
	}
	report := work.report()
	report.Checkout = runner.VerdictSuccessful
	verdict := runner.VerdictSuccessful
	for i, step := range work.Script.Steps {
		if verdict != runner.VerdictSuccessful || ctx.Err() != nil {
			report.Steps[i].State = runner.StepSkipped
			continue
		}
		report.Steps[i].State, report.Steps[i].StartedAt = runner.StepRunning, a.Now().UTC()
		reports.send(work.next(report))
		code, err := a.step(ctx, shop, i, step)
		report.Steps[i].FinishedAt = a.Now().UTC()
		report.Steps[i].State = runner.StepSuccessful
		if err == nil {
			report.Steps[i].ExitCode = &code
		}
		if err != nil || code != 0 {
			report.Steps[i].State = runner.StepFailed
			message := fmt.Sprintf("step %q ended with exit code %d", step.Name, code)
			if err != nil {
				message = fmt.Sprintf("step %q: %v", step.Name, err)
			}
			message = shop.mask.text(message)
			if step.ContinueOnError && ctx.Err() == nil {
				a.log.say("%s; the build goes on, as continue_on_error asks", message)
				continue
			}
			verdict, report.Message = runner.VerdictFailed, message
			a.log.say("%s", message)
		}
	}
	killDescendants(shop.groups)
	shop.close()
	reports.close()
	if ctx.Err() != nil {
		verdict = verdictOf(ctx, verdict)
	}
	if errors.Is(context.Cause(ctx), errNotOurs) {
		return fail(a.Stderr, errNotOurs)
	}
	return a.finish(stopping, c, &work, report, verdict)
}

// step runs one step for as long as it may.
func (a *agent) step(ctx context.Context, shop *workshop, index int, step runner.Step) (int, error) {
	if step.TimeoutSeconds > 0 {
		limit := time.Duration(step.TimeoutSeconds) * time.Second
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was ended after %s, the time it may take", limit))
		defer cancel()
	}
	return shop.run(ctx, index, step)
}

// finish reports the verdict, leaves it for the runner and answers the exit code.
func (a *agent) finish(stopping context.Context, c *client, work *handover, report runner.Report, verdict runner.Verdict) int {
	for i := range report.Steps {
		if report.Steps[i].State == runner.StepPending {
			report.Steps[i].State = runner.StepSkipped
		}
	}
	report.Result = verdict
	switch verdict {
	case runner.VerdictTimeout:
		report.Message = fmt.Sprintf("The build was ended after %d seconds, the time it may take.", work.Script.TimeoutSeconds)
	case runner.VerdictStopped:
		report.Message = "The build was stopped."
	}
	a.log.end(strings.TrimSuffix(string(verdict)+": "+report.Message, ": "))
	if err := os.WriteFile(filepath.Join(a.Dir, runner.ResultFile), []byte(verdict), 0o600); err != nil {
		_, _ = fmt.Fprintln(a.Stderr, "runnerhub agent: leave the result:", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(stopping), a.Limits.ReportFor)
	defer cancel()
	defer context.AfterFunc(stopping, func() { time.AfterFunc(a.Limits.StopFor, cancel) })()
	var answer runner.ReportAnswer
	// A ticket ends with its build: when the answer to this report is lost, its repeat
	// finds the attempt over.
	if err := c.call(ctx, runner.StepsPath, work.next(report), &answer); err != nil && !errors.Is(err, errNotOurs) {
		return fail(a.Stderr, fmt.Errorf("report the result %s: %w", verdict, err))
	}
	switch verdict {
	case runner.VerdictSuccessful:
		return runner.ExitSuccessful
	case runner.VerdictFailed:
		return runner.ExitFailed
	default:
		return runner.ExitOther
	}
}

// verdictOf answers how a build ended whose ctx did, and otherwise when ctx did not.
func verdictOf(ctx context.Context, otherwise runner.Verdict) runner.Verdict {
	switch {
	case ctx.Err() == nil:
		return otherwise
	case errors.Is(context.Cause(ctx), errTimeout):
		return runner.VerdictTimeout
	default:
		return runner.VerdictStopped
	}
}

// secrets answers what no log may show.
func (h handover) secrets() []string {
	all := []string{h.Ticket}
	for _, v := range h.Variables {
		if v.Secret {
			all = append(all, v.Value)
		}
	}
	return all
}

// report answers a first report, of steps that wait.
func (h *handover) report() runner.Report {
	r := runner.Report{Ticket: h.Ticket, Nonce: h.Nonce}
	for i, s := range h.Script.Steps {
		r.Steps = append(r.Steps, runner.StepReport{Index: i, Name: s.Name, State: runner.StepPending})
	}
	return r
}

// next answers a copy of r under the next sequence number.
func (h *handover) next(r runner.Report) runner.Report {
	h.Sequence++
	r.Sequence = h.Sequence
	r.Steps = append([]runner.StepReport(nil), r.Steps...)
	return r
}

// exec replaces this process by the second phase. It returns only when it failed.
func (h *handover) exec(args []string, path string) error {
	body, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode handover: %w", err)
	}
	file, err := anonymousFile(body)
	if err != nil {
		return err
	}
	return execSelf(args, []string{"PATH=" + path, handoverVariable + "=" + strconv.Itoa(file)})
}

// receive reads the handover and closes its descriptor, so that no step inherits it.
func receive(fd string) (handover, error) {
	n, err := strconv.Atoi(fd)
	if err != nil {
		return handover{}, fmt.Errorf("read %s: %w", handoverVariable, err)
	}
	file := os.NewFile(uintptr(n), "handover")
	if file == nil {
		return handover{}, fmt.Errorf("descriptor %d is not open", n)
	}
	defer func() { _ = file.Close() }()
	var h handover
	if err := json.NewDecoder(file).Decode(&h); err != nil {
		return handover{}, fmt.Errorf("decode handover: %w", err)
	}
	return h, nil
}

func nonce() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
