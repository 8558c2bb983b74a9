package store

import (
	"context"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Grant is the sealed tokens of a connection and who may refresh them. It is one
// record, so that lease and token change under one version.
type Grant struct {
	Connection string    `json:"connection"`
	Sealed     []byte    `json:"sealed"`
	Generation int       `json:"generation"` // rises with each new pair of tokens
	ExpiresAt  time.Time `json:"expires_at"` // of the access token
	RenewedAt  time.Time `json:"renewed_at"`

	Holder     string    `json:"holder,omitempty"` // who refreshes now
	LeaseUntil time.Time `json:"lease_until,omitzero"`

	Refusals  int       `json:"refusals,omitempty"` // spaced refusals of the refresh token
	RefusedAt time.Time `json:"refused_at,omitzero"`
	DueAt     time.Time `json:"due_at,omitzero"`

	// Ended, set by an edit, says in words why the connection has to be authorised
	// again; ChangeGrant marks the connection in the same transaction.
	Ended   string `json:"-"`
	Version int64  `json:"-"`
}

func connectionKey(id string) table.Key { return key("CONNECTION#"+id, "CONNECTION") }
func grantKey(id string) table.Key      { return key("CONNECTION#"+id, "TOKEN") }

// Connection answers a connection.
func (s *Store) Connection(ctx context.Context, id string) (ci.Connection, error) {
	c, _, err := get[ci.Connection](ctx, s, connectionKey(id), "connection")
	return c, err
}

// Connections lists the connections of a workspace.
func (s *Store) Connections(ctx context.Context, workspace, cursor string) (Page[ci.Connection], error) {
	from, before := table.Prefix("CONNECTION#")
	ids, err := list[string](ctx, s, table.Query{Partition: "WORKSPACE#" + workspace, From: from, Before: before, Cursor: cursor}, "connections")
	if err != nil {
		return Page[ci.Connection]{}, err
	}
	keys := make([]table.Key, 0, len(ids.Items))
	for _, id := range ids.Items {
		keys = append(keys, connectionKey(id))
	}
	items, err := batch[ci.Connection](ctx, s, keys, "connections")
	return Page[ci.Connection]{Items: items, Cursor: ids.Cursor}, err
}

// PutConnection stores a connection with a new grant: a new connection, or an
// old one that somebody authorised again, whose builds go on from there. The grant's
// generation is set here.
func (s *Store) PutConnection(ctx context.Context, conn ci.Connection, sealed []byte, expires, due time.Time) error {
	return s.again(ctx, func() error {
		_, known, err := find[ci.Connection](ctx, s, connectionKey(conn.ID), "connection")
		if err != nil {
			return err
		}
		old, grantVersion, err := find[Grant](ctx, s, grantKey(conn.ID), "grant")
		if err != nil {
			return err
		}
		if grantVersion != 0 && string(old.Sealed) == string(sealed) {
			return nil // an earlier run of this very change
		}
		grant := Grant{
			Connection: conn.ID, Sealed: sealed, Generation: old.Generation + 1,
			ExpiresAt: expires, RenewedAt: s.now(), DueAt: due,
		}
		var c change
		c.put(connectionKey(conn.ID), conn, unlessVersion(known))
		c.put(grantKey(conn.ID), grant, unlessVersion(grantVersion))
		if known == 0 {
			c.put(key("WORKSPACE#"+conn.Workspace, "CONNECTION#"+conn.ID), conn.ID, table.Absent())
		}
		c.due(DueConnection, conn.ID, old.DueAt, due)
		return s.commit(ctx, &c)
	})
}

// Grant answers the sealed tokens of a connection.
func (s *Store) Grant(ctx context.Context, connection string) (Grant, error) {
	g, version, err := get[Grant](ctx, s, grantKey(connection), "grant")
	g.Version = version
	return g, err
}

// ChangeGrant edits a grant under its version. edit may be run several times, each
// time on what is stored then; it answers false when there is nothing to do.
func (s *Store) ChangeGrant(ctx context.Context, connection string, edit func(*Grant) bool) (Grant, error) {
	var out Grant
	err := s.again(ctx, func() error {
		g, err := s.Grant(ctx, connection)
		if err != nil {
			return err
		}
		out = g
		if !edit(&out) {
			return nil
		}
		var c change
		c.put(grantKey(connection), out, table.VersionIs(g.Version))
		c.due(DueConnection, connection, g.DueAt, out.DueAt)
		if out.Ended != "" {
			conn, version, err := get[ci.Connection](ctx, s, connectionKey(connection), "connection")
			if err != nil {
				return err
			}
			conn.State, conn.Reason = ci.ConnectionReconnect, out.Ended
			c.put(connectionKey(connection), conn, table.VersionIs(version))
		}
		return s.commit(ctx, &c)
	})
	return out, err
}

// Hook is an address of ours that Bitbucket sends events to.
type Hook struct {
	ID        string    `json:"id"`
	App       string    `json:"app"`
	Workspace string    `json:"workspace"`
	Sealed    []byte    `json:"sealed"` // the secret its signatures are made with
	CreatedAt time.Time `json:"created_at"`
	Version   int64     `json:"-"`
}

func hookKey(id string) table.Key                { return key("HOOK#"+id, "HOOK") }
func repositoryKey(app string) table.Key         { return key("APP#"+app, "REPOSITORY") }
func appOfRepository(uuid, app string) table.Key { return key("REPOSITORY#"+uuid, "APP#"+app) }
func appOfConnection(connection, app string) table.Key {
	return key("CONNECTION#"+connection, "APP#"+app)
}

// Hook answers a hook address.
func (s *Store) Hook(ctx context.Context, id string) (Hook, error) {
	h, version, err := get[Hook](ctx, s, hookKey(id), "hook")
	h.Version = version
	return h, err
}

// ReserveHook answers the id of the hook address for an app's events of a repository. It
// is random, and always the same once somebody asked: however many processes
// install the hook at once, they mean one address. It stays reserved when the app moves
// to another repository, and then there is no such hook.
func (s *Store) ReserveHook(ctx context.Context, app, repository string) (string, error) {
	return s.pin(ctx, key("APP#"+app, "HOOK#"+repository), s.newID(), "hook address")
}

// PutHook stores a hook address, or a new secret for it.
func (s *Store) PutHook(ctx context.Context, h Hook) error {
	var c change
	c.put(hookKey(h.ID), h, table.Condition{})
	return s.settle(ctx, &c)
}

// Repository answers an app's tie to a repository, or fault.NotFound.
func (s *Store) Repository(ctx context.Context, app string) (ci.Repository, error) {
	r, _, err := get[storedRepository](ctx, s, repositoryKey(app), "repository of this app")
	return r.domain(), err
}

// storedRepository adds what callers of the API do not see.
type storedRepository struct {
	ci.Repository
	HookID string `json:"hook"`
}

func (r storedRepository) domain() ci.Repository {
	r.Repository.Hook = r.HookID
	return r.Repository
}

// Left is a repository that an app was tied to, and that may still have its webhook.
type Left struct {
	App        string `json:"app"`
	Repository string `json:"repository"` // UUID with braces
	Connection string `json:"connection"` // that it was tied through
	Hook       string `json:"hook"`
	Version    int64  `json:"-"`
}

func leftKey(app, repository string) table.Key { return key("APP#"+app, "LEFT#"+repository) }

// Left answers the repositories that an app left and whose webhooks nobody is known to have removed.
func (s *Store) Left(ctx context.Context, app string) ([]Left, error) {
	from, before := table.Prefix("LEFT#")
	page, err := list[Left](ctx, s, table.Query{Partition: "APP#" + app, From: from, Before: before}, "repositories that an app left")
	if err != nil {
		return nil, err
	}
	for i, left := range page.Items {
		if _, page.Items[i].Version, err = find[Left](ctx, s, leftKey(app, left.Repository), "repository that an app left"); err != nil {
			return nil, err
		}
	}
	return page.Items, nil
}

// DropLeft forgets a repository that an app left, unless it left that once more meanwhile.
func (s *Store) DropLeft(ctx context.Context, l Left) error {
	var c change
	c.delete(leftKey(l.App, l.Repository), table.VersionIs(l.Version))
	err := s.commit(ctx, &c)
	if fault.Is(err, fault.Conflict) || fault.Is(err, fault.Unknown) {
		return nil // what is still there is looked at the next time
	}
	return err
}

// PutRepository ties an app to a repository. It answers the tie to another repository whose
// place it took, at the very moment it did; its UUID is empty when there was none. The other one is among those that the app left then.
func (s *Store) PutRepository(ctx context.Context, r ci.Repository) (replaced ci.Repository, err error) {
	err = s.again(ctx, func() error {
		old, version, err := find[storedRepository](ctx, s, repositoryKey(r.App), "repository")
		if err != nil {
			return err
		}
		// A second run may find what the first one wrote, and then it was the first that replaced.
		if old.UUID != r.UUID {
			replaced = old.domain()
		}
		var c change
		c.put(repositoryKey(r.App), storedRepository{r, r.Hook}, unlessVersion(version))
		if version != 0 && old.UUID != r.UUID {
			c.delete(appOfRepository(old.UUID, r.App), table.Condition{})
		}
		if version != 0 && old.Connection != r.Connection {
			c.delete(appOfConnection(old.Connection, r.App), table.Condition{})
		}
		if version != 0 && old.HookID != r.Hook {
			c.delete(hookKey(old.HookID), table.Condition{})
		}
		if version != 0 && old.UUID != r.UUID {
			c.put(leftKey(r.App, old.UUID), Left{App: r.App, Repository: old.UUID, Connection: old.Connection, Hook: old.HookID}, table.Condition{})
			c.delete(leftKey(r.App, r.UUID), table.Condition{})
		}
		c.put(appOfRepository(r.UUID, r.App), r.App, table.Condition{})
		c.put(appOfConnection(r.Connection, r.App), r.App, table.Condition{})
		return s.commit(ctx, &c)
	})
	return replaced, err
}
