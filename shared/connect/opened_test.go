package connect_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"runnerhub/infra/sandbox"
	"runnerhub/shared/ci"
	"runnerhub/shared/connect"
	"runnerhub/shared/consent"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/table"
)

const onPR = "name: Shop\ntriggers:\n  - {event: pull_request, branches: [main, develop]}\nsteps:\n  - run: make\n"

// app is one that is not tied to anything yet.
const app = "late"

const (
	edited    = "pullrequest:updated"
	untouched = "pull request #%d was opened before the repository was connected, and nothing to build in it was changed since"
)

// bed is a service whose webhooks arrive in a channel, until a test has them decided.
type bed struct {
	*dispatchtest.Bench
	connects *connect.Connect
	arrived  chan message.Delivery
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{Bench: dispatchtest.New(t, onPR), arrived: make(chan message.Delivery, 100)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.arrived <- message.Delivery{
			ID: r.Header.Get("X-Request-UUID"), Hook: r.URL.Path, App: app, Workspace: dispatchtest.Workspace,
			Event: r.Header.Get("X-Event-Key"), RequestID: r.Header.Get("X-Request-UUID"), Body: body,
		}
	}))
	t.Cleanup(server.Close)
	trips, err := consent.New(consent.Deps{Store: b.Store, Bitbucket: b.Bitbucket, Now: b.Clock.Now})
	b.Must(err)
	b.connects, err = connect.New(connect.Deps{
		Store: b.Store, Bitbucket: b.Bitbucket, Consent: trips, Grants: b.Keeper, Hooks: b.Vault, PublicURL: server.URL, Now: b.Clock.Now, Log: b.Log,
	})
	b.Must(err)
	b.Must(b.CreateApp(t.Context(), ci.App{ID: app, Workspace: dispatchtest.Workspace, Name: "Late", CreatedAt: b.Clock.Now()}))
	return b
}

func (b *bed) tie() error {
	_, _, err := b.connects.PutRepository(b.Context(), "user", app, dispatchtest.Connection, b.Repository)
	return err
}

// branch pushes to a branch of its own.
func (b *bed) branch(name string) string {
	b.Helper()
	b.Clock.Add(time.Minute)
	return b.Commit(name, "x", b.Clock.Now().String())
}

func (b *bed) open(branch string) int {
	b.Helper()
	b.branch(branch)
	return b.OpenPullRequest(branch, "main")
}

// change edits a pull request.
func (b *bed) change(number int, body map[string]any) {
	b.Helper()
	b.Clock.Add(time.Minute)
	b.Call("alice", http.MethodPut, fmt.Sprintf("/2.0/repositories/acme/shop/pullrequests/%d", number), body)
}

func (b *bed) rename(number int) {
	b.Helper()
	b.change(number, map[string]any{"title": b.Clock.Now().String()})
}

// next waits for an event; those of other kinds before it get lost.
func (b *bed) next(event string) message.Delivery {
	b.Helper()
	for {
		select {
		case d := <-b.arrived:
			if d.Event == event {
				return d
			}
		case <-time.After(time.Minute):
			b.Fatalf("no %s came", event)
		}
	}
}

// decide has a delivery decided, and compares what is decided with what should be.
func (b *bed) decide(d message.Delivery, verdict ci.Verdict, reason string) {
	b.Helper()
	d.ReceivedAt = b.Clock.Now()
	b.Must(message.Send(b.Context(), b.Deliveries, message.Dispatch{Delivery: &d}, 0))
	b.Pump()
	got := b.Decisions(d.ID)
	if len(got) != 1 || got[0].Verdict != verdict || !strings.Contains(got[0].Reason, reason) {
		b.Errorf("decided %+v, want %s because %q", got, verdict, reason)
	}
}

// What was opened before the app was tied builds when it changes, and not when its title does.
func TestOpenedBefore(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Commit("develop", "y", "1")
	first, second, third, fourth := b.open("a"), b.open("b"), b.open("c"), b.open("d")
	b.Transport.Before(func(r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/hooks") {
			b.branch("d") // after the list, and before there is a webhook
		}
	})
	b.Must(b.tie())
	b.Transport.Before(nil)

	b.rename(first)
	d := b.next(edited)
	b.decide(d, ci.Skipped, fmt.Sprintf(untouched, first))
	if got := b.Decisions(d.ID)[0]; got.Code != "edited" {
		t.Errorf("%+v", got)
	}
	d.ID = "the same, once more"
	b.decide(d, ci.Skipped, fmt.Sprintf(untouched, first))
	b.branch("a")
	b.decide(b.next(edited), ci.Built, "pull request into main")
	b.rename(first)
	b.decide(b.next(edited), ci.AlreadyBuilt, "already built as #1")

	b.change(second, map[string]any{"destination": map[string]any{"branch": map[string]any{"name": "develop"}}})
	b.decide(b.next(edited), ci.Built, "pull request into develop")

	b.Call("alice", http.MethodPost, fmt.Sprintf("/2.0/repositories/acme/shop/pullrequests/%d/decline", third), map[string]any{})
	b.decide(b.next("pullrequest:rejected"), ci.Skipped, "is closed")

	b.rename(fourth)
	b.decide(b.next(edited), ci.Built, "pull request into main")

	// Whose first event got lost afterwards is not known.
	b.rename(b.open("e"))
	b.decide(b.next(edited), ci.Built, "pull request into main")

	// Each app has its own, from when it was tied itself.
	own, err := b.Revision(t.Context(), dispatchtest.App, b.Repository, first)
	if b.Must(err); own.Source != "" {
		t.Errorf("another app has %+v", own)
	}
	b.Check(t)
}

