package bitbucket

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"unicode/utf8"

	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

// Hook is a webhook of a repository.
type Hook struct {
	UUID        string // with braces; Bitbucket's, and no proof of anything
	Description string
	URL         string
	Active      bool
	Events      []string
	Secret      secret.Text // written only: 1 to 128 characters; Bitbucket never shows it
	SecretSet   bool        // read only
}

// HookEvents answers the events we subscribe to. Not pullrequest:push, which is
// undocumented, and not repo:commit_status_*: our own statuses would come back.
func HookEvents() []string {
	return []string{"repo:push", "pullrequest:created", "pullrequest:updated", "pullrequest:fulfilled", "pullrequest:rejected"}
}

type wireHook struct {
	UUID        string   `json:"uuid,omitempty"`
	Description string   `json:"description"`
	URL         string   `json:"url"`
	Active      bool     `json:"active"`
	Events      []string `json:"events"`
	// Absent keeps the secret as it is; null or "" would remove it.
	Secret    string `json:"secret,omitempty"`
	SecretSet bool   `json:"secret_set,omitempty"`
}

func (w wireHook) hook() (Hook, error) {
	if !isUUID(w.UUID) {
		return Hook{}, errors.New("a hook without uuid")
	}
	return Hook{UUID: w.UUID, Description: w.Description, URL: w.URL, Active: w.Active, Events: w.Events, SecretSet: w.SecretSet}, nil
}

// ListHooks lists the repository's webhooks, ours and others'. Scope webhook;
// like every call about hooks it takes an administrator of the repository.
func (c *Client) ListHooks(ctx context.Context, repo string) ([]Hook, error) {
	r, err := inRepository("listing webhooks", http.MethodGet, repo, "hooks")
	if err != nil {
		return nil, err
	}
	r.query = url.Values{"pagelen": {"100"}}
	return listAll(ctx, c, r, wireHook.hook)
}

// CreateHook makes a webhook with a secret. It is not idempotent: after Unknown
// the caller lists and looks for its address, or events arrive twice. Scopes
// webhook, repository and pullrequest.
func (c *Client) CreateHook(ctx context.Context, repo string, h Hook) (Hook, error) {
	if h.Secret.Empty() {
		return Hook{}, fault.Field("secret", "a webhook without a secret cannot be verified")
	}
	return c.writeHook(ctx, "creating the webhook", http.MethodPost, repo, h)
}

// UpdateHook replaces the webhook with h.UUID. An empty Secret leaves Bitbucket's
// as it is. Scope webhook.
func (c *Client) UpdateHook(ctx context.Context, repo string, h Hook) (Hook, error) {
	if !isUUID(h.UUID) {
		return Hook{}, notUUID("hook")
	}
	return c.writeHook(ctx, "updating the webhook", http.MethodPut, repo, h, h.UUID)
}

func (c *Client) writeHook(ctx context.Context, doing, method, repo string, h Hook, below ...string) (Hook, error) {
	r, err := inRepository(doing, method, repo, append([]string{"hooks"}, below...)...)
	if err != nil {
		return Hook{}, err
	}
	if utf8.RuneCountInString(h.Secret.Reveal()) > 128 {
		return Hook{}, fault.Field("secret", "more than 128 characters")
	}
	r.private = h.Secret
	r.body = wireHook{
		Description: cut(h.Description, 255), URL: h.URL, Active: h.Active, Events: h.Events, Secret: h.Secret.Reveal(),
	}
	var w wireHook
	if err := c.call(ctx, r, &w); err != nil {
		return Hook{}, err
	}
	made, err := w.hook()
	if err != nil {
		return Hook{}, r.strange("uuid")
	}
	return made, nil
}

// DeleteHook removes a webhook; NotFound says it was not there. Scope webhook.
func (c *Client) DeleteHook(ctx context.Context, repo, uuid string) error {
	if !isUUID(uuid) {
		return notUUID("hook")
	}
	r, err := inRepository("deleting the webhook", http.MethodDelete, repo, "hooks", uuid)
	if err != nil {
		return err
	}
	return c.call(ctx, r, nil)
}
