package sandbox

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A role is what a user may do in a repository. Each includes the ones below it.
type role string

const (
	none  role = ""
	read  role = "1read"
	write role = "2write"
	admin role = "3admin"
)

// String is the role's name as the API writes it. The stored value begins with a
// digit so that roles order as strings.
func (r role) String() string {
	if r == none {
		return "none"
	}
	return string(r[1:])
}

func roleNamed(name string) (order int, valid bool) {
	i := slices.IndexFunc([]role{read, write, admin}, func(r role) bool { return r.String() == name })
	return i + 1, i >= 0
}

func (r role) rank() rank {
	order, _ := roleNamed(r.String())
	return rank{text: r.String(), order: order}
}

// A user is an account. Its password is a sandbox's: stored hashed, so that the
// state folder can be handed around, but not slowly.
type user struct {
	ID, Name, DisplayName, Email, AccountID string
	Password                                string // hex SHA-256 of ID and password
	CreatedAt                               time.Time
}

func (u *user) kind() string { return "user" }
func (u *user) key() string  { return u.ID }

// A workspace holds repositories and knows its members.
type workspace struct {
	ID, Slug, Name string
	ProjectID      string // every repository is in the one project
	Members        map[string]member
	CreatedAt      time.Time
}

// A member has Role on every repository made from now on; an administrator is
// admin of all of them.
type member struct {
	Administrator bool
	Role          role
}

func (w *workspace) kind() string { return "workspace" }
func (w *workspace) key() string  { return w.ID }

// newUUID makes a random UUID without braces, which is how a request id goes; as
// an identity it is written in braces.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func newIdentity() string { return "{" + newUUID() + "}" }

