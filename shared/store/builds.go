package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Build is a build with what only the service knows of it.
type Build struct {
	ci.Build
	Runner         string    `json:"runner"` // which runner admits it
	Refname        string    `json:"refname"`
	TimeoutSeconds int       `json:"timeout_seconds"`
	Image          string    `json:"image,omitempty"`    // that the pipeline file asks for
	Compute        string    `json:"compute,omitempty"`  // likewise
	Attempts       int       `json:"attempts,omitempty"` // how many were made
	Attempt        string    `json:"attempt,omitempty"`  // the current one: the build has a slot
	AttemptAt      time.Time `json:"attempt_at,omitzero"`
	Ticket         string    `json:"ticket,omitempty"` // hash of the attempt's ticket
	Nonce          string    `json:"nonce,omitempty"`  // of the one who claimed the attempt
	CheckedOut     bool      `json:"checked_out,omitempty"`
	Sequence       int       `json:"sequence,omitempty"`   // of the last report taken
	Reference      string    `json:"reference,omitempty"`  // the runner's, once it is known
	Approver       string    `json:"approver,omitempty"`   // user who approved it
	Lapsed         bool      `json:"lapsed,omitempty"`     // it ended before anybody approved it or refused to
	Revised        time.Time `json:"revised,omitzero"`     // when its pull request was last heard of as what it builds, by Bitbucket's clock; zero is unknown
	Group          string    `json:"group,omitempty"`      // of its app's builds: newer ones may stop older ones
	Old            string    `json:"old,omitempty"`        // commit its branch or tag was at before, once that is known
	Supersedes     bool      `json:"supersedes,omitempty"` // it stops older builds of its group
	Queues         bool      `json:"queues,omitempty"`     // of the builds of its group that do, one runs at a time
	Place          string    `json:"place,omitempty"`      // among those that wait for their turn, while it does
	// Stopping says that the build is to end: no attempt is made for it any more, none
	// may claim it, and what runs is told to stop. It stays when the build has ended.
	Stopping   bool      `json:"stopping,omitempty"`
	StoppingAt time.Time `json:"stopping_at,omitzero"`
	StopReason string    `json:"stop_reason,omitempty"` // the reason of the build when it is STOPPED
	DueAt      time.Time `json:"due_at,omitzero"`
	// Log names the build's log where that is not the id. Who knows it may be able to write there, so nobody
	// is shown it but who writes and reads the log.
	Log string `json:"log,omitempty"`

	Version int64 `json:"-"`
}

// LogName is the name of the build's log: builds made before logs had names of their own have their id's.
func (b Build) LogName() string { return cmp.Or(b.Log, b.ID) }

func buildKey(id string) table.Key     { return key("BUILD#"+id, "BUILD") }
func scriptKey(id string) table.Key    { return key("BUILD#"+id, "SCRIPT") }
func ticketKey(hash string) table.Key  { return key("TICKET#"+hash, "TICKET") }
func slotsKey(runner string) table.Key { return key("SLOTS#"+runner, "SLOTS") }
func counterKey(app string) table.Key  { return key("APP#"+app, "COUNTER") }
func changeKey(app, change string) table.Key {
	sum := sha256.Sum256([]byte(change))
	return key("CHANGE#"+app, hex.EncodeToString(sum[:]))
}

func groupKey(b Build) table.Key {
	begin := groupOf(b.Group) + "1#"
	if b.Supersedes {
		begin = superseding(b.Group)
	}
	return key("GROUP#"+b.App, begin+fmt.Sprintf("%010d", b.Number))
}

// groupOf begins the sort keys of a group, and superseding those of its builds that stop others.
func groupOf(group string) string {
	sum := sha256.Sum256([]byte(group))
	return hex.EncodeToString(sum[:]) + "#"
}

func superseding(group string) string { return groupOf(group) + "0#" }

func numberKey(app string, number int) table.Key {
	return key("APP#"+app, fmt.Sprintf("BUILD#%010d", number))
}

func waitingKey(b Build) table.Key {
	return key("WAITING#"+b.Runner, b.Workspace+"#"+inKey(b.WaitsSince())+"#"+b.ID)
}

// heldKey is where a build stands that is held, among those of its pull request.
func heldKey(b Build) table.Key { return key("HELD#"+b.App, heldOf(b.PullRequest)+b.ID) }

