package e2e

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"runnerhub/infra/visitor"
)

// plan is a schedule as the API shows it.
type plan struct {
	ID   string      `json:"id"`
	Next []time.Time `json:"next"`
	Note string      `json:"note"`
	Last struct {
		Minute  time.Time `json:"minute"`
		Build   string    `json:"build"`
		Problem string    `json:"problem"`
	} `json:"last"`
}

// schedule has a branch built at a minute, though nothing in its pipeline file starts builds. The
// minute comes after RunnerHub was stopped and started again.
func schedule(t *testing.T, in stack) {
	home := in.install(t)
	s := newShop(t, home)
	commit := s.commit(pipelinePath, pipeline("[]", "echo started by $RUNNERHUB_TRIGGER on $RUNNERHUB_BRANCH"))
	s.push("HEAD:main")
	path := "/api/apps/" + s.app + "/schedules"
	var made plan
	begun := time.Now()
	s.must(s.Call(t.Context(), http.MethodPost, path, map[string]any{"cron": "* * * * *", "zone": "Europe/Berlin", "branch": "main"}, &made))
	if made.Note != "" || len(made.Next) == 0 || made.Next[0].Before(begun) || made.Next[0].After(begun.Add(2*time.Minute)) {
		t.Errorf("the schedule is %+v", made)
	}
	home.stop()
	home.start()

	var list visitor.List[plan]
	s.until("the schedule's minute", func() error {
		list = visitor.List[plan]{}
		err := s.Call(t.Context(), http.MethodGet, path, nil, &list)
		if err == nil && (len(list.Items) != 1 || list.Items[0].Last.Minute.IsZero()) {
			err = errors.New("it has not come")
		}
		return err
	})
	last := list.Items[0].Last
	if last.Build == "" || last.Problem != "" || last.Minute.Before(made.Next[0]) || last.Minute.Second() != 0 {
		t.Fatalf("what came of it is %+v", last)
	}
	one := "/api/schedules/" + made.ID
	s.must(s.Call(t.Context(), http.MethodDelete, one, nil, nil))

	b := s.ended(last.Build, "SUCCESSFUL")
	if b.Trigger != "schedule" || b.Branch != "main" || b.Commit != commit {
		t.Errorf("the build is %+v", b)
	}
	s.logged(b.ID, "started by schedule on main")
	s.decided("repo:push", "branch main", "SKIPPED", "")
	if builds := s.buildsOf(commit); len(builds) != 1 {
		t.Errorf("the builds are %+v", builds)
	}
	s.refused(s.Call(t.Context(), http.MethodPatch, one, map[string]any{}, nil), http.StatusNotFound, "changing a schedule that was deleted")
}
