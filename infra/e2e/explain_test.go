package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"runnerhub/infra/visitor"
)

// held is a version of a pipeline file that an app holds.
type held struct {
	ID      string `json:"id"`
	Version int    `json:"version"`
}

// explain asks what a file would do, pushes two branches of which a trigger is missing for one, gives that one a pipeline
// file of the app's own, and replays the push: only what is missing is built.
func explain(t *testing.T, in stack) {
	home := in.install(t)
	s := newShop(t, home)
	file := pipeline("[{event: push, branches: [main]}]", "echo of the repository")

	var report struct {
		Problems []struct {
			Line    int    `json:"line"`
			Nearest string `json:"nearest"`
		} `json:"problems"`
		Verdict struct {
			Matched bool   `json:"matched"`
			Reason  string `json:"reason"`
		} `json:"verdict"`
	}
	check := "/api/apps/" + s.app + "/pipeline/check"
	body := map[string]any{"text": file, "event": map[string]any{"kind": "push", "branch": "hotfix"}}
	s.must(s.Call(t.Context(), http.MethodPost, check, body, &report))
	if report.Verdict.Matched || !strings.Contains(report.Verdict.Reason, "hotfix") || len(report.Problems) != 0 {
		t.Errorf("the report is %+v", report)
	}
	body["text"] = strings.Replace(file, "triggers:", "trigers:", 1)
	s.must(s.Call(t.Context(), http.MethodPost, check, body, &report))
	if len(report.Problems) == 0 || report.Problems[0].Line != 2 || report.Problems[0].Nearest != "triggers" {
		t.Errorf("of a broken file the report is %+v", report)
	}

	commit := s.commit(pipelinePath, file)
	s.push("HEAD:main", "HEAD:hotfix")
	s.decided("repo:push", "branch hotfix", "SKIPPED", "hotfix")
	first := s.ended(s.buildOf(commit).ID, "SUCCESSFUL")
	missed := s.delivery("the push", func(d visitor.Delivery) bool { return len(d.Decisions) == 2 })

	files := "/api/apps/" + s.app + "/pipelines"
	own := map[string]any{"branches": "hot*", "text": pipeline("[push]", "echo of the app")}
	var stored held
	s.must(s.Call(t.Context(), http.MethodPut, files, own, &stored))
	s.refused(s.Call(t.Context(), http.MethodPut, files, own, nil), http.StatusConflict, "storing it as if there was none")
	s.refused(s.Call(t.Context(), http.MethodPut, files, map[string]any{"branches": "x", "text": body["text"]}, nil), http.StatusBadRequest, "storing a broken file")

	replay := "/api/deliveries/" + missed.ID + "/replay"
	var second visitor.Build
	for range 2 {
		s.must(s.Call(t.Context(), http.MethodPost, replay, nil, nil))
		s.until("the replay", func() error {
			all, err := s.Deliveries(t.Context(), s.app)
			if err != nil || len(all) != 1 || len(all[0].Decisions) != 2 {
				return errors.Join(err, fmt.Errorf("the deliveries are %+v", all))
			}
			return nil
		})
		s.decided("repo:push", "branch main", "ALREADY_BUILT", fmt.Sprintf("already built as #%d", first.Number))
		builds := s.buildsOf(commit)
		if len(builds) != 2 {
			t.Fatalf("the builds are %+v", builds)
		}
		second = builds[0]
		if second.ID == first.ID {
			second = builds[1]
		}
	}
	s.decided("repo:push", "branch hotfix", "ALREADY_BUILT", "")
	s.ended(second.ID, "SUCCESSFUL")
	s.logged(second.ID, "of the app")
	var made struct {
		Version int `json:"pipeline_version"`
	}
	s.must(s.Call(t.Context(), http.MethodGet, "/api/builds/"+second.ID, nil, &made))
	if made.Version != stored.Version || second.Branch != "hotfix" {
		t.Errorf("the build %+v was made of version %d, stored was %d", second, made.Version, stored.Version)
	}

	s.must(s.Call(t.Context(), http.MethodDelete, fmt.Sprintf("%s/%s?version=%d", files, stored.ID, stored.Version), nil, nil))
	s.commit("NEWS", "something\n")
	s.push("HEAD:hotfix")
	s.delivery("the push without the app's file", func(d visitor.Delivery) bool {
		return len(d.Decisions) == 1 && d.Decisions[0].Ref == "branch hotfix" && d.Decisions[0].Decision == "SKIPPED"
	})
}

