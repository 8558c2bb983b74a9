package dispatch

import (
	"context"
	"fmt"

	"runnerhub/shared/pipeline"
	"runnerhub/shared/store"
)

// holds answers the pipeline file that the app itself holds for what the candidate builds; ok is false where the
// repository's counts. A pull request takes that of its source, and one from a fork that of its target: who
// may not write to the repository does not choose what runs. A tag has no branch, and takes one for all branches.
func (c candidate) holds() (p store.Pipeline, ok bool) {
	branch := c.branch
	if c.pr.ID != 0 && c.pr.Fork() {
		branch = c.pr.TargetBranch
	}
	var globs []string
	for _, p := range c.held {
		if branch != "" || p.Branches == pipeline.EveryBranch {
			globs = append(globs, p.Branches)
		}
	}
	glob := pipeline.MostSpecific(globs, branch)
	for _, p := range c.held {
		if glob != "" && p.Branches == glob {
			return p, true
		}
	}
	return store.Pipeline{}, false
}

// held reads a pipeline file that the app holds.
func (d *Dispatch) held(ctx context.Context, app string, p store.Pipeline) (reading, error) {
	_, text, err := d.Store.PipelineVersion(ctx, app, p.Version)
	if err != nil {
		return reading{}, fmt.Errorf("dispatch: reading version %d of the app's pipeline files: %w", p.Version, err)
	}
	return d.parsed(fmt.Sprintf("version %d of the app's pipeline files, for %s", p.Version, p.Branches), []byte(text)), nil
}
