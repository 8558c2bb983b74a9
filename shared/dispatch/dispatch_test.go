package dispatch_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
)

const (
	onMain   = "name: Shop\ntriggers:\n  - event: push\n    branches: [main, release/*]\nsteps:\n  - run: make\n"
	onPR     = "name: Shop\ntriggers:\n  - event: push\n  - event: pull_request\n    branches: [main]\nsteps:\n  - run: make\n"
	nonsense = "name: Shop\ntriggers: [push]\nsteps:\n  - run: make\n    typo: 1\n"
	onTags   = "name: Shop\ntriggers:\n  - {event: push, tags: v*}\nsteps:\n  - run: make\n"
	onIOS    = "name: Shop\nplatform: ios\ntriggers: [push]\nsteps:\n  - run: make\n"
)

const old = "1111111111111111111111111111111111111111"

// one pumps a delivery and answers its only decision.
func one(b *dispatchtest.Bench, id string) ci.Decision {
	b.Helper()
	b.Pump()
	decisions := b.Decisions(id)
	if len(decisions) != 1 {
		b.Fatalf("%s has decisions %+v", id, decisions)
	}
	return decisions[0]
}

// codes are those that docs/openapi.yaml tells of.
func codes(b *dispatchtest.Bench) string {
	b.Helper()
	text, err := os.ReadFile("../../docs/openapi.yaml")
	b.Must(err)
	_, list, _ := strings.Cut(string(text), "The reason in one word: ")
	list, _, found := strings.Cut(list, "\"\n")
	if !found {
		b.Fatal("docs/openapi.yaml does not tell of codes")
	}
	return ", " + list + ", "
}

