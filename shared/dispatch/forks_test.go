package dispatch_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/sandbox"
	"runnerhub/shared/ci"
	"runnerhub/shared/control"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
)

// fork is a fork of the app's repository, by somebody who may not write there.
type fork struct {
	*dispatchtest.Bench
	uuid, name string
	pull       int // number of its pull request
	control    *control.Control
}

func newFork(t *testing.T, allowed bool) *fork {
	t.Helper()
	b := dispatchtest.New(t, onPR)
	b.Must(b.Sandbox.AddWorkspace("carols", "Carols", map[string]string{"carol": "admin", "alice": "admin"}))
	made := b.Call("carol", http.MethodPost, "/2.0/repositories/acme/shop/forks", map[string]any{"workspace": map[string]any{"slug": "carols"}})
	f := &fork{Bench: b, pull: 7, uuid: made["uuid"].(string), name: made["full_name"].(string)}
	_, err := b.ChangeApp(t.Context(), dispatchtest.App, func(a *ci.App) { a.AllowForks = allowed })
	b.Must(err)
	b.Must(b.Table.Transact(t.Context(), table.Put(table.Item{
		Key: table.Key{Partition: "USER#user", Sort: "USER"}, Body: []byte(`{"id":"user","nickname":"Alice"}`),
	}, table.Condition{})))
	f.control, err = control.New(control.Deps{Store: b.Store, Deliveries: b.Deliveries, Reports: b.Reports, Now: b.Clock.Now, Log: b.Log})
	b.Must(err)
	return f
}

// commit commits to the fork alone.
func (f *fork) commit(path, text string) string {
	f.Helper()
	hash, err := f.Sandbox.AddCommit(f.Context(), sandbox.NewCommit{
		Repository: f.name, Branch: "main", User: "carol", Message: "Change " + path, Files: map[string][]byte{path: []byte(text)},
	})
	f.Must(err)
	return hash
}

// says delivers an event about the pull request of the fork, of which Bitbucket says that it took place now.
func (f *fork) says(id, event, hash string, edits ...func(map[string]any)) ci.Decision {
	f.Helper()
	f.Clock.Add(time.Second)
	return one(f.Bench, f.Deliver(id, event, f.event(event, hash, edits...)))
}

func (f *fork) event(event, hash string, edits ...func(map[string]any)) any {
	f.Helper()
	return f.PullRequest(f.pull, "main", hash, "main", func(pr map[string]any) {
		source := pr["source"].(map[string]any)
		source["repository"] = map[string]any{"uuid": f.uuid, "full_name": f.name}
		pr["destination"].(map[string]any)["commit"] = map[string]any{"hash": f.Main[:12]}
		pr["updated_on"] = f.Clock.Now().UTC().Format(time.RFC3339Nano)
		if event == "pullrequest:rejected" {
			pr["state"] = "DECLINED"
		}
		for _, edit := range edits {
			edit(pr)
		}
	})
}

func (f *fork) build(id string) store.Build {
	f.Helper()
	b, err := f.Build(f.Context(), id)
	f.Must(err)
	return b
}

// is fails the test where a build is not what it should be.
func (f *fork) is(id string, state ci.State, held bool, reason string) store.Build {
	f.Helper()
	b := f.build(id)
	if b.State != state || b.Held != held || !strings.Contains(b.Reason, reason) {
		f.Errorf("build #%d is %s, held %v, because %q; want %s, %v, %q", b.Number, b.State, b.Held, b.Reason, state, held, reason)
	}
	return b
}

// shown is what the fork's commit says: the destination's repository does not have it.
func (f *fork) shown(commit string) (state, description string) {
	f.Helper()
	page := f.Call("carol", http.MethodGet, "/2.0/repositories/"+f.name+"/commit/"+commit+"/statuses", nil)
	for _, v := range page["values"].([]any) {
		st := v.(map[string]any)
		return st["state"].(string), st["description"].(string)
	}
	return "", ""
}

const waits = "waits until a member approves the commit"

