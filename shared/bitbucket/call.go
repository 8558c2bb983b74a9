package bitbucket

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

const (
	maxJSON      = 1 << 20
	maxRetries   = 2
	retryBase    = 100 * time.Millisecond
	maxRedirects = 3
)

// TokenSource answers the access token a call is made with. It is asked once a
// call with an empty refused, and once more, with the token that Bitbucket just
// answered 401 to, so that it can refresh. It has its own deadlines.
type TokenSource func(ctx context.Context, refused secret.Text) (secret.Text, error)

// Client makes API calls as one account. Its errors are of these kinds of
// package fault: Invalid (400, our own checks, links and redirects to another
// host), Revoked (401, also with a fresh token), Forbidden (403), NotFound (404),
// Conflict (409), Gone (410), TooLarge, RateLimited (with RetryAfter), Unavailable
// (5xx, network, deadline), and Unknown: a write whose answer was lost, so that
// it may have happened. Errors of the token source keep their kind.
//
// Reads are repeated up to twice when Bitbucket was unavailable and there is
// time; writes and 429 never.
type Client struct {
	b     *Bitbucket
	token TokenSource
}

// As answers a client that calls with the tokens of the source.
func (b *Bitbucket) As(token TokenSource) *Client { return &Client{b: b, token: token} }

// request is one API call.
type request struct {
	doing   string // for errors: "reading a branch"
	method  string
	path    []string // segments below the API address, unescaped
	query   url.Values
	body    any         // sent as JSON when not nil
	private secret.Text // part of body; kept out of errors

	// deep says that the answer 555 is about what was asked, which takes Bitbucket too long:
	// no repeat helps.
	deep bool

	// raw asks for bytes instead of JSON, at most limit of them; such an answer
	// may come from another host, which then does not see the token.
	raw   bool
	limit int64
}

// answer is a 2xx with its body.
type answer struct {
	header http.Header
	body   []byte
}

// call performs r and decodes the JSON answer into result, unless that is nil.
func (c *Client) call(ctx context.Context, r request, result any) error {
	a, err := c.fetch(ctx, r)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(a.body, result); err != nil {
		return r.fail(lost(r.method), err, "an answer that is no JSON of the documented shape")
	}
	return nil
}

// fetch performs r with the source's token, and once more with a fresh one when
// that was refused: a 401 is never carried out, so this is safe for writes.
func (c *Client) fetch(ctx context.Context, r request) (answer, error) {
	token, err := c.token(ctx, secret.Text{})
	if err != nil {
		return answer{}, fmt.Errorf("bitbucket: a token for %s: %w", r.doing, err)
	}
	a, err := c.b.perform(ctx, r, token)
	if !fault.Is(err, fault.Revoked) {
		return a, err
	}
	fresh, tokenErr := c.token(ctx, token)
	if tokenErr != nil {
		return answer{}, fmt.Errorf("bitbucket: a fresh token for %s: %w", r.doing, tokenErr)
	}
	if fresh.Equal(token) {
		return answer{}, err
	}
	return c.b.perform(ctx, r, fresh)
}

func (b *Bitbucket) perform(ctx context.Context, r request, token secret.Text) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	for try := 0; ; try++ {
		a, err := b.roundTrip(ctx, r, token)
		if r.method != http.MethodGet || try == maxRetries || !fault.Is(err, fault.Unavailable) || !pause(ctx, try) {
			return a, err
		}
	}
}

// pause waits before a retry, and reports whether there is time for one.
func pause(ctx context.Context, try int) bool {
	wait := retryBase << try
	wait = wait/2 + rand.N(wait)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 2*wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// roundTrip sends r once, following redirects of reads by the rules of the
// package comment.
func (b *Bitbucket) roundTrip(ctx context.Context, r request, token secret.Text) (answer, error) {
	target, own := b.address(r), true
	for range maxRedirects + 1 {
		next, a, err := b.send(ctx, r, target, token, own)
		if next == nil {
			return a, err
		}
		own = own && b.home(next)
		if !own && (!r.raw || next.Scheme != b.api.Scheme) {
			return answer{}, r.fail(fault.Invalid, nil, "a redirect to another host, which was not followed")
		}
		target = next
	}
	return answer{}, r.fail(fault.Invalid, nil, "too many redirects")
}

// send makes one HTTP request. It answers the address of a redirect to follow,
// or the outcome.
func (b *Bitbucket) send(ctx context.Context, r request, target *url.URL, token secret.Text, own bool) (*url.URL, answer, error) {
	ctx, sent := traceSent(ctx)
	req, err := r.build(ctx, target)
	if err != nil {
		return nil, answer{}, fmt.Errorf("bitbucket: %s: %w", r.doing, err)
	}
	if own {
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	resp, err := b.http.Do(req)
	if err != nil {
		kind := fault.Unavailable
		if sent() {
			kind = lost(r.method)
		}
		return nil, answer{}, r.fail(kind, err, "no answer")
	}
	defer resp.Body.Close()

	limit := r.limit
	if limit == 0 || resp.StatusCode > 299 {
		limit = maxJSON
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case resp.StatusCode > 399:
		if !own && resp.StatusCode == http.StatusUnauthorized {
			// Not Bitbucket's word on our token, which this host never saw.
			return nil, answer{}, r.fail(fault.Forbidden, nil, "refused by the host that Bitbucket redirected to")
		}
		return nil, answer{}, b.refusal(r, resp, body, token)
	case resp.StatusCode > 299:
		next, err := resp.Location()
		if err != nil || r.method != http.MethodGet {
			return nil, answer{}, r.fail(fault.Invalid, err, "a redirect (%d), which was not followed", resp.StatusCode)
		}
		return next, answer{}, nil
	case err != nil:
		return nil, answer{}, r.fail(lost(r.method), err, "an answer that broke off")
	case int64(len(body)) > limit:
		kind := fault.TooLarge
		if r.method != http.MethodGet {
			kind = fault.Unknown
		}
		return nil, answer{}, r.fail(kind, nil, "an answer of more than %d bytes", limit)
	}
	return nil, answer{resp.Header, body}, nil
}

func (r request) build(ctx context.Context, target *url.URL) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "RunnerHub")
	if !r.raw {
		req.Header.Set("Accept", "application/json")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// address escapes each segment: UUIDs go over the wire as %7B…%7D, and a branch
// name with a slash stays one segment.
func (b *Bitbucket) address(r request) *url.URL {
	u := *b.api
	raw := u.EscapedPath()
	for _, s := range r.path {
		u.Path += "/" + s
		raw += "/" + url.PathEscape(s)
	}
	u.RawPath = raw
	u.RawQuery = r.query.Encode()
	return &u
}

// home reports whether u is on the configured API host, where the token may go.
func (b *Bitbucket) home(u *url.URL) bool {
	return u.Scheme == b.api.Scheme && u.Host == b.api.Host && u.User == nil
}

// traceSent reports later whether a connection was got, so that the request may
// have reached the other side. Before that (dialling, handshake) it has not.
func traceSent(ctx context.Context) (context.Context, func() bool) {
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }}
	return httptrace.WithClientTrace(ctx, trace), sent.Load
}

// fail makes an error about an answer that is not a plain refusal.
func (r request) fail(kind fault.Kind, cause error, format string, args ...any) error {
	e := fault.New(kind, "Bitbucket, %s: %s", r.doing, fmt.Sprintf(format, args...))
	e.Cause = cause
	return e
}
