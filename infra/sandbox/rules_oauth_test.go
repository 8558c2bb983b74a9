package sandbox

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const rotatedAnswer = `{"error":"unauthorized_client","error_description":"Invalid OAuth client credentials"}`

func TestRule1_ConsentPage(t *testing.T) {
	t.Parallel()
	b := start(t)
	address := "/site/oauth2/authorize?client_id=client&response_type=code&state=x"
	b.get("", address).want(http.StatusOK, "Read your repositories", `name="user"`, `name="password"`, `value="deny"`)
	b.form("", address, url.Values{"user": {"alice"}, "password": {"wrong"}, "action": {"grant"}}).want(http.StatusUnauthorized, "do not match")
	b.form("", address, url.Values{"user": {"alice"}, "password": {"alice"}}).want(http.StatusBadRequest)
}

func TestRule2_OnlyTheConfiguredCallback(t *testing.T) {
	t.Parallel()
	b := start(t)
	callback := url.QueryEscape(b.callbackURL)
	for query, status := range map[string]int{
		"client_id=client&response_type=code&redirect_uri=" + callback:           http.StatusOK,
		"client_id=client&response_type=code&redirect_uri=" + callback + "%2Fx":  http.StatusBadRequest,
		"client_id=client&response_type=code&redirect_uri=http%3A%2F%2Fevil.com": http.StatusBadRequest,
		"client_id=other&response_type=code":                                     http.StatusBadRequest,
		"client_id=client&response_type=token":                                   http.StatusBadRequest,
		"client_id=client":                                                       http.StatusBadRequest,
	} {
		b.get("", "/site/oauth2/authorize?"+query).want(status)
		a := b.form("", "/site/oauth2/authorize?"+query, url.Values{"action": {"deny"}})
		if to := a.header.Get("Location"); status != http.StatusOK && to != "" {
			t.Errorf("%s: sent to %s", query, to)
		}
	}
	without := start(t, func(d *Deps) { d.CallbackURL = "" })
	without.get("", "/site/oauth2/authorize?client_id=client&response_type=code").want(http.StatusBadRequest, "No callback uri defined for the OAuth client.")
}

func TestRule3_GrantAndDeny(t *testing.T) {
	t.Parallel()
	b := start(t)
	state := url.Values{"state": {"a b&c=d"}}
	granted := b.consent("alice", "grant", state)
	if granted.Get("state") != "a b&c=d" || granted.Get("code") == "" || granted.Has("error") {
		t.Errorf("granted: %v", granted)
	}
	denied := b.consent("alice", "deny", state)
	if denied.Get("state") != "a b&c=d" || denied.Has("code") || denied.Get("error") != "access_denied" {
		t.Errorf("denied: %v", denied)
	}
}

func TestRule4_CodesWorkOnce(t *testing.T) {
	t.Parallel()
	b := start(t)
	redeem := func(code string, more url.Values) *answered {
		values := url.Values{"grant_type": {"authorization_code"}, "code": {code}}
		for name, v := range more {
			values[name] = v
		}
		return b.token(values)
	}
	used := b.consent("alice", "grant", nil).Get("code")
	redeem(used, nil).want(http.StatusOK)
	redeem(used, nil).want(http.StatusBadRequest, "invalid_grant")
	spoilt := b.consent("alice", "grant", nil).Get("code")
	redeem(spoilt, url.Values{"redirect_uri": {"http://other"}}).want(http.StatusBadRequest)
	redeem(spoilt, nil).want(http.StatusBadRequest, "invalid_grant")
	old := b.consent("alice", "grant", nil).Get("code")
	b.clock.advance(codeLife)
	redeem(old, nil).want(http.StatusBadRequest, "expired")
	redeem("made-up", nil).want(http.StatusBadRequest, "invalid_grant")
}

func TestRule5_RedirectURIOnBothLegsOrNeither(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, c := range []struct {
		first, second string
		status        int
	}{
		{b.callbackURL, b.callbackURL, http.StatusOK},
		{"", "", http.StatusOK},
		{b.callbackURL, "", http.StatusBadRequest},
		{"", b.callbackURL, http.StatusBadRequest},
	} {
		query := url.Values{}
		if c.first != "" {
			query.Set("redirect_uri", c.first)
		}
		values := url.Values{"grant_type": {"authorization_code"}, "code": {b.consent("alice", "grant", query).Get("code")}}
		if c.second != "" {
			values.Set("redirect_uri", c.second)
		}
		b.token(values).want(c.status)
	}
}

