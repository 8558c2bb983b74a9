package dispatch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
)

// maxFile is the longest pipeline file in bytes that is read.
const maxFile = 256 << 10

// commitLag is how long after its event a commit may be missing: right after a push
// Bitbucket has been seen to answer 404 for what it then has.
const commitLag = 5 * time.Minute

// maxReason cuts what a build says of its state, in bytes.
const maxReason = 2000

const (
	// keepEvery is after how many changes what is decided is recorded.
	keepEvery = 50
	// reserve is how much of a handler's time is left for recording what it did.
	reserve = 10 * time.Second
)

// candidate is a build that an event may lead to.
type candidate struct {
	app      ci.App
	tie      ci.Repository
	client   *bitbucket.Client
	held     []store.Pipeline // what the app holds in the repository's place
	seen     *seen
	delivery string
	received time.Time // the delivery
	before   time.Time // of a replay: when it was last decided
	replayed time.Time // of a replay: when somebody asked for it

	ref     string // for people
	trigger ci.Trigger
	change  string   // what one build is made of
	state   string   // of a push: what its branch or tag is at
	also    []string // changes and states of its branch that a pull request's build is of
	branch  string
	commit  string
	pr      ci.PullRequest // of a pull request build
	message string
	marks   string // in square brackets in the commit's message
	author  string
	old     string // what a pushed branch was before, where that is known
	line    int    // of the trigger that takes it
	late    bool   // the pull request has been decided as something newer
	fileAt  string // the commit whose pipeline file counts; empty: commit
}

// The codes of decisions that no pipeline file has to do with, beside pipeline.Code.
const (
	codeOtherEvent      = "other_event"      // of a kind that starts no builds
	codeNoChanges       = "no_changes"       // a push without any
	codeNoRepository    = "no_repository"    // the app has none any more
	codeOtherRepository = "other_repository" // the event is about one that the app does not build
	codeUnreadable      = "unreadable"       // the body, the change, or what Bitbucket has of it
	codeOffline         = "offline"          // the repository cannot be read: the connection is broken
	codeNoFile          = "no_file"          // there is no pipeline file
	codeBroken          = "broken"           // the pipeline file has mistakes
	codeOneWorkspace    = "one_workspace"    // the installation builds for another one alone
	codeLeftOut         = "left_out"         // there were too many
)

// decide adds to record a decision for each change of a delivery that has none. An
// error means that not all could be decided yet.
func (d *Dispatch) decide(ctx context.Context, record *store.Delivery) error {
	base, decisions, err := d.base(ctx, *record)
	switch event := record.Content; {
	case err != nil || len(decisions) > 0:
		decisions, err = told("the whole delivery")(decisions, err)
	case event.Kind == ci.EventPullRequest:
		decisions, err = told(pullRequestRef(*event.PullRequest))(d.pullRequest(ctx, base, *event.PullRequest))
	default:
		return d.changes(ctx, base, record)
	}
	if err == nil {
		record.Decisions = append(record.Decisions, decisions...)
	}
	return err
}

// base answers what the candidates of a delivery have in common, or the decisions
// of one without any.
func (d *Dispatch) base(ctx context.Context, record store.Delivery) (candidate, []ci.Decision, error) {
	event := record.Content
	whole := func(code, format string, args ...any) []ci.Decision {
		return []ci.Decision{{Ref: event.Key, Verdict: ci.Skipped, Code: code, Reason: fmt.Sprintf(format, args...)}}
	}
	var none candidate
	switch {
	case event.Kind == ci.EventOther:
		return none, whole(codeOtherEvent, "%s events start no builds", event.Key), nil
	case event.Kind == ci.EventPush && len(event.Changes) == 0:
		return none, whole(codeNoChanges, "the push has no changes"), nil
	}
	c, tied, err := d.subject(ctx, record.App)
	switch {
	case err != nil:
		return none, nil, err
	case !tied:
		return none, whole(codeNoRepository, "%s", noRepository), nil
	case event.Repository != c.tie.UUID:
		return none, whole(codeOtherRepository, "the event is about %s, the app builds %s", event.FullName, c.tie.FullName), nil
	}
	c.delivery, c.received, c.before, c.replayed = record.ID, record.ReceivedAt, record.DecidedBefore, record.ReplayedAt
	return c, nil, nil
}

const noRepository = "the app has no repository any more"

