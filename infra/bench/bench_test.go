package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"runnerhub/infra/visitor"
	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/secret"
)

// TestMain lets the test binary be the processes that a run starts: the server under
// test, and in the place of the real program, whose memory is measured, the same.
func TestMain(m *testing.M) {
	if len(os.Args) != 2 || (os.Args[1] != "server" && os.Args[1] != "serve") {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	if os.Args[1] == "server" {
		err = run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	} else {
		err = serve(ctx, serverConfig{
			Listen: os.Getenv("RUNNERHUB_LISTEN"), Data: os.Getenv("RUNNERHUB_DATA"), Forge: os.Getenv("BITBUCKET_WEB_URL"),
		}, func() {})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestRun goes through everything on a small scale: it looks at what is counted, not
// at what is timed.
func TestRun(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out bytes.Buffer
	b := &bench{
		scale:   scale{repositories: 2, rounds: 6, repeats: 2, each: 6, clients: 3, settle: 100 * time.Millisecond, functions: []string{"webhook"}, starts: 2, deliveries: 12},
		program: self, progress: t.Output(),
	}
	figures, err := b.run(ctx, &out)
	if err != nil {
		t.Fatal(err)
	}
	if err := show(&out, figures); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	for _, want := range []string{
		"at most 3 calls a push",
		"on the way there are 6: deliveries publish, deliveries receive, transact, reports publish, reports receive, transact",
		"push 3, pull request 3",
		"repeat 2: 12 pushes", "0 refused, none lost",
		"and 6 pushes",
		"webhook invocation, CPU, warm", "function webhook, zip and start", "to the first poll: min",
		"12 accepted, 0 refused",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the result does not say %q", want)
		}
	}
	for _, f := range figures {
		if (strings.HasPrefix(f.what, "calls of a") || strings.Contains(f.what, "deliveries")) && !f.reached {
			t.Errorf("%s: %s", f.what, f.measured)
		}
	}
	for _, bad := range []string{"LOST", "REFUSED"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("the result says %q", bad)
		}
	}
	if _, err := os.Stat(b.dir); !os.IsNotExist(err) {
		t.Errorf("the folder of the run is left: %v", err)
	}
}

// TestLossIsNoticed makes what a bench that measures a broken server has to see.
func TestLossIsNoticed(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	f, err := newForge(ctx, "http://"+address+"/auth/callback", 1, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	}()
	serving, stop := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- serve(serving, serverConfig{Listen: address, Data: t.TempDir(), Forge: f.address}, func() { close(ready) })
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-ready
	h, err := newHub(ctx, f, "http://"+address, 1)
	if err != nil {
		t.Fatal(err)
	}
	pushes, err := h.pushes(3)
	if err != nil {
		t.Fatal(err)
	}
	send := func(pushes ...request) burst {
		b, err := h.burst(ctx, pushes, 1)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := send(pushes[0]); !b.ok() {
		t.Errorf("a good push: %v", b.troubles())
	}
	forged := pushes[1]
	forged.signature = sign("another", forged.body)
	if b := send(forged); len(b.refusals) != 1 || b.lost != nil {
		t.Errorf("a forged push: %v", b.troubles())
	}
	// The same change again, under another id: a build and a status less than accepted
	// requests, as if they were lost.
	if b := send(pushes[0]); b.lost == nil || !strings.Contains(b.lost.Error(), "ALREADY_BUILT") || !strings.Contains(b.lost.Error(), "INPROGRESS") {
		t.Errorf("a push without a build: %v", b.troubles())
	}
	if _, err := h.pushes(2); err == nil {
		t.Error("more commits were dealt than there are")
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	hash := func(c string) string { return strings.Repeat(c, 40) }
	for _, name := range []string{"acme/a", "acme/" + strings.Repeat("long", 10)} {
		r := repository{Repository: visitor.Repository{UUID: "{7b1d3f62-1111-4222-8333-944455556666}", FullName: name}, api: "https://api.bitbucket.org/2.0/repositories/" + name}
		e, err := push(r, "topic", hash("a"), hash("b"))
		if err != nil {
			t.Fatal(err)
		}
		if len(e.body) != bodyBytes || e.commit != hash("b") {
			t.Errorf("a push of %d bytes, of commit %s", len(e.body), e.commit)
		}
		if !bitbucket.Verify(secret.New("key"), e.body, sign("key", e.body)) {
			t.Error("the signature does not verify")
		}
		got, err := bitbucket.ParseEvent(e.key, e.body)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Changes) != 1 || got.Changes[0].Old != hash("a") || got.Changes[0].New != hash("b") || got.Changes[0].Name != "topic" || got.Repository != r.UUID {
			t.Errorf("the push reads %+v", got)
		}
		if e, err = pullRequest(r, 7, "topic", hash("c")); err != nil {
			t.Fatal(err)
		}
		if got, err = bitbucket.ParseEvent(e.key, e.body); err != nil {
			t.Fatal(err)
		}
		if pr := got.PullRequest; pr == nil || pr.ID != 7 || pr.SourceHash != hash("c")[:12] || pr.Action != ci.PullRequestOpened || pr.Fork() || !pr.Open {
			t.Errorf("the pull request reads %+v", pr)
		}
	}
}

func TestOnTheWay(t *testing.T) {
	t.Parallel()
	posted := time.Unix(100, 0)
	at := func(lane, what string, second int64) write { return write{lane, what, time.Unix(second, 0)} }
	writes := []write{
		at("", "deliveries publish", 90),
		at("", "deliveries receive", 91),
		at("deliveries", "transact", 92),
		at("deliveries", "reports publish", 93),
		at("deliveries", "transact", 94), // the decision: nobody waits for it
		at("", "reports receive", 95),
		at("reports", "transact", 96),
		at("deliveries", "transact", 97),
		at("reports", "transact", 101), // that it was posted
		at("", "deliveries receive", 102),
	}
	want := []string{"deliveries publish", "deliveries receive", "transact", "reports publish", "reports receive", "transact"}
	if got := onTheWay(writes, posted); !slices.Equal(got, want) {
		t.Errorf("on the way were %q", got)
	}
	if got := onTheWay(nil, posted); len(got) != 0 {
		t.Errorf("of nothing, %q were on the way", got)
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	var s sample
	if s.median() != 0 {
		t.Error("the median of nothing is something")
	}
	for i := range 100 {
		s = append(s, time.Duration(100-i)*time.Millisecond)
	}
	if got, want := s.spread(), "min 1 ms, median 51 ms, p99 100 ms, max 100 ms"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if s[0] != 100*time.Millisecond {
		t.Error("the sample was put in order")
	}
	for d, want := range map[time.Duration]string{
		0: "0 ns", 999: "999 ns", 1500: "1.5 µs", 12345678: "12.3 ms", 61 * time.Second: "61 s",
	} {
		if got := short(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
}
