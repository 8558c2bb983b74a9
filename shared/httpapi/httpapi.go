// Package httpapi is the HTTP side of RunnerHub: routes, sessions in cookies, the guard
// against cross-site requests, JSON in and out, problem+json, and two plain pages.
// docs/openapi.yaml is its contract, and a test compares the two.
//
// A handler decodes, makes one call to a use case and encodes. What is allowed is
// decided by the use cases; here it is only settled who is asking.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"runnerhub/shared/secret"
	"runnerhub/shared/signin"
)

// Callers knows who makes a request.
type Callers interface {
	BySession(ctx context.Context, cookie secret.Text) (signin.Caller, error)
	ByToken(ctx context.Context, bearer secret.Text) (signin.Caller, error)
}

// Group is a part of the service: routes and the use cases behind them. On AWS each
// is served by a function of its own, which contains nothing of the others: all that
// leads to a group is the function that makes it.
type Group interface {
	routes(a *API) []route
}

// Deps is what an API needs.
type Deps struct {
	Groups    []Group // what is served; nothing else exists
	Callers   Callers // may be nil when no group has to know who asks
	PublicURL string  // decides between the cookies of http and https
	Now       func() time.Time
	NewRef    func() string // names a request, for the caller and for the log
	Log       *slog.Logger
}

// API serves HTTP.
type API struct {
	Deps

	https     bool
	mux       *http.ServeMux
	policy    string // Content-Security-Policy
	signInKey string // name of the cookie that ties a sign-in to its browser
	cookieKey string // name of the session cookie
}

// New makes the handler.
func New(d Deps) (*API, error) {
	if d.Now == nil || d.NewRef == nil || d.Log == nil {
		return nil, errors.New("httpapi: Now, NewRef and Log are needed")
	}
	u, err := url.Parse(d.PublicURL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, errors.New("httpapi: PublicURL is no absolute http address")
	}
	a := &API{
		Deps: d, https: u.Scheme == "https", mux: http.NewServeMux(), policy: contentPolicy(),
		signInKey: "signin", cookieKey: "session",
	}
	if a.https {
		a.signInKey, a.cookieKey = "__Host-signin", "__Host-session"
	}
	for _, r := range a.table() {
		if r.guard != public && d.Callers == nil {
			return nil, fmt.Errorf("httpapi: %s %s has to know who asks: Callers is needed", r.method, r.path)
		}
		a.mux.Handle(r.method+" "+r.path, a.serve(r))
	}
	return a, nil
}

// table is every route there is.
func (a *API) table() []route {
	var all []route
	for _, g := range a.Groups {
		all = append(all, g.routes(a)...)
	}
	return all
}

// ServeHTTP adds what every answer carries, and answers what no route takes.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", a.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if a.https {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if _, pattern := a.mux.Handler(r); pattern != "" {
		a.mux.ServeHTTP(w, r)
		return
	}
	a.serve(route{handle: a.noRoute}).ServeHTTP(w, r)
}

// noRoute answers a path that does not exist, or not with this method. The mux knows
// which, and what methods there are.
func (a *API) noRoute(c *call) (answer, error) {
	h, _ := a.mux.Handler(c.Request)
	probe := &probe{header: http.Header{}}
	h.ServeHTTP(probe, c.Request)
	if probe.status == http.StatusMethodNotAllowed {
		c.w.Header().Set("Allow", probe.header.Get("Allow"))
		return nil, &refusal{http.StatusMethodNotAllowed, "this path knows " + probe.header.Get("Allow")}
	}
	return nil, &refusal{http.StatusNotFound, "there is nothing at this path"}
}

// probe takes an answer that nobody gets.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(status int)      { p.status = status }

// refusal is an error that only HTTP knows.
type refusal struct {
	status int
	detail string
}

func (r *refusal) Error() string { return strings.ToLower(http.StatusText(r.status)) }
