package authoring

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"runnerhub/shared/access"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/store"
)

// File is a version of a stored pipeline file with its text.
type File struct {
	store.Pipeline
	Text string `json:"text"`
}

// Files answers the pipeline files that an app holds, by their patterns, without their texts.
func (a *Authoring) Files(ctx context.Context, user, app string) (store.Page[store.Pipeline], error) {
	if _, err := access.App(ctx, a.Store, user, app, ci.See); err != nil {
		return store.Page[store.Pipeline]{}, fmt.Errorf("authoring: pipeline files: %w", err)
	}
	files, err := a.Store.Pipelines(ctx, app)
	if err != nil {
		return store.Page[store.Pipeline]{}, fmt.Errorf("authoring: pipeline files: %w", err)
	}
	return store.Page[store.Pipeline]{Items: files}, nil
}

// Versions lists all versions of an app's pipeline files, newest first, without their texts.
func (a *Authoring) Versions(ctx context.Context, user, app, cursor string) (store.Page[store.Pipeline], error) {
	if _, err := access.App(ctx, a.Store, user, app, ci.See); err != nil {
		return store.Page[store.Pipeline]{}, fmt.Errorf("authoring: versions: %w", err)
	}
	page, err := a.Store.PipelineVersions(ctx, app, cursor)
	if err != nil {
		return page, fmt.Errorf("authoring: versions: %w", err)
	}
	return page, nil
}

// Version answers one version with its text.
func (a *Authoring) Version(ctx context.Context, user, app string, version int) (File, error) {
	if _, err := access.App(ctx, a.Store, user, app, ci.See); err != nil {
		return File{}, fmt.Errorf("authoring: a version: %w", err)
	}
	p, text, err := a.Store.PipelineVersion(ctx, app, version)
	if err != nil {
		return File{}, fmt.Errorf("authoring: a version: %w", err)
	}
	return File{p, text}, nil
}

// Put stores a text for the branches that a pattern matches, as the next version after expected; 0: there is none
// yet. A text with mistakes is refused: pipeline.Problems is in the error. Whether this installation offers what it asks for is seen when it builds.
func (a *Authoring) Put(ctx context.Context, user, app, branches, text string, expected int) (File, error) {
	if _, err := access.App(ctx, a.Store, user, app, ci.Configure); err != nil {
		return File{}, fmt.Errorf("authoring: storing a pipeline file: %w", err)
	}
	if why := pipeline.RefuseBranches(branches); why != "" {
		return File{}, fault.Field("branches", "%s", why)
	}
	if _, problems := pipeline.Parse([]byte(text)); len(problems) > 0 {
		return File{}, &fault.Error{Kind: fault.Invalid, Field: "text", Message: "text: " + problems[0].String(), Cause: problems}
	}
	name, err := a.nameOf(ctx, user)
	if err != nil {
		return File{}, fmt.Errorf("authoring: storing a pipeline file: %w", err)
	}
	sum := sha256.Sum256([]byte(branches))
	p, err := a.Store.ChangePipeline(ctx, app, store.Pipeline{
		ID: hex.EncodeToString(sum[:12]), Branches: branches, ChangedBy: user, ChangedByName: name, ChangedAt: a.Now().UTC(),
	}, expected, text)
	if err != nil {
		return File{}, fmt.Errorf("authoring: storing a pipeline file: %w", err)
	}
	return File{p, text}, nil
}

// Delete ends a pipeline file whose version is the expected one. Its versions stay.
func (a *Authoring) Delete(ctx context.Context, user, app, id string, expected int) error {
	if _, err := access.App(ctx, a.Store, user, app, ci.Configure); err != nil {
		return fmt.Errorf("authoring: deleting a pipeline file: %w", err)
	}
	files, err := a.Store.Pipelines(ctx, app)
	if err != nil {
		return fmt.Errorf("authoring: deleting a pipeline file: %w", err)
	}
	at := slices.IndexFunc(files, func(f store.Pipeline) bool { return f.ID == id })
	if at < 0 {
		return fault.New(fault.NotFound, "no such pipeline file")
	}
	name, err := a.nameOf(ctx, user)
	if err != nil {
		return fmt.Errorf("authoring: deleting a pipeline file: %w", err)
	}
	_, err = a.Store.ChangePipeline(ctx, app, store.Pipeline{
		ID: id, Branches: files[at].Branches, Deleted: true, ChangedBy: user, ChangedByName: name, ChangedAt: a.Now().UTC(),
	}, expected, "")
	if err != nil {
		return fmt.Errorf("authoring: deleting a pipeline file: %w", err)
	}
	return nil
}

func (a *Authoring) nameOf(ctx context.Context, user string) (string, error) {
	who, err := a.Store.User(ctx, user)
	return who.Nickname, err
}