// expect compares a decision, which always has a code, with what it should be.
func expect(b *dispatchtest.Bench, got ci.Decision, verdict ci.Verdict, reason string) {
	b.Helper()
	if got.Code == "" || !strings.Contains(codes(b), ", "+got.Code+", ") {
		b.Errorf("%+v has no code, or one that is not told of", got)
	}
	if got.Verdict != verdict || !strings.Contains(got.Reason, reason) || (got.Build != "") != (verdict == ci.Built || verdict == ci.Held || verdict == ci.Broken || verdict == ci.AlreadyBuilt) {
		b.Errorf("decided %+v, want %s because %q", got, verdict, reason)
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file    string // on main
		event   string // repo:push when empty
		body    func(b *dispatchtest.Bench) any
		verdict ci.Verdict
		ref     string
		reason  string
	}{
		"a branch that matches": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "main", Old: old, New: b.Main})
		}, ci.Built, "branch main", `matches "main"`},
		"a new branch": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "release/1", New: b.Main})
		}, ci.Built, "branch release/1", `matches "release/*"`},
		"a force push": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "main", Old: old, New: b.Main, Forced: true})
		}, ci.Built, "branch main", `matches`},
		"a branch that does not": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "feature/x", Old: old, New: b.Main})
		}, ci.Skipped, "branch feature/x", "branch feature/x matches none of main, release/*"},
		"a tag": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Kind: "tag", Name: "v1", New: b.Main})
		}, ci.Skipped, "tag v1", "tag v1: no trigger has a tags filter"},
		"a tag that matches": {onTags, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Kind: "tag", Name: "v1", New: b.Main, Message: "Release [skip ci]"})
		}, ci.Built, "tag v1", `push of tag v1 matches "v*"`},
		"another tag": {onTags, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Kind: "tag", Name: "x", New: b.Main})
		}, ci.Skipped, "tag x", "tag x matches none of v*"},
		"a deleted tag": {onTags, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Kind: "tag", Name: "v1", Old: b.Main})
		}, ci.Skipped, "tag v1", "was deleted"},
		"to be skipped": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "main", New: b.Main, Message: "Mend it\n\nsee there\n[CI Skip]"})
		}, ci.Skipped, "branch main", "the message of the head commit has [CI Skip]"},
		"not to be skipped": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "main", New: b.Main, Message: "[ skip ci ] [skip\tci] [[skip] ci]"})
		}, ci.Built, "branch main", "matches"},
		"a deleted branch": {onMain, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "main", Old: old})
		}, ci.Skipped, "branch main", "was deleted"},
		"no changes": {onMain, "", func(b *dispatchtest.Bench) any { return b.Push() }, ci.Skipped, "repo:push", "no changes"},
		"a folder in its place": {"", "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "empty", New: b.Commit("main", ".runnerhub/runnerhub.yml/x", "")})
		}, ci.Broken, "branch empty", "is a directory"},
		"no pipeline file": {onMain, "", func(b *dispatchtest.Bench) any {
			b.Transport.Answer(func(r *http.Request) int {
				if strings.Contains(r.URL.Path, "/src/") {
					return http.StatusNotFound
				}
				return 0
			})
			return b.Push(dispatchtest.Change{Name: "main", New: b.Main})
		}, ci.Skipped, "branch main", "no pipeline file: neither .runnerhub/runnerhub.yml nor runnerhub.yml exists"},
		"a broken file": {nonsense, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "main", New: b.Main})
		}, ci.Broken, "branch main", ".runnerhub/runnerhub.yml:5:5: "},
		"an unsupported platform": {onIOS, "", func(b *dispatchtest.Bench) any {
			return b.Push(dispatchtest.Change{Name: "main", New: b.Main})
		}, ci.Broken, "branch main", ".runnerhub/runnerhub.yml:2:11: platform: platform ios is not supported"},
		"a pull request": {onPR, "pullrequest:created", func(b *dispatchtest.Bench) any {
			return b.PullRequest(7, "feature", b.Main, "main")
		}, ci.Built, "pull request #7", `pull request into main matches "main"`},
		"another target": {onPR, "pullrequest:created", func(b *dispatchtest.Bench) any {
			return b.PullRequest(7, "feature", b.Main, "develop")
		}, ci.Skipped, "pull request #7", "target branch develop matches none of main"},
		"a fork": {onPR, "pullrequest:created", func(b *dispatchtest.Bench) any {
			return b.PullRequest(7, "feature", b.Main, "main", func(pr map[string]any) {
				pr["source"].(map[string]any)["repository"] = map[string]any{"uuid": "{11111111-2222-3333-4444-555555555555}"}
			})
		}, ci.Skipped, "pull request #7", "this app does not build forks"},
		"a fork that is gone": {onPR, "pullrequest:updated", func(b *dispatchtest.Bench) any {
			return b.PullRequest(7, "feature", b.Main, "main", func(pr map[string]any) {
				pr["source"].(map[string]any)["repository"] = nil
			})
		}, ci.Skipped, "pull request #7", "this app does not build forks"},
		"a merge": {onPR, "pullrequest:fulfilled", func(b *dispatchtest.Bench) any {
			return b.PullRequest(7, "feature", b.Main, "main", func(pr map[string]any) { pr["state"] = "MERGED" })
		}, ci.Skipped, "pull request #7", "is closed"},
		"a comment": {onPR, "pullrequest:comment_created", func(b *dispatchtest.Bench) any {
			return b.PullRequest(7, "feature", b.Main, "main")
		}, ci.Skipped, "pull request #7", "nothing to build"},
		"another repository": {onMain, "", func(b *dispatchtest.Bench) any {
			body := b.Push(dispatchtest.Change{Name: "main", New: b.Main})
			body["repository"] = map[string]any{"uuid": "{11111111-2222-3333-4444-555555555555}", "full_name": "acme/docs"}
			return body
		}, ci.Skipped, "repo:push", "the event is about acme/docs, the app builds acme/shop"},
		"an unknown event":   {onMain, "repo:fork", func(b *dispatchtest.Bench) any { return b.Push() }, ci.Skipped, "repo:fork", "start no builds"},
		"an unreadable body": {onMain, "", func(*dispatchtest.Bench) any { return []int{1} }, ci.Skipped, "the whole body", "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, test.file)
			event := test.event
			if event == "" {
				event = "repo:push"
			}
			got := one(b, b.Deliver("d", event, test.body(b)))
			expect(b, got, test.verdict, test.reason)
			if got.Ref != test.ref {
				t.Errorf("about %q, want %q", got.Ref, test.ref)
			}
			if (b.Count() > 0) != (got.Build != "") {
				t.Errorf("%d builds", b.Count())
			}
			if got.Verdict == ci.Broken {
				made := b.TheBuild()
				if shown := b.Shown(made.Commit, made.Branch); made.State != ci.Errored || shown != ci.StatusFailed {
					t.Errorf("build %s, status %q", made.State, shown)
				}
				log, err := b.BuildLog.Read(t.Context(), made.ID, "", 10)
				if err != nil || len(log.Lines) == 0 {
					t.Errorf("log %v, %v", log.Lines, err)
				}
			}
			b.Check(t)
		})
	}
}

