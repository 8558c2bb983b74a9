package sandbox

import (
	"context"
	"embed"
	"io/fs"
	"strings"
	"time"
)

//go:embed all:seed
var seedFiles embed.FS

// seed makes the accounts, the workspaces and the repositories of a new sandbox. Each
// is looked for first, so that a start that was cut short goes on here.
func (s *Sandbox) seed(ctx context.Context) error {
	for _, u := range [][2]string{
		{"alice", "Alice Admin"}, {"bob", "Bob Builder"}, {"carol", "Carol Reader"}, {"mallory", "Mallory Outsider"},
	} {
		var there bool
		s.store.read(func(d *data) { there = d.userNamed(u[0]) != nil })
		if there {
			continue
		}
		if err := s.AddUser(u[0], u[1]); err != nil {
			return err
		}
	}
	for _, w := range []struct {
		slug, name, owner string
		members           map[string]string
		repositories      []string
	}{
		{"acme", "Acme", "alice", map[string]string{"alice": "admin", "bob": "write", "carol": "read"}, []string{"shop", "docs"}},
		{"carol", "Carol Reader", "carol", map[string]string{"carol": "admin"}, nil},
		{"elsewhere", "Elsewhere", "mallory", map[string]string{"mallory": "admin"}, []string{"attic"}},
	} {
		var there *workspace
		s.store.read(func(d *data) { there = d.workspaceAt(w.slug) })
		if there == nil {
			if err := s.AddWorkspace(w.slug, w.name, w.members); err != nil {
				return err
			}
		}
		for _, slug := range w.repositories {
			if err := s.seedRepository(ctx, w.slug, slug, w.owner); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Sandbox) seedRepository(ctx context.Context, workspaceSlug, slug, owner string) error {
	var repo *repository
	var u *user
	var w *workspace
	started := false
	s.store.read(func(d *data) {
		repo, u, w = d.repositoryAt(workspaceSlug, slug), d.userNamed(owner), d.workspaceAt(workspaceSlug)
		started = repo != nil && len(d.refs[repo.ID]) > 0
	})
	// A repository without commits right at the start was seeded and never filled, or
	// someone emptied it and shall have it that way.
	if started || repo != nil && s.now().Sub(repo.CreatedAt) > time.Minute {
		return nil
	}
	if repo == nil {
		description := map[string]string{"shop": "Prices orders; builds with sh alone", "docs": "Has no pipeline file"}[slug]
		repo = &repository{Workspace: w.ID, Slug: slug, Name: slug, Description: description, MainBranch: "main", Private: true, Creator: u.ID}
		if err := s.addRepository(ctx, repo); err != nil {
			return err
		}
	}
	files := map[string][]byte{}
	root := "seed/" + slug
	err := fs.WalkDir(seedFiles, root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := seedFiles.ReadFile(path)
		files[strings.TrimPrefix(path, root+"/")] = content
		return err
	})
	if err != nil {
		return err
	}
	_, err = s.AddCommit(ctx, NewCommit{Repository: workspaceSlug + "/" + slug, Branch: "main", User: owner, Message: "First version", Files: files})
	if err != nil || slug != "shop" {
		return err
	}
	_, err = s.AddCommit(ctx, NewCommit{
		Repository: workspaceSlug + "/" + slug, Branch: "develop", User: "bob", Message: "Plan the next release",
		Files: map[string][]byte{"PLAN.md": []byte("# Next release\n\n- discounts\n- gift cards\n")},
	})
	return err
}
