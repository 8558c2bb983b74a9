package grant_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/budget"
	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/grant"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
	"runnerhub/shared/vault"
)

const tokenPath = "/access_token"

func token(b *dispatchtest.Bench, k *grant.Keeper, refused secret.Text) (secret.Text, error) {
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	return k.Token(ctx, dispatchtest.Connection, refused)
}

// works reports whether Bitbucket takes a token.
func works(b *dispatchtest.Bench, t secret.Text) bool {
	b.Helper()
	client := b.Bitbucket.As(func(context.Context, secret.Text) (secret.Text, error) { return t, nil })
	_, err := client.Repository(b.Context(), b.Repository)
	return err == nil
}

func connection(b *dispatchtest.Bench) ci.Connection {
	b.Helper()
	c, err := b.Connection(b.Context(), dispatchtest.Connection)
	b.Must(err)
	return c
}

func TestOneRefresh(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	before, err := token(b, b.Keeper, secret.Text{})
	b.Must(err)
	b.Clock.Add(2 * time.Hour)
	b.Transport.Take("")
	keepers := []*grant.Keeper{b.NewKeeper(b.Store, b.Bitbucket), b.NewKeeper(b.Store, b.Bitbucket)}
	var mu sync.Mutex
	var group sync.WaitGroup
	got := map[string]bool{}
	for i := range 16 {
		group.Go(func() {
			fresh, err := token(b, keepers[i%2], secret.Text{})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[fresh.Reveal()] = true
		})
	}
	group.Wait()
	if calls := b.Transport.Take(tokenPath); len(calls) != 1 {
		t.Errorf("%d refreshes", len(calls))
	}
	if len(got) != 1 || got[before.Reveal()] {
		t.Errorf("%d tokens", len(got))
	}
	fresh, err := token(b, keepers[0], secret.Text{})
	if err != nil || !works(b, fresh) {
		t.Errorf("the fresh token does not work, %v", err)
	}
	if g, err := b.Grant(t.Context(), dispatchtest.Connection); err != nil || g.Generation != 2 || g.Holder != "" || !g.RenewedAt.Equal(b.Clock.Now()) {
		t.Errorf("generation %d, holder %q, %v", g.Generation, g.Holder, err)
	}
	b.Check(t)
}

// Tokens that live shorter than the margin are used all the same.
func TestShortLives(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Faults(map[string]any{"token_seconds": 20})
	b.Clock.Add(2 * time.Hour)
	b.Transport.Take("")
	for range 10 {
		if _, err := token(b, b.Keeper, secret.Text{}); err != nil {
			t.Fatal(err)
		}
		b.Clock.Add(time.Second)
	}
	if calls := b.Transport.Take(tokenPath); len(calls) != 1 {
		t.Errorf("%d refreshes within ten seconds", len(calls))
	}
	b.Clock.Add(5 * time.Second)
	if _, err := token(b, b.Keeper, secret.Text{}); err != nil || len(b.Transport.Take(tokenPath)) != 1 {
		t.Errorf("none before the end, %v", err)
	}
}

func TestRefusedByAnAPICall(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	client, err := b.Keeper.Client(t.Context(), dispatchtest.Connection)
	b.Must(err)
	_, err = client.Repository(t.Context(), b.Repository)
	b.Must(err)
	refuse := true
	b.Transport.Answer(func(r *http.Request) int {
		if refuse && strings.HasPrefix(r.URL.Path, "/2.0/") {
			refuse = false
			return http.StatusUnauthorized
		}
		return 0
	})
	b.Transport.Take("")
	if _, err := client.Repository(t.Context(), b.Repository); err != nil {
		t.Error(err)
	}
	if calls := b.Transport.Take(tokenPath); len(calls) != 1 {
		t.Errorf("%d refreshes", len(calls))
	}
}

// The process dies after Bitbucket has answered and before the answer is stored.
func TestDeathBeforeStoring(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Clock.Add(2 * time.Hour)
	dead := false
	b.Transport.Before(func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, tokenPath) && !dead {
			dead = true
			b.Table.OnTransact(func(int, []table.Write, func() error) error {
				return fault.New(fault.Unavailable, "the process is dead")
			})
		}
	})
	if _, err := token(b, b.Keeper, secret.Text{}); err == nil {
		t.Error("a token that was not stored was handed out")
	}
	b.Table.OnTransact(nil)
	b.Transport.Take("")
	other := b.NewKeeper(b.Store, b.Bitbucket)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := other.Token(ctx, dispatchtest.Connection, secret.Text{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("while the dead one's lease lasts: %v", err)
	}
	if calls := b.Transport.Take(tokenPath); len(calls) != 0 {
		t.Errorf("%d refreshes under another's lease", len(calls))
	}
	b.Clock.Add(31 * time.Second)
	fresh, err := token(b, other, secret.Text{})
	if err != nil || !works(b, fresh) {
		t.Errorf("within the grace: %v", err)
	}
	b.Check(t)
}