// subject answers what all candidates of an app have in common. Tied is false when the app has
// no repository.
func (d *Dispatch) subject(ctx context.Context, id string) (c candidate, tied bool, err error) {
	tie, err := d.Store.Repository(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return candidate{}, false, nil
	}
	if err != nil {
		return candidate{}, false, fmt.Errorf("dispatch: %w", err)
	}
	app, err := d.Store.App(ctx, id)
	if err != nil {
		return candidate{}, false, fmt.Errorf("dispatch: %w", err)
	}
	held, err := d.Store.Pipelines(ctx, id)
	if err != nil {
		return candidate{}, false, fmt.Errorf("dispatch: %w", err)
	}
	client, err := d.Clients.Client(ctx, tie.Connection)
	if err != nil {
		return candidate{}, false, fmt.Errorf("dispatch: %w", err)
	}
	return candidate{app: app, tie: tie, client: client, held: held, seen: newSeen()}, true, nil
}

// changes decides the changes of a push that are not decided. It stops in time for what
// it decided to be recorded, and records it now and then, in case it dies.
func (d *Dispatch) changes(ctx context.Context, base candidate, record *store.Delivery) error {
	working := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		working, cancel = context.WithDeadline(ctx, deadline.Add(-reserve))
		defer cancel()
	}
	changes := record.Content.Changes
	for i := record.Content.Considered; i < len(changes); i++ {
		if working.Err() != nil {
			return fault.Wrap(fault.Unavailable, working.Err(), "they are too many for one go")
		}
		c := base
		c.ref = changeRef(i, changes[i])
		decisions, err := told(c.ref)(d.push(working, c, changes[i]))
		if err != nil {
			return err
		}
		record.Decisions = append(record.Decisions, decisions...)
		record.Content.Considered++
		if record.Content.Considered%keepEvery == 0 && record.Content.Considered < len(changes) {
			if err := d.undecided(ctx, *record, fault.New(fault.Unavailable, "they are being looked at")); err != nil {
				return err
			}
		}
	}
	if n := record.Content.LeftOut; n > 0 {
		record.Decisions = append(record.Decisions, ci.Decision{
			Ref: "the rest", Verdict: ci.Skipped, Code: codeLeftOut,
			Reason: fmt.Sprintf("%d more changes were left out: of one push, the first %d are looked at", n, len(changes)),
		})
	}
	return nil
}

// changeRef names the change at index i for people.
func changeRef(i int, change ci.Change) string {
	if change.Problem == "" {
		return string(change.Kind) + " " + change.Name
	}
	return strings.TrimSpace(fmt.Sprintf("change %d %s", i+1, change.Name))
}

// told turns an error that no retry mends into a decision about ref, so that one
// change does not take those beside it along. After a lost grant, a replay builds what is
// missing once somebody has authorised again.
func told(ref string) func([]ci.Decision, error) ([]ci.Decision, error) {
	return func(decisions []ci.Decision, err error) ([]ci.Decision, error) {
		if err == nil || queue.Keeps(err) {
			return decisions, err
		}
		verdict, code := ci.Skipped, codeUnreadable
		if kind := fault.KindOf(err); kind == fault.Revoked || kind == fault.Forbidden {
			verdict, code = ci.Offline, codeOffline
		}
		reason, _ := fault.Public(err)
		return []ci.Decision{{Ref: ref, Verdict: verdict, Code: code, Reason: reason}}, nil
	}
}

func pullRequestRef(pr ci.PullRequest) string { return fmt.Sprintf("pull request #%d", pr.ID) }

// push decides one change of a push.
func (d *Dispatch) push(ctx context.Context, c candidate, change ci.Change) ([]ci.Decision, error) {
	c.trigger = ci.TriggerPush
	c.commit, c.message, c.marks, c.author, c.old = change.New, change.Message, change.Marks, change.Author, change.Old
	if change.Problem != "" {
		return c.skip(codeUnreadable, "it cannot be read: %s", change.Problem), nil
	}
	event := pipeline.Event{Kind: pipeline.Push, Action: actionOf(change), Branch: change.Name, Message: c.marks}
	full := "refs/heads/" + change.Name
	if change.Kind == ci.RefTag {
		event.Branch, event.Tag = "", change.Name
		full = "refs/tags/" + change.Name
	} else {
		c.branch = change.Name
	}
	c.change = strings.Join([]string{"push", full, change.Old, change.New}, "|")
	c.state = stateOf(full, change.New)
	if verdict, ok := event.Settled(); ok {
		return c.says(verdict), nil
	}

	file, decisions, err := d.file(ctx, c)
	if file == nil {
		return decisions, err
	}
	if c.branch == "" || !file.HasTrigger(pipeline.PullRequest) {
		return d.match(ctx, c, file, event)
	}
	return d.leave(ctx, c, file, event)
}

