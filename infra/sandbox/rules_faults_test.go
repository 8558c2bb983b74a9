package sandbox

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestRule91_Down(t *testing.T) {
	t.Parallel()
	b := start(t)
	dir := b.clone("bob")
	b.faults(obj{"down": true})
	b.get("alice", "/2.0/user").want(http.StatusServiceUnavailable)
	b.token(url.Values{}).want(http.StatusServiceUnavailable)
	if out, err := b.gitIn(dir, "fetch"); !isExit(err) || !strings.Contains(out, "503") {
		t.Errorf("%v\n%s", err, out)
	}
	b.get("alice", "/acme/shop").want(http.StatusOK)
	b.get("", "/_sandbox/faults").want(http.StatusOK, `"down":true`)
	b.call("", http.MethodDelete, "/_sandbox/faults", nil).want(http.StatusNoContent)
	b.get("alice", "/2.0/user").want(http.StatusOK)
	b.git(dir, "fetch")
}

func TestRule92_Latency(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.faults(obj{"latency_ms": 60})
	before := time.Now()
	b.get("alice", "/2.0/user").want(http.StatusOK)
	if took := time.Since(before); took < 60*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestRule93_RateLimited(t *testing.T) {
	t.Parallel()
	b := start(t)
	_, refresh := b.connect("alice")
	b.faults(obj{"rate_limited": true})
	a := b.get("alice", "/2.0/user").want(http.StatusTooManyRequests)
	if string(a.body) != "Rate limit for this resource has been exceeded" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || a.header.Get("Retry-After") != "" {
		t.Errorf("%q %v", a.body, a.header)
	}
	b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}).want(http.StatusOK)
}

func TestRule94_LostAnswers(t *testing.T) {
	t.Parallel()
	b := start(t)
	hash := b.tip("main")
	post := func() error {
		header := http.Header{"Content-Type": {"application/json"}}
		_, err := b.send("bob", http.MethodPost, shopAPI+"/commit/"+hash+"/statuses/build", header,
			io.NopCloser(strings.NewReader(`{"key":"lost","state":"FAILED","url":"http://127.0.0.1/"}`)))
		return err
	}
	b.faults(obj{"lose_answers": 1})
	if err := post(); err == nil {
		t.Error("an answer came")
	}
	if err := post(); err != nil {
		t.Errorf("the second answer is lost, too: %v", err)
	}
	b.get("bob", shopAPI+"/commit/"+hash+"/statuses/build/lost").want(http.StatusOK)
	b.get("", "/_sandbox/calls").want(http.StatusOK, `"answer_lost":true`)

	_, refresh := b.connect("alice")
	b.faults(obj{"lose_answers": true})
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Authorization": {basic("client", "client-secret")}}
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}.Encode()
	for range 2 {
		if _, err := b.send("", http.MethodPost, "/site/oauth2/access_token", header, io.NopCloser(strings.NewReader(form))); err == nil {
			t.Error("an answer came")
		}
	}
	b.get("", "/_sandbox/faults").want(http.StatusOK, `"lose_answers":true`)
	b.faults(obj{"lose_answers": false})
	b.clock.advance(refreshGrace)
	b.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}).want(http.StatusBadRequest) // it was rotated
}

func TestRule95_Revoked(t *testing.T) {
	t.Parallel()
	b := start(t)
	access, refresh := b.connect("alice")
	again := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
	b.faults(obj{"revoked": true})
	b.get("Bearer "+access, "/2.0/user").want(http.StatusUnauthorized)
	b.token(again).want(http.StatusBadRequest, rotatedAnswer)
	b.get("alice", "/2.0/user").want(http.StatusOK)
	b.faults(obj{})
	b.get("Bearer "+access, "/2.0/user").want(http.StatusOK)
	b.token(again).want(http.StatusOK)
}

