package access_test

import (
	"context"
	"testing"

	"runnerhub/shared/access"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
	"runnerhub/shared/store/storetest"
)

func TestAccess(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	ctx := t.Context()
	now := b.Clock.Now()
	for _, err := range []error{
		b.CreateWorkspace(ctx, ci.Workspace{ID: "w", CreatedAt: now}, "owner"),
		b.CreateWorkspace(ctx, ci.Workspace{ID: "other", CreatedAt: now}, "stranger"),
		b.CreateApp(ctx, ci.App{ID: "app", Workspace: "w"}),
		b.CreateSchedule(ctx, store.Schedule{Schedule: ci.Schedule{ID: "s", App: "app", Active: true}, Workspace: "w"}),
		b.PutConnection(ctx, ci.Connection{ID: "c", Workspace: "w"}, []byte("sealed"), now, now),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	build := store.Build{Build: ci.Build{ID: "build", Workspace: "w", App: "app", State: ci.Queued, Repository: "{r}", Commit: "c", StatusKey: "k"}, Runner: "local"}
	if _, _, err := b.CreateBuild(ctx, store.NewBuild{Build: build}); err != nil {
		t.Fatal(err)
	}
	things := map[string]func(m access.Memberships, user, id string, p ci.Permission) error{
		"w": func(m access.Memberships, user, id string, p ci.Permission) error {
			_, err := access.Workspace(ctx, m, user, id, p)
			return err
		},
		"app": func(m access.Memberships, user, id string, p ci.Permission) error {
			_, err := access.App(ctx, m, user, id, p)
			return err
		},
		"c": func(m access.Memberships, user, id string, p ci.Permission) error {
			_, err := access.Connection(ctx, m, user, id, p)
			return err
		},
		"s": func(m access.Memberships, user, id string, p ci.Permission) error {
			_, err := access.Schedule(ctx, m, user, id, p)
			return err
		},
		"build": func(m access.Memberships, user, id string, p ci.Permission) error {
			_, err := access.Build(ctx, m, user, id, p)
			return err
		},
	}
	for id, ask := range things {
		if err := ask(b.Store, "owner", id, ci.DeleteWorkspace); err != nil {
			t.Errorf("the owner of %s: %v", id, err)
		}
		for _, p := range []ci.Permission{ci.See, ci.RunBuilds, ci.Configure, ci.Manage, ci.DeleteWorkspace} {
			refused := ask(b.Store, "stranger", id, p)
			absent := ask(b.Store, "stranger", "no-such-thing", p)
			if !fault.Is(refused, fault.NotFound) || absent == nil || refused.Error() != absent.Error() {
				t.Errorf("a stranger asking for %s learns %v, and for nothing %v", id, refused, absent)
			}
			if err := ask(viewer{b.Store}, "viewer", id, p); (p == ci.See) != (err == nil) || p != ci.See && !fault.Is(err, fault.Forbidden) {
				t.Errorf("a viewer of %s who wants to %s: %v", id, p, err)
			}
			if err := ask(down{b.Store}, "owner", id, p); !fault.Is(err, fault.Unavailable) {
				t.Errorf("while memberships cannot be read: %v", err)
			}
		}
	}
}

// viewer makes whoever asks one.
type viewer struct{ *store.Store }

func (v viewer) Member(_ context.Context, workspace, user string) (ci.Member, error) {
	return ci.Member{Workspace: workspace, User: user, Role: ci.Viewer}, nil
}

// down cannot be read.
type down struct{ *store.Store }

func (down) Member(context.Context, string, string) (ci.Member, error) {
	return ci.Member{}, fault.New(fault.Unavailable, "down")
}
