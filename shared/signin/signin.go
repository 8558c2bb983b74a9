// Package signin knows who is calling: people who sign in with Bitbucket and their
// sessions, and the personal API tokens of their scripts. It also decides who may sign
// in to this installation at all. What somebody may do once inside is decided by
// package access. It knows no cookies and no headers; the tokens Bitbucket gives for a
// sign-in are used for two questions and thrown away.
package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/consent"
	"runnerhub/shared/fault"
	"runnerhub/shared/random"
	"runnerhub/shared/secret"
	"runnerhub/shared/store"
)

// SessionLife is how long a session lasts, counted from the sign-in and not renewed by
// use: a month is how long a stolen cookie, or the session of somebody who left the
// Bitbucket workspace, can work at most.
const SessionLife = 30 * 24 * time.Hour

// maxWorkspacePages bounds the search for an allowed workspace: 100 are on a page.
const maxWorkspacePages = 20

// Deps is what a SignIn needs.
type Deps struct {
	Store     *store.Store
	Bitbucket *bitbucket.Bitbucket
	Consent   *consent.Consent
	PublicURL string // of this installation; on loopback anyone may sign in
	// Allowed lists the Bitbucket workspaces, by UUID with braces or by slug, whose members
	// may sign in. A slug stands for the workspace that has it when one of its members first
	// signs in, and for that one ever after. Empty: anyone on loopback, and elsewhere the first who comes, who then
	// owns the installation, and members of a workspace of it.
	Allowed []string
	Now     func() time.Time
	NewID   func() string
	Log     *slog.Logger
}

// SignIn signs people in and recognises them.
type SignIn struct {
	Deps
	*Callers

	loopback bool
}

// New makes a SignIn.
func New(d Deps) (*SignIn, error) {
	if d.Store == nil || d.Bitbucket == nil || d.Consent == nil || d.Now == nil || d.NewID == nil || d.Log == nil {
		return nil, errors.New("signin: a dependency is missing")
	}
	u, err := url.Parse(d.PublicURL)
	if err != nil || u.Host == "" {
		return nil, errors.New("signin: PublicURL is no absolute address")
	}
	if slices.Contains(d.Allowed, "") {
		return nil, errors.New("signin: an allowed workspace without a name")
	}
	callers, err := NewCallers(d.Store)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return &SignIn{Deps: d, Callers: callers, loopback: u.Hostname() == "localhost" || (err == nil && ip.IsLoopback())}, nil
}

// Session is a fresh sign-in.
type Session struct {
	Secret    secret.Text // for the cookie; empty when consent was refused
	ExpiresAt time.Time
	Return    string // path on this server to go to
}

// Return is a browser that came back from Bitbucket.
type Return struct {
	State, Code secret.Text
	Error       string      // of the query; empty when consent was given
	Browser     secret.Text // what Begin tied the state to
	Old         secret.Text // of the session the browser still has, which ends
}

// Begin answers the address of Bitbucket's consent page. Browser is a secret that the
// browser shows again when it returns.
func (s *SignIn) Begin(ctx context.Context, browser secret.Text, returnPath string) (string, error) {
	if browser.Empty() {
		return "", errors.New("signin: a sign-in without a browser")
	}
	return s.Consent.Begin(ctx, consent.SignIn, store.OAuthState{Session: browser.Hash(), Return: returnPath})
}

// Finish makes a session of a return. A refused consent is no error: then there is a
// path to go to and no session.
func (s *SignIn) Finish(ctx context.Context, r Return) (Session, error) {
	state, err := s.Consent.Take(ctx, consent.SignIn, r.State, r.Browser.Hash())
	if err != nil {
		return Session{}, err
	}
	if r.Error == "access_denied" {
		return Session{Return: consent.Denied(state.Return)}, nil
	}
	if r.Error != "" || r.Code.Empty() {
		return Session{}, fault.New(fault.Invalid, "Bitbucket did not complete the sign-in: try again")
	}
	user, err := s.identify(ctx, r.Code, state.Verifier)
	if err != nil {
		return Session{}, err
	}
	session := Session{Secret: random.Secret(), ExpiresAt: s.Now().Add(SessionLife), Return: state.Return}
	stored := store.Session{User: user.ID, CreatedAt: s.Now(), ExpiresAt: session.ExpiresAt}
	if err := s.Store.PutSession(ctx, session.Secret.Hash(), stored); err != nil {
		return Session{}, fmt.Errorf("signin: storing the session: %w", err)
	}
	if err := s.SignOut(ctx, r.Old); err != nil {
		return Session{}, err
	}
	return session, nil
}