// counting counts what is opened.
type counting struct {
	vault.Vault
	opened atomic.Int32
}

func (c *counting) Open(ctx context.Context, b vault.Binding, sealed []byte) ([]byte, error) {
	c.opened.Add(1)
	return c.Vault.Open(ctx, b, sealed)
}

// Who waits for another's refresh asks the table, and the vault once: on AWS each opening is a call that is paid.
func TestWaitingOpensOnce(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Clock.Add(2 * time.Hour)
	_, err := b.ChangeGrant(t.Context(), dispatchtest.Connection, func(g *store.Grant) bool {
		g.Holder, g.LeaseUntil = "another", b.Clock.Now().Add(30*time.Second)
		return true
	})
	b.Must(err)
	secrets := &counting{Vault: b.Vault}
	k, err := grant.New(grant.Deps{Store: b.Store, Vault: secrets, Bitbucket: b.Bitbucket, Now: b.Clock.Now, NewID: b.IDs.New, Log: b.Log})
	b.Must(err)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := k.Token(ctx, dispatchtest.Connection, secret.Text{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("under another's lease: %v", err)
	}
	if n := secrets.opened.Load(); n != 1 {
		t.Errorf("opened %d times", n)
	}
}

// A process that will be ended before the new tokens could be stored does not ask for them; neither does it keep others waiting.
func TestTooLittleTime(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]bool{"from the beginning": false, "the vault took it": true} {
		b := dispatchtest.New(t, "")
		b.Clock.Add(2 * time.Hour)
		b.Transport.Take("")
		left := grant.Needs - time.Second
		deps := grant.Deps{Store: b.Store, Vault: b.Vault, Bitbucket: b.Bitbucket, Now: b.Clock.Now, NewID: b.IDs.New, Log: b.Log}
		if slow {
			left = grant.Needs + 200*time.Millisecond
			deps.Vault = waiting{b.Vault, 250 * time.Millisecond}
		}
		k, err := grant.New(deps)
		b.Must(err)
		ctx := budget.Until(t.Context(), time.Now().Add(left))
		_, err = k.Token(ctx, dispatchtest.Connection, secret.Text{})
		said, _ := fault.Public(err)
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(said, "too little time left") {
			t.Errorf("%s: %v", name, err)
		}
		if calls := b.Transport.Take(tokenPath); len(calls) != 0 {
			t.Errorf("%s: Bitbucket was asked", name)
		}
		if g, err := b.Grant(t.Context(), dispatchtest.Connection); err != nil || g.Holder != "" || g.Generation != 1 {
			t.Errorf("%s: holder %q, generation %d, %v", name, g.Holder, g.Generation, err)
		}
		ctx = budget.Until(t.Context(), time.Now().Add(29*time.Second-budget.Answer))
		if fresh, err := k.Token(ctx, dispatchtest.Connection, secret.Text{}); err != nil || !works(b, fresh) {
			t.Errorf("%s: with the time of a request: %v", name, err)
		}
		b.Check(t)
	}
}

// waiting is a vault that takes its time to give a data key.
type waiting struct {
	vault.Vault
	pause time.Duration
}

func (w waiting) Sealer(ctx context.Context, b vault.Binding) (vault.Sealer, error) {
	<-time.After(w.pause)
	return w.Vault.Sealer(ctx, b)
}