// replay asks for a delivery to be decided again, twice, and waits until it is.
func (s *site) replay(delivery string) {
	s.t.Helper()
	for range 2 {
		s.must(s.Call(s.t.Context(), http.MethodPost, "/api/deliveries/"+delivery+"/replay", nil, nil))
	}
	s.delivery("the replay", func(d visitor.Delivery) bool { return d.ID == delivery })
}

// oneEach checks that a commit has one build on each of some branches, and that they succeed.
func (s *site) oneEach(commit string, branches ...string) {
	s.t.Helper()
	s.until("the builds of "+commit, func() error {
		if builds := s.buildsOf(commit); len(builds) < len(branches) {
			return fmt.Errorf("the builds are %+v", builds)
		}
		return nil
	})
	for _, branch := range branches {
		builds := slices.DeleteFunc(s.buildsOf(commit), func(b visitor.Build) bool { return b.Branch != branch })
		if len(builds) != 1 {
			s.t.Fatalf("of branch %s the builds are %+v", branch, builds)
		}
		s.ended(builds[0].ID, "SUCCESSFUL")
	}
}

// replayAfterOutage pushes while Bitbucket answers no call: the delivery says so, is decided when it is back, and a replay builds
// nothing a second time.
func replayAfterOutage(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	commit := s.commit("NEWS", "something\n")
	s.faults(map[string]any{"rate_limited": true})
	s.push("HEAD:main", "HEAD:release/1")
	s.until("the delivery to say why nothing is decided", func() error {
		all, err := s.Deliveries(t.Context(), s.app)
		if err != nil || len(all) != 1 || len(all[0].Decisions) > 0 || !strings.Contains(all[0].Note, "not decided yet") {
			return errors.Join(err, fmt.Errorf("the deliveries are %+v", all))
		}
		return nil
	})
	s.faults(map[string]any{})
	s.oneEach(commit, "main", "release/1")
	pushed := s.delivery("the push", func(d visitor.Delivery) bool { return len(d.Decisions) == 2 })
	s.replay(pushed.ID)
	for _, branch := range []string{"main", "release/1"} {
		s.decided("repo:push", "branch "+branch, "ALREADY_BUILT", "already built as #")
	}
	s.oneEach(commit, "main", "release/1")
}

// replayAfterLostGrant revokes the grant for as long as it takes to believe it. What was pushed meanwhile is decided OFFLINE; after somebody has
// authorised again, a replay builds it, once, and nothing that there was before.
func replayAfterLostGrant(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	before := s.pushSteps("echo before")
	s.ended(before.ID, "SUCCESSFUL")
	s.faults(map[string]any{"revoked": true})
	commit := s.commit("NEWS", "something\n")
	s.push("HEAD:main", "HEAD:release/1")
	var offline visitor.Delivery
	lost := func() error {
		all, err := s.Deliveries(t.Context(), s.app)
		for _, d := range all {
			if len(d.Decisions) == 2 && d.Decisions[0].Decision == "OFFLINE" && d.Decisions[1].Decision == "OFFLINE" {
				offline = d
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("the deliveries are %+v", all))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience) // three refusals, a minute apart
	defer cancel()
	s.must(visitor.Until(ctx, "the decision", func() (bool, error) {
		err := lost()
		return err == nil, err
	}))
	for _, d := range offline.Decisions {
		if !strings.Contains(d.Reason, "has to be authorised again") || d.Build != "" || len(s.buildsOf(commit)) != 0 {
			t.Errorf("the decision is %+v", d)
		}
	}
	s.faults(map[string]any{})
	_, err := s.SetUp(t.Context(), "Shop", shop) // which authorises again, and finds all else there
	s.must(err)
	s.replay(offline.ID)
	s.oneEach(commit, "main", "release/1")
	s.replay(offline.ID)
	for _, branch := range []string{"main", "release/1"} {
		s.decided("repo:push", "branch "+branch, "ALREADY_BUILT", "already built as #")
	}
	s.oneEach(commit, "main", "release/1")
	s.oneEach(before.Commit, "main")
}
