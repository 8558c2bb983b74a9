// Package connect ties workspaces to Bitbucket accounts, and apps to repositories: the
// way through Bitbucket's consent to a connection, what can be seen through it, and the
// webhook on a repository. Every method asks package access first, on behalf of a user,
// and the way back from Bitbucket asks again.
//
// It keeps no token usable; that is package grant. It reads no webhook; that is package
// ingest, which opens the hook secrets sealed here.
package connect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"runnerhub/shared/access"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/consent"
	"runnerhub/shared/fault"
	"runnerhub/shared/grant"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
	"runnerhub/shared/vault"
)

// provider is the only one there is.
const provider = "bitbucket"

// Deps is what a Connect needs.
type Deps struct {
	Store     *store.Store
	Bitbucket *bitbucket.Bitbucket
	Consent   *consent.Consent
	Grants    *grant.Keeper
	Hooks     vault.Vault // of hook secrets; nil for who ties no repositories
	PublicURL string      // of this installation, without a slash at its end; hook addresses begin with it
	Now       func() time.Time
	Log       *slog.Logger
}

// Connect makes and uses connections.
type Connect struct{ Deps }

// New makes a Connect.
func New(d Deps) (*Connect, error) {
	if d.Store == nil || d.Bitbucket == nil || d.Consent == nil || d.Grants == nil || d.Now == nil || d.Log == nil {
		return nil, errors.New("connect: a dependency is missing")
	}
	if u, err := url.Parse(d.PublicURL); err != nil || u.Host == "" || strings.HasSuffix(d.PublicURL, "/") {
		return nil, errors.New("connect: PublicURL is no absolute address without a slash at its end")
	}
	return &Connect{d}, nil
}

// Browser is who sits before a browser: a user in one session of his.
type Browser struct {
	User    ci.User
	Session string // hash; empty for a script that begins for him
}

// Begin answers the address of Bitbucket's consent page for a new connection of a
// workspace. The browser comes back in the same session, or in any of the user's when a
// script began, and ends on returnPath.
func (c *Connect) Begin(ctx context.Context, who Browser, workspace, from, returnPath string) (string, error) {
	if _, err := access.Workspace(ctx, c.Store, who.User.ID, workspace, ci.Configure); err != nil {
		return "", fmt.Errorf("connect: beginning: %w", err)
	}
	if from != provider {
		return "", fault.Field("provider", "is not %q, the only one there is", provider)
	}
	return c.Consent.Begin(ctx, consent.Connect, store.OAuthState{
		Session: who.Session, User: who.User.ID, Workspace: workspace, Return: returnPath,
	})
}

// Return is a browser that came back from Bitbucket.
type Return struct {
	State, Code secret.Text
	Error       string // of the query; empty when consent was given
}

// Outcome is where a browser goes next: to Return, unless Question is set.
type Outcome struct {
	Return   string
	Question *Question
}

// Question asks the user whether he means another account than his own.
type Question struct {
	Ticket    secret.Text // for Answer
	Account   string      // nickname of the account that consented
	Workspace string      // name
}

// pending is what waits for the answer to a Question. It is kept in the state, with the
// tokens sealed.
type pending struct {
	Connection ci.Connection `json:"connection"`
	Sealed     []byte        `json:"sealed"`
	ExpiresAt  time.Time     `json:"expires_at"`
}

// Finish makes a connection of a return, or renews the one the account has in this
// workspace.
func (c *Connect) Finish(ctx context.Context, who Browser, r Return) (Outcome, error) {
	state, err := c.take(ctx, who, consent.Connect, r.State)
	if err != nil {
		return Outcome{}, err
	}
	if r.Error == "access_denied" {
		return Outcome{Return: consent.Denied(state.Return)}, nil
	}
	if r.Error != "" || r.Code.Empty() {
		return Outcome{}, fault.New(fault.Invalid, "Bitbucket did not complete the authorisation: try again")
	}
	p, err := c.redeem(ctx, who.User, state, r.Code)
	if err != nil {
		return Outcome{}, err
	}
	if p.Connection.Account == who.User.Account {
		return Outcome{Return: state.Return}, c.put(ctx, p)
	}
	state.Session = who.Session
	question, err := c.ask(ctx, state, p)
	return Outcome{Question: question}, err
}

// take ends a state and checks that who may still do what he began.
func (c *Connect) take(ctx context.Context, who Browser, purpose consent.Purpose, ticket secret.Text) (store.OAuthState, error) {
	state, err := c.Consent.Take(ctx, purpose, ticket, who.Session)
	if err != nil {
		return store.OAuthState{}, err
	}
	if state.User != who.User.ID {
		return store.OAuthState{}, fault.New(fault.Forbidden, "this was begun by another user: start again")
	}
	if _, err := access.Workspace(ctx, c.Store, who.User.ID, state.Workspace, ci.Configure); err != nil {
		return store.OAuthState{}, fmt.Errorf("connect: coming back: %w", err)
	}
	return state, nil
}

