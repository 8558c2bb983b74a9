package bitbucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

const (
	// Access and refresh tokens of more than 2,500 characters are usual.
	maxToken = 10_000

	// Bitbucket documents one hour and was seen to say two; this is for an
	// answer without expires_in, which was never seen.
	defaultLife = time.Hour
)

// Token is a grant's pair of tokens.
type Token struct {
	Access    secret.Text
	Refresh   secret.Text // replaced at every refresh; the old one dies minutes later
	ExpiresAt time.Time   // of the access token
	Scopes    []string    // granted; see MissingScopes
}

// RequiredScopes answers the scopes the OAuth consumer has to have. Reading is
// enough: statuses need no write scope, and hooks have one of their own.
func RequiredScopes() []string { return []string{"account", "repository", "pullrequest", "webhook"} }

// MissingScopes answers which required scopes are neither granted nor implied by
// what is granted. A grant that lacks one cannot serve a connection.
func MissingScopes(granted []string) []string {
	has := slices.Clone(granted)
	for i := 0; i < len(has); i++ {
		for _, implied := range implies(has[i]) {
			if !slices.Contains(has, implied) {
				has = append(has, implied)
			}
		}
	}
	return slices.DeleteFunc(RequiredScopes(), func(s string) bool { return slices.Contains(has, s) })
}

// implies is Bitbucket's documented table, as far as it leads to a required
// scope. The admin scopes imply nothing.
func implies(scope string) []string {
	switch scope {
	case "account:write":
		return []string{"account"}
	case "repository:write", "pullrequest", "project":
		return []string{"repository"}
	case "pullrequest:write":
		return []string{"pullrequest", "repository:write"}
	}
	return nil
}

// AuthorizeURL answers the address of the consent page. The state is echoed to
// the callback; the PKCE verifier (43 to 128 characters of RFC 7636) goes only
// as its S256 challenge. PKCE is not documented for Bitbucket, so that state and
// client secret stay the defence.
func (b *Bitbucket) AuthorizeURL(state, verifier string) string {
	return b.oauth.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier))
}

// Exchange redeems the code of a callback, with the verifier of its AuthorizeURL.
// Invalid says that the code was not accepted (used, expired, another's): sign in
// again. The code is single-use, so nothing is repeated.
func (b *Bitbucket) Exchange(ctx context.Context, code, verifier string) (Token, error) {
	grant := grantRequest{"exchanging the sign-in code", fault.Invalid, []secret.Text{secret.New(code), secret.New(verifier)}}
	return b.obtain(ctx, grant, func(ctx context.Context, client *oauth2.Config) (*oauth2.Token, error) {
		return client.Exchange(ctx, code, oauth2.VerifierOption(verifier))
	})
}

// Refresh redeems a refresh token for a new pair. It is called by one process at
// a time for a connection, which stores the answer before it uses it.
//
// Revoked says that Bitbucket refused the token. That is a possible revocation
// only: a token that was just replaced is refused in the same words, and so,
// briefly, is a valid one after it. The caller confirms by spaced tries. Unknown
// says that the answer was lost: Bitbucket may have replaced the token, and
// accepts the old one for some minutes.
func (b *Bitbucket) Refresh(ctx context.Context, refresh secret.Text) (Token, error) {
	if refresh.Empty() {
		return Token{}, fault.New(fault.Internal, "bitbucket: refresh without a token")
	}
	grant := grantRequest{"refreshing the access", fault.Revoked, []secret.Text{refresh}}
	return b.obtain(ctx, grant, func(ctx context.Context, client *oauth2.Config) (*oauth2.Token, error) {
		return client.TokenSource(ctx, &oauth2.Token{RefreshToken: refresh.Reveal()}).Token()
	})
}

// grantRequest is what is to be known of a call to the token endpoint to explain
// its failure.
type grantRequest struct {
	doing   string
	refused fault.Kind // of a code or token that Bitbucket does not accept
	private []secret.Text
}

// askFunc calls the token endpoint once.
type askFunc func(ctx context.Context, client *oauth2.Config) (*oauth2.Token, error)