func TestRule6_PKCE(t *testing.T) {
	t.Parallel()
	b := start(t)
	sum := sha256.Sum256([]byte("verifier"))
	challenge := url.Values{"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
	for _, c := range []struct {
		query    url.Values
		verifier string
		status   int
	}{
		{challenge, "verifier", http.StatusOK},
		{challenge, "another", http.StatusBadRequest},
		{challenge, "", http.StatusBadRequest},
		{nil, "verifier", http.StatusBadRequest},
	} {
		values := url.Values{"grant_type": {"authorization_code"}, "code": {b.consent("alice", "grant", c.query).Get("code")}}
		if c.verifier != "" {
			values.Set("code_verifier", c.verifier)
		}
		b.token(values).want(c.status)
	}
	b.get("", "/site/oauth2/authorize?client_id=client&response_type=code&code_challenge=x&code_challenge_method=plain").want(http.StatusBadRequest)
}

func TestRule7_TokenEndpoint(t *testing.T) {
	t.Parallel()
	b := start(t)
	_, refresh := b.connect("alice")
	values := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
	b.form("", "/site/oauth2/access_token", values).want(http.StatusBadRequest, rotatedAnswer)
	inBody := url.Values{"client_id": {"client"}, "client_secret": {"client-secret"}}
	for name, v := range values {
		inBody[name] = v
	}
	b.form("", "/site/oauth2/access_token", inBody).want(http.StatusBadRequest, rotatedAnswer)
	wrong, err := b.send("", http.MethodPost, "/site/oauth2/access_token", http.Header{
		"Authorization": {basic("client", "wrong")}, "Content-Type": {"application/x-www-form-urlencoded"},
	}, strings.NewReader(values.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	wrong.want(http.StatusBadRequest, rotatedAnswer)
	noForm, err := b.send("", http.MethodPost, "/site/oauth2/access_token", http.Header{
		"Authorization": {basic("client", "client-secret")}, "Content-Type": {"application/json"},
	}, strings.NewReader(`{"grant_type":"refresh_token"}`))
	if err != nil {
		t.Fatal(err)
	}
	noForm.want(http.StatusBadRequest, `"invalid_grant"`, "Unsupported grant type: None")
	b.token(url.Values{"grant_type": {"password"}}).want(http.StatusBadRequest, "Unsupported grant type: password")
	b.token(values).want(http.StatusOK)
}

func TestRule8_TokenAnswer(t *testing.T) {
	t.Parallel()
	b := start(t)
	a := b.token(url.Values{
		"grant_type": {"authorization_code"}, "scope": {"repository:admin"},
		"code": {b.consent("alice", "grant", url.Values{"scope": {"repository:admin"}}).Get("code")},
	}).want(http.StatusOK)
	if a.text("scope") != "account repository pullrequest webhook" || a.text("token_type") != "bearer" || a.at("expires_in") != 7200.0 {
		t.Errorf("%v %v %v", a.at("scope"), a.at("token_type"), a.at("expires_in"))
	}
}

func TestRule9_LongTokens(t *testing.T) {
	t.Parallel()
	access, refresh := start(t).connect("alice")
	if len(access) <= 2500 || len(refresh) <= 2500 {
		t.Errorf("%d and %d characters", len(access), len(refresh))
	}
}

func TestRule10_RefreshTokensRotate(t *testing.T) {
	t.Parallel()
	b := start(t)
	_, first := b.connect("alice")
	refresh := func(text string) *answered {
		return b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {text}})
	}
	second := refresh(first).want(http.StatusOK).text("refresh_token")
	if second == first {
		t.Fatal("not rotated")
	}
	b.clock.advance(refreshGrace - time.Second)
	again := refresh(first).want(http.StatusOK).text("refresh_token")
	b.clock.advance(time.Second)
	refresh(first).want(http.StatusBadRequest, rotatedAnswer)
	b.get("Bearer "+refresh(second).want(http.StatusOK).text("access_token"), "/2.0/user").want(http.StatusOK)
	refresh(again).want(http.StatusOK)
}

func TestRule11_UnusedRefreshTokensDie(t *testing.T) {
	t.Parallel()
	b := start(t)
	_, refresh := b.connect("alice")
	b.clock.advance(89 * 24 * time.Hour)
	refresh = b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}).want(http.StatusOK).text("refresh_token")
	b.clock.advance(90 * 24 * time.Hour)
	b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}).want(http.StatusBadRequest, rotatedAnswer)
}

