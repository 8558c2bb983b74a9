package bitbucket_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

const (
	verifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // of RFC 7636, appendix B
	challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

func TestAuthorizeURL(t *testing.T) {
	t.Parallel()
	f := newForge(t, http.NotFound)
	u, err := url.Parse(f.bitbucket(t).AuthorizeURL("st&te", verifier))
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"response_type": {"code"}, "client_id": {"consumer"}, "state": {"st&te"},
		"redirect_uri": {"https://ci.example.com/auth/callback"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}
	if !reflect.DeepEqual(u.Query(), want) || u.Path != "/site/oauth2/authorize" || u.Host != strings.TrimPrefix(f.URL, "http://") {
		t.Errorf("%s", u)
	}
}

func TestGrant(t *testing.T) {
	t.Parallel()
	access, refresh := strings.Repeat("a", 2600), strings.Repeat("r", 10_000)
	answer := func(rest string) http.HandlerFunc {
		return says(200, "application/json", `{"access_token":"`+access+`","refresh_token":"`+refresh+`","token_type":"bearer"`+rest+`}`)
	}
	for name, c := range map[string]struct {
		rest   string
		life   time.Duration
		scopes []string
	}{
		"today":           {`,"expires_in":7200,"scope":"account repository"`, 2 * time.Hour, []string{"account", "repository"}},
		"before May 2026": {`,"expires_in":3600,"scopes":"webhook account"`, time.Hour, []string{"webhook", "account"}},
		"both":            {`,"expires_in":"60","scope":"a","scopes":"a b"`, time.Minute, []string{"a", "a", "b"}},
		"commas":          {`,"expires_in":60,"scope":"a,b, c"`, time.Minute, []string{"a", "b", "c"}},
		"a list":          {`,"expires_in":60,"scopes":["a","b c",7]`, time.Minute, []string{"a", "b", "c"}},
		"neither":         {``, time.Hour, nil},
		"negative life":   {`,"expires_in":-1`, time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForge(t, answer(c.rest))
			b := f.bitbucket(t)
			for leg, ask := range map[string]func() (bitbucket.Token, error){
				"exchange": func() (bitbucket.Token, error) { return b.Exchange(t.Context(), "c0de", verifier) },
				"refresh":  func() (bitbucket.Token, error) { return b.Refresh(t.Context(), secret.New("old")) },
			} {
				got, err := ask()
				if err != nil {
					t.Fatal(err)
				}
				if got.Access.Reveal() != access || got.Refresh.Reveal() != refresh ||
					!got.ExpiresAt.Equal(noon().Add(c.life)) || !slices.Equal(got.Scopes, c.scopes) {
					t.Errorf("%s: expires %v, scopes %q", leg, got.ExpiresAt, got.Scopes)
				}
			}
			for _, r := range f.requests() {
				form, err := url.ParseQuery(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				want := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"old"}}
				if form.Get("grant_type") == "authorization_code" {
					want = url.Values{
						"grant_type": {"authorization_code"}, "code": {"c0de"}, "code_verifier": {verifier},
						"redirect_uri": {"https://ci.example.com/auth/callback"},
					}
				}
				if !reflect.DeepEqual(form, want) || r.Method != http.MethodPost || r.URI != "/site/oauth2/access_token" ||
					r.Authorization != "Basic Y29uc3VtZXI6Y29uc3VtZXItc2VjcmV0" || r.ContentType != "application/x-www-form-urlencoded" {
					t.Errorf("sent %+v", r)
				}
			}
		})
	}
}