// redeem exchanges the code and seals what it gives. The data key for the connection of
// the account that most likely consented, the user's own, is obtained first: when
// sealing cannot work, the code is not used up.
func (c *Connect) redeem(ctx context.Context, user ci.User, state store.OAuthState, code secret.Text) (pending, error) {
	id := connectionID(state.Workspace, user.Account)
	seal, err := c.Grants.Seal(ctx, id)
	if err != nil {
		return pending{}, fmt.Errorf("connect: preparing to seal: %w", err)
	}
	token, err := c.Bitbucket.Exchange(ctx, code.Reveal(), state.Verifier)
	if err != nil {
		return pending{}, fmt.Errorf("connect: exchanging the code: %w", err)
	}
	if missing := bitbucket.MissingScopes(token.Scopes); len(missing) > 0 {
		return pending{}, fault.New(fault.Forbidden,
			"Bitbucket did not grant %s: tick these permissions on the OAuth consumer in Bitbucket's workspace settings, and connect again", strings.Join(missing, ", "))
	}
	client := c.Bitbucket.As(func(context.Context, secret.Text) (secret.Text, error) { return token.Access, nil })
	account, err := client.User(ctx)
	if err != nil {
		return pending{}, fmt.Errorf("connect: asking whose grant it is: %w", err)
	}
	if account.UUID != user.Account {
		id = connectionID(state.Workspace, account.UUID)
		if seal, err = c.Grants.Seal(ctx, id); err != nil {
			return pending{}, fmt.Errorf("connect: preparing to seal: %w", err)
		}
	}
	sealed, err := seal(token)
	if err != nil {
		return pending{}, fmt.Errorf("connect: sealing the tokens: %w", err)
	}
	return pending{
		Connection: ci.Connection{
			ID: id, Workspace: state.Workspace, Provider: provider, Account: account.UUID, Nickname: account.Nickname,
			Scopes: token.Scopes, State: ci.ConnectionActive, CreatedBy: user.ID, CreatedAt: c.Now().UTC(),
		},
		Sealed: sealed, ExpiresAt: token.ExpiresAt,
	}, nil
}

// connectionID is the same whenever an account authorises for a workspace: authorising
// again renews the connection, two browsers at once make one, and everything that
// refers to it goes on. Workspace ids are random, so this one cannot be guessed.
func connectionID(workspace, account string) string {
	sum := sha256.Sum256([]byte("connection\n" + workspace + "\n" + provider + "\n" + account))
	return hex.EncodeToString(sum[:16])
}

// ask keeps what came back until the user answers.
func (c *Connect) ask(ctx context.Context, state store.OAuthState, p pending) (*Question, error) {
	workspace, err := c.Store.Workspace(ctx, state.Workspace)
	if err != nil {
		return nil, fmt.Errorf("connect: reading the workspace: %w", err)
	}
	state.Account = p.Connection.Account
	if state.Confirm, err = json.Marshal(p); err != nil {
		return nil, fmt.Errorf("connect: keeping a grant: %w", err)
	}
	ticket, err := c.Consent.Keep(ctx, consent.Confirm, state)
	if err != nil {
		return nil, err
	}
	return &Question{Ticket: ticket, Account: p.Connection.Nickname, Workspace: workspace.Name}, nil
}

// Answer is the user's answer to a Question, and answers where the browser goes. A no
// drops the grant.
func (c *Connect) Answer(ctx context.Context, who Browser, ticket secret.Text, yes bool) (string, error) {
	state, err := c.take(ctx, who, consent.Confirm, ticket)
	if err != nil {
		return "", err
	}
	if !yes {
		return consent.Denied(state.Return), nil
	}
	var p pending
	if err := json.Unmarshal(state.Confirm, &p); err != nil {
		return "", fmt.Errorf("connect: reading the kept grant: %w", err)
	}
	return state.Return, c.put(ctx, p)
}

func (c *Connect) put(ctx context.Context, p pending) error {
	known, err := c.Store.Connection(ctx, p.Connection.ID)
	switch {
	case err == nil:
		p.Connection.CreatedBy, p.Connection.CreatedAt = known.CreatedBy, known.CreatedAt
	case !fault.Is(err, fault.NotFound):
		return fmt.Errorf("connect: reading the connection: %w", err)
	}
	if err := c.Store.PutConnection(ctx, p.Connection, p.Sealed, p.ExpiresAt, c.Grants.Due()); err != nil {
		return fmt.Errorf("connect: storing the connection: %w", err)
	}
	c.Grants.Forget(p.Connection.ID)
	return nil
}