func heldOf(pull int) string { return fmt.Sprintf("%010d#", pull) }

// waiting is an entry of the line before a runner.
type waiting struct {
	Build     string    `json:"build"`
	Workspace string    `json:"workspace"`
	CreatedAt time.Time `json:"created_at"`
}

// slots are the builds a runner has been given, with their workspaces.
type slots struct {
	Builds map[string]string `json:"builds"`
}

// numbered is the build of a change, or of a state.
type numbered struct {
	Build  string `json:"build"`
	Number int    `json:"number"`
}

// NewBuild is what CreateBuild stores. Build.Number is set by it; a build in a
// final state (a broken pipeline file) never waits.
type NewBuild struct {
	Build  Build
	Change string // names the change: one build per app and change; empty: always a new one
	// State names what a branch or tag is at, where Change names how it came there; empty: Change does, or there is none.
	State string
	// Also are other changes and states that the build speaks for from then on, whatever spoke for them before.
	Also []string
	// Instead is the build that speaks for the change, and was set aside or never ran, in whose place this one is made; empty: in that of none.
	Instead string
	Script  any // what the runner executes, as JSON
	// Ahead is the build before which this one is to have its turn in their group; empty: it is the last.
	Ahead string
	// BranchKey is the build's status key when the status with its own one was first
	// posted for another branch; empty: never.
	BranchKey string
}

// CreateBuild stores a build under the next number of its app, with its place in
// the line and the status its commit shall show. When the change has a build
// already, that one is answered and created is false; where nothing of it was built, the newest one of the same
// state is. That is so unless nothing was built of the one to be answered either, and n.Instead names it.
func (s *Store) CreateBuild(ctx context.Context, n NewBuild) (b Build, created bool, err error) {
	err = s.again(ctx, func() error {
		b, created = n.Build, true
		var now spoken
		if n.Change != "" {
			if now, err = s.spoken(ctx, n); err != nil {
				return err
			}
			if now.build.ID != "" && !now.leavesTo(n) {
				b, created = now.build, now.build.ID == n.Build.ID
				return nil
			}
		} else {
			made, err := s.Build(ctx, b.ID)
			if err == nil {
				b = made // by an earlier run of this very change
				return nil
			}
			if !fault.Is(err, fault.NotFound) {
				return err
			}
		}
		last, counted, err := find[int](ctx, s, counterKey(b.App), "counter")
		if err != nil {
			return err
		}
		b.Number = last + 1
		shown, known, err := find[Status](ctx, s, statusKey(StatusOf(b)), "status")
		if err != nil {
			return err
		}
		if known != 0 && shown.Refname != b.Refname && n.BranchKey != "" {
			b.StatusKey = n.BranchKey
			if shown, known, err = find[Status](ctx, s, statusKey(StatusOf(b)), "status"); err != nil {
				return err
			}
		}
		var c change
		if b.takesTurns() {
			if err := s.join(ctx, &c, &b, n.Ahead); err != nil {
				return err
			}
		}
		if n.Change != "" {
			c.speak(now, n, b)
		}
		for _, other := range n.Also {
			c.put(changeKey(b.App, other), numbered{b.ID, b.Number}, table.Condition{}) // as in speak, the later one is the newer one
		}
		c.put(counterKey(b.App), b.Number, unlessVersion(counted))
		c.put(numberKey(b.App, b.Number), b.ID, table.Absent())
		c.put(buildKey(b.ID), b, table.Absent())
		if !b.State.Final() {
			c.put(scriptKey(b.ID), n.Script, table.Absent())
			if b.Group != "" {
				c.put(groupKey(b), b.ID, table.Absent())
			}
			if b.Held {
				c.put(heldKey(b), b.ID, table.Absent())
			}
			if b.waits() {
				c.put(waitingKey(b), waiting{b.ID, b.Workspace, b.WaitsSince()}, table.Absent())
			}
			c.due(DueBuild, b.ID, time.Time{}, b.DueAt)
		}
		s.wantStatus(&c, b, shown, known)
		b.Version = 1
		return s.commit(ctx, &c)
	})
	return b, created, err
}

