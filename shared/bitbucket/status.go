package bitbucket

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
)

// MaxStatusKey is the most characters of a status key; Bitbucket refuses longer
// ones. They are hashed by the caller, never cut: cut keys collide.
const MaxStatusKey = 40

// maxStatusText is not documented for Bitbucket Cloud; Data Center has this limit.
const maxStatusText = 255

// Status is a build status on a commit.
type Status struct {
	Key         string // at most MaxStatusKey characters; the same key is overwritten
	State       ci.StatusState
	URL         string // absolute, with a full host name or an address
	Name        string // cut at 255 runes
	Description string // cut at 255 runes

	// Refname is the plain name of the source branch. With it the status shows on
	// that branch and its pull requests only. All posts for a key keep the one they
	// began with: it cannot be taken back.
	Refname string
}

type wireStatus struct {
	Key         string         `json:"key"`
	State       ci.StatusState `json:"state"`
	URL         string         `json:"url"`
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Refname     string         `json:"refname,omitempty"`
}

// PostStatus makes or overwrites the status with the key. Forbidden says that
// the key is another's: only its creator or an administrator may overwrite it.
// After Unknown the caller reads it back. Posts for a (commit, key) may arrive
// in another order than sent; the caller sends one at a time. Scope repository.
func (c *Client) PostStatus(ctx context.Context, repo, commit string, s Status) error {
	r, err := onCommit("posting the status", http.MethodPost, repo, commit, "statuses", "build")
	if err != nil {
		return err
	}
	if err := checkKey(s.Key); err != nil {
		return err
	}
	switch s.State {
	case ci.StatusInProgress, ci.StatusSuccessful, ci.StatusFailed, ci.StatusStopped:
	default:
		return fault.Field("state", "%q is no state of a status", plain(string(s.State), 40))
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fault.Field("url", "not an absolute http address")
	}
	// Bitbucket reads the address as a URI template.
	address := strings.NewReplacer("{", "%7B", "}", "%7D").Replace(s.URL)
	r.body = wireStatus{s.Key, s.State, address, cut(s.Name, maxStatusText), cut(s.Description, maxStatusText), s.Refname}
	return c.call(ctx, r, nil)
}

// ReadStatus answers the status with the key; NotFound is a missing status,
// commit or repository alike. Scope repository.
func (c *Client) ReadStatus(ctx context.Context, repo, commit, key string) (Status, error) {
	if err := checkKey(key); err != nil {
		return Status{}, err
	}
	r, err := onCommit("reading the status", http.MethodGet, repo, commit, "statuses", "build", key)
	if err != nil {
		return Status{}, err
	}
	var w wireStatus
	if err := c.call(ctx, r, &w); err != nil {
		return Status{}, err
	}
	if w.Key != key {
		return Status{}, r.strange("key")
	}
	return Status(w), nil
}

func checkKey(key string) error {
	if n := utf8.RuneCountInString(key); n == 0 || n > MaxStatusKey || key == "." || key == ".." {
		return fault.Field("key", "not 1 to %d characters", MaxStatusKey)
	}
	return nil
}

func onCommit(doing, method, repo, commit string, below ...string) (request, error) {
	if !isHash(commit, 40) {
		return request{}, fault.Field("commit", "not a full commit hash")
	}
	return inRepository(doing, method, repo, append([]string{"commit", commit}, below...)...)
}