func TestEveryChangeOfAPush(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	broken := b.Commit("release/2", ".runnerhub/runnerhub.yml", nonsense)
	b.Deliver("d", "repo:push", b.Push(
		dispatchtest.Change{Name: "main", Old: old, New: b.Main},
		dispatchtest.Change{Name: "gone", Old: old},
		dispatchtest.Change{Name: "release/2", New: broken},
		dispatchtest.Change{Name: "release/3", New: b.Main},
		dispatchtest.Change{Kind: "tag", Name: "v1", New: b.Main},
	))
	b.Pump()
	var got []string
	for _, d := range b.Decisions("d") {
		got = append(got, d.Ref+" "+string(d.Verdict))
	}
	want := "branch main BUILT, branch gone SKIPPED, branch release/2 BROKEN, branch release/3 BUILT, tag v1 SKIPPED"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
	// One commit, two branches, a status for each.
	for branch, key := range map[string]string{
		"main": dispatch.StatusKey(dispatchtest.App), "release/3": dispatch.BranchKey(dispatchtest.App, "release/3"),
	} {
		st := b.Statuses(b.Main)[key]
		if st[0] != branch || st[1] != "INPROGRESS" {
			t.Errorf("status of %s: %v", branch, st)
		}
	}
	b.Check(t)
}

func TestNumberOfCalls(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onPR)
	handle := func(want int) {
		t.Helper()
		b.Transport.Take("")
		messages, err := b.Deliveries.Receive(t.Context(), 1, 0)
		if err != nil || len(messages) != 1 {
			t.Fatal(messages, err)
		}
		b.Must(b.Dispatch.Handle(t.Context(), messages[0]))
		if calls := b.Transport.Take(""); len(calls) > want {
			t.Errorf("%d calls: %v", len(calls), calls)
		}
	}
	b.Deliver("push", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	handle(2)
	b.Drop()
	b.Deliver("pr", "pullrequest:created", b.PullRequest(7, "main", b.Main, "main"))
	handle(3)
}

func TestPushOfAPullRequestsBranch(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"push first", "pull request first"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, onPR)
			head := b.Commit("feature", "x", "1")
			pr := b.OpenPullRequest("feature", "main")
			push := func() ci.Decision {
				t.Helper()
				return one(b, b.Deliver("push", "repo:push", b.Push(dispatchtest.Change{Name: "feature", New: head})))
			}
			event := func(id, key string) ci.Decision {
				t.Helper()
				return one(b, b.Deliver(id, key, b.PullRequest(pr, "feature", head, "main")))
			}
			belongs := fmt.Sprintf("the branch belongs to pull request #%d: ", pr)
			if order == "push first" {
				expect(b, push(), ci.Built, belongs+"pull request into main")
				expect(b, event("pr", "pullrequest:created"), ci.AlreadyBuilt, "already built as #1")
			} else {
				expect(b, event("pr", "pullrequest:created"), ci.Built, "pull request into main")
				expect(b, push(), ci.AlreadyBuilt, belongs+"already built as #1")
			}
			if made := b.TheBuild(); made.PullRequest != pr || made.Trigger != ci.TriggerPullRequest || made.Branch != "feature" || made.Commit != head || made.Refname != "feature" {
				t.Errorf("%+v", made)
			}
			// Another title, the same commit.
			expect(b, event("title", "pullrequest:updated"), ci.AlreadyBuilt, "already built as #1")
			if b.Count() != 1 {
				t.Errorf("%d builds", b.Count())
			}
			b.Check(t)
		})
	}
}