// spoken is how it stands with who speaks for a change.
type spoken struct {
	build  Build // without an id: none does
	change int64 // versions of the items
	state  int64
}

// leavesTo reports whether n may take the place of the build that speaks.
func (now spoken) leavesTo(n NewBuild) bool { return n.Instead == now.build.ID && now.build.gone() }

func (s *Store) spoken(ctx context.Context, n NewBuild) (now spoken, err error) {
	first, version, err := find[numbered](ctx, s, changeKey(n.Build.App, n.Change), "change")
	if err != nil || version == 0 {
		return now, err
	}
	now.change = version
	if now.build, err = s.Build(ctx, first.Build); err != nil || !now.build.gone() || n.State == "" {
		return now, err
	}
	// The same may have been built as another change since.
	newest, version, err := find[numbered](ctx, s, changeKey(n.Build.App, n.State), "state")
	now.state = version
	if err != nil || version == 0 || newest.Build == now.build.ID {
		return now, err
	}
	now.build, err = s.Build(ctx, newest.Build)
	return now, err
}

// speak has b speak for its change and its state, under the condition that now is still how it stands. The first to speak for a change
// needs no condition on the state: all builds of an app are made under a condition on its counter, so the later one is the newer one.
func (c *change) speak(now spoken, n NewBuild, b Build) {
	c.put(changeKey(b.App, n.Change), numbered{b.ID, b.Number}, unlessVersion(now.change))
	if now.build.ID != "" {
		c.check(buildKey(now.build.ID), table.VersionIs(now.build.Version)) // it may end by itself just now
	}
	switch {
	case n.State == "":
	case now.build.ID == "":
		c.put(changeKey(b.App, n.State), numbered{b.ID, b.Number}, table.Condition{})
	default:
		c.put(changeKey(b.App, n.State), numbered{b.ID, b.Number}, unlessVersion(now.state))
	}
}

// Speak has a build speak for a change that has none.
func (s *Store) Speak(ctx context.Context, app, what string, of ci.Successor) error {
	return s.again(ctx, func() error {
		_, version, err := find[numbered](ctx, s, changeKey(app, what), "change")
		if err != nil || version != 0 {
			return err
		}
		var c change
		c.put(changeKey(app, what), numbered{of.Build, of.Number}, table.Absent())
		return s.commit(ctx, &c)
	})
}

// Build answers a build.
func (s *Store) Build(ctx context.Context, id string) (Build, error) {
	b, version, err := get[Build](ctx, s, buildKey(id), "build")
	b.Version = version
	return b, err
}

// BuildOf answers the build of a change, or fault.NotFound. One that took the place of another is the build of it from then on.
func (s *Store) BuildOf(ctx context.Context, app, change string) (Build, error) {
	n, _, err := get[numbered](ctx, s, changeKey(app, change), "build of this change")
	if err != nil {
		return Build{}, err
	}
	return s.Build(ctx, n.Build)
}

// Script reads what a build's runner executes into v.
func (s *Store) Script(ctx context.Context, build string, v any) error {
	raw, _, err := get[json.RawMessage](ctx, s, scriptKey(build), "script")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("store: the script of build %s is not readable: %w", build, err)
	}
	return nil
}

// Builds lists the builds of an app, newest first.
func (s *Store) Builds(ctx context.Context, app, cursor string, limit int) (Page[Build], error) {
	from, before := table.Prefix("BUILD#")
	ids, err := list[string](ctx, s, table.Query{
		Partition: "APP#" + app, From: from, Before: before, Reverse: true, Limit: limit, Cursor: cursor,
	}, "builds")
	if err != nil {
		return Page[Build]{}, err
	}
	items, err := s.buildsOf(ctx, ids.Items)
	return Page[Build]{Items: items, Cursor: ids.Cursor}, err
}

func (s *Store) buildsOf(ctx context.Context, ids []string) ([]Build, error) {
	keys := make([]table.Key, 0, len(ids))
	for _, id := range ids {
		keys = append(keys, buildKey(id))
	}
	return batch[Build](ctx, s, keys, "builds")
}

// Rivals lists the builds that have not ended of the group of b, itself included, of which one may stop the other: all, if b
// supersedes others, else those that do. However many builds of a branch wait, where none stops another they are not looked at.
func (s *Store) Rivals(ctx context.Context, b Build) ([]Build, error) {
	begin := superseding(b.Group)
	if b.Supersedes {
		begin = groupOf(b.Group)
	}
	return s.indexed(ctx, "GROUP#"+b.App, begin, "builds of a group")
}

