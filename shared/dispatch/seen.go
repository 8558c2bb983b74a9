package dispatch

import (
	"context"
	"fmt"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/pipeline"
)

// seen is what has been read for a delivery: changes of one push often share a
// commit, and each call counts against the connection's budget. It is dropped with the
// delivery, so that the next one looks anew.
type seen struct {
	files map[string]reading          // by commit, or version of what the app holds
	open  map[string][]ci.PullRequest // by branch
}

// maxSeen bounds each map: parsed files are large.
const maxSeen = 50

func newSeen() *seen {
	return &seen{files: map[string]reading{}, open: map[string][]ci.PullRequest{}}
}

// reading is what was found where a pipeline file should be: the file, its
// problems, or nothing.
type reading struct {
	file     *planned
	problems string // one a line, with their places
	missing  bool
}

// planned is a pipeline file with its plan.
type planned struct {
	*pipeline.File
	path string
	plan pipeline.Plan
}

// read looks for the pipeline file that the app holds, or else at the candidate's commit.
func (d *Dispatch) read(ctx context.Context, c candidate) (found reading, err error) {
	p, held := c.holds()
	name := c.file()
	if held {
		name = fmt.Sprint("version ", p.Version)
	}
	if known, ok := c.seen.files[name]; ok {
		return known, nil
	}
	if held {
		found, err = d.held(ctx, c.app.ID, p)
	} else {
		found, err = d.lookUp(ctx, c)
	}
	if err != nil {
		return reading{}, err
	}
	remember(c.seen.files, name, found)
	return found, nil
}

func (d *Dispatch) lookUp(ctx context.Context, c candidate) (reading, error) {
	paths, err := pipeline.Paths(c.app.PipelinePath)
	if err != nil {
		return reading{}, fmt.Errorf("dispatch: the app's pipeline path: %w", err)
	}
	for _, path := range paths {
		text, err := c.client.Source(ctx, c.tie.UUID, c.file(), path, maxFile)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if fault.Is(err, fault.TooLarge) || fault.Is(err, fault.Invalid) {
			reason, _ := fault.Public(err)
			return reading{problems: path + ": " + reason}, nil
		}
		if err != nil {
			return reading{}, fmt.Errorf("dispatch: reading %s: %w", path, err)
		}
		return d.parsed(path, text), nil
	}
	// Without its commit, a missing file says nothing.
	if _, err := d.commit(ctx, c, c.tie.UUID, c.file()); err != nil {
		return reading{}, err
	}
	return reading{missing: true}, nil
}

// parsed makes of a text what this installation builds of it.
func (d *Dispatch) parsed(path string, text []byte) reading {
	file, problems := pipeline.Parse(text)
	var plan pipeline.Plan
	if len(problems) == 0 {
		plan, problems = file.PlanFor(d.Offer)
	}
	if len(problems) > 0 {
		return reading{problems: problems.InFile(path)}
	}
	return reading{file: &planned{file, path, plan}}
}

// openPullRequests answers those of the candidate's branch.
func (c candidate) openPullRequests(ctx context.Context) ([]ci.PullRequest, error) {
	if known, ok := c.seen.open[c.branch]; ok {
		return known, nil
	}
	open, err := c.client.OpenPullRequests(ctx, c.tie.UUID, c.branch)
	if err != nil {
		return nil, fmt.Errorf("dispatch: looking for pull requests of %s: %w", c.branch, err)
	}
	remember(c.seen.open, c.branch, open)
	return open, nil
}

func remember[V any](known map[string]V, key string, v V) {
	if len(known) >= maxSeen {
		clear(known)
	}
	known[key] = v
}
