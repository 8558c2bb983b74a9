// Package catalog shows what there is: workspaces, apps, and of each app its
// deliveries, builds and their logs; it makes workspaces and apps, and has deliveries decided once more. Every method
// asks package access first, on behalf of a user. It changes no build and calls no
// Bitbucket.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"runnerhub/shared/access"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/store"
)

const (
	// maxName is the longest name in characters.
	maxName = 100
	// pageSize is how many builds or deliveries a page has.
	pageSize = 50
)

// Deps is what a Catalog needs.
type Deps struct {
	Store *store.Store
	Logs  buildlog.Log // nil for who shows no logs
	// Settling is how long after a build's end lines of it may still come into its log; 0: they are there before it.
	Settling time.Duration
	// Queue is that of deliveries; nil for who replays nothing.
	Queue     queue.Publisher
	PublicURL string // of this installation, without a slash at its end
	// OneWorkspace says that builds are not kept apart, so that there must not be a second
	// workspace.
	OneWorkspace bool
	Now          func() time.Time
	NewID        func() string
}

// Catalog reads, and makes what is read.
type Catalog struct{ Deps }

// New makes a Catalog.
func New(d Deps) (*Catalog, error) {
	if d.Store == nil || d.PublicURL == "" || d.Now == nil || d.NewID == nil {
		return nil, errors.New("catalog: a dependency is missing")
	}
	return &Catalog{d}, nil
}

// Workspace is a workspace as a member sees it.
type Workspace struct {
	ci.Workspace
	Role ci.Role `json:"role,omitempty"` // of the caller; not in lists
}

// Workspaces lists the workspaces a user is a member of.
func (c *Catalog) Workspaces(ctx context.Context, user, cursor string) (store.Page[Workspace], error) {
	page, err := c.Store.WorkspacesOf(ctx, user, cursor)
	if err != nil {
		return store.Page[Workspace]{}, fmt.Errorf("catalog: listing workspaces: %w", err)
	}
	return mapped(page, func(w ci.Workspace) Workspace { return Workspace{Workspace: w} }), nil
}

// CreateWorkspace makes a workspace that the user owns.
func (c *Catalog) CreateWorkspace(ctx context.Context, user, name string) (Workspace, error) {
	name, err := Name(name)
	if err != nil {
		return Workspace{}, err
	}
	w := ci.Workspace{ID: c.NewID(), Name: name, CreatedAt: c.Now().UTC()}
	create := c.Store.CreateWorkspace
	if c.OneWorkspace {
		create = c.Store.CreateOnlyWorkspace
	}
	err = create(ctx, w, user)
	if c.OneWorkspace && fault.Is(err, fault.Conflict) {
		return Workspace{}, c.noSecond(ctx, user, err)
	}
	if err != nil {
		return Workspace{}, fmt.Errorf("catalog: making a workspace: %w", err)
	}
	return Workspace{w, ci.Owner}, nil
}

// noSecond says why there is no second workspace, and what to do instead.
func (c *Catalog) noSecond(ctx context.Context, user string, cause error) error {
	const why = "this server does not keep builds apart, so it has one workspace only"
	own, err := c.Store.WorkspacesOf(ctx, user, "")
	if err != nil {
		return fmt.Errorf("catalog: listing workspaces: %w", err)
	}
	if len(own.Items) == 0 {
		return fault.Wrap(fault.Conflict, cause,
			why+", and there is one: ask its owner to add you, or whoever runs the server to keep builds apart")
	}
	return fault.Wrap(fault.Conflict, cause, why+", and you are a member of it: use %q, which is %s", own.Items[0].Name, own.Items[0].ID)
}

// Workspace answers a workspace to its members.
func (c *Catalog) Workspace(ctx context.Context, user, id string) (Workspace, error) {
	member, err := access.Workspace(ctx, c.Store, user, id, ci.See)
	if err != nil {
		return Workspace{}, fmt.Errorf("catalog: workspace: %w", err)
	}
	w, err := c.Store.Workspace(ctx, id)
	if err != nil {
		return Workspace{}, fmt.Errorf("catalog: reading a workspace: %w", err)
	}
	return Workspace{w, member.Role}, nil
}

// Apps lists the apps of a workspace.
func (c *Catalog) Apps(ctx context.Context, user, workspace, cursor string) (store.Page[ci.App], error) {
	if _, err := access.Workspace(ctx, c.Store, user, workspace, ci.See); err != nil {
		return store.Page[ci.App]{}, fmt.Errorf("catalog: apps: %w", err)
	}
	page, err := c.Store.Apps(ctx, workspace, cursor)
	if err != nil {
		return store.Page[ci.App]{}, fmt.Errorf("catalog: listing apps: %w", err)
	}
	return page, nil
}