func TestTargetsOfAPullRequest(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onPR)
	head := b.Commit("feature", "x", "1")
	b.Commit("develop", "y", "1")
	pr := b.OpenPullRequest("feature", "develop")
	// The target does not match, so the push is the push trigger's.
	expect(b, one(b, b.Deliver("push", "repo:push", b.Push(dispatchtest.Change{Name: "feature", New: head}))), ci.Built, "push of branch feature")
	if made := b.TheBuild(); made.Trigger != ci.TriggerPush || made.PullRequest != 0 {
		t.Errorf("%+v", made)
	}
	expect(b, one(b, b.Deliver("1", "pullrequest:updated", b.PullRequest(pr, "feature", head, "develop"))), ci.Skipped, "target branch develop")
	expect(b, one(b, b.Deliver("2", "pullrequest:updated", b.PullRequest(pr, "feature", head, "main"))), ci.Built, "into main")
	if b.Count() != 2 {
		t.Errorf("%d builds", b.Count())
	}
}

func TestTheSameChangeAgain(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	change := b.Push(dispatchtest.Change{Name: "main", Old: old, New: b.Main})
	// The same delivery many times at once, and the same change under other ids.
	var all []queue.Message
	for i := range 16 {
		id := "d"
		if i%2 == 1 {
			id = fmt.Sprint("other", i)
		}
		b.Deliver(id, "repo:push", change)
	}
	for len(all) < 16 {
		got, err := b.Deliveries.Receive(t.Context(), 10, 0)
		b.Must(err)
		all = append(all, got...)
	}
	var group sync.WaitGroup
	for _, m := range all {
		group.Go(func() {
			for { // as a queue would
				err := b.Dispatch.Handle(t.Context(), m)
				if err == nil {
					return
				}
				if !queue.Keeps(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.Pump()
	if b.Count() != 1 {
		t.Errorf("%d builds", b.Count())
	}
	built := 0
	for i := range 16 {
		id := "d"
		if i%2 == 1 {
			id = fmt.Sprint("other", i)
		} else if i > 0 {
			continue
		}
		switch d := one(b, id); d.Verdict {
		case ci.Built:
			built++
		default:
			expect(b, d, ci.AlreadyBuilt, "already built as #1")
		}
	}
	if built != 1 || len(b.Runner.Jobs()) != 1 {
		t.Errorf("%d deliveries built it, %d starts", built, len(b.Runner.Jobs()))
	}
	b.Check(t)
}

// The process dies at each of its writes once; the message comes again.
func TestDeathInBetween(t *testing.T) {
	t.Parallel()
	for _, file := range []string{onMain, nonsense} {
		for at := 1; at <= 4; at++ {
			b := dispatchtest.New(t, file)
			b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
			dead := func(n int, do func() error) error {
				if n == at {
					return fault.New(fault.Unavailable, "the process died")
				}
				return do()
			}
			b.Table.OnTransact(dispatchtest.Numbered(dead))
			if at%2 == 0 { // or when it publishes what follows
				b.Reports.Refuse(fault.New(fault.Unavailable, "the process died"))
			}
			b.Pump()
			b.Table.OnTransact(nil)
			b.Reports.Refuse(nil)
			b.PumpFor(20 * time.Second)
			if d := one(b, "d"); d.Verdict != ci.Built && d.Verdict != ci.Broken {
				t.Errorf("died at %d: %+v", at, d)
			}
			made := b.TheBuild()
			if b.Count() != 1 || made.State == ci.Errored != (file == nonsense) {
				t.Errorf("died at %d: %d builds, the last %s", at, b.Count(), made.State)
			}
			if log, err := b.BuildLog.Read(t.Context(), made.ID, "", 10); err != nil || len(log.Lines) > 0 != (file == nonsense) {
				t.Errorf("died at %d: log %v, %v", at, log.Lines, err)
			}
			b.Check(t)
		}
	}
}

// Where logs have names of their own, whoever writes uses that of the build that is stored, the builds' runner too; a build from
// before has its id's. Of a process that died after it stored a build, another one takes the name over.
func TestLogNames(t *testing.T) {
	t.Parallel()
	for _, file := range []string{onMain, nonsense} {
		b := dispatchtest.New(t, file)
		names := 0
		b.Dispatch.NewLogName = func() string { names++; return fmt.Sprint("log-", names) }
		died := false
		b.Table.OnTransact(func(_ int, writes []table.Write, do func() error) error {
			err := do()
			if err == nil && !died && slices.ContainsFunc(writes, func(w table.Write) bool { return w.Item.Key.Sort == "BUILD" }) {
				died = true
				return fault.New(fault.Unavailable, "the process died")
			}
			return err
		})
		b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
		b.PumpFor(20 * time.Second)
		made := b.TheBuild()
		if !died || made.Log == "" || made.LogName() != made.Log || names < 2 {
			t.Errorf("the build is %+v after %d names", made, names)
		}
		if file == onMain {
			if jobs := b.Runner.Jobs(); len(jobs) != 1 || jobs[0].Log != made.Log || jobs[0].Build != made.ID {
				t.Errorf("the jobs are %+v", jobs)
			}
		}
		for name, want := range map[string]bool{made.Log: file == nonsense, made.ID: false} {
			log, err := b.BuildLog.Read(t.Context(), name, "", 10)
			if err != nil || len(log.Lines) > 0 != want {
				t.Errorf("the log %s has %v, %v", name, log.Lines, err)
			}
		}
		b.Check(t)
	}
	if name := (store.Build{Build: ci.Build{ID: "b"}}).LogName(); name != "b" {
		t.Errorf("an old build's log is %s", name)
	}
}

func TestBitbucketDown(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	for name, faults := range map[string]map[string]any{"down": {"down": true}, "limited": {"rate_limited": true}} {
		b.Faults(faults)
		b.Deliver(name, "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: b.Commit("main", name, name), New: b.Main}))
		b.Pump()
		d, err := b.Delivery(t.Context(), name)
		if err != nil || !d.DecidedAt.IsZero() || !strings.Contains(d.Note, "not decided yet") || d.DueAt.IsZero() {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		b.Check(t)
		b.Faults(nil)
		b.Clock.Add(2 * time.Minute)
		expect(b, one(b, name), ci.Built, "")
		b.Check(t)
	}
}

// Right after a push, Bitbucket may not show the commit yet.
func TestCommitNotThere(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{"push": "repo:push", "pull request": "pullrequest:created"} {
		for _, comes := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " ", comes), func(t *testing.T) {
				t.Parallel()
				b := dispatchtest.New(t, onPR)
				b.Transport.Answer(func(r *http.Request) int {
					if strings.Contains(r.URL.Path, b.Main[:12]) {
						return http.StatusNotFound
					}
					return 0
				})
				var body any = b.Push(dispatchtest.Change{Name: "main", New: b.Main})
				if name == "pull request" {
					body = b.PullRequest(7, "feature", b.Main, "main")
				}
				b.Deliver("d", event, body)
				for range 4 {
					b.Pump()
					d, err := b.Delivery(t.Context(), "d")
					if err != nil || !d.DecidedAt.IsZero() || !strings.Contains(d.Note, "does not show commit "+b.Main[:12]+" yet") {
						t.Errorf("%+v, %v", d, err)
					}
					b.Clock.Add(time.Minute)
				}
				if comes {
					b.Transport.Answer(nil)
					b.Clock.Add(time.Minute)
					expect(b, one(b, "d"), ci.Built, "")
				} else {
					b.Clock.Add(10 * time.Minute)
					expect(b, one(b, "d"), ci.Skipped, "commit "+b.Main[:12]+" cannot be read")
				}
				b.Check(t)
			})
		}
	}
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	b.Faults(map[string]any{"revoked": true})
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	b.Pump()
	if d, err := b.Delivery(t.Context(), "d"); err != nil || !d.DecidedAt.IsZero() {
		t.Errorf("believed at once: %+v, %v", d, err)
	}
	for range 5 {
		b.Clock.Add(2 * time.Minute)
		b.Pump()
	}
	expect(b, one(b, "d"), ci.Offline, "authorised again")
	b.Check(t)
}

func TestTheRunnerRefuses(t *testing.T) {
	t.Parallel()
	push := func(b *dispatchtest.Bench, act func(runner.Job) error) {
		b.Runner.OnStart(act)
		b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
		b.Pump()
	}
	t.Run("no capacity", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, onMain)
		push(b, func(runner.Job) error { return fault.New(fault.RateLimited, "full") })
		for range 10 {
			b.Clock.Add(15 * time.Second)
			b.Pump()
		}
		if made := b.TheBuild(); made.State != ci.Queued || made.Reason != "waits for capacity of the runner local" {
			t.Errorf("%s: %s", made.State, made.Reason)
		}
		b.Check(t)
		b.Clock.Add(dispatch.WaitLimit)
		b.Pump()
		if made := b.TheBuild(); made.State != ci.Errored || !strings.Contains(made.Reason, "past the limit") {
			t.Errorf("after a day: %s: %s", made.State, made.Reason)
		}
		b.Check(t)
	})
	t.Run("never", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, onMain)
		push(b, func(runner.Job) error { return fault.New(fault.Invalid, "no such image") })
		if made := b.TheBuild(); made.State != ci.Errored || !strings.Contains(made.Reason, "no such image") {
			t.Errorf("%s: %s", made.State, made.Reason)
		}
		if shown := b.Shown(b.Main, "main"); shown != ci.StatusFailed {
			t.Errorf("shown is %s", shown)
		}
		b.Check(t)
	})
	t.Run("not known", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, onMain)
		first := true
		push(b, func(runner.Job) error {
			if first {
				first = false
				return fault.New(fault.Unknown, "the answer was lost")
			}
			return nil
		})
		b.Clock.Add(10 * time.Second)
		b.Pump()
		jobs := b.Runner.Jobs()
		if len(jobs) != 2 || jobs[0].Attempt == jobs[1].Attempt {
			t.Fatalf("jobs %+v", jobs)
		}
		claim := runner.ClaimRequest{Ticket: jobs[0].Ticket.Reveal(), Nonce: dispatchtest.Nonce}
		if _, err := b.Report.Claim(t.Context(), claim); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("the first attempt claims: %v", err)
		}
		b.Claim(jobs[1])
		b.Check(t)
	})
	t.Run("again and again", func(t *testing.T) {
		t.Parallel()
		b := dispatchtest.New(t, onMain)
		push(b, func(runner.Job) error { return fault.New(fault.Unavailable, "down") })
		b.PumpFor(2 * time.Minute)
		if made := b.TheBuild(); made.State != ci.Errored || len(b.Runner.Jobs()) != 5 {
			t.Errorf("%s after %d starts: %s", made.State, len(b.Runner.Jobs()), made.Reason)
		}
		b.Check(t)
	})
}