// Of a fork, an allowed one too, the same holds.
func TestForkOpenedBefore(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Must(b.Sandbox.AddWorkspace("carols", "Carols", map[string]string{"carol": "admin", "alice": "admin"}))
	fork := b.Call("carol", http.MethodPost, "/2.0/repositories/acme/shop/forks", map[string]any{"workspace": map[string]any{"slug": "carols"}})
	push := func() {
		b.Clock.Add(time.Minute)
		_, err := b.Sandbox.AddCommit(t.Context(), sandbox.NewCommit{
			Repository: fork["full_name"].(string), Branch: "main", User: "carol", Files: map[string][]byte{"x": []byte(b.Clock.Now().String())},
		})
		b.Must(err)
	}
	push()
	made := b.Call("carol", http.MethodPost, "/2.0/repositories/acme/shop/pullrequests", map[string]any{
		"title": "Hers", "source": map[string]any{"branch": map[string]any{"name": "main"}, "repository": map[string]any{"uuid": fork["uuid"]}},
	})
	number := int(made["id"].(float64))
	_, err := b.ChangeApp(t.Context(), app, func(a *ci.App) { a.AllowForks = true })
	b.Must(err)
	b.Must(b.tie())
	b.rename(number)
	b.decide(b.next(edited), ci.Skipped, fmt.Sprintf(untouched, number))
	push()
	b.decide(b.next(edited), ci.Held, "waits until a member approves")
	b.Check(t)
}

// A tie that cannot look at the open pull requests leaves nothing behind, and can be made again.
func TestListingFails(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	number := b.open("a")
	b.Transport.Answer(func(r *http.Request) int {
		if strings.HasSuffix(r.URL.Path, "/pullrequests") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	if err := b.tie(); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "looking for open pull requests") {
		t.Errorf("it is tied: %v", err)
	}
	b.Transport.Answer(nil)
	if _, err := b.Store.Repository(t.Context(), app); !fault.Is(err, fault.NotFound) || len(b.Call("alice", http.MethodGet, "/2.0/repositories/acme/shop/hooks", nil)["values"].([]any)) > 0 {
		t.Errorf("there is a tie or a webhook: %v", err)
	}
	b.Must(b.tie())
	b.rename(number)
	b.decide(b.next(edited), ci.Skipped, fmt.Sprintf(untouched, number))
}

// Who dies before the tie is stored leaves a webhook. What that tells of until the app is tied again is news, though the second list has
// it, too.
func TestDeathBeforeTheTie(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	number := b.open("a")
	died := false
	b.Table.OnTransact(func(_ int, writes []table.Write, do func() error) error {
		for _, w := range writes {
			if w.Action == table.ActionPut && w.Item.Key == (table.Key{Partition: "APP#" + app, Sort: "REPOSITORY"}) {
				died = true
				return fault.New(fault.Unavailable, "the process died")
			}
		}
		return do()
	})
	if err := b.tie(); err == nil || !died {
		t.Fatalf("it did not die: %v", err)
	}
	b.Table.OnTransact(nil)
	b.branch("a")
	b.rename(number)
	pushed, renamed := b.next(edited), b.next(edited)
	b.Must(b.tie())
	b.decide(pushed, ci.Built, "pull request into main")
	b.decide(renamed, ci.AlreadyBuilt, "already built as #1")
	b.rename(number)
	b.decide(b.next(edited), ci.AlreadyBuilt, "already built as #1")
	b.Check(t)
}

// Tying again what is tied repairs it. The webhook was there, and perhaps not all of it arrived.
func TestTyingAgainListsNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.Must(b.tie())
	b.Transport.Take("")
	number := b.open("a")
	b.Must(b.tie())
	if calls := b.Transport.Take("/pullrequests"); len(calls) > 0 {
		t.Errorf("it asked %+v", calls)
	}
	b.rename(number)
	b.decide(b.next(edited), ci.Built, "pull request into main")
}

// A repository may have more open pull requests, or answer more slowly, than there is time for. It is tied all the same.
func TestManyOpened(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		each  time.Duration // a page takes
		pages int
	}{"many": {0, 5}, "slow": {3 * time.Second, 3}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			pages := 0
			b.Transport.Say(func(r *http.Request) any {
				if !strings.HasSuffix(r.URL.Path, "/pullrequests") {
					return nil
				}
				if got := r.URL.Query().Get("pagelen"); got != "50" {
					t.Errorf("a page has %s", got)
				}
				pages++
				b.Clock.Add(test.each)
				values := []any{}
				for i := range 50 {
					values = append(values, map[string]any{
						"id": pages*50 + i, "updated_on": b.Clock.Now(), "source": map[string]any{"commit": map[string]any{"hash": strings.Repeat("ab", 6)}},
						"destination": map[string]any{"branch": map[string]any{"name": "main"}},
					})
				}
				values[7] = map[string]any{"id": 7, "source": map[string]any{"commit": nil}} // something is not said of it
				return map[string]any{"values": values, "next": fmt.Sprintf("%s/2.0/x?page=%d", b.URL, pages+1)}
			})
			b.Must(b.tie())
			kept := 0
			for key := range b.Dump(t) {
				if key.Partition == "APP#"+app && strings.HasPrefix(key.Sort, "PULL#"+b.Repository+"#") {
					kept++
				}
			}
			if pages != test.pages || kept != 49*test.pages || !strings.Contains(b.Logged.String(), "more open pull requests") {
				t.Errorf("%d pages, %d pull requests are kept", pages, kept)
			}
		})
	}
}
