// Package grant keeps a connection's Bitbucket tokens usable: sealed at rest,
// refreshed before they expire or when Bitbucket refuses one, by one process at a
// time. It hands out clients that ask it for a token per call.
//
// Bitbucket gives a new refresh token with every refresh and lets the old one die
// minutes later, so the order of acts is the whole point: the lease is taken and
// the data key is at hand before Bitbucket is called; the call's deadline is
// shorter than the lease, and not the caller's; where a process is ended at a known time, there is enough left for
// the call and for storing; the new pair is stored before any of it is used. Whoever
// dies in between leaves the old pair, which still works for its grace.
//
// It decides nothing about what a revoked grant means to apps: it says
// fault.Revoked and marks the connection.
package grant

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/budget"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	"runnerhub/shared/vault"
)

const (
	// margin is how long before its end an access token is not used any more, or a
	// quarter of its life where that is shorter.
	margin = 5 * time.Minute
	// lease is how long a refresher keeps others away. All that it does ends before
	// that: obtaining the data key, the call to Bitbucket, and storing what came of it.
	lease       = 30 * time.Second
	sealTimeout = 5 * time.Second
	callTimeout = bitbucket.DefaultTimeout
	// Needs is the time that there must be to ask Bitbucket for new tokens and to store them. With less until the process is
	// ended, Bitbucket is not asked: the answer might be lost, and with it the refresh token that the next refresh needs.
	Needs = callTimeout + budget.Recording
	// idle is after how long an unused grant is refreshed all the same: Bitbucket
	// drops refresh tokens that were not used for three months.
	idle = 30 * 24 * time.Hour
	// A refusal of the refresh token is believed after refusals spaced apart:
	// Bitbucket answers valid ones the same way for a while after a used one.
	refusals       = 3
	refusalSpacing = time.Minute
	purpose        = "bitbucket-token"
)

// Deps is what a Keeper needs.
type Deps struct {
	Store     *store.Store
	Vault     vault.Vault // of tokens
	Bitbucket *bitbucket.Bitbucket
	Now       func() time.Time
	NewID     func() string
	Log       *slog.Logger
}

// Keeper hands out tokens.
type Keeper struct {
	Deps

	mu     sync.Mutex
	opened map[string]opened
}

// opened is a token in memory: reading it again costs a read and a decryption.
type opened struct {
	access secret.Text
	until  time.Time // when it is not used any more
}

// newOpened is a token renewed and expiring at these times.
func newOpened(access secret.Text, renewed, expires time.Time) opened {
	return opened{access, expires.Add(-min(margin, max(0, expires.Sub(renewed)/4)))}
}

// pair is what is sealed.
type pair struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh"`
}

// New makes a Keeper.
func New(d Deps) (*Keeper, error) {
	if d.Store == nil || d.Vault == nil || d.Bitbucket == nil || d.Now == nil || d.NewID == nil || d.Log == nil {
		return nil, errors.New("grant: a dependency is missing")
	}
	return &Keeper{Deps: d, opened: map[string]opened{}}, nil
}

// Seal obtains the data key for the tokens of a connection, to be called before
// the tokens are obtained, and answers the function that seals them.
func (k *Keeper) Seal(ctx context.Context, connection string) (func(bitbucket.Token) ([]byte, error), error) {
	sealer, err := k.Vault.Sealer(ctx, vault.Binding{Owner: connection, Purpose: purpose})
	if err != nil {
		return nil, fmt.Errorf("grant: obtaining a data key: %w", err)
	}
	return func(t bitbucket.Token) ([]byte, error) {
		plain, err := json.Marshal(pair{t.Access.Reveal(), t.Refresh.Reveal()})
		if err != nil {
			return nil, fmt.Errorf("grant: encoding tokens: %w", err)
		}
		return sealer.Seal(plain)
	}, nil
}

// Due answers when a grant has to be refreshed even if nobody uses it.
func (k *Keeper) Due() time.Time { return k.Now().Add(idle) }

// Client answers a client acting for a connection. Its calls are fault.Revoked once
// the grant is known to be gone.
func (k *Keeper) Client(ctx context.Context, connection string) (*bitbucket.Client, error) {
	return k.Bitbucket.As(func(ctx context.Context, refused secret.Text) (secret.Text, error) {
		return k.Token(ctx, connection, refused)
	}), nil
}

// Token answers an access token that is good for a few minutes. Refused is one
// that Bitbucket did not take, or empty: it is not answered again.
func (k *Keeper) Token(ctx context.Context, connection string, refused secret.Text) (secret.Text, error) {
	k.mu.Lock()
	known, ok := k.opened[connection]
	k.mu.Unlock()
	if ok && k.usable(known, refused) {
		return known.access, nil
	}
	return k.renew(ctx, connection, refused, false)
}