func TestRule12_BearerHeaderOnly(t *testing.T) {
	t.Parallel()
	b := start(t)
	access, _ := b.connect("alice")
	b.get("Bearer "+access, "/2.0/user").want(http.StatusOK)
	b.get("", "/2.0/user?access_token="+access).want(http.StatusUnauthorized)
	hash := b.tip("main")
	b.form("", shopAPI+"/commit/"+hash+"/statuses/build", url.Values{"access_token": {access}}).want(http.StatusNotFound)
}

func TestRule13_ExpiredToken(t *testing.T) {
	t.Parallel()
	b := start(t)
	access, refresh := b.connect("alice")
	b.clock.advance(2 * time.Hour)
	b.get("Bearer "+access, "/2.0/user").want(http.StatusUnauthorized, "OAuth2 access token expired. Use your refresh token to obtain a new access token.")
	b.get("Bearer "+refresh, "/2.0/user").want(http.StatusUnauthorized, "Token is invalid, expired, or not supported for this endpoint.")
	b.get("Bearer made-up", "/2.0/user").want(http.StatusUnauthorized, "Token is invalid")
}

func TestRule14_Revoking(t *testing.T) {
	t.Parallel()
	b := start(t)
	access, refresh := b.connect("alice")
	to := receive(t, nil)
	b.hook(to.URL, "", "repo:push")
	page := string(b.get("alice", "/account/authorizations").want(http.StatusOK, "Revoke").body)
	_, after, _ := strings.Cut(page, `action="`)
	action, _, _ := strings.Cut(strings.TrimPrefix(page[strings.Index(page, `action="/account`):], `action="`), `"`)
	if after == "" {
		t.Fatal("no form")
	}
	b.form("mallory", action, nil).want(http.StatusNotFound)
	b.get("Bearer "+access, "/2.0/user").want(http.StatusOK)
	b.form("alice", action, nil).want(http.StatusSeeOther)
	b.get("Bearer "+access, "/2.0/user").want(http.StatusUnauthorized)
	b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}).want(http.StatusBadRequest, rotatedAnswer)
	b.put("main", "x", "x")
	to.next(t)
	again, _ := b.connect("alice")
	b.get("Bearer "+again, "/2.0/user").want(http.StatusOK)
}

func TestRule15_Scopes(t *testing.T) {
	t.Parallel()
	hook := obj{"url": "http://127.0.0.1:9/", "events": []string{"repo:push"}}
	for _, c := range []struct {
		scopes       []string
		method, path string
		body         any
		status       int
	}{
		{[]string{"account"}, "GET", "/2.0/user", nil, 200},
		{[]string{"repository"}, "GET", "/2.0/user", nil, 403},
		{[]string{"account"}, "GET", "/2.0/repositories/acme", nil, 403},
		{[]string{"pullrequest"}, "GET", "/2.0/repositories/acme", nil, 200},
		{[]string{"account"}, "GET", "/2.0/user/workspaces/acme/permissions/repositories", nil, 403},
		{[]string{"account", "repository"}, "GET", "/2.0/user/workspaces/acme/permissions/repositories", nil, 200},
		{[]string{"repository"}, "GET", shopAPI + "/pullrequests", nil, 403},
		{[]string{"repository"}, "GET", shopAPI + "/hooks", nil, 403},
		{[]string{"webhook"}, "GET", shopAPI + "/hooks", nil, 200},
		{[]string{"webhook"}, "GET", shopAPI, nil, 403},
		{[]string{"webhook"}, "POST", shopAPI + "/hooks", hook, 403},
		{[]string{"webhook", "repository"}, "POST", shopAPI + "/hooks", hook, 201},
		{[]string{"pullrequest"}, "POST", shopAPI + "/pullrequests", obj{"title": "t"}, 403},
		{[]string{"repository"}, "PUT", shopAPI, obj{"description": "x"}, 403},
		{[]string{"repository:admin"}, "GET", shopAPI, nil, 403},
	} {
		b := start(t, func(d *Deps) { d.Scopes = c.scopes })
		access, _ := b.connect("alice")
		a := b.call("Bearer "+access, c.method, c.path, c.body).want(c.status)
		if c.status == http.StatusForbidden {
			a.want(403, "Your credentials lack one or more required privilege scopes.", `"required":["`, `"granted":["`+c.scopes[0])
		}
	}
}
