package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/aws/buildlogs"
	"runnerhub/infra/codebuild"
	"runnerhub/infra/lambdahost"
	"runnerhub/infra/rehearsal"
	"runnerhub/infra/visitor"
)

// marked is a site whose pipeline file lets its step leave a mark for the commit.
func newMarked(t *testing.T, l *lambda, deps rehearsal.Deps) (*site, *account) {
	t.Helper()
	a := l.account(t, deps)
	s := newShop(t, a)
	s.commit(pipelinePath, pipeline("[push]", "echo ran >> "+s.mark("$RUNNERHUB_COMMIT")))
	// Bitbucket tries three times: a later attempt has to find a function that lives.
	s.faults(map[string]any{"attempt_delay_ms": 1500})
	return s, a
}

// told answers nil when everything that tells of a commit tells the same end.
func (s *site) told(commit string) error {
	statuses, err := s.Statuses(s.t.Context(), shop, commit)
	if err != nil {
		return err
	}
	if len(statuses) != 1 || statuses[0].State != "SUCCESSFUL" {
		return fmt.Errorf("Bitbucket shows %+v", statuses)
	}
	builds, err := s.Builds(s.t.Context(), s.app)
	if err != nil {
		return err
	}
	builds = slices.DeleteFunc(builds, func(b visitor.Build) bool { return b.Commit != commit })
	if len(builds) != 1 {
		return fmt.Errorf("there are %d builds", len(builds))
	}
	b := builds[0]
	if b.State != "SUCCESSFUL" || !strings.HasSuffix(statuses[0].URL, b.ID) {
		return fmt.Errorf("build #%d is %s (%s), Bitbucket shows %+v", b.Number, b.State, b.Reason, statuses)
	}
	if ran := s.marked(commit); ran != "ran\n" {
		s.t.Fatalf("the step of build #%d ran %d times", b.Number, strings.Count(ran, "\n"))
	}
	deliveries, err := s.Deliveries(s.t.Context(), s.app)
	if err != nil {
		return err
	}
	for _, d := range deliveries {
		for _, decision := range d.Decisions {
			if decision.Build == b.ID {
				return nil
			}
		}
	}
	return fmt.Errorf("no delivery tells of build #%d", b.Number)
}

// repaired waits for the end of a commit's story while the sweep goes round.
func (s *site) repaired(a *account, commit string) error {
	return s.mends(a, func() error { return s.told(commit) })
}

// mends waits until there is no error any more, while the sweep goes round. What a sweep would find only when it is
// due, it finds now: its event names a later time. It goes round as soon as nobody is at work who would mend it anyway, and now and then
// all the same.
func (s *site) mends(a *account, check func() error) error {
	const soon, anyway = time.Second, 5 * time.Second
	looks := time.NewTicker(200 * time.Millisecond)
	defer looks.Stop()
	last, deadline := time.Now(), time.Now().Add(patience)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-looks.C
		if since := time.Since(last); since < soon || since < anyway && !a.rests() {
			continue
		}
		// A round that fails is not tried again: the next one comes anyway.
		_ = a.Host().Tick(s.t.Context(), "SweepFunction", time.Now().Add(3*time.Hour)) // also of a build that runs, whose end nobody told
		last = time.Now()
	}
}

// rests reports whether no function is at work or has anything to work on.
func (a *account) rests() bool {
	idle, err := a.Host().Idle(a.t.Context())
	return err == nil && idle // who cannot tell looks again
}

// everythingTwice delivers every batch and every event twice, at the same time.
func everythingTwice(t *testing.T, in stack) {
	s, a := newMarked(t, in.(*lambda), rehearsal.Deps{Twice: true})
	for n := range 10 {
		commit := s.commit("n", fmt.Sprintln(n))
		s.push("HEAD:main")
		s.must(s.repaired(a, commit))
	}
	s.noDeadLetters(a)
}

// lostAndBusy breaks every eleventh call, before or after it, and throttles every thirteenth.
func lostAndBusy(t *testing.T, in stack) {
	var mu sync.Mutex
	n := 0
	watch := func(c lambdahost.Call, after bool) lambdahost.Fate {
		mu.Lock()
		defer mu.Unlock()
		n++
		switch {
		case c.Service == "bitbucket":
		case n%11 == 0:
			return lambdahost.Lose
		case n%13 == 0 && !after:
			return lambdahost.Throttle
		}
		return lambdahost.Pass
	}
	s, a := newMarked(t, in.(*lambda), rehearsal.Deps{Watch: watch})
	for n := range 10 {
		commit := s.commit("n", fmt.Sprintln(n))
		s.push("HEAD:main")
		s.must(s.repaired(a, commit))
	}
	s.noDeadLetters(a)
}

func (s *site) noDeadLetters(a *account) {
	s.t.Helper()
	for _, q := range a.Stack.Queues {
		if q.DeadLetter != "" {
			continue // it has some of its own
		}
		state, err := a.Host().Queue(s.t.Context(), q.ID)
		s.must(err)
		if state.Visible+state.Hidden > 0 {
			s.t.Errorf("queue %s holds %+v", q.Name, state)
		}
	}
}

