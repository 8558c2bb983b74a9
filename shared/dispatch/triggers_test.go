package dispatch_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
)

const (
	onSource = "name: Shop\ntriggers:\n  - {event: push, paths: src/**}\n  - {event: pull_request, paths: {exclude: docs/**}}\nsteps:\n  - run: make\n"
	onBoth   = "name: Shop\ntriggers:\n  - {event: push, paths: src/**}\n  - {event: push, branches: main}\nsteps:\n  - run: make\n"
)

// count answers how many of the calls since the last look had part in their path.
func count(b *dispatchtest.Bench, part string) int { return len(b.Transport.Take(part)) }

func TestChangedFiles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file, branch, path string
		change             func(c *dispatchtest.Change)
		answer             int // to the question for changed files
		verdict            ci.Verdict
		reason, result     string
		asked              bool
	}{
		"one that matches":      {onSource, "x", "src/a.go", nil, 0, ci.Built, `file src/a.go matches "src/**"`, "included", true},
		"none":                  {onSource, "x", "README.md", nil, 0, ci.Skipped, "the only changed file, README.md, matches none of src/**", "not_included", true},
		"a new branch":          {onSource, "x", "README.md", func(c *dispatchtest.Change) { c.Old = "" }, 0, ci.Built, "is not known, so it is built", "assumed", false},
		"Bitbucket lost one":    {onSource, "x", "README.md", nil, http.StatusNotFound, ci.Built, "is not known, so it is built", "assumed", true},
		"it takes too long":     {onSource, "x", "README.md", nil, 555, ci.Built, "is not known, so it is built", "assumed", true},
		"a tag":                 {onSource, "x", "README.md", func(c *dispatchtest.Change) { c.Kind = "tag" }, 0, ci.Skipped, "no trigger has a tags filter", "missing", false},
		"another trigger takes": {onBoth, "main", "README.md", nil, 0, ci.Built, `matches "main"`, "included", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, test.file)
			before := b.Main
			if test.branch != "main" {
				before = b.Commit(test.branch, ".runnerhub/runnerhub.yml", test.file)
			}
			change := dispatchtest.Change{Name: test.branch, Old: before, New: b.Commit(test.branch, test.path, "1")}
			if test.change != nil {
				test.change(&change)
			}
			var asked atomic.Bool
			b.Transport.Answer(func(r *http.Request) int {
				if strings.Contains(r.URL.Path, "/diffstat/") {
					asked.Store(true)
					return test.answer
				}
				return 0
			})
			got := one(b, b.Deliver("d", "repo:push", b.Push(change)))
			expect(b, got, test.verdict, test.reason)
			if last := len(got.Findings) - 1; last < 0 || got.Findings[last].Result != test.result || got.Findings[last].Line < 3 {
				t.Errorf("%+v", got)
			}
			if got.Verdict == ci.Built && (got.Code != "matched" || got.Rule == nil || got.Rule.Line < 3) {
				t.Errorf("%+v", got)
			}
			if asked.Load() != test.asked {
				t.Errorf("asked for changed files: %v", asked.Load())
			}
			b.Check(t)
		})
	}
}

// What a pull request changes is what its branch has since it left the target.
func TestChangedFilesOfAPullRequest(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onSource)
	b.Commit("feature", ".runnerhub/runnerhub.yml", onSource+"# moved\n")
	docs := b.Commit("docs", "docs/a.md", "1")
	head := b.Commit("main", "src/meanwhile.go", "1")
	into := func(head string) func(map[string]any) {
		return func(pr map[string]any) {
			pr["destination"].(map[string]any)["commit"] = map[string]any{"hash": head[:12]}
		}
	}
	expect(b, one(b, b.Deliver("1", "pullrequest:created", b.PullRequest(41, "docs", docs, "main", into(head)))), ci.Skipped, "the only changed file, docs/a.md, is excluded by docs/**")
	more := b.Commit("docs", "b.md", "1")
	expect(b, one(b, b.Deliver("2", "pullrequest:updated", b.PullRequest(41, "docs", more, "main", into(head)))), ci.Built, "file b.md is not excluded by docs/**")
	// A push that belongs to it, and one that does not.
	pr := b.OpenPullRequest("docs", "main")
	got := one(b, b.Deliver("3", "repo:push", b.Push(dispatchtest.Change{Name: "docs", Old: docs, New: more})))
	expect(b, got, ci.Built, fmt.Sprintf("the branch belongs to pull request #%d: pull request into main", pr))
	if got.PullRequest != pr {
		t.Errorf("%+v", got)
	}
	b.Check(t)
}