func TestRule96_Times(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.faults(obj{"token_seconds": 30, "grace_ms": 5000, "attempt_delay_ms": 7})
	if got := b.faultBoxDelay(); got != 7*time.Millisecond {
		t.Errorf("delay %v", got)
	}
	access, refresh := b.connect("alice")
	b.clock.advance(29 * time.Second)
	b.get("Bearer "+access, "/2.0/user").want(http.StatusOK)
	b.clock.advance(time.Second)
	b.get("Bearer "+access, "/2.0/user").want(http.StatusUnauthorized)
	values := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
	if got := b.token(values).want(http.StatusOK).at("expires_in"); got != 30.0 {
		t.Errorf("expires in %v", got)
	}
	b.clock.advance(5 * time.Second)
	b.token(values).want(http.StatusBadRequest)
	b.faults(obj{})
	if got := b.faultBoxDelay(); got != time.Second {
		t.Errorf("delay %v", got)
	}
}

func (b *bench) faultBoxDelay() time.Duration { return b.Sandbox.faults.current().attemptDelay() }

func TestRule97_UnknownFaults(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.faults(obj{"latency_ms": 5})
	for _, f := range []obj{{"dwon": true}, {"down": 1}, {"lose_answers": -1}, {"lose_answers": "all"}, {"latency_ms": -1}, {"grace_ms": -1}} {
		b.call("", http.MethodPut, "/_sandbox/faults", f).want(http.StatusBadRequest)
	}
	b.get("", "/_sandbox/faults").want(http.StatusOK, `"latency_ms":5`)
	b.faults(obj{"down": true})
	b.get("", "/_sandbox/faults").want(http.StatusOK, `"latency_ms":0`)
}

func TestRule98_CallLog(t *testing.T) {
	t.Parallel()
	b := start(t)
	access, _ := b.connect("alice")
	b.call("", http.MethodDelete, "/_sandbox/calls", nil).want(http.StatusNoContent)
	b.get("Bearer "+access, shopAPI+"?fields=uuid").want(http.StatusOK)
	b.get("bob", "/2.0/nothing").want(http.StatusNotFound)
	b.get("alice", "/acme/shop").want(http.StatusOK)
	a := b.get("", "/_sandbox/calls").want(http.StatusOK)
	if a.size("items") != 2 || strings.Contains(string(a.body), access) {
		t.Fatalf("%s", a.body)
	}
	want := []any{"GET", shopAPI, "fields=uuid", 200.0, "alice", "bearer"}
	for i, name := range []string{"method", "path", "query", "status", "user", "auth"} {
		if got := a.at("items", 0, name); got != want[i] {
			t.Errorf("%s: %v, want %v", name, got, want[i])
		}
	}
	if a.at("items", 1, "user") != "bob" || a.at("items", 1, "status") != 404.0 || a.text("items", 0, "time") == "" {
		t.Errorf("%s", a.body)
	}
}

func TestRule99_Redelivery(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.faults(obj{"attempt_delay_ms": 0})
	to := receive(t, func(n int) int { return map[bool]int{true: 500, false: 200}[n <= 3] })
	b.hook(to.URL, "s", "repo:push")
	b.put("main", "a", "a")
	b.settle()
	first := to.all()
	id := first[0].header.Get("X-Request-UUID")
	b.get("", "/_sandbox/deliveries/"+id).want(http.StatusOK, `"state":"failed"`, `"body":{`, `"event":"repo:push"`)
	for i := range 2 {
		b.call("", http.MethodPost, "/_sandbox/deliveries/"+id+"/redeliver", nil).want(http.StatusAccepted)
		in := to.next(t)
		if in.header.Get("X-Request-UUID") != id || string(in.raw) != string(first[0].raw) || in.header.Get("X-Attempt-Number") != "1" {
			t.Errorf("redelivery %d: %v", i, in.header)
		}
		b.settle()
	}
	b.get("", "/_sandbox/deliveries").want(http.StatusOK, `"state":"delivered"`, `"redelivered":2`)
	b.form("bob", "/acme/shop/deliveries/"+id+"/redeliver", nil).want(http.StatusForbidden)
	b.form("alice", "/acme/docs/deliveries/"+id+"/redeliver", nil).want(http.StatusNotFound)
	b.form("alice", "/acme/shop/deliveries/"+id+"/redeliver", nil).want(http.StatusSeeOther)
	to.next(t)
	b.call("", http.MethodPost, "/_sandbox/deliveries/none/redeliver", nil).want(http.StatusNotFound)
}