// TestGrantRefused is the table of what a failure at the token endpoint means.
func TestGrantRefused(t *testing.T) {
	t.Parallel()
	refusal := func(status int, code string) http.HandlerFunc {
		return says(status, "application/json", `{"error":"`+code+`","error_description":"Invalid OAuth client credentials"}`)
	}
	for name, c := range map[string]struct {
		answer            http.HandlerFunc
		timeout           time.Duration
		refresh, exchange fault.Kind
	}{
		"unauthorized_client":    {refusal(400, "unauthorized_client"), 0, fault.Revoked, fault.Invalid},
		"invalid_grant":          {refusal(400, "invalid_grant"), 0, fault.Revoked, fault.Invalid},
		"invalid_request":        {refusal(400, "invalid_request"), 0, fault.Revoked, fault.Invalid},
		"unsupported_grant_type": {refusal(400, "unsupported_grant_type"), 0, fault.Internal, fault.Internal},
		"400 without a code":     {says(400, "text/html", "<h1>Bad request</h1>"), 0, fault.Internal, fault.Internal},
		"401 invalid_client":     {refusal(401, "invalid_client"), 0, fault.Internal, fault.Internal},
		"403":                    {refusal(403, ""), 0, fault.Internal, fault.Internal},
		"404":                    {http.NotFound, 0, fault.Internal, fault.Internal},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		}, 0, fault.Internal, fault.Internal},
		"408":                 {refusal(408, ""), 0, fault.Unavailable, fault.Unavailable},
		"429":                 {says(429, "text/plain", "Rate limit for this resource has been exceeded"), 0, fault.RateLimited, fault.RateLimited},
		"429 with a bad form": {says(429, "text/plain", "100%; slow down"), 0, fault.RateLimited, fault.RateLimited},
		"500":                 {says(500, "text/html", "<h1>Oops</h1>"), 0, fault.Unavailable, fault.Unavailable},
		"502":                 {says(502, "text/html", ""), 0, fault.Unknown, fault.Unknown},
		"503":                 {says(503, "text/html", ""), 0, fault.Unavailable, fault.Unavailable},
		"504":                 {says(504, "text/html", ""), 0, fault.Unknown, fault.Unknown},
		"555":                 {says(555, "text/html", ""), 0, fault.Unavailable, fault.Unavailable},
		"connection cut":      {hangsUp, 0, fault.Unknown, fault.Unknown},
		"no answer in time":   {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 200 * time.Millisecond, fault.Unknown, fault.Unknown},
		"200 without a token": {says(200, "application/json", `{}`), 0, fault.Unknown, fault.Unknown},
		"200 with an error":   {refusal(200, "invalid_grant"), 0, fault.Unknown, fault.Unknown},
		"200 that is no JSON": {says(200, "application/json", "<html>"), 0, fault.Unknown, fault.Unknown},
		"200 that breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99")
			_, _ = w.Write([]byte("{"))
		}, 0, fault.Unknown, fault.Unknown},
		"an access token too long": {
			says(200, "application/json", `{"access_token":"`+strings.Repeat("a", 10_001)+`"}`), 0, fault.TooLarge, fault.TooLarge,
		},
		"a refresh token too long": {
			says(200, "application/json", `{"access_token":"a","refresh_token":"`+strings.Repeat("a", 10_001)+`"}`), 0, fault.TooLarge, fault.TooLarge,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForge(t, c.answer)
			b := f.bitbucket(t, func(d *bitbucket.Deps) {
				if c.timeout > 0 {
					d.Timeout = c.timeout
				}
			})
			if _, err := b.Refresh(t.Context(), secret.New("old")); !fault.Is(err, c.refresh) {
				t.Errorf("refresh: %v is of kind %v, want %v", err, fault.KindOf(err), c.refresh)
			}
			_, err := b.Exchange(t.Context(), "c0de", verifier)
			if !fault.Is(err, c.exchange) {
				t.Errorf("exchange: %v is of kind %v, want %v", err, fault.KindOf(err), c.exchange)
			}
			if c.exchange == fault.RateLimited && fault.RetryAfter(err) != time.Minute {
				t.Errorf("retry after %v", fault.RetryAfter(err))
			}
			if n := len(f.requests()); n != 2 {
				t.Errorf("asked %d times for two tokens", n)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, http.NotFound)
		b := f.bitbucket(t)
		f.Close()
		if _, err := b.Refresh(t.Context(), secret.New("old")); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%v is of kind %v", err, fault.KindOf(err))
		}
	})
	t.Run("no token to refresh", func(t *testing.T) {
		t.Parallel()
		f := newForge(t, http.NotFound)
		if _, err := f.bitbucket(t).Refresh(t.Context(), secret.Text{}); err == nil || len(f.requests()) != 0 {
			t.Errorf("%v after %d requests", err, len(f.requests()))
		}
	})
}

// TestGrantErrorsKeepSecrets has a token endpoint that repeats what it was sent,
// in every shape an error can take.
func TestGrantErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	secrets := []string{"old-refresh-token", "the-code", verifier, "consumer-secret"}
	echo := strings.Join(secrets, " ")
	for name, answer := range map[string]http.HandlerFunc{
		"description": says(400, "application/json", `{"error":"invalid_grant","error_description":"`+echo+`"}`),
		"code":        says(400, "application/json", `{"error":"`+echo+`"}`),
		"text":        says(400, "text/plain", echo),
		"html":        says(500, "text/html", echo),
		"no JSON":     says(200, "application/json", echo),
		"no token":    says(200, "application/json", `{"x":"`+echo+`"}`),
	} {
		f := newForge(t, answer)
		b := f.bitbucket(t)
		_, refreshErr := b.Refresh(t.Context(), secret.New(secrets[0]))
		_, exchangeErr := b.Exchange(t.Context(), secrets[1], verifier)
		for _, c := range []struct {
			err  error
			hide []string
		}{{refreshErr, []string{secrets[0], "consumer-secret"}}, {exchangeErr, []string{secrets[1], verifier, "consumer-secret"}}} {
			text := fmt.Sprintf("%v %+v", c.err, c.err)
			for _, s := range c.hide {
				if c.err == nil || strings.Contains(text, s) {
					t.Errorf("%s: %s", name, text)
				}
			}
		}
	}
}