func stateOf(ref, commit string) string { return strings.Join([]string{"at", ref, commit}, "|") }

func actionOf(change ci.Change) pipeline.Action {
	switch {
	case change.New == "":
		return pipeline.Deleted
	case change.Old == "":
		return pipeline.Created
	case change.Forced:
		return pipeline.Forced
	default:
		return pipeline.Updated
	}
}

// leave decides the push of a branch that may have open pull requests: it belongs to
// those whose trigger takes them. Building them here already, under their own key, makes
// the pull request's event a repeat, and its loss harmless.
func (d *Dispatch) leave(ctx context.Context, c candidate, file *planned, push pipeline.Event) ([]ci.Decision, error) {
	open, err := c.openPullRequests(ctx)
	if err != nil {
		return nil, err
	}
	var events []pipeline.Event
	of := map[int]ci.PullRequest{}
	taken := false
	for _, pr := range open {
		if pr.Fork() || pr.SourceBranch != c.branch {
			continue
		}
		event := eventOf(pr)
		if event, err = c.of(pr).changed(ctx, file, event); err != nil {
			return nil, err
		}
		taken = taken || file.Match(event).Matched
		events, of[pr.ID] = append(events, event), pr
	}
	if !taken {
		if push, err = c.changed(ctx, file, push); err != nil {
			return nil, err
		}
	}
	var out []ci.Decision
	for _, verdict := range file.MatchPush(push, events) {
		pr, left := of[verdict.PullRequest]
		if !left {
			if err := d.belonged(ctx, c); err != nil {
				return nil, err
			}
			return d.act(ctx, c, file, verdict)
		}
		own := c.of(pr)
		own.also = append(own.also, c.change)
		decisions, err := d.act(ctx, own, file, verdict)
		if err != nil {
			return nil, err
		}
		if decisions[0].Verdict == ci.AlreadyBuilt { // by the pull request's event, which does not know of the push
			if err := d.Store.Speak(ctx, c.app.ID, c.change, ci.Successor{Build: decisions[0].Build, Number: decisions[0].Number}); err != nil {
				return nil, fmt.Errorf("dispatch: keeping which build a push led to: %w", err)
			}
		}
		belongs := fmt.Sprintf("the branch belongs to pull request #%d: ", pr.ID)
		for i := range decisions {
			decisions[i].Ref, decisions[i].PullRequest = c.ref, pr.ID
			decisions[i].Reason = belongs + strings.TrimPrefix(decisions[i].Reason, belongs)
		}
		out = append(out, decisions...)
	}
	return out, nil
}

// belonged finds the build of a pull request that was made of a push after it came, where the push is decided so late that the pull
// request may be closed, or have another target, by now: nothing is missing then.
func (d *Dispatch) belonged(ctx context.Context, c candidate) error {
	if d.Now().Sub(c.received) < commitLag {
		return nil
	}
	b, err := d.Store.BuildOf(ctx, c.app.ID, c.state)
	if err == nil && b.PullRequest != 0 && b.CreatedAt.After(c.received) {
		err = d.Store.Speak(ctx, c.app.ID, c.change, ci.Successor{Build: b.ID, Number: b.Number})
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("dispatch: looking for the pull request's build of a push: %w", err)
	}
	return nil
}

// eventOf is a pull request that is open as an event.
func eventOf(pr ci.PullRequest) pipeline.Event {
	return pipeline.Event{
		Kind: pipeline.PullRequest, Branch: pr.SourceBranch, Target: pr.TargetBranch, Number: pr.ID,
		Fork: pipeline.Fork{Foreign: pr.Fork()},
	}
}

// changed is event with the files it changes, if they matter. Where Bitbucket does not tell
// (of a new branch there is nothing to compare with, and a fork's commits are elsewhere), they stay unknown.
func (c candidate) changed(ctx context.Context, file *planned, event pipeline.Event) (pipeline.Event, error) {
	if !file.NeedsChanged(event) {
		event.Changed = []string{} // a trigger without paths takes it, or none does
		return event, nil
	}
	from, topic := c.old, false
	if event.Kind == pipeline.PullRequest {
		from, topic = c.pr.TargetHash, true
	}
	if from == "" || event.Fork.Foreign {
		return event, nil
	}
	changes, err := c.client.Changes(ctx, c.tie.UUID, from, c.commit, topic)
	if err != nil {
		return event, fmt.Errorf("dispatch: %s: %w", c.ref, err)
	}
	event.Changed, event.Cut = changes.Paths, changes.Cut
	return event, nil
}

