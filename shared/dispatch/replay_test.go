package dispatch_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/catalog"
	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
)

// replayer is what a member asks for replays.
func replayer(b *dispatchtest.Bench) *catalog.Catalog {
	b.Helper()
	c, err := catalog.New(catalog.Deps{Store: b.Store, Queue: b.Deliveries, PublicURL: "http://127.0.0.1:8080", Now: b.Clock.Now, NewID: b.IDs.New})
	b.Must(err)
	return c
}

// withoutFiles has Bitbucket show no pipeline file for a branch's commit.
func withoutFiles(b *dispatchtest.Bench, commit string) {
	b.Transport.Answer(func(r *http.Request) int {
		if strings.Contains(r.URL.Path, "/src/"+commit) {
			return http.StatusNotFound
		}
		return 0
	})
}

func TestReplay(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	other := b.Commit("release/1", ".runnerhub/runnerhub.yml", onMain+"# another\n")
	withoutFiles(b, other)
	id := b.Deliver("d", "repo:push", b.Push(
		dispatchtest.Change{Name: "main", Old: old, New: b.Main}, dispatchtest.Change{Name: "release/1", New: other}, dispatchtest.Change{Name: "gone", Old: old},
	))
	b.Pump()
	verdicts := func() (out string) {
		t.Helper()
		for _, d := range b.Decisions(id) {
			out += string(d.Verdict) + " "
		}
		return out
	}
	if got := verdicts(); got != "BUILT SKIPPED SKIPPED " || b.Count() != 1 {
		t.Fatalf("at first it is %s, %d builds", got, b.Count())
	}

	b.Clock.Add(time.Hour)
	b.Transport.Answer(nil)
	members := replayer(b)
	for range 3 { // while it is undecided, a repeat is harmless
		d, err := members.Replay(t.Context(), "user", id)
		if err != nil || !d.DecidedAt.IsZero() || len(d.Decisions) != 0 || !strings.Contains(d.Note, "replayed") {
			t.Fatalf("it is answered %+v, %v", d, err)
		}
	}
	b.Pump()
	if got := verdicts(); got != "ALREADY_BUILT BUILT SKIPPED " || b.Count() != 2 {
		t.Errorf("replayed it is %s, %d builds", got, b.Count())
	}
	expect(b, b.Decisions(id)[0], ci.AlreadyBuilt, "already built as #1")

	b.Clock.Add(time.Hour)
	if _, err := members.Replay(t.Context(), "user", id); err != nil {
		t.Fatal(err)
	}
	b.Pump()
	if got := verdicts(); got != "ALREADY_BUILT ALREADY_BUILT SKIPPED " || b.Count() != 2 {
		t.Errorf("replayed again it is %s, %d builds", got, b.Count())
	}
	// The queue delivers a replay's message once more.
	b.Must(message.Send(t.Context(), b.Deliveries, message.Dispatch{Again: id}, 0))
	b.Pump()
	if record, err := b.Delivery(t.Context(), id); err != nil || record.Replays != 2 || !record.DueAt.IsZero() {
		t.Errorf("the record is %+v, %v", record, err)
	}
	b.Check(t)
}

// The message of a replay is lost, or its outcome is: the sweep, or asking again, mends it.
func TestLostReplay(t *testing.T) {
	t.Parallel()
	for name, mend := range map[string]func(b *dispatchtest.Bench, id string){
		"swept": func(b *dispatchtest.Bench, _ string) {
			b.Clock.Add(3 * time.Minute)
			b.Must(b.Sweep.Run(b.Context()))
		},
		"asked again": func(b *dispatchtest.Bench, id string) {
			_, err := replayer(b).Replay(b.Context(), "user", id)
			b.Must(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, onMain)
			withoutFiles(b, b.Main)
			id := b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
			expect(b, one(b, id), ci.Skipped, "no pipeline file")
			b.Transport.Answer(nil)
			b.Clock.Add(time.Hour)
			b.Deliveries.Refuse(fault.New(fault.Unavailable, "no queue today"))
			if _, err := replayer(b).Replay(t.Context(), "user", id); !fault.Is(err, fault.Unavailable) {
				t.Fatalf("without a queue: %v", err)
			}
			b.Deliveries.Refuse(nil)
			b.Pump()
			mend(b, id)
			expect(b, one(b, id), ci.Built, "matches")
			b.Check(t)
		})
	}
}

// A replay whose decider dies after it made a build says that it built it.
func TestDeathInAReplay(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	withoutFiles(b, b.Main)
	id := b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	expect(b, one(b, id), ci.Skipped, "no pipeline file")
	b.Transport.Answer(nil)
	b.Clock.Add(time.Hour)
	if _, err := replayer(b).Replay(t.Context(), "user", id); err != nil {
		t.Fatal(err)
	}
	b.Reports.OnPublish(func(n int, do func() error) error {
		if n == 1 {
			return errors.New("dead")
		}
		return do()
	})
	b.PumpFor(30 * time.Second)
	expect(b, one(b, id), ci.Built, "matches")
	if b.Count() != 1 {
		t.Errorf("%d builds", b.Count())
	}
	b.Check(t)
}