func TestForks(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	head := f.commit(".runnerhub/runnerhub.yml", nonsense) // which does not count
	got := f.says("1", "pullrequest:created", head)
	if got.Verdict != ci.Held || got.Code != "held" || !strings.Contains(got.Reason, "it "+waits) {
		t.Fatalf("%+v", got)
	}
	b := f.is(got.Build, ci.Queued, true, waits)
	if b.Fork != f.uuid || b.Commit != head || b.PipelineCommit != f.Main || b.StartedAt != (time.Time{}) {
		t.Errorf("%+v", b)
	}
	f.Check(t)
	if state, says := f.shown(head); state != "INPROGRESS" || !strings.Contains(says, waits) {
		t.Errorf("the commit says %s, %q", state, says)
	}
	f.PumpFor(5 * time.Second)
	f.Must(f.Sweep.Run(t.Context()))
	f.Must(f.Sweep.Recover(t.Context()))
	f.Must(f.Dispatch.Admit(t.Context()))
	f.Pump()
	if jobs := f.Runner.Jobs(); len(jobs) > 0 {
		t.Fatalf("it was started: %+v", jobs)
	}
	if err := f.control.Approve(t.Context(), "stranger", b.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a stranger: %v", err)
	}
	f.Clock.Add(3 * 24 * time.Hour) // a weekend
	before := f.Clock.Now().UTC()
	for range 2 {
		f.Must(f.control.Approve(t.Context(), "user", b.ID))
		f.Check(t)
	}
	f.Pump()
	b = f.is(b.ID, ci.Starting, false, "")
	if b.ApprovedBy != "Alice" || !b.ApprovedAt.Equal(before) || b.Approver != "user" || len(f.Runner.Jobs()) != 1 {
		t.Errorf("approved, it is %+v", b)
	}
	if _, says := f.shown(head); strings.Contains(says, waits) {
		t.Errorf("the commit says %q", says)
	}
	claim, err := f.Report.Claim(t.Context(), runner.ClaimRequest{Ticket: f.Last().Ticket.Reveal(), Nonce: dispatchtest.Nonce})
	f.Must(err)
	if !strings.HasSuffix(claim.Clone.URL, "/"+f.name+".git") || claim.Clone.Commit != head || len(claim.Script.Steps) != 1 {
		t.Errorf("%+v", claim)
	}
	// A new commit needs a new approval, and what was approved goes on.
	second := f.says("2", "pullrequest:updated", f.commit("x", "1"))
	expect(f.Bench, second, ci.Held, waits)
	f.is(second.Build, ci.Queued, true, waits)
	f.is(b.ID, ci.Running, false, "")
	// A newer one takes the place of what is held.
	third := f.says("3", "pullrequest:updated", f.commit("x", "2"))
	made := f.is(second.Build, ci.Stopped, false, "superseded by #3")
	if by := made.SupersededBy; by == nil || *by != (ci.Successor{Build: third.Build, Number: 3}) {
		t.Errorf("superseded by %+v", by)
	}
	if err := f.control.Approve(t.Context(), "user", second.Build); !fault.Is(err, fault.Conflict) {
		t.Errorf("approving what has ended: %v", err)
	}
	if err := f.control.Approve(t.Context(), "user", b.ID); err != nil {
		t.Errorf("approving what was approved: %v", err)
	}
	f.says("4", "pullrequest:rejected", head)
	f.is(third.Build, ci.Stopped, false, "pull request #7 is closed")
	if state, _ := f.shown(made.Commit); state != "STOPPED" {
		t.Errorf("the commit that was superseded says %s", state)
	}
	if jobs := f.Runner.Jobs(); len(jobs) != 1 {
		t.Errorf("started were %+v", jobs)
	}
	f.Check(t)
}

