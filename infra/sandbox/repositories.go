package sandbox

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A repository's record. Its git is in a folder named after its ID.
type repository struct {
	ID, Workspace, Slug, Name string
	Description               string
	MainBranch                string
	Private                   bool
	Roles                     map[string]role // granted explicitly, by user
	Creator                   string
	Pusher                    string // who pushed last; set before git takes the push
	Parent                    string // of a fork
	NeededBuilds              int    // merge check "builds must pass": how many; 0 is off
	Pulls                     int    // the number of the latest pull request
	CreatedAt, UpdatedAt      time.Time
}

func (r *repository) kind() string { return "repository" }
func (r *repository) key() string  { return r.ID }

// A ref is a branch or tag as it was last announced.
type ref struct {
	Repository, Name string
	Hash             string // of a commit, or of an annotated tag
	Commit           string // the commit it leads to
}

func (r *ref) kind() string { return "ref" }
func (r *ref) key() string  { return r.Repository + " " + r.Name }

const (
	branchPrefix = "refs/heads/"
	tagPrefix    = "refs/tags/"
)

// Short is the name without refs/heads/ or refs/tags/.
func (r *ref) Short() string {
	name := strings.TrimPrefix(r.Name, branchPrefix)
	return strings.TrimPrefix(name, tagPrefix)
}

func (d *data) branch(repositoryID, name string) *ref {
	return d.refs[repositoryID][branchPrefix+name]
}

// names is what is needed of a repository to write its addresses.
type names struct {
	full                string
	api, web, avatarURL string
	workspace           *workspace
}

func (s *Sandbox) namesOf(r *repository) names {
	var n names
	s.store.read(func(d *data) {
		n.workspace = d.workspaces[r.Workspace]
		n.full = d.fullName(r)
	})
	n.api = s.publicURL + "/2.0/repositories/" + n.full
	n.web = s.publicURL + "/" + n.full
	n.avatarURL = s.publicURL + "/ravatar/" + escape(r.ID) + "?ts=default"
	return n
}

// repositoryReference is a repository as it stands in other objects.
func (s *Sandbox) repositoryReference(r *repository) obj {
	if r == nil {
		return nil
	}
	n := s.namesOf(r)
	return obj{
		"type": "repository", "uuid": r.ID, "full_name": n.full, "name": r.Name,
		"links": obj{"self": link(n.api), "html": link(n.web), "avatar": link(n.avatarURL)},
	}
}

// hookRepository is a repository as it stands in webhooks: without a slug and without
// a main branch.
func (s *Sandbox) hookRepository(r *repository) obj {
	body := s.repositoryReference(r)
	n := s.namesOf(r)
	var parent *repository
	var owner *user
	s.store.read(func(d *data) { owner, parent = d.users[r.Creator], d.repositories[r.Parent] })
	w := n.workspace
	body["scm"] = "git"
	body["website"] = nil
	body["is_private"] = r.Private
	body["parent"] = s.repositoryReference(parent) // null unless it is a fork
	body["owner"] = s.userObject(owner)
	body["workspace"] = s.workspaceObject(w)
	body["project"] = obj{
		"type": "project", "key": "MAIN", "uuid": w.ProjectID, "name": "Main",
		"links": obj{
			"self":   link(s.publicURL + "/2.0/workspaces/" + w.Slug + "/projects/MAIN"),
			"html":   link(s.publicURL + "/" + w.Slug + "/workspace/projects/MAIN"),
			"avatar": link(s.publicURL + "/" + w.Slug + "/workspace/projects/MAIN/avatar/32"),
		},
	}
	return body
}

// repositoryObject is the whole repository, as caller gets it: the address to clone
// has the caller's name in it.
func (s *Sandbox) repositoryObject(r *repository, caller *user) obj {
	body := s.hookRepository(r)
	n := s.namesOf(r)
	var main any
	s.store.read(func(d *data) {
		if d.branch(r.ID, r.MainBranch) != nil {
			main = obj{"type": "branch", "name": r.MainBranch}
		}
	})
	clone, _ := url.Parse(n.web + ".git") // New checked the public address
	if caller != nil {
		clone.User = url.User(caller.Name)
	}
	body["slug"] = r.Slug
	body["description"] = r.Description
	body["mainbranch"] = main // null while there is no commit
	body["language"] = ""
	body["size"] = 0
	body["fork_policy"] = "allow_forks"
	body["has_issues"] = false
	body["has_wiki"] = false
	body["created_on"] = timestamp(r.CreatedAt)
	body["updated_on"] = timestamp(r.UpdatedAt)
	links := body["links"].(obj)
	for _, name := range []string{"pullrequests", "commits", "forks", "hooks"} {
		links[name] = link(n.api + "/" + name)
	}
	links["branches"] = link(n.api + "/refs/branches")
	links["tags"] = link(n.api + "/refs/tags")
	links["source"] = link(n.api + "/src")
	links["clone"] = []obj{
		{"name": "https", "href": clone.String()},
		{"name": "ssh", "href": "git@" + clone.Hostname() + ":" + n.full + ".git"}, // listed as there, served by nobody
	}
	return body
}

