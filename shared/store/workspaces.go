package store

import (
	"context"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

func workspaceKey(id string) table.Key           { return key("WORKSPACE#"+id, "WORKSPACE") }
func memberKey(workspace, user string) table.Key { return key("WORKSPACE#"+workspace, "MEMBER#"+user) }
func onlyKey() table.Key                         { return key("INSTALLATION", "WORKSPACE") }
func appKey(id string) table.Key                 { return key("APP#"+id, "APP") }

// CreateWorkspace stores a workspace with its first member, the owner. Created
// again with the same id it changes nothing.
func (s *Store) CreateWorkspace(ctx context.Context, w ci.Workspace, owner string) error {
	return s.createWorkspace(ctx, w, owner, false)
}

// CreateOnlyWorkspace is CreateWorkspace where builds are not isolated: the workspace
// becomes the one that OnlyWorkspace knows. fault.Conflict says that another is.
func (s *Store) CreateOnlyWorkspace(ctx context.Context, w ci.Workspace, owner string) error {
	return s.createWorkspace(ctx, w, owner, true)
}

func (s *Store) createWorkspace(ctx context.Context, w ci.Workspace, owner string, only bool) error {
	return s.again(ctx, func() error {
		_, known, err := find[ci.Workspace](ctx, s, workspaceKey(w.ID), "workspace")
		if err != nil || known != 0 {
			return err
		}
		var c change
		if only {
			_, taken, err := find[string](ctx, s, onlyKey(), "only workspace")
			if err != nil {
				return err
			}
			if taken != 0 {
				return fault.New(fault.Conflict, "this installation has its one workspace")
			}
			c.put(onlyKey(), w.ID, table.Absent())
		}
		m := ci.Member{Workspace: w.ID, User: owner, Role: ci.Owner, CreatedAt: w.CreatedAt}
		c.put(workspaceKey(w.ID), w, table.Absent())
		c.put(memberKey(w.ID, owner), m, table.Absent())
		c.put(key("USER#"+owner, "WORKSPACE#"+w.ID), m, table.Absent())
		return s.commit(ctx, &c)
	})
}

// Workspace answers a workspace.
func (s *Store) Workspace(ctx context.Context, id string) (ci.Workspace, error) {
	w, _, err := get[ci.Workspace](ctx, s, workspaceKey(id), "workspace")
	return w, err
}

// Member answers a user's membership, or fault.NotFound.
func (s *Store) Member(ctx context.Context, workspace, user string) (ci.Member, error) {
	m, _, err := get[ci.Member](ctx, s, memberKey(workspace, user), "member")
	return m, err
}

// WorkspacesOf lists the workspaces a user is a member of.
func (s *Store) WorkspacesOf(ctx context.Context, user, cursor string) (Page[ci.Workspace], error) {
	from, before := table.Prefix("WORKSPACE#")
	members, err := list[ci.Member](ctx, s, table.Query{Partition: "USER#" + user, From: from, Before: before, Cursor: cursor}, "workspaces")
	if err != nil {
		return Page[ci.Workspace]{}, err
	}
	keys := make([]table.Key, 0, len(members.Items))
	for _, m := range members.Items {
		keys = append(keys, workspaceKey(m.Workspace))
	}
	items, err := batch[ci.Workspace](ctx, s, keys, "workspaces")
	return Page[ci.Workspace]{Items: items, Cursor: members.Cursor}, err
}

// OnlyWorkspace registers id as the one workspace of an installation whose
// builds are not isolated, and answers whether it is that one. The first to ask is.
func (s *Store) OnlyWorkspace(ctx context.Context, id string) (bool, error) {
	first, err := s.pin(ctx, onlyKey(), id, "only workspace")
	return first == id, err
}

// CreateApp stores an app. Created again with the same id it changes nothing.
func (s *Store) CreateApp(ctx context.Context, a ci.App) error {
	return s.again(ctx, func() error {
		_, known, err := find[ci.App](ctx, s, appKey(a.ID), "app")
		if err != nil || known != 0 {
			return err
		}
		var c change
		c.put(appKey(a.ID), a, table.Absent())
		c.put(key("WORKSPACE#"+a.Workspace, "APP#"+a.ID), a.ID, table.Absent())
		return s.commit(ctx, &c)
	})
}

// App answers an app.
func (s *Store) App(ctx context.Context, id string) (ci.App, error) {
	a, _, err := get[ci.App](ctx, s, appKey(id), "app")
	return a, err
}

// ChangeApp edits an app. edit may be run several times, each time on what is stored then.
func (s *Store) ChangeApp(ctx context.Context, id string, edit func(*ci.App)) (a ci.App, err error) {
	err = s.again(ctx, func() error {
		old, version, err := get[ci.App](ctx, s, appKey(id), "app")
		if err != nil {
			return err
		}
		a = old
		if edit(&a); a == old {
			return nil
		}
		var c change
		c.put(appKey(id), a, table.VersionIs(version))
		return s.commit(ctx, &c)
	})
	return a, err
}

// Apps lists the apps of a workspace.
func (s *Store) Apps(ctx context.Context, workspace, cursor string) (Page[ci.App], error) {
	from, before := table.Prefix("APP#")
	ids, err := list[string](ctx, s, table.Query{Partition: "WORKSPACE#" + workspace, From: from, Before: before, Cursor: cursor}, "apps")
	if err != nil {
		return Page[ci.App]{}, err
	}
	keys := make([]table.Key, 0, len(ids.Items))
	for _, id := range ids.Items {
		keys = append(keys, appKey(id))
	}
	apps, err := batch[ci.App](ctx, s, keys, "apps")
	return Page[ci.App]{Items: apps, Cursor: ids.Cursor}, err
}