// A message that asks for another start, again and again, is about one attempt.
func TestStartMessageTwice(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	b.Pump()
	job := b.Last()
	for range 5 {
		b.Must(message.Send(t.Context(), b.Deliveries, message.Dispatch{Start: job.Build, Attempt: job.Attempt}, 0))
	}
	b.Pump()
	if n := len(b.Runner.Jobs()); n != 2 {
		t.Errorf("%d starts", n)
	}
	b.Claim(b.Last())
	b.Check(t)
}

func TestLimitsAndTheNext(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	for i := range 4 {
		b.Deliver(fmt.Sprint(i), "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: fmt.Sprintf("%040d", i), New: b.Main}))
		b.Pump()
	}
	if n := len(b.Runner.Jobs()); n != dispatchtest.Limits().Runner {
		t.Fatalf("%d at work", n)
	}
	b.Claim(b.Runner.Jobs()[0]).Says(runner.VerdictSuccessful)
	b.Pump()
	if n := len(b.Runner.Jobs()); n != dispatchtest.Limits().Runner+1 {
		t.Errorf("after an end, %d were started", n)
	}
	b.Check(t)
}

func TestOneWorkspace(t *testing.T) {
	t.Parallel()
	for first, want := range map[string]ci.Verdict{dispatchtest.Workspace: ci.Built, "another": ci.Skipped} {
		b := dispatchtest.New(t, onMain)
		deps := b.Dispatch.Deps
		deps.OneWorkspace = true
		var err error
		b.Dispatch, err = dispatch.New(deps)
		b.Must(err)
		_, err = b.OnlyWorkspace(t.Context(), first)
		b.Must(err)
		got := one(b, b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main})))
		if got.Verdict != want {
			t.Errorf("%s was first: %+v", first, got)
		}
	}
}