// Whoever hangs up while Bitbucket answers does not cost the connection its token.
func TestCallerHangsUp(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	before, err := b.Grant(t.Context(), dispatchtest.Connection)
	b.Must(err)
	b.Clock.Add(2 * time.Hour)
	ctx, hangUp := context.WithCancel(t.Context())
	b.Transport.Before(func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, tokenPath) {
			hangUp()
		}
	})
	if fresh, err := b.Keeper.Token(ctx, dispatchtest.Connection, secret.Text{}); err != nil || !works(b, fresh) {
		t.Errorf("the token: %v", err)
	}
	if g, err := b.Grant(t.Context(), dispatchtest.Connection); err != nil || g.Generation != before.Generation+1 || g.Holder != "" {
		t.Errorf("generation %d, holder %q, %v", g.Generation, g.Holder, err)
	}
	b.Clock.Add(2 * time.Hour)
	b.Transport.Take("")
	if _, err := b.Keeper.Token(ctx, dispatchtest.Connection, secret.Text{}); err == nil || len(b.Transport.Take(tokenPath)) != 0 {
		t.Errorf("asked for somebody who had gone before, %v", err)
	}
	b.Check(t)
}

func TestLostAnswerOfARefresh(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Clock.Add(2 * time.Hour)
	b.Faults(map[string]any{"lose_answers": 1})
	_, err := token(b, b.Keeper, secret.Text{})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("the outcome of a refresh is not that of the call it was for: %v", err)
	}
	fresh, err := token(b, b.Keeper, secret.Text{})
	if err != nil || !works(b, fresh) {
		t.Errorf("the old token again: %v", err)
	}
}

func TestLostAnswersOfTheTable(t *testing.T) {
	t.Parallel()
	for k := 1; k <= 2; k++ {
		b := dispatchtest.New(t, "")
		b.Clock.Add(2 * time.Hour)
		b.Transport.Take("")
		b.Table.OnTransact(dispatchtest.Numbered(func(n int, do func() error) error {
			if err := do(); err != nil || n != k {
				return err
			}
			return fault.New(fault.Unknown, "the answer was lost")
		}))
		fresh, err := token(b, b.Keeper, secret.Text{})
		if err != nil || !works(b, fresh) || len(b.Transport.Take(tokenPath)) != 1 {
			t.Errorf("answer %d lost: %v", k, err)
		}
		if g, err := b.Grant(t.Context(), dispatchtest.Connection); err != nil || g.Holder != "" || g.Generation != 2 {
			t.Errorf("answer %d lost: %q, generation %d, %v", k, g.Holder, g.Generation, err)
		}
		b.Check(t)
	}
}

func TestRevocationIsConfirmed(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Clock.Add(2 * time.Hour)
	b.Faults(map[string]any{"revoked": true})
	b.Transport.Take("")
	for i := range 3 {
		_, err := token(b, b.Keeper, secret.Text{})
		want := fault.Unavailable
		if i == 2 {
			want = fault.Revoked
		}
		if !fault.Is(err, want) || want == fault.Unavailable && fault.RetryAfter(err) != time.Minute {
			t.Errorf("refusal %d: %v", i+1, err)
		}
		if _, err := token(b, b.Keeper, secret.Text{}); !fault.Is(err, want) {
			t.Errorf("again at once: %v", err)
		}
		if calls := b.Transport.Take(tokenPath); len(calls) != 1 {
			t.Errorf("refusal %d: %d calls", i+1, len(calls))
		}
		if state := connection(b).State; (state == ci.ConnectionReconnect) != (i == 2) {
			t.Errorf("refusal %d: %s", i+1, state)
		}
		b.Check(t)
		b.Clock.Add(time.Minute)
	}
	b.Faults(nil)
	if _, err := token(b, b.Keeper, secret.Text{}); !fault.Is(err, fault.Revoked) || len(b.Transport.Take(tokenPath)) != 0 {
		t.Errorf("a connection that was given up: %v", err)
	}
	if connection(b).Reason == "" {
		t.Error("no reason")
	}
	b.Authorize()
	if fresh, err := token(b, b.Keeper, secret.Text{}); err != nil || !works(b, fresh) {
		t.Errorf("authorised again: %v", err)
	}
	b.Check(t)
}

func TestOneRefusalIsForgotten(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	for round := range 3 {
		b.Clock.Add(3 * time.Hour)
		b.Faults(map[string]any{"revoked": true})
		if _, err := token(b, b.Keeper, secret.Text{}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("round %d: %v", round, err)
		}
		b.Faults(nil)
		b.Clock.Add(time.Minute)
		if fresh, err := token(b, b.Keeper, secret.Text{}); err != nil || !works(b, fresh) {
			t.Errorf("round %d: %v", round, err)
		}
		if g, err := b.Grant(t.Context(), dispatchtest.Connection); err != nil || g.Refusals != 0 {
			t.Errorf("round %d: %d refusals, %v", round, g.Refusals, err)
		}
	}
	if state := connection(b).State; state != ci.ConnectionActive {
		t.Errorf("%s", state)
	}
	b.Check(t)
}

