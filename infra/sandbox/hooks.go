package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxHooks       = 50
	maxHookSecret  = 128
	hookLookupTime = 5 * time.Second
)

// A hook is a webhook of a repository.
type hook struct {
	ID, Repository       string
	Description, URL     string
	Active               bool
	SkipCertVerification bool
	Secret               string // kept readable: it signs
	Events               []string
	Deleted              bool // its repository is gone; only what is under way is still sent
	CreatedAt            time.Time
}

func (h *hook) kind() string { return "hook" }
func (h *hook) key() string  { return h.ID }

// hookEvent is one entry of GET /hook_events.
type hookEvent struct{ key, category, label string }

func hookEvents() []hookEvent {
	return []hookEvent{
		{"repo:push", "Repository", "Push"},
		{"repo:fork", "Repository", "Fork"},
		{"repo:updated", "Repository", "Updated"},
		{"repo:transfer", "Repository", "Transfer accepted"},
		{"repo:created", "Repository", "Created"},
		{"repo:deleted", "Repository", "Deleted"},
		{"repo:imported", "Repository", "Imported"},
		{"repo:commit_comment_created", "Repository", "Commit comment created"},
		{"repo:commit_status_created", "Repository", "Build status created"},
		{"repo:commit_status_updated", "Repository", "Build status updated"},
		{"issue:created", "Issue", "Created"},
		{"issue:updated", "Issue", "Updated"},
		{"issue:comment_created", "Issue", "Comment created"},
		{"pullrequest:created", "Pull Request", "Created"},
		{"pullrequest:updated", "Pull Request", "Updated"},
		{"pullrequest:push", "Pull Request", "Push"},
		{"pullrequest:approved", "Pull Request", "Approved"},
		{"pullrequest:unapproved", "Pull Request", "Approval removed"},
		{"pullrequest:changes_request_created", "Pull Request", "Changes Request created"},
		{"pullrequest:changes_request_removed", "Pull Request", "Changes Request removed"},
		{"pullrequest:fulfilled", "Pull Request", "Merged"},
		{"pullrequest:rejected", "Pull Request", "Declined"},
		{"pullrequest:comment_created", "Pull Request", "Comment created"},
		{"pullrequest:comment_updated", "Pull Request", "Comment updated"},
		{"pullrequest:comment_deleted", "Pull Request", "Comment deleted"},
		{"pullrequest:comment_resolved", "Pull Request", "Comment resolved"},
		{"pullrequest:comment_reopened", "Pull Request", "Comment reopened"},
		{"project:updated", "Project", "Updated"},
		{"pipeline:span_created", "Pipeline", "Span created"},
	}
}

func (s *Sandbox) listHookEvents(c *call) (*reply, error) {
	if subject := c.PathValue("subject"); subject != "repository" && subject != "workspace" {
		return nil, notFound("Subject type " + subject)
	}
	return answer(s, c, listing[hookEvent]{
		items: hookEvents(),
		render: func(e hookEvent) (any, error) {
			return obj{"event": e.key, "category": e.category, "label": e.label, "description": e.label}, nil
		},
	})
}

// hookInput is the body of creating and of changing a hook. Absent members of a
// change leave things as they are; a secret of null or "" removes it.
type hookInput struct {
	Description          *string         `json:"description"`
	URL                  *string         `json:"url"`
	Active               *bool           `json:"active"`
	SkipCertVerification *bool           `json:"skip_cert_verification"`
	Secret               json.RawMessage `json:"secret"`
	Events               []string        `json:"events"`
}

// apply checks the input and lays it over a hook.
func (s *Sandbox) applyHook(c *call, in hookInput, h *hook) error {
	if in.URL != nil {
		if err := s.checkHookURL(c.Context(), *in.URL); err != nil {
			return err
		}
		h.URL = *in.URL
	}
	if in.Events != nil {
		if err := checkHookEvents(c, in.Events); err != nil {
			return err
		}
		h.Events = in.Events
	}
	if in.Secret != nil {
		h.Secret = ""
		if string(in.Secret) != "null" {
			if err := json.Unmarshal(in.Secret, &h.Secret); err != nil {
				return badField("secret", "Not a valid string.")
			}
		}
		if length := len([]rune(h.Secret)); length > maxHookSecret {
			return badField("secret", "Ensure this value has at most %d characters (it has %d).", maxHookSecret, length)
		}
	}
	if in.Description != nil {
		h.Description = *in.Description
	}
	if in.Active != nil {
		h.Active = *in.Active
	}
	if in.SkipCertVerification != nil {
		h.SkipCertVerification = *in.SkipCertVerification
	}
	switch {
	case h.URL == "":
		return badField("url", "required key not provided")
	case len(h.Events) == 0:
		return badField("events", "required key not provided")
	}
	return nil
}

