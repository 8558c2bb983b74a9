package pipeline

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestPlan(t *testing.T) {
	t.Parallel()
	f := mustParse(t, `
name: Shop
timeout: 5
triggers: [push]
environment: {variables: {A: 1, B: 2, C: 3}}
steps:
  - {name: Install, run: npm ci, working_directory: web/app/, env: {B: two, D: 4}}
  - run: "\n  make test\n  make lint\n"
  - run: "printf '\e[0m'"
  - run: echo `+strings.Repeat("é", 60)+`
`)
	plan, problems := f.Plan([]string{"android", "linux"})
	if problems != nil {
		t.Fatal(problems)
	}
	base := []Variable{{"A", "1"}, {"B", "2"}, {"C", "3"}}
	want := Plan{Name: "Shop", Platform: "linux", TimeoutSeconds: 300, Steps: []PlanStep{
		{Name: "Install", Run: "npm ci", WorkingDirectory: "web/app", Env: []Variable{{"A", "1"}, {"B", "two"}, {"C", "3"}, {"D", "4"}}},
		{Name: "make test", Run: "\n  make test\n  make lint\n", WorkingDirectory: ".", Env: base},
		{Name: "step 3", Run: "printf '\x1b[0m'", WorkingDirectory: ".", Env: base},
		{Name: "echo " + strings.Repeat("é", 55) + "…", Run: "echo " + strings.Repeat("é", 60), WorkingDirectory: ".", Env: base},
	}}
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("got  %+v\nwant %+v", plan, want)
	}
	if !reflect.DeepEqual(f.Variables, base) {
		t.Errorf("planning changed the file: %+v", f.Variables)
	}
}

func TestPlanJSON(t *testing.T) {
	t.Parallel()
	plan, problems := mustParse(t, minimal).Plan([]string{"linux"})
	if problems != nil {
		t.Fatal(problems)
	}
	got, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"a","platform":"linux","timeout_seconds":3600,"steps":[{"name":"x","run":"x","working_directory":".","env":[]}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPlanIsTheSameForTheSameText(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	encoded := func() []byte {
		plan, problems := mustParse(t, string(text)).PlanFor(everything())
		if problems != nil {
			t.Fatal(problems)
		}
		b, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := encoded()
	for range 50 {
		if again := encoded(); !bytes.Equal(first, again) {
			t.Fatalf("got %s\nthen %s", first, again)
		}
	}
}

// TestPlanExtensions holds the plan to the whole file.
func TestPlanExtensions(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	f := mustParse(t, string(text))
	plan, problems := f.PlanFor(everything())
	if problems != nil {
		t.Fatal(problems)
	}
	if len(plan.Steps) != 2 || plan.Steps[0].TimeoutSeconds != 600 || plan.Steps[0].ContinueOnError ||
		plan.Steps[1].TimeoutSeconds != 0 || !plan.Steps[1].ContinueOnError {
		t.Errorf("steps %+v", plan.Steps)
	}
	plan.Steps = nil
	want := Plan{
		Name: "Shop", Platform: "linux", TimeoutSeconds: 5400, Toolchain: f.Toolchain, Image: "node:22-bookworm", Runner: "docker", Compute: "large",
		Cache: f.Cache, Artifacts: []string{"dist/**", "coverage report/*.html"},
	}
	if !reflect.DeepEqual(plan, want) {
		t.Errorf("got  %+v\nwant %+v", plan, want)
	}
}

// TestUnoffered asks for everything, and is offered all but one thing, one after the other.
func TestUnoffered(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/full.yml")
	if err != nil {
		t.Fatal(err)
	}
	f := mustParse(t, string(text))
	all := everything()
	without := func(feature Feature) Offer {
		offer := all
		offer.Features = slices.DeleteFunc(slices.Clone(all.Features), func(other Feature) bool { return other == feature })
		return offer
	}
	const later = " is part of the format but not supported by this version: remove it"
	for _, tt := range []struct {
		name  string
		offer Offer
		want  string
	}{
		{"everything", all, ``},
		{"platforms", Offer{Platforms: []string{"ios"}, Runners: all.Runners, Computes: all.Computes, Features: all.Features}, `3:11: platform: platform linux is not supported by this runner (it runs ios)`},
		{"runners", Offer{Platforms: all.Platforms, Runners: []string{"process"}, Computes: all.Computes, Features: all.Features}, `5:9: runner: runner docker is not there (this installation has process)`},
		{"no runner", Offer{Platforms: all.Platforms, Computes: all.Computes, Features: all.Features}, `5:9: runner: runner docker is not there (this installation has only one, which needs no name: remove the key)`},
		{"artifacts", without(Artifacts), `55:1: artifacts: "artifacts"` + later},
		{"cache", without(Caches), `38:1: cache: "cache"` + later},
		{"sizes of machines", Offer{Platforms: all.Platforms, Runners: all.Runners, Computes: []string{"small", "medium"}, Features: all.Features}, `6:1: compute: compute large is not there (this installation has small, medium)`},
		{"one size of machine", Offer{Platforms: all.Platforms, Runners: all.Runners, Features: all.Features}, `6:1: compute: compute large is not there (this installation has only one size of machine, which needs no name: remove the key)`},
		{"concurrency", without(Groups), `35:1: concurrency: "concurrency"` + later},
		{"image", without(Image), `4:1: image: "image"` + later},
		{"steps' timeouts", without(StepTimeouts), `48:5: steps[0].timeout: "timeout"` + later},
		{"failing steps", without(ContinueOnError), `54:5: steps[1].continue_on_error: "continue_on_error"` + later},
		{"versions", without(Toolchain), `8:3: environment.node: "node"` + later + `
9:3: environment.xcode: "xcode"` + later + `
10:3: environment.android_sdk: "android_sdk"` + later + `
11:3: environment.flutter: "flutter"` + later + `
12:3: environment.ruby: "ruby"` + later},
	} {
		if got := f.Unoffered(tt.offer).Error(); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
		if _, problems := f.PlanFor(tt.offer); problems.Error() != tt.want {
			t.Errorf("%s: planning says\n%v", tt.name, problems)
		}
	}
}

func TestPlanRefusals(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 10_000)
	for _, tt := range []struct {
		name, text string
		platforms  []string
		want       string
	}{
		{"platform", minimal + "platform: ios\n", []string{"linux"}, `4:11: platform: platform ios is not supported by this runner (it runs linux)`},
		{"default platform", minimal, []string{"ios", "macos"}, `platform: platform linux is not supported by this runner (it runs ios, macos)`},
		{"no platform", minimal, nil, `platform: platform linux is not supported by this runner (it runs nothing)`},
		{
			"variables repeated", "name: a\ntriggers: [push]\nenvironment: {variables: {A: " + large + "}}\nsteps:\n" + strings.Repeat("- run: x\n", 150),
			[]string{"linux"},
			`steps: the scripts and variables of all steps are longer than 1048576 bytes together: move long values into files of the repository`,
		},
		{
			"script repeated", "name: a\ntriggers: [push]\nsteps:\n- &s {run: " + large + "}\n" + strings.Repeat("- *s\n", 150),
			[]string{"linux"},
			`steps: the scripts and variables of all steps are longer than 1048576 bytes together: move long values into files of the repository`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plan, problems := mustParse(t, tt.text).Plan(tt.platforms)
			if got := problems.Error(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if plan.Steps != nil {
				t.Errorf("a plan was returned beside problems")
			}
		})
	}
}