func hashPassword(userID, password string) string {
	sum := sha256.Sum256([]byte(userID + "\x00" + password))
	return hex.EncodeToString(sum[:])
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,61}$`)

// AddUser makes an account whose password is its name.
func (s *Sandbox) AddUser(name, displayName string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("sandbox: add user: %q is not a name", name)
	}
	return s.store.update(func(t *tx) error {
		if t.userNamed(name) != nil {
			return fmt.Errorf("sandbox: add user: %s exists", name)
		}
		id := newIdentity()
		t.put(&user{
			ID: id, Name: name, DisplayName: displayName, Email: name + "@example.com",
			AccountID: "557058:" + newUUID(), Password: hashPassword(id, name), CreatedAt: s.now(),
		})
		return nil
	})
}

// AddWorkspace makes a workspace. members maps user names to "admin", "write" or
// "read": an admin administers the workspace, the others get that role on each of its
// repositories.
func (s *Sandbox) AddWorkspace(slug, name string, members map[string]string) error {
	if !validName.MatchString(slug) {
		return fmt.Errorf("sandbox: add workspace: %q is not a slug", slug)
	}
	return s.store.update(func(t *tx) error {
		if t.workspaceAt(slug) != nil {
			return fmt.Errorf("sandbox: add workspace: %s exists", slug)
		}
		w := &workspace{ID: newIdentity(), Slug: slug, Name: name, ProjectID: newIdentity(), Members: map[string]member{}, CreatedAt: s.now()}
		for userName, roleName := range members {
			u := t.userNamed(userName)
			order, valid := roleNamed(roleName)
			if u == nil || !valid {
				return fmt.Errorf("sandbox: add workspace: no user %q or no role %q", userName, roleName)
			}
			r := []role{read, write, admin}[order-1]
			w.Members[u.ID] = member{Administrator: r == admin, Role: r}
		}
		t.put(w)
		return nil
	})
}

// userWithPassword is the user with that name and password, or nil.
func (s *Sandbox) userWithPassword(name, password string) *user {
	var u *user
	s.store.read(func(d *data) { u = d.userNamed(name) })
	if u == nil || subtle.ConstantTimeCompare([]byte(u.Password), []byte(hashPassword(u.ID, password))) != 1 {
		return nil
	}
	return u
}

// roleOf is what u may do in r: by membership of the workspace, by a role on the
// repository, or because it is public.
func (d *data) roleOf(u *user, r *repository) role {
	if r == nil {
		return none
	}
	least := read
	if r.Private {
		least = none
	}
	if u == nil {
		return least
	}
	if d.workspaces[r.Workspace].Members[u.ID].Administrator {
		return admin
	}
	return max(least, r.Roles[u.ID])
}

func (s *Sandbox) userLinks(id string) obj {
	escaped := escape(id)
	return obj{
		"self":   link(s.publicURL + "/2.0/users/" + escaped),
		"html":   link(s.publicURL + "/" + escaped + "/"),
		"avatar": link(s.publicURL + "/account/" + escaped + "/avatar/"),
	}
}

// userObject is an account as it stands in other objects and in webhooks: it has no
// user name, which is nobody's business.
func (s *Sandbox) userObject(u *user) obj {
	if u == nil {
		return nil
	}
	return obj{
		"type": "user", "uuid": u.ID, "account_id": u.AccountID,
		"display_name": u.DisplayName, "nickname": u.DisplayName, "links": s.userLinks(u.ID),
	}
}

func (s *Sandbox) getUser(c *call) (*reply, error) {
	body := s.userObject(c.user)
	body["username"] = c.user.Name
	body["created_on"] = timestamp(c.user.CreatedAt)
	body["account_status"] = "active"
	body["has_2fa_enabled"] = nil
	body["is_staff"] = false
	return ok(body)
}

func (s *Sandbox) workspaceLinks(w *workspace) obj {
	return obj{
		"self":   link(s.publicURL + "/2.0/workspaces/" + w.Slug),
		"html":   link(s.publicURL + "/" + w.Slug + "/"),
		"avatar": link(s.publicURL + "/workspaces/" + w.Slug + "/avatar/"),
	}
}

func (s *Sandbox) workspaceObject(w *workspace) obj {
	return obj{"type": "workspace", "uuid": w.ID, "name": w.Name, "slug": w.Slug, "links": s.workspaceLinks(w)}
}

// memberOf finds the path's workspace and the caller's membership in it.
func (s *Sandbox) memberOf(c *call) (*workspace, member, error) {
	var w *workspace
	s.store.read(func(d *data) { w = d.workspaceAt(c.PathValue("workspace")) })
	if w != nil && c.user != nil {
		if m, isMember := w.Members[c.user.ID]; isMember {
			return w, m, nil
		}
	}
	return nil, member{}, refuse(http.StatusNotFound, "No workspace with identifier '%s'.", c.PathValue("workspace"))
}

func (s *Sandbox) getWorkspace(c *call) (*reply, error) {
	w, _, err := s.memberOf(c)
	if err != nil {
		return nil, err
	}
	return ok(s.workspaceObject(w))
}

// listWorkspaces answers GET /user/workspaces, whose items have neither the name of
// the workspace nor a role.
func (s *Sandbox) listWorkspaces(c *call) (*reply, error) {
	var mine []*workspace
	s.store.read(func(d *data) {
		for _, w := range d.workspaces {
			if _, isMember := w.Members[c.user.ID]; isMember {
				mine = append(mine, w)
			}
		}
	})
	switch only := c.URL.Query().Get("administrator"); only {
	case "":
	case "true", "false":
		mine = slices.DeleteFunc(mine, func(w *workspace) bool {
			return w.Members[c.user.ID].Administrator != (only == "true")
		})
	default:
		return nil, refuse(http.StatusBadRequest, "administrator: must be true or false")
	}
	slices.SortFunc(mine, func(a, b *workspace) int { return cmp.Compare(a.Slug, b.Slug) })
	return answer(s, c, listing[*workspace]{
		items: mine,
		render: func(w *workspace) (any, error) {
			return obj{
				"type": "workspace_access", "administrator": w.Members[c.user.ID].Administrator,
				"workspace": obj{"type": "workspace_base", "uuid": w.ID, "slug": w.Slug, "links": s.workspaceLinks(w)},
			}, nil
		},
		field: func(w *workspace, name string) (any, bool) {
			switch name {
			case "slug", "workspace.slug":
				return w.Slug, true
			case "uuid", "workspace.uuid":
				return w.ID, true
			}
			return nil, false
		},
	})
}

func (s *Sandbox) getWorkspacePermission(c *call) (*reply, error) {
	w, m, err := s.memberOf(c)
	if err != nil {
		return nil, err
	}
	permission := "member"
	if m.Administrator {
		permission = "owner"
	}
	return ok(obj{
		"type": "workspace_membership", "permission": permission,
		"user": s.userObject(c.user), "workspace": s.workspaceObject(w),
	})
}

// listRepositoryPermissions answers the caller's effective permission on each
// repository of a workspace. A public repository without a grant is left out.
func (s *Sandbox) listRepositoryPermissions(c *call) (*reply, error) {
	w, _, err := s.memberOf(c)
	if err != nil {
		return nil, err
	}
	type permission struct {
		repo *repository
		role role
	}
	var list []permission
	s.store.read(func(d *data) {
		for _, r := range d.repositoriesOf(w.ID) {
			if w.Members[c.user.ID].Administrator || r.Roles[c.user.ID] != none {
				list = append(list, permission{r, d.roleOf(c.user, r)})
			}
		}
	})
	return answer(s, c, listing[permission]{
		items: list,
		render: func(p permission) (any, error) {
			return obj{
				"type": "repository_permission", "permission": p.role.String(),
				"user": s.userObject(c.user), "repository": s.repositoryReference(p.repo),
			}, nil
		},
		field: func(p permission, name string) (any, bool) {
			if name == "permission" {
				return p.role.rank(), true
			}
			if field, found := strings.CutPrefix(name, "repository."); found {
				return s.repositoryField(p.repo, field)
			}
			return nil, false
		},
	})
}