// at is when the candidate's pull request was at its commit, by Bitbucket's clock. It is not known where Bitbucket showed another commit:
// right after a push it may be behind, and long after that, ahead.
func (c candidate) at() time.Time {
	if c.pr.SourceHash == "" || !strings.HasPrefix(c.commit, c.pr.SourceHash) {
		return time.Time{}
	}
	return c.pr.UpdatedAt.UTC()
}

// of makes c the candidate of a pull request at the commit c has.
func (c candidate) of(pr ci.PullRequest) candidate {
	c.ref, c.trigger, c.pr = pullRequestRef(pr), ci.TriggerPullRequest, pr
	c.branch = pr.SourceBranch
	c.change, c.state = strings.Join([]string{"pull_request", fmt.Sprint(pr.ID), c.commit, pr.TargetBranch}, "|"), ""
	if c.also = nil; !pr.Fork() {
		c.also = []string{stateOf("refs/heads/"+pr.SourceBranch, c.commit)}
	}
	if c.message == "" {
		c.message = pr.Title
	}
	if c.author == "" {
		c.author = pr.Author
	}
	return c
}

// pullRequest decides a pull request event.
func (d *Dispatch) pullRequest(ctx context.Context, c candidate, pr ci.PullRequest) ([]ci.Decision, error) {
	c.ref = pullRequestRef(pr)
	before, err := d.Store.Revision(ctx, c.app.ID, c.tie.UUID, pr.ID)
	if err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	before = heard(before, pr)
	event := eventOf(pr)
	event.Fork.Allowed = d.builds(c.app, pr)
	event.Action = since(before, pr, c.delivery)
	if verdict, ok := event.Settled(); ok {
		if event.Action == pipeline.Edited && pr.Action == ci.PullRequestUpdated {
			decisions, err := d.edited(ctx, c, pr, before, verdict)
			if err != nil || decisions != nil {
				return decisions, err
			}
			event.Action = pipeline.Updated
		}
	}
	if verdict, ok := event.Settled(); ok {
		verdict = d.unfit(c.app, pr, verdict)
		if pr.Fork() && (event.Action == pipeline.Closed || verdict.Code == pipeline.CodeFork) {
			if err := d.settle(ctx, c.of(pr), ci.Successor{}, verdict.Reason); err != nil {
				return nil, err
			}
			// What is decided later of what it was before is known to be old.
			before.UpdatedAt = pr.UpdatedAt
			if err := d.Store.PutRevision(ctx, c.app.ID, c.tie.UUID, pr.ID, before); err != nil {
				return nil, fmt.Errorf("dispatch: %w", err)
			}
		}
		return c.says(verdict), nil
	}
	// Events carry 12 characters; cloning, reading and posting need them all.
	commit, err := d.commit(ctx, c, pr.SourceRepository, pr.SourceHash)
	if err != nil {
		return nil, d.unread(c, pr, err)
	}
	if event.FileFrom() == pipeline.FileFromTarget {
		target, err := d.commit(ctx, c, c.tie.UUID, pr.TargetHash)
		if err != nil {
			return nil, err
		}
		c.fileAt = target.Hash
	}
	c.commit, c.message, c.marks, c.author = commit.Hash, commit.Message, commit.Marks, commit.Author
	c.late = !pr.UpdatedAt.IsZero() && before.UpdatedAt.After(pr.UpdatedAt)
	c = c.of(pr)
	event.Message = c.marks
	decisions, err := d.revised(ctx, c, event)
	if err != nil {
		return nil, err
	}
	if pr.Fork() {
		own := ci.Successor{Build: decisions[0].Build, Number: decisions[0].Number}
		if err := d.settle(ctx, c, own, c.ref+" has changed since"); err != nil {
			return nil, err
		}
	}
	// Last, so that who dies before it decides anew.
	err = d.Store.PutRevision(ctx, c.app.ID, c.tie.UUID, pr.ID, store.Revision{
		Source: c.commit, Target: pr.TargetBranch, Delivery: c.delivery, UpdatedAt: pr.UpdatedAt,
	})
	if err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	return decisions, nil
}