// graceOver kills a refresh that Bitbucket has answered, and lets the old tokens end before anybody can try them again. Then
// nothing is left but to say so, which takes three refusals, a minute apart; and to connect again.
func graceOver(t *testing.T, in stack) {
	m := newMortal(t, in.(*lambda))
	m.faults(map[string]any{"grace_ms": 1})
	m.b.aim(2, func(c lambdahost.Call) bool { return strings.HasSuffix(c.Action, "/access_token") })
	month := func() error {
		return m.a.Host().Tick(t.Context(), "RefreshFunction", time.Now().Add(40*24*time.Hour))
	}
	if err := month(); err == nil {
		t.Fatal("the refresh was not killed")
	}
	rounds := time.NewTicker(time.Second)
	defer rounds.Stop()
	state := func() visitor.Connection {
		all, err := m.Connections(t.Context(), m.workspace)
		if err != nil || len(all) != 1 {
			t.Fatalf("the connections are %+v, %v", all, err)
		}
		return all[0]
	}
	for deadline := time.Now().Add(2 * patience); state().State == "ACTIVE"; <-rounds.C {
		if time.Now().After(deadline) {
			t.Fatal("the connection does not say that it has to be authorised again")
		}
		m.must(month())
	}
	refused := slices.DeleteFunc(m.calls(http.MethodPost, "/access_token"), func(c call) bool { return c.Status == http.StatusOK })
	if now := state(); now.State != "RECONNECT" || !strings.Contains(now.Reason, "refused") || len(refused) != 3 {
		t.Errorf("after %d refusals the connection is %+v", len(refused), now)
	}
	m.faults(map[string]any{})
	again, err := m.Connect(t.Context(), m.workspace)
	m.must(err)
	if now := state(); again != m.connection || now.State != "ACTIVE" {
		t.Errorf("after it was authorised again, the connection is %+v", now)
	}
	m.ended(m.pushSteps("echo works").ID, "SUCCESSFUL")
}

// functionsDie kills all functions while two builds run: one ends while there is none, the other later. What they write from then on comes
// into their logs when both have ended, as it does on AWS, and nobody who reads a log takes it for done before.
func functionsDie(t *testing.T, in stack) {
	output := &heldOutput{}
	a := in.(*lambda).account(t, rehearsal.Deps{Lines: output.lines})
	s := newShop(t, a)
	away, after := s.pushSteps(s.count("away")), s.pushSteps(s.count("after"))
	for _, b := range []string{away.ID, after.ID} {
		s.logged(b, "line 3")
	}
	output.hold()
	a.kill()
	s.open("away")
	s.until("the step to end without a function", func() error {
		if !strings.HasSuffix(s.marked("away"), "last\n") {
			return errors.New("it does not")
		}
		return nil
	})
	a.start()
	s.ended(away.ID, "SUCCESSFUL")
	s.open("after")
	s.ended(after.ID, "SUCCESSFUL")
	page, err := s.Log(t.Context(), after.ID, "")
	s.must(err)
	if ended, err := s.Build(t.Context(), after.ID); page.Done && time.Since(ended.FinishedAt) < buildlogs.Settling {
		t.Errorf("the log is done with no more than %+v, %v", page.Items, err)
	}
	s.must(output.release(t.Context()))
	for name, id := range map[string]string{"away": away.ID, "after": after.ID} {
		var counted []string
		for _, l := range s.whole(id) {
			if l.Step != "" {
				counted = append(counted, l.Text)
			}
		}
		if want := strings.TrimSpace(s.marked(name)); strings.Join(counted, "\n") != want {
			t.Errorf("the log of build %s has the lines\n%q\nand the step wrote\n%q", name, counted, want)
		}
	}
}

// heldOutput keeps what builds write from CloudWatch Logs for a while.
type heldOutput struct {
	mu   sync.Mutex
	held bool
	kept []func(context.Context) error
}

func (h *heldOutput) lines(next rehearsal.Lines) rehearsal.Lines {
	return func(ctx context.Context, group, stream string, lines []codebuild.Line) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.held {
			return next(ctx, group, stream, lines)
		}
		h.kept = append(h.kept, func(ctx context.Context) error { return next(ctx, group, stream, lines) })
		return nil
	}
}

func (h *heldOutput) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = true
}

// release passes on what was kept, and from then on everything.
func (h *heldOutput) release(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = false
	for _, pass := range h.kept {
		if err := pass(ctx); err != nil {
			return err
		}
	}
	return nil
}

// callsOfAPush counts what a push costs at the public route, when the function is warm.
func callsOfAPush(t *testing.T, in stack) {
	var mu sync.Mutex
	var calls []lambdahost.Call
	watch := func(c lambdahost.Call, after bool) lambdahost.Fate {
		mu.Lock()
		defer mu.Unlock()
		if c.Function == "WebhookFunction" && !after {
			calls = append(calls, c)
		}
		return lambdahost.Pass
	}
	s, a := newMarked(t, in.(*lambda), rehearsal.Deps{Watch: watch})
	for n := range 3 {
		mu.Lock()
		calls = nil
		mu.Unlock()
		commit := s.commit("n", fmt.Sprintln(n))
		s.push("HEAD:main")
		s.must(s.repaired(a, commit))
	}
	mu.Lock()
	defer mu.Unlock()
	reading, sending := 0, 0
	for _, c := range calls {
		switch {
		case c.Service == "dynamodb" && reads(c):
			reading++
		case c.Service == "sqs" && c.Action == "SendMessage":
			sending++
		default:
			t.Errorf("a warm push calls %+v", c)
		}
	}
	if reading > 1 || sending != 1 {
		t.Errorf("a warm push takes %d reads and %d sends", reading, sending)
	}
}
