package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"runnerhub/infra/visitor"
)

// forks takes a pull request of carol's, who may not write to the shop, from being refused to being built: each commit
// waits until alice approves it, and runs what main's pipeline file says.
func forks(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	const looks = `cat FEATURE
for attempt in "grep -r x-token-auth .git $HOME $TMPDIR" "git config --local --get-regexp credential|extraheader" "env GIT_TERMINAL_PROMPT=0 git push origin HEAD:main"; do
  if $attempt >/dev/null 2>&1; then echo "WORKED: $attempt"; fi
done
env | grep -i -e ticket -e token -e secret | sed 's/^/WORKED: /'
echo looked at everything`
	file := s.commit(pipelinePath, pipeline("[{event: pull_request, branches: main}]", looks))
	s.push("HEAD:main")
	s.decided("repo:push", "branch main", "SKIPPED", "")

	carol := s.person(s.Hub, s.Forge, "carol")
	s.must(carol.SignIn(t.Context()))
	fork, err := carol.Fork(t.Context(), shop, "carol")
	s.must(err)
	hers := site{Visitor: carol, t: t, in: s.in}
	hers.clone, err = carol.Clone(t.Context(), fork, filepath.Join(s.in.folder(), "fork"))
	s.must(err)
	change := func(text string) string {
		commit := hers.commit("FEATURE", text)
		hers.push("HEAD:feature/x")
		return commit
	}
	hers.commit(pipelinePath, pipeline("[push, pull_request]", "echo WORKED: a pipeline file of her own"))
	change("the first\n")
	number, err := carol.PullRequestFrom(t.Context(), fork, shop, "A feature", "feature/x", "main")
	s.must(err)
	ref := fmt.Sprintf("pull request #%d", number)
	s.decided("pullrequest:created", ref, "SKIPPED", "comes from a fork, and this app does not build forks")

	s.must(s.Call(t.Context(), http.MethodPatch, "/api/apps/"+s.app, map[string]bool{"allow_forks": true}, nil))
	first := s.heldBuild(fork, change("the second\n"))
	d := s.decided("pullrequest:updated", ref, "HELD", "waits until a member approves the commit")
	if d.Build != first.ID || d.Code != "held" || first.FileAt != file || first.Fork != fork {
		t.Errorf("the decision is %+v, the build %+v", d, first)
	}
	// A new commit is held anew, and takes the place of the one before. A replay changes nothing.
	second := s.heldBuild(fork, change("the third\n"))
	if b := s.reached(first.ID, "STOPPED"); b.Reason != fmt.Sprintf("superseded by #%d", second.Number) || b.SupersededBy.Build != second.ID {
		t.Errorf("the first build is %+v", b)
	}
	s.shownAt(fork, first, "STOPPED", "")
	s.page(first.ID, fmt.Sprintf(`href="/builds/%s"`, second.ID))
	delivery := s.delivery("the held commit", func(d visitor.Delivery) bool { return d.Decisions[0].Build == second.ID })
	s.must(s.Call(t.Context(), http.MethodPost, "/api/deliveries/"+delivery.ID+"/replay", nil, nil))
	s.decided("pullrequest:updated", ref, "ALREADY_BUILT", fmt.Sprintf("already built as #%d", second.Number))

	s.refused(s.approve(carol, second.ID), http.StatusNotFound, "approving one's own pull request as a stranger")
	s.refused(s.approve(s.Visitor, first.ID), http.StatusConflict, "approving what has ended")
	if b, err := s.Build(t.Context(), second.ID); err != nil || !b.Held || b.State != "QUEUED" {
		t.Errorf("nobody has approved build %+v, %v", b, err)
	}
	for range 2 {
		s.must(s.approve(s.Visitor, second.ID))
	}
	b := s.reached(second.ID, "SUCCESSFUL")
	s.shownAt(fork, second, "SUCCESSFUL", "passed")
	s.must(s.approve(s.Visitor, second.ID))
	if b.ApprovedBy == "" || b.Held {
		t.Errorf("the build is %+v", b)
	}
	s.logged(second.ID, "looked at everything")
	said := s.whole(second.ID)
	for _, l := range said {
		if strings.HasPrefix(l.Text, "WORKED: ") {
			t.Error(l.Text)
		}
	}
	if !slices.ContainsFunc(said, func(l visitor.LogLine) bool { return l.Text == "the third" }) {
		t.Errorf("the fork's file was not there: %+v", said)
	}

	third := s.heldBuild(fork, change("the fourth\n"))
	s.must(s.Ask(t.Context(), http.MethodPost, fmt.Sprintf("/repositories/%s/pullrequests/%d/decline", shop, number), map[string]string{}, nil))
	if b := s.reached(third.ID, "STOPPED"); b.Reason != ref+" is closed" {
		t.Errorf("of a declined pull request the build is %+v", b)
	}
	s.shownAt(fork, third, "STOPPED", "")
	builds, err := s.Builds(t.Context(), s.app)
	s.must(err)
	if len(builds) != 3 {
		t.Errorf("the builds are %+v", builds)
	}
}

// heldBuild waits for the build of a fork's commit, and looks at how it waits.
func (s *site) heldBuild(fork, commit string) visitor.Build {
	s.t.Helper()
	b := s.buildOf(commit)
	const waits = "waits until a member approves the commit"
	if b.State != "QUEUED" || !b.Held || !strings.Contains(b.Reason, waits) || b.ApprovedBy != "" {
		s.t.Fatalf("the build of a fork is %+v", b)
	}
	s.shownAt(fork, b, "INPROGRESS", waits)
	s.page(b.ID, "/api/builds/"+b.ID+"/approve")
	return b
}

// shownAt waits until the status of a build's commit is as it has to be in a fork, which alone has the commit.
func (s *site) shownAt(fork string, b visitor.Build, state, description string) {
	s.t.Helper()
	s.until(fmt.Sprintf("status %s of build #%d in the fork", state, b.Number), func() error {
		all, err := s.Statuses(s.t.Context(), fork, b.Commit)
		if err == nil && (len(all) != 1 || all[0].State != state || !strings.Contains(all[0].Description, description) || all[0].URL != s.Hub+"/builds/"+b.ID) {
			err = fmt.Errorf("Bitbucket shows %+v", all)
		}
		return err
	})
}

// approve approves a build as somebody.
func (s *site) approve(who *visitor.Visitor, id string) error {
	s.t.Helper()
	var b visitor.Build
	err := who.Call(s.t.Context(), http.MethodPost, "/api/builds/"+id+"/approve", nil, &b)
	if err == nil && b.ID != id {
		err = fmt.Errorf("the answer is about build %q", b.ID)
	}
	return err
}

// page checks that the page of a build has a text.
func (s *site) page(id, text string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.Hub+"/builds/"+id, nil)
	s.must(err)
	status, body, err := s.Send(req)
	if err == nil && (status != http.StatusOK || !strings.Contains(string(body), text)) {
		err = errors.New("the page is " + string(body))
	}
	s.must(err)
}
