package catalog

import (
	"context"
	"fmt"

	"runnerhub/shared/access"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/pipeline"
)

// Settings are those of an app that a change names; nil leaves one as it is.
type Settings struct {
	Name         *string
	PipelinePath *string // empty: the default paths
	AllowForks   *bool
	// CancelSuperseded is that of ci.App.
	CancelSuperseded *bool
}

// ChangeApp changes the settings of an app and answers it.
func (c *Catalog) ChangeApp(ctx context.Context, user, id string, s Settings) (ci.App, error) {
	if _, err := access.App(ctx, c.Store, user, id, ci.Configure); err != nil {
		return ci.App{}, fmt.Errorf("catalog: changing an app: %w", err)
	}
	var name string
	if s.Name != nil {
		var err error
		if name, err = Name(*s.Name); err != nil {
			return ci.App{}, err
		}
	}
	if s.PipelinePath != nil {
		if _, err := pipeline.Paths(*s.PipelinePath); err != nil {
			return ci.App{}, fault.Field("pipeline_path", "cannot be used: %s", err)
		}
	}
	app, err := c.Store.ChangeApp(ctx, id, func(a *ci.App) {
		if s.Name != nil {
			a.Name = name
		}
		if s.PipelinePath != nil {
			a.PipelinePath = *s.PipelinePath
		}
		if s.AllowForks != nil {
			a.AllowForks = *s.AllowForks
		}
		if s.CancelSuperseded != nil {
			a.CancelSuperseded = *s.CancelSuperseded
		}
	})
	if err != nil {
		return ci.App{}, fmt.Errorf("catalog: changing an app: %w", err)
	}
	return app, nil
}