// repositoryField is what q and sort may name.
func (s *Sandbox) repositoryField(r *repository, name string) (any, bool) {
	switch name {
	case "uuid":
		return r.ID, true
	case "name":
		return r.Name, true
	case "slug":
		return r.Slug, true
	case "full_name":
		return s.namesOf(r).full, true
	case "description":
		return r.Description, true
	case "is_private":
		return r.Private, true
	case "created_on":
		return timestamp(r.CreatedAt), true
	case "updated_on":
		return timestamp(r.UpdatedAt), true
	case "mainbranch.name":
		return r.MainBranch, true
	}
	return nil, false
}

// listRepositories lists what the caller may see of a workspace. With role=, only
// what was granted to him explicitly counts: an administrator of the workspace does
// not get role=admin by that.
func (s *Sandbox) listRepositories(c *call) (*reply, error) {
	var least role
	owned := false
	switch name := c.URL.Query().Get("role"); name {
	case "":
	case "member":
		least = read
	case "contributor":
		least = write
	case "admin":
		least = admin
	case "owner":
		owned = true
	default:
		return nil, refuse(http.StatusBadRequest, "role: '%s' is not one of member, contributor, admin, owner", name)
	}
	var w *workspace
	var list []*repository
	s.store.read(func(d *data) {
		if w = d.workspaceAt(c.PathValue("workspace")); w == nil {
			return
		}
		for _, r := range d.repositoriesOf(w.ID) {
			if d.roleOf(c.user, r) >= read && r.Roles[c.user.ID] >= least && (!owned || w.Members[c.user.ID].Administrator) {
				list = append(list, r)
			}
		}
	})
	if _, isMember := w.membership(c.user); !isMember && len(list) == 0 {
		return nil, refuse(http.StatusNotFound, "No workspace with identifier '%s'.", c.PathValue("workspace"))
	}
	return answer(s, c, listing[*repository]{
		items:  list,
		render: func(r *repository) (any, error) { return s.repositoryObject(r, c.user), nil },
		field:  s.repositoryField,
	})
}

// membership works on no workspace and for nobody, too.
func (w *workspace) membership(u *user) (member, bool) {
	if w == nil || u == nil {
		return member{}, false
	}
	m, isMember := w.Members[u.ID]
	return m, isMember
}

func (s *Sandbox) getRepository(c *call) (*reply, error) {
	return ok(s.repositoryObject(c.repo, c.user))
}

