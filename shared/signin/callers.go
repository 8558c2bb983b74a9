package signin

import (
	"context"
	"errors"
	"fmt"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
)

// Caller is who makes a request.
type Caller struct {
	User    ci.User
	Session string // hash of the session; empty for an API token
}

// Callers recognises who signed in: all that a process needs which signs nobody in itself.
type Callers struct{ store *store.Store }

// NewCallers makes a Callers.
func NewCallers(s *store.Store) (*Callers, error) {
	if s == nil {
		return nil, errors.New("signin: a store is needed")
	}
	return &Callers{s}, nil
}

// BySession answers who has a session.
func (c *Callers) BySession(ctx context.Context, cookie secret.Text) (Caller, error) {
	session, err := c.store.Session(ctx, cookie.Hash())
	if fault.Is(err, fault.NotFound) {
		return Caller{}, fault.New(fault.Unauthenticated, "the session has ended: sign in again")
	}
	if err != nil {
		return Caller{}, fmt.Errorf("signin: reading the session: %w", err)
	}
	return c.caller(ctx, session.User, cookie.Hash())
}

// ByToken answers whose API token it is.
func (c *Callers) ByToken(ctx context.Context, bearer secret.Text) (Caller, error) {
	token, err := c.store.TokenByHash(ctx, bearer.Hash())
	if fault.Is(err, fault.NotFound) {
		return Caller{}, fault.New(fault.Unauthenticated, "the API token is unknown or has expired")
	}
	if err != nil {
		return Caller{}, fmt.Errorf("signin: reading the token: %w", err)
	}
	return c.caller(ctx, token.User, "")
}

func (c *Callers) caller(ctx context.Context, id, session string) (Caller, error) {
	user, err := c.store.User(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return Caller{}, fault.New(fault.Unauthenticated, "the account is gone: sign in again")
	}
	if err != nil {
		return Caller{}, fmt.Errorf("signin: reading the user: %w", err)
	}
	return Caller{User: user, Session: session}, nil
}
