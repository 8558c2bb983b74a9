package store

import (
	"context"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Session is a browser's sign-in, kept under the hash of its cookie.
type Session struct {
	User      string    `json:"user"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

// APIToken is a personal token as its owner sees it; the secret itself is kept
// only as a hash.
type APIToken struct {
	ID        string    `json:"id"`
	User      string    `json:"user"`
	Name      string    `json:"name"`
	Hash      string    `json:"hash"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// OAuthState is what the server remembers between sending a browser to
// Bitbucket and its return, kept under the hash of the state parameter.
type OAuthState struct {
	Purpose   string    `json:"purpose"` // "signin" or "connect"
	Session   string    `json:"session"` // hash of the browser's binding cookie or session
	User      string    `json:"user,omitempty"`
	Workspace string    `json:"workspace,omitempty"`
	Verifier  string    `json:"verifier"` // PKCE
	Return    string    `json:"return"`   // relative path
	ExpiresAt time.Time `json:"expires_at"`
	// Confirm holds what waits for a confirmation: the sealed grant of an account
	// other than the one signed in.
	Confirm []byte `json:"confirm,omitempty"`
	Account string `json:"account,omitempty"`
}

func userKey(id string) table.Key         { return key("USER#"+id, "USER") }
func accountKey(account string) table.Key { return key("ACCOUNT#"+account, "USER") }
func allowedKey(slug string) table.Key    { return key("INSTALLATION", "ALLOWED#"+slug) }
func sessionKey(hash string) table.Key    { return key("SESSION#"+hash, "SESSION") }
func tokenKey(hash string) table.Key      { return key("TOKEN#"+hash, "TOKEN") }
func oauthKey(hash string) table.Key      { return key("OAUTH#"+hash, "STATE") }

// User answers a person.
func (s *Store) User(ctx context.Context, id string) (ci.User, error) {
	u, _, err := get[ci.User](ctx, s, userKey(id), "user")
	return u, err
}

// SignIn answers the user of a Bitbucket account, made on the first sign-in, with
// the names of today.
func (s *Store) SignIn(ctx context.Context, account, nickname, name string) (ci.User, error) {
	var user ci.User
	err := s.again(ctx, func() error {
		id, known, err := find[string](ctx, s, accountKey(account), "account")
		if err != nil {
			return err
		}
		var c change
		if known == 0 {
			user = ci.User{ID: s.newID(), Account: account, Nickname: nickname, Name: name, CreatedAt: s.now()}
			c.put(accountKey(account), user.ID, table.Absent())
			c.put(userKey(user.ID), user, table.Absent())
			return s.commit(ctx, &c)
		}
		u, version, err := get[ci.User](ctx, s, userKey(id), "user")
		if err != nil {
			return err
		}
		user = u
		if u.Nickname == nickname && u.Name == name {
			return nil
		}
		user.Nickname, user.Name = nickname, name
		c.put(userKey(id), user, table.VersionIs(version))
		return s.commit(ctx, &c)
	})
	return user, err
}

// InstallationOwner answers the user who owns the installation, or fault.NotFound
// while nobody does.
func (s *Store) InstallationOwner(ctx context.Context) (string, error) {
	id, _, err := get[string](ctx, s, key("INSTALLATION", "OWNER"), "owner of the installation")
	return id, err
}

// ClaimInstallation makes user the owner if nobody is, and answers who is.
func (s *Store) ClaimInstallation(ctx context.Context, user string) (string, error) {
	return s.pin(ctx, key("INSTALLATION", "OWNER"), user, "owner of the installation")
}

// AllowedWorkspace answers the UUID of the Bitbucket workspace that a slug among the
// allowed ones stands for, or fault.NotFound before PinAllowedWorkspace.
func (s *Store) AllowedWorkspace(ctx context.Context, slug string) (string, error) {
	uuid, _, err := get[string](ctx, s, allowedKey(slug), "allowed workspace")
	return uuid, err
}

// PinAllowedWorkspace makes slug stand for uuid, if it stands for none yet, and answers
// for which it does. Slugs are given away again on Bitbucket, UUIDs are not.
func (s *Store) PinAllowedWorkspace(ctx context.Context, slug, uuid string) (string, error) {
	return s.pin(ctx, allowedKey(slug), uuid, "allowed workspace")
}

// PutSession stores a session under the hash of its secret.
func (s *Store) PutSession(ctx context.Context, hash string, session Session) error {
	var c change
	c.putUntil(sessionKey(hash), session, table.Condition{}, session.ExpiresAt)
	return s.settle(ctx, &c)
}

// Session answers a session that has not expired.
func (s *Store) Session(ctx context.Context, hash string) (Session, error) {
	session, _, err := get[Session](ctx, s, sessionKey(hash), "session")
	if err == nil && !s.now().Before(session.ExpiresAt) {
		return Session{}, fault.New(fault.NotFound, "no such session")
	}
	return session, err
}

// DeleteSession ends a session.
func (s *Store) DeleteSession(ctx context.Context, hash string) error {
	var c change
	c.delete(sessionKey(hash), table.Condition{})
	return s.settle(ctx, &c)
}

// PutOAuthState stores a state under the hash of its parameter, which is random:
// there is no other one to be overwritten.
func (s *Store) PutOAuthState(ctx context.Context, hash string, state OAuthState) error {
	var c change
	c.putUntil(oauthKey(hash), state, table.Condition{}, state.ExpiresAt)
	return s.settle(ctx, &c)
}

// TakeOAuthState answers a state that has not expired and removes it: only one
// caller ever gets it.
func (s *Store) TakeOAuthState(ctx context.Context, hash string) (OAuthState, error) {
	state, version, err := get[OAuthState](ctx, s, oauthKey(hash), "OAuth state")
	if err != nil {
		return OAuthState{}, err
	}
	var c change
	c.delete(oauthKey(hash), table.VersionIs(version))
	// A lost race and an outcome not learned are both refusals: the state may have been used.
	if err := s.commit(ctx, &c); err != nil {
		return OAuthState{}, err
	}
	if !s.now().Before(state.ExpiresAt) {
		return OAuthState{}, fault.New(fault.NotFound, "no such OAuth state")
	}
	return state, nil
}

// PutToken stores a personal API token, whose hash and id are random.
func (s *Store) PutToken(ctx context.Context, t APIToken) error {
	var c change
	c.putUntil(tokenKey(t.Hash), t, table.Condition{}, t.ExpiresAt)
	c.putUntil(key("USER#"+t.User, "TOKEN#"+t.ID), t, table.Condition{}, t.ExpiresAt)
	return s.settle(ctx, &c)
}

// TokenByHash answers a token that has not expired.
func (s *Store) TokenByHash(ctx context.Context, hash string) (APIToken, error) {
	t, _, err := get[APIToken](ctx, s, tokenKey(hash), "token")
	if err == nil && !t.ExpiresAt.IsZero() && !s.now().Before(t.ExpiresAt) {
		return APIToken{}, fault.New(fault.NotFound, "no such token")
	}
	return t, err
}

// Tokens lists a user's tokens.
func (s *Store) Tokens(ctx context.Context, user, cursor string) (Page[APIToken], error) {
	from, before := table.Prefix("TOKEN#")
	return list[APIToken](ctx, s, table.Query{Partition: "USER#" + user, From: from, Before: before, Cursor: cursor}, "tokens")
}

// DeleteToken ends a token of a user.
func (s *Store) DeleteToken(ctx context.Context, user, id string) error {
	t, _, err := get[APIToken](ctx, s, key("USER#"+user, "TOKEN#"+id), "token")
	if err != nil {
		return err
	}
	var c change
	c.delete(tokenKey(t.Hash), table.Condition{})
	c.delete(key("USER#"+user, "TOKEN#"+id), table.Condition{})
	return s.settle(ctx, &c)
}
