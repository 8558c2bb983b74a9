package bitbucket

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// Account is a Bitbucket user.
type Account struct {
	UUID      string // with braces; the only identity that survives renames
	AccountID string // Atlassian's; may be empty
	Nickname  string
	Name      string
}

// Workspace is a Bitbucket workspace the account belongs to. The list has no
// names, only slugs.
type Workspace struct {
	UUID          string // with braces
	Slug          string
	Administrator bool
}

// User answers the account whose token is used. Scope account.
func (c *Client) User(ctx context.Context) (Account, error) {
	var w struct {
		UUID        string `json:"uuid"`
		AccountID   string `json:"account_id"`
		Nickname    string `json:"nickname"`
		DisplayName string `json:"display_name"`
	}
	r := request{doing: "reading the account", method: http.MethodGet, path: []string{"user"}}
	if err := c.call(ctx, r, &w); err != nil {
		return Account{}, err
	}
	if !isUUID(w.UUID) {
		return Account{}, r.strange("uuid")
	}
	return Account{w.UUID, w.AccountID, plain(w.Nickname, 255), plain(w.DisplayName, 255)}, nil
}

// Workspaces lists the account's workspaces. Scope account.
func (c *Client) Workspaces(ctx context.Context, cursor string) (Page[Workspace], error) {
	type wire struct {
		Administrator bool
		Workspace     struct {
			UUID string
			Slug string
		}
	}
	r := request{
		doing: "listing workspaces", method: http.MethodGet, path: []string{"user", "workspaces"},
		query: url.Values{"pagelen": {"100"}},
	}
	return list(ctx, c, r, cursor, func(w wire) (Workspace, error) {
		if !isUUID(w.Workspace.UUID) {
			return Workspace{}, errors.New("a workspace without uuid")
		}
		return Workspace{w.Workspace.UUID, w.Workspace.Slug, w.Administrator}, nil
	})
}