// checkHookEvents also holds the scopes: whoever wants to be told of a resource must
// be able to read it.
func checkHookEvents(c *call, events []string) error {
	known := hookEvents()
	seen := map[string]bool{}
	needed := []string{"webhook"}
	for _, key := range events {
		if !slices.ContainsFunc(known, func(e hookEvent) bool { return e.key == key }) {
			return badField("events", "'%s' is not a valid event.", key)
		}
		if seen[key] {
			return badField("events", "[%s] has non-unique elements", strings.Join(events, ", "))
		}
		seen[key] = true
		resource, _, _ := strings.Cut(key, ":")
		if resource == "repo" {
			resource = "repository"
		}
		if !slices.Contains(needed, resource) {
			needed = append(needed, resource)
		}
	}
	return c.need(needed...)
}

// checkHookURL refuses what could not be delivered to: an address must be absolute,
// its host must resolve, and to nothing internal; loopback is what the sandbox may allow.
func (s *Sandbox) checkHookURL(ctx context.Context, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return badField("url", "'%s' is not a valid URL.", text)
	}
	ctx, cancel := context.WithTimeout(ctx, hookLookupTime)
	defer cancel()
	addresses, err := s.addressesOf(ctx, u.Hostname())
	if err != nil || len(addresses) == 0 {
		return badField("url", "The host '%s' does not resolve.", u.Hostname())
	}
	if slices.ContainsFunc(addresses, s.isForbidden) {
		return badField("url", "The host '%s' is an internal address.", u.Hostname())
	}
	return nil
}

func (s *Sandbox) addressesOf(ctx context.Context, host string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{address}, nil
	}
	return s.resolve(ctx, host)
}

// isForbidden reports whether no webhook may go to the address.
func (s *Sandbox) isForbidden(a netip.Addr) bool {
	a = a.Unmap()
	if a.IsLoopback() {
		return !s.loopbackHooks
	}
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()
}

func (s *Sandbox) hookObject(repo *repository, h *hook) obj {
	return obj{
		"type": "webhook_subscription", "uuid": h.ID, "description": h.Description, "url": h.URL,
		"active": h.Active, "skip_cert_verification": h.SkipCertVerification, "events": h.Events,
		"created_at": h.CreatedAt.UTC().Format(time.RFC3339Nano),
		"subject":    s.repositoryReference(repo), "subject_type": "repository",
		"source": nil, "read_only": false, "history_enabled": false, "secret_set": h.Secret != "",
		"links": obj{"self": link(s.namesOf(repo).api + "/hooks/" + escape(h.ID))},
	}
}

func (s *Sandbox) listHooks(c *call) (*reply, error) {
	var list []*hook
	s.store.read(func(d *data) { list = d.hooks[c.repo.ID] })
	return answer(s, c, listing[*hook]{
		items:  list,
		render: func(h *hook) (any, error) { return s.hookObject(c.repo, h), nil },
	})
}

func (s *Sandbox) createHook(c *call) (*reply, error) {
	var in hookInput
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	h := &hook{ID: newIdentity(), Repository: c.repo.ID, Active: true, CreatedAt: s.now()}
	if err := s.applyHook(c, in, h); err != nil {
		return nil, err
	}
	err := s.store.update(func(t *tx) error {
		if len(t.hooks[c.repo.ID]) >= maxHooks {
			return refuse(http.StatusBadRequest, "A repository can have at most %d webhooks.", maxHooks)
		}
		t.put(h)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return created(s.hookObject(c.repo, h))
}

// pathHook is the hook the path names, by its UUID in braces.
func (d *data) pathHook(c *call) (*hook, error) {
	list := d.hooks[c.repo.ID]
	i := slices.IndexFunc(list, func(h *hook) bool { return h.ID == c.PathValue("hook") })
	if i < 0 {
		return nil, notFound(fmt.Sprintf("Webhook %q", c.PathValue("hook")))
	}
	return list[i], nil
}

func (s *Sandbox) getHook(c *call) (*reply, error) {
	var h *hook
	var err error
	s.store.read(func(d *data) { h, err = d.pathHook(c) })
	if err != nil {
		return nil, err
	}
	return ok(s.hookObject(c.repo, h))
}

func (s *Sandbox) updateHook(c *call) (*reply, error) {
	var in hookInput
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	var found *hook
	var err error
	s.store.read(func(d *data) { found, err = d.pathHook(c) })
	if err != nil {
		return nil, err
	}
	changed := *found
	if err := s.applyHook(c, in, &changed); err != nil { // looks up a host: not under the lock
		return nil, err
	}
	err = s.store.update(func(t *tx) error {
		if _, err := t.pathHook(c); err != nil {
			return err
		}
		t.put(&changed)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ok(s.hookObject(c.repo, &changed))
}

func (s *Sandbox) deleteHook(c *call) (*reply, error) {
	err := s.store.update(func(t *tx) error {
		h, err := t.pathHook(c)
		if err != nil {
			return err
		}
		t.drop(h)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return noContent()
}