// revised decides a pull request as it is now.
func (d *Dispatch) revised(ctx context.Context, c candidate, event pipeline.Event) ([]ci.Decision, error) {
	if verdict, ok := event.Settled(); ok {
		return c.says(verdict), nil
	}
	file, decisions, err := d.file(ctx, c)
	if file == nil {
		return decisions, err
	}
	return d.match(ctx, c, file, event)
}

// since is what happened to a pull request since a revision of it was decided. What a delivery
// itself decided in an earlier run is no news from another one.
func since(before store.Revision, pr ci.PullRequest, delivery string) pipeline.Action {
	switch {
	case pr.Action == ci.PullRequestClosed || !pr.Open:
		return pipeline.Closed
	case pr.Action == ci.PullRequestOther:
		return pipeline.Edited
	case pr.Action == ci.PullRequestOpened:
		return pipeline.Opened
	case pr.Action == ci.PullRequestReopened:
		return pipeline.Reopened
	case before.Delivery == delivery:
		return pipeline.Updated
	}
	now := pipeline.Revision{Source: pr.SourceHash, Target: pr.TargetBranch}
	return now.ActionSince(pipeline.Revision{Source: before.Source, Target: before.Target})
}

// edited decides a pull request of which nothing is new that builds depend on: it may
// have been built, which is worth more to know. When that build was set aside, something is new after all: what came
// in between was not recorded, and there are no decisions. So it is when that build is missing.
func (d *Dispatch) edited(ctx context.Context, c candidate, pr ci.PullRequest, before store.Revision, verdict pipeline.Verdict) ([]ci.Decision, error) {
	c.commit = before.Source
	built, err := d.Store.BuildOf(ctx, c.app.ID, c.of(pr).change)
	known := err == nil
	switch {
	case !known && !fault.Is(err, fault.NotFound):
		return nil, fmt.Errorf("dispatch: %w", err)
	case known:
		if built, err = d.learn(ctx, built, "", pr.UpdatedAt); err != nil || built.SetAside() && built.State != ci.Errored || c.missing(built) {
			return nil, err
		}
	}
	if pr.UpdatedAt.After(before.UpdatedAt) { // what it was before that, and is heard of later, is old
		before.UpdatedAt = pr.UpdatedAt
		if err := d.Store.PutRevision(ctx, c.app.ID, c.tie.UUID, pr.ID, before); err != nil {
			return nil, fmt.Errorf("dispatch: %w", err)
		}
	}
	if !known {
		return c.says(untouched(before, verdict, c.ref)), nil
	}
	return c.alreadyBuilt(built, verdict), nil
}

// commit reads a commit of an event. One that is not found may only not be there yet:
// that is fault.Unavailable for a while, and fault.NotFound then.
func (d *Dispatch) commit(ctx context.Context, c candidate, repository, hash string) (bitbucket.Commit, error) {
	commit, err := c.client.Commit(ctx, repository, hash)
	switch {
	case err == nil:
		return commit, nil
	case !fault.Is(err, fault.NotFound):
		return bitbucket.Commit{}, fmt.Errorf("dispatch: reading commit %.12s: %w", hash, err)
	case d.Now().Sub(c.received) < commitLag:
		return bitbucket.Commit{}, fault.Wrap(fault.Unavailable, err, "Bitbucket does not show commit %.12s yet", hash)
	default:
		return bitbucket.Commit{}, fault.Wrap(fault.NotFound, err, "commit %.12s cannot be read: it is not on Bitbucket, or not any more", hash)
	}
}

// file answers the pipeline file at the candidate's commit. Without one, or with a
// broken one, it answers the decisions instead.
func (d *Dispatch) file(ctx context.Context, c candidate) (*planned, []ci.Decision, error) {
	found, err := d.read(ctx, c)
	switch {
	case err != nil:
		return nil, nil, err
	case found.missing:
		if c.app.PipelinePath != "" {
			return nil, c.skip(codeNoFile, "no pipeline file: %s, which the app names, does not exist at commit %.12s", c.app.PipelinePath, c.file()), nil
		}
		return nil, c.skip(codeNoFile, "no pipeline file: neither %s exists at commit %.12s", strings.Join(pipeline.DefaultPaths(), " nor "), c.file()), nil
	case found.problems != "":
		decisions, err := d.broken(ctx, c, found.problems)
		return nil, decisions, err
	}
	return found.file, nil, nil
}

