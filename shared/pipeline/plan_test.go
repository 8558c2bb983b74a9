package pipeline

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
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
		plan, problems := mustParse(t, string(text)).Plan([]string{"linux"})
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
