package lambdahost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Call is a call of a function to a service of AWS or to Bitbucket.
type Call struct {
	Function   string // id
	Invocation string // id of the event it is made in; empty between two
	Cold       bool   // it is made in the first event of its process, or before
	Init       bool   // it is made before that
	Service    string // dynamodb, sqs, kms, …, or bitbucket
	Action     string // TransactWriteItems, or GET /2.0/user
	Resource   string // its name or ARN; the partition for a table's keys
	// Units is what DynamoDB charges for the call, write units for a transaction and read units for all else, by the JSON that was sent
	// or came back; known after the call.
	Units int
}

// Name is the call in a few words.
func (c Call) Name() string { return c.Service + " " + c.Action }

// Fate is what becomes of a call.
type Fate int

const (
	// Pass lets it through.
	Pass Fate = iota
	// Kill ends the process of the caller: before the call it is not made, after it
	// its answer is lost.
	Kill
	// Lose breaks the connection, before or after.
	Lose
	// Throttle answers, before the call, that there are too many.
	Throttle
)

// forgePath begins the paths of calls to Bitbucket; the caller's key follows.
const forgePath = "/bitbucket/"

// gateway stands between functions and what they call.
type gateway struct {
	host   *Host
	url    string
	server *http.Server
	client *http.Client
	own    *regexp.Regexp // Bitbucket's address for a process
	next   *regexp.Regexp // a link to Bitbucket's next page

	mu     sync.Mutex
	denied []string
}

func newGateway(h *Host) (*gateway, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gateway{
		host: h, url: "http://" + listener.Addr().String(),
		client: &http.Client{
			Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	g.own = regexp.MustCompile(regexp.QuoteMeta(g.url+forgePath) + `[0-9A-Z]+`)
	g.next = regexp.MustCompile(`("next":\s*")` + regexp.QuoteMeta(h.Forge+"/2.0"))
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = g.server.Serve(listener) }()
	return g, nil
}

func (g *gateway) close() error { return g.server.Close() }

// forge is the address of Bitbucket for one process.
func (g *gateway) forge(key string) string { return g.url + forgePath + key }

// outward is what a function answers with Bitbucket's own address, for browsers and git, in place of that for the process.
func (g *gateway) outward(text string) string {
	return g.own.ReplaceAllLiteralString(text, g.host.Forge)
}

// Denied answers the calls that the template's policies do not allow, each once.
func (h *Host) Denied() []string {
	h.gateway.mu.Lock()
	defer h.gateway.mu.Unlock()
	return slices.Clone(h.gateway.denied)
}

// ServeHTTP implements http.Handler.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 32<<20))
	if err != nil {
		return // the caller went
	}
	var ask asked
	var key string
	var onward *http.Request
	if rest, ok := strings.CutPrefix(r.URL.EscapedPath(), forgePath); ok {
		var path string
		key, path, _ = strings.Cut(rest, "/")
		ask = asked{service: "bitbucket", action: r.Method + " /" + path}
		onward, err = forward(r, g.host.Forge+"/"+path, body)
	} else {
		key, ask, err = g.describe(r, body)
		if err == nil {
			onward, err = forward(r, g.host.Services+r.URL.EscapedPath(), body)
		}
	}
	if err != nil {
		g.host.Log.Error("the gateway does not understand a call", "error", err)
		fail(w, ask.service, http.StatusNotImplemented, "UnknownOperationException", err.Error())
		return
	}
	i := g.host.instance(key)
	if i == nil {
		fail(w, ask.service, http.StatusForbidden, "UnrecognizedClientException", "nobody has this key")
		return
	}
	call := i.called()
	call.Service, call.Action, call.Resource = ask.service, ask.action, ask.resource()
	if why := g.refuses(i.function, ask); why != "" {
		fail(w, ask.service, http.StatusBadRequest, "AccessDeniedException", why)
		return
	}
	if g.fate(w, i, call, false) {
		return
	}
	status, header, text, err := g.send(onward, ask, body)
	if err != nil {
		panic(http.ErrAbortHandler) // whatever happened there, the caller learns nothing
	}
	if call.Service == "dynamodb" {
		call.Units = units(call.Action, body, text)
	}
	if g.fate(w, i, call, true) {
		return
	}
	for name, values := range header {
		if name != "Content-Length" && name != "Connection" {
			w.Header()[name] = values
		}
	}
	if ask.service == "bitbucket" {
		text = g.pages(key, text)
	}
	w.WriteHeader(status)
	_, _ = w.Write(text) // the caller may have gone
}

