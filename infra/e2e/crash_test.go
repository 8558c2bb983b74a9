package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/lambdahost"
	"runnerhub/infra/rehearsal"
)

// The crash points of the functions: every call that one makes on the way from a push to the
// status of its build, before and after it. The function is killed there, and nothing else is.

// bomb counts calls while it is armed, and kills the caller at a given one.
type bomb struct {
	mu    sync.Mutex
	armed bool
	at    int
	count int
	fired string // the call it killed at
}

func (b *bomb) arm(at int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed, b.at, b.count, b.fired = true, at, 0, ""
}

// disarm answers how many calls there were, and at which one it killed.
func (b *bomb) disarm() (count int, fired string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = false
	return b.count, b.fired
}

func (b *bomb) seen() (count int, fired string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count, b.fired
}

// watch implements lambdahost.Deps.Watch. Rounds that come by the clock are none of the path. A read is
// passed once, before it: nothing changes between it and the call after it.
func (b *bomb) watch(c lambdahost.Call, after bool) lambdahost.Fate {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.armed || c.Function == "SweepFunction" || c.Function == "RefreshFunction" || (after && reads(c)) {
		return lambdahost.Pass
	}
	if b.count++; b.count != b.at {
		return lambdahost.Pass
	}
	b.armed = false
	b.fired = fmt.Sprintf("%s, before %s %s", c.Function, c.Name(), c.Resource)
	if after {
		b.fired = strings.Replace(b.fired, "before", "after", 1)
	}
	return lambdahost.Kill
}

// reads reports whether a call changes nothing where it goes.
func reads(c lambdahost.Call) bool {
	switch c.Action {
	case "GetItem", "BatchGetItem", "Query", "Decrypt", "GenerateDataKey", "GetSecretValue", "BatchGetBuilds", "DescribeLogStreams", "GetLogEvents":
		return true
	}
	return strings.HasPrefix(c.Action, http.MethodGet+" ")
}

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
	builds := s.buildsOf(commit)
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

// repaired waits for the end of a commit's story while the sweep goes round. What a sweep would find only when it is
// due, it finds now: its event names a later time.
func (s *site) repaired(a *account, commit string) error {
	rounds := time.NewTicker(time.Second)
	defer rounds.Stop()
	deadline := time.Now().Add(patience)
	for {
		err := s.told(commit)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-rounds.C
		// A round that fails is not tried again: the next one comes anyway.
		_ = a.Host().Tick(s.t.Context(), "SweepFunction", time.Now().Add(time.Hour))
	}
}

// diesAtEachCall goes through all crash points. Several installations share the calls among them, because most of the time
// goes into waiting: for Bitbucket's next attempt, for a message to come again, for a lease to run out.
func diesAtEachCall(t *testing.T, in stack) {
	const sites = 8
	for first := range sites {
		t.Run(fmt.Sprintf("every %dth from %d", sites, first+1), func(t *testing.T) {
			t.Parallel()
			b := &bomb{}
			s, a := newMarked(t, in.(*lambda), rehearsal.Deps{Watch: b.watch, Visibility: 2 * time.Second})
			for at := first + 1; s.dieAt(a, b, at); at += sites {
			}
		})
	}
}

// dieAt pushes while a function is to die at a call, and looks at what comes of it. It answers false when
// the path has no such call.
func (s *site) dieAt(a *account, b *bomb, at int) bool {
	s.t.Helper()
	commit := s.commit("n", fmt.Sprintln(at))
	b.arm(at)
	s.push("HEAD:main")
	calls, quiet := 0, 0
	s.until(fmt.Sprintf("the end of call %d", at), func() error {
		count, fired := b.seen()
		if fired != "" {
			return nil
		}
		if count != calls {
			calls, quiet = count, 0
		}
		// Nobody asks RunnerHub anything meanwhile: answering would be calls as well.
		statuses, err := s.Statuses(s.t.Context(), shop, commit)
		if len(statuses) == 1 && statuses[0].State == "SUCCESSFUL" {
			quiet++
		}
		if err == nil && quiet < 40 {
			err = errors.New("it is not over")
		}
		return err
	})
	count, fired := b.disarm()
	if fired == "" {
		s.t.Logf("the path has %d calls", count)
		if at <= count || count < 50 {
			s.t.Fatalf("call %d of %d killed nobody", at, count)
		}
		return false
	}
	s.t.Logf("killed at %d: %s", at, fired)
	if err := s.repaired(a, commit); err != nil {
		s.t.Fatalf("killed at %d: %s: %v", at, fired, err)
	}
	return true
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

// functionsDie kills all functions while two builds run: one ends while there is none, the other later.
func functionsDie(t *testing.T, in stack) {
	a := in.install(t).(*account)
	s := newShop(t, a)
	away, after := s.pushSteps(s.count("away")), s.pushSteps(s.count("after"))
	for _, b := range []string{away.ID, after.ID} {
		s.logged(b, "line 3")
	}
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
	for name, id := range map[string]string{"away": away.ID, "after": after.ID} {
		var counted []string
		for _, l := range s.log(id) {
			if l.Step != "" {
				counted = append(counted, l.Text)
			}
		}
		if want := strings.TrimSpace(s.marked(name)); strings.Join(counted, "\n") != want {
			t.Errorf("the log of build %s has the lines\n%q\nand the step wrote\n%q", name, counted, want)
		}
	}
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
