package connect

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"runnerhub/shared/access"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/random"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	"runnerhub/shared/vault"
)

const (
	// hookPurpose is what hook secrets are sealed for; their owner is the hook's id. Package
	// ingest opens them under the same name.
	hookPurpose = "hook-secret"
	// description is what people see among the webhooks of their repository.
	description = "RunnerHub"
	// tries bounds the rounds in which processes that install the same hook come together.
	tries = 5
	// removal is how long removing the hook of the repository before may take.
	removal = 10 * time.Second
	// maxPages is how many pages of open pull requests are looked at, of 50 each; those that were not changed for longest are
	// left out. Nor is one asked for when there is no time for it.
	maxPages = 5
	listing  = 8 * time.Second
)

// Repository is an app's tie to a repository, as members see it.
type Repository struct {
	ID string `json:"id"` // the repository's UUID with braces
	ci.Repository
	State  ci.ConnectionState `json:"state"`            // of its connection
	Reason string             `json:"reason,omitempty"` // why the connection is not ACTIVE
}

func shown(repo ci.Repository, conn ci.Connection) Repository {
	return Repository{repo.UUID, repo, conn.State, conn.Reason}
}

// Repository answers the repository of an app, and whether its connection works.
func (c *Connect) Repository(ctx context.Context, user, app string) (Repository, error) {
	if _, err := access.App(ctx, c.Store, user, app, ci.See); err != nil {
		return Repository{}, fmt.Errorf("connect: repository: %w", err)
	}
	repo, err := c.Store.Repository(ctx, app)
	if err != nil {
		return Repository{}, fmt.Errorf("connect: reading the repository: %w", err)
	}
	conn, err := c.Store.Connection(ctx, repo.Connection)
	if err != nil {
		return Repository{}, fmt.Errorf("connect: reading the repository's connection: %w", err)
	}
	return shown(repo, conn), nil
}

// PutRepository ties an app to a repository and installs the webhook, after it has looked at which pull requests are
// open there; with the one it has, it repairs tie and webhook. Created says that the app had none before.
func (c *Connect) PutRepository(ctx context.Context, user, app, connection, uuid string) (repo Repository, created bool, err error) {
	if c.Hooks == nil {
		return Repository{}, false, errors.New("connect: opened without the vault of hook secrets")
	}
	a, err := access.App(ctx, c.Store, user, app, ci.Configure)
	if err != nil {
		return Repository{}, false, fmt.Errorf("connect: connecting a repository: %w", err)
	}
	conn, err := c.Store.Connection(ctx, connection)
	if fault.Is(err, fault.NotFound) || err == nil && conn.Workspace != a.Workspace {
		return Repository{}, false, &fault.Error{Kind: fault.NotFound, Field: "connection", Message: "no such connection in this workspace"}
	}
	if err != nil {
		return Repository{}, false, fmt.Errorf("connect: reading the connection: %w", err)
	}
	before, err := c.Store.Repository(ctx, app)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return Repository{}, false, fmt.Errorf("connect: reading the repository: %w", err)
	}
	client, err := c.Grants.Client(ctx, conn.ID)
	if err != nil {
		return Repository{}, false, fmt.Errorf("connect: using the connection: %w", err)
	}
	remote, err := client.Repository(ctx, uuid)
	if fault.Is(err, fault.NotFound) {
		return Repository{}, false, &fault.Error{
			Kind: fault.NotFound, Field: "repository", Cause: err,
			Message: fmt.Sprintf("no such repository, or the Bitbucket account %s cannot see it", conn.Nickname),
		}
	}
	if err != nil {
		return Repository{}, false, fmt.Errorf("connect: reading the repository on Bitbucket: %w", err)
	}

	hook, err := c.Store.ReserveHook(ctx, app, remote.UUID)
	if err != nil {
		return Repository{}, false, fmt.Errorf("connect: reserving a hook address: %w", err)
	}
	tie := ci.Repository{
		App: app, Connection: conn.ID, UUID: remote.UUID, FullName: remote.FullName, MainBranch: remote.MainBranch,
		Hook: hook, InstalledAt: c.Now().UTC(),
	}
	if before.UUID == tie.UUID {
		tie.InstalledAt = before.InstalledAt
	}
	if err := c.listOpened(ctx, client, before, tie); err != nil {
		return Repository{}, false, err
	}
	if tie.HookUUID, err = c.install(ctx, client, a, tie); err != nil {
		if fault.Is(err, fault.Forbidden) {
			return Repository{}, false, fault.Wrap(fault.Forbidden, err,
				"the Bitbucket account %[1]s is no administrator of %[2]s, which installing a webhook takes: give it admin permission in the repository's settings on Bitbucket, or let an administrator of %[2]s connect his account to this workspace",
				conn.Nickname, remote.FullName)
		}
		return Repository{}, false, fmt.Errorf("connect: installing the webhook: %w", err)
	}
	// Not always the one before: somebody may have tied the app to a third meanwhile.
	replaced, err := c.Store.PutRepository(ctx, tie)
	if err != nil {
		return Repository{}, false, fmt.Errorf("connect: storing the repository: %w", err)
	}
	c.removeHooks(ctx, tie)
	return shown(tie, conn), before.UUID == "" && replaced.UUID == "", nil
}