// Held lists the builds of a pull request that are held.
func (s *Store) Held(ctx context.Context, app string, pull int) ([]Build, error) {
	return s.indexed(ctx, "HELD#"+app, heldOf(pull), "builds that are held")
}

// indexed reads the builds that an index names under sort keys with a prefix.
func (s *Store) indexed(ctx context.Context, partition, begin, what string) ([]Build, error) {
	from, before := table.Prefix(begin)
	q := table.Query{Partition: partition, From: from, Before: before, Limit: 100}
	var all []Build
	for {
		page, err := list[string](ctx, s, q, what)
		if err != nil {
			return nil, err
		}
		some, err := s.buildsOf(ctx, page.Items)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if q.Cursor = page.Cursor; q.Cursor == "" {
			return all, nil
		}
	}
}

// ChangeBuild edits a build under its version, together with everything that
// hangs on its state. edit may be run several times, each time on what is stored
// then; it answers false when there is nothing to do. A transition that ci.State
// does not allow is fault.Conflict. Changed is false when nothing was written.
func (s *Store) ChangeBuild(ctx context.Context, id string, edit func(*Build) (bool, error)) (b Build, changed bool, err error) {
	return s.changeBuild(ctx, id, func(b *Build, _ *change) (bool, error) { return edit(b) })
}

// ReplaceBuild is ChangeBuild where what is done depends on how another build, a newer one that has no turn and waits for none, stands just then.
func (s *Store) ReplaceBuild(ctx context.Context, id, newer string, edit func(b *Build, newer Build) (bool, error)) (b Build, changed bool, err error) {
	return s.changeBuild(ctx, id, func(b *Build, c *change) (bool, error) {
		other, err := s.Build(ctx, newer)
		if err != nil {
			return false, err
		}
		c.check(buildKey(newer), table.VersionIs(other.Version))
		return edit(b, other)
	})
}

func (s *Store) changeBuild(ctx context.Context, id string, edit func(*Build, *change) (bool, error)) (b Build, changed bool, err error) {
	err = s.again(ctx, func() error {
		changed = false
		old, err := s.Build(ctx, id)
		if err != nil {
			return err
		}
		b = old
		var c change
		write, err := edit(&b, &c)
		if err != nil || !write {
			return err
		}
		if err := s.moveBuild(ctx, &c, old, &b); err != nil {
			return err
		}
		if err := s.commit(ctx, &c); err != nil {
			return err
		}
		b.Version++
		changed = true
		return nil
	})
	return b, changed, err
}

// moveBuild writes b in the place of old, with all that follows from the change.
func (s *Store) moveBuild(ctx context.Context, c *change, old Build, b *Build) error {
	if b.State != old.State {
		if !old.State.May(b.State) {
			return fault.New(fault.Conflict, "build #%d is %s and cannot become %s", old.Number, old.State, b.State)
		}
		if b.State == ci.Stopped && b.Stopping {
			b.Reason = b.StopReason
		}
		if b.State.Final() {
			if b.State != ci.Stopped {
				b.SupersededBy = nil // its own end came first
			}
			if b.Group != "" {
				c.delete(groupKey(*b), table.Condition{})
			}
			if old.takesTurns() {
				if err := s.leave(ctx, c, b); err != nil {
					return err
				}
			}
			b.DueAt, b.Held = time.Time{}, false
			b.FinishedAt = s.now()
			if err := s.freeSlot(ctx, c, *b); err != nil {
				return err
			}
		}
	}
	switch {
	case old.Held && !b.Held:
		c.delete(heldKey(old), table.Condition{})
	case !old.Held && b.Held:
		c.put(heldKey(*b), b.ID, table.Absent())
	}
	if b.State.Status() != old.State.Status() || b.Held != old.Held {
		st, version, err := find[Status](ctx, s, statusKey(StatusOf(*b)), "status")
		if err != nil {
			return err
		}
		s.wantStatus(c, *b, st, version)
	}
	switch {
	case !b.takesTurns():
	case !old.takesTurns(): // it is not held any more
		if err := s.join(ctx, c, b, ""); err != nil {
			return err
		}
	case b.Old != old.Old || !b.Revised.Equal(old.Revised):
		if err := s.retell(ctx, c, *b); err != nil {
			return err
		}
	}
	switch {
	case old.waits() && !b.waits():
		c.delete(waitingKey(old), table.Condition{})
	case !old.waits() && b.waits():
		c.put(waitingKey(*b), waiting{b.ID, b.Workspace, b.WaitsSince()}, table.Absent())
	}
	if old.Ticket != "" && (b.State.Final() || b.Ticket != old.Ticket) {
		c.delete(ticketKey(old.Ticket), table.Condition{})
		if b.State.Final() {
			b.Ticket = ""
		}
	}
	if b.Ticket != "" && b.Ticket != old.Ticket {
		c.put(ticketKey(b.Ticket), numbered{b.ID, b.Number}, table.Absent())
	}
	c.put(buildKey(b.ID), *b, table.VersionIs(old.Version))
	c.due(DueBuild, b.ID, old.DueAt, b.DueAt)
	return nil
}

