package dispatch_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/table"
)

// many makes changes of n branches with long names, each at the commit that at says.
func many(n, length int, at func(i int) string) []dispatchtest.Change {
	var changes []dispatchtest.Change
	for i := range n {
		name := fmt.Sprintf("feature/%d/", i)
		changes = append(changes, dispatchtest.Change{Name: name + strings.Repeat("x", length-len(name)), New: at(i)})
	}
	return changes
}

// A thousand changes with the longest reasons fit into a record, and what they share
// is read once.
func TestAThousandChanges(t *testing.T) {
	t.Parallel()
	globs := strings.Repeat("      - "+strings.Repeat("g", 240)+"*\n", 20)
	b := dispatchtest.New(t, "name: Shop\ntriggers:\n  - event: push\n    branches:\n      - main\n"+globs+"steps:\n  - run: make\n")
	changes := append(many(1001, 40, func(int) string { return b.Main }), dispatchtest.Change{Name: "past the end", New: b.Main})
	changes[999].Name = "main"
	b.Transport.Take("")
	b.Deliver("d", "repo:push", b.Push(changes...))
	b.Pump()
	got := b.Decisions("d")
	if len(got) != 1001 {
		t.Fatalf("%d decisions", len(got))
	}
	expect(b, got[0], ci.Skipped, "matches none of")
	expect(b, got[999], ci.Built, "push of branch main")
	expect(b, got[1000], ci.Skipped, "2 more changes were left out")
	if calls := b.Transport.Take("/src/"); len(calls) != 1 {
		t.Errorf("%d calls", len(calls))
	}
	b.Check(t)
}

// The open pull requests of a branch are asked for once, too.
func TestOneBranchTwice(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onPR)
	b.Transport.Take("")
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "x", New: b.Main}, dispatchtest.Change{Name: "x", Old: old, New: b.Main}))
	b.Pump()
	if calls := b.Transport.Take("/pullrequests"); len(b.Decisions("d")) != 2 || len(calls) != 1 {
		t.Errorf("%+v, %v", b.Decisions("d"), calls)
	}
	b.Check(t)
}

// What needs no call makes none.
func TestDeletionsAskNobody(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onPR)
	b.Transport.Take("")
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "a", Old: b.Main}, dispatchtest.Change{Kind: "tag", Name: "b", Old: b.Main}))
	b.Pump()
	if calls := b.Transport.Take(""); len(b.Decisions("d")) != 2 || len(calls) != 0 {
		t.Errorf("%+v, %v", b.Decisions("d"), calls)
	}
}

// Time runs out in the midst of a push: what is decided stays so, and the rest goes on
// under a new message, whether or not the record has room for the event.
func TestTimeRunsOutInAPush(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int{"short names": 20, "long names": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n, until = 250, 120
			b := dispatchtest.New(t, onMain)
			hash := func(i int) string { return fmt.Sprintf("%040d", i) }
			b.Deliver("d", "repo:push", b.Push(many(n, length, hash)...))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked := map[string]int{}
			b.Transport.Answer(func(r *http.Request) int {
				_, commit, _ := strings.Cut(r.URL.Path, "/src/")
				asked[commit[:40]]++
				if len(asked) == until {
					if d, err := b.Delivery(t.Context(), "d"); err != nil || d.Content.Considered != 100 || len(d.Decisions) != 100 {
						t.Errorf("in the midst, the record has %d decisions, %v", len(d.Decisions), err)
					}
					cancel()
				}
				return http.StatusForbidden
			})
			messages, err := b.Deliveries.Receive(t.Context(), 1, 0)
			b.Must(err)
			b.Must(b.Dispatch.Handle(ctx, messages[0]))
			b.Must(b.Deliveries.Delete(t.Context(), messages[0].Receipt))
			d, err := b.Delivery(t.Context(), "d")
			if err != nil || !d.DecidedAt.IsZero() || d.Content.Considered < until-1 || !strings.Contains(d.Note, fmt.Sprint(" of ", n, " changes are decided")) {
				t.Errorf("%d considered, %q, %v", d.Content.Considered, d.Note, err)
			}
			if whole := len(d.Content.Changes) == n; whole != (length < 1000) || whole == d.DueAt.IsZero() {
				t.Errorf("%d changes kept, due at %v", len(d.Content.Changes), d.DueAt)
			}
			b.Check(t)
			b.PumpFor(2 * time.Second)
			got := b.Decisions("d")
			if len(got) != n {
				t.Fatalf("%d decisions", len(got))
			}
			for i, decision := range got {
				if !strings.HasPrefix(decision.Ref, fmt.Sprintf("branch feature/%d/", i)) || decision.Verdict != ci.Offline {
					t.Errorf("%d: %+v", i, decision)
				}
				if calls := asked[hash(i)]; calls != 1 && (calls != 2 || i != until-1) {
					t.Errorf("commit %d was asked for %d times", i, calls)
				}
			}
			b.Check(t)
		})
	}
}

