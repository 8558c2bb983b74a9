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

// Feature is a part of the format that an installation may not obey.
type Feature string

const (
	Artifacts       Feature = "artifacts"
	Caches          Feature = "cache"
	ContinueOnError Feature = "continue_on_error"
	Groups          Feature = "concurrency"
	Image           Feature = "image"
	StepTimeouts    Feature = "timeout"     // of a step
	Toolchain       Feature = "environment" // versions in it

	platformAsked Feature = "platform" // Offer.Platforms says
	runnerAsked   Feature = "runner"   // Offer.Runners says
	computeAsked  Feature = "compute"  // Offer.Computes says
)

// Offer is what an installation does for builds. A file that asks for more is
// refused, so that nothing of it is silently left out.
type Offer struct {
	Platforms []string // of Platforms()
	Runners   []string // of Runners(), which a file may name
	Computes  []string // of Computes(), which a file may name
	Features  []Feature
}

// Plan is what a runner needs to run one build of a file. It is the same for
// the same file.
type Plan struct {
	Name           string     `json:"name"`
	Platform       string     `json:"platform"`
	TimeoutSeconds int        `json:"timeout_seconds"` // of the whole build
	Steps          []PlanStep `json:"steps"`           // in order; the first failure ends the build

	Toolchain []Tool   `json:"toolchain,omitempty"`
	Image     string   `json:"image,omitempty"`     // empty: the runner's choice
	Runner    string   `json:"runner,omitempty"`    // empty: the installation's choice
	Compute   string   `json:"compute,omitempty"`   // empty: the runner's choice
	Cache     *Cache   `json:"cache,omitempty"`     // nil: none
	Artifacts []string `json:"artifacts,omitempty"` // globs of files to keep
}

// PlanStep is one script with all it needs.
type PlanStep struct {
	Name             string `json:"name"` // never empty
	Run              string `json:"run"`
	WorkingDirectory string `json:"working_directory"` // inside the clone; "." is its root
	// Env is environment.variables overlaid with the step's own env, names
	// unique, in the order of the file.
	Env             []Variable `json:"env"`
	TimeoutSeconds  int        `json:"timeout_seconds,omitempty"`   // 0: only that of the build
	ContinueOnError bool       `json:"continue_on_error,omitempty"` // its failure fails nothing else
}

// Plan makes the plan for an installation that runs the given platforms, and offers
// nothing else.
func (f *File) Plan(platforms []string) (Plan, Problems) {
	return f.PlanFor(Offer{Platforms: platforms})
}

// PlanFor makes the plan for an installation, or says all that the file asks for and
// the installation does not offer.
func (f *File) PlanFor(offer Offer) (Plan, Problems) {
	if problems := f.Unoffered(offer); len(problems) > 0 {
		return Plan{}, problems
	}
	plan := Plan{
		Name: f.Name, Platform: f.Platform, TimeoutSeconds: int(f.Timeout.Seconds()), Steps: make([]PlanStep, 0, len(f.Steps)),
		Toolchain: f.Toolchain, Image: f.Image, Runner: f.Runner, Compute: f.Compute, Cache: f.Cache, Artifacts: f.Artifacts,
	}
	size := 0
	for i, s := range f.Steps {
		step := PlanStep{
			Name: s.title(i), Run: s.Run, WorkingDirectory: s.WorkingDirectory, Env: overlay(f.Variables, s.Env),
			TimeoutSeconds: int(s.Timeout.Seconds()), ContinueOnError: s.ContinueOnError,
		}
		if step.WorkingDirectory == "" {
			step.WorkingDirectory = "."
		}
		size += len(step.Run)
		for _, v := range step.Env {
			size += len(v.Name) + len(v.Value)
		}
		if size > maxPlanBytes {
			found := fmt.Sprintf("longer than %d bytes together", maxPlanBytes)
			return Plan{}, Problems{mistake{
				found: "scripts and variables that are " + found, expected: fmt.Sprintf("at most %d bytes", maxPlanBytes), unsayable: true,
				message: "the scripts and variables of all steps are " + found + ": move long values into files of the repository",
			}.at(0, 0, "steps")}
		}
		plan.Steps = append(plan.Steps, step)
	}
	return plan, nil
}

// Unoffered lists what the file asks for and an installation does not offer.
func (f *File) Unoffered(offer Offer) Problems {
	var problems Problems
	refuse := func(a ask, m mistake) { problems = append(problems, m.at(a.line, a.column, a.path)) }
	runs := strings.Join(offer.Platforms, ", ")
	if runs == "" {
		runs = "nothing"
	}
	if !slices.Contains(offer.Platforms, f.Platform) {
		a := ask{path: "platform"} // nobody asked: it is the default
		if i := slices.IndexFunc(f.asks, func(a ask) bool { return a.feature == platformAsked }); i >= 0 {
			a = f.asks[i]
		}
		refuse(a, mistake{
			found: "platform " + f.Platform, expected: runs,
			message: fmt.Sprintf("platform %s is not supported by this runner (it runs %s)", f.Platform, runs),
		})
	}
	for _, a := range f.asks {
		switch {
		case a.feature == platformAsked || slices.Contains(offer.Features, a.feature):
		case a.feature == computeAsked:
			if !slices.Contains(offer.Computes, f.Compute) {
				has := among(offer.Computes, "one size of machine")
				refuse(a, mistake{
					found: "compute " + f.Compute, expected: has,
					message: fmt.Sprintf("compute %s is not there (this installation has %s)", f.Compute, has),
				})
			}
		case a.feature != runnerAsked:
			last := a.path[strings.LastIndexByte(a.path, '.')+1:]
			refuse(a, mistake{
				found: "the key " + shown(last), expected: "no such key",
				message: shown(last) + " is part of the format but not supported by this version: remove it",
			})
		case !slices.Contains(offer.Runners, f.Runner):
			has := among(offer.Runners, "one")
			refuse(a, mistake{
				found: "runner " + f.Runner, expected: has,
				message: fmt.Sprintf("runner %s is not there (this installation has %s)", f.Runner, has),
			})
		}
	}
	problems.sort()
	return problems
}

// among names what a file may choose from; where that is nothing, there is only that one.
func among(words []string, one string) string {
	if len(words) == 0 {
		return "only " + one + ", which needs no name: remove the key"
	}
	return strings.Join(words, ", ")
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
