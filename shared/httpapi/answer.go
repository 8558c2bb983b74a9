package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	g "maragu.dev/gomponents"

	"runnerhub/shared/fault"
	"runnerhub/shared/store"
)

// answer is what a handler answers with.
type answer interface {
	send(a *API, c *call) error
}

// object is a JSON answer.
type object struct{ v any }

func (o object) send(_ *API, c *call) error { return c.sendJSON("application/json", o.v) }

// reply makes an answer of what a use case answered.
func reply[T any](v T, err error) (answer, error) {
	if err != nil {
		return nil, err
	}
	return object{v}, nil
}

// list is the form of every list; an empty cursor is the end.
type list[T any] struct {
	Items  []T    `json:"items"`
	Cursor string `json:"cursor"`
}

func replyList[T any](page store.Page[T], err error) (answer, error) {
	if page.Items == nil {
		page.Items = []T{}
	}
	return reply(list[T](page), err)
}

// nothing is an answer without a body.
type nothing struct{}

func (nothing) send(_ *API, c *call) error {
	c.header()
	return nil
}

// redirect sends a browser on.
type redirect struct{ to string }

func (r redirect) send(_ *API, c *call) error {
	c.w.Header().Set("Location", r.to)
	c.header()
	return nil
}

// page is HTML.
type page struct{ content g.Node }

func (p page) send(_ *API, c *call) error {
	var b bytes.Buffer
	if err := p.content.Render(&b); err != nil {
		return fmt.Errorf("making a page: %w", err) // memory takes everything
	}
	return c.write("text/html; charset=utf-8", b.Bytes())
}

// problem is an error as RFC 9457 has it. Type is always about:blank: title and detail
// say it all.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Ref    string `json:"ref"`             // to be found in the log
	Field  string `json:"field,omitempty"` // the input that was refused
}

// sendError answers with an error, in the form of the route.
func (a *API) sendError(c *call, err error) {
	kind := fault.KindOf(err)
	c.status = kind.Outcome().HTTP
	detail, field := fault.Public(err)
	var r *refusal
	if errors.As(err, &r) {
		c.status, detail = r.status, r.detail
	}
	if detail == "" {
		detail = fmt.Sprintf("internal error (ref %s)", c.ref)
		if kind == fault.Unavailable {
			detail = fmt.Sprintf("this did not work in time: try again (ref %s)", c.ref)
		}
	}
	if c.status == http.StatusUnauthorized {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="RunnerHub"`)
	}
	if pause := fault.RetryAfter(err); pause > 0 {
		c.w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(pause.Seconds()))))
	}
	p := problem{"about:blank", http.StatusText(c.status), c.status, detail, c.ref, field}
	show := c.route.fails
	if show == nil {
		show = asJSON
	}
	if err := show(c, p).send(a, c); err != nil {
		a.Log.DebugContext(c.Context(), "an answer was not sent", "ref", c.ref, "error", err)
	}
}

func asJSON(_ *call, p problem) answer { return problemJSON{p} }

type problemJSON struct{ problem }

func (p problemJSON) send(_ *API, c *call) error { return c.sendJSON("application/problem+json", p) }

func (c *call) sendJSON(contentType string, v any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false) // no browser takes this for a page, and people copy addresses out of it
	if err := encoder.Encode(v); err != nil {
		panic(fmt.Errorf("encoding an answer: %w", err)) // a type of ours that JSON cannot hold
	}
	return c.write(contentType, body.Bytes())
}

func (c *call) write(contentType string, body []byte) error {
	c.w.Header().Set("Content-Type", contentType)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.header()
	if _, err := c.w.Write(body); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the caller did not take the answer")
	}
	return nil
}

func (c *call) header() {
	c.sent = true
	c.w.WriteHeader(c.status)
}
