package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/table"
)

// Revision is the state of a pull request that a delivery was decided about: events tell of
// a new title and of new commits in the same words.
type Revision struct {
	Source    string    `json:"source"` // hash, 40 characters; of one that was Listed perhaps fewer
	Target    string    `json:"target"` // branch
	Delivery  string    `json:"delivery,omitempty"`
	UpdatedAt time.Time `json:"updated_at,omitzero"` // by Bitbucket's clock; zero is unknown

	// Listed is set where no delivery was decided: it is what the list of open pull requests said, and this the time of
	// the last change it knew of, by Bitbucket's clock.
	Listed time.Time `json:"listed,omitzero"`
}

// Listed is an open pull request as a list shows it.
type Listed struct {
	Number         int
	Source, Target string    // hash, perhaps shortened, and branch
	UpdatedAt      time.Time // by Bitbucket's clock
}

func revisionKey(app, repository string, number int) table.Key {
	return key("APP#"+app, "PULL#"+repository+"#"+strconv.Itoa(number))
}

// Revision answers the state of a repository's pull request that was decided last, or the zero Revision.
func (s *Store) Revision(ctx context.Context, app, repository string, number int) (Revision, error) {
	r, _, err := find[Revision](ctx, s, revisionKey(app, repository, number), "revision")
	return r, err
}

// PutRevision stores the state of a pull request, unless a later one is stored.
func (s *Store) PutRevision(ctx context.Context, app, repository string, number int, r Revision) error {
	return s.again(ctx, func() error {
		k := revisionKey(app, repository, number)
		old, version, err := find[Revision](ctx, s, k, "revision")
		if err != nil || old == r || r.UpdatedAt.Before(old.UpdatedAt) {
			return err
		}
		var c change
		c.put(k, r, unlessVersion(version))
		return s.commit(ctx, &c)
	})
}

// maxListed is how many pull requests are stored together: with the tie, a transaction's most.
const maxListed = 99

// PutListed stores the states of open pull requests, as if they had been decided, while the app is not tied to their
// repository. Once it is, that is for its deliveries alone, and nothing is stored. What was decided later, or of the
// same state, stays.
func (s *Store) PutListed(ctx context.Context, app, repository string, open []Listed) error {
	for part := range slices.Chunk(open, maxListed) {
		err := s.again(ctx, func() error { return s.putListed(ctx, app, repository, part) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) putListed(ctx context.Context, app, repository string, open []Listed) error {
	tie, version, err := find[storedRepository](ctx, s, repositoryKey(app), "repository")
	if err != nil || tie.UUID == repository {
		return err
	}
	keys := make([]table.Key, 0, len(open))
	for _, l := range open {
		keys = append(keys, revisionKey(app, repository, l.Number))
	}
	items, err := s.table.BatchGet(ctx, keys)
	if err != nil {
		return fmt.Errorf("store: reading revisions: %w", err)
	}
	stored := make(map[table.Key]table.Item, len(items))
	for _, item := range items {
		stored[item.Key] = item
	}
	var c change
	c.check(repositoryKey(app), unlessVersion(version))
	for i, l := range open {
		now := Revision{Source: l.Source, Target: l.Target, UpdatedAt: l.UpdatedAt.UTC(), Listed: l.UpdatedAt.UTC()}
		item, known := stored[keys[i]]
		if known {
			var old Revision
			if err := json.Unmarshal(item.Body, &old); err != nil {
				return fmt.Errorf("store: the revision at %s is not readable: %w", item.Key, err)
			}
			if !old.UpdatedAt.Before(now.UpdatedAt) || old.Listed.IsZero() && old.is(now) {
				continue
			}
		}
		c.put(keys[i], now, unlessVersion(item.Version))
	}
	if len(c.writes) == 1 {
		return nil
	}
	return s.commit(ctx, &c)
}

// is reports whether both are of the same source and target.
func (r Revision) is(other Revision) bool {
	return r.Source != "" && r.Target == other.Target && strings.HasPrefix(r.Source, other.Source)
}