// fate asks the test; true says that there is nothing more to do.
func (g *gateway) fate(w http.ResponseWriter, i *instance, call Call, after bool) bool {
	if g.host.Watch == nil {
		return false
	}
	switch g.host.Watch(call, after) {
	case Kill:
		i.kill()
		<-i.ended
		return true
	case Lose:
		panic(http.ErrAbortHandler)
	case Throttle:
		if call.Service == "bitbucket" {
			http.Error(w, "Rate limit for this resource has been exceeded", http.StatusTooManyRequests)
		} else {
			fail(w, call.Service, http.StatusBadRequest, "ThrottlingException", "Rate exceeded")
		}
		return true
	}
	return false
}

// refuses says why the policies do not allow a call, that of the function's role and that of a key or a
// queue itself; or nothing.
func (g *gateway) refuses(f *function, ask asked) string {
	role, _ := g.host.Stack.Role(f.Role)
	for _, n := range ask.needs {
		if g.host.Stack.May(role, n.action, n.resource, n.context) {
			continue
		}
		why := fmt.Sprintf("%s may not %s on %s with %v", f.ID, n.action, n.resource, n.context)
		g.mu.Lock()
		if !slices.Contains(g.denied, why) {
			g.denied = append(g.denied, why)
		}
		g.mu.Unlock()
		g.host.Log.Error("denied", "call", why)
		return why
	}
	return ""
}

// send passes a call on.
func (g *gateway) send(onward *http.Request, ask asked, body []byte) (int, http.Header, []byte, error) {
	var local http.Handler
	switch ask.service {
	case "codebuild":
		local = g.host.CodeBuild
	case "scheduler":
		local = g.host.Scheduler
	}
	if local != nil {
		onward.Body, onward.RequestURI = io.NopCloser(bytes.NewReader(body)), onward.URL.RequestURI()
		w := &recorder{header: http.Header{}}
		err := guarded(local, w, onward)
		return max(w.status, http.StatusOK), w.header, w.body.Bytes(), err
	}
	answer, err := g.client.Do(onward)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, text, err
}

// recorder is the answer of a handler in this process.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// guarded calls a handler that may break the connection, as net/http's server would.
func guarded(h http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("no answer: %v", cause)
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

// forward makes the request to be sent on. It goes on when the caller dies: what was sent was sent.
func forward(r *http.Request, address string, body []byte) (*http.Request, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	u.RawQuery = r.URL.RawQuery
	onward, err := http.NewRequestWithContext(context.WithoutCancel(r.Context()), r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	onward.Header = r.Header.Clone()
	onward.Header.Del("Accept-Encoding")
	onward.Header.Del("Connection")
	return onward, nil
}

// pages leads the links to next pages through the gateway, too: a client follows
// them only to the host it was told.
func (g *gateway) pages(key string, text []byte) []byte {
	return g.next.ReplaceAll(text, []byte("${1}"+g.forge(key)+"/2.0"))
}

// fail answers an error in the form of the service.
func fail(w http.ResponseWriter, service string, status int, code, message string) {
	if service == "s3" {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, url.QueryEscape(message))
		return
	}
	text, err := json.Marshal(map[string]string{"__type": code, "message": message})
	if err != nil {
		panic(errors.Join(errors.New("two strings have a JSON form"), err))
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Errortype", code)
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
