package lambdaio

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"runnerhub/shared/fault"
	"runnerhub/shared/httpapi"
	"runnerhub/shared/ingest"
	"runnerhub/shared/queue"
	"runnerhub/shared/store"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/keyfile"
)

// inbox keeps what was published.
type inbox struct{ bodies [][]byte }

func (q *inbox) Publish(_ context.Context, body []byte, _ time.Duration) error {
	q.bodies = append(q.bodies, body)
	return nil
}

var _ queue.Publisher = (*inbox)(nil)

// hooks knows one hook.
type hooks struct{ hook store.Hook }

func (h hooks) Hook(_ context.Context, id string) (store.Hook, error) {
	if id != h.hook.ID {
		return store.Hook{}, fault.New(fault.NotFound, "no such hook")
	}
	return h.hook, nil
}

// send hands an event to a handler as AWS's own types have it, and reads the answer as they do.
func send(t *testing.T, h lambda.Handler, e events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	t.Helper()
	e.Version = "2.0"
	payload, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var r events.APIGatewayV2HTTPResponse
	out, err := h.Invoke(t.Context(), payload)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// real is the real HTTP API with the real ingest behind the gateway's events.
func real(t *testing.T) (*inbox, lambda.Handler) {
	t.Helper()
	keys, err := keyfile.New(keyfile.Deps{Path: t.TempDir() + "/key", Name: "hooks"})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := vault.Seal(t.Context(), keys, vault.Binding{Owner: "hook", Purpose: ingest.SecretPurpose}, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	in := &inbox{}
	accept, err := ingest.New(ingest.Deps{
		Hooks: hooks{store.Hook{ID: "hook", App: "app", Sealed: sealed, Version: 1}}, Vault: keys, Queue: in, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	api, err := httpapi.New(httpapi.Deps{
		Groups: []httpapi.Group{httpapi.Webhook(accept)}, PublicURL: "https://ci.example.com", Now: time.Now,
		NewRef: func() string { return "ref" }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return in, HTTP(api)
}

func delivery(body string, base64Encoded bool, signature string) events.APIGatewayV2HTTPRequest {
	e := events.APIGatewayV2HTTPRequest{
		RawPath: "/hooks/hook", Body: body,
		Headers: map[string]string{
			"x-event-key": "repo:push", "x-request-uuid": "7d3a", "x-attempt-number": "1",
			"x-hub-signature": signature, "content-type": "application/json",
		},
	}
	if base64Encoded {
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString([]byte(body)), true
	}
	e.RequestContext.HTTP.Method = http.MethodPost
	e.RequestContext.DomainName = "ci.example.com"
	return e
}

func TestSignaturesAreOverTheClientsBytes(t *testing.T) {
	t.Parallel()
	const body, odd = "{\"push\": {\"changes\": []},\r\n \"odd\": \"é\"}", "{\"odd\": \"\xff\"}" // not even UTF-8
	sign := func(body string) string {
		mac := hmac.New(sha256.New, []byte("secret"))
		_, _ = io.WriteString(mac, body)
		return "sha256=" + hex.EncodeToString(mac.Sum(nil))
	}
	good := sign(body)
	bad := "sha256=" + strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		event events.APIGatewayV2HTTPRequest
		want  int
		kept  int
	}{
		"plain":                 {delivery(body, false, good), 200, 1},
		"base64":                {delivery(body, true, good), 200, 1},
		"base64, not text":      {delivery(odd, true, sign(odd)), 200, 1},
		"plain, bad signature":  {delivery(body, false, bad), 401, 0},
		"base64, bad signature": {delivery(body, true, bad), 401, 0},
		"no signature":          {delivery(body, true, ""), 401, 0},
		"too large":             {delivery(strings.Repeat("a", ingest.MaxBody+1), true, good), 413, 0},
	} {
		in, handler := real(t)
		got, err := send(t, handler, test.event)
		if err != nil || got.StatusCode != test.want || len(in.bodies) != test.kept {
			t.Errorf("%s: %d %s, %v, %d kept; want %d and %d", name, got.StatusCode, got.Body, err, len(in.bodies), test.want, test.kept)
		}
	}
}

func TestBrokenBase64(t *testing.T) {
	t.Parallel()
	_, handler := real(t)
	e := delivery("x", false, "sha256=00")
	e.Body, e.IsBase64Encoded = "%%%", true
	if got, err := send(t, handler, e); err != nil || got.StatusCode != 400 {
		t.Errorf("%d, %v", got.StatusCode, err)
	}
}

// TestThereAndBack sends what HTTP can hold through an event and back.
func TestThereAndBack(t *testing.T) {
	t.Parallel()
	var seen *http.Request
	handler := HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		w.Header().Set("X-Kind", "binary")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte{0xff, 0x00})
	}))
	e := events.APIGatewayV2HTTPRequest{
		RawPath: "/api/x y", RawQueryString: "q=a+b&q=c", Cookies: []string{"session=s", "other=o"},
		Headers: map[string]string{"authorization": "Bearer x", "accept": "a, b"},
	}
	e.RequestContext.HTTP.Method, e.RequestContext.DomainName = http.MethodGet, "ci.example.com"
	got, err := send(t, handler, e)
	if err != nil {
		t.Fatal(err)
	}
	if seen.URL.Path != "/api/x y" || seen.RequestURI != "/api/x%20y?q=a+b&q=c" || seen.FormValue("q") != "a b" || seen.Host != "ci.example.com" {
		t.Errorf("the handler saw %s %s", seen.Host, seen.URL)
	}
	if c, err := seen.Cookie("other"); err != nil || c.Value != "o" || seen.Header.Get("Authorization") != "Bearer x" {
		t.Errorf("the handler saw %v", seen.Header)
	}
	if got.StatusCode != http.StatusTeapot || len(got.Cookies) != 2 || got.Headers["X-Kind"] != "binary" || !got.IsBase64Encoded || got.Body != "/wA=" {
		t.Errorf("the answer is %+v", got)
	}
}

// The gateway decodes the path. Whatever is in it, and were it not decoded, it is a path and leads to the route that has it.
func TestPaths(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	for _, pattern := range []string{"GET /{$}", "GET /api/builds/{build}", "GET /api/builds/{build}/log"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, pattern+" "+r.PathValue("build")+" "+r.URL.RawQuery)
		})
	}
	handler := HTTP(mux)
	for path, want := range map[string]string{
		"/":                           "GET /{$}  a=%2F&b",
		"/api/builds/b1":              "GET /api/builds/{build} b1 a=%2F&b",
		"/api/builds/b1/log":          "GET /api/builds/{build}/log b1 a=%2F&b",
		"/api/builds/100%":            "GET /api/builds/{build} 100% a=%2F&b",
		"/api/builds/%zz":             "GET /api/builds/{build} %zz a=%2F&b",
		"/api/builds/b1?cursor=x":     "GET /api/builds/{build} b1?cursor=x a=%2F&b",
		"/api/builds/b1#log":          "GET /api/builds/{build} b1#log a=%2F&b",
		"/api/builds/b1%2Flog":        "GET /api/builds/{build} b1%2Flog a=%2F&b",
		"/api/builds/b1%3Fcursor=x":   "GET /api/builds/{build} b1%3Fcursor=x a=%2F&b",
		"/api/builds/a b\u00e9\n\x00": "GET /api/builds/{build} a b\u00e9\n\x00 a=%2F&b",
		"/api/builds/b1/":             "404",
		"/api/builds/b1/log/more":     "404",
		"/api/%62uilds/b1":            "404",
		"//example.com/api":           "307 /example.com/api?a=%2F&b",
		"/api/builds/../secret":       "307 /api/secret?a=%2F&b",
		"":                            "400",
		"api/builds/b1":               "400",
		"https://example.com/":        "400",
	} {
		e := events.APIGatewayV2HTTPRequest{RawPath: path, RawQueryString: "a=%2F&b"}
		e.RequestContext.HTTP.Method, e.RequestContext.DomainName = http.MethodGet, "ci.example.com"
		answer, err := send(t, handler, e)
		got := answer.Body
		if answer.StatusCode != http.StatusOK {
			got = strings.TrimSpace(fmt.Sprint(answer.StatusCode, " ", answer.Headers["Location"]))
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", path, got, err, want)
		}
	}
}

// What is no call of the gateway is not taken for one, and nothing of it gets into the error.
func TestNoCall(t *testing.T) {
	t.Parallel()
	_, handler := real(t)
	for _, payload := range []string{
		`{}`, `{"version":"1.0","httpMethod":"POST","path":"/hooks/hook","body":"hidden"}`, `{"version":"2.0","rawPath":"/hidden"}`,
		`{"Records":[{"eventSource":"aws:sqs","body":"hidden"}]}`, `{"version":2,"body":"hidden"}`, `hidden`, ``,
	} {
		out, err := handler.Invoke(t.Context(), []byte(payload))
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %s, %v", payload, out, err)
		}
	}
}