// match applies the file's triggers and does what they say.
func (d *Dispatch) match(ctx context.Context, c candidate, file *planned, event pipeline.Event) ([]ci.Decision, error) {
	event, err := c.changed(ctx, file, event)
	if err != nil {
		return nil, err
	}
	return d.act(ctx, c, file, file.Match(event))
}

// act makes the build that a verdict asks for.
func (d *Dispatch) act(ctx context.Context, c candidate, file *planned, verdict pipeline.Verdict) ([]ci.Decision, error) {
	if !verdict.Matched {
		return c.says(verdict), nil
	}
	if verdict.Trigger >= 0 {
		c.line = file.Triggers[verdict.Trigger].Line
	}
	if d.OneWorkspace {
		only, err := d.Store.OnlyWorkspace(ctx, c.app.Workspace)
		if err != nil {
			return nil, fmt.Errorf("dispatch: %w", err)
		}
		if !only {
			return c.skip(codeOneWorkspace, "this installation does not keep builds apart and builds for one workspace only, which is another one"), nil
		}
	}
	b := d.build(c)
	b.Name, b.TimeoutSeconds, b.Image, b.Compute = file.plan.Name, file.plan.TimeoutSeconds, file.plan.Image, file.plan.Compute
	for _, step := range file.plan.Steps {
		b.Steps = append(b.Steps, ci.Step{Name: step.Name, State: ci.StepPending, ContinueOnError: step.ContinueOnError})
	}
	b.Group, b.Old = c.group(file), c.old
	b.Supersedes = file.Concurrency.CancelInProgress || c.app.CancelSuperseded
	b.Queues = file.Concurrency.Set && !b.Supersedes
	b.Reason = store.WaitsForRunner
	b.DueAt = b.CreatedAt.Add(WaitLimit) // until then the sweep looks at the line as a whole
	made := ci.Built
	if verdict.Held {
		made = ci.Held
		b.Held, b.Reason = true, "waits until a member approves the commit, which comes from a fork"
		b.DueAt = b.CreatedAt.Add(HoldLimit)
	}
	ahead, err := d.ahead(ctx, c, b)
	if err != nil {
		return nil, err
	}
	decisions, err := d.create(ctx, c, store.NewBuild{Build: b, Script: script(file.plan), Ahead: ahead}, made, verdict)
	if fault.Is(err, fault.TooLarge) {
		return d.broken(ctx, c, file.path+": the scripts and variables of all steps are too long together: move long values into files of the repository")
	}
	return decisions, err
}

// broken makes a build in state ERROR: whoever pushed a broken file sees it on the
// commit. The build's log has all the problems, its reason the first of them, the
// decision one.
func (d *Dispatch) broken(ctx context.Context, c candidate, problems string) ([]ci.Decision, error) {
	b := d.build(c)
	b.State, b.Name, b.FinishedAt = ci.Errored, c.app.Name, b.CreatedAt
	b.Reason = cut(problems, maxReason)
	first, _, _ := strings.Cut(problems, "\n")
	decisions, err := d.create(ctx, c, store.NewBuild{Build: b}, ci.Broken, pipeline.Verdict{Code: codeBroken, Reason: cut(first, maxText), Trigger: -1})
	if err != nil || decisions[0].Verdict != ci.Broken {
		return decisions, err
	}
	// An earlier run may have made the build and died before it wrote this.
	made, err := d.Store.Build(ctx, decisions[0].Build)
	if err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	written, err := d.BuildLog.Read(ctx, made.LogName(), "", 1)
	if err != nil {
		return nil, fmt.Errorf("dispatch: reading the log of a broken file: %w", err)
	}
	if len(written.Lines) > 0 {
		return decisions, nil
	}
	lines := []buildlog.Line{}
	for text := range strings.Lines(problems) {
		lines = append(lines, buildlog.Line{Time: b.CreatedAt, Text: strings.TrimSuffix(text, "\n")})
	}
	if err := d.BuildLog.Append(ctx, made.LogName(), lines...); err != nil {
		return nil, fmt.Errorf("dispatch: logging what is wrong with a file: %w", err)
	}
	return decisions, nil
}

