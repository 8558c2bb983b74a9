package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"runnerhub/infra/visitor"
)

// pullRequest takes one from being opened to being merged.
func pullRequest(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	s.git("checkout", "--quiet", "-b", "feature/x")
	opened := s.commit("FEATURE", "a feature\n")
	s.push("HEAD:feature/x")
	s.decided("repo:push", "branch feature/x", "SKIPPED", "feature/x")

	number, err := s.PullRequest(t.Context(), shop, "A feature", "feature/x", "main")
	s.must(err)
	pulls := fmt.Sprintf("/repositories/%s/pullrequests/%d", shop, number)
	var pr struct {
		Source struct{ Commit struct{ Hash string } }
	}
	s.must(s.Ask(t.Context(), http.MethodGet, pulls, nil, &pr))
	if got := pr.Source.Commit.Hash; len(got) != 12 || !strings.HasPrefix(opened, got) {
		t.Errorf("Bitbucket says %q of commit %s; this test is about hashes of 12 characters", got, opened)
	}
	ref := fmt.Sprintf("pull request #%d", number)
	expect := func(commit string, count int) {
		t.Helper()
		b := s.ended(s.buildOf(commit).ID, "SUCCESSFUL")
		if b.Number != count || b.Trigger != "pull_request" || b.Branch != "feature/x" || b.PullRequest != number {
			t.Errorf("the build is %+v", b)
		}
	}
	expect(opened, 1)
	s.decided("pullrequest:created", ref, "BUILT", "")

	updated := s.commit("FEATURE", "a better feature\n")
	s.push("HEAD:feature/x")
	expect(updated, 2)
	// Bitbucket tells of it twice; whichever comes second finds the build of the first.
	var verdicts []string
	for _, event := range []string{"repo:push", "pullrequest:updated"} {
		d := s.delivery(event+" of the update", func(d visitor.Delivery) bool {
			return d.Event == event && d.Decisions[0].Build == s.buildOf(updated).ID
		})
		verdicts = append(verdicts, d.Decisions[0].Decision)
	}
	slices.Sort(verdicts)
	if want := []string{"ALREADY_BUILT", "BUILT"}; !slices.Equal(verdicts, want) {
		t.Errorf("the two events of one push were decided %q, expected %q in some order", verdicts, want)
	}

	s.must(s.Ask(t.Context(), http.MethodPut, pulls, map[string]string{"title": "A feature, renamed"}, nil))
	s.until("the decision about the title", func() error {
		deliveries, err := s.Deliveries(t.Context(), s.app)
		if err != nil {
			return err
		}
		if n := len(slices.DeleteFunc(deliveries, func(d visitor.Delivery) bool {
			return d.Event != "pullrequest:updated" || len(d.Decisions) != 1 || d.Decisions[0].Build != s.buildOf(updated).ID
		})); n != 2 {
			return fmt.Errorf("%d updates were decided", n)
		}
		return nil
	})
	s.decided("pullrequest:updated", ref, "ALREADY_BUILT", "already built as #2")

	var merged struct {
		MergeCommit struct{ Hash string } `json:"merge_commit"`
	}
	s.must(s.Ask(t.Context(), http.MethodPost, pulls+"/merge", map[string]string{}, &merged))
	s.decided("pullrequest:fulfilled", ref, "SKIPPED", "closed")
	s.decided("repo:push", "branch main", "BUILT", "")
	builds, err := s.Builds(t.Context(), s.app)
	s.must(err)
	if len(builds) != 3 || builds[0].Trigger != "push" || builds[0].Branch != "main" || !strings.HasPrefix(builds[0].Commit, merged.MergeCommit.Hash) {
		t.Errorf("the builds are %+v; expected two of the pull request and one of the merge %s", builds, merged.MergeCommit.Hash)
	}
	s.ended(builds[0].ID, "SUCCESSFUL")
}

