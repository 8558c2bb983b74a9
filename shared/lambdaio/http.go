// Package lambdaio turns the events of AWS Lambda into what the rest of the code
// takes, and answers into what Lambda wants. It knows the shapes of events and
// nothing of what they mean.
package lambdaio

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"runnerhub/shared/fault"
)

// HTTP answers the handler of an API Gateway HTTP API (payload format 2.0) that
// serves h. The gateway sends header names in lower case and may send the body in base64,
// whatever its type: h sees the bytes as the client sent them, which is what
// signatures are made over.
func HTTP(h http.Handler) func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	return func(ctx context.Context, e events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
		r, err := request(ctx, e)
		if err != nil {
			return events.APIGatewayV2HTTPResponse{StatusCode: http.StatusBadRequest}, nil
		}
		w := &answer{header: http.Header{}}
		h.ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK) // unless the handler did
		return w.response(), nil
	}
}

// answer is a whole answer in memory: Lambda sends it in one piece.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter: the first status counts.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// request rebuilds what the client sent.
func request(ctx context.Context, e events.APIGatewayV2HTTPRequest) (*http.Request, error) {
	body := []byte(e.Body)
	if e.IsBase64Encoded {
		var err error
		if body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "the body is not the base64 it is said to be")
		}
	}
	u, err := url.Parse(e.RawPath)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the path is not one")
	}
	u.RawQuery = e.RawQueryString
	r, err := http.NewRequestWithContext(ctx, e.RequestContext.HTTP.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the request is not one")
	}
	for name, value := range e.Headers { // several values of a name come joined by commas
		r.Header.Set(name, value)
	}
	if len(e.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(e.Cookies, "; "))
	}
	r.Host = e.RequestContext.DomainName
	r.RequestURI = u.RequestURI()
	r.RemoteAddr = e.RequestContext.HTTP.SourceIP + ":0"
	return r, nil
}

// response keeps cookies apart, which must not be joined, and sends as base64 what is no text.
func (a *answer) response() events.APIGatewayV2HTTPResponse {
	out := events.APIGatewayV2HTTPResponse{StatusCode: a.status, Headers: map[string]string{}}
	for name, values := range a.header {
		if name == "Set-Cookie" {
			out.Cookies = values
			continue
		}
		out.Headers[name] = strings.Join(values, ", ")
	}
	if out.IsBase64Encoded = !utf8.Valid(a.body.Bytes()); out.IsBase64Encoded {
		out.Body = base64.StdEncoding.EncodeToString(a.body.Bytes())
	} else {
		out.Body = a.body.String()
	}
	return out
}