func (d *Dispatch) build(c candidate) store.Build {
	b := store.Build{
		Build: ci.Build{
			ID: d.NewID(), Workspace: c.app.Workspace, App: c.app.ID, State: ci.Queued, Trigger: c.trigger,
			Branch: c.branch, Commit: c.commit, PullRequest: c.pr.ID, Target: c.pr.TargetBranch,
			Message: c.message, Author: c.author,
			Repository: c.tie.UUID, FullName: c.tie.FullName, Connection: c.tie.Connection, Delivery: c.delivery,
			StatusKey: StatusKey(c.app.ID), Steps: []ci.Step{}, CreatedAt: d.Now().UTC(),
		},
		Runner: d.RunnerName, Refname: c.branch,
	}
	if c.pr.ID != 0 {
		b.Revised = c.at()
	}
	if c.pr.ID != 0 && c.pr.Fork() {
		b.Fork, b.ForkName = c.pr.SourceRepository, c.pr.SourceFullName
	}
	if d.NewLogName != nil {
		b.Log = d.NewLogName()
	}
	if c.branch == "" {
		_, b.Tag, _ = strings.Cut(c.ref, " ")
	}
	if p, ok := c.holds(); ok {
		b.PipelineVersion = p.Version
	} else {
		b.PipelineCommit = c.fileAt
	}
	return b
}

// StatusKey is the key of an app's commit statuses: one per app, so that the newest
// build of a commit replaces what an older one said. Bitbucket takes 40 characters.
func StatusKey(app string) string { return statusKey(app) }

// BranchKey is the key that stands in for StatusKey where another branch's build has
// spoken for the commit already: a status shows on the pull requests of the branch it was
// first posted for alone, and the branch cannot be changed. It is empty for a tag's build.
func BranchKey(app, branch string) string { return statusKey(app + "\n" + branch) }

func statusKey(of string) string {
	sum := sha256.Sum256([]byte(of))
	return "runnerhub-" + hex.EncodeToString(sum[:15])
}

// create stores the build, or finds the one its change already has.
func (d *Dispatch) create(ctx context.Context, c candidate, n store.NewBuild, made ci.Verdict, verdict pipeline.Verdict) ([]ci.Decision, error) {
	n.Change, n.State, n.Also, n.BranchKey = c.change, c.state, c.also, BranchKey(c.app.ID, c.branch)
	b, created, err := d.Store.CreateBuild(ctx, n)
	for {
		if err != nil {
			return nil, fmt.Errorf("dispatch: creating a build of %s: %w", c.ref, err)
		}
		// An earlier run of this very delivery, or of a schedule's minute, may have made it and
		// died. In the latter case a branch can have moved since. A replay finds what was there before it.
		mine := created || b.Delivery == c.delivery && b.Commit == c.commit && b.CreatedAt.After(c.before)
		if b, err = d.follow(ctx, c, b, mine); err != nil {
			return nil, err
		}
		var again *present
		if again, err = d.backAt(ctx, c, b); err != nil {
			return nil, err
		}
		missing := !mine && c.missing(b) && !(n.Build.State == ci.Errored && n.Build.Reason == b.Reason) // it would say the same
		if again == nil && !missing {
			if !mine {
				return c.alreadyBuilt(b, verdict), nil
			}
			out := c.decision(made, verdict)
			out.Build, out.Number = b.ID, b.Number
			return []ci.Decision{out}, nil
		}
		n.Instead = b.ID
		if n.Build.ID == b.ID { // this one was set aside as soon as it was made
			n.Build.ID = d.NewID()
		}
		if again != nil && again.at.After(n.Build.Revised) {
			n.Build.Revised = again.at.UTC()
		}
		b, created, err = d.Store.CreateBuild(ctx, n)
	}
}

// follow does what follows the build of a change that an event led to, and answers how it stands then.
func (d *Dispatch) follow(ctx context.Context, c candidate, b store.Build, mine bool) (store.Build, error) {
	var err error
	if mine {
		ref := store.StatusOf(b)
		if err := message.Send(ctx, d.Reports, message.Report{Status: &ref}, 0); err != nil {
			return b, fmt.Errorf("dispatch: asking for a status: %w", err)
		}
	} else if b, err = d.learn(ctx, b, c.old, c.at()); err != nil {
		return b, err
	}
	// What it was not known to be newer than when it was made, it may be known now.
	if b.SetAside() || !mine && (b.State.Final() || b.Stopping) {
		return b, nil
	}
	as := b
	as.Old = cmp.Or(c.old, b.Old)
	contested, err := d.supersede(ctx, c, as)
	if err != nil || !contested {
		return b, err
	}
	if b, err = d.Store.Build(ctx, b.ID); err != nil {
		return b, fmt.Errorf("dispatch: %w", err)
	}
	return b, nil
}