// CreateApp makes an app in a workspace.
func (c *Catalog) CreateApp(ctx context.Context, user, workspace, name string) (ci.App, error) {
	if _, err := access.Workspace(ctx, c.Store, user, workspace, ci.Manage); err != nil {
		return ci.App{}, fmt.Errorf("catalog: making an app: %w", err)
	}
	name, err := Name(name)
	if err != nil {
		return ci.App{}, err
	}
	app := ci.App{ID: c.NewID(), Workspace: workspace, Name: name, CreatedAt: c.Now().UTC()}
	if err := c.Store.CreateApp(ctx, app); err != nil {
		return ci.App{}, fmt.Errorf("catalog: making an app: %w", err)
	}
	return app, nil
}

// App answers an app to members of its workspace.
func (c *Catalog) App(ctx context.Context, user, id string) (ci.App, error) {
	app, err := access.App(ctx, c.Store, user, id, ci.See)
	if err != nil {
		return ci.App{}, fmt.Errorf("catalog: app: %w", err)
	}
	return app, nil
}

// Delivery is a webhook request and what became of it.
type Delivery struct {
	ci.Delivery
	Note string `json:"note,omitempty"` // why there are no decisions yet, or none for good
}

// Deliveries lists what came for an app, newest first.
func (c *Catalog) Deliveries(ctx context.Context, user, app, cursor string) (store.Page[Delivery], error) {
	if _, err := access.App(ctx, c.Store, user, app, ci.See); err != nil {
		return store.Page[Delivery]{}, fmt.Errorf("catalog: deliveries: %w", err)
	}
	page, err := c.Store.Deliveries(ctx, app, cursor, pageSize)
	if err != nil {
		return store.Page[Delivery]{}, fmt.Errorf("catalog: listing deliveries: %w", err)
	}
	return mapped(page, delivered), nil
}

func delivered(d store.Delivery) Delivery {
	if d.Decisions == nil {
		d.Decisions = []ci.Decision{}
	}
	return Delivery{d.Delivery, d.Note}
}

// replayLost is after how long the sweep looks at a replay that nobody decided.
const replayLost = 2 * time.Minute

// Replay has a delivery decided once more, as its app, its grant and its pipeline file now are: what has its build
// keeps that, what is missing is built. It answers the delivery, undecided. While one is undecided, asking
// again changes nothing. The record comes first, then the message; what is lost in between, the sweep finds.
func (c *Catalog) Replay(ctx context.Context, user, id string) (Delivery, error) {
	if c.Queue == nil {
		return Delivery{}, errors.New("catalog: opened without the queue of deliveries")
	}
	d, err := c.Store.Delivery(ctx, id)
	if err == nil {
		_, err = access.App(ctx, c.Store, user, d.App, ci.RunBuilds)
	}
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "no such delivery") // whether it is absent or somebody else's
	}
	if err != nil {
		return Delivery{}, fmt.Errorf("catalog: replaying: %w", err)
	}
	if d, err = c.Store.ReopenDelivery(ctx, id, c.Now().Add(replayLost)); err != nil {
		return Delivery{}, fmt.Errorf("catalog: replaying: %w", err)
	}
	// Without a due time, the event is in the message alone that is under way.
	if d.DecidedAt.IsZero() && !d.DueAt.IsZero() {
		if err := message.Send(ctx, c.Queue, message.Dispatch{Again: id}, 0); err != nil {
			return Delivery{}, fmt.Errorf("catalog: asking for a replay: %w", err)
		}
	}
	return delivered(d), nil
}

// Name answers a name as it is kept: 1 to 100 characters, no space around it, nothing
// in it that does not print.
func Name(raw string) (string, error) {
	name := strings.TrimSpace(raw)
	switch n := utf8.RuneCountInString(name); {
	case n == 0:
		return "", fault.Field("name", "is empty")
	case n > maxName:
		return "", fault.Field("name", "has %d characters; at most %d are allowed", n, maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", fault.Field("name", "holds characters that do not print")
	}
	return name, nil
}

func mapped[A, B any](page store.Page[A], f func(A) B) store.Page[B] {
	out := store.Page[B]{Items: make([]B, 0, len(page.Items)), Cursor: page.Cursor}
	for _, a := range page.Items {
		out.Items = append(out.Items, f(a))
	}
	return out
}