// What nobody can read, and what asks for nothing, ends as a dead letter.
func TestMessagesWithoutMeaning(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	for _, body := range []string{"{}", "nonsense"} {
		if err := b.Dispatch.Handle(t.Context(), queue.Message{ID: "m", Body: []byte(body)}); !queue.Keeps(err) {
			t.Errorf("%q: %v", body, err)
		}
		if err := b.Report.Handle(t.Context(), queue.Message{ID: "m", Body: []byte(body)}); !queue.Keeps(err) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// One change that cannot be decided does not take the others along, and a script
// that is too long to be kept is a broken file.
func TestOddChanges(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	var long strings.Builder
	long.WriteString("name: Shop\ntriggers: [push]\nenvironment:\n  variables:\n    BIG: \"" + strings.Repeat("x", 60_000) + "\"\nsteps:\n")
	for range 10 {
		long.WriteString("  - run: make\n")
	}
	big := b.Commit("release/big", ".runnerhub/runnerhub.yml", long.String())
	b.Transport.Answer(func(r *http.Request) int {
		if strings.Contains(r.URL.Path, "/src/"+old) {
			return http.StatusForbidden
		}
		return 0
	})
	b.Deliver("d", "repo:push", b.Push(
		dispatchtest.Change{Name: "release/1", New: old},
		dispatchtest.Change{Name: "release/big", New: big},
		dispatchtest.Change{Name: "main", New: b.Main},
	))
	b.Pump()
	got := b.Decisions("d")
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	expect(b, got[0], ci.Offline, "may not do this")
	expect(b, got[1], ci.Broken, "too long together")
	expect(b, got[2], ci.Built, "matches")
	b.Check(t)
}

// The handler's time is over when the runner answers: the outcome is recorded.
func TestTimeRunsOutDuringAStart(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	ctx, cancel := context.WithCancel(t.Context())
	b.Runner.OnStart(func(runner.Job) error {
		cancel()
		return nil
	})
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	messages, err := b.Deliveries.Receive(t.Context(), 1, 0)
	b.Must(err)
	_ = b.Dispatch.Handle(ctx, messages[0])
	if made := b.TheBuild(); made.Reference == "" || made.State != ci.Starting {
		t.Errorf("%s, reference %q", made.State, made.Reference)
	}
	b.Check(t)
}

// The runner is told of the machine that a file asks for, where it is offered.
func TestTheMachineOfABuild(t *testing.T) {
	t.Parallel()
	for size, state := range map[string]ci.State{"small": ci.Starting, "large": ci.Starting, "medium": ci.Errored} {
		b := dispatchtest.New(t, "runner: process\ncompute: "+size+"\n"+onMain)
		b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: old, New: b.Main}))
		b.Pump()
		if made := b.TheBuild(); made.State != state || state == ci.Starting && b.Last().Compute != size ||
			state == ci.Errored && !strings.HasSuffix(made.Reason, ":2:1: compute: compute medium is not there (this installation has small, large)") {
			t.Errorf("%s: %s, %s", size, made.State, made.Reason)
		}
	}
}