// backAt answers what the candidate's branch, tag or pull request is at, if that is what b was made for, which was set
// aside: then it has no build (docs/decisions/0052-built-again.md). Else it answers nil.
func (d *Dispatch) backAt(ctx context.Context, c candidate, b store.Build) (*present, error) {
	if !b.SetAside() || c.state == "" && c.pr.ID == 0 {
		return nil, nil
	}
	if b.Lapsed { // it was held: Bitbucket's clock says what is newer
		if c.late {
			return nil, nil
		}
		return &present{at: c.pr.UpdatedAt}, nil
	}
	now, err := d.present(ctx, c)
	if err != nil || now.closed || !now.is(b) {
		return nil, err
	}
	return now, nil
}

// missing reports whether somebody who asked for a replay found b ended in an error before anything of it ran. What was at fault, be it
// a setting, the runner or a grant, may have been mended since; no event tells of that (docs/decisions/0054-errors-are-replayed.md).
func (c candidate) missing(b store.Build) bool {
	if c.late && b.Fork != "" {
		return false // it would be held for what the pull request is not any more
	}
	return b.NeverRan() && b.FinishedAt.Before(c.replayed)
}

func (c candidate) alreadyBuilt(b store.Build, verdict pipeline.Verdict) []ci.Decision {
	out := c.decision(ci.AlreadyBuilt, verdict)
	out.Reason = fmt.Sprintf("already built as #%d%s", b.Number, became(b, c.ref))
	out.Build, out.Number = b.ID, b.Number
	return []ci.Decision{out}
}

// became says what became of a build of ref, where it is not on its way and did not succeed.
func became(b store.Build, ref string) string {
	switch {
	case b.SetAside() && b.State != ci.Errored:
		return fmt.Sprintf(", which was stopped (%s); %s is not at that any more", b.StopReason, ref)
	case b.State == ci.Stopped:
		return fmt.Sprintf(", which was stopped (%s)", b.Reason)
	case b.Stopping && !b.State.Final():
		return fmt.Sprintf(", which is being stopped (%s)", b.StopReason)
	case b.State == ci.Failed:
		return ", which failed"
	case b.State == ci.TimedOut:
		return ", which took too long"
	case b.State == ci.Errored:
		return ", which ended in an error"
	case b.Held:
		return ", which waits until a member approves it"
	}
	return ""
}

// says is the decision not to build, by a verdict.
func (c candidate) says(verdict pipeline.Verdict) []ci.Decision {
	return []ci.Decision{c.decision(ci.Skipped, verdict)}
}

// decision tells a verdict as data, beside its sentence.
func (c candidate) decision(made ci.Verdict, verdict pipeline.Verdict) ci.Decision {
	out := ci.Decision{Ref: c.ref, Verdict: made, Reason: verdict.Reason, Code: string(verdict.Code), PullRequest: verdict.PullRequest}
	if verdict.Matched && verdict.Trigger >= 0 {
		out.Rule = &ci.Rule{Trigger: verdict.Trigger, Line: c.line}
	}
	for _, f := range verdict.Findings[:min(len(verdict.Findings), maxFindings)] {
		out.Findings = append(out.Findings, ci.Finding{
			Rule: ci.Rule{Trigger: f.Trigger, Line: f.Line}, Filter: string(f.Filter), Result: string(f.Result), Value: f.Value,
			Patterns: f.Patterns[:min(len(f.Patterns), maxPatterns)], Except: f.Except[:min(len(f.Except), maxPatterns)],
		})
	}
	return out
}

// file is the commit whose pipeline file counts.
func (c candidate) file() string { return cmp.Or(c.fileAt, c.commit) }

func (c candidate) skip(code, format string, args ...any) []ci.Decision {
	return []ci.Decision{{Ref: c.ref, Verdict: ci.Skipped, Code: code, Reason: fmt.Sprintf(format, args...)}}
}

func script(plan pipeline.Plan) runner.Script {
	s := runner.Script{TimeoutSeconds: plan.TimeoutSeconds}
	for _, step := range plan.Steps {
		out := runner.Step{Name: step.Name, Run: step.Run, WorkingDirectory: step.WorkingDirectory, TimeoutSeconds: step.TimeoutSeconds, ContinueOnError: step.ContinueOnError}
		for _, v := range step.Env {
			out.Env = append(out.Env, runner.Variable{Name: v.Name, Value: v.Value})
		}
		s.Steps = append(s.Steps, out)
	}
	return s
}

// cut answers at most so many bytes of s.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const more = " …"
	return strings.ToValidUTF8(s[:most-len(more)], "") + more
}
