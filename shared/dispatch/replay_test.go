package dispatch_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/catalog"
	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
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
