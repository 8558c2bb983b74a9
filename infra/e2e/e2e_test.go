package e2e

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// sideBySide is how many scripts run at once unless -parallel says otherwise. Each waits most of its time, for Bitbucket's next
// attempt, for a message to come again, for a lease to run out; the processors would do with less.
const sideBySide = "12"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", sideBySide); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// script is one story, told to installations of its own.
type script struct {
	name string
	run  func(t *testing.T, s stack)
}

// scripts are those that every way to run has to pass.
func scripts() []script {
	return []script{
		{"walk", walk},
		{"pull request", pullRequest},
		{"push of many refs", manyRefs},
		{"pipeline files", pipelineFiles},
		{"triggers", triggers},
		{"Bitbucket is down", forgeDown},
		{"Bitbucket limits the rate", forgeLimits},
		{"Bitbucket's answers are lost", forgeLoses},
		{"token expires", tokenExpires},
		{"grant is refused", grantRefused},
		{"tenants", tenants},
		{"webhooks", webhooks},
		{"many pushes", manyPushes},
		{"schedule", schedule},
		{"explain", explain},
		{"replay after an outage", replayAfterOutage},
		{"replay after a lost grant", replayAfterLostGrant},
		{"cancel", cancelled},
		{"superseded", superseded},
		{"one after the other", oneAfterTheOther},
		{"forks", forks},
	}
}

// TestEndToEnd runs every script against the stack that STACK names, or against each of them.
func TestEndToEnd(t *testing.T) {
	stacks := map[string]func(*testing.T) stack{"standalone": newStandalone, "lambda": newLambda}
	names := slices.Sorted(maps.Keys(stacks))
	if name := os.Getenv("STACK"); name != "" {
		if stacks[name] == nil {
			t.Fatalf("STACK is %q; it is one of: %s", name, strings.Join(names, ", "))
		}
		names = []string{name}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stacks[name](t)
			for _, script := range append(s.scripts(), scripts()...) {
				t.Run(script.name, func(t *testing.T) {
					t.Parallel()
					script.run(t, s)
				})
			}
		})
	}
}
