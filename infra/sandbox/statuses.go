package sandbox

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

const maxStatusKey = 40

// A status is one build status of a commit. The same key may stand there several
// times, with different ref names.
type status struct {
	ID, Repository, Commit, Key   string
	State, URL, Name, Description string
	RefName                       string // "" is null
	Creator                       string
	CreatedAt, UpdatedAt          time.Time
}

func (s *status) kind() string { return "status" }
func (s *status) key() string  { return s.ID }

type statusInput struct {
	Key         *string `json:"key"`
	State       *string `json:"state"`
	URL         *string `json:"url"`
	Name        *string `json:"name"`
	Description *string `json:"description"`
	RefName     *string `json:"refname"`
}

// check refuses what a status may not be, as Bitbucket words it where that is known.
func (in statusInput) check() error {
	if in.Key != nil {
		if length := len([]rune(*in.Key)); length > maxStatusKey {
			return badField("key", "Ensure this value has at most %d characters (it has %d).", maxStatusKey, length)
		}
		if *in.Key == "" {
			return badField("key", "This field may not be blank.")
		}
	}
	if in.State != nil && !slices.Contains([]string{"INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"}, *in.State) {
		return badField("state", "'%s' is not one of INPROGRESS, SUCCESSFUL, FAILED, STOPPED.", *in.State)
	}
	if in.URL != nil {
		if problem := statusURLProblem(*in.URL); problem != "" {
			return badField("url", "%s", problem)
		}
	}
	if in.RefName != nil && strings.HasPrefix(*in.RefName, "refs/") {
		return badField("refname", "The name of a branch stands without refs/heads/.")
	}
	return nil
}

