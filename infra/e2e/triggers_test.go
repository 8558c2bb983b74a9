package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
)

// triggers pushes what only some rules of a pipeline file take, and has a step fail that the build does without.
func triggers(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	const file = `name: Shop
triggers:
  - {event: push, branches: main, paths: src/**}
  - {event: push, tags: v*}
steps:
  - name: Lint
    run: exit 3
    continue_on_error: true
  - name: Test
    run: echo tested
`
	s.commit(pipelinePath, file)
	s.push("HEAD:main")
	s.decided("repo:push", "branch main", "SKIPPED", "matches none of src/**")

	s.commit("src/a.txt", "1\n")
	s.git("commit", "--quiet", "--amend", "--message", "Try it\n\n[skip ci]")
	s.push("HEAD:main")
	s.decided("repo:push", "branch main", "SKIPPED", "has [skip ci]")

	s.git("tag", "v1")
	s.git("tag", "other")
	s.push("refs/tags/v1", "refs/tags/other")
	if d := s.decided("repo:push", "tag v1", "BUILT", `matches "v*"`); d.Code != "matched" {
		t.Errorf("the decision is %+v", d)
	}
	s.decided("repo:push", "tag other", "SKIPPED", "matches none of v*")

	commit := s.commit("src/b.txt", "2\n")
	s.push("HEAD:main")
	s.decided("repo:push", "branch main", "BUILT", `file src/b.txt matches "src/**"`)
	b := s.ended(s.buildOf(commit).ID, "SUCCESSFUL")
	s.logged(b.ID, `step "Lint" ended with exit code 3; the build goes on, as continue_on_error asks`)
	s.logged(b.ID, "tested")
	s.openedBefore()
}

// openedBefore ties the app to another repository, in which a pull request is open: its title builds nothing, its next
// commit does.
func (s *site) openedBefore() {
	s.t.Helper()
	var err error
	s.clone, err = s.Clone(s.t.Context(), docs, filepath.Join(s.in.folder(), "docs"))
	s.must(err)
	s.commit(pipelinePath, pipeline("[pull_request]", "echo built"))
	s.push("HEAD:feature/x")
	number, err := s.PullRequest(s.t.Context(), docs, "Before", "feature/x", "main")
	s.must(err)
	var app struct {
		Workspace string `json:"workspace"`
	}
	s.must(s.Call(s.t.Context(), http.MethodGet, "/api/apps/"+s.app, nil, &app))
	connections, err := s.Connections(s.t.Context(), app.Workspace)
	s.must(err)
	picked, err := s.Pick(s.t.Context(), connections[0].ID, docs)
	s.must(err)
	s.must(s.Tie(s.t.Context(), s.app, connections[0].ID, picked.UUID))

	ref := fmt.Sprintf("pull request #%d", number)
	title := map[string]string{"title": "Another title"}
	s.must(s.Ask(s.t.Context(), http.MethodPut, fmt.Sprintf("/repositories/%s/pullrequests/%d", docs, number), title, nil))
	s.decided("pullrequest:updated", ref, "SKIPPED", "was opened before the repository was connected, and nothing to build in it was changed since")
	commit := s.commit("a.txt", "1\n")
	s.push("HEAD:feature/x")
	s.reached(s.buildOf(commit).ID, "SUCCESSFUL")
}