// identify answers who gave consent, if he may come in. The tokens end with it.
func (s *SignIn) identify(ctx context.Context, code secret.Text, verifier string) (ci.User, error) {
	token, err := s.Bitbucket.Exchange(ctx, code.Reveal(), verifier)
	if err != nil {
		return ci.User{}, fmt.Errorf("signin: exchanging the code: %w", err)
	}
	client := s.Bitbucket.As(func(context.Context, secret.Text) (secret.Text, error) { return token.Access, nil })
	account, err := client.User(ctx)
	if err != nil {
		return ci.User{}, fmt.Errorf("signin: asking who it is: %w", err)
	}
	if len(s.Allowed) > 0 {
		if err := s.inAllowedWorkspace(ctx, client); err != nil {
			return ci.User{}, err
		}
	}
	user, err := s.Store.SignIn(ctx, account.UUID, account.Nickname, account.Name)
	if err != nil {
		return ci.User{}, fmt.Errorf("signin: storing the user: %w", err)
	}
	if len(s.Allowed) == 0 && !s.loopback {
		return user, s.ofThisInstallation(ctx, user)
	}
	return user, nil
}

// inAllowedWorkspace admits members of an allowed workspace. What a slug was pinned to
// counts, whatever is called so now: else whoever takes over a slug that was given up
// would come in.
func (s *SignIn) inAllowedWorkspace(ctx context.Context, client *bitbucket.Client) error {
	uuids, open, err := s.allowed(ctx)
	if err != nil {
		return err
	}
	cursor := ""
	for range maxWorkspacePages {
		page, err := client.Workspaces(ctx, cursor)
		if err != nil {
			return fmt.Errorf("signin: asking for the workspaces: %w", err)
		}
		for _, w := range page.Items {
			uuid := strings.ToLower(w.UUID)
			if slug := strings.ToLower(w.Slug); open[slug] {
				pinned, err := s.Store.PinAllowedWorkspace(ctx, slug, uuid)
				if err != nil {
					return fmt.Errorf("signin: pinning an allowed workspace: %w", err)
				}
				delete(open, slug)
				uuids[pinned] = true
				s.Log.Info("an allowed workspace is from now on known by its UUID", "slug", slug, "workspace", pinned)
			}
			if uuids[uuid] {
				return nil
			}
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	return fault.New(fault.Forbidden, "this installation is for members of certain Bitbucket workspaces, and your account is in none of them")
}

// allowed answers the UUIDs of the allowed workspaces, and the slugs among them that
// stand for none yet; all in lower case.
func (s *SignIn) allowed(ctx context.Context) (uuids, open map[string]bool, err error) {
	uuids, open = map[string]bool{}, map[string]bool{}
	for _, name := range s.Allowed {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "{") {
			uuids[name] = true
			continue
		}
		uuid, err := s.Store.AllowedWorkspace(ctx, name)
		switch {
		case fault.Is(err, fault.NotFound):
			open[name] = true
		case err != nil:
			return nil, nil, fmt.Errorf("signin: reading an allowed workspace: %w", err)
		default:
			uuids[uuid] = true
		}
	}
	return uuids, open, nil
}

func (s *SignIn) ofThisInstallation(ctx context.Context, user ci.User) error {
	owner, err := s.Store.ClaimInstallation(ctx, user.ID)
	if err != nil {
		return fmt.Errorf("signin: reading who owns the installation: %w", err)
	}
	if owner == user.ID {
		return nil
	}
	workspaces, err := s.Store.WorkspacesOf(ctx, user.ID, "")
	if err != nil {
		return fmt.Errorf("signin: reading the user's workspaces: %w", err)
	}
	if len(workspaces.Items) == 0 {
		return fault.New(fault.Forbidden, "this installation belongs to somebody else: ask its owner to add %s to a workspace", user.Nickname)
	}
	return nil
}

// SignOut ends a session; one that is empty or unknown is no error.
func (s *SignIn) SignOut(ctx context.Context, cookie secret.Text) error {
	if cookie.Empty() {
		return nil
	}
	if err := s.Store.DeleteSession(ctx, cookie.Hash()); err != nil {
		return fmt.Errorf("signin: ending the session: %w", err)
	}
	return nil
}
