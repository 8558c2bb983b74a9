package bitbucket

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
)

// Repository is a repository as Bitbucket shows it.
type Repository struct {
	UUID          string // with braces
	FullName      string // workspace/slug; it changes with renames
	Name          string // for people; no slug
	MainBranch    string // empty while the repository is empty
	Private       bool
	CloneURL      string // https, below the configured web address, without a user name
	WorkspaceUUID string // with braces
}

// Commit is a commit as far as builds show it.
type Commit struct {
	Hash    string // 40 characters
	Message string // the first line, cut at 200 runes
	Marks   string // the [skip ci] or [ci skip] of the whole message, as it is written there
	Author  string // a name; never an e-mail address
	Date    time.Time
}

type wireRepository struct {
	UUID       string
	FullName   string `json:"full_name"`
	Name       string
	IsPrivate  bool `json:"is_private"`
	Mainbranch struct{ Name string }
	Workspace  struct{ UUID string }
}

// repositoryFields keeps a page of 100 well below the cap on answers.
func repositoryFields(prefix string) string {
	var fields []string
	for _, f := range []string{"uuid", "full_name", "name", "is_private", "mainbranch.name", "workspace.uuid"} {
		fields = append(fields, prefix+f)
	}
	return strings.Join(fields, ",")
}

// Repositories lists a workspace's repositories, last changed first, whose name
// contains query (all when empty). With adminOnly it lists those where Bitbucket
// says the account is administrator, which is what installing a webhook takes;
// whether rights inherited from the workspace count there is not documented, so
// a caller offers the full list too. Scope repository.
func (c *Client) Repositories(ctx context.Context, workspace, query, cursor string, adminOnly bool) (Page[Repository], error) {
	if !isUUID(workspace) {
		return Page[Repository]{}, notUUID("workspace")
	}
	r := request{
		doing: "listing repositories", method: http.MethodGet, path: []string{"repositories", workspace},
		query: url.Values{
			"pagelen": {"100"},
			"sort":    {"-updated_on"},
			"fields":  {"next," + repositoryFields("values.")},
		},
	}
	if adminOnly {
		r.query.Set("role", "admin")
	}
	if query != "" {
		r.query.Set("q", "name ~ "+quote(query))
	}
	return list(ctx, c, r, cursor, c.b.repository)
}

// Repository reads one by its UUID alone, which survives renames and transfers.
// Scope repository.
func (c *Client) Repository(ctx context.Context, uuid string) (Repository, error) {
	r, err := inRepository("reading the repository", http.MethodGet, uuid)
	if err != nil {
		return Repository{}, err
	}
	r.query = url.Values{"fields": {repositoryFields("")}}
	var w wireRepository
	if err := c.call(ctx, r, &w); err != nil {
		return Repository{}, err
	}
	repo, err := c.b.repository(w)
	if err != nil {
		return Repository{}, r.fail(fault.Unavailable, err, "an answer of another shape than documented")
	}
	return repo, nil
}

// repository makes the clone address itself instead of taking links.clone: those
// embed a user name, and the address is one that tokens are sent to.
func (b *Bitbucket) repository(w wireRepository) (Repository, error) {
	workspace, slug, ok := strings.Cut(w.FullName, "/")
	if !ok || !isUUID(w.UUID) || !isSlug(workspace) || !isSlug(slug) {
		return Repository{}, errors.New("a repository without uuid or full_name")
	}
	return Repository{
		UUID: w.UUID, FullName: w.FullName, Name: plain(w.Name, 255), MainBranch: w.Mainbranch.Name, Private: w.IsPrivate,
		CloneURL: b.web.String() + "/" + w.FullName + ".git", WorkspaceUUID: w.Workspace.UUID,
	}, nil
}

func isSlug(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}

// Branch answers the full hash of a branch's head. Scope repository.
func (c *Client) Branch(ctx context.Context, repo, name string) (string, error) {
	return c.ref(ctx, "reading branch "+plain(name, 100), repo, "branches", name)
}

// Tag answers the full hash of the commit a tag points to. Scope repository.
func (c *Client) Tag(ctx context.Context, repo, name string) (string, error) {
	return c.ref(ctx, "reading tag "+plain(name, 100), repo, "tags", name)
}

func (c *Client) ref(ctx context.Context, doing, repo, kind, name string) (string, error) {
	if !isRefName(name) || name == "." || name == ".." {
		return "", fault.Field("name", "not the name of a branch or a tag")
	}
	r, err := inRepository(doing, http.MethodGet, repo, "refs", kind, name)
	if err != nil {
		return "", err
	}
	var w struct{ Target struct{ Hash string } }
	if err := c.call(ctx, r, &w); err != nil {
		return "", err
	}
	if !isHash(w.Target.Hash, 40) {
		return "", r.strange("target.hash")
	}
	return w.Target.Hash, nil
}

// Commit reads a commit by its hash, of 7 characters or more: pull requests come
// with 12. Scope repository.
func (c *Client) Commit(ctx context.Context, repo, hash string) (Commit, error) {
	if !isHash(hash, 7) {
		return Commit{}, fault.Field("commit", "not a commit hash")
	}
	r, err := inRepository("reading commit "+hash, http.MethodGet, repo, "commit", hash)
	if err != nil {
		return Commit{}, err
	}
	var w wireCommit
	if err := c.call(ctx, r, &w); err != nil {
		return Commit{}, err
	}
	if !isHash(w.Hash, 40) || !strings.HasPrefix(strings.ToLower(w.Hash), strings.ToLower(hash)) {
		return Commit{}, r.strange("hash")
	}
	return Commit{w.Hash, firstLine(w.Message), ci.SkipMarker(w.Message), w.Author.name(), w.Date.Time}, nil
}

// wireCommit is a commit in an answer and in a webhook.
type wireCommit struct {
	Hash    string
	Message string
	Date    wireTime
	Author  wireAuthor
}

type wireAuthor struct {
	Raw  string
	User wireUser
}

type wireUser struct {
	DisplayName string `json:"display_name"`
	Nickname    string
}

func (u wireUser) name() string {
	if u.DisplayName != "" {
		return plain(u.DisplayName, 255)
	}
	return plain(u.Nickname, 255)
}

// name prefers the account's name to the one git recorded, and drops the latter's
// e-mail address.
func (a wireAuthor) name() string {
	if name := a.User.name(); name != "" {
		return name
	}
	raw, _, _ := strings.Cut(a.Raw, "<")
	if strings.Contains(raw, "@") {
		return ""
	}
	return plain(raw, 255)
}

// inRepository starts a request below a repository, addressed by UUID with an
// empty workspace.
func inRepository(doing, method, repo string, below ...string) (request, error) {
	if !isUUID(repo) {
		return request{}, notUUID("repository")
	}
	return request{doing: doing, method: method, path: append([]string{"repositories", "{}", repo}, below...)}, nil
}

func notUUID(field string) error { return fault.Field(field, "not a UUID with braces") }

// strange is the error of an answer that lacks what is documented.
func (r request) strange(field string) error {
	return r.fail(lost(r.method), nil, "an answer without a usable %s", field)
}

// quote makes a string literal of Bitbucket's filter language.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