// Renew refreshes the tokens of a connection whether or not they are near their
// end, unless somebody else does.
func (k *Keeper) Renew(ctx context.Context, connection string) error {
	_, err := k.renew(ctx, connection, secret.Text{}, true)
	return err
}

func (k *Keeper) usable(t opened, refused secret.Text) bool {
	return k.Now().Before(t.until) && (refused.Empty() || !t.access.Equal(refused))
}

// Forget drops what is in memory of a connection, after it was authorised again.
func (k *Keeper) Forget(connection string) {
	k.mu.Lock()
	delete(k.opened, connection)
	k.mu.Unlock()
}

// renew reads the stored tokens, which another process may have renewed, and
// refreshes them if they are no good.
func (k *Keeper) renew(ctx context.Context, connection string, refused secret.Text, force bool) (secret.Text, error) {
	holder := k.NewID()
	var tokens pair
	var sealed []byte // what they were opened from: who waits opens nothing twice, each of which may be a paid call
	for {
		g, err := k.Store.Grant(ctx, connection)
		if err != nil {
			return secret.Text{}, fmt.Errorf("grant: reading the tokens: %w", err)
		}
		if sealed == nil || !bytes.Equal(sealed, g.Sealed) {
			if tokens, err = k.open(ctx, connection, g.Sealed); err != nil {
				return secret.Text{}, err
			}
			sealed = g.Sealed
		}
		now := newOpened(secret.New(tokens.Access), g.RenewedAt, g.ExpiresAt)
		if !force && k.usable(now, refused) {
			k.remember(connection, now)
			return now.access, nil
		}
		if err := k.mayAsk(ctx, connection, g); err != nil {
			return secret.Text{}, err
		}
		if k.Now().Before(g.LeaseUntil) && g.Holder != holder {
			if err := k.wait(ctx, g.LeaseUntil); err != nil {
				return secret.Text{}, err
			}
			force = false // whoever held the lease did it
			continue
		}
		if err := enough(ctx); err != nil {
			return secret.Text{}, err
		}
		mine := false
		g, err = k.Store.ChangeGrant(ctx, connection, func(stored *store.Grant) bool {
			mine = stored.Holder == holder ||
				(stored.Generation == g.Generation && !k.Now().Before(stored.LeaseUntil))
			if !mine || stored.Holder == holder {
				return false
			}
			stored.Holder, stored.LeaseUntil = holder, k.Now().Add(lease)
			return true
		})
		if err != nil {
			return secret.Text{}, fmt.Errorf("grant: taking the lease: %w", err)
		}
		if !mine {
			continue
		}
		return k.refresh(ctx, g, secret.New(tokens.Refresh))
	}
}

// mayAsk answers why Bitbucket is not asked now, if it is not.
func (k *Keeper) mayAsk(ctx context.Context, connection string, g store.Grant) error {
	conn, err := k.Store.Connection(ctx, connection)
	if err != nil {
		return fmt.Errorf("grant: reading the connection: %w", err)
	}
	if conn.State == ci.ConnectionReconnect {
		return fault.New(fault.Revoked, "the connection to Bitbucket has to be authorised again: %s", conn.Reason)
	}
	if next := g.RefusedAt.Add(refusalSpacing); g.Refusals > 0 && k.Now().Before(next) {
		return notNow(next.Sub(k.Now()), nil)
	}
	return nil
}

// enough refuses to begin what could not be brought to its end.
func enough(ctx context.Context) error {
	if left, ends := budget.Left(ctx); ends && left < Needs {
		return fault.New(fault.Unavailable, "the connection's token has to be renewed, and there is too little time left to do that safely: nothing was asked, it can be tried again")
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the connection's token has to be renewed, and time has run out: nothing was asked")
	}
	return nil
}

