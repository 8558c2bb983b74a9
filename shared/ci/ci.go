// Package ci is the vocabulary: what a workspace, an app, a build and a change
// are, which role may do what, and how a build's state may move. Plain values
// and pure functions; it stores nothing, calls nothing and knows no protocol.
package ci

import "time"

// User is a person who signed in. ID is ours; Account is Bitbucket's UUID with
// braces, the only identity that survives renames.
type User struct {
	ID        string    `json:"id"`
	Account   string    `json:"account"`
	Nickname  string    `json:"nickname"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// Workspace is a tenant: it holds members, connections and apps.
type Workspace struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// Member is a user's place in a workspace.
type Member struct {
	Workspace string    `json:"workspace"`
	User      string    `json:"user"`
	Role      Role      `json:"role"`
	CreatedAt time.Time `json:"created_at"`
}

// App is what is built: one repository and one pipeline file.
type App struct {
	ID        string    `json:"id"`
	Workspace string    `json:"workspace"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// ConnectionState says whether a connection's grant works.
type ConnectionState string

const (
	ConnectionActive    ConnectionState = "ACTIVE"
	ConnectionReconnect ConnectionState = "RECONNECT" // the grant is gone; somebody has to authorise again
)

// Connection is a Bitbucket account's grant to a workspace. Its tokens are not
// part of it.
type Connection struct {
	ID        string          `json:"id"`
	Workspace string          `json:"workspace"`
	Provider  string          `json:"provider"` // "bitbucket"
	Account   string          `json:"account"`  // UUID with braces
	Nickname  string          `json:"nickname"`
	Scopes    []string        `json:"scopes"`
	State     ConnectionState `json:"state"`
	Reason    string          `json:"reason,omitempty"` // of a state that is not ACTIVE, in words
	CreatedBy string          `json:"created_by"`
	CreatedAt time.Time       `json:"created_at"`
}

// Repository is an app's tie to a repository on Bitbucket. UUIDs carry braces.
type Repository struct {
	App         string    `json:"app"`
	Connection  string    `json:"connection"`
	UUID        string    `json:"uuid"`
	FullName    string    `json:"full_name"` // for people; it changes with renames
	MainBranch  string    `json:"main_branch,omitempty"`
	Hook        string    `json:"-"`         // id in our hook address
	HookUUID    string    `json:"hook_uuid"` // Bitbucket's id of the webhook
	InstalledAt time.Time `json:"connected_at"`
}

// Delivery is one webhook request that was verified.
type Delivery struct {
	ID         string     `json:"id"`
	App        string     `json:"app"`
	Event      string     `json:"event"` // Bitbucket's event key
	RequestID  string     `json:"request_id"`
	Attempt    int        `json:"attempt"`
	ReceivedAt time.Time  `json:"received_at"`
	DecidedAt  time.Time  `json:"decided_at,omitzero"`
	Decisions  []Decision `json:"decisions"`
}

// Verdict is what was decided for one change.
type Verdict string

const (
	Built        Verdict = "BUILT"         // a build was made
	AlreadyBuilt Verdict = "ALREADY_BUILT" // the change has a build
	Skipped      Verdict = "SKIPPED"       // nothing to build, see the reason
	Broken       Verdict = "BROKEN"        // a build in state ERROR was made
	Offline      Verdict = "OFFLINE"       // the repository cannot be read: the connection is broken
)

// Decision is the verdict on one change of a delivery, and why, in words.
type Decision struct {
	Ref     string  `json:"ref"` // "branch main", "tag v1", "pull request #7"
	Verdict Verdict `json:"decision"`
	Reason  string  `json:"reason"`
	Build   string  `json:"build,omitempty"`
	Number  int     `json:"number,omitempty"`
}
