package e2e

import "testing"

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
}