// An approved build stands behind those that wait already.
func TestAnApprovedForkIsTheLastInLine(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	got := f.says("1", "pullrequest:created", f.commit("x", "1"))
	for i := range dispatchtest.Limits().Runner + 1 {
		f.Clock.Add(time.Second)
		id := fmt.Sprint("push-", i)
		expect(f.Bench, one(f.Bench, f.Deliver(id, "repo:push", f.Push(dispatchtest.Change{Name: id, New: f.Main}))), ci.Built, "push")
	}
	waiting := f.TheBuild()
	f.Clock.Add(time.Second)
	f.Must(f.control.Approve(t.Context(), "user", got.Build))
	f.Pump()
	first := f.Runner.Jobs()[0]
	_, _, err := f.ChangeBuild(t.Context(), first.Build, func(b *store.Build) (bool, error) { return b.Stop("", f.Clock.Now()), nil })
	f.Must(err)
	f.Must(message.Send(t.Context(), f.Deliveries, message.Dispatch{Stop: first.Build}, 0))
	f.Pump()
	if last := f.Last(); last.Build != waiting.ID {
		t.Errorf("the next one was %+v", last)
	}
	f.is(got.Build, ci.Queued, false, "waits for a runner")
	f.Check(t)
}

func TestAForkWaitsTooLong(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	got := f.says("1", "pullrequest:created", f.commit("x", "1"))
	f.Clock.Add(dispatch.WaitLimit + time.Hour)
	f.Must(f.Sweep.Recover(t.Context()))
	f.is(got.Build, ci.Queued, true, waits)
	f.Clock.Add(dispatch.HoldLimit - dispatch.WaitLimit)
	f.Must(f.Sweep.Run(t.Context()))
	f.Pump()
	f.is(got.Build, ci.Errored, false, "waited for a member to approve the commit past the limit of 14 days")
	f.Check(t)
	// From its approval on, it waits like any other.
	f = newFork(t, true)
	got = f.says("1", "pullrequest:created", f.commit("x", "1"))
	f.Clock.Add(dispatch.HoldLimit - time.Minute)
	f.Must(f.control.Approve(t.Context(), "user", got.Build))
	f.Drop()
	f.Clock.Add(dispatch.WaitLimit - time.Minute)
	f.Must(f.Sweep.Run(t.Context()))
	f.is(got.Build, ci.Queued, false, "waits for a runner")
	f.Drop()
	f.Clock.Add(time.Hour)
	f.Must(f.Sweep.Run(t.Context()))
	f.is(got.Build, ci.Errored, false, "waited for a runner past the limit of 24h0m0s")
	f.Check(t)
}

// Whatever order events come in, only what the pull request is at stays held.
func TestForksOutOfOrder(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	first := f.commit("x", "1")
	early := f.event("pullrequest:created", first)
	f.Clock.Add(time.Minute)
	newest := f.says("2", "pullrequest:updated", f.commit("x", "2"))
	late := one(f.Bench, f.Deliver("1", "pullrequest:created", early))
	expect(f.Bench, late, ci.Held, waits)
	f.is(late.Build, ci.Stopped, false, fmt.Sprintf("superseded by #%d", newest.Number))
	f.is(newest.Build, ci.Queued, true, waits)
	// Approved, it is not held any more, and what is older is still older.
	f.Must(f.control.Approve(t.Context(), "user", newest.Build))
	f.Pump()
	late = one(f.Bench, f.Deliver("1b", "pullrequest:created", f.event("pullrequest:created", f.commit("y", "1"), func(pr map[string]any) {
		pr["updated_on"] = f.Clock.Now().Add(-30 * time.Second).UTC().Format(time.RFC3339Nano)
	})))
	f.is(late.Build, ci.Stopped, false, "pull request #7 has changed since")
	f.is(newest.Build, ci.Starting, false, "")
	// A comment changes nothing.
	third := f.says("3", "pullrequest:updated", f.commit("x", "3"))
	f.says("4", "pullrequest:comment_created", first)
	f.is(third.Build, ci.Queued, true, waits)
	// Nothing is held of what is closed, however late it is heard of.
	early = f.event("pullrequest:updated", f.commit("x", "4"))
	f.says("5", "pullrequest:rejected", first)
	late = one(f.Bench, f.Deliver("6", "pullrequest:updated", early))
	f.is(late.Build, ci.Stopped, false, "pull request #7 has changed since")
	f.Check(t)
}

