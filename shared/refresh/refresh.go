// Package refresh renews what nobody uses: grants that Bitbucket would drop after
// three months of silence, and grants whose refusal has to be confirmed. Grants in use are renewed
// where they are used, by package grant.
package refresh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/store"
)

// Renewer renews the tokens of a connection.
type Renewer interface {
	Renew(ctx context.Context, connection string) error
}

// Deps is what a Refresh needs.
type Deps struct {
	Store  *store.Store
	Grants Renewer
	Now    func() time.Time
	Log    *slog.Logger
}

// Refresh looks after due grants.
type Refresh struct{ Deps }

const (
	// batch is how many grants of each shard one run renews.
	batch = 50
	// enough is the time that renewing a grant may take. With less left, none is begun: package grant would refuse to ask
	// Bitbucket, and the rest is for the next run.
	enough = 30 * time.Second
)

// New makes a Refresh.
func New(d Deps) (*Refresh, error) {
	if d.Store == nil || d.Grants == nil || d.Now == nil || d.Log == nil {
		return nil, errors.New("refresh: a dependency is missing")
	}
	return &Refresh{d}, nil
}

// Run renews the grants that are due. It goes on after an error with what is left.
func (r *Refresh) Run(ctx context.Context) error { return r.RunBy(ctx, r.Now()) }

// RunBy renews the grants that are due by a time: for who is told what time it is. What there is no time for is due in
// the next run, and is no error.
func (r *Refresh) RunBy(ctx context.Context, until time.Time) error {
	entries, err := r.Store.DueBefore(ctx, store.DueConnection, until, batch)
	if err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	var errs []error
	for n, entry := range entries {
		if end, ok := ctx.Deadline(); ok && time.Until(end) < enough {
			r.Log.Warn("grants are left for the next run", "due", len(entries), "left", len(entries)-n)
			break
		}
		g, err := r.Store.Grant(ctx, entry.Reference)
		switch {
		case fault.Is(err, fault.NotFound), err == nil && !g.DueAt.Equal(entry.At):
			errs = append(errs, r.Store.DropDue(ctx, entry))
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		}
		if err := r.Grants.Renew(ctx, entry.Reference); err != nil {
			r.Log.Warn("a grant could not be renewed", "connection", entry.Reference, "error", err)
			if !fault.Is(err, fault.Revoked) && !fault.Is(err, fault.Unavailable) {
				errs = append(errs, fmt.Errorf("refresh: connection %s: %w", entry.Reference, err))
			}
		}
	}
	return fault.Few(errs...)
}
