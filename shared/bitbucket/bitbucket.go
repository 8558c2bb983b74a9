// Package bitbucket speaks to Bitbucket Cloud: the OAuth code flow and refresh,
// the few REST calls RunnerHub needs, commit statuses, and what webhooks bring.
//
// It is a client and a parser, and no more. It stores nothing, takes no lease
// and decides nothing: which token is used and who may refresh it is the
// caller's (see [Bitbucket.As]), and so is what an event leads to. What Bitbucket
// answers becomes a value of ours or an error of package fault; no type of an
// OAuth library or of an HTTP client is part of the answers.
//
// Tokens go to the configured API host alone, in the Authorization header alone.
// Links and redirects to another host are refused, or, for the content of a
// file, followed without the token.
//
// Facts about Bitbucket are from Atlassian's REST documentation and its support
// pages on webhooks, OAuth and rate limits, as they stood in autumn 2026.
package bitbucket

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"runnerhub/shared/credential"
)

// Deps is what a Bitbucket needs.
type Deps struct {
	APIURL string // https://api.bitbucket.org/2.0
	WebURL string // https://bitbucket.org; consent page, token endpoint and git are below it

	// ClientID and ClientSecret are those of the OAuth consumer, CallbackURL the
	// one address configured there; Bitbucket wants an exact match.
	ClientID     string
	ClientSecret credential.Credential
	CallbackURL  string

	HTTP *http.Client // see NewHTTPClient; its redirect policy and cookies are not used
	Now  func() time.Time

	// Timeout bounds the time one call spends at Bitbucket, retries and asking for the
	// client's secret included.
	// Zero means DefaultTimeout.
	Timeout time.Duration
}

// DefaultTimeout is how long one call may take.
const DefaultTimeout = 10 * time.Second

// Bitbucket is one Bitbucket Cloud and our OAuth consumer there. It is safe for
// concurrent use; a process makes one.
type Bitbucket struct {
	api, web *url.URL
	http     *http.Client
	oauth    oauth2.Config // without the secret: see obtain
	secret   credential.Credential
	now      func() time.Time
	timeout  time.Duration
}

// New checks the dependencies. Addresses that tokens are sent to have to be
// https, or http on loopback.
func New(d Deps) (*Bitbucket, error) {
	api, err := tokenAddress("APIURL", d.APIURL)
	if err != nil {
		return nil, err
	}
	web, err := tokenAddress("WebURL", d.WebURL)
	if err != nil {
		return nil, err
	}
	callback, err := url.Parse(d.CallbackURL)
	switch {
	case err != nil || callback.Host == "" || (callback.Scheme != "https" && callback.Scheme != "http"):
		return nil, errors.New("bitbucket: CallbackURL is no absolute http address")
	case d.ClientID == "" || d.ClientSecret == nil:
		return nil, errors.New("bitbucket: ClientID and ClientSecret are needed")
	case d.HTTP == nil || d.Now == nil:
		return nil, errors.New("bitbucket: HTTP and Now are needed")
	case d.Timeout < 0:
		return nil, errors.New("bitbucket: Timeout is negative")
	case d.Timeout == 0:
		d.Timeout = DefaultTimeout
	}

	client := *d.HTTP
	client.Jar = nil
	client.Timeout = 0 // every call has a context with a deadline
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	return &Bitbucket{
		api: api, web: web, http: &client, secret: d.ClientSecret, now: d.Now, timeout: d.Timeout,
		oauth: oauth2.Config{
			ClientID:    d.ClientID,
			RedirectURL: d.CallbackURL,
			Endpoint: oauth2.Endpoint{
				AuthURL:   web.String() + "/site/oauth2/authorize",
				TokenURL:  web.String() + "/site/oauth2/access_token",
				AuthStyle: oauth2.AuthStyleInHeader,
			},
		},
	}, nil
}

// NewHTTPClient makes a client fit for [Deps]: bounded dialling, handshakes and
// header waits, and enough kept connections for a burst of builds to one host.
// Whole calls are bounded by [Deps] Timeout.
func NewHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    5 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		IdleConnTimeout:        30 * time.Second, // a Lambda that was frozen finds what was kept for longer closed
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    32,
		MaxResponseHeaderBytes: 64 << 10,
	}}
}

func tokenAddress(name, address string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(address, "/"))
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("bitbucket: %s is no plain absolute address", name)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("bitbucket: %s is neither https nor on loopback", name)
	}
	return u, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}