func TestMissingScopes(t *testing.T) {
	t.Parallel()
	for granted, want := range map[string][]string{
		"account repository pullrequest webhook":  {},
		"webhook pullrequest account":             {}, // pullrequest implies repository
		"webhook pullrequest:write account:write": {},
		"":                                     bitbucket.RequiredScopes(),
		"account repository webhook":           {"pullrequest"},
		"account repository:write webhook":     {"pullrequest"},
		"account repository:admin webhook":     {"repository", "pullrequest"}, // admin implies nothing
		"repository pullrequest webhook email": {"account"},
		"account pullrequest":                  {"webhook"},
		"project account webhook":              {"pullrequest"},
	} {
		if got := bitbucket.MissingScopes(strings.Fields(granted)); !slices.Equal(got, want) {
			t.Errorf("%q lacks %q, want %q", granted, got, want)
		}
	}
}

// TestCancelledGrant shows that a caller who gives up ends the call.
func TestCancelledGrant(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := newForge(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := f.bitbucket(t).Refresh(ctx, secret.New("old")); !fault.Is(err, fault.Unknown) {
		t.Errorf("%v is of kind %v", err, fault.KindOf(err))
	}
}

// rotating is a client secret that was replaced; what was read before is answered until it is refused.
type rotating struct {
	mu        sync.Mutex
	kept, now string
	err       error // of looking it up again
	asked     int
}

func (r *rotating) Get(_ context.Context, refused secret.Text) (secret.Text, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if refused.Equal(secret.New(r.kept)) {
		if r.err != nil {
			return secret.Text{}, r.err
		}
		r.kept = r.now
	}
	return secret.New(r.kept), nil
}

// Bitbucket refuses a wrong client secret like a dead token. It is believed when the secret is known to be the right one.
func TestReplacedClientSecret(t *testing.T) {
	t.Parallel()
	refusal := says(400, "application/json", `{"error":"unauthorized_client","error_description":"Invalid OAuth client credentials"}`)
	away := fault.New(fault.Unavailable, "no answer")
	for name, c := range map[string]struct {
		kept, now string
		err       error
		answer    http.HandlerFunc // to the right secret
		refused   http.HandlerFunc // to another one
		kind      fault.Kind
		ok        bool
		calls     int // to Bitbucket
		asked     int // for the secret
	}{
		"replaced":                        {kept: "old", now: "right", refused: refusal, ok: true, calls: 2, asked: 2},
		"replaced, 401":                   {kept: "old", now: "right", refused: says(401, "application/json", `{"error":"invalid_client"}`), ok: true, calls: 2, asked: 2},
		"the right one, a dead token":     {kept: "right", now: "right", answer: refusal, kind: fault.Revoked, calls: 1, asked: 2},
		"replaced, and a dead token":      {kept: "old", now: "right", refused: refusal, answer: refusal, kind: fault.Revoked, calls: 2, asked: 2},
		"replaced by a wrong one":         {kept: "old", now: "wrong", refused: refusal, kind: fault.Revoked, calls: 2, asked: 2},
		"nobody knows":                    {kept: "old", now: "right", err: away, refused: refusal, kind: fault.Unavailable, calls: 1, asked: 2},
		"another refusal":                 {kept: "old", now: "right", refused: says(400, "application/json", `{"error":"invalid_grant"}`), kind: fault.Revoked, calls: 1, asked: 1},
		"replaced, and no answer to that": {kept: "old", now: "right", refused: refusal, answer: hangsUp, kind: fault.Unknown, calls: 2, asked: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.answer == nil {
				c.answer = says(200, "application/json", `{"access_token":"a","refresh_token":"r","expires_in":60}`)
			}
			f := newForge(t, func(w http.ResponseWriter, r *http.Request) {
				if _, password, _ := r.BasicAuth(); password == "right" {
					c.answer(w, r)
				} else {
					c.refused(w, r)
				}
			})
			client := &rotating{kept: c.kept, now: c.now, err: c.err}
			b := f.bitbucket(t, func(d *bitbucket.Deps) { d.ClientSecret = client })
			_, err := b.Refresh(t.Context(), secret.New("old"))
			if c.ok != (err == nil) || !c.ok && !fault.Is(err, c.kind) {
				t.Errorf("%v of kind %v", err, fault.KindOf(err))
			}
			if n := len(f.requests()); n != c.calls || client.asked != c.asked {
				t.Errorf("%d calls, asked %d times for the secret", n, client.asked)
			}
		})
	}
	f := newForge(t, http.NotFound)
	b := f.bitbucket(t, func(d *bitbucket.Deps) { d.ClientSecret = &rotating{err: away} })
	if _, err := b.Exchange(t.Context(), "c0de", verifier); !fault.Is(err, fault.Unavailable) || len(f.requests()) != 0 {
		t.Errorf("without a secret: %v after %d calls", err, len(f.requests()))
	}
}
