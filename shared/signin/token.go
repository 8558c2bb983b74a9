package signin

import (
	"context"
	"fmt"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/random"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
)

// tokenPrefix lets people and secret scanners recognise a token that got loose.
const tokenPrefix = "rh_"

// maxTokens a user may have.
const maxTokens = 50

// Token is a personal API token as its owner sees it.
type Token struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // absent: never
	Secret    string    `json:"token,omitempty"`     // only in the answer that made it
}

// CreateToken makes a token, which acts as its owner wherever he may act. A zero
// expires is never. It takes a session: whoever got hold of a token that ends shall
// not make one that does not. The name has been checked.
func (s *SignIn) CreateToken(ctx context.Context, who Caller, name string, expires time.Time) (Token, error) {
	if who.Session == "" {
		return Token{}, fault.New(fault.Forbidden, "an API token cannot make another: sign in with a browser")
	}
	if !expires.IsZero() && !expires.After(s.Now()) {
		return Token{}, fault.Field("expires_at", "is in the past")
	}
	have, err := s.Store.Tokens(ctx, who.User.ID, "")
	if err != nil {
		return Token{}, fmt.Errorf("signin: counting the tokens: %w", err)
	}
	if len(have.Items) >= maxTokens {
		return Token{}, fault.New(fault.Conflict, "you have %d API tokens, which is the most: delete some", len(have.Items))
	}
	bearer := secret.New(tokenPrefix + random.Secret().Reveal())
	stored := store.APIToken{
		ID: s.NewID(), User: who.User.ID, Name: name, Hash: bearer.Hash(), CreatedAt: s.Now().UTC(), ExpiresAt: expires.UTC(),
	}
	if err := s.Store.PutToken(ctx, stored); err != nil {
		return Token{}, fmt.Errorf("signin: storing the token: %w", err)
	}
	made := shown(stored)
	made.Secret = bearer.Reveal()
	return made, nil
}

// Tokens lists the caller's tokens, without their secrets.
func (s *SignIn) Tokens(ctx context.Context, who Caller, cursor string) (store.Page[Token], error) {
	page, err := s.Store.Tokens(ctx, who.User.ID, cursor)
	if err != nil {
		return store.Page[Token]{}, fmt.Errorf("signin: listing the tokens: %w", err)
	}
	out := store.Page[Token]{Items: make([]Token, 0, len(page.Items)), Cursor: page.Cursor}
	for _, t := range page.Items {
		out.Items = append(out.Items, shown(t))
	}
	return out, nil
}

func shown(t store.APIToken) Token {
	return Token{ID: t.ID, Name: t.Name, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt}
}

// DeleteToken ends a token of the caller.
func (s *SignIn) DeleteToken(ctx context.Context, who Caller, id string) error {
	if err := s.Store.DeleteToken(ctx, who.User.ID, id); err != nil {
		return fmt.Errorf("signin: deleting the token: %w", err)
	}
	return nil
}
