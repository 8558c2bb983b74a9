package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// shortHash is the length of the hashes in pull requests, in answers and webhooks.
const shortHash = 12

// maxPullsPage is the longest page of pull requests, whatever the documentation says of pages.
const maxPullsPage = 50

// A pullRequest belongs to its destination repository.
type pullRequest struct {
	Repository           string
	Number               int
	Title, Description   string
	State                string // OPEN, MERGED, DECLINED
	Author, ClosedBy     string
	SourceRepository     string
	SourceBranch         string
	SourceHash           string // full; follows the branch while the request is open
	DestinationBranch    string
	DestinationHash      string // set when it is closed; while it is open, the branch says
	MergeCommit          string
	CloseSource, Draft   bool
	Reason               string
	CreatedAt, UpdatedAt time.Time
}

func (p *pullRequest) kind() string { return "pullrequest" }
func (p *pullRequest) key() string  { return p.Repository + " " + strconv.Itoa(p.Number) }

// pull is a pull request by number, or nil.
func (d *data) pull(repositoryID string, number int) *pullRequest {
	list := d.pulls[repositoryID]
	i := slices.IndexFunc(list, func(p *pullRequest) bool { return p.Number == number })
	if i < 0 {
		return nil
	}
	return list[i]
}

// destination is the commit a pull request would be merged into.
func (d *data) destination(p *pullRequest) string {
	if tip := d.branch(p.Repository, p.DestinationBranch); tip != nil && p.State == "OPEN" {
		return tip.Commit
	}
	return p.DestinationHash
}

// pullObject is a pull request, in answers and webhooks alike.
func (s *Sandbox) pullObject(p *pullRequest) obj {
	var repo, source *repository
	var author, closer *user
	var destination string
	s.store.read(func(d *data) {
		repo, source = d.repositories[p.Repository], d.repositories[p.SourceRepository]
		author, closer = d.users[p.Author], d.users[p.ClosedBy]
		destination = d.destination(p)
	})
	n := s.namesOf(repo)
	self := n.api + "/pullrequests/" + strconv.Itoa(p.Number)
	links := obj{"self": link(self), "html": link(n.web + "/pull-requests/" + strconv.Itoa(p.Number))}
	for _, name := range []string{"commits", "approve", "diff", "diffstat", "comments", "activity", "merge", "decline", "statuses"} {
		links[name] = link(self + "/" + name)
	}
	body := obj{
		"type": "pullrequest", "id": p.Number, "title": p.Title, "description": p.Description,
		"rendered": obj{"title": rendered(p.Title), "description": rendered(p.Description)}, "summary": rendered(p.Description),
		"state": p.State, "draft": p.Draft, "queued": false, "author": s.userObject(author), "reason": p.Reason,
		"source":       s.pullSide(source, p.SourceBranch, p.SourceHash),
		"destination":  s.pullSide(repo, p.DestinationBranch, destination),
		"merge_commit": nil, "closed_by": nil, "close_source_branch": p.CloseSource,
		"reviewers": []any{}, "participants": []any{}, "comment_count": 0, "task_count": 0,
		"created_on": timestamp(p.CreatedAt), "updated_on": timestamp(p.UpdatedAt), "links": links,
	}
	if closer != nil {
		body["closed_by"] = s.userObject(closer)
	}
	if p.MergeCommit != "" {
		body["merge_commit"] = s.shortCommit(repo, p.MergeCommit)
	}
	return body
}

// pullSide is source or destination. The repository is null when a fork was deleted.
func (s *Sandbox) pullSide(repo *repository, branch, hash string) obj {
	side := obj{"branch": obj{"name": branch}, "commit": nil, "repository": nil}
	if repo != nil {
		side["repository"] = s.repositoryReference(repo)
		side["commit"] = s.shortCommit(repo, hash)
	}
	return side
}

func (s *Sandbox) shortCommit(repo *repository, hash string) any {
	if len(hash) < shortHash {
		return nil
	}
	n := s.namesOf(repo)
	hash = hash[:shortHash]
	return obj{
		"type": "commit", "hash": hash,
		"links": obj{"self": link(n.api + "/commit/" + hash), "html": link(n.web + "/commits/" + hash)},
	}
}

// pullMessage announces a pull request, as it is in p, to its destination's hooks.
func (s *Sandbox) pullMessage(p *pullRequest, actor *user, key string) (message, error) {
	var repo *repository
	s.store.read(func(d *data) { repo = d.repositories[p.Repository] })
	if repo == nil {
		return message{}, hidden()
	}
	return s.compose(repo, actor, event{key, obj{"pullrequest": s.pullObject(p)}})
}