// manyRefs pushes several refs at once.
func manyRefs(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	commit := s.commit("NEWS", "something\n")
	s.git("tag", "v1")
	s.push("HEAD:main", "HEAD:release/1", "HEAD:feature/y", "refs/tags/v1", ":develop")
	d := s.delivery("the push", func(visitor.Delivery) bool { return true })
	got := map[string]string{}
	for _, decision := range d.Decisions {
		got[decision.Ref] = decision.Decision
		if decision.Reason == "" || (decision.Build != "") != (decision.Decision == "BUILT") {
			t.Errorf("the decision is %+v", decision)
		}
	}
	want := map[string]string{
		"branch main": "BUILT", "branch release/1": "BUILT", "branch feature/y": "SKIPPED", "tag v1": "SKIPPED", "branch develop": "SKIPPED",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(d.Decisions) != len(want) {
		t.Errorf("decided were %v, expected %v", got, want)
	}
	s.decided("repo:push", "branch develop", "SKIPPED", "deleted")
	all := s.buildsOf(commit)
	if len(all) != 2 {
		t.Fatalf("the builds are %+v", all)
	}
	for _, b := range all {
		s.ended(b.ID, "SUCCESSFUL")
	}
	if deliveries, err := s.Deliveries(t.Context(), s.app); err != nil || len(deliveries) != 1 {
		t.Errorf("one push made %d deliveries (%v)", len(deliveries), err)
	}
}

// pipelineFiles pushes files that cannot be built.
func pipelineFiles(t *testing.T, in stack) {
	s := newShop(t, in.install(t))
	for name, c := range map[string]struct{ file, decision, reason string }{
		"unknown key": {"name: Shop\nplatfrom: linux\ntriggers: [push]\nsteps: [{run: make}]\n", "BROKEN", pipelinePath + `:2:1: platfrom: unknown key "platfrom", did you mean "platform"?`},
		"platform":    {"name: Shop\nplatform: ios\ntriggers: [push]\nsteps: [{run: make}]\n", "BROKEN", "platform ios is not supported by this runner (it runs linux)"},
		"no file":     {"", "SKIPPED", "no pipeline file"},
	} {
		branch := "release/" + strings.ReplaceAll(name, " ", "-")
		s.git("checkout", "--quiet", "-b", branch, "origin/main")
		var commit string
		if c.file == "" {
			s.git("rm", "--quiet", pipelinePath)
			commit = s.commit("WITHOUT", "a pipeline file\n")
		} else {
			commit = s.commit(pipelinePath, c.file)
		}
		s.push("HEAD:" + branch)
		decision := s.decided("repo:push", "branch "+branch, c.decision, c.reason)
		if c.file == "" {
			if statuses, err := s.Statuses(t.Context(), shop, commit); err != nil || len(statuses) > 0 || decision.Build != "" {
				t.Errorf("%s: decided was %+v, Bitbucket shows %+v, %v", name, decision, statuses, err)
			}
			continue
		}
		b := s.ended(decision.Build, "ERROR")
		if !strings.Contains(b.Reason, c.reason) || b.Commit != commit {
			t.Errorf("%s: the build is %+v", name, b)
		}
		if lines := s.whole(b.ID); len(lines) != 1 || !strings.Contains(lines[0].Text, c.reason) {
			t.Errorf("%s: the log is %+v", name, lines)
		}
	}
}

// whatIsThere asks for a runner and a machine that the installation has, and for ones that it has not.
func whatIsThere(t *testing.T, in stack, has, size string) {
	s := newShop(t, in.install(t))
	asks := func(what string) visitor.Build {
		commit := s.commit(pipelinePath, what+"\n"+pipeline("[push]", "echo here"))
		s.push("HEAD:main")
		return s.buildOf(commit)
	}
	s.ended(asks("runner: "+has).ID, "SUCCESSFUL")
	for asked, reason := range map[string]string{
		"runner: fargate":    "runner fargate is not there (this installation has ",
		"compute: " + size:   "compute " + size + " is not there (this installation has ",
		"image: golang":      `"image" is part of the format but not supported by this version`,
		"artifacts: [a.txt]": `"artifacts" is part of the format but not supported by this version`,
	} {
		if b := s.ended(asks(asked).ID, "ERROR"); !strings.Contains(b.Reason, reason) {
			t.Errorf("%s: %s", asked, b.Reason)
		}
	}
}

// manyPushes pushes 30 commits to 6 branches at once. There is room for two builds.
func manyPushes(t *testing.T, in stack) {
	const branches, each, room = 6, 5, 2
	s := newShop(t, in.install(t))
	present := s.mark("present")
	s.room(present)
	commits := []string{s.commit(pipelinePath, pipeline("[push]", fmt.Sprintf(
		"mkdir %[1]s/$RUNNERHUB_BUILD_ID\n%[2]s\nls %[1]s | wc -l >> %[3]s-$RUNNERHUB_COMMIT\nrmdir %[1]s/$RUNNERHUB_BUILD_ID",
		present, s.waitFor("go"), s.mark("seen"))))}
	s.push("HEAD:main")
	clones := make([]*visitor.Clone, branches)
	for n := range clones {
		var err error
		clones[n], err = s.Clone(t.Context(), shop, filepath.Join(s.in.folder(), fmt.Sprintf("clone-%d", n)))
		s.must(err)
	}
	var pushing sync.WaitGroup
	var mu sync.Mutex
	for n, clone := range clones {
		pushing.Go(func() {
			for i := range each {
				commit, err := clone.Commit(t.Context(), "n", fmt.Sprintf("%d of %d\n", i, n), "Count")
				if err == nil {
					err = clone.Push(t.Context(), fmt.Sprintf("HEAD:release/%d", n))
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				commits = append(commits, commit)
				mu.Unlock()
			}
		})
	}
	pushing.Wait()
	for _, commit := range commits {
		s.buildOf(commit)
	}
	s.until("the first builds to be at work", func() error {
		if entries, err := os.ReadDir(present); err != nil || len(entries) < room {
			return fmt.Errorf("%d are (%v)", len(entries), err)
		}
		return nil
	})
	// Nothing but the limit keeps the others from starting.
	all, err := s.Builds(t.Context(), s.app)
	s.must(err)
	if waiting := slices.DeleteFunc(all, func(b visitor.Build) bool { return b.State != "QUEUED" }); len(waiting) != len(commits)-room {
		t.Errorf("%d of %d builds wait, where %d have room", len(waiting), len(commits), room)
	}
	s.open("go")
	numbers := map[int]bool{}
	for _, commit := range commits {
		b := s.ended(s.buildOf(commit).ID, "SUCCESSFUL")
		numbers[b.Number] = true
		if got := strings.TrimSpace(s.marked("seen-" + commit)); got != "1" && got != "2" {
			t.Errorf("build #%d saw %q builds at work; expected one report of at most %d", b.Number, got, room)
		}
	}
	for n := range len(commits) {
		if !numbers[n+1] {
			t.Fatalf("%d pushes made builds with the numbers %v", len(commits), numbers)
		}
	}
	if all, err := s.Builds(t.Context(), s.app); err != nil || len(all) != len(commits) {
		t.Errorf("%d pushes made %d builds (%v)", len(commits), len(all), err)
	}
}