func TestReplayOfAFork(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	got := f.says("1", "pullrequest:created", f.commit("x", "1"))
	for range 2 {
		f.Clock.Add(time.Minute)
		_, err := replayer(f.Bench).Replay(t.Context(), "user", "1")
		f.Must(err)
		again := one(f.Bench, "1")
		if again.Verdict != ci.AlreadyBuilt || again.Build != got.Build {
			t.Errorf("replayed, it is %+v", again)
		}
		f.is(got.Build, ci.Queued, true, waits)
	}
	if f.Count() != 1 {
		t.Errorf("%d builds", f.Count())
	}
	f.Check(t)
}

// Whoever comes first to a build that is held (who approves it, who cancels it, or a newer commit), it starts at most
// once, and never when it was stopped.
func TestForksRace(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	for i := range 5 {
		got := f.says(fmt.Sprint("held", i), "pullrequest:updated", f.commit("x", fmt.Sprint(i)))
		next := f.Deliver(fmt.Sprint("next", i), "pullrequest:updated", f.event("pullrequest:updated", f.commit("y", fmt.Sprint(i))))
		started := len(f.Runner.Jobs())
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if err := f.control.Approve(t.Context(), "user", got.Build); err != nil && !fault.Is(err, fault.Conflict) {
					t.Error(err)
				}
			})
			all.Go(func() {
				if err := f.Dispatch.Admit(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		if i%2 == 0 {
			all.Go(func() {
				if err := f.control.Cancel(t.Context(), "user", got.Build); err != nil && !fault.Is(err, fault.Conflict) {
					t.Error(err)
				}
			})
		}
		f.Pump()
		all.Wait()
		f.Pump()
		newer := one(f.Bench, next)
		b := f.build(got.Build)
		jobs := f.Runner.Jobs()[started:]
		switch approved := !b.ApprovedAt.IsZero(); {
		case b.Held || len(jobs) > 1 || len(jobs) == 1 && (jobs[0].Build != b.ID || !approved):
			t.Errorf("%+v; started were %+v", b, jobs)
		case b.SupersededBy != nil && (approved || b.State != ci.Stopped || b.SupersededBy.Build != newer.Build):
			t.Errorf("superseded, and %+v", b)
		}
		f.is(newer.Build, ci.Queued, true, waits)
		f.Check(t)
		if !b.State.Final() { // makes room
			f.Must(f.control.Cancel(t.Context(), "user", b.ID))
			f.Pump()
		}
	}
}

// Nothing was built of what nobody approved: it is held anew when the pull request comes back to it, or it is replayed.
func TestForksThatLapsed(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	commit := f.commit("x", "1")
	early := f.event("pullrequest:created", commit)
	first := f.says("1", "pullrequest:created", commit)
	other := f.commit("x", "2")
	stale := f.event("pullrequest:updated", other)
	second := f.says("2", "pullrequest:updated", other)
	back := f.says("3", "pullrequest:updated", commit)
	expect(f.Bench, back, ci.Held, waits)
	f.is(second.Build, ci.Stopped, false, "superseded by #3")
	if back.Build == first.Build || f.build(back.Build).Commit != commit {
		t.Errorf("pushed back, it is %+v", back)
	}
	retarget := func(branch string) func(map[string]any) {
		return func(pr map[string]any) { pr["destination"].(map[string]any)["branch"] = map[string]any{"name": branch} }
	}
	expect(f.Bench, f.says("4", "pullrequest:updated", commit, retarget("develop")), ci.Skipped, "develop matches none")
	f.is(back.Build, ci.Stopped, false, "pull request #7 has changed since")
	again := f.says("5", "pullrequest:updated", commit)
	expect(f.Bench, again, ci.Held, waits)
	// What comes late is not held anew.
	expect(f.Bench, one(f.Bench, f.Deliver("1b", "pullrequest:created", early)), ci.AlreadyBuilt, "#4")
	expect(f.Bench, one(f.Bench, f.Deliver("2b", "pullrequest:updated", stale)), ci.AlreadyBuilt, "#2")
	if f.Count() != 4 {
		t.Errorf("%d builds", f.Count())
	}
	// Nobody cared for two weeks, and somebody asks for it then.
	f.Clock.Add(dispatch.HoldLimit + time.Minute)
	f.Must(f.Sweep.Run(t.Context()))
	f.Pump()
	f.is(again.Build, ci.Errored, false, "waited for a member")
	replays := func() ci.Decision {
		f.Clock.Add(time.Minute)
		_, err := replayer(f.Bench).Replay(t.Context(), "user", "5")
		f.Must(err)
		return one(f.Bench, "5")
	}
	anew := replays()
	expect(f.Bench, anew, ci.Held, waits)
	expect(f.Bench, replays(), ci.AlreadyBuilt, "#5")
	// What a member refused is refused.
	f.Must(f.control.Cancel(t.Context(), "user", anew.Build))
	f.Pump()
	expect(f.Bench, replays(), ci.AlreadyBuilt, "#5")
	f.is(anew.Build, ci.Stopped, false, "stopped by Alice")
	if f.Count() != 5 {
		t.Errorf("%d builds", f.Count())
	}
	f.Check(t)
}

// A file that the app holds counts by the rule of the target branch.
func TestHeldFileOfAFork(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	version := holding(f.Bench, "main", 0, strings.Replace(onPR, "Shop", "Of the target", 1))
	holding(f.Bench, "topic", 0, strings.Replace(onPR, "Shop", "Of the source", 1))
	got := f.says("1", "pullrequest:created", f.commit("x", "1"), func(pr map[string]any) {
		pr["source"].(map[string]any)["branch"] = map[string]any{"name": "topic"}
	})
	expect(f.Bench, got, ci.Held, waits)
	if b := f.build(got.Build); b.Name != "Of the target" || b.PipelineVersion != version || b.PipelineCommit != "" || b.Branch != "topic" {
		t.Errorf("%+v", b)
	}
}

// Who may not write to the repository stops nobody else's builds, whatever the group, and what is held is stopped by
// nobody else's.
func TestForksAndGroups(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	f.Main = f.Commit("main", ".runnerhub/runnerhub.yml", onPR+"concurrency: {group: all, cancel_in_progress: true}\n")
	expect(f.Bench, one(f.Bench, f.Deliver("push", "repo:push", f.Push(dispatchtest.Change{Name: "main", New: f.Main}))), ci.Built, "push")
	pushed := f.TheBuild()
	head := f.commit("x", "1")
	f.pull = int(f.Call("carol", http.MethodPost, "/2.0/repositories/acme/shop/pullrequests", map[string]any{
		"title": "Mine", "source": map[string]any{"branch": map[string]any{"name": "main"}, "repository": map[string]any{"full_name": f.name}},
		"destination": map[string]any{"branch": map[string]any{"name": "main"}},
	})["id"].(float64))
	got := f.says("1", "pullrequest:created", head)
	expect(f.Bench, got, ci.Held, waits)
	f.is(pushed.ID, ci.Starting, false, "")
	expect(f.Bench, one(f.Bench, f.Deliver("next", "repo:push", f.Push(
		dispatchtest.Change{Name: "main", Old: f.Main, New: f.Commit("main", "y", "1")}))), ci.Built, "push")
	f.is(got.Build, ci.Queued, true, waits)
	// Of the same pull request, the newer one stops the older one that runs.
	f.Must(f.control.Approve(t.Context(), "user", got.Build))
	f.Pump()
	next := f.says("2", "pullrequest:updated", f.commit("x", "2"))
	f.is(got.Build, ci.Stopped, false, fmt.Sprintf("superseded by #%d", next.Number))
	f.Check(t)
}

func TestForksThatAreNotBuilt(t *testing.T) {
	t.Parallel()
	f := newFork(t, false)
	expect(f.Bench, f.says("1", "pullrequest:created", f.commit("x", "1")), ci.Skipped, "this app does not build forks")
	f.Dispatch.Forks = false
	for i, allowed := range []bool{true, false} {
		_, err := f.ChangeApp(t.Context(), dispatchtest.App, func(a *ci.App) { a.AllowForks = allowed })
		f.Must(err)
		expect(f.Bench, f.says(fmt.Sprint("2", i), "pullrequest:created", f.commit("x", "1")), ci.Skipped, "does not keep builds apart, so that it builds none")
	}
	f = newFork(t, true)
	gone := func(pr map[string]any) { pr["source"].(map[string]any)["repository"] = nil }
	expect(f.Bench, f.says("3", "pullrequest:created", f.commit("x", "1"), gone), ci.Skipped, "from a fork that is gone")
	if f.Count() != 0 {
		t.Errorf("%d builds", f.Count())
	}
}

// What is decided under other settings is not built under these.
func TestForksOfOtherSettings(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	got := f.says("1", "pullrequest:created", f.commit("x", "1"))
	allow := func(allowed bool) {
		_, err := f.ChangeApp(t.Context(), dispatchtest.App, func(a *ci.App) { a.AllowForks = allowed })
		f.Must(err)
	}
	allow(false)
	if err := f.control.Approve(t.Context(), "user", got.Build); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "does not build forks any more") {
		t.Errorf("approving a build of a fork that is not allowed any more: %v", err)
	}
	f.is(got.Build, ci.Queued, true, waits)
	allow(true)
	f.Dispatch.Forks = false
	f.Must(f.control.Approve(t.Context(), "user", got.Build))
	f.Pump()
	f.is(got.Build, ci.Errored, false, "it does not keep builds apart, and this one is of a fork")
	if jobs := f.Runner.Jobs(); len(jobs) > 0 {
		t.Errorf("started were %+v", jobs)
	}
	f.Dispatch.Forks = true
	got = f.says("2", "pullrequest:updated", f.commit("x", "2"))
	allow(false)
	expect(f.Bench, f.says("3", "pullrequest:updated", f.commit("x", "3")), ci.Skipped, "does not build forks")
	f.is(got.Build, ci.Stopped, false, "does not build forks")
	f.Check(t)
}