// refresh asks Bitbucket, holding the lease of g. Once it has been asked, the caller's patience does not count any more: whoever hung up,
// or was given too little time, must not cost the connection its token.
func (k *Keeper) refresh(ctx context.Context, g store.Grant, old secret.Text) (secret.Text, error) {
	sealing, cancel := context.WithTimeout(ctx, sealTimeout)
	seal, err := k.Seal(sealing, g.Connection)
	cancel()
	if err == nil {
		err = enough(ctx)
	}
	if err != nil {
		return secret.Text{}, errors.Join(err, k.release(ctx, g, func(*store.Grant) {}))
	}
	calling, cancel := budget.Detach(ctx, min(callTimeout, g.LeaseUntil.Sub(k.Now())-budget.Recording))
	fresh, err := k.Bitbucket.Refresh(calling, old)
	cancel()
	if fault.Is(err, fault.Revoked) {
		return secret.Text{}, k.refused(ctx, g, err)
	}
	if err != nil {
		if fault.Is(err, fault.Unknown) { // not to be taken for the outcome of what the token was for
			err = fault.Wrap(fault.Unavailable, err, "Bitbucket's answer was lost while the connection's token was renewed")
		}
		return secret.Text{}, errors.Join(fmt.Errorf("grant: renewing the tokens: %w", err), k.release(ctx, g, func(*store.Grant) {}))
	}
	sealed, err := seal(fresh)
	if err != nil {
		return secret.Text{}, fmt.Errorf("grant: sealing the new tokens: %w", err)
	}
	now := k.Now()
	err = k.release(ctx, g, func(g *store.Grant) {
		g.Sealed, g.ExpiresAt, g.RenewedAt = sealed, fresh.ExpiresAt, now
		g.Generation++
		g.Refusals, g.RefusedAt = 0, time.Time{}
		g.DueAt = now.Add(idle)
	})
	if err != nil {
		return secret.Text{}, fmt.Errorf("grant: storing the new tokens: %w", err)
	}
	k.remember(g.Connection, newOpened(fresh.Access, now, fresh.ExpiresAt))
	return fresh.Access, nil
}

// refused records that Bitbucket did not take the refresh token, and gives the
// connection up when it has said so often enough, far enough apart.
func (k *Keeper) refused(ctx context.Context, g store.Grant, cause error) error {
	times, reason := 0, ""
	err := k.release(ctx, g, func(g *store.Grant) {
		g.Refusals++
		g.RefusedAt = k.Now()
		g.DueAt = k.Now().Add(refusalSpacing)
		if times = g.Refusals; times >= refusals {
			reason = fmt.Sprintf("Bitbucket refused the refresh token %d times: access was revoked, or unused for too long", times)
			g.Ended, g.DueAt = reason, time.Time{}
		}
	})
	if err != nil {
		return fmt.Errorf("grant: recording a refusal: %w", err)
	}
	if reason == "" {
		return notNow(refusalSpacing, cause)
	}
	k.Forget(g.Connection)
	k.Log.Warn("a connection has to be authorised again", "connection", g.Connection, "refusals", times)
	return fault.Wrap(fault.Revoked, cause, "the connection to Bitbucket has to be authorised again: %s", reason)
}

// notNow is the error after a refusal that is not believed yet.
func notNow(wait time.Duration, cause error) error {
	return &fault.Error{
		Kind: fault.Unavailable, RetryAfter: wait, Cause: cause,
		Message: "Bitbucket refused to renew the connection's token; it is asked again shortly",
	}
}

// release gives the lease of g back, with what edit changes. A lease that was lost
// is an error: somebody else has been at work on the tokens. It is not given up because
// a caller lost patience: the old pair may be dying, and others wait for the lease.
func (k *Keeper) release(ctx context.Context, g store.Grant, edit func(*store.Grant)) error {
	ctx, cancel := budget.Record(ctx)
	defer cancel()
	held := false
	stored, err := k.Store.ChangeGrant(ctx, g.Connection, func(now *store.Grant) bool {
		if held = now.Holder == g.Holder; !held {
			return false
		}
		now.Holder, now.LeaseUntil = "", time.Time{}
		edit(now)
		return true
	})
	if err == nil && !held && stored.Holder != "" {
		return fault.New(fault.Conflict, "the lease on the tokens was lost")
	}
	// Held by nobody: the connection was authorised again meanwhile, or this is the
	// second run of a change whose outcome was not learned.
	return err
}

func (k *Keeper) open(ctx context.Context, connection string, sealed []byte) (pair, error) {
	plain, err := k.Vault.Open(ctx, vault.Binding{Owner: connection, Purpose: purpose}, sealed)
	if err != nil {
		return pair{}, fmt.Errorf("grant: opening the tokens: %w", err)
	}
	var p pair
	if err := json.Unmarshal(plain, &p); err != nil {
		return pair{}, errors.New("grant: the sealed tokens are not readable")
	}
	return p, nil
}

func (k *Keeper) remember(connection string, t opened) {
	k.mu.Lock()
	k.opened[connection] = t
	k.mu.Unlock()
}

// wait waits until another holder may be done: a little, or until his lease ends.
func (k *Keeper) wait(ctx context.Context, until time.Time) error {
	t := time.NewTimer(max(time.Millisecond, min(100*time.Millisecond, until.Sub(k.Now()))))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "another process is renewing the connection's token")
	case <-t.C:
		return nil
	}
}