// Somebody authorises again while the old grant's refusals are being counted.
func TestAuthorisedMeanwhile(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Clock.Add(2 * time.Hour)
	b.Faults(map[string]any{"revoked": true})
	for range 2 {
		_, _ = token(b, b.Keeper, secret.Text{})
		b.Clock.Add(time.Minute)
	}
	once := true
	b.Transport.Answer(func(r *http.Request) int {
		if !once || !strings.HasSuffix(r.URL.Path, tokenPath) {
			return 0
		}
		once = false
		b.Faults(nil)
		b.Authorize()
		return http.StatusServiceUnavailable
	})
	_, _ = token(b, b.Keeper, secret.Text{})
	if state := connection(b).State; state != ci.ConnectionActive {
		t.Errorf("%s", state)
	}
	if fresh, err := token(b, b.Keeper, secret.Text{}); err != nil || !works(b, fresh) {
		t.Errorf("%v", err)
	}
	b.Check(t)
}

func TestRenewWhatIsIdle(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Transport.Take("")
	b.Must(b.Keeper.Renew(t.Context(), dispatchtest.Connection))
	if calls := b.Transport.Take(tokenPath); len(calls) != 1 {
		t.Errorf("%d refreshes", len(calls))
	}
	g, err := b.Grant(t.Context(), dispatchtest.Connection)
	if err != nil || !g.DueAt.Equal(b.Clock.Now().Add(30*24*time.Hour)) {
		t.Errorf("due at %s, %v", g.DueAt, err)
	}
}

func TestLongTokensStaySecret(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	long := bitbucket.Token{
		Access: secret.New(strings.Repeat("access", 1666)), Refresh: secret.New(strings.Repeat("refres", 1666)), ExpiresAt: b.Clock.Now().Add(time.Hour),
	}
	seal, err := b.Keeper.Seal(t.Context(), dispatchtest.Connection)
	b.Must(err)
	sealed, err := seal(long)
	b.Must(err)
	b.Must(b.PutConnection(t.Context(), connection(b), sealed, long.ExpiresAt, b.Keeper.Due()))
	got, err := token(b, b.Keeper, secret.Text{})
	if err != nil || !got.Equal(long.Access) {
		t.Fatalf("not what was stored: %v", err)
	}
	// Refused as access and as refresh token, by an outage, and by a lost answer:
	// neither a log line nor an error nor the stored rows show any of it.
	var errs []error
	for _, faults := range []map[string]any{{}, {"down": true}, {"lose_answers": 1}, {"revoked": true}} {
		b.Clock.Add(2 * time.Minute)
		b.Faults(faults)
		_, err := token(b, b.Keeper, long.Access)
		errs = append(errs, err)
		client, err := b.Keeper.Client(t.Context(), dispatchtest.Connection)
		b.Must(err)
		_, err = client.Repository(t.Context(), b.Repository)
		errs = append(errs, err)
	}
	b.Clock.Add(2 * time.Minute)
	b.Faults(nil)
	b.Authorize()
	working, err := token(b, b.Keeper, secret.Text{})
	b.Must(err)
	shown := b.Logged.String()
	for _, err := range errs {
		if err == nil {
			t.Error("no error")
			continue
		}
		shown += fmt.Sprintf("%v %+v %#v", err, err, err)
	}
	for k, body := range b.Dump(t) {
		shown += k.String() + body
	}
	for _, part := range []string{"accessaccess", "refresrefres", working.Reveal()[:40]} {
		if strings.Contains(shown, part) {
			t.Errorf("%s… is shown", part[:12])
		}
	}
	if !strings.Contains(b.Logged.String(), "authorised again") {
		t.Error("nothing was logged of the end of a connection")
	}
}

// A ciphertext that was moved to another connection does not open.
func TestMovedToAnotherRow(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	g, err := b.Grant(t.Context(), dispatchtest.Connection)
	b.Must(err)
	stolen := connection(b)
	stolen.ID = "another"
	b.Must(b.PutConnection(t.Context(), stolen, g.Sealed, g.ExpiresAt, time.Time{}))
	if got, err := b.Keeper.Token(t.Context(), "another", secret.Text{}); err == nil || !got.Empty() {
		t.Error("it opened")
	}
}