// A fork that the app's connection may not read is said to be that, and costs the connection nothing.
func TestForksThatCannotBeRead(t *testing.T) {
	t.Parallel()
	f := newFork(t, true)
	head := f.commit("x", "1")
	refuse := func(status int) {
		f.Transport.Answer(func(r *http.Request) int {
			if strings.Contains(r.URL.Path, f.uuid) {
				return status
			}
			return 0
		})
	}
	refuse(http.StatusForbidden)
	expect(f.Bench, f.says("1", "pullrequest:created", head), ci.Skipped, "the account of the app's connection may not read that repository")
	refuse(http.StatusNotFound)
	id := f.Deliver("2", "pullrequest:created", f.event("pullrequest:created", head))
	f.PumpFor(10 * time.Minute)
	expect(f.Bench, one(f.Bench, id), ci.Skipped, "the account of the app's connection may not read that repository")
	f.Transport.Answer(nil)
	// It became so after the approval.
	got := f.says("3", "pullrequest:created", head)
	f.Must(f.control.Approve(t.Context(), "user", got.Build))
	f.Pump()
	refuse(http.StatusNotFound)
	_, err := f.Report.Claim(t.Context(), runner.ClaimRequest{Ticket: f.Last().Ticket.Reveal(), Nonce: dispatchtest.Nonce})
	if !fault.Is(err, fault.Conflict) {
		t.Errorf("claimed: %v", err)
	}
	f.is(got.Build, ci.Errored, false, "the fork that has the commit cannot be read by the account of the app's connection")
	// Nor can its status be posted, which ends and says so.
	f.PumpFor(2 * time.Minute)
	b := f.build(got.Build)
	st, err := f.Status(t.Context(), store.StatusOf(b))
	f.Must(err)
	if st.Repository != f.uuid || st.State != ci.StatusFailed || st.Ended == "" {
		t.Errorf("the status is %+v", st)
	}
	conn, err := f.Connection(t.Context(), dispatchtest.Connection)
	f.Must(err)
	if conn.State != ci.ConnectionActive {
		t.Errorf("the connection is %s", conn.State)
	}
	f.Check(t)
}
