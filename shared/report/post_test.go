package report_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/message"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
)

func finish(b *dispatchtest.Bench, job runner.Job, verdict runner.Verdict) {
	b.Helper()
	b.Claim(job).Says(verdict)
}

func TestPostsInOrder(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	if shown := b.Shown(b.Main, "main"); shown != ci.StatusInProgress {
		t.Errorf("first %s", shown)
	}
	b.Transport.Take("")
	finish(b, job, runner.VerdictSuccessful)
	b.Pump()
	if shown := b.Shown(b.Main, "main"); shown != ci.StatusSuccessful {
		t.Errorf("then %s", shown)
	}
	if calls := b.Transport.Take("/statuses/"); len(calls) != 1 {
		t.Errorf("the final status took %v", calls)
	}
	st := status(b)
	if !st.Settled() || st.Posted != st.Revision || st.Holder != "" {
		t.Errorf("%+v", st)
	}
	b.Check(t)
}

// Four posters are given the same status at once, and the build ends while the first
// one posts: one at a time posts, and the end comes last.
func TestOnePosterAtATime(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, file)
	b.Deliver("d", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))
	deliveries, err := b.Deliveries.Receive(t.Context(), 1, 0)
	b.Must(err)
	b.Must(b.Dispatch.Handle(t.Context(), deliveries[0]))
	ref := store.StatusOf(b.TheBuild())
	for range 4 {
		b.Must(message.Send(t.Context(), b.Reports, message.Report{Status: &ref}, 0))
	}
	var posting, most atomic.Int32
	entered := make(chan struct{}, 100)
	leave := make(chan struct{})
	b.Transport.Before(func(r *http.Request) {
		if r.Method == http.MethodPost {
			most.Store(max(most.Load(), posting.Add(1)))
			entered <- struct{}{}
			<-leave
			posting.Add(-1)
		}
	})
	messages, err := b.Reports.Receive(t.Context(), 4, 0)
	b.Must(err)
	var group sync.WaitGroup
	for _, m := range messages {
		group.Go(func() {
			if err := b.Report.Handle(t.Context(), m); err != nil {
				t.Error(err)
			}
		})
	}
	<-entered
	finishing := b.Last()
	done := make(chan struct{})
	go func() { // claiming reads the repository, which is no post
		defer close(done)
		finish(b, finishing, runner.VerdictFailed)
	}()
	<-done
	close(leave)
	group.Wait()
	b.PumpFor(time.Minute)
	if most.Load() != 1 {
		t.Errorf("%d posted at once", most.Load())
	}
	if shown := b.Shown(b.Main, "main"); shown != ci.StatusFailed {
		t.Errorf("shown is %s", shown)
	}
	b.Check(t)
}

func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for _, lost := range []int{1, 2, 3} {
		b, job := begin(t)
		b.Claim(job) // which reads the repository
		b.Faults(map[string]any{"lose_answers": lost})
		b.AgentOf(job).Says(runner.VerdictSuccessful)
		b.Pump()
		if st := status(b); st.Settled() {
			t.Errorf("%d lost: settled although a post may come late: %+v", lost, st)
		}
		b.Check(t)
		b.Transport.Take("")
		b.PumpFor(2 * time.Minute)
		st := status(b)
		if !st.Settled() || st.Ended != "" || st.Doubtful || b.Shown(b.Main, "main") != ci.StatusSuccessful {
			t.Errorf("%d lost: %+v", lost, st)
		}
		read := 0
		for _, call := range b.Transport.Take("/statuses/") {
			if call.Method == http.MethodGet {
				read++
			}
		}
		if read == 0 {
			t.Errorf("%d lost: never read back", lost)
		}
		b.Check(t)
	}
}

// A post that was never answered takes effect after the final one.
func TestALatePostIsPutRight(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	b.Claim(job)
	b.Faults(map[string]any{"lose_answers": 1})
	b.AgentOf(job).Says(runner.VerdictSuccessful)
	b.PumpFor(5 * time.Second)
	b.Call("alice", http.MethodPost, "/2.0/repositories/acme/shop/commit/"+b.Main+"/statuses/build", map[string]any{
		"key": status(b).Key, "state": "INPROGRESS", "url": "http://127.0.0.1:8080/builds/" + job.Build, "refname": "main",
	})
	b.PumpFor(3 * time.Minute)
	if st := status(b); !st.Settled() || b.Shown(b.Main, "main") != ci.StatusSuccessful {
		t.Errorf("%+v, shown is %s", st, b.Shown(b.Main, "main"))
	}
	b.Check(t)
}

// Somebody else writes under the key whenever we do: that has an end, and it is said.
func TestAnotherWriter(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	b.Claim(job)
	key := status(b).Key
	b.Transport.Before(func(r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/statuses/") {
			b.Call("alice", http.MethodPost, "/2.0/repositories/acme/shop/commit/"+b.Main+"/statuses/build", map[string]any{
				"key": key, "state": "STOPPED", "url": "http://127.0.0.1:8080/elsewhere", "refname": "main",
			})
		}
	})
	b.Faults(map[string]any{"lose_answers": 1})
	b.AgentOf(job).Says(runner.VerdictSuccessful)
	b.Transport.Take("")
	b.PumpFor(5 * time.Minute)
	if calls := b.Transport.Take("/statuses/"); len(calls) > 12 {
		t.Errorf("%d calls", len(calls))
	}
	if st := status(b); !strings.Contains(st.Ended, "does not show") {
		t.Errorf("%+v", st)
	}
	b.Check(t)
}

