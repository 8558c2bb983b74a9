package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
)

// commitsInChange is how many commits a change of a push lists.
const commitsInChange = 5

// An event is something hooks can be subscribed to. Its body gets actor and
// repository when it is announced.
type event struct {
	key  string
	body obj
}

// A message is an event of a repository, ready to be delivered to its hooks.
type message struct {
	repository string
	key        string
	body       []byte
}

// compose makes an event into what all hooks of the repository get.
func (s *Sandbox) compose(repo *repository, actor *user, e event) (message, error) {
	e.body["actor"] = s.userObject(actor)
	e.body["repository"] = s.hookRepository(repo)
	body, err := json.Marshal(e.body)
	if err != nil {
		return message{}, fmt.Errorf("compose %s: %w", e.key, err)
	}
	return message{repository: repo.ID, key: e.key, body: body}, nil
}

// announce delivers an event that changes nothing else.
func (s *Sandbox) announce(repo *repository, actor *user, e event) error {
	m, err := s.compose(repo, actor, e)
	if err != nil {
		return err
	}
	return s.commitWith([]message{m}, func(*tx) error { return nil })
}

// commitWith stores what fn changes together with the deliveries of the messages, and
// then sends those.
func (s *Sandbox) commitWith(messages []message, fn func(*tx) error) error {
	var made []*delivery
	err := s.store.update(func(t *tx) error {
		if err := fn(t); err != nil {
			return err
		}
		for _, m := range messages {
			made = append(made, s.post(t, m)...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, d := range made {
		s.courier.send(d)
	}
	return nil
}

// receive takes a push: who pushes is stored first, so that a push the process does
// not live to announce still has its author.
func (s *Sandbox) receive(ctx context.Context, w http.ResponseWriter, r *http.Request, pusher *user, repo *repository, action string) error {
	unlock := s.git.lock(repo.ID)
	defer unlock()
	if err := s.setPusher(repo.ID, pusher); err != nil {
		http.Error(w, "state could not be stored", http.StatusInternalServerError)
		return err
	}
	// What git took is announced even if the client went away meanwhile.
	err := s.git.backend(ctx, w, r, repo.ID, action, pusher)
	return errors.Join(err, s.announcePush(context.WithoutCancel(ctx), repo.ID, pusher))
}

func (s *Sandbox) setPusher(repositoryID string, pusher *user) error {
	return s.store.update(func(t *tx) error {
		r := t.repositories[repositoryID]
		if r == nil {
			return hidden()
		}
		if r.Pusher != pusher.ID {
			changed := *r
			changed.Pusher = pusher.ID
			t.put(&changed)
		}
		return nil
	})
}

// announceMissed announces what git holds and no process has announced.
func (s *Sandbox) announceMissed(ctx context.Context) error {
	pushers := map[string]*user{}
	s.store.read(func(d *data) {
		for id, r := range d.repositories {
			pushers[id] = d.users[r.Pusher]
		}
	})
	for id, pusher := range pushers {
		if err := s.announcePush(ctx, id, pusher); err != nil {
			return fmt.Errorf("announce pushes to %s: %w", id, err)
		}
	}
	return nil
}

// A refChange is one ref that moved. Old or new is nil when it was made or deleted.
type refChange struct{ old, new *ref }

func (c refChange) name() string {
	if c.new != nil {
		return c.new.Name
	}
	return c.old.Name
}

// announcePush compares the refs in git with those announced, and announces all that
// changed as one push. The repository's lock is held.
func (s *Sandbox) announcePush(ctx context.Context, repositoryID string, pusher *user) error {
	changes, err := s.changedRefs(ctx, repositoryID)
	if err != nil || len(changes) == 0 {
		return err
	}
	var repo repository
	var heads []*pullRequest
	var main string
	s.store.read(func(d *data) {
		repo = *d.repositories[repositoryID]
		main = repo.MainBranch
		heads = movedHeads(d, repositoryID, changes)
		if d.branch(repositoryID, repo.MainBranch) == nil {
			repo.MainBranch = firstBranch(changes, repo.MainBranch)
		}
	})
	repo.UpdatedAt = s.now()
	if repo.MainBranch != main {
		if _, err := s.git.run(ctx, repositoryID, "symbolic-ref", "HEAD", branchPrefix+repo.MainBranch); err != nil {
			return err
		}
	}
	messages, err := s.pushMessages(ctx, &repo, pusher, changes, heads)
	if err != nil {
		return err
	}
	return s.commitWith(messages, func(t *tx) error {
		if t.repositories[repositoryID] == nil {
			return hidden()
		}
		stored := *t.repositories[repositoryID]
		stored.MainBranch, stored.UpdatedAt = repo.MainBranch, repo.UpdatedAt
		t.put(&stored)
		for _, c := range changes {
			if c.new == nil {
				t.drop(c.old)
			} else {
				t.put(c.new)
			}
		}
		for _, moved := range heads {
			p := t.pull(moved.Repository, moved.Number)
			changed := *p
			changed.SourceHash, changed.UpdatedAt = moved.SourceHash, moved.UpdatedAt
			t.put(&changed)
		}
		return nil
	})
}

// firstBranch is the branch that becomes the main one of a repository that has none:
// the wanted one if it is among the changes, else the first.
func firstBranch(changes []refChange, wanted string) string {
	first := ""
	for _, c := range changes {
		if c.new == nil || !strings.HasPrefix(c.new.Name, branchPrefix) {
			continue
		}
		if c.new.Short() == wanted {
			return wanted
		}
		first = cmp.Or(first, c.new.Short())
	}
	return cmp.Or(first, wanted)
}

// movedHeads are the open pull requests whose source branch has moved, as they will
// be after that.
func movedHeads(d *data, repositoryID string, changes []refChange) []*pullRequest {
	moved := map[string]string{}
	for _, c := range changes {
		if c.new != nil && strings.HasPrefix(c.new.Name, branchPrefix) {
			moved[c.new.Short()] = c.new.Commit
		}
	}
	var list []*pullRequest
	for pulls := range maps.Values(d.pulls) {
		for _, p := range pulls {
			hash, hit := moved[p.SourceBranch]
			if hit && p.State == "OPEN" && p.SourceRepository == repositoryID && p.SourceHash != hash {
				changed := *p
				changed.SourceHash = hash
				list = append(list, &changed)
			}
		}
	}
	return list
}

func (s *Sandbox) changedRefs(ctx context.Context, repositoryID string) ([]refChange, error) {
	out, err := s.git.run(ctx, repositoryID, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)")
	if err != nil {
		return nil, err
	}
	var before map[string]*ref
	s.store.read(func(d *data) { before = maps.Clone(d.refs[repositoryID]) })
	var changes []refChange
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		now := &ref{Repository: repositoryID, Name: words[0], Hash: words[1], Commit: words[len(words)-1]}
		old := before[now.Name]
		delete(before, now.Name)
		if old == nil || old.Hash != now.Hash {
			changes = append(changes, refChange{old: old, new: now})
		}
	}
	for old := range maps.Values(before) {
		changes = append(changes, refChange{old: old})
	}
	slices.SortFunc(changes, func(a, b refChange) int { return cmp.Compare(a.name(), b.name()) })
	return changes, nil
}

// pushMessages are the push itself and one pullrequest:updated for each pull request
// whose source moved.
func (s *Sandbox) pushMessages(ctx context.Context, repo *repository, pusher *user, changes []refChange, heads []*pullRequest) ([]message, error) {
	// A push of other refs alone, such as notes, is announced without changes.
	list := []obj{}
	for _, c := range changes {
		if strings.HasPrefix(c.name(), branchPrefix) || strings.HasPrefix(c.name(), tagPrefix) {
			body, err := s.changeObject(ctx, repo, c)
			if err != nil {
				return nil, err
			}
			list = append(list, body)
		}
	}
	push, err := s.compose(repo, pusher, event{"repo:push", obj{"push": obj{"changes": list}}})
	if err != nil {
		return nil, err
	}
	messages := []message{push}
	for _, p := range heads {
		p.UpdatedAt = repo.UpdatedAt
		m, err := s.pullMessage(p, pusher, "pullrequest:updated")
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// changeObject is one element of a push's changes.
func (s *Sandbox) changeObject(ctx context.Context, repo *repository, c refChange) (obj, error) {
	body := obj{
		"old": nil, "new": nil, "created": c.old == nil, "closed": c.new == nil,
		"forced": false, "truncated": false,
	}
	var err error
	if c.old != nil {
		if body["old"], err = s.refObject(ctx, repo, c.old); err != nil {
			return nil, err
		}
	}
	if c.new == nil {
		return body, nil
	}
	if body["new"], err = s.refObject(ctx, repo, c.new); err != nil {
		return nil, err
	}
	n := s.namesOf(repo)
	commits := n.api + "/commits?include=" + c.new.Commit
	if c.old != nil {
		commits += "&exclude=" + c.old.Commit
	}
	links := obj{"commits": link(commits)}
	body["links"] = links
	if strings.HasPrefix(c.new.Name, tagPrefix) {
		return body, nil
	}
	links["html"] = link(n.web + "/branch/" + escapePath(c.new.Short()))
	before := ""
	if c.old != nil {
		before = c.old.Commit
	}
	hashes, forced, err := s.git.pushed(ctx, repo.ID, before, c.new.Commit)
	if err != nil {
		return nil, err
	}
	body["forced"] = forced
	body["truncated"] = len(hashes) > commitsInChange
	list := []obj{}
	for _, hash := range hashes[:min(len(hashes), commitsInChange)] {
		commit, err := s.commitObject(ctx, repo, hash)
		if err != nil {
			return nil, err
		}
		list = append(list, commit)
	}
	body["commits"] = list
	return body, nil
}

// pushed lists the newest commits that came with a branch's move from before ("" when
// it is new: then all of its history counts), one more than a change lists, and says
// whether the move was forced.
func (g *git) pushed(ctx context.Context, repositoryID, before, after string) (hashes []string, forced bool, err error) {
	// Nearly every push adds a few commits in a line, which needs no process.
	for at := after; len(hashes) <= commitsInChange; {
		hashes = append(hashes, at)
		c, err := g.commit(ctx, repositoryID, at)
		if err != nil {
			return nil, false, err
		}
		if len(c.parents) == 0 && before == "" || len(c.parents) == 1 && c.parents[0] == before {
			return hashes, false, nil
		}
		if len(c.parents) != 1 {
			break
		}
		at = c.parents[0]
	}
	if before == "" && len(hashes) > commitsInChange {
		return hashes, false, nil
	}
	args := []string{"rev-list", fmt.Sprintf("--max-count=%d", commitsInChange+1), after}
	if before != "" {
		args = append(args, "^"+before)
	}
	out, err := g.run(ctx, repositoryID, args...)
	if err != nil || before == "" {
		return strings.Fields(out), false, err
	}
	contains, err := g.isAncestor(ctx, repositoryID, before, after)
	return strings.Fields(out), !contains, err
}

func (g *git) isAncestor(ctx context.Context, repositoryID, ancestor, of string) (bool, error) {
	_, err := g.run(ctx, repositoryID, "merge-base", "--is-ancestor", ancestor, of)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

// authorObject is who wrote a commit: the raw line, and the account when the address
// is one's.
func (s *Sandbox) authorObject(who signature) obj {
	body := obj{"type": "author", "raw": who.raw()}
	var u *user
	s.store.read(func(d *data) { u = d.userWithEmail(who.email) })
	if u != nil {
		body["user"] = s.userObject(u)
	}
	return body
}

func rendered(text string) obj {
	return obj{
		"type": "rendered", "raw": text, "markup": "markdown",
		"html": "<p>" + html.EscapeString(strings.TrimSpace(text)) + "</p>",
	}
}

// commitObject is a commit as branches, pushes and lists show it.
func (s *Sandbox) commitObject(ctx context.Context, repo *repository, hash string) (obj, error) {
	c, err := s.git.commit(ctx, repo.ID, hash)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", hash, err)
	}
	n := s.namesOf(repo)
	parents := make([]obj, len(c.parents))
	for i, parent := range c.parents {
		parents[i] = obj{
			"type": "commit", "hash": parent,
			"links": obj{"self": link(n.api + "/commit/" + parent), "html": link(n.web + "/commits/" + parent)},
		}
	}
	self := n.api + "/commit/" + c.hash
	return obj{
		"type": "commit", "hash": c.hash, "date": commitTime(c.author.when), "author": s.authorObject(c.author), "committer": obj{},
		"message": c.message, "summary": rendered(c.message), "parents": parents,
		"rendered": obj{}, "properties": obj{},
		"links": obj{
			"self": link(self), "html": link(n.web + "/commits/" + c.hash),
			"diff": link(n.api + "/diff/" + c.hash), "patch": link(n.api + "/patch/" + c.hash),
			"comments": link(self + "/comments"), "approve": link(self + "/approve"), "statuses": link(self + "/statuses"),
		},
	}, nil
}

// A NewCommit is one commit to be pushed without a git client.
type NewCommit struct {
	Repository string            // by full name, acme/shop
	Branch     string            // made from the main branch, or from nothing, when it is not there
	User       string            // name of the author, who also pushes
	Message    string            // "" gives one
	Files      map[string][]byte // by path, laid over the branch; nil removes a file
}

// AddCommit pushes one commit to a branch and answers its hash. The push is announced
// like any other, but it costs two short git processes instead of a client's dozen,
// for who needs many.
func (s *Sandbox) AddCommit(ctx context.Context, n NewCommit) (string, error) {
	workspaceName, slug, _ := strings.Cut(n.Repository, "/")
	var repo *repository
	var author *user
	s.store.read(func(d *data) {
		repo = d.repositoryAt(workspaceName, slug)
		author = d.userNamed(n.User)
	})
	if repo == nil || author == nil {
		return "", fmt.Errorf("sandbox: add commit: no repository %q or no user %q", n.Repository, n.User)
	}
	unlock := s.git.lock(repo.ID)
	defer unlock()
	if err := s.setPusher(repo.ID, author); err != nil {
		return "", err
	}
	var base, old string
	s.store.read(func(d *data) {
		if tip := d.branch(repo.ID, n.Branch); tip != nil {
			base, old = tip.Commit, tip.Commit
		} else if tip := d.branch(repo.ID, repo.MainBranch); tip != nil {
			base = tip.Commit
		}
	})
	c := commit{
		message: cmp.Or(n.Message, "Change "+n.Branch),
		author:  signature{name: author.DisplayName, email: author.Email, when: s.now()},
	}
	if base != "" {
		parent, err := s.git.commit(ctx, repo.ID, base)
		if err != nil {
			return "", fmt.Errorf("sandbox: add commit: %w", err)
		}
		c.tree, c.parents = parent.tree, []string{base}
	}
	var err error
	if c.tree, err = s.git.writeTree(ctx, repo.ID, c.tree, n.Files); err != nil {
		return "", fmt.Errorf("sandbox: add commit: %w", err)
	}
	hash, err := s.git.writeCommit(repo.ID, c)
	if err != nil {
		return "", fmt.Errorf("sandbox: add commit: %w", err)
	}
	if err := s.git.moveBranch(ctx, repo.ID, n.Branch, hash, old); err != nil {
		return "", fmt.Errorf("sandbox: add commit: %w", err)
	}
	if err := s.announcePush(ctx, repo.ID, author); err != nil {
		return "", fmt.Errorf("sandbox: add commit: %w", err)
	}
	return hash, nil
}

// moveBranch sets a branch that is at old ("" when there is none yet), or deletes it
// when hash is "".
func (g *git) moveBranch(ctx context.Context, repositoryID, branch, hash, old string) error {
	const zero = "0000000000000000000000000000000000000000"
	_, err := g.run(ctx, repositoryID, "update-ref", branchPrefix+branch, cmp.Or(hash, zero), cmp.Or(old, zero))
	return err
}