// statusURLProblem says what is wrong with a status's link, or "". The link is a URI
// template, so braces mean something and must be encoded.
func statusURLProblem(text string) string {
	if strings.ContainsAny(text, "{}") {
		return "Enter a valid URL: { and } must be percent-encoded."
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return "Enter a valid URL."
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && !strings.Contains(u.Hostname(), ".") {
		return "Enter a valid URL: the host must be an IP address or a full name."
	}
	return ""
}

func (s *Sandbox) statusObject(repo *repository, st *status) obj {
	n := s.namesOf(repo)
	commit := n.api + "/commit/" + st.Commit
	var refName any
	if st.RefName != "" {
		refName = st.RefName
	}
	return obj{
		"type": "build", "key": st.Key, "state": st.State, "name": st.Name, "description": st.Description, "url": st.URL,
		"refname": refName, "created_on": timestamp(st.CreatedAt), "updated_on": timestamp(st.UpdatedAt),
		"repository": s.repositoryReference(repo),
		"commit": obj{
			"type": "commit", "hash": st.Commit,
			"links": obj{"self": link(commit), "html": link(n.web + "/commits/" + st.Commit)},
		},
		"links": obj{"self": link(commit + "/statuses/build/" + escape(st.Key)), "commit": link(commit)},
	}
}

func statusField(st *status, name string) (any, bool) {
	switch name {
	case "key":
		return st.Key, true
	case "state":
		return st.State, true
	case "name":
		return st.Name, true
	case "refname":
		if st.RefName == "" {
			return nil, true
		}
		return st.RefName, true
	case "created_on":
		return timestamp(st.CreatedAt), true
	case "updated_on":
		return timestamp(st.UpdatedAt), true
	}
	return nil, false
}

// statusCommit checks the commit a path names: it must be there, by its full hash.
func (s *Sandbox) statusCommit(c *call) (string, error) {
	hash := c.PathValue("commit")
	if len(hash) == 40 {
		if found, err := s.git.commit(c.Context(), c.repo.ID, hash); err == nil {
			return found.hash, nil
		}
	}
	return "", notFound("Commit " + hash)
}

func (s *Sandbox) answerStatuses(c *call, list []*status) (*reply, error) {
	return answer(s, c, listing[*status]{
		items:  list,
		render: func(st *status) (any, error) { return s.statusObject(c.repo, st), nil },
		field:  statusField,
	})
}

func (s *Sandbox) listStatuses(c *call) (*reply, error) {
	hash, err := s.statusCommit(c)
	if err != nil {
		return nil, err
	}
	refName := c.URL.Query().Get("refname")
	var list []*status
	s.store.read(func(d *data) {
		for _, st := range d.statuses[c.repo.ID+hash] {
			if refName == "" || st.RefName == "" || st.RefName == refName {
				list = append(list, st)
			}
		}
	})
	return s.answerStatuses(c, list)
}

// withKey are the statuses of a commit that share a key, the oldest first.
func (d *data) withKey(repositoryID, hash, key string) []*status {
	var list []*status
	for _, st := range d.statuses[repositoryID+hash] {
		if st.Key == key {
			list = append(list, st)
		}
	}
	return list
}

func (s *Sandbox) getStatus(c *call) (*reply, error) {
	hash, err := s.statusCommit(c)
	if err != nil {
		return nil, err
	}
	var list []*status
	s.store.read(func(d *data) { list = d.withKey(c.repo.ID, hash, c.PathValue("key")) })
	if len(list) == 0 {
		return nil, notFound("Build status " + c.PathValue("key"))
	}
	return ok(s.statusObject(c.repo, list[len(list)-1]))
}

// matching is the status a POST overwrites, or nil: the one with the same ref name;
// one without any, which then gets the name; and without a name, the latest.
func matching(list []*status, refName *string) *status {
	if len(list) == 0 {
		return nil
	}
	if refName == nil || *refName == "" {
		return list[len(list)-1]
	}
	for _, name := range []string{*refName, ""} {
		if i := slices.IndexFunc(list, func(st *status) bool { return st.RefName == name }); i >= 0 {
			return list[i]
		}
	}
	return nil
}

func (s *Sandbox) createStatus(c *call) (*reply, error) {
	hash, in, err := s.statusRequest(c)
	if err != nil {
		return nil, err
	}
	for field, value := range map[string]*string{"key": in.Key, "state": in.State, "url": in.URL} {
		if value == nil {
			return nil, badField(field, "This field is required.")
		}
	}
	return s.putStatus(c, func(d *data) (*status, error) {
		if st := matching(d.withKey(c.repo.ID, hash, *in.Key), in.RefName); st != nil {
			return st, nil
		}
		return &status{Repository: c.repo.ID, Commit: hash, Key: *in.Key, Name: *in.Key, Creator: c.user.ID, CreatedAt: s.now()}, nil
	}, in)
}

// updateStatus answers PUT, which finds its status by key alone: where the key stands
// with another ref name than the one sent, it fails the way Bitbucket does.
func (s *Sandbox) updateStatus(c *call) (*reply, error) {
	hash, in, err := s.statusRequest(c)
	if err != nil {
		return nil, err
	}
	key := c.PathValue("key")
	if in.Key != nil && *in.Key != key {
		return nil, badField("key", "The key of a status cannot be changed.")
	}
	return s.putStatus(c, func(d *data) (*status, error) {
		list := d.withKey(c.repo.ID, hash, key)
		if len(list) == 0 {
			return nil, notFound("Build status " + key)
		}
		other := in.RefName != nil && list[0].RefName != "" && list[0].RefName != *in.RefName
		if len(list) > 1 || other {
			return nil, refuse(http.StatusInternalServerError, "Something went wrong")
		}
		return list[0], nil
	}, in)
}

func (s *Sandbox) statusRequest(c *call) (hash string, in statusInput, err error) {
	if hash, err = s.statusCommit(c); err != nil {
		return "", in, err
	}
	if err = c.decode(&in); err == nil {
		err = in.check()
	}
	return hash, in, err
}

// putStatus lays the input over the status that find gives. Only its creator, or an
// admin of the repository, may change one.
func (s *Sandbox) putStatus(c *call, find func(*data) (*status, error), in statusInput) (*reply, error) {
	var changed status
	fresh, id := false, newIdentity()
	change := func(d *data) error {
		st, err := find(d)
		if err != nil {
			return err
		}
		if st.Creator != c.user.ID && c.role < admin {
			return refuse(http.StatusForbidden, "Only the creator of a build status or an administrator of the repository can update it.")
		}
		changed = *st
		if fresh = changed.ID == ""; fresh {
			changed.ID = id
		}
		for to, from := range map[*string]*string{
			&changed.State: in.State, &changed.URL: in.URL, &changed.Name: in.Name, &changed.Description: in.Description,
		} {
			if from != nil {
				*to = *from
			}
		}
		if in.RefName != nil && *in.RefName != "" { // once set, it stays
			changed.RefName = *in.RefName
		}
		changed.UpdatedAt = s.now()
		return nil
	}
	// The event is composed from what the change gives now; the change is then made
	// again, alone, on what is there by then.
	var err error
	if s.store.read(func(d *data) { err = change(d) }); err != nil {
		return nil, err
	}
	key := "repo:commit_status_updated"
	if fresh {
		key = "repo:commit_status_created"
	}
	m, err := s.compose(c.repo, c.user, event{key, obj{"commit_status": s.statusObject(c.repo, &changed)}})
	if err != nil {
		return nil, err
	}
	err = s.commitWith([]message{m}, func(t *tx) error {
		if err := change(t.data); err != nil {
			return err
		}
		t.put(&changed)
		return nil
	})
	if err != nil {
		return nil, err
	}
	answered := http.StatusOK
	if c.Method == http.MethodPost {
		answered = http.StatusCreated
	}
	return &reply{status: answered, body: s.statusObject(c.repo, &changed)}, nil
}

// headStatuses are the statuses that count for a pull request's source: those with
// its branch as ref name, and those without any.
func (d *data) headStatuses(p *pullRequest) []*status {
	var list []*status
	for _, st := range d.statuses[p.SourceRepository+p.SourceHash] {
		if st.RefName == "" || st.RefName == p.SourceBranch {
			list = append(list, st)
		}
	}
	return list
}
