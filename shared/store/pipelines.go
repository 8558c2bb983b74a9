package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// MaxPipelines is how many pipeline files an app may hold.
const MaxPipelines = 20

// Pipeline is a version of a pipeline file that an app holds, without its text. Versions count through all files of
// the app: each change, a deletion as well, is the next one.
type Pipeline struct {
	ID            string    `json:"id"`       // of the file, whatever its version
	Branches      string    `json:"branches"` // the pattern for those it is for
	Version       int       `json:"version"`
	Deleted       bool      `json:"deleted,omitempty"` // with this version the file ended
	ChangedBy     string    `json:"changed_by"`
	ChangedByName string    `json:"changed_by_name,omitempty"` // nickname then; versions stored before there were names have none
	ChangedAt     time.Time `json:"changed_at"`
}

// pipelines is what an app holds now. It is one item, so that a change is one race.
type pipelines struct {
	Last  int        `json:"last"` // version
	Files []Pipeline `json:"files"`
}

func pipelinesKey(app string) table.Key { return key("APP#"+app, "PIPELINES") }
func pipelineKey(app string, version int) table.Key {
	return key("APP#"+app, fmt.Sprintf("PIPELINE#%010d", version))
}

func pipelineTextKey(app string, version int) table.Key {
	return key("APP#"+app, fmt.Sprintf("PIPELINETEXT#%010d", version))
}

// Pipelines answers the pipeline files that an app holds, by their patterns.
func (s *Store) Pipelines(ctx context.Context, app string) ([]Pipeline, error) {
	held, _, err := find[pipelines](ctx, s, pipelinesKey(app), "list of pipeline files")
	return held.Files, err
}

// PipelineVersions lists all versions of the pipeline files of an app, newest first.
func (s *Store) PipelineVersions(ctx context.Context, app, cursor string) (Page[Pipeline], error) {
	from, before := table.Prefix("PIPELINE#")
	return list[Pipeline](ctx, s, table.Query{Partition: "APP#" + app, From: from, Before: before, Reverse: true, Cursor: cursor, Limit: 50}, "versions of pipeline files")
}

// PipelineVersion answers a version and its text, which a deletion has not.
func (s *Store) PipelineVersion(ctx context.Context, app string, version int) (Pipeline, string, error) {
	p, _, err := get[Pipeline](ctx, s, pipelineKey(app, version), "version")
	if err != nil {
		return Pipeline{}, "", err
	}
	text, _, err := find[string](ctx, s, pipelineTextKey(app, version), "text of a pipeline file")
	return p, text, err
}

// ChangePipeline stores the next version of a pipeline file, or its end where p is Deleted, and answers it with its version. Expected is
// the version that is to be replaced, 0: none; another one there is fault.Conflict. The same change again, by the same
// person at the same time, is answered as the first.
func (s *Store) ChangePipeline(ctx context.Context, app string, p Pipeline, expected int, text string) (Pipeline, error) {
	var out Pipeline
	err := s.again(ctx, func() error {
		held, stored, err := find[pipelines](ctx, s, pipelinesKey(app), "list of pipeline files")
		if err != nil {
			return err
		}
		at := slices.IndexFunc(held.Files, func(f Pipeline) bool { return f.ID == p.ID })
		now := 0
		if at >= 0 {
			now = held.Files[at].Version
		}
		out = p
		if now != expected {
			if last, _, err := find[Pipeline](ctx, s, pipelineKey(app, held.Last), "version"); err != nil {
				return err
			} else if out.Version = last.Version; last == out {
				return nil // by an earlier run of this very change
			}
			return conflict(p, now)
		}
		out.Version = held.Last + 1
		switch {
		case p.Deleted && at < 0:
			return fault.New(fault.NotFound, "no such pipeline file")
		case p.Deleted:
			held.Files = slices.Delete(held.Files, at, at+1)
		case at >= 0:
			held.Files[at] = out
		case len(held.Files) >= MaxPipelines:
			return fault.New(fault.Conflict, "the app holds %d pipeline files, which is the most: delete some", len(held.Files))
		default:
			held.Files = append(held.Files, out)
		}
		held.Last = out.Version
		var c change
		c.put(pipelinesKey(app), held, unlessVersion(stored))
		c.put(pipelineKey(app, out.Version), out, table.Absent())
		if !p.Deleted {
			c.put(pipelineTextKey(app, out.Version), text, table.Absent())
		}
		return s.commit(ctx, &c)
	})
	return out, err
}

func conflict(p Pipeline, now int) error {
	if now == 0 {
		return fault.New(fault.Conflict, "there is no pipeline file for %s (any more): look at it again", p.Branches)
	}
	return fault.New(fault.Conflict, "the pipeline file for %s is at version %d by now: look at it again", p.Branches, now)
}
