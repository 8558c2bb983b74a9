package refresh_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/refresh"
	"runnerhub/shared/store"
)

const tokenPath = "/access_token"

func newRefresh(b *dispatchtest.Bench, r refresh.Renewer) *refresh.Refresh {
	b.Helper()
	out, err := refresh.New(refresh.Deps{Store: b.Store, Grants: r, Now: b.Clock.Now, Log: b.Log})
	b.Must(err)
	return out
}

// A grant nobody uses is renewed once in thirty days, for years.
func TestIdleGrantsLive(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	r := newRefresh(b, b.Keeper)
	b.Transport.Take("")
	for range 365 {
		b.Clock.Add(24 * time.Hour)
		b.Must(r.Run(t.Context()))
	}
	if n := len(b.Transport.Take(tokenPath)); n < 11 || n > 12 {
		t.Errorf("%d refreshes in a year", n)
	}
	client, err := b.Keeper.Client(t.Context(), dispatchtest.Connection)
	b.Must(err)
	if _, err := client.Repository(t.Context(), b.Repository); err != nil {
		t.Errorf("after a year: %v", err)
	}
	b.Check(t)
}

// A revocation that an idle grant runs into is confirmed without anybody using it.
func TestRevocationIsConfirmed(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	r := newRefresh(b, b.Keeper)
	b.Clock.Add(31 * 24 * time.Hour)
	b.Faults(map[string]any{"revoked": true})
	b.Transport.Take("")
	for range 10 {
		b.Must(r.Run(t.Context()))
		b.Check(t)
		b.Clock.Add(time.Minute)
	}
	conn, err := b.Connection(t.Context(), dispatchtest.Connection)
	if err != nil || conn.State != ci.ConnectionReconnect {
		t.Errorf("%s, %v", conn.State, err)
	}
	if n := len(b.Transport.Take(tokenPath)); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

func TestBitbucketDown(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	r := newRefresh(b, b.Keeper)
	b.Clock.Add(31 * 24 * time.Hour)
	b.Faults(map[string]any{"down": true})
	b.Must(r.Run(t.Context()))
	b.Faults(nil)
	b.Transport.Take("")
	b.Must(r.Run(t.Context()))
	if n := len(b.Transport.Take(tokenPath)); n != 1 {
		t.Errorf("%d refreshes once it was up again", n)
	}
	b.Check(t)
}

// renewer answers an error for one connection.
type renewer struct {
	broken string
	seen   []string
}

func (r *renewer) Renew(_ context.Context, connection string) error {
	r.seen = append(r.seen, connection)
	if connection == r.broken {
		return errors.New("broken")
	}
	return nil
}

func TestOneErrorStopsNothing(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	due := b.Clock.Now().Add(time.Hour)
	for _, id := range []string{"one", "two", "three"} {
		b.Must(b.PutConnection(t.Context(), ci.Connection{ID: id, Workspace: dispatchtest.Workspace}, []byte(id), due, due))
	}
	b.Must(b.PutStray(b.Clock.Now(), store.DueConnection, "nobody"))
	early := &renewer{}
	b.Must(newRefresh(b, early).RunBy(t.Context(), due.Add(-time.Minute)))
	if len(early.seen) != 0 {
		t.Errorf("renewed %v, which were not due by then", early.seen)
	}
	b.Clock.Add(2 * time.Hour)
	seen := &renewer{broken: "two"}
	err := newRefresh(b, seen).Run(t.Context())
	if !fault.Is(err, fault.Internal) || len(seen.seen) != 3 {
		t.Errorf("renewed %v, %v", seen.seen, err)
	}
	b.Check(t)
}

// With little time left no grant is begun: the next run has them all.
func TestNoTimeLeft(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	due := b.Clock.Now().Add(time.Hour)
	for _, id := range []string{"one", "two"} {
		b.Must(b.PutConnection(t.Context(), ci.Connection{ID: id, Workspace: dispatchtest.Workspace}, []byte(id), due, due))
	}
	b.Clock.Add(2 * time.Hour)
	for left, want := range map[time.Duration]int{20 * time.Second: 0, 10 * time.Minute: 2} {
		ctx, cancel := context.WithTimeout(t.Context(), left)
		defer cancel()
		seen := &renewer{}
		if b.Must(newRefresh(b, seen).Run(ctx)); len(seen.seen) != want {
			t.Errorf("with %v left: renewed %v", left, seen.seen)
		}
	}
}
