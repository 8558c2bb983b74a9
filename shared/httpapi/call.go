package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"runnerhub/shared/connect"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
	"runnerhub/shared/signin"
)

// maxBody is the longest body in bytes that is decoded.
const maxBody = 1 << 20

// csrfHeader is needed beside the cookie for every method that changes something: a
// page of another site cannot send it.
const csrfHeader = "X-RunnerHub-CSRF"

// call is one request on its way through a handler.
type call struct {
	*http.Request

	w      http.ResponseWriter
	route  route
	ref    string
	who    signin.Caller // of guards other than public; zero when unknown
	status int           // of the answer
	sent   bool          // its header is written
}

// serve runs a route: deadline, caller, handler, answer, one line in the log.
func (a *API) serve(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		began := a.Now()
		limit := r.deadline
		if limit == 0 {
			limit = deadline
		}
		ctx, cancel := context.WithTimeout(req.Context(), limit)
		defer cancel()
		c := &call{Request: req.WithContext(ctx), w: w, route: r, ref: a.NewRef(), status: r.status}
		err := a.run(c)
		a.log(c, began, err)
	})
}

// run answers the call. Its error has been shown to the caller already.
func (a *API) run(c *call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			if c.sent {
				panic(http.ErrAbortHandler) // the caller must not take half an answer for a whole one
			}
			a.sendError(c, err)
		}
	}()
	reply, err := a.handle(c)
	if err != nil {
		a.sendError(c, err)
		return err
	}
	return reply.send(a, c)
}

func (a *API) handle(c *call) (answer, error) {
	if err := a.identify(c); err != nil {
		return nil, err
	}
	return c.route.handle(c)
}

// identify settles who is asking, as far as the route wants to know.
func (a *API) identify(c *call) error {
	if c.route.guard == public {
		return nil
	}
	err := a.authenticate(c)
	if c.route.guard == known && fault.Is(err, fault.Unauthenticated) {
		return nil
	}
	return err
}

// authenticate reads a bearer token, or else the session cookie.
func (a *API) authenticate(c *call) error {
	if header := c.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			return fault.New(fault.Unauthenticated, "Authorization takes a Bearer token")
		}
		var err error
		c.who, err = a.Callers.ByToken(c.Context(), secret.New(token))
		return err
	}
	cookie := a.sessionOf(c)
	if cookie.Empty() {
		return fault.New(fault.Unauthenticated, "sign in first")
	}
	var err error
	if c.who, err = a.Callers.BySession(c.Context(), cookie); err != nil {
		return err
	}
	changes := c.Method != http.MethodGet && c.Method != http.MethodHead
	if changes && c.route.guard != form && c.Header.Get(csrfHeader) == "" {
		return fault.New(fault.Forbidden, "a request with the session cookie that changes something needs the header %s", csrfHeader)
	}
	return nil
}

func (a *API) sessionOf(c *call) secret.Text { return c.cookie(a.cookieKey) }

func (c *call) cookie(name string) secret.Text {
	cookie, err := c.Cookie(name)
	if err != nil {
		return secret.Text{}
	}
	return secret.New(cookie.Value)
}

// setCookie sets a cookie for this host alone; a life of zero removes it.
func (a *API) setCookie(c *call, name string, value secret.Text, life time.Duration) {
	age := int(life.Seconds())
	if age <= 0 {
		age = -1
	}
	http.SetCookie(c.w, &http.Cookie{
		Name: name, Value: value.Reveal(), Path: "/", MaxAge: age, HttpOnly: true, Secure: a.https, SameSite: http.SameSiteLaxMode,
	})
}

func (c *call) user() string { return c.who.User.ID }

func browserOf(c *call) connect.Browser {
	return connect.Browser{User: c.who.User, Session: c.who.Session}
}

func (c *call) query(name string) string { return c.URL.Query().Get(name) }

// body reads at most limit bytes.
func (c *call) body(limit int64) ([]byte, error) {
	var b bytes.Buffer
	if n := min(c.ContentLength, limit); n > 0 {
		b.Grow(int(n) + bytes.MinRead) // what comes is read in one go
	}
	_, err := b.ReadFrom(http.MaxBytesReader(c.w, c.Body, limit))
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, fault.Wrap(fault.TooLarge, err, "the body is over %d bytes", limit)
	}
	return b.Bytes(), fault.Wrap(fault.Invalid, err, "the body broke off")
}

// decode reads a JSON object into v and refuses what v has no place for.
func (c *call) decode(v any) error {
	body, err := c.body(maxBody)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return notDecoded(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "the body goes on after the JSON object")
	}
	return nil
}

func notDecoded(err error) error {
	// The library has no type for this one.
	if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return fault.Field(strings.Trim(name, `"`), "is not known here")
	}
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mismatch) && mismatch.Field != "":
		return fault.Field(mismatch.Field, "cannot be a JSON %s", mismatch.Value)
	case errors.Is(err, io.EOF):
		return fault.New(fault.Invalid, "the body is empty; a JSON object is expected")
	default:
		return fault.Wrap(fault.Invalid, err, "the body is not the JSON object that is expected")
	}
}

// log writes the one line of a request: what was asked in terms of the route, never the
// address itself, which may hold codes, nor bodies.
func (a *API) log(c *call, began time.Time, err error) {
	level := slog.LevelInfo
	attributes := []slog.Attr{
		slog.String("method", c.Method), slog.String("route", c.route.path), slog.Int("status", c.status),
		slog.Duration("duration", a.Now().Sub(began)), slog.String("ref", c.ref),
	}
	if c.user() != "" {
		attributes = append(attributes, slog.String("user", c.user()))
	}
	if err != nil {
		var r *refusal
		if !errors.As(err, &r) {
			level = fault.KindOf(err).Outcome().Level
		}
		attributes = append(attributes, slog.String("error", err.Error()))
	}
	a.Log.LogAttrs(c.Context(), level, "request", attributes...)
}