// obtain asks with the client's secret. Bitbucket refuses a secret that was replaced in the words in which it
// refuses a code or a token; so before a refusal is believed, the secret is looked up again, and when it
// has become another one, that is tried: a client that was refused has used up nothing.
func (b *Bitbucket) obtain(ctx context.Context, g grantRequest, ask askFunc) (Token, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	client, err := b.secret.Get(ctx, secret.Text{})
	if err != nil {
		return Token{}, fmt.Errorf("bitbucket: the client's secret for %s: %w", g.doing, err)
	}
	token, refused, err := b.obtainAs(ctx, g, client, ask)
	if !refused {
		return token, err
	}
	now, secretErr := b.secret.Get(ctx, client)
	if secretErr != nil {
		return Token{}, fmt.Errorf("bitbucket: the client's secret after a refusal, %s: %w", g.doing, secretErr)
	}
	if now.Equal(client) {
		return Token{}, err
	}
	token, _, err = b.obtainAs(ctx, g, now, ask)
	return token, err
}

// obtainAs asks once. Refused says that it may have been the client which Bitbucket did not accept.
func (b *Bitbucket) obtainAs(ctx context.Context, g grantRequest, client secret.Text, ask askFunc) (token Token, refused bool, err error) {
	g.private = append(g.private, client)
	ctx, sent := traceSent(ctx)
	asked := b.now()
	config := b.oauth
	config.ClientSecret = client.Reveal()
	raw, err := ask(context.WithValue(ctx, oauth2.HTTPClient, b.http), &config)
	if err != nil {
		return Token{}, refusesClient(err), b.explain(g, err, sent())
	}
	if len(raw.AccessToken) > maxToken || len(raw.RefreshToken) > maxToken {
		return Token{}, false, fault.New(fault.TooLarge, "Bitbucket, %s: a token of more than %d characters", g.doing, maxToken)
	}
	life := time.Duration(raw.ExpiresIn) * time.Second
	if life <= 0 {
		life = defaultLife
	}
	return Token{
		Access:    secret.New(raw.AccessToken),
		Refresh:   secret.New(raw.RefreshToken),
		ExpiresAt: asked.Add(life),
		Scopes:    append(scopes(raw.Extra("scope")), scopes(raw.Extra("scopes"))...),
	}, false, nil
}

// scopes reads both spellings Bitbucket has used: since May 2026 "scope", before
// it "scopes".
func scopes(value any) []string {
	switch v := value.(type) {
	case string:
		return strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ',' })
	case []any:
		var list []string
		for _, item := range v {
			list = append(list, scopes(item)...)
		}
		return list
	}
	return nil
}

// explain classifies a failed call to the token endpoint. The library's errors
// quote whole bodies, so none of them is kept.
func (b *Bitbucket) explain(g grantRequest, err error, sent bool) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil {
		return b.unanswered(g, err, sent)
	}
	status := refused.Response.StatusCode
	kind := kindOf(status, http.MethodPost)
	switch {
	case status == http.StatusBadRequest && refusesGrant(refused.ErrorCode):
		kind = g.refused
	case status < 300:
		kind = fault.Unknown // carried out, perhaps, and answered with nonsense
	case status < 500 && kind != fault.RateLimited && kind != fault.Unavailable:
		// A wrong client id or secret, address or request: ours to mend.
		kind = fault.Internal
	}
	said := redact(plain(refused.ErrorCode+" "+refused.ErrorDescription, 200), g.private...)
	e := fault.New(kind, "Bitbucket, %s: %s (%d)", g.doing, meaning(kind), status)
	e.Cause = fmt.Errorf("the token endpoint said %q", said)
	if kind == fault.RateLimited {
		e.RetryAfter = retryAfter(refused.Response.Header, b.now())
	}
	return e
}

// refusesGrant knows the codes with which Bitbucket was seen to refuse a code or
// a refresh token; the first two say "client" and "request" and mean the token.
func refusesGrant(code string) bool {
	return code == "unauthorized_client" || code == "invalid_request" || code == "invalid_grant"
}

// refusesClient reports whether a refusal may be about the client: Bitbucket says so with a
// code that it uses for tokens as well, and others with a 401.
func refusesClient(err error) bool {
	var e *oauth2.RetrieveError
	if !errors.As(err, &e) || e.Response == nil {
		return false
	}
	status := e.Response.StatusCode
	return status == http.StatusUnauthorized ||
		status == http.StatusBadRequest && (e.ErrorCode == "unauthorized_client" || e.ErrorCode == "invalid_client")
}

func (b *Bitbucket) unanswered(g grantRequest, err error, sent bool) error {
	kind := fault.Unavailable
	if sent {
		kind = fault.Unknown
	}
	e := fault.New(kind, "Bitbucket, %s: no usable answer", g.doing)
	if text := redact(plain(err.Error(), 300), g.private...); text != "" {
		e.Cause = errors.New(text)
	}
	return e
}