func TestBitbucketDown(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string]map[string]any{"down": {"down": true}, "limited": {"rate_limited": true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, job := begin(t)
			b.Claim(job)
			b.Faults(faults)
			b.AgentOf(job).Says(runner.VerdictFailed)
			b.Transport.Take("")
			ref := store.StatusOf(b.TheBuild())
			for range 5 { // more messages do not mean more calls
				b.Must(message.Send(t.Context(), b.Reports, message.Report{Status: &ref}, 0))
			}
			b.PumpFor(20 * time.Second)
			if n := len(b.Transport.Take("/statuses/")); n == 0 || n > 6 {
				t.Errorf("%d posts within 20 seconds", n)
			}
			if st := status(b); st.Problem == "" || st.Settled() || st.DueAt.IsZero() || st.Tries == 0 {
				t.Errorf("%+v", st)
			}
			b.Check(t)
			b.Faults(nil)
			b.PumpFor(3 * time.Minute)
			if st := status(b); !st.Settled() || st.Problem != "" || b.Shown(b.Main, "main") != ci.StatusFailed {
				t.Errorf("%+v", st)
			}
			b.Check(t)
		})
	}
}

func TestPostingEnds(t *testing.T) {
	t.Parallel()
	t.Run("no such commit", func(t *testing.T) {
		t.Parallel()
		b, job := begin(t)
		b.Claim(job)
		b.Call("alice", http.MethodDelete, "/2.0/repositories/acme/shop", nil)
		b.AgentOf(job).Says(runner.VerdictSuccessful)
		b.Transport.Take("")
		b.PumpFor(time.Minute)
		if n := len(b.Transport.Take("/statuses/")); n != 4 {
			t.Errorf("%d tries", n)
		}
		if st := status(b); !st.Settled() || !strings.Contains(st.Ended, "not there") {
			t.Errorf("%+v", st)
		}
		b.Check(t)
	})
	t.Run("somebody else's", func(t *testing.T) {
		t.Parallel()
		b, job := begin(t)
		b.Claim(job)
		var refused atomic.Int32
		b.Transport.Answer(func(r *http.Request) int {
			if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/statuses/") {
				refused.Add(1)
				return http.StatusForbidden
			}
			return 0
		})
		b.AgentOf(job).Says(runner.VerdictSuccessful)
		b.PumpFor(time.Minute)
		if st := status(b); !st.Settled() || !strings.Contains(st.Ended, "may not do this") || refused.Load() != 1 {
			t.Errorf("%d tries, %+v", refused.Load(), st)
		}
		b.Check(t)
	})
	t.Run("revoked", func(t *testing.T) {
		t.Parallel()
		b, job := begin(t)
		b.Claim(job)
		b.Faults(map[string]any{"revoked": true})
		b.AgentOf(job).Says(runner.VerdictSuccessful)
		b.Pump()
		if st := status(b); st.Settled() || st.Problem == "" {
			t.Errorf("believed at once: %+v", st)
		}
		for range 6 {
			b.Clock.Add(5 * time.Minute)
			b.Pump()
		}
		if st := status(b); !st.Settled() || !strings.Contains(st.Ended, "authorised again") {
			t.Errorf("%+v", st)
		}
		b.Check(t)
	})
}

func TestNewestBuildWins(t *testing.T) {
	t.Parallel()
	b, older := begin(t)
	b.Deliver("d2", "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: strings.Repeat("1", 40), New: b.Main}))
	b.Pump()
	newer := b.Last()
	finish(b, newer, runner.VerdictSuccessful)
	b.Pump()
	finish(b, older, runner.VerdictFailed)
	b.PumpFor(time.Minute)
	if shown := b.Statuses(b.Main)[status(b).Key]; shown[1] != "SUCCESSFUL" || shown[2] != "Build #2 passed" {
		t.Errorf("shown is %v", shown)
	}
	b.Check(t)
}

// A poster dies with the lease, its post perhaps under way.
func TestAPosterDies(t *testing.T) {
	t.Parallel()
	b, job := begin(t)
	finish(b, job, runner.VerdictSuccessful)
	_, _, err := b.ChangeStatus(t.Context(), store.StatusOf(b.TheBuild()), func(st *store.Status) bool {
		st.Holder, st.LeaseUntil = "the dead one", b.Clock.Now().Add(45*time.Second)
		return true
	})
	b.Must(err)
	b.PumpFor(40 * time.Second)
	if shown := b.Shown(b.Main, "main"); shown != ci.StatusInProgress {
		t.Errorf("posted %s under another's lease", shown)
	}
	b.PumpFor(10 * time.Second)
	if shown := b.Shown(b.Main, "main"); shown != ci.StatusSuccessful {
		t.Errorf("after the lease: %s", shown)
	}
	b.PumpFor(time.Minute)
	if st := status(b); !st.Settled() {
		t.Errorf("%+v", st)
	}
	b.Check(t)
}