func (s *Store) freeSlot(ctx context.Context, c *change, b Build) error {
	taken, version, err := find[slots](ctx, s, slotsKey(b.Runner), "slots")
	if err != nil {
		return err
	}
	if _, held := taken.Builds[b.ID]; held {
		delete(taken.Builds, b.ID)
		c.put(slotsKey(b.Runner), taken, table.VersionIs(version))
	}
	return nil
}

// BuildOfTicket answers the build whose current attempt has the ticket, by the
// hash of the ticket.
func (s *Store) BuildOfTicket(ctx context.Context, hash string) (Build, error) {
	n, _, err := get[numbered](ctx, s, ticketKey(hash), "ticket")
	if err != nil {
		return Build{}, err
	}
	b, err := s.Build(ctx, n.Build)
	if err == nil && b.Ticket != hash {
		return Build{}, fault.New(fault.NotFound, "no such ticket")
	}
	return b, err
}

// Limits bound what a runner is given at once.
type Limits struct {
	Runner       int // builds in all
	PerWorkspace int // builds of one workspace; 0: as many as Runner
}

// Attempt is what Admit gives the build it admits.
type Attempt struct {
	ID     string
	Ticket string // hash
	DueAt  time.Time
}

// Begin makes a the build's current attempt; the ticket of an earlier one is dead.
// The build stays QUEUED until a runner took it.
func (b *Build) Begin(a Attempt, now time.Time) {
	b.Attempts++
	b.Attempt, b.AttemptAt, b.Ticket, b.DueAt = a.ID, now, a.Ticket, a.DueAt
	b.Nonce, b.Reference, b.Reason = "", "", ""
}

// waits reports whether the build stands in the line before its runner.
func (b Build) waits() bool { return !b.State.Final() && b.Attempt == "" && b.Place == "" && !b.Held }

// WaitsSince is from when on a build waits for what it waits for: a runner, or an approval.
func (b Build) WaitsSince() time.Time {
	if !b.ApprovedAt.IsZero() {
		return b.ApprovedAt
	}
	return b.CreatedAt
}

// stopAgain is after how long a build that is to end is looked at.
const stopAgain = time.Minute

// Stop ends a build that waits, and marks any other one as Stopping: then who calls it
// leaves a message for package dispatch, and the sweep looks at the build until it has
// ended. The first reason counts. It answers false when there was nothing to do.
func (b *Build) Stop(reason string, now time.Time) bool {
	if b.State.Final() || b.Stopping {
		return false
	}
	b.Stopping, b.StoppingAt, b.StopReason = true, now, reason
	if b.Attempt == "" {
		b.State = ci.Stopped
		return true
	}
	b.Reason, b.DueAt = "is being ended: "+reason, now.Add(stopAgain)
	return true
}

// SetAside reports whether nothing was built because there was something newer, or because nobody approved it: should what it builds
// be there again, it has no build. One whose own end came first has been built.
func (b Build) SetAside() bool {
	return b.Lapsed && b.State.Final() || b.Stopping && b.SupersededBy != nil && (b.State == ci.Stopped || !b.State.Final())
}