// Who decided before a replay, and comes to record it only now, does not end the replay.
func TestLateDecisionBeforeAReplay(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	id := b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	expect(b, one(b, id), ci.Built, "matches")
	late, err := b.Delivery(t.Context(), id)
	b.Must(err)
	if _, err := replayer(b).Replay(t.Context(), "user", id); err != nil {
		t.Fatal(err)
	}
	_, err = b.PutDelivery(t.Context(), late)
	b.Must(err)
	expect(b, one(b, id), ci.AlreadyBuilt, "#1")
	b.Check(t)
}

func TestReplayRefused(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	b.Deliver("unreadable", "repo:push", []int{1})
	b.Pump()
	put := func(id string, content ci.Event, note string) {
		_, err := b.PutDelivery(t.Context(), store.Delivery{
			Delivery:  ci.Delivery{ID: id, App: dispatchtest.App, ReceivedAt: b.Clock.Now(), DecidedAt: b.Clock.Now()},
			Workspace: dispatchtest.Workspace, Content: content, Note: note,
		})
		b.Must(err)
	}
	put("cut", ci.Event{Kind: ci.EventPush}, "the event is too large to be kept: it cannot be replayed")
	put("long", ci.Event{Kind: ci.EventPush, Changes: []ci.Change{{Name: strings.Repeat("x", 250<<10)}}}, "")
	for id, reason := range map[string]string{"unreadable": "could not be read", "cut": "too large", "long": "too large"} {
		_, err := replayer(b).Replay(t.Context(), "user", id)
		if detail, _ := fault.Public(err); !fault.Is(err, fault.Conflict) || !strings.Contains(detail, reason) {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []string{"unreadable", "absent"} {
		_, err := replayer(b).Replay(t.Context(), "stranger", id)
		if detail, _ := fault.Public(err); !fault.Is(err, fault.NotFound) || detail != "no such delivery" {
			t.Errorf("a stranger asks for %s: %v", id, err)
		}
	}
	// The event of one that is undecided and has no due time is in its message alone.
	_, err := b.PutDelivery(t.Context(), store.Delivery{
		Delivery:  ci.Delivery{ID: "under way", App: dispatchtest.App, ReceivedAt: b.Clock.Now()},
		Workspace: dispatchtest.Workspace, Content: ci.Event{Kind: ci.EventPush},
	})
	b.Must(err)
	if _, err := replayer(b).Replay(t.Context(), "user", "under way"); err != nil {
		t.Error(err)
	}
	b.Pump()
	if d, err := b.Delivery(t.Context(), "under way"); err != nil || !d.DecidedAt.IsZero() {
		t.Errorf("it was decided without its event: %+v, %v", d, err)
	}
}

// What ended in an error before anything of it ran is missing once what was at fault is mended; to a replay, and to nothing else.
func TestReplayOfAnError(t *testing.T) {
	t.Parallel()
	const (
		good   = "name: Shop\ntriggers: [push, pull_request]\nsteps:\n  - run: make\n"
		broken = good + "typo: 1\n"
		ios    = good + "platform: ios\n"
	)
	refuse := func(err error) func(b *dispatchtest.Bench) {
		return func(b *dispatchtest.Bench) {
			b.Runner.OnStart(func(runner.Job) error { return err })
		}
	}
	for name, test := range map[string]struct {
		file        string
		fault, mend func(b *dispatchtest.Bench)
	}{
		"another path": {broken, nil, func(b *dispatchtest.Bench) {
			_, err := b.ChangeApp(b.Context(), dispatchtest.App, func(a *ci.App) { a.PipelinePath = "good.yml" })
			b.Must(err)
		}},
		"a file the app holds":   {good, func(b *dispatchtest.Bench) { holding(b, "**", 0, broken) }, func(b *dispatchtest.Bench) { holding(b, "**", 1, good) }},
		"a runner more":          {ios, nil, func(b *dispatchtest.Bench) { b.Dispatch.Offer.Platforms = append(b.Dispatch.Offer.Platforms, "ios") }},
		"a runner that takes it": {good, refuse(fault.New(fault.Invalid, "no such machine")), refuse(nil)},
		"a line that moves": {good, func(b *dispatchtest.Bench) { b.Dispatch.Limits.Runner = 0 }, func(b *dispatchtest.Bench) {
			b.Clock.Add(dispatch.WaitLimit + time.Minute)
			b.Must(b.Sweep.Run(b.Context()))
			b.Pump()
			b.Dispatch.Limits = dispatchtest.Limits()
		}},
	} {
		for _, event := range []string{"repo:push", "pullrequest:updated"} {
			t.Run(name+", "+event, func(t *testing.T) {
				t.Parallel()
				b := dispatchtest.New(t, test.file)
				b.Commit("main", "good.yml", good)
				head := b.Commit("feature", "x", "1")
				tells := func(id string) ci.Decision {
					t.Helper()
					body := b.Push(dispatchtest.Change{Name: "feature", New: head})
					if event != "repo:push" {
						body = b.PullRequest(7, "feature", head, "main")
					}
					return one(b, b.Deliver(id, event, body))
				}
				replays := func(id string, verdict ci.Verdict, reason string) {
					t.Helper()
					b.Clock.Add(time.Second)
					_, err := replayer(b).Replay(t.Context(), "user", id)
					b.Must(err)
					expect(b, one(b, id), verdict, reason)
				}
				if test.fault != nil {
					test.fault(b)
				}
				tells("d")
				if b.TheBuild().State == ci.Errored && len(b.Runner.Jobs()) == 0 {
					replays("d", ci.AlreadyBuilt, "already built as #1, which ended in an error") // it would again
				}
				test.mend(b)
				if got := b.TheBuild(); got.State != ci.Errored {
					t.Fatalf("#1 is %s", got.State)
				}
				expect(b, tells("again"), ci.AlreadyBuilt, "already built as #1, which ended in an error")
				replays("d", ci.Built, "")
				replays("d", ci.AlreadyBuilt, "already built as #2")
				replays("again", ci.AlreadyBuilt, "already built as #2")
				expect(b, tells("once more"), ci.AlreadyBuilt, "already built as #2")
				if shown := b.Shown(head, "feature"); shown != ci.StatusInProgress {
					t.Errorf("the commit shows %s", shown)
				}
				b.Claim(b.Last()).Says(runner.VerdictError) // with the commit checked out
				replays("d", ci.AlreadyBuilt, "already built as #2, which ended in an error")
				if b.Count() != 2 {
					t.Errorf("%d builds", b.Count())
				}
				b.Check(t)
			})
		}
	}
}

// The process dies at each write of such a replay once, and the runner refuses what is built again: one build is made all the same.
func TestDeathInAReplayOfAnError(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 8; at++ {
		for _, done := range []bool{false, true} {
			b := dispatchtest.New(t, onMain)
			b.Runner.OnStart(func(runner.Job) error { return fault.New(fault.Invalid, "no such machine") })
			id := b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
			expect(b, one(b, id), ci.Built, "matches")
			b.Clock.Add(time.Hour)
			_, err := replayer(b).Replay(t.Context(), "user", id)
			b.Must(err)
			b.DiesAt(at, done)
			b.PumpFor(time.Minute)
			b.Table.OnTransact(nil)
			b.Clock.Add(3 * time.Minute)
			b.Must(b.Sweep.Run(t.Context()))
			if d := one(b, id); d.Verdict != ci.Built || d.Number != 2 || b.Count() != 2 || b.TheBuild().State != ci.Errored {
				t.Errorf("died at %d, done %v: %d builds, %+v", at, done, b.Count(), d)
			}
			b.Check(t)
		}
	}
}

// The pull request that a push belonged to is gone when the push is decided once more: its build is the push's all the same.
func TestReplayOfAPullRequestsPush(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"push first", "pull request first", "push late"} {
		for _, fate := range []string{"declined", "retargeted"} {
			t.Run(order+", "+fate, func(t *testing.T) {
				t.Parallel()
				b := dispatchtest.New(t, onPR)
				b.Commit("develop", "y", "1")
				heads := []string{b.Commit("feature", "x", "1"), b.Commit("feature", "x", "2")}
				pr := b.OpenPullRequest("feature", "main")
				body := b.Push(dispatchtest.Change{Name: "feature", Old: heads[0], New: heads[1]})
				event := func() {
					b.Deliver("event", "pullrequest:created", b.PullRequest(pr, "feature", heads[1], "main"))
					b.Pump()
				}
				if order == "pull request first" {
					event()
				}
				if order == "push late" {
					b.Transport.Answer(func(r *http.Request) int {
						if strings.HasSuffix(r.URL.Path, "/pullrequests") {
							return http.StatusServiceUnavailable
						}
						return 0
					})
				}
				b.Deliver("push", "repo:push", body)
				b.Pump()
				b.Clock.Add(time.Second)
				if order != "pull request first" {
					event()
				}
				path := fmt.Sprint("/2.0/repositories/acme/shop/pullrequests/", pr)
				if fate == "declined" {
					b.Call("alice", http.MethodPost, path+"/decline", nil)
				} else {
					b.Call("alice", http.MethodPut, path, map[string]any{"destination": map[string]any{"branch": map[string]any{"name": "develop"}}})
				}
				b.Clock.Add(time.Hour)
				b.Transport.Answer(nil)
				if order == "push late" {
					b.PumpFor(time.Second)
				} else {
					_, err := replayer(b).Replay(t.Context(), "user", "push")
					b.Must(err)
				}
				expect(b, one(b, "push"), ci.AlreadyBuilt, "already built as #1")
				expect(b, one(b, b.Deliver("another", "repo:push", body)), ci.AlreadyBuilt, "already built as #1")
				// A push back is another one.
				b.Deliver("back", "repo:push", b.Push(dispatchtest.Change{Name: "feature", Old: heads[1], New: heads[0]}))
				expect(b, one(b, b.Deliver("forth", "repo:push", b.Push(dispatchtest.Change{Name: "feature", Old: old, New: heads[1]}))), ci.Built, "push of branch feature")
				if b.Count() != 3 {
					t.Errorf("%d builds", b.Count())
				}
				b.Check(t)
			})
		}
	}
}