// One and the same event tells of new commits, another target and another title.
func TestNewsOfAPullRequest(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onPR)
	first, second := b.Commit("feature", "x", "1"), b.Commit("feature", "x", "2")
	at := b.Clock.Now()
	say := func(id, hash, target string, after time.Duration) ci.Decision {
		t.Helper()
		return one(b, b.Deliver(id, "pullrequest:updated", b.PullRequest(7, "feature", hash, target, func(pr map[string]any) {
			pr["updated_on"] = at.Add(after).Format(time.RFC3339)
		})))
	}
	expect(b, say("1", first, "develop", 0), ci.Skipped, "target branch develop matches none")
	// The file would decide otherwise by now, and nobody asks it.
	b.Transport.Take("")
	if got := say("2", first, "develop", time.Minute); got.Code != "edited" || got.Verdict != ci.Skipped || count(b, "/src/") > 0 {
		t.Errorf("another title: %+v", got)
	}
	expect(b, say("3", first, "main", 2*time.Minute), ci.Built, "pull request into main")
	expect(b, say("4", first, "main", 3*time.Minute), ci.AlreadyBuilt, "already built as #1")
	expect(b, say("5", second, "main", 4*time.Minute), ci.Built, "pull request into main")
	// One that was late changes nothing of that.
	expect(b, say("6", first, "main", 2*time.Minute), ci.AlreadyBuilt, "already built as #1")
	expect(b, say("7", second, "main", 5*time.Minute), ci.AlreadyBuilt, "already built as #2")
	b.Check(t)
}

// A delivery that died after it had recorded what it saw is no news from another one.
func TestDeathAfterAPullRequestWasSeen(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 5; at++ {
		for _, done := range []bool{false, true} {
			b := dispatchtest.New(t, onPR)
			head := b.Commit("feature", "x", "1")
			b.DiesAt(at, done)
			b.Deliver("d", "pullrequest:updated", b.PullRequest(7, "feature", head, "main"))
			b.Pump()
			b.Table.OnTransact(nil)
			b.PumpFor(20 * time.Second)
			if d := one(b, "d"); d.Verdict != ci.Built || b.Count() != 1 {
				t.Errorf("died at %d, done %v: %d builds, %+v", at, done, b.Count(), d)
			}
			b.Check(t)
		}
	}
}

func TestSkippedPullRequest(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onPR)
	head := b.CommitSaying("feature", "x", "1", "Try it\n\n[skip ci]")
	expect(b, one(b, b.Deliver("1", "pullrequest:created", b.PullRequest(7, "feature", head, "main"))), ci.Skipped, "pull request #7: the message of the head commit has [skip ci]")
}

// Where an app names its file, that one counts alone.
func TestAPathOfItsOwn(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, onMain)
	_, err := b.ChangeApp(t.Context(), dispatchtest.App, func(a *ci.App) { a.PipelinePath = "ios/ci.yaml" })
	b.Must(err)
	expect(b, one(b, b.Deliver("1", "repo:push", b.Push(dispatchtest.Change{Name: "main", New: b.Main}))), ci.Skipped, "no pipeline file: ios/ci.yaml, which the app names, does not exist")
	head := b.Commit("main", "ios/ci.yaml", "name: Other\ntriggers: [push]\nsteps:\n  - run: make\n")
	expect(b, one(b, b.Deliver("2", "repo:push", b.Push(dispatchtest.Change{Name: "main", Old: b.Main, New: head}))), ci.Built, "takes every branch")
	if made := b.TheBuild(); made.Name != "Other" {
		t.Errorf("%+v", made)
	}
}
