package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"runnerhub/infra/lambdahost"
	"runnerhub/infra/rehearsal"
	"runnerhub/infra/visitor"
)

// accountLimit has a burst of pushes meet an account whose other stacks have taken all functions there may be at once, as happens soon
// where that limit is ten. Visitors are refused, and so are webhooks and batches of messages, which come again; every push has its
// build in the end.
func accountLimit(t *testing.T, in stack) {
	const pushes = 8
	var a *account
	sent, crowd := atomic.Int32{}, func(full bool) {
		if err := a.Host().Crowd(full); err != nil {
			t.Error(err)
		}
	}
	sent.Store(-1)
	a = in.(*lambda).account(t, rehearsal.Deps{AccountLimit: 10, Watch: func(c lambdahost.Call, after bool) lambdahost.Fate {
		// The last message finds no room for those that take it.
		if !after && c.Function == "WebhookFunction" && c.Action == "SendMessage" && sent.Load() >= 0 && sent.Add(1) == pushes {
			crowd(true)
		}
		return lambdahost.Pass
	}})
	s := newShop(t, a)
	s.commit(pipelinePath, pipeline("[push]", "echo built"))
	s.push("HEAD:main")
	commits := make([]string, pushes)
	clones := make([]*visitor.Clone, pushes)
	for n := range clones {
		var err error
		clones[n], err = s.Clone(t.Context(), shop, filepath.Join(s.in.folder(), fmt.Sprintf("clone-%d", n)))
		s.must(err)
		commits[n], err = clones[n].Commit(t.Context(), "n", fmt.Sprintf("%d\n", n), "Count")
		s.must(err)
	}
	delivered := func(state string, _ int) bool { return state == "delivered" }
	s.until("the first webhook to be taken", func() error { return s.webhooks(delivered, 1) })
	// Longer than anything here takes: Bitbucket sends a webhook three times.
	s.faults(map[string]any{"attempt_delay_ms": 15000})
	crowd(true)
	var pushing sync.WaitGroup
	for n, clone := range clones {
		pushing.Go(func() {
			if err := clone.Push(t.Context(), fmt.Sprintf("HEAD:release/%d", n)); err != nil {
				t.Error(err)
			}
		})
	}
	pushing.Wait()
	s.until("every webhook to be refused", func() error {
		return s.webhooks(func(state string, attempts int) bool { return state == "pending" && attempts > 0 }, pushes)
	})
	if status, err := visit(t.Context(), s.Hub+"/healthz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("a visitor is answered %d, %v", status, err)
	}
	polls := func() int { return a.Host().Polls("Data.DeliveriesQueue").Refused }
	before := polls()
	sent.Store(0)
	crowd(false)
	s.until("all webhooks to be taken", func() error { return s.webhooks(delivered, pushes+1) })
	s.until("a batch to be refused", func() error {
		if polls() == before {
			return errors.New("none was")
		}
		return nil
	})
	crowd(false)
	s.until("a build of each push, shown on Bitbucket", func() error {
		builds, err := s.Builds(t.Context(), s.app)
		if err != nil {
			return err
		}
		made := map[string]int{}
		for _, b := range builds {
			made[b.Commit]++
			if b.Ended() && b.State != "SUCCESSFUL" {
				t.Fatalf("build #%d is %s: %s", b.Number, b.State, b.Reason)
			}
			if !b.Ended() {
				return fmt.Errorf("build #%d is %s (%s)", b.Number, b.State, b.Reason)
			}
		}
		for _, commit := range commits {
			statuses, err := s.Statuses(t.Context(), shop, commit)
			switch {
			case err != nil:
				return err
			case made[commit] == 0:
				return errors.New("none of " + commit)
			case made[commit] > 1:
				t.Fatalf("%s has %d builds", commit, made[commit])
			case len(statuses) != 1 || statuses[0].State != "SUCCESSFUL":
				return fmt.Errorf("Bitbucket shows %+v of %s", statuses, commit)
			}
		}
		return nil
	})
	s.noDeadLetters(a)
}

// webhooks reports an error unless so many of Bitbucket's deliveries are as they should be.
func (s *site) webhooks(are func(state string, attempts int) bool, least int) error {
	var all visitor.List[struct {
		State    string `json:"state"`
		Attempts []any  `json:"attempts"`
	}]
	if err := s.Control(s.t.Context(), http.MethodGet, "/deliveries", nil, &all); err != nil {
		return err
	}
	n := 0
	for _, d := range all.Items {
		if are(d.State, len(d.Attempts)) {
			n++
		}
	}
	if n < least {
		return fmt.Errorf("%d are: %+v", n, all.Items)
	}
	return nil
}

// visit asks for a page, once.
func visit(ctx context.Context, address string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}