// listOpened keeps what the open pull requests of a repository are at before its webhook can tell of them: their first event may
// be that of a new title, which says no more than that of a new commit. Those of the repository that the app is tied to are
// known from their events.
func (c *Connect) listOpened(ctx context.Context, client *bitbucket.Client, before, tie ci.Repository) error {
	if before.UUID == tie.UUID {
		return nil
	}
	began, cursor := c.Now(), ""
	for page := 0; page < maxPages && (page == 0 || c.Now().Sub(began) < listing); page++ {
		found, err := client.Heads(ctx, tie.UUID, cursor)
		if err != nil {
			return fmt.Errorf("connect: looking for open pull requests: %w", err)
		}
		open := make([]store.Listed, 0, len(found.Items))
		for _, h := range found.Items {
			open = append(open, store.Listed{Number: h.ID, Source: h.Source, Target: h.Target, UpdatedAt: h.UpdatedAt})
		}
		if err := c.Store.PutListed(ctx, tie.App, tie.UUID, open); err != nil {
			return fmt.Errorf("connect: storing open pull requests: %w", err)
		}
		if cursor = found.Cursor; cursor == "" {
			return nil
		}
	}
	c.Log.Info("the repository has more open pull requests than were looked at", "app", tie.App, "repository", tie.UUID)
	return nil
}

func (c *Connect) address(hook string) string { return c.PublicURL + "/hooks/" + hook }

// install sees to it that the repository has one hook with our address, and that it
// signs with the secret we keep. It answers Bitbucket's id of the hook.
//
// Processes that install the same hook for the first time may each store a secret; the
// last one counts. So each looks again after it wrote to Bitbucket, and writes again if
// the secret is another's by then.
func (c *Connect) install(ctx context.Context, client *bitbucket.Client, app ci.App, tie ci.Repository) (string, error) {
	for range tries {
		kept, key, err := c.hookSecret(ctx, app, tie.Hook)
		if err != nil {
			return "", err
		}
		uuid, err := c.writeHook(ctx, client, tie, key)
		if err != nil {
			return "", err
		}
		now, err := c.Store.Hook(ctx, tie.Hook)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return "", fmt.Errorf("reading the hook again: %w", err)
		}
		if err == nil && bytes.Equal(now.Sealed, kept.Sealed) {
			return uuid, nil
		}
	}
	return "", fault.New(fault.Conflict, "the repository is being connected by others at the same time: try again")
}

// hookSecret answers the stored secret of a hook, or stores a fresh one when there is
// none, or none that opens. Bitbucket never shows the secret it has.
func (c *Connect) hookSecret(ctx context.Context, app ci.App, id string) (store.Hook, secret.Text, error) {
	binding := vault.Binding{Owner: id, Purpose: hookPurpose}
	hook, err := c.Store.Hook(ctx, id)
	if err == nil {
		plain, err := c.Hooks.Open(ctx, binding, hook.Sealed)
		if err == nil {
			return hook, secret.New(string(plain)), nil
		}
		if !fault.Is(err, fault.Invalid) {
			return store.Hook{}, secret.Text{}, fmt.Errorf("opening the hook's secret: %w", err)
		}
		c.Log.Warn("the secret of a hook does not open and is replaced", "hook", id, "app", app.ID)
	} else if !fault.Is(err, fault.NotFound) {
		return store.Hook{}, secret.Text{}, fmt.Errorf("reading the hook: %w", err)
	}
	key := random.Secret()
	sealed, err := vault.Seal(ctx, c.Hooks, binding, []byte(key.Reveal()))
	if err != nil {
		return store.Hook{}, secret.Text{}, fmt.Errorf("sealing the hook's secret: %w", err)
	}
	hook = store.Hook{ID: id, App: app.ID, Workspace: app.Workspace, Sealed: sealed, CreatedAt: c.Now().UTC()}
	if err := c.Store.PutHook(ctx, hook); err != nil {
		return store.Hook{}, secret.Text{}, fmt.Errorf("storing the hook: %w", err)
	}
	return hook, key, nil
}

