// Package authoring is for who writes a pipeline file: what is wrong with a text, what it would do, and what an event
// would lead to, before anything is pushed; and the files that an app holds in the repository's place. Every method asks package
// access first, on behalf of a user. It reads no repository and makes no build.
package authoring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"runnerhub/shared/access"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/store"
)

// What an event may hold, so that looking at it stays cheap. Bitbucket's names of refs end at 255 bytes.
const (
	maxRef     = 255
	maxPath    = 4096
	maxMessage = 64 << 10
	maxChanged = 10_000
)

// Deps is what an Authoring needs.
type Deps struct {
	Store *store.Store
	Offer pipeline.Offer // of this installation
	// Forks says that the installation can build pull requests of forks, whose app decides then.
	Forks bool
	Now   func() time.Time
}

// Authoring checks and stores pipeline files.
type Authoring struct{ Deps }

// New makes an Authoring.
func New(d Deps) (*Authoring, error) {
	if d.Store == nil || len(d.Offer.Platforms) == 0 || d.Now == nil {
		return nil, errors.New("authoring: Store, Offer and Now are needed")
	}
	return &Authoring{d}, nil
}

// Check reports on a text for an app of this installation and, unless it is nil, for an event. That there are
// mistakes in the text is no error.
func (a *Authoring) Check(ctx context.Context, user, app, text string, e *pipeline.Event) (pipeline.Report, error) {
	about, err := access.App(ctx, a.Store, user, app, ci.See)
	if err != nil {
		return pipeline.Report{}, fmt.Errorf("authoring: checking: %w", err)
	}
	if e != nil {
		if err := sound(*e); err != nil {
			return pipeline.Report{}, err
		}
		asked := *e
		asked.Fork.Allowed = a.Forks && about.AllowForks // whatever the caller says
		e = &asked
	}
	return pipeline.Check([]byte(text), a.Offer, e), nil
}

// sound refuses an event that says nothing, or too much.
func sound(e pipeline.Event) error {
	if e.Kind == "" {
		return fault.Field("event.kind", "is empty; it is one of %v", kinds())
	}
	if !slices.Contains(kinds(), e.Kind) {
		return fault.Field("event.kind", "is %.50q; it is one of %v", e.Kind, kinds())
	}
	if e.Action != "" && !slices.Contains(actions(), e.Action) {
		return fault.Field("event.action", "is %.50q; it is one of %v, or left out", e.Action, actions())
	}
	if e.Branch != "" && e.Tag != "" {
		return fault.Field("event.tag", "is given beside event.branch; a push is of one of them")
	}
	for field, name := range map[string]string{"branch": e.Branch, "target": e.Target, "tag": e.Tag} {
		if len(name) > maxRef {
			return fault.Field("event."+field, "has %d bytes; at most %d are allowed", len(name), maxRef)
		}
	}
	if len(e.Message) > maxMessage {
		return fault.Field("event.message", "has %d bytes; at most %d are allowed", len(e.Message), maxMessage)
	}
	if len(e.Changed) > maxChanged {
		return fault.Field("event.changed", "has %d files; at most %d are allowed: set changed_cut and leave some out", len(e.Changed), maxChanged)
	}
	for _, path := range e.Changed {
		if len(path) > maxPath {
			return fault.Field("event.changed", "has a path of %d bytes; at most %d are allowed", len(path), maxPath)
		}
	}
	return nil
}

func kinds() []pipeline.Kind {
	return []pipeline.Kind{pipeline.Push, pipeline.PullRequest, pipeline.Manual, pipeline.Schedule}
}

func actions() []pipeline.Action {
	return []pipeline.Action{
		pipeline.Created, pipeline.Updated, pipeline.Forced, pipeline.Deleted, pipeline.Opened, pipeline.Retargeted,
		pipeline.Reopened, pipeline.Edited, pipeline.Closed,
	}
}