// NeverRan reports whether the build ended in an error before any of its steps ran: of a broken pipeline file, of a runner that refused
// it, of a repository that could not be read, or because it waited too long. That need not be the commit's fault.
func (b Build) NeverRan() bool { return b.State == ci.Errored && !b.CheckedOut }

// gone reports whether a build may leave its change to another one: nothing was built of it, and nothing will be.
func (b Build) gone() bool { return b.SetAside() || b.NeverRan() }

// InOrder reports whether it matters which of the builds of its group is newer, as far as the build itself says.
func (b Build) InOrder() bool { return b.Group != "" && (b.Supersedes || b.Queues) }

// Admit takes the next build out of the line before a runner and gives it a slot:
// of the workspaces that wait, the one with the fewest builds at work goes first,
// and of equals the one whose build has waited longest. Admitted is false when nobody
// waits or there is no slot.
func (s *Store) Admit(ctx context.Context, runner string, limits Limits, a Attempt) (b Build, admitted bool, err error) {
	unsure := false
	err = s.again(ctx, func() error {
		taken, version, err := find[slots](ctx, s, slotsKey(runner), "slots")
		if err != nil {
			return err
		}
		if unsure { // the run before may have done it all the same
			b, admitted, err = s.buildOfAttempt(ctx, taken, a.ID)
			if err != nil || admitted {
				return err
			}
		}
		if len(taken.Builds) >= limits.Runner {
			return nil
		}
		next, found, err := s.nextWaiting(ctx, runner, limits, taken)
		if err != nil || !found {
			return err
		}
		old, err := s.Build(ctx, next.Build)
		if err != nil {
			return err
		}
		if !old.waits() {
			return table.Conflicted() // it has left the line since
		}
		b = old
		b.Begin(a, s.now())
		if taken.Builds == nil {
			taken.Builds = map[string]string{}
		}
		taken.Builds[b.ID] = b.Workspace
		var c change
		c.put(slotsKey(runner), taken, unlessVersion(version))
		if err := s.moveBuild(ctx, &c, old, &b); err != nil {
			return err
		}
		if err := s.commit(ctx, &c); err != nil {
			unsure = unsure || fault.Is(err, fault.Unknown)
			return err
		}
		b.Version++
		admitted = true
		return nil
	})
	return b, admitted, err
}

// buildOfAttempt finds an attempt among the builds that hold a slot.
func (s *Store) buildOfAttempt(ctx context.Context, taken slots, attempt string) (Build, bool, error) {
	for id := range taken.Builds {
		b, err := s.Build(ctx, id)
		if err != nil || b.Attempt == attempt {
			return b, err == nil, err
		}
	}
	return Build{}, false, nil
}

// nextWaiting reads one entry of each workspace that waits: the line is ordered by
// workspace and time, and the next workspace is found behind the last key of this one.
func (s *Store) nextWaiting(ctx context.Context, runner string, limits Limits, taken slots) (best waiting, found bool, err error) {
	working := map[string]int{}
	for _, workspace := range taken.Builds {
		working[workspace]++
	}
	most := limits.PerWorkspace
	if most == 0 {
		most = limits.Runner
	}
	from := ""
	for {
		w, more, err := first[waiting](ctx, s, table.Query{Partition: "WAITING#" + runner, From: from}, "waiting builds")
		if err != nil || !more {
			return best, found, err
		}
		if working[w.Workspace] < most && (!found ||
			working[w.Workspace] < working[best.Workspace] ||
			working[w.Workspace] == working[best.Workspace] && w.CreatedAt.Before(best.CreatedAt)) {
			best, found = w, true
		}
		_, from = table.Prefix(w.Workspace + "#")
	}
}

// Waits reports whether any build waits for a runner.
func (s *Store) Waits(ctx context.Context, runner string) (bool, error) {
	_, found, err := first[waiting](ctx, s, table.Query{Partition: "WAITING#" + runner}, "waiting builds")
	return found, err
}

// Admitted lists the ids of the builds that hold a slot of a runner.
func (s *Store) Admitted(ctx context.Context, runner string) ([]string, error) {
	taken, _, err := find[slots](ctx, s, slotsKey(runner), "slots")
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(taken.Builds))
	for id := range taken.Builds {
		ids = append(ids, id)
	}
	return ids, nil
}