func pullField(p *pullRequest, name string) (any, bool) {
	switch name {
	case "id":
		return float64(p.Number), true
	case "title":
		return p.Title, true
	case "state":
		return p.State, true
	case "source.branch.name":
		return p.SourceBranch, true
	case "source.commit.hash":
		return p.SourceHash[:shortHash], true
	case "source.repository.uuid":
		return p.SourceRepository, true
	case "destination.branch.name":
		return p.DestinationBranch, true
	case "created_on":
		return timestamp(p.CreatedAt), true
	case "updated_on":
		return timestamp(p.UpdatedAt), true
	}
	return nil, false
}

// listPullRequests lists the open ones unless state= or q says otherwise; state= may
// be repeated.
func (s *Sandbox) listPullRequests(c *call) (*reply, error) {
	query := c.URL.Query()
	states := query["state"]
	for _, state := range states {
		if !slices.Contains([]string{"OPEN", "MERGED", "DECLINED", "SUPERSEDED"}, state) {
			return nil, refuse(http.StatusBadRequest, "state: '%s' is not one of OPEN, MERGED, DECLINED, SUPERSEDED", state)
		}
	}
	if len(states) == 0 && !strings.Contains(query.Get("q"), "state") {
		states = []string{"OPEN"}
	}
	var list []*pullRequest
	s.store.read(func(d *data) {
		for _, p := range d.pulls[c.repo.ID] {
			if len(states) == 0 || slices.Contains(states, p.State) {
				list = append(list, p)
			}
		}
	})
	slices.Reverse(list) // the newest first
	return answer(s, c, listing[*pullRequest]{
		items:  list,
		render: func(p *pullRequest) (any, error) { return s.pullObject(p), nil },
		field:  pullField,
		most:   maxPullsPage,
	})
}

// pathPull is the pull request the path names.
func (d *data) pathPull(c *call) (*pullRequest, error) {
	number, err := strconv.Atoi(c.PathValue("id"))
	if err != nil {
		return nil, notFound("Pull request " + c.PathValue("id"))
	}
	if p := d.pull(c.repo.ID, number); p != nil {
		return p, nil
	}
	return nil, notFound("Pull request " + c.PathValue("id"))
}

func (s *Sandbox) callPull(c *call) (p *pullRequest, err error) {
	s.store.read(func(d *data) { p, err = d.pathPull(c) })
	return p, err
}

func (s *Sandbox) getPullRequest(c *call) (*reply, error) {
	p, err := s.callPull(c)
	if err != nil {
		return nil, err
	}
	return ok(s.pullObject(p))
}

func (s *Sandbox) listPullRequestStatuses(c *call) (*reply, error) {
	p, err := s.callPull(c)
	if err != nil {
		return nil, err
	}
	var list []*status
	s.store.read(func(d *data) { list = d.headStatuses(p) })
	return s.answerStatuses(c, list)
}

// pullEnd is one end of a pull request as a request names it.
type pullEnd struct {
	Branch struct {
		Name string `json:"name"`
	} `json:"branch"`
	Repository *struct {
		FullName string `json:"full_name"`
		UUID     string `json:"uuid"`
	} `json:"repository"`
}