// writeHook creates the hook, or updates the one there is. Creating is not idempotent
// on Bitbucket, so its answer is not relied on: the list is read again, and whatever
// there is too much, from a lost answer or from another process, is removed. Everyone
// keeps the same one.
func (c *Connect) writeHook(ctx context.Context, client *bitbucket.Client, tie ci.Repository, key secret.Text) (string, error) {
	want := bitbucket.Hook{
		Description: description, URL: c.address(tie.Hook), Active: true, Events: bitbucket.HookEvents(), Secret: key,
	}
	made := ""
	for range tries {
		ours, err := c.ourHooks(ctx, client, tie)
		if err != nil {
			return "", err
		}
		if len(ours) == 0 {
			hook, err := client.CreateHook(ctx, tie.UUID, want)
			if err != nil && !fault.Is(err, fault.Unknown) {
				return "", err
			}
			made = hook.UUID
			continue
		}
		keep := ours[0]
		if keep.UUID != made {
			want.UUID = keep.UUID
			_, err := client.UpdateHook(ctx, tie.UUID, want)
			if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unknown) {
				continue // removed meanwhile, or perhaps written
			}
			if err != nil {
				return "", err
			}
		}
		for _, extra := range ours[1:] {
			if err := deleteHook(ctx, client, tie.UUID, extra.UUID); err != nil {
				return "", err
			}
		}
		return keep.UUID, nil
	}
	return "", fault.New(fault.Unavailable, "Bitbucket took the webhook and does not show it: try again")
}

// ourHooks answers the hooks with our address, and behind them those with an address of
// this installation that nothing is known of: left over from before data was lost, they
// only bring requests that are refused. The order is the same for everyone.
func (c *Connect) ourHooks(ctx context.Context, client *bitbucket.Client, tie ci.Repository) ([]bitbucket.Hook, error) {
	hooks, err := client.ListHooks(ctx, tie.UUID)
	if err != nil {
		return nil, err
	}
	var ours, dead []bitbucket.Hook
	for _, h := range hooks {
		id, here := strings.CutPrefix(h.URL, c.address(""))
		switch {
		case !here || id == "":
		case id == tie.Hook:
			ours = append(ours, h)
		default:
			_, err := c.Store.Hook(ctx, id)
			if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
				dead = append(dead, h)
			} else if err != nil {
				return nil, fmt.Errorf("reading a hook: %w", err)
			}
		}
	}
	byUUID := func(a, b bitbucket.Hook) int { return cmp.Compare(a.UUID, b.UUID) }
	slices.SortFunc(ours, byUUID)
	slices.SortFunc(dead, byUUID)
	return append(ours, dead...), nil
}

// deleteHook deletes a hook that may be gone already; a lost answer is asked for again.
func deleteHook(ctx context.Context, client *bitbucket.Client, repository, uuid string) error {
	err := client.DeleteHook(ctx, repository, uuid)
	if fault.Is(err, fault.Unknown) {
		err = client.DeleteHook(ctx, repository, uuid)
	}
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// removeHooks removes the hooks of the repositories that an app had before. It is best effort, for what is
// left over is refused: the address is dead already. Whatever could not be removed, because Bitbucket failed or this process died, is
// tried again when the app is tied the next time, were it to the same repository.
func (c *Connect) removeHooks(ctx context.Context, tie ci.Repository) {
	ctx, cancel := context.WithTimeout(ctx, removal)
	defer cancel()
	all, err := c.Store.Left(ctx, tie.App)
	if err != nil {
		c.Log.Warn("the repositories that an app left are not known", "app", tie.App, "error", err)
		return
	}
	for _, left := range all {
		if err := c.removeHook(ctx, left); err != nil {
			c.Log.Warn("the webhook of a repository that an app left is still there", "app", left.App, "repository", left.Repository, "error", err)
			continue
		}
		c.Log.Info("removed the webhook of a repository that an app left", "app", left.App, "repository", left.Repository)
	}
}

func (c *Connect) removeHook(ctx context.Context, left store.Left) error {
	client, err := c.Grants.Client(ctx, left.Connection)
	if err != nil {
		return err
	}
	ours, err := c.ourHooks(ctx, client, ci.Repository{App: left.App, UUID: left.Repository, Hook: left.Hook})
	if err != nil && !fault.Is(err, fault.NotFound) { // with a repository that is gone, so are its hooks
		return err
	}
	for _, h := range ours {
		if err := deleteHook(ctx, client, left.Repository, h.UUID); err != nil {
			return err
		}
	}
	return c.Store.DropLeft(ctx, left)
}
