package lambdaio

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/shared/budget"
	"runnerhub/shared/fault"
)

// HTTP answers the handler of an API Gateway HTTP API (payload format 2.0) that
// serves h. The gateway sends header names in lower case and may send the body in base64,
// whatever its type: h sees the bytes as the client sent them, which is what
// signatures are made over. Any other event is an error.
func HTTP(h http.Handler) lambda.Handler { return gateway{h} }

type gateway struct{ http.Handler }

// call is what is needed of an event of the gateway; there is more in it.
type call struct {
	Version         string            `json:"version"`
	RawPath         string            `json:"rawPath"`
	RawQueryString  string            `json:"rawQueryString"`
	Cookies         []string          `json:"cookies"`
	Headers         map[string]string `json:"headers"`
	Body            string            `json:"body"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
	RequestContext  struct {
		DomainName string `json:"domainName"`
		HTTP       struct {
			Method   string `json:"method"`
			SourceIP string `json:"sourceIp"`
		} `json:"http"`
	} `json:"requestContext"`
}

// reply is what the gateway wants.
type reply struct {
	StatusCode      int               `json:"statusCode"`
	Headers         map[string]string `json:"headers,omitempty"`
	Cookies         []string          `json:"cookies,omitempty"`
	Body            string            `json:"body"`
	IsBase64Encoded bool              `json:"isBase64Encoded"`
}

// Invoke implements lambda.Handler.
func (g gateway) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	var c call
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, undecodable(err)
	}
	if c.Version != "2.0" || c.RequestContext.HTTP.Method == "" {
		return nil, fmt.Errorf("lambdaio: this is no event of an HTTP API in payload format 2.0 (its version is %.20q), and nothing else is served here", c.Version)
	}
	if end, ok := ctx.Deadline(); ok { // handlers end earlier: see package budget
		ctx = budget.Until(ctx, end.Add(-budget.Answer))
	}
	r, err := request(ctx, c)
	if err != nil {
		return encode(reply{StatusCode: http.StatusBadRequest})
	}
	w := &answer{header: make(http.Header, 16)}
	g.ServeHTTP(w, r)
	w.WriteHeader(http.StatusOK) // unless the handler did
	return encode(w.reply())
}

// undecodable hides what could not be decoded: it may hold what no log should.
func undecodable(err error) error {
	return fmt.Errorf("lambdaio: the event is not the JSON that is expected (%T)", err)
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // nobody takes it for a page, and escaped it would be longer
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("lambdaio: encoding an answer: %w", err)
	}
	return b.Bytes(), nil
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
func request(ctx context.Context, c call) (*http.Request, error) {
	var body io.Reader = strings.NewReader(c.Body)
	if c.IsBase64Encoded {
		plain, err := base64.StdEncoding.DecodeString(c.Body)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "the body is not the base64 it is said to be")
		}
		body = bytes.NewReader(plain)
	}
	if !strings.HasPrefix(c.RawPath, "/") {
		return nil, fault.New(fault.Invalid, "the path is not one")
	}
	r, err := http.NewRequestWithContext(ctx, c.RequestContext.HTTP.Method, "/", body)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the request is not one")
	}
	// The gateway has decoded the path, whatever its name says: what looks like an escape in it, or like the end of a path, is part of it.
	r.URL.Path, r.URL.RawQuery = c.RawPath, c.RawQueryString
	r.Header = make(http.Header, len(c.Headers)+1)
	for name, value := range c.Headers { // several values of a name come joined by commas
		r.Header.Set(name, value)
	}
	if len(c.Cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(c.Cookies, "; "))
	}
	r.Host = c.RequestContext.DomainName
	r.RequestURI = r.URL.RequestURI()
	r.RemoteAddr = c.RequestContext.HTTP.SourceIP + ":0"
	return r, nil
}

// reply keeps cookies apart, which must not be joined, and sends as base64 what is no text.
func (a *answer) reply() reply {
	out := reply{StatusCode: a.status, Headers: make(map[string]string, len(a.header))}
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