// One change that cannot be read does not take the others along.
func TestUnreadableChanges(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	body := b.Push(dispatchtest.Change{Name: "main", New: b.Main}, dispatchtest.Change{Kind: "bookmark", Name: "mark", New: b.Main})
	push := body["push"].(map[string]any)
	push["changes"] = append(push["changes"].([]any), 7)
	b.Deliver("d", "repo:push", body)
	b.Pump()
	got := b.Decisions("d")
	if len(got) != 3 || got[1].Ref != "change 2 mark" || got[2].Ref != "change 3" {
		t.Fatalf("%+v", got)
	}
	expect(b, got[0], ci.Built, "matches")
	expect(b, got[1], ci.Skipped, "neither branch nor tag")
	expect(b, got[2], ci.Skipped, "not of the documented shape")
	b.Check(t)
}

// Bitbucket was told that a delivery is safe: whatever refuses it, it is kept.
func TestARefusedDeliveryIsKept(t *testing.T) {
	t.Parallel()
	for _, kind := range []fault.Kind{fault.Invalid, fault.TooLarge, fault.Forbidden, fault.NotFound, fault.Revoked, fault.Gone} {
		b := dispatchtest.New(t, onMain)
		b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "feature", New: b.Main}))
		messages, err := b.Deliveries.Receive(t.Context(), 1, 0)
		b.Must(err)
		refusing := true
		b.Table.OnTransact(func(_ int, _ []table.Write, do func() error) error {
			if refusing {
				return fault.New(kind, "refused")
			}
			return do()
		})
		if err := b.Dispatch.Handle(t.Context(), messages[0]); !queue.Keeps(err) || !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %v", kind.Outcome().Name, err)
		}
		refusing = false
		b.Must(b.Dispatch.Handle(t.Context(), messages[0]))
		expect(b, one(b, "d"), ci.Skipped, "matches none of")
	}
	b := dispatchtest.New(t, "")
	b.Must(message.Send(t.Context(), b.Deliveries, message.Dispatch{Again: "of an app that is gone"}, 0))
	b.Pump()
	b.Check(t)
}

// With little time left, nothing is begun: what is decided could not be recorded.
func TestLittleTimeLeft(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "feature", New: b.Main}))
	messages, err := b.Deliveries.Receive(t.Context(), 1, 0)
	b.Must(err)
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	if err := b.Dispatch.Handle(ctx, messages[0]); !fault.Is(err, fault.Unavailable) {
		t.Errorf("with nine seconds: %v", err)
	}
	if d, err := b.Delivery(t.Context(), "d"); err != nil || !d.DecidedAt.IsZero() || len(d.Decisions) != 0 || d.Note == "" {
		t.Errorf("it is %+v, %v", d, err)
	}
	b.Must(b.Dispatch.Handle(t.Context(), messages[0]))
	expect(b, one(b, "d"), ci.Skipped, "matches none of")
}
