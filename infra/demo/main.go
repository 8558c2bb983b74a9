// Command demo walks through a first build with plain HTTP and git, against a
// server that `make run` started, and says what it does. It exits with 1 as soon
// as anything is not as it should be.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"runnerhub/infra/visitor"
)

const repository = "acme/shop"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
	fmt.Println("\nEverything was as it should be.")
}

// demo is one walk.
type demo struct {
	*visitor.Visitor
	app   string
	clone *visitor.Clone
	step  int
}

func (d *demo) say(format string, args ...any) {
	d.step++
	fmt.Printf("\n%d. %s\n", d.step, fmt.Sprintf(format, args...))
}

func run(ctx context.Context) error {
	hub, forge := setting("PUBLIC_URL", "http://127.0.0.1:8080"), setting("SANDBOX_URL", "http://127.0.0.1:7990")
	fmt.Printf("This talks to RunnerHub at %s and the sandbox Bitbucket at %s.\n", hub, forge)
	alice, err := visitor.New(hub, forge, "alice", "alice")
	if err != nil {
		return err
	}
	if err := alice.Call(ctx, http.MethodGet, "/healthz", nil, nil); err != nil {
		return fmt.Errorf("no server answers: start one with `make run` in another terminal (%w)", err)
	}
	folder, err := os.MkdirTemp("", "runnerhub-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	d := &demo{Visitor: alice}
	if err := d.connect(ctx); err != nil {
		return err
	}
	d.say("Alice clones %s.", repository)
	if d.clone, err = alice.Clone(ctx, repository, filepath.Join(folder, "shop")); err != nil {
		return err
	}
	for _, scene := range []func(context.Context) error{d.push, d.fail, d.pullRequest} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func setting(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func (d *demo) connect(ctx context.Context) error {
	d.say("Alice signs in with Bitbucket and grants access on its consent page.")
	if err := d.SignIn(ctx); err != nil {
		return err
	}
	d.say("She makes a workspace, connects Bitbucket to it, and makes an app; those of an earlier demo do as well.")
	workspace, err := d.EnsureWorkspace(ctx, "Demo")
	if err != nil {
		return err
	}
	connection, err := d.Connect(ctx, workspace)
	if err != nil {
		return err
	}
	if d.app, err = d.EnsureApp(ctx, workspace, "Shop"); err != nil {
		return err
	}
	d.say("She picks %s from her repositories; RunnerHub installs its webhook.", repository)
	picked, err := d.Pick(ctx, connection, repository)
	if err != nil {
		return err
	}
	if err := d.Tie(ctx, d.app, connection, picked.UUID); err != nil {
		return err
	}
	var hooks struct {
		Values []struct {
			Description string   `json:"description"`
			URL         string   `json:"url"`
			Events      []string `json:"events"`
			Active      bool     `json:"active"`
			SecretSet   bool     `json:"secret_set"`
		} `json:"values"`
	}
	if err := d.Ask(ctx, http.MethodGet, "/repositories/"+repository+"/hooks?pagelen=100", nil, &hooks); err != nil {
		return err
	}
	for _, h := range hooks.Values {
		if strings.HasPrefix(h.URL, d.Hub) && h.Active && h.SecretSet {
			fmt.Printf("   webhook %q for %s\n", h.Description, strings.Join(h.Events, ", "))
			return nil
		}
	}
	return errors.New("bitbucket has no active webhook with a secret for RunnerHub")
}

// push pushes to main and expects a successful build.
func (d *demo) push(ctx context.Context) error {
	commit, err := d.clone.Commit(ctx, "NEWS", fmt.Sprintf("The demo was here at %s.\n", time.Now().Format(time.RFC3339Nano)), "Say that the demo was here")
	if err != nil {
		return err
	}
	d.say("She commits and pushes %.12s to main. The push is a webhook, the webhook is a build.", commit)
	if err := d.clone.Push(ctx, "HEAD:main"); err != nil {
		return err
	}
	return d.expect(ctx, commit, "push", "main", "SUCCESSFUL", "SUCCESSFUL")
}

// fail breaks the build on a release branch and expects a failed one.
func (d *demo) fail(ctx context.Context) error {
	branch := fmt.Sprintf("release/demo-%d", time.Now().UnixNano())
	if _, err := d.clone.Git(ctx, "checkout", "--quiet", "-b", branch); err != nil {
		return err
	}
	commit, err := d.clone.Commit(ctx, ".runnerhub/runnerhub.yml", brokenSteps, "Add a step that fails")
	if err != nil {
		return err
	}
	d.say("On %s she commits a step that fails, and pushes.", branch)
	if err := d.clone.Push(ctx, "HEAD:"+branch); err != nil {
		return err
	}
	if err := d.expect(ctx, commit, "push", branch, "FAILED", "FAILED"); err != nil {
		return err
	}
	_, err = d.clone.Git(ctx, "checkout", "--quiet", "main")
	return err
}

const brokenSteps = `name: Shop
triggers:
  - event: push
    branches: [main, release/*]
  - event: pull_request
    branches: [main]
steps:
  - name: say hello
    run: echo "hello from build $RUNNERHUB_BUILD_NUMBER"
  - name: fail
    run: |
      echo "this one fails" >&2
      exit 7
  - name: never
    run: echo "not reached"
`

// pullRequest opens one, updates it, and expects a build of each state of it.
func (d *demo) pullRequest(ctx context.Context) error {
	branch := fmt.Sprintf("feature/demo-%d", time.Now().UnixNano())
	if _, err := d.clone.Git(ctx, "checkout", "--quiet", "-b", branch); err != nil {
		return err
	}
	commit, err := d.clone.Commit(ctx, "FEATURE", "a feature\n", "Begin a feature")
	if err != nil {
		return err
	}
	d.say("She pushes %s, which no push trigger names, and opens a pull request to main.", branch)
	if err := d.clone.Push(ctx, "HEAD:"+branch); err != nil {
		return err
	}
	number, err := d.PullRequest(ctx, repository, "A feature", branch, "main")
	if err != nil {
		return err
	}
	fmt.Printf("   pull request #%d\n", number)
	if err := d.expect(ctx, commit, "pull_request", branch, "SUCCESSFUL", "SUCCESSFUL"); err != nil {
		return err
	}
	if commit, err = d.clone.Commit(ctx, "FEATURE", "a better feature\n", "Improve the feature"); err != nil {
		return err
	}
	d.say("She pushes %.12s to the branch: one commit, two webhooks, one build.", commit)
	if err := d.clone.Push(ctx, "HEAD:"+branch); err != nil {
		return err
	}
	return d.expect(ctx, commit, "pull_request", branch, "SUCCESSFUL", "SUCCESSFUL")
}

// expect follows the one build of a commit to its end and compares everything
// that tells of it.
func (d *demo) expect(ctx context.Context, commit, trigger, branch, state, status string) error {
	var build visitor.Build
	err := visitor.Until(ctx, "a build of "+commit, func() (bool, error) {
		builds, err := d.Builds(ctx, d.app)
		for _, b := range builds {
			if b.Commit == commit {
				build = b
				return true, nil
			}
		}
		return false, err
	})
	if err != nil {
		return err
	}
	fmt.Printf("   build #%d: %s/builds/%s\n", build.Number, d.Hub, build.ID)
	if shown, err := d.statusesOf(ctx, build); err == nil && len(shown) > 0 {
		fmt.Printf("   Bitbucket shows %s\n", shown[0].State)
	}
	if err := d.Follow(ctx, build.ID, func(l visitor.LogLine) { fmt.Printf("   | %-14.14s %s\n", l.Step, l.Text) }); err != nil {
		return err
	}
	if err := d.Call(ctx, http.MethodGet, "/api/builds/"+build.ID, nil, &build); err != nil {
		return err
	}
	fmt.Printf("   the build is %s %s\n", build.State, build.Reason)
	if build.State != state || build.Trigger != trigger || build.Branch != branch || len(build.Commit) != 40 {
		return fmt.Errorf("the build is %+v; expected %s by %s on %s with a full hash", build, state, trigger, branch)
	}
	var last visitor.Status
	err = visitor.Until(ctx, "the status "+status+" on "+commit, func() (bool, error) {
		shown, err := d.statusesOf(ctx, build)
		if err != nil || len(shown) == 0 {
			return false, err
		}
		last = shown[0]
		return len(shown) == 1 && last.State == status, nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("   Bitbucket shows %s on %.12s (refname %s): %s\n   %s\n", last.State, commit, last.Refname, last.Description, last.URL)
	if last.Refname != branch || len(last.Key) > 40 {
		return fmt.Errorf("the status is %+v", last)
	}
	builds, err := d.Builds(ctx, d.app)
	if err != nil {
		return err
	}
	count := 0
	for _, b := range builds {
		if b.Commit == commit {
			count++
		}
	}
	if count != 1 {
		return fmt.Errorf("the commit has %d builds", count)
	}
	return nil
}

// statusesOf answers what the build's commit shows that links to the build. Other apps may
// build the same repository.
func (d *demo) statusesOf(ctx context.Context, build visitor.Build) ([]visitor.Status, error) {
	all, err := d.Statuses(ctx, repository, build.Commit)
	return slices.DeleteFunc(all, func(s visitor.Status) bool { return s.URL != d.Hub+"/builds/"+build.ID }), err
}
