package sandbox

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	codeLife     = 2 * time.Minute
	accessLife   = 2 * time.Hour       // token_seconds changes it
	refreshGrace = 10 * time.Minute    // of a rotated refresh token; grace_ms changes it
	refreshLife  = 90 * 24 * time.Hour // of an unused one
	tokenBytes   = 1950                // 2,600 characters: clients must have room for more than 2,500
)

// A code is what the consent page hands out, to be exchanged once. Only its hash is
// stored, here and with tokens.
type code struct {
	Hash, User, RedirectURI, Challenge string
	ExpiresAt                          time.Time
}

func (c *code) kind() string { return "code" }
func (c *code) key() string  { return c.Hash }

// A grant is one user's consent to the consumer. All tokens hang on it.
type grant struct {
	ID, User  string
	Revoked   bool
	CreatedAt time.Time
}

func (g *grant) kind() string { return "grant" }
func (g *grant) key() string  { return g.ID }

// A token is an access or a refresh token.
type token struct {
	Hash, Grant string
	Refresh     bool
	Scopes      []string
	Rotated     bool // a refresh token that was used; it dies at ExpiresAt
	ExpiresAt   time.Time
}

func (t *token) kind() string { return "token" }
func (t *token) key() string  { return t.Hash }

func hashToken(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func newSecret(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // documented never to fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// userWithToken opens an access token.
func (s *Sandbox) userWithToken(text string) (*user, []string, error) {
	invalid := refuse(http.StatusUnauthorized, "Token is invalid, expired, or not supported for this endpoint.")
	var held *token
	var owner *user
	s.store.read(func(d *data) {
		held = d.tokens[hashToken(text)]
		if held == nil {
			return
		}
		if g := d.grants[held.Grant]; g != nil && !g.Revoked {
			owner = d.users[g.User]
		}
	})
	switch {
	case held == nil || held.Refresh || owner == nil || s.faults.current().Revoked:
		return nil, nil, invalid
	case !s.now().Before(held.ExpiresAt):
		return nil, nil, refuse(http.StatusUnauthorized, "OAuth2 access token expired. Use your refresh token to obtain a new access token.")
	}
	return owner, held.Scopes, nil
}

// An authorization is a request to the consent page that may be shown.
type authorization struct {
	State, RedirectURI, Challenge string
}

// parseAuthorization checks the query. What is wrong is told to the user and never
// sent to an address that came with the request.
func (s *Sandbox) parseAuthorization(query url.Values) (authorization, obj) {
	a := authorization{State: query.Get("state"), RedirectURI: query.Get("redirect_uri"), Challenge: query.Get("code_challenge")}
	switch method := query.Get("code_challenge_method"); {
	case query.Get("client_id") != s.clientID:
		return a, oauthError("invalid_request", "Unknown OAuth client.")
	case s.callbackURL == "":
		return a, oauthError("invalid_request", "No callback uri defined for the OAuth client.")
	case query.Get("response_type") != "code":
		return a, oauthError("unsupported_response_type", "Only the response type code is supported.")
	case a.RedirectURI != "" && a.RedirectURI != s.callbackURL:
		return a, oauthError("invalid_request", "The redirect_uri is not the callback URL configured for the OAuth client.")
	case a.Challenge == "" && method != "", a.Challenge != "" && method != "S256":
		return a, oauthError("invalid_request", "PKCE is supported with a code_challenge and the method S256.")
	}
	return a, nil
}

func oauthError(kind, description string) obj {
	return obj{"error": kind, "error_description": description}
}

func (s *Sandbox) showConsent(w http.ResponseWriter, r *http.Request) {
	if _, problem := s.parseAuthorization(r.URL.Query()); problem != nil {
		writeJSON(w, http.StatusBadRequest, problem)
		return
	}
	s.renderConsent(w, r, http.StatusOK, "")
}

func (s *Sandbox) decideConsent(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	a, problem := s.parseAuthorization(r.URL.Query())
	if problem != nil {
		writeJSON(w, http.StatusBadRequest, problem)
		return
	}
	answer := url.Values{}
	if a.State != "" {
		answer.Set("state", a.State)
	}
	switch r.PostFormValue("action") {
	case "deny":
		answer.Set("error", "access_denied")
		answer.Set("error_description", "The user denied access.")
	case "grant":
		u := s.userWithPassword(r.PostFormValue("user"), r.PostFormValue("password"))
		if u == nil {
			s.renderConsent(w, r, http.StatusUnauthorized, "User and password do not match.")
			return
		}
		text := newSecret(24)
		err := s.store.update(func(t *tx) error {
			t.put(&code{Hash: hashToken(text), User: u.ID, RedirectURI: a.RedirectURI, Challenge: a.Challenge, ExpiresAt: s.now().Add(codeLife)})
			return nil
		})
		if err != nil {
			s.pageError(w, r, err)
			return
		}
		answer.Set("code", text)
	default:
		s.renderConsent(w, r, http.StatusBadRequest, "Grant or deny access.")
		return
	}
	separator := "?"
	if strings.Contains(s.callbackURL, "?") {
		separator = "&"
	}
	http.Redirect(w, r, s.callbackURL+separator+answer.Encode(), http.StatusFound)
}

// exchange answers POST /site/oauth2/access_token.
func (s *Sandbox) exchange(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	// Bitbucket says the same of a wrong secret, a dead refresh token and a revoked
	// grant, so nobody can take it as proof of any one of them.
	refused := oauthError("unauthorized_client", "Invalid OAuth client credentials")
	id, secret, _ := r.BasicAuth()
	right := subtle.ConstantTimeCompare([]byte(id), []byte(s.clientID)) & subtle.ConstantTimeCompare([]byte(secret), []byte(s.clientSecret))
	if right != 1 {
		writeJSON(w, http.StatusBadRequest, refused)
		return
	}
	var answer, problem obj
	var err error
	switch kind := r.PostFormValue("grant_type"); kind {
	case "authorization_code":
		answer, problem, err = s.redeemCode(r.PostForm)
	case "refresh_token":
		if s.faults.current().Revoked {
			problem = refused
			break
		}
		answer, problem, err = s.refresh(r.PostForm.Get("refresh_token"))
	default:
		problem = oauthError("invalid_grant", "Unsupported grant type: "+cmp.Or(kind, "None"))
	}
	switch {
	case err != nil:
		s.log.Error("sandbox: token request failed", "error", err)
		writeJSON(w, http.StatusInternalServerError, oauthError("server_error", "Something went wrong"))
	case problem != nil:
		writeJSON(w, http.StatusBadRequest, problem)
	default:
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, answer)
	}
}

func (s *Sandbox) redeemCode(form url.Values) (answer, problem obj, err error) {
	var found *code
	err = s.store.update(func(t *tx) error {
		found = t.codes[hashToken(form.Get("code"))]
		if found == nil {
			return nil
		}
		t.drop(found) // one try, right or wrong
		if problem = s.judgeCode(found, form); problem != nil {
			return nil
		}
		g := activeGrant(t.data, found.User)
		if g == nil {
			g = &grant{ID: newIdentity(), User: found.User, CreatedAt: s.now()}
			t.put(g)
		}
		answer = s.issue(t, g)
		return nil
	})
	if err == nil && found == nil {
		problem = oauthError("invalid_grant", "The specified code is not valid.")
	}
	return answer, problem, err
}

func (s *Sandbox) judgeCode(c *code, form url.Values) obj {
	verifier := form.Get("code_verifier")
	sum := sha256.Sum256([]byte(verifier))
	switch {
	case !s.now().Before(c.ExpiresAt):
		return oauthError("invalid_grant", "The specified code has expired.")
	case form.Get("redirect_uri") != c.RedirectURI:
		return oauthError("invalid_grant", "The redirect_uri is not the one of the authorization request.")
	case (verifier == "") != (c.Challenge == ""),
		c.Challenge != "" && base64.RawURLEncoding.EncodeToString(sum[:]) != c.Challenge:
		return oauthError("invalid_grant", "The code_verifier does not match the code_challenge.")
	}
	return nil
}

// activeGrant is a user's standing consent, or nil.
func activeGrant(d *data, userID string) *grant {
	for _, g := range d.grants {
		if g.User == userID && !g.Revoked {
			return g
		}
	}
	return nil
}

func (s *Sandbox) refresh(text string) (answer, problem obj, err error) {
	err = s.store.update(func(t *tx) error {
		held := t.tokens[hashToken(text)]
		if held == nil || !held.Refresh || !s.now().Before(held.ExpiresAt) || t.grants[held.Grant].Revoked {
			problem = oauthError("unauthorized_client", "Invalid OAuth client credentials")
			return nil
		}
		if !held.Rotated {
			dying := *held
			dying.Rotated = true
			dying.ExpiresAt = s.now().Add(s.faults.current().grace())
			t.put(&dying)
		}
		answer = s.issue(t, t.grants[held.Grant])
		return nil
	})
	return answer, problem, err
}

// issue makes a new pair of tokens and clears away what has been dead for a while.
func (s *Sandbox) issue(t *tx, g *grant) obj {
	life := s.faults.current().accessLife()
	access, refresh := newSecret(tokenBytes), newSecret(tokenBytes)
	t.put(&token{Hash: hashToken(access), Grant: g.ID, Scopes: s.scopes, ExpiresAt: s.now().Add(life)})
	t.put(&token{Hash: hashToken(refresh), Grant: g.ID, Scopes: s.scopes, Refresh: true, ExpiresAt: s.now().Add(refreshLife)})
	for _, old := range t.tokens {
		// An expired access token is told so for a day, before it becomes unknown.
		if old.ExpiresAt.Before(s.now().Add(-24 * time.Hour)) {
			t.drop(old)
		}
	}
	return obj{
		"access_token": access, "refresh_token": refresh, "token_type": "bearer",
		"expires_in": int(life / time.Second), "scope": strings.Join(s.scopes, " "),
	}
}

// revoke ends a user's consent: its tokens are dead at once.
func (s *Sandbox) revoke(userID, grantID string) error {
	return s.store.update(func(t *tx) error {
		g := t.grants[grantID]
		if g == nil || g.User != userID {
			return notFound("Authorization")
		}
		ended := *g
		ended.Revoked = true
		t.put(&ended)
		return nil
	})
}
