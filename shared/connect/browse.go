package connect

import (
	"context"
	"fmt"
	"strings"

	"runnerhub/shared/access"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
)

// maxWorkspacePages bounds the search for a workspace by its slug: 100 are on a page.
const maxWorkspacePages = 20

// Connections lists the connections of a workspace.
func (c *Connect) Connections(ctx context.Context, user, workspace, cursor string) (store.Page[ci.Connection], error) {
	if _, err := access.Workspace(ctx, c.Store, user, workspace, ci.See); err != nil {
		return store.Page[ci.Connection]{}, fmt.Errorf("connect: connections: %w", err)
	}
	page, err := c.Store.Connections(ctx, workspace, cursor)
	if err != nil {
		return store.Page[ci.Connection]{}, fmt.Errorf("connect: listing connections: %w", err)
	}
	return page, nil
}

// Connection answers a connection.
func (c *Connect) Connection(ctx context.Context, user, id string) (ci.Connection, error) {
	conn, err := access.Connection(ctx, c.Store, user, id, ci.See)
	if err != nil {
		return ci.Connection{}, fmt.Errorf("connect: connection: %w", err)
	}
	return conn, nil
}

// BitbucketWorkspace is a workspace on Bitbucket that a connection's account belongs to.
type BitbucketWorkspace struct {
	ID            string `json:"id"` // UUID with braces
	UUID          string `json:"uuid"`
	Slug          string `json:"slug"`
	Administrator bool   `json:"administrator"`
}

// Workspaces lists the Bitbucket workspaces a connection reaches. What somebody else's
// account can see is for those who may connect repositories.
func (c *Connect) Workspaces(ctx context.Context, user, connection, cursor string) (store.Page[BitbucketWorkspace], error) {
	client, err := c.client(ctx, user, connection)
	if err != nil {
		return store.Page[BitbucketWorkspace]{}, err
	}
	page, err := client.Workspaces(ctx, cursor)
	if err != nil {
		return store.Page[BitbucketWorkspace]{}, fmt.Errorf("connect: listing Bitbucket workspaces: %w", err)
	}
	out := store.Page[BitbucketWorkspace]{Items: make([]BitbucketWorkspace, 0, len(page.Items)), Cursor: page.Cursor}
	for _, w := range page.Items {
		out.Items = append(out.Items, BitbucketWorkspace{w.UUID, w.UUID, w.Slug, w.Administrator})
	}
	return out, nil
}

// BitbucketRepository is a repository that a connection's account can see.
type BitbucketRepository struct {
	ID         string `json:"id"` // UUID with braces
	UUID       string `json:"uuid"`
	FullName   string `json:"full_name"`
	Name       string `json:"name"`
	MainBranch string `json:"main_branch,omitempty"`
	Private    bool   `json:"private"`
}

// Search selects repositories.
type Search struct {
	Workspace string // on Bitbucket: UUID with braces, or slug
	Query     string // part of the name; may be empty
	// All also lists repositories the account is not said to administer. Whether Bitbucket
	// says it of rights inherited from the workspace is not documented, and without
	// those rights no webhook can be installed.
	All    bool
	Cursor string
}

// Repositories lists repositories that a connection reaches, last changed first.
func (c *Connect) Repositories(ctx context.Context, user, connection string, s Search) (store.Page[BitbucketRepository], error) {
	client, err := c.client(ctx, user, connection)
	if err != nil {
		return store.Page[BitbucketRepository]{}, err
	}
	workspace, err := findWorkspace(ctx, client, s.Workspace)
	if err != nil {
		return store.Page[BitbucketRepository]{}, err
	}
	page, err := client.Repositories(ctx, workspace, s.Query, s.Cursor, !s.All)
	if err != nil {
		return store.Page[BitbucketRepository]{}, fmt.Errorf("connect: listing repositories: %w", err)
	}
	out := store.Page[BitbucketRepository]{Items: make([]BitbucketRepository, 0, len(page.Items)), Cursor: page.Cursor}
	for _, r := range page.Items {
		out.Items = append(out.Items, BitbucketRepository{r.UUID, r.UUID, r.FullName, r.Name, r.MainBranch, r.Private})
	}
	return out, nil
}

// findWorkspace answers the UUID of a workspace that may be named by its slug.
func findWorkspace(ctx context.Context, client *bitbucket.Client, name string) (string, error) {
	if name == "" {
		return "", fault.Field("workspace", "is missing: a Bitbucket workspace of this connection is needed")
	}
	if strings.HasPrefix(name, "{") {
		return name, nil
	}
	for cursor, page := "", 0; page < maxWorkspacePages; page++ {
		found, err := client.Workspaces(ctx, cursor)
		if err != nil {
			return "", fmt.Errorf("connect: looking for a Bitbucket workspace: %w", err)
		}
		for _, w := range found.Items {
			if w.Slug == name {
				return w.UUID, nil
			}
		}
		if cursor = found.Cursor; cursor == "" {
			break
		}
	}
	return "", fault.Field("workspace", "is no Bitbucket workspace of this connection")
}

func (c *Connect) client(ctx context.Context, user, connection string) (*bitbucket.Client, error) {
	conn, err := access.Connection(ctx, c.Store, user, connection, ci.Configure)
	if err != nil {
		return nil, fmt.Errorf("connect: browsing: %w", err)
	}
	client, err := c.Grants.Client(ctx, conn.ID)
	if err != nil {
		return nil, fmt.Errorf("connect: using the connection: %w", err)
	}
	return client, nil
}
