package main

import (
	"context"
	_ "embed" // pipeline.yml
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"gopkg.in/yaml.v3"

	"runnerhub/shared/pipeline"
)

// longPipeline is a pipeline file of 200 lines, as a large team might have it.
//
//go:embed pipeline.yml
var longPipeline string

// benchPipeline measures reading a pipeline file and deciding about an event, beside
// yaml.v3 alone, and deciding about many branches, beside doublestar alone.
func benchPipeline(_ context.Context, rounds int) ([]figure, error) {
	text := []byte(longPipeline)
	whole := func() error {
		file, problems := pipeline.Parse(text)
		if problems != nil {
			return problems
		}
		if v := file.Match(pipeline.Event{Kind: pipeline.Push, Branch: "feature/x", Changed: []string{"src/a.go"}}); v.Matched || v.Reason == "" {
			return fmt.Errorf("the verdict was %+v", v)
		}
		return nil
	}
	nodes := func() error {
		var n yaml.Node
		return yaml.Unmarshal(text, &n)
	}
	globs, branches := manyGlobs()
	var b strings.Builder
	b.WriteString("name: Many\nsteps: [{run: make}]\ntriggers:\n- event: push\n  branches:\n")
	for _, glob := range globs {
		fmt.Fprintf(&b, "  - %q\n", glob)
	}
	file, problems := pipeline.Parse([]byte(b.String()))
	if problems != nil {
		return nil, problems
	}
	matched := [2]int{}
	match := func() error {
		matched[0] = 0
		for _, branch := range branches {
			if file.Match(pipeline.Event{Kind: pipeline.Push, Branch: branch}).Matched {
				matched[0]++
			}
		}
		return nil
	}
	alone := func() error {
		matched[1] = 0
		for _, branch := range branches {
			for _, glob := range globs {
				if doublestar.MatchUnvalidated(glob, branch) {
					matched[1]++
					break
				}
			}
		}
		return nil
	}
	work := []struct {
		times int
		do    func() error
	}{{20, nodes}, {20, whole}, {1, alone}, {1, match}}
	spent := make([]sample, len(work))
	for range rounds {
		for i, w := range work {
			took, err := processorTime(w.times, w.do)
			if err != nil {
				return nil, fmt.Errorf("measuring the pipeline file: %w", err)
			}
			spent[i] = append(spent[i], took)
		}
	}
	if matched[0] != matched[1] {
		return nil, fmt.Errorf("%d branches match, with doublestar alone %d", matched[0], matched[1])
	}
	least, err := allocations(100, nodes)
	if err != nil {
		return nil, err
	}
	made, err := allocations(100, whole)
	if err != nil {
		return nil, err
	}
	if least == 0 {
		return nil, errors.New("yaml.v3 allocates nothing: that cannot be")
	}
	reading, deciding, allocating := ratio(spent[1].median(), spent[0].median()), ratio(spent[3].median(), spent[2].median()), made/least
	perBranch := func(s sample) string { return short(s.median() / time.Duration(len(branches))) }
	return []figure{
		{
			what:     fmt.Sprintf("pipeline file of %d lines, CPU", strings.Count(longPipeline, "\n")),
			measured: short(spent[1].median()), floor: short(spent[0].median()), ratio: fmt.Sprintf("%.2f", reading),
			reach: "at most 2 × yaml.v3's nodes", reached: reading <= 2,
			notes: []string{
				"parsed, validated, matched: " + spent[1].spread(),
				"floor, yaml.v3's nodes:     " + spent[0].spread(),
			},
		},
		{
			what: "the same, allocations", measured: fmt.Sprintf("%.0f", made), floor: fmt.Sprintf("%.0f", least), ratio: fmt.Sprintf("%.2f", allocating),
			reach: "at most 1.5 × yaml.v3's nodes", reached: allocating <= 1.5,
		},
		{
			what:     fmt.Sprintf("%d branches against %d patterns, CPU", len(branches), len(globs)),
			measured: perBranch(spent[3]) + " a branch", floor: perBranch(spent[2]), ratio: fmt.Sprintf("%.2f", deciding),
			reach: "at most 2 × doublestar", reached: deciding <= 2,
			notes: []string{
				fmt.Sprintf("all of them, with a reason for each (%d match): %s", matched[0], spent[3].spread()),
				"floor, doublestar alone:                          " + spent[2].spread(),
			},
		},
	}, nil
}

// manyGlobs are 50 patterns of many kinds, and 10,000 branches few of which match.
func manyGlobs() (globs, branches []string) {
	for i := range 50 {
		globs = append(globs, []string{
			fmt.Sprintf("main-%d", i), fmt.Sprintf("release/%d.*", i), fmt.Sprintf("feature/**/%d", i),
			fmt.Sprintf("{hotfix,bugfix}/%d-*", i), fmt.Sprintf("user-[a-f]/%d?", i),
		}[i%5])
	}
	for i := range 10_000 {
		branches = append(branches, fmt.Sprintf([]string{"feature/team/%d", "release/%d.1", "topic-%d", "hotfix/%d-x", "main-%d"}[i%5], i))
	}
	return globs, branches
}

// allocations answers how many things one run of do puts on the heap.
func allocations(n int, do func() error) (float64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		if err := do(); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n), nil
}
