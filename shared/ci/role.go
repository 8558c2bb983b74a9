package ci

import "slices"

// Role is what a member is in a workspace.
type Role string

const (
	Owner  Role = "OWNER"
	Admin  Role = "ADMIN"
	Editor Role = "MEMBER"
	Viewer Role = "VIEWER"
)

// Permission is something a role may do.
type Permission string

const (
	See             Permission = "see workspaces, apps, builds, logs, artifacts"
	RunBuilds       Permission = "trigger, cancel, rerun builds"
	Configure       Permission = "change app settings; connect repositories"
	Manage          Permission = "create and delete apps; manage members"
	DeleteWorkspace Permission = "delete the workspace"
)

// Allows is the one table of permissions.
func (r Role) Allows(p Permission) bool {
	var roles []Role
	switch p {
	case See:
		roles = []Role{Owner, Admin, Editor, Viewer}
	case RunBuilds:
		roles = []Role{Owner, Admin, Editor}
	case Configure, Manage:
		roles = []Role{Owner, Admin}
	case DeleteWorkspace:
		roles = []Role{Owner}
	}
	return slices.Contains(roles, r)
}
