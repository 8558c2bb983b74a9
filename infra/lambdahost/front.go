package lambdahost

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"runnerhub/infra/template"
)

const (
	// maxRequest is the longest body an HTTP API takes.
	maxRequest = 10 << 20
	// stage is the one that has no path of its own.
	stage = "$default"
)

// front is the HTTP API: it turns requests into events of payload format 2.0, and answers of functions
// into responses (https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html).
func (h *Host) front() (http.Handler, error) {
	mux := http.NewServeMux()
	for _, route := range h.Stack.Routes {
		f := h.functions[route.Function]
		if f == nil {
			return nil, fmt.Errorf("route %s %s leads to %q, which is no function", route.Method, route.Path, route.Function)
		}
		pattern := strings.Replace(route.Path, "+}", "...}", 1)
		switch {
		case pattern == "":
			pattern = "/"
		case strings.HasSuffix(pattern, "/"):
			pattern += "{$}"
		}
		if route.Method != "" && route.Method != "ANY" {
			pattern = route.Method + " " + pattern
		}
		throttle, own := h.Stack.API.Routes[key(route)]
		if !own {
			throttle = h.Stack.API.Throttle
		}
		mux.Handle(pattern, &entry{host: h, route: route, function: f, bucket: newBucket(throttle)})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			refuse(w, http.StatusNotFound, "Not Found") // also for a method that no route has
			return
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// key is what the HTTP API calls a route.
func key(r template.Route) string {
	if r.Path == "" {
		return stage
	}
	return r.Method + " " + r.Path
}

// entry is one route.
type entry struct {
	host     *Host
	route    template.Route
	function *function
	bucket   *bucket
}

// ServeHTTP implements http.Handler.
func (e *entry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !e.bucket.take(time.Now()) {
		refuse(w, http.StatusTooManyRequests, "Too Many Requests")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return // the client went
	}
	if len(body) > maxRequest {
		refuse(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		return
	}
	payload, err := json.Marshal(e.event(r, body))
	if err != nil {
		refuse(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	if len(payload) > maxAnswer {
		refuse(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		return
	}
	text, err := e.invoke(r.Context(), payload)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusServiceUnavailable, "Service Unavailable")
	case errors.Is(err, errThrottled):
		refuse(w, http.StatusServiceUnavailable, "Service Unavailable")
	case err != nil:
		refuse(w, http.StatusInternalServerError, "Internal Server Error")
	default:
		e.respond(w, text)
	}
}

// invoke waits for an answer as long as the route's integration does; the function goes on.
func (e *entry) invoke(ctx context.Context, payload []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, e.route.Timeout)
	defer cancel()
	answered := make(chan outcome, 1)
	go func() {
		body, err := e.function.invoke(ctx, payload)
		answered <- outcome{body: body, err: err}
	}()
	select {
	case out := <-answered:
		return out.body, out.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *entry) event(r *http.Request, body []byte) events.APIGatewayV2HTTPRequest {
	now := time.Now().UTC()
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	event := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: key(e.route), RawPath: r.URL.Path, RawQueryString: r.URL.RawQuery,
		Headers: map[string]string{"host": r.Host},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			RouteKey: key(e.route), AccountID: e.host.Account, Stage: stage, RequestID: requestID(), APIID: "local",
			DomainName: r.Host, DomainPrefix: "local", Time: now.Format("02/Jan/2006:15:04:05 -0700"), TimeEpoch: now.UnixMilli(),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{
				Method: r.Method, Path: r.URL.Path, Protocol: r.Proto, SourceIP: host, UserAgent: r.UserAgent(),
			},
		},
	}
	for name, values := range r.Header {
		if name == "Cookie" {
			for _, value := range values {
				for cookie := range strings.SplitSeq(value, ";") {
					event.Cookies = append(event.Cookies, strings.TrimSpace(cookie))
				}
			}
			continue
		}
		event.Headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	if query := r.URL.Query(); len(query) > 0 {
		event.QueryStringParameters = map[string]string{}
		for name, values := range query {
			event.QueryStringParameters[name] = strings.Join(values, ",")
		}
	}
	for part := range strings.SplitSeq(e.route.Path, "/") {
		name, ok := strings.CutPrefix(part, "{")
		if !ok {
			continue
		}
		if event.PathParameters == nil {
			event.PathParameters = map[string]string{}
		}
		name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "+")
		event.PathParameters[name] = r.PathValue(name)
	}
	if len(body) > 0 {
		if event.IsBase64Encoded = !textual(r.Header.Get("Content-Type")); event.IsBase64Encoded {
			event.Body = base64.StdEncoding.EncodeToString(body)
		} else {
			event.Body = string(body)
		}
	}
	return event
}

// textual reports whether the gateway sends a body of the type as it is.
func textual(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return strings.HasPrefix(kind, "text/") || kind == "application/json" || kind == "application/xml" || kind == "application/javascript" ||
		strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml")
}

// respond writes what a function answered. What is no answer of the payload format is
// an internal error.
func (e *entry) respond(w http.ResponseWriter, text []byte) {
	var out events.APIGatewayV2HTTPResponse
	err := json.Unmarshal(text, &out)
	body := []byte(out.Body)
	if err == nil && out.IsBase64Encoded {
		body, err = base64.StdEncoding.DecodeString(out.Body)
	}
	if err != nil || out.StatusCode < 100 || out.StatusCode > 599 {
		e.host.Log.Error("no answer of an HTTP API", "function", e.function.ID, "error", err)
		refuse(w, http.StatusInternalServerError, "Internal Server Error")
		return
	}
	if !out.IsBase64Encoded {
		body = []byte(e.host.gateway.outward(out.Body))
	}
	for name, value := range out.Headers {
		if strings.EqualFold(name, "Content-Length") {
			continue // the gateway counts itself
		}
		w.Header().Set(name, e.host.gateway.outward(value))
	}
	for _, cookie := range out.Cookies {
		w.Header().Add("Set-Cookie", cookie)
	}
	w.WriteHeader(out.StatusCode)
	_, _ = w.Write(body) // the client may have gone
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"message":%q}`, message)
}

// bucket is the throttle of a route: tokens that come at a rate. Nil lets everything through.
type bucket struct {
	rate, burst float64

	mu     sync.Mutex
	tokens float64
	at     time.Time
}

func newBucket(t template.Throttle) *bucket {
	if t.Rate <= 0 {
		return nil
	}
	return &bucket{rate: t.Rate, burst: float64(t.Burst), tokens: float64(t.Burst)}
}

func (b *bucket) take(now time.Time) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.at.IsZero() {
		b.tokens = min(b.burst, b.tokens+now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