func (s *Sandbox) createPullRequest(c *call) (*reply, error) {
	var in struct {
		Title       string  `json:"title"`
		Description string  `json:"description"`
		Source      pullEnd `json:"source"`
		Destination pullEnd `json:"destination"`
		CloseSource bool    `json:"close_source_branch"`
		Draft       bool    `json:"draft"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	p := pullRequest{
		Repository: c.repo.ID, Title: in.Title, Description: in.Description, State: "OPEN", Author: c.user.ID,
		SourceRepository: c.repo.ID, SourceBranch: in.Source.Branch.Name,
		DestinationBranch: cmp.Or(in.Destination.Branch.Name, c.repo.MainBranch),
		CloseSource:       in.CloseSource, Draft: in.Draft, CreatedAt: s.now(),
	}
	p.UpdatedAt = p.CreatedAt
	if err := s.openPull(c.Context(), c.user, &p, in.Source); err != nil {
		return nil, err
	}
	return created(s.pullObject(&p))
}

// openPull checks and stores a new pull request and announces it.
func (s *Sandbox) openPull(ctx context.Context, author *user, p *pullRequest, from pullEnd) error {
	if p.Title == "" {
		return badField("title", "This field is required.")
	}
	var source *repository
	var head, destination *ref
	s.store.read(func(d *data) {
		source = d.repositories[p.Repository]
		if named := from.Repository; named != nil {
			workspaceName, slug, _ := strings.Cut(named.FullName, "/")
			source = cmp.Or(d.repositories[named.UUID], d.repositoryAt(workspaceName, slug))
			if d.roleOf(author, source) == none {
				source = nil
			}
		}
		if source != nil {
			head = d.branch(source.ID, p.SourceBranch)
		}
		destination = d.branch(p.Repository, p.DestinationBranch)
	})
	switch {
	case source == nil:
		return badField("source.repository", "There is no such repository.")
	case source.ID != p.Repository && source.Parent != p.Repository:
		return badField("source.repository", "It is not a fork of the destination repository.")
	case head == nil:
		return badField("source.branch", "The branch '%s' does not exist.", p.SourceBranch)
	case destination == nil:
		return badField("destination.branch", "The branch '%s' does not exist.", p.DestinationBranch)
	}
	p.SourceRepository, p.SourceHash = source.ID, head.Commit
	contained, err := s.contains(ctx, p.Repository, destination.Commit, head.Commit)
	if err != nil {
		return err
	}
	if contained {
		return refuse(http.StatusBadRequest, "There are no changes to be pulled")
	}
	var repo repository
	number := func(d *data) error {
		for _, other := range d.pulls[p.Repository] {
			if other.State == "OPEN" && other.SourceRepository == p.SourceRepository &&
				other.SourceBranch == p.SourceBranch && other.DestinationBranch == p.DestinationBranch {
				return refuse(http.StatusBadRequest, "There is already an open pull request from that branch to that branch.")
			}
		}
		repo = *d.repositories[p.Repository]
		repo.Pulls++
		p.Number = repo.Pulls
		return nil
	}
	// The number goes into the announcement, so no other may be given meanwhile.
	unlock := s.git.lock(p.Repository)
	defer unlock()
	if s.store.read(func(d *data) { err = number(d) }); err != nil {
		return err
	}
	m, err := s.pullMessage(p, author, "pullrequest:created")
	if err != nil {
		return err
	}
	return s.commitWith([]message{m}, func(t *tx) error {
		if err := number(t.data); err != nil {
			return err
		}
		t.put(&repo)
		t.put(p)
		return nil
	})
}

// contains says whether tip's history holds a commit; one that is not in the
// repository, because it is in a fork, is not held.
func (s *Sandbox) contains(ctx context.Context, repositoryID, tip, hash string) (bool, error) {
	if _, err := s.git.commit(ctx, repositoryID, hash); err != nil {
		if errors.Is(err, errNoObject) {
			return false, nil
		}
		return false, err
	}
	return s.git.isAncestor(ctx, repositoryID, hash, tip)
}

// changePull makes one change to a pull request and announces it. The change is made
// twice: for the announcement, and on what is stored by then.
func (s *Sandbox) changePull(p *pullRequest, actor *user, key string, change func(*pullRequest) error) (*pullRequest, error) {
	changed := *p
	if err := change(&changed); err != nil {
		return nil, err
	}
	m, err := s.pullMessage(&changed, actor, key)
	if err != nil {
		return nil, err
	}
	err = s.commitWith([]message{m}, func(t *tx) error {
		changed = *t.pull(p.Repository, p.Number)
		if err := change(&changed); err != nil {
			return err
		}
		t.put(&changed)
		return nil
	})
	return &changed, err
}

// mayEdit says whether the caller may edit or decline a pull request.
func mayEdit(c *call, p *pullRequest) error {
	if p.Author == c.user.ID || c.role >= write {
		return nil
	}
	return refuse(http.StatusForbidden, "You do not have permission to change this pull request.")
}

func (s *Sandbox) updatePullRequest(c *call) (*reply, error) {
	var in struct {
		Title       *string  `json:"title"`
		Description *string  `json:"description"`
		Destination *pullEnd `json:"destination"`
	}
	p, err := s.callPull(c)
	if err == nil {
		err = mayEdit(c, p)
	}
	if err == nil {
		err = c.decode(&in)
	}
	if err != nil {
		return nil, err
	}
	if in.Destination != nil {
		var tip *ref
		s.store.read(func(d *data) { tip = d.branch(p.Repository, in.Destination.Branch.Name) })
		if tip == nil {
			return nil, badField("destination.branch", "The branch '%s' does not exist.", in.Destination.Branch.Name)
		}
	}
	now := s.now()
	changed, err := s.changePull(p, c.user, "pullrequest:updated", func(p *pullRequest) error {
		if p.State != "OPEN" {
			return refuse(http.StatusBadRequest, "This pull request is already closed.")
		}
		if in.Title != nil {
			if p.Title = *in.Title; p.Title == "" {
				return badField("title", "This field may not be blank.")
			}
		}
		if in.Description != nil {
			p.Description = *in.Description
		}
		if in.Destination != nil {
			p.DestinationBranch = in.Destination.Branch.Name
		}
		p.UpdatedAt = now
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ok(s.pullObject(changed))
}

func (s *Sandbox) declinePullRequest(c *call) (*reply, error) {
	p, err := s.callPull(c)
	if err == nil {
		err = mayEdit(c, p)
	}
	if err != nil {
		return nil, err
	}
	changed, err := s.decline(p, c.user)
	if err != nil {
		return nil, err
	}
	return ok(s.pullObject(changed))
}

func (s *Sandbox) decline(p *pullRequest, actor *user) (*pullRequest, error) {
	var destination string
	s.store.read(func(d *data) { destination = d.destination(p) })
	now := s.now()
	return s.changePull(p, actor, "pullrequest:rejected", func(p *pullRequest) error {
		if p.State != "OPEN" {
			return refuse(http.StatusBadRequest, "This pull request is already closed.")
		}
		p.State, p.ClosedBy, p.DestinationHash, p.UpdatedAt = "DECLINED", actor.ID, destination, now
		return nil
	})
}

// A mergeRequest says how to merge.
type mergeRequest struct {
	Message     string `json:"message"`
	Strategy    string `json:"merge_strategy"`
	CloseSource *bool  `json:"close_source_branch"`
}

func (s *Sandbox) mergePullRequest(c *call) (*reply, error) {
	var in mergeRequest
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	p, err := s.callPull(c)
	if err != nil {
		return nil, err
	}
	changed, err := s.merge(c.Context(), p, c.user, in)
	if err != nil {
		return nil, err
	}
	return ok(s.pullObject(changed))
}

// unmergeable says why the merge check "builds must pass" holds a pull request back,
// or "".
func (d *data) unmergeable(p *pullRequest) string {
	needed := d.repositories[p.Repository].NeededBuilds
	if needed == 0 {
		return ""
	}
	passed := 0
	for _, st := range d.headStatuses(p) {
		if st.State != "SUCCESSFUL" {
			return fmt.Sprintf("the build %s is %s", st.Key, st.State)
		}
		passed++
	}
	if passed < needed {
		return fmt.Sprintf("%d of %d needed builds have passed", passed, needed)
	}
	return ""
}

// merge brings the source into the destination branch, which is announced as a push
// and as the end of the pull request.
func (s *Sandbox) merge(ctx context.Context, p *pullRequest, actor *user, in mergeRequest) (*pullRequest, error) {
	closeSource := p.CloseSource
	if in.CloseSource != nil {
		closeSource = *in.CloseSource
	}
	merged, err := s.mergeLocked(ctx, p, actor, in)
	if err != nil || !closeSource {
		return merged, err
	}
	// The source branch may be in a fork, whose lock is another.
	unlock := s.git.lock(p.SourceRepository)
	defer unlock()
	if err := s.git.moveBranch(ctx, p.SourceRepository, p.SourceBranch, "", p.SourceHash); err != nil {
		return nil, err
	}
	return merged, s.announcePush(ctx, p.SourceRepository, actor)
}

func (s *Sandbox) mergeLocked(ctx context.Context, p *pullRequest, actor *user, in mergeRequest) (*pullRequest, error) {
	unlock := s.git.lock(p.Repository)
	defer unlock()
	var tip *ref
	var blocked string
	s.store.read(func(d *data) {
		p = d.pull(p.Repository, p.Number)
		tip = d.branch(p.Repository, p.DestinationBranch)
		blocked = d.unmergeable(p)
	})
	switch {
	case p.State != "OPEN":
		return nil, refuse(http.StatusBadRequest, "This pull request is already closed.")
	case tip == nil:
		return nil, refuse(http.StatusBadRequest, "The destination branch does not exist.")
	case blocked != "":
		return nil, refuse(http.StatusBadRequest, "Merge checks failed: builds must pass, and %s.", blocked)
	}
	if err := s.setPusher(p.Repository, actor); err != nil {
		return nil, err
	}
	hash, err := s.mergeCommit(ctx, p, actor, tip.Commit, in)
	if err != nil {
		return nil, err
	}
	if err := s.git.moveBranch(ctx, p.Repository, p.DestinationBranch, hash, tip.Commit); err != nil {
		return nil, err
	}
	now := s.now()
	changed, err := s.changePull(p, actor, "pullrequest:fulfilled", func(p *pullRequest) error {
		p.State, p.ClosedBy, p.DestinationHash, p.MergeCommit, p.UpdatedAt = "MERGED", actor.ID, tip.Commit, hash, now
		return nil
	})
	if err != nil {
		return nil, err
	}
	return changed, s.announcePush(ctx, p.Repository, actor)
}

// mergeCommit makes the commit the destination is moved to.
func (s *Sandbox) mergeCommit(ctx context.Context, p *pullRequest, actor *user, tip string, in mergeRequest) (string, error) {
	if p.SourceRepository != p.Repository {
		_, err := s.git.run(ctx, p.Repository, "fetch", "--quiet", "--no-tags", s.git.path(p.SourceRepository), p.SourceHash)
		if err != nil {
			return "", err
		}
	}
	c := commit{
		parents: []string{tip, p.SourceHash},
		author:  signature{name: actor.DisplayName, email: actor.Email, when: s.now()},
		message: cmp.Or(in.Message, fmt.Sprintf("Merged in %s (pull request #%d)\n\n%s", p.SourceBranch, p.Number, p.Title)),
	}
	switch in.Strategy {
	case "", "merge_commit":
	case "squash":
		c.parents = c.parents[:1]
	case "fast_forward":
		behind, err := s.git.isAncestor(ctx, p.Repository, tip, p.SourceHash)
		if err != nil {
			return "", err
		}
		if !behind {
			return "", refuse(http.StatusBadRequest, "The destination branch cannot be fast-forwarded.")
		}
		return p.SourceHash, nil
	default:
		return "", badField("merge_strategy", "'%s' is not one of merge_commit, squash, fast_forward.", in.Strategy)
	}
	out, err := s.git.run(ctx, p.Repository, "merge-tree", "--write-tree", tip, p.SourceHash)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", refuse(http.StatusConflict, "The pull request cannot be merged: there are conflicts.")
	}
	if err != nil {
		return "", err
	}
	c.tree, _, _ = strings.Cut(out, "\n")
	return s.git.writeCommit(p.Repository, c)
}

// The one branch restriction there is: require_passing_builds_to_merge, for all
// branches of a repository.
const passingBuilds = "require_passing_builds_to_merge"

func (s *Sandbox) restrictionObject(r *repository) obj {
	return obj{
		"type": "branchrestriction", "id": 1, "kind": passingBuilds, "value": r.NeededBuilds,
		"branch_match_kind": "glob", "pattern": "**", "users": []any{}, "groups": []any{},
		"links": obj{"self": link(s.namesOf(r).api + "/branch-restrictions/1")},
	}
}

func (s *Sandbox) listRestrictions(c *call) (*reply, error) {
	var list []*repository
	if c.repo.NeededBuilds > 0 {
		list = append(list, c.repo)
	}
	return answer(s, c, listing[*repository]{
		items:  list,
		render: func(r *repository) (any, error) { return s.restrictionObject(r), nil },
	})
}

func (s *Sandbox) createRestriction(c *call) (*reply, error) {
	in := struct {
		Kind  string `json:"kind"`
		Value int    `json:"value"`
	}{Value: 1}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Kind != passingBuilds {
		return nil, badField("kind", "'%s' is not a kind of branch restriction known here.", in.Kind)
	}
	if in.Value < 1 {
		return nil, badField("value", "At least one build.")
	}
	changed, err := s.setNeededBuilds(c.repo.ID, in.Value)
	if err != nil {
		return nil, err
	}
	return created(s.restrictionObject(changed))
}

func (s *Sandbox) deleteRestriction(c *call) (*reply, error) {
	if c.PathValue("id") != "1" || c.repo.NeededBuilds == 0 {
		return nil, notFound("Branch restriction " + c.PathValue("id"))
	}
	if _, err := s.setNeededBuilds(c.repo.ID, 0); err != nil {
		return nil, err
	}
	return noContent()
}

// setNeededBuilds sets the merge check "builds must pass"; 0 takes it away.
func (s *Sandbox) setNeededBuilds(repositoryID string, n int) (*repository, error) {
	var changed repository
	err := s.store.update(func(t *tx) error {
		if t.repositories[repositoryID] == nil {
			return hidden()
		}
		changed = *t.repositories[repositoryID]
		changed.NeededBuilds = n
		t.put(&changed)
		return nil
	})
	return &changed, err
}
