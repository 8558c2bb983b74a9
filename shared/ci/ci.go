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
	ID        string `json:"id"`
	Workspace string `json:"workspace"`
	Name      string `json:"name"`
	// PipelinePath is the one place of the pipeline file; empty: the default ones.
	PipelinePath string `json:"pipeline_path"`
	AllowForks   bool   `json:"allow_forks"` // builds pull requests from forks, once a member approved the commit
	// CancelSuperseded stops the older build of the same branch or pull request when a
	// newer one is made, as cancel_in_progress of a pipeline file does.
	CancelSuperseded bool      `json:"cancel_superseded"`
	CreatedAt        time.Time `json:"created_at"`
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

// Schedule says at which minutes an app is built whatever happens on Bitbucket: a branch,
// by a cron expression about what clocks in a zone show. Package timetable says what both may be.
type Schedule struct {
	ID        string    `json:"id"`
	App       string    `json:"app"`
	Cron      string    `json:"cron"`
	Zone      string    `json:"zone"` // IANA name
	Branch    string    `json:"branch"`
	Active    bool      `json:"active"` // of one that is not, no minute comes
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
	ChangedBy string    `json:"changed_by"`
	ChangedAt time.Time `json:"changed_at"`
	Last      *Occasion `json:"last,omitempty"`
}

// Occasion is the newest minute of a schedule that came, and what came of it.
type Occasion struct {
	Minute  time.Time `json:"minute"` // UTC
	Build   string    `json:"build,omitempty"`
	Number  int       `json:"number,omitempty"`
	Problem string    `json:"problem,omitempty"` // why there is no build or a broken one, in words
	Pending bool      `json:"pending,omitempty"` // it could not be looked into yet and will be tried again
}

// Over reports whether a minute needs no more work, because it was dealt with or a later
// one came. A nil Occasion is that no minute has come.
func (o *Occasion) Over(minute time.Time) bool {
	return o != nil && (o.Minute.After(minute) || o.Minute.Equal(minute) && !o.Pending)
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
	Held         Verdict = "HELD"          // a build was made that waits until a member approves its commit
	Skipped      Verdict = "SKIPPED"       // nothing to build, see the reason
	Broken       Verdict = "BROKEN"        // a build in state ERROR was made
	Offline      Verdict = "OFFLINE"       // the repository cannot be read: the connection is broken
)

// Decision is the verdict on one change of a delivery, and why: in words, and as data.
type Decision struct {
	Ref     string  `json:"ref"` // "branch main", "tag v1", "pull request #7"
	Verdict Verdict `json:"decision"`
	Reason  string  `json:"reason"`
	// Code is the reason in one word: that of the pipeline file's verdict, where it had one. Records of older versions may have none.
	Code        string    `json:"code,omitempty"`
	Rule        *Rule     `json:"rule,omitempty"`         // the trigger that takes the change
	Findings    []Finding `json:"findings,omitempty"`     // what filters said; not all, where there are many
	PullRequest int       `json:"pull_request,omitempty"` // that a pushed branch belongs to
	Build       string    `json:"build,omitempty"`
	Number      int       `json:"number,omitempty"`
}

// Rule is a place in the list of triggers of a pipeline file.
type Rule struct {
	Trigger int `json:"trigger"` // from 0
	Line    int `json:"line"`    // where it stands in the file
}

// Finding is what one filter of a trigger said of a value.
type Finding struct {
	Rule
	Filter   string   `json:"filter"` // branches, tags, source_branches, paths
	Result   string   `json:"result"`
	Value    string   `json:"value"`
	Patterns []string `json:"patterns,omitempty"`
	Except   []string `json:"except,omitempty"`
}
