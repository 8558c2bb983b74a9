// Package access answers one question for every use case: may this user do this
// in that workspace. A stranger learns nothing (fault.NotFound), a member without
// the role is told so (fault.Forbidden). It knows no sessions and no requests.
package access

import (
	"context"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
)

// Memberships is what access needs of the store.
type Memberships interface {
	Member(ctx context.Context, workspace, user string) (ci.Member, error)
	App(ctx context.Context, id string) (ci.App, error)
	Connection(ctx context.Context, id string) (ci.Connection, error)
	Build(ctx context.Context, id string) (store.Build, error)
	Schedule(ctx context.Context, id string) (store.Schedule, error)
}

// Workspace checks user's permission in a workspace and answers the membership.
func Workspace(ctx context.Context, m Memberships, user, workspace string, p ci.Permission) (ci.Member, error) {
	return in(ctx, m, user, workspace, p, "workspace")
}

// App checks user's permission on an app and answers it.
func App(ctx context.Context, m Memberships, user, app string, p ci.Permission) (ci.App, error) {
	a, err := m.App(ctx, app)
	if err != nil {
		return ci.App{}, err
	}
	if _, err := in(ctx, m, user, a.Workspace, p, "app"); err != nil {
		return ci.App{}, err
	}
	return a, nil
}

// Connection checks user's permission on a connection and answers it.
func Connection(ctx context.Context, m Memberships, user, connection string, p ci.Permission) (ci.Connection, error) {
	c, err := m.Connection(ctx, connection)
	if err != nil {
		return ci.Connection{}, err
	}
	if _, err := in(ctx, m, user, c.Workspace, p, "connection"); err != nil {
		return ci.Connection{}, err
	}
	return c, nil
}

// Build checks user's permission on a build and answers it.
func Build(ctx context.Context, m Memberships, user, build string, p ci.Permission) (store.Build, error) {
	b, err := m.Build(ctx, build)
	if err != nil {
		return store.Build{}, err
	}
	if _, err := in(ctx, m, user, b.Workspace, p, "build"); err != nil {
		return store.Build{}, err
	}
	return b, nil
}

// Schedule checks user's permission on a schedule and answers it. One that was deleted is
// absent.
func Schedule(ctx context.Context, m Memberships, user, schedule string, p ci.Permission) (store.Schedule, error) {
	s, err := m.Schedule(ctx, schedule)
	if err != nil {
		return store.Schedule{}, err
	}
	if _, err := in(ctx, m, user, s.Workspace, p, "schedule"); err != nil {
		return store.Schedule{}, err
	}
	if s.Deleted {
		return store.Schedule{}, fault.New(fault.NotFound, "no such schedule")
	}
	return s, nil
}

// in is worded for the thing that was asked for, so that a stranger's answer is the
// same whether it exists or not.
func in(ctx context.Context, m Memberships, user, workspace string, p ci.Permission, thing string) (ci.Member, error) {
	member, err := m.Member(ctx, workspace, user)
	if fault.Is(err, fault.NotFound) {
		return ci.Member{}, fault.New(fault.NotFound, "no such %s", thing)
	}
	if err != nil {
		return ci.Member{}, err
	}
	if !member.Role.Allows(p) {
		return ci.Member{}, fault.New(fault.Forbidden, "your role %s does not allow you to %s", member.Role, p)
	}
	return member, nil
}
