package dispatch_test

import (
	"strings"
	"testing"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/store"
)

// holding stores the next version of a pipeline file in the app.
func holding(b *dispatchtest.Bench, branches string, expected int, text string) int {
	b.Helper()
	p, err := b.ChangePipeline(b.Context(), dispatchtest.App, store.Pipeline{
		ID: branches, Branches: branches, Deleted: text == "", ChangedBy: "user", ChangedAt: b.Clock.Now().UTC(),
	}, expected, text)
	b.Must(err)
	return p.Version
}

func TestHeldFiles(t *testing.T) {
	t.Parallel()
	const all = "name: All\ntriggers:\n  - event: push\n    tags: ['**']\n    branches: ['**']\nsteps:\n  - run: all\n"
	b := dispatchtest.New(t, "")
	main := b.Commit("main", "README", "")
	holding(b, "**", 0, all)
	release := holding(b, "release/*", 0, strings.Replace(all, "All", "Release", 1))
	ios := holding(b, "ios", 0, onIOS)
	id := b.Deliver("d", "repo:push", b.Push(
		dispatchtest.Change{Name: "main", Old: old, New: main}, dispatchtest.Change{Name: "release/1", New: main},
		dispatchtest.Change{Kind: "tag", Name: "v1", New: main}, dispatchtest.Change{Name: "ios", New: main},
	))
	b.Pump()
	want := map[string]struct {
		name    string
		version int
		verdict ci.Verdict
	}{
		"branch main": {"All", 1, ci.Built}, "branch release/1": {"Release", release, ci.Built}, "tag v1": {"All", 1, ci.Built},
		"branch ios": {"Shop", ios, ci.Broken},
	}
	for _, d := range b.Decisions(id) {
		made, err := b.Build(t.Context(), d.Build)
		b.Must(err)
		if w := want[d.Ref]; d.Verdict != w.verdict || made.Name != w.name || made.PipelineVersion != w.version {
			t.Errorf("%s: %+v, build %s of version %d, want %+v", d.Ref, d, made.Name, made.PipelineVersion, w)
		}
		if d.Verdict == ci.Broken && !strings.Contains(d.Reason, "version 3 of the app's pipeline files, for ios:2:11: ") {
			t.Errorf("it is broken because %q", d.Reason)
		}
	}
	if b.Count() != len(want) {
		t.Errorf("%d builds", b.Count())
	}

	// A deleted file counts no more, and the repository's does.
	holding(b, "**", 1, "")
	id = b.Deliver("e", "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: main, New: b.Commit("main", "README", "more")}))
	expect(b, one(b, id), ci.Built, "main")
	if made := b.TheBuild(); made.PipelineVersion != 0 || made.Name == "All" {
		t.Errorf("the build is %+v", made)
	}
	b.Check(t)
}

// A pull request takes the file of its source branch.
func TestHeldFileOfAPullRequest(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	version := holding(b, "feature/*", 0, onPR)
	holding(b, "main", 0, onMain)
	head := b.Commit("feature/x", "README", "")
	pr := b.OpenPullRequest("feature/x", "main")
	expect(b, one(b, b.Deliver("d", "pullrequest:created", b.PullRequest(pr, "feature/x", head, "main"))), ci.Built, "into main")
	if made := b.TheBuild(); made.PipelineVersion != version {
		t.Errorf("it was made of version %d", made.PipelineVersion)
	}
	// A missing trigger is mended by a file of the app, and a replay.
	id := b.Deliver("e", "repo:push", b.Push(dispatchtest.Change{Name: "hotfix", New: b.Main}))
	expect(b, one(b, id), ci.Skipped, "hotfix")
	holding(b, "hotfix", 0, "name: Shop\ntriggers: [push]\nsteps:\n  - run: make\n")
	if _, err := replayer(b).Replay(t.Context(), "user", id); err != nil {
		t.Fatal(err)
	}
	expect(b, one(b, id), ci.Built, "push")
	b.Check(t)
}