// createRepository answers POST to the address of a repository that is not there. A
// member who may write somewhere may create; he becomes its admin, and the other
// members get the role their membership says.
func (s *Sandbox) createRepository(c *call) (*reply, error) {
	if c.user == nil {
		return nil, refuse(http.StatusUnauthorized, "Access denied. This resource needs authentication.")
	}
	var in struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		IsPrivate   *bool  `json:"is_private"`
		MainBranch  struct {
			Name string `json:"name"`
		} `json:"mainbranch"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	var w *workspace
	s.store.read(func(d *data) { w = d.workspaceAt(c.PathValue("workspace")) })
	m, isMember := w.membership(c.user)
	if !isMember {
		return nil, refuse(http.StatusNotFound, "No workspace with identifier '%s'.", c.PathValue("workspace"))
	}
	if m.Role < write {
		return nil, refuse(http.StatusForbidden, "You cannot create repositories in this workspace.")
	}
	slug := c.PathValue("repository")
	if !validName.MatchString(slug) {
		return nil, refuse(http.StatusBadRequest, "Invalid slug: %q", slug)
	}
	r := &repository{
		Workspace: w.ID, Slug: slug, Name: cmp.Or(in.Name, slug), Description: in.Description,
		MainBranch: cmp.Or(in.MainBranch.Name, "main"), Private: in.IsPrivate == nil || *in.IsPrivate, Creator: c.user.ID,
	}
	if err := s.addRepository(c.Context(), r); err != nil {
		return nil, err
	}
	return &reply{status: http.StatusOK, body: s.repositoryObject(r, c.user)}, nil
}

// addRepository completes the record, makes the git repository and stores it.
func (s *Sandbox) addRepository(ctx context.Context, r *repository) error {
	now := s.now()
	r.ID, r.CreatedAt, r.UpdatedAt, r.Pusher = newIdentity(), now, now, r.Creator
	if err := s.git.initRepository(ctx, r.ID, r.MainBranch); err != nil {
		return err
	}
	return s.store.update(func(t *tx) error {
		if t.slugs[r.Workspace+"/"+r.Slug] != nil {
			return refuse(http.StatusBadRequest, "Repository with this Slug and Owner already exists.")
		}
		r.Roles = map[string]role{r.Creator: admin}
		for id, m := range t.workspaces[r.Workspace].Members {
			r.Roles[id] = max(r.Roles[id], m.Role)
		}
		t.put(r)
		return nil
	})
}

// updateRepository renames, describes, hides or shows. A new name is a new slug; the
// UUID stays.
func (s *Sandbox) updateRepository(c *call) (*reply, error) {
	var in struct {
		Name        *string `json:"name"`
		Description *string `json:"description"`
		IsPrivate   *bool   `json:"is_private"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	before := s.namesOf(c.repo)
	changes := obj{}
	var changed repository
	err := s.store.update(func(t *tx) error {
		changed = *t.repositories[c.repo.ID]
		if in.Name != nil && *in.Name != changed.Name {
			slug := strings.ToLower(strings.ReplaceAll(*in.Name, " ", "-"))
			if !validName.MatchString(slug) {
				return badField("name", "'%s' cannot be made into a slug.", *in.Name)
			}
			if other := t.slugs[changed.Workspace+"/"+slug]; other != nil && other.ID != changed.ID {
				return refuse(http.StatusBadRequest, "Repository with this Slug and Owner already exists.")
			}
			changes["name"] = obj{"old": changed.Name, "new": *in.Name}
			full := t.workspaces[changed.Workspace].Slug + "/" + slug
			changes["full_name"] = obj{"old": before.full, "new": full}
			changed.Name, changed.Slug = *in.Name, slug
		}
		if in.Description != nil && *in.Description != changed.Description {
			changes["description"] = obj{"old": changed.Description, "new": *in.Description}
			changed.Description = *in.Description
		}
		if in.IsPrivate != nil {
			changed.Private = *in.IsPrivate
		}
		changed.UpdatedAt = s.now()
		t.put(&changed)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(changes) > 0 {
		event := event{key: "repo:updated", body: obj{"changes": changes}}
		if err := s.announce(&changed, c.user, event); err != nil {
			return nil, err
		}
	}
	return ok(s.repositoryObject(&changed, c.user))
}

// deleteRepository announces the end first: the hooks go with the repository.
func (s *Sandbox) deleteRepository(c *call) (*reply, error) {
	if err := s.announce(c.repo, c.user, event{key: "repo:deleted", body: obj{}}); err != nil {
		return nil, err
	}
	unlock := s.git.lock(c.repo.ID)
	defer unlock()
	err := s.store.update(func(t *tx) error {
		id := c.repo.ID
		for r := range maps.Values(t.refs[id]) {
			t.drop(r)
		}
		for _, p := range t.pulls[id] {
			t.drop(p)
		}
		for _, h := range t.hooks[id] {
			ended := *h
			ended.Deleted = true // its last deliveries still need its address and secret
			t.put(&ended)
		}
		t.drop(t.repositories[id])
		return nil
	})
	if err != nil {
		return nil, err
	}
	return noContent()
}

// forkRepository copies a repository with its branches and tags into a workspace.
func (s *Sandbox) forkRepository(c *call) (*reply, error) {
	var in struct {
		Name      string `json:"name"`
		Private   *bool  `json:"is_private"`
		Workspace struct {
			Slug string `json:"slug"`
		} `json:"workspace"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	var w *workspace
	s.store.read(func(d *data) { w = d.workspaceAt(in.Workspace.Slug) })
	if m, isMember := w.membership(c.user); !isMember || m.Role < write {
		return nil, badField("workspace", "You cannot create repositories there.")
	}
	name := cmp.Or(in.Name, c.repo.Name)
	slug := strings.ToLower(strings.ReplaceAll(name, " ", "-"))
	if !validName.MatchString(slug) {
		return nil, badField("name", "'%s' cannot be made into a slug.", name)
	}
	fork := &repository{
		Workspace: w.ID, Slug: slug, Name: name, MainBranch: c.repo.MainBranch,
		Private: c.repo.Private, Creator: c.user.ID, Parent: c.repo.ID,
	}
	if in.Private != nil {
		fork.Private = *in.Private
	}
	if err := s.addRepository(c.Context(), fork); err != nil {
		return nil, err
	}
	unlock := s.git.lock(fork.ID)
	defer unlock()
	if _, err := s.git.run(c.Context(), fork.ID, "fetch", "--quiet", s.git.path(c.repo.ID), "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"); err != nil {
		return nil, err
	}
	if err := s.announcePush(c.Context(), fork.ID, c.user); err != nil {
		return nil, err
	}
	if err := s.announce(c.repo, c.user, event{key: "repo:fork", body: obj{"fork": s.hookRepository(fork)}}); err != nil {
		return nil, err
	}
	return created(s.repositoryObject(fork, c.user))
}

// refsOf lists branches or tags by name.
func (s *Sandbox) refsOf(repositoryID, prefix string) []*ref {
	var list []*ref
	s.store.read(func(d *data) {
		for _, r := range d.refs[repositoryID] {
			if strings.HasPrefix(r.Name, prefix) {
				list = append(list, r)
			}
		}
	})
	slices.SortFunc(list, func(a, b *ref) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (s *Sandbox) listRefs(c *call, prefix string) (*reply, error) {
	return answer(s, c, listing[*ref]{
		items:  s.refsOf(c.repo.ID, prefix),
		render: func(r *ref) (any, error) { return s.refObject(c.Context(), c.repo, r) },
		field: func(r *ref, name string) (any, bool) {
			switch name {
			case "name":
				return r.Short(), true
			case "target.hash":
				return r.Commit, true
			}
			return nil, false
		},
	})
}

func (s *Sandbox) getRef(c *call, prefix, kind string) (*reply, error) {
	var r *ref
	s.store.read(func(d *data) { r = d.refs[c.repo.ID][prefix+c.PathValue("name")] })
	if r == nil {
		return nil, notFound(kind + ` "` + c.PathValue("name") + `"`)
	}
	body, err := s.refObject(c.Context(), c.repo, r)
	if err != nil {
		return nil, err
	}
	return ok(body)
}

func (s *Sandbox) listBranches(c *call) (*reply, error) { return s.listRefs(c, branchPrefix) }
func (s *Sandbox) listTags(c *call) (*reply, error)     { return s.listRefs(c, tagPrefix) }
func (s *Sandbox) getBranch(c *call) (*reply, error)    { return s.getRef(c, branchPrefix, "Branch") }
func (s *Sandbox) getTag(c *call) (*reply, error)       { return s.getRef(c, tagPrefix, "Tag") }

// refObject is a branch or tag, in the API and in webhooks alike.
func (s *Sandbox) refObject(ctx context.Context, repo *repository, r *ref) (obj, error) {
	n := s.namesOf(repo)
	target, err := s.commitObject(ctx, repo, r.Commit)
	if err != nil {
		return nil, err
	}
	name := r.Short()
	path := escapePath(name)
	body := obj{"name": name, "target": target}
	if strings.HasPrefix(r.Name, branchPrefix) {
		body["type"] = "branch"
		body["merge_strategies"] = []string{"merge_commit", "squash", "fast_forward"}
		body["default_merge_strategy"] = "merge_commit"
		body["sync_strategies"] = []string{"merge_commit", "rebase"}
		body["links"] = obj{
			"self":               link(n.api + "/refs/branches/" + path),
			"commits":            link(n.api + "/commits/" + path),
			"html":               link(n.web + "/branch/" + path),
			"pullrequest_create": link(n.web + "/pull-requests/new?source=" + path + "&t=1"),
		}
		return body, nil
	}
	body["type"] = "tag"
	body["message"], body["date"], body["tagger"] = nil, nil, nil
	if r.Hash != r.Commit {
		o, err := s.git.object(ctx, repo.ID, r.Hash)
		if err != nil {
			return nil, err
		}
		t := parseTag(o)
		body["message"] = t.message
		body["date"] = commitTime(t.tagger.when)
		body["tagger"] = s.authorObject(t.tagger)
	}
	body["links"] = obj{
		"self":    link(n.api + "/refs/tags/" + path),
		"commits": link(n.api + "/commits/" + path),
		"html":    link(n.web + "/commits/tag/" + path),
	}
	return body, nil
}

// escapePath percent-encodes a path but leaves its slashes.
func escapePath(path string) string {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i] = escape(segment)
	}
	return strings.Join(segments, "/")
}
