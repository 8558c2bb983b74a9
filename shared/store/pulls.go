package store

import (
	"context"
	"strconv"
	"time"

	"runnerhub/shared/table"
)

// Revision is the state of a pull request that a delivery was decided about: events tell of
// a new title and of new commits in the same words.
type Revision struct {
	Source    string    `json:"source"` // hash, 40 characters
	Target    string    `json:"target"` // branch
	Delivery  string    `json:"delivery"`
	UpdatedAt time.Time `json:"updated_at,omitzero"` // by Bitbucket's clock; zero is unknown
}

func revisionKey(app string, number int) table.Key {
	return key("APP#"+app, "PULL#"+strconv.Itoa(number))
}

// Revision answers the state of a pull request that was decided last, or the zero Revision.
func (s *Store) Revision(ctx context.Context, app string, number int) (Revision, error) {
	r, _, err := find[Revision](ctx, s, revisionKey(app, number), "revision")
	return r, err
}

// PutRevision stores the state of a pull request, unless a later one is stored.
func (s *Store) PutRevision(ctx context.Context, app string, number int, r Revision) error {
	return s.again(ctx, func() error {
		old, version, err := find[Revision](ctx, s, revisionKey(app, number), "revision")
		if err != nil || old == r || r.UpdatedAt.Before(old.UpdatedAt) {
			return err
		}
		var c change
		c.put(revisionKey(app, number), r, unlessVersion(version))
		return s.commit(ctx, &c)
	})
}
