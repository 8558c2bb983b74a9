package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// maxPlanBytes bounds the texts of a plan. The file's own size does not: each
// step repeats the variables, and aliases repeat steps.
const maxPlanBytes = 1 << 20

// Plan is what a runner needs to run one build of a file. It is the same for
// the same file.
type Plan struct {
	Name           string     `json:"name"`
	Platform       string     `json:"platform"`
	TimeoutSeconds int        `json:"timeout_seconds"` // of the whole build
	Steps          []PlanStep `json:"steps"`           // in order; the first failure ends the build
}

// PlanStep is one script with all it needs.
type PlanStep struct {
	Name             string `json:"name"` // never empty
	Run              string `json:"run"`
	WorkingDirectory string `json:"working_directory"` // inside the clone; "." is its root
	// Env is environment.variables overlaid with the step's own env, names
	// unique, in the order of the file.
	Env []Variable `json:"env"`
}

// Plan makes the plan for a runner that runs the given platforms.
func (f *File) Plan(platforms []string) (Plan, Problems) {
	if !slices.Contains(platforms, f.Platform) {
		runs := strings.Join(platforms, ", ")
		if runs == "" {
			runs = "nothing"
		}
		return Plan{}, Problems{{
			Line: f.platformLine, Column: f.platformColumn, Path: "platform",
			Message: fmt.Sprintf("platform %s is not supported by this runner (it runs %s)", f.Platform, runs),
		}}
	}
	plan := Plan{Name: f.Name, Platform: f.Platform, TimeoutSeconds: int(f.Timeout.Seconds()), Steps: make([]PlanStep, 0, len(f.Steps))}
	size := 0
	for i, s := range f.Steps {
		step := PlanStep{Name: s.title(i), Run: s.Run, WorkingDirectory: s.WorkingDirectory, Env: overlay(f.Variables, s.Env)}
		if step.WorkingDirectory == "" {
			step.WorkingDirectory = "."
		}
		size += len(step.Run)
		for _, v := range step.Env {
			size += len(v.Name) + len(v.Value)
		}
		if size > maxPlanBytes {
			return Plan{}, Problems{{Path: "steps", Message: fmt.Sprintf(
				"the scripts and variables of all steps are longer than %d bytes together: move long values into files of the repository", maxPlanBytes)}}
		}
		plan.Steps = append(plan.Steps, step)
	}
	return plan, nil
}

// title is the step's name, or else the first line of its script.
func (s Step) title(i int) string {
	if s.Name != "" {
		return s.Name
	}
	first, _, _ := strings.Cut(strings.TrimSpace(s.Run), "\n")
	first = strings.TrimSpace(first)
	if first == "" || strings.ContainsFunc(first, unicode.IsControl) {
		return fmt.Sprintf("step %d", i+1)
	}
	return cut(first, 60)
}

// overlay is base with the values of over put in place or added.
func overlay(base, over []Variable) []Variable {
	merged := make([]Variable, len(base), len(base)+len(over))
	copy(merged, base)
	for _, v := range over {
		same := func(b Variable) bool { return b.Name == v.Name }
		if i := slices.IndexFunc(base, same); i >= 0 {
			merged[i] = v
		} else {
			merged = append(merged, v)
		}
	}
	return merged
}
