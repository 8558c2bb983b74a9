package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"runnerhub/infra/rehearsal"
	"runnerhub/infra/visitor"
)

// accountLimit has a crowd of visitors and a burst of pushes meet in an account that runs ten functions at once, as new ones do. Visitors
// are refused, and so are webhooks and batches of messages, which come again; every push has its build in the end.
func accountLimit(t *testing.T, in stack) {
	const pushes = 8
	a := in.(*lambda).account(t, rehearsal.Deps{AccountLimit: 10})
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
	// Longer than a crowd stays: Bitbucket sends a webhook three times.
	s.faults(map[string]any{"attempt_delay_ms": 3000})
	var pushing sync.WaitGroup
	first := s.crowd(func() {
		for n, clone := range clones {
			pushing.Go(func() {
				if err := clone.Push(t.Context(), fmt.Sprintf("HEAD:release/%d", n)); err != nil {
					t.Error(err)
				}
			})
		}
	})
	s.until("a webhook to be refused", func() error {
		return s.webhooks(func(state string, attempts int) bool { return state == "pending" && attempts == 1 }, 1)
	})
	first()
	pushing.Wait()
	s.until("all webhooks to be taken", func() error {
		return s.webhooks(func(state string, _ int) bool { return state == "delivered" }, pushes+1)
	})
	second := s.crowd(func() {})
	s.until("a batch to be refused", func() error {
		if n := a.Host().Polls("Data.DeliveriesQueue").Refused + a.Host().Polls("Data.ReportsQueue").Refused; n == 0 {
			return errors.New("none was")
		}
		return nil
	})
	second()
	// Whoever asks now may be refused, too, and asks again.
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

// crowd has visitors come and come again, who are served or refused, until what it answers is called. Meanwhile happens once
// one of them was refused.
func (s *site) crowd(meanwhile func()) (leave func()) {
	const visitors = 20
	ctx, cancel := context.WithCancel(s.t.Context())
	refused := make(chan struct{}, visitors)
	var all sync.WaitGroup
	for range visitors {
		all.Go(func() {
			for ctx.Err() == nil {
				status, err := visit(ctx, s.Hub+"/healthz")
				switch {
				case ctx.Err() != nil:
				case err != nil || status != http.StatusOK && status != http.StatusServiceUnavailable:
					s.t.Errorf("a visitor is answered %d, %v", status, err)
				case status == http.StatusServiceUnavailable:
					select {
					case refused <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	<-refused
	meanwhile()
	return func() { cancel(); all.Wait() }
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
