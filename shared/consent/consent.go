// Package consent sends a browser to Bitbucket's consent page and recognises it when
// it comes back. It keeps the OAuth state on the server: single use, ten minutes, tied
// to the browser that left and to what it left for. Bitbucket has one callback address
// for everything, so the state also says what the return is for.
//
// It exchanges no code and knows neither users nor roles: that is up to the use case
// that the return is for.
package consent

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/fault"
	"runnerhub/shared/random"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
)

// Purpose is what a browser was sent to Bitbucket for.
type Purpose string

const (
	SignIn  Purpose = "signin"
	Connect Purpose = "connect"
	// Confirm is no trip to Bitbucket: what was brought back waits for a word of the
	// one who is signed in.
	Confirm Purpose = "confirm"
)

// Life is how long a state can be used.
const Life = 10 * time.Minute

// maxReturn is the longest return path in bytes.
const maxReturn = 2048

// Deps is what a Consent needs.
type Deps struct {
	Store     *store.Store
	Bitbucket *bitbucket.Bitbucket
	Now       func() time.Time
}

// Consent issues states and takes them back.
type Consent struct{ Deps }

// New makes a Consent.
func New(d Deps) (*Consent, error) {
	if d.Store == nil || d.Bitbucket == nil || d.Now == nil {
		return nil, errors.New("consent: Store, Bitbucket and Now are needed")
	}
	return &Consent{d}, nil
}

// Begin remembers what a browser leaves for and answers the address of the consent
// page. Purpose, verifier and expiry of the state are set here; its Session is the hash
// of what the browser has to show again when it returns, and empty when there is
// nothing to show: then the caller of Take has to compare something else.
func (c *Consent) Begin(ctx context.Context, purpose Purpose, state store.OAuthState) (string, error) {
	state.Verifier = random.Secret().Reveal()
	ticket, err := c.Keep(ctx, purpose, state)
	if err != nil {
		return "", err
	}
	return c.Bitbucket.AuthorizeURL(ticket.Reveal(), state.Verifier), nil
}

// Keep stores a state and answers the secret it is taken with.
func (c *Consent) Keep(ctx context.Context, purpose Purpose, state store.OAuthState) (secret.Text, error) {
	path, err := Path(state.Return)
	if err != nil {
		return secret.Text{}, err
	}
	state.Return = path
	state.Purpose = string(purpose)
	state.ExpiresAt = c.Now().Add(Life)
	// The purpose in front is for PurposeOf; that it was not changed shows in the hash.
	ticket := secret.New(string(purpose) + "." + random.Secret().Reveal())
	if err := c.Store.PutOAuthState(ctx, ticket.Hash(), state); err != nil {
		return secret.Text{}, fmt.Errorf("consent: keeping the state: %w", err)
	}
	return ticket, nil
}

// Take answers the state of a ticket and ends it, whether or not the caller is the
// right one: only one try is ever made with a ticket. Session is the hash of what this
// browser shows.
func (c *Consent) Take(ctx context.Context, purpose Purpose, ticket secret.Text, session string) (store.OAuthState, error) {
	state, err := c.Store.TakeOAuthState(ctx, ticket.Hash())
	switch {
	case fault.Is(err, fault.NotFound), fault.Is(err, fault.Conflict):
		return store.OAuthState{}, fault.Wrap(fault.Invalid, err, "this was used already, or is more than %d minutes old: start again", int(Life.Minutes()))
	case err != nil:
		return store.OAuthState{}, fmt.Errorf("consent: taking the state: %w", err)
	case state.Purpose != string(purpose):
		return store.OAuthState{}, fault.New(fault.Invalid, "this was begun for something else: start again")
	case state.Session != "" && state.Session != session:
		return store.OAuthState{}, fault.New(fault.Forbidden, "this was begun in another browser or another sign-in: start again here")
	}
	return state, nil
}

// PurposeOf answers what a state says it is for. It decides who looks at the state,
// and proves nothing.
func PurposeOf(ticket string) Purpose {
	purpose, _, _ := strings.Cut(ticket, ".")
	return Purpose(purpose)
}

// Path answers a return path that stays on this server, "/" for none. Anything a
// browser could read as another host is refused.
func Path(raw string) (string, error) {
	if raw == "" {
		return "/", nil
	}
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxReturn || raw[0] != '/' || strings.HasPrefix(raw, "//") || u.IsAbs() || u.Host != "" ||
		strings.ContainsFunc(raw, func(r rune) bool { return r == '\\' || unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return "", fault.Field("return", "is not a path on this server")
	}
	return raw, nil
}

// Denied answers where a browser goes whose user did not consent.
func Denied(returnPath string) string {
	u, err := url.Parse(returnPath)
	if err != nil {
		return "/?error=access_denied"
	}
	query := u.Query()
	query.Set("error", "access_denied")
	u.RawQuery = query.Encode()
	return u.String()
}
