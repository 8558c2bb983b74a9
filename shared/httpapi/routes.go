package httpapi

import (
	"io/fs"
	"net/http"
	"time"

	"runnerhub/shared/budget"
	"runnerhub/shared/catalog"
	"runnerhub/shared/connect"
	"runnerhub/shared/control"
	"runnerhub/shared/schedule"
	"runnerhub/shared/signin"
)

// guard says whom a route is for.
type guard int

const (
	public guard = iota // nobody is asked who he is
	known               // works for everyone, and knows a caller who says who he is
	user                // for callers who say who they are
	form                // the same, sent by a form of ours, whose ticket guards it from other sites
)

const (
	deadline     = budget.Request
	hookDeadline = budget.Hook
)

// route is one line of the table.
type route struct {
	method, path string
	guard        guard
	status       int                         // of a success
	fails        func(*call, problem) answer // how errors look; nil is asJSON
	deadline     time.Duration
	handle       func(*call) (answer, error)
}

// The table of everything there is, by groups.

type authGroup struct {
	*API

	people      *signin.SignIn
	connections *connect.Connect
}

// Auth is signing in and out, the way back from Bitbucket, whatever a browser left for, and
// API tokens; and the home page.
func Auth(people *signin.SignIn, connections *connect.Connect) Group {
	return authGroup{people: people, connections: connections}
}

func (a authGroup) routes(api *API) []route {
	a.API = api
	return []route{
		{http.MethodGet, "/healthz", public, 200, asJSON, deadline, a.health},
		{http.MethodGet, "/{$}", known, 200, asPage, deadline, a.home},
		{http.MethodGet, "/auth/login", public, 303, asPage, deadline, a.login},
		{http.MethodGet, "/auth/callback", public, 303, asPage, deadline, a.callback},
		{http.MethodPost, "/auth/logout", user, 204, asJSON, deadline, a.logout},
		{http.MethodPost, "/auth/confirm", form, 303, asPage, deadline, a.confirm},
		{http.MethodGet, "/api/me", user, 200, asJSON, deadline, a.me},
		{http.MethodGet, "/api/tokens", user, 200, asJSON, deadline, a.tokens},
		{http.MethodPost, "/api/tokens", user, 201, asJSON, deadline, a.createToken},
		{http.MethodDelete, "/api/tokens/{token}", user, 204, asJSON, deadline, a.deleteToken},
	}
}

type reposGroup struct{ connections *connect.Connect }

// Repos is connections to Bitbucket and the repositories of apps.
func Repos(connections *connect.Connect) Group { return reposGroup{connections} }

func (a reposGroup) routes(*API) []route {
	return []route{
		{http.MethodGet, "/api/workspaces/{workspace}/connections", user, 200, asJSON, deadline, a.list},
		{http.MethodPost, "/api/workspaces/{workspace}/connections", user, 201, asJSON, deadline, a.create},
		{http.MethodGet, "/api/connections/{connection}", user, 200, asJSON, deadline, a.connection},
		{http.MethodGet, "/api/connections/{connection}/workspaces", user, 200, asJSON, deadline, a.bitbucketWorkspaces},
		{http.MethodGet, "/api/connections/{connection}/repositories", user, 200, asJSON, deadline, a.bitbucketRepositories},
		{http.MethodGet, "/api/apps/{app}/repository", user, 200, asJSON, deadline, a.repository},
		{http.MethodPut, "/api/apps/{app}/repository", user, 200, asJSON, deadline, a.putRepository},
	}
}

type appsGroup struct{ things *catalog.Catalog }

// Apps is workspaces, apps, and what came for them.
func Apps(things *catalog.Catalog) Group { return appsGroup{things} }

func (a appsGroup) routes(*API) []route {
	return []route{
		{http.MethodGet, "/api/workspaces", user, 200, asJSON, deadline, a.workspaces},
		{http.MethodPost, "/api/workspaces", user, 201, asJSON, deadline, a.createWorkspace},
		{http.MethodGet, "/api/workspaces/{workspace}", user, 200, asJSON, deadline, a.workspace},
		{http.MethodGet, "/api/workspaces/{workspace}/apps", user, 200, asJSON, deadline, a.apps},
		{http.MethodPost, "/api/workspaces/{workspace}/apps", user, 201, asJSON, deadline, a.createApp},
		{http.MethodGet, "/api/apps/{app}", user, 200, asJSON, deadline, a.app},
		{http.MethodPatch, "/api/apps/{app}", user, 200, asJSON, deadline, a.changeApp},
		{http.MethodGet, "/api/apps/{app}/deliveries", user, 200, asJSON, deadline, a.deliveries},
	}
}

type buildsGroup struct {
	things *catalog.Catalog
	orders *control.Control
	report Report
	webURL string
}

// Builds is builds, their logs and pages, what makes more of them, and what their agents call. The pages link to
// Bitbucket's, which are below webURL, without a slash at its end; unless that is an http address, nothing links there.
func Builds(things *catalog.Catalog, orders *control.Control, report Report, webURL string) Group {
	return buildsGroup{things: things, orders: orders, report: report, webURL: webURL}
}

func (a buildsGroup) routes(*API) []route {
	return []route{
		{http.MethodGet, "/api/apps/{app}/builds", user, 200, asJSON, deadline, a.builds},
		{http.MethodPost, "/api/deliveries/{delivery}/replay", user, 202, asJSON, deadline, a.replay},
		{http.MethodGet, "/api/builds/{build}", user, 200, asJSON, deadline, a.build},
		{http.MethodPost, "/api/builds/{build}/approve", user, 202, asJSON, deadline, a.approve},
		{http.MethodPost, "/api/builds/{build}/cancel", user, 202, asJSON, deadline, a.cancel},
		{http.MethodGet, "/api/builds/{build}/log", user, 200, asJSON, deadline, a.buildLog},
		{http.MethodGet, "/builds/{build}", user, 200, asPage, deadline, a.buildPage},
		{http.MethodPost, "/runner/claim", public, 200, asJSON, deadline, a.claim},
		{http.MethodPost, "/runner/steps", public, 200, asJSON, deadline, a.steps},
	}
}

type schedulesGroup struct{ plans *schedule.Schedules }

// Schedules is the schedules of apps.
func Schedules(plans *schedule.Schedules) Group { return schedulesGroup{plans} }

func (a schedulesGroup) routes(*API) []route {
	return []route{
		{http.MethodGet, "/api/apps/{app}/schedules", user, 200, asJSON, deadline, a.list},
		{http.MethodPost, "/api/apps/{app}/schedules", user, 201, asJSON, deadline, a.create},
		{http.MethodPatch, "/api/schedules/{schedule}", user, 200, asJSON, deadline, a.change},
		{http.MethodDelete, "/api/schedules/{schedule}", user, 204, asJSON, deadline, a.delete},
	}
}

type agentsGroup struct{ programs fs.FS }

// Agents is the programs of builds that do not run on the server's machine: programs
// holds linux-amd64.gz and linux-arm64.gz.
func Agents(programs fs.FS) Group { return agentsGroup{programs} }

func (a agentsGroup) routes(*API) []route {
	return []route{
		{http.MethodGet, "/runner/agent/{platform}", public, 200, asJSON, deadline, a.agent},
	}
}

type webhookGroup struct{ ingest Ingest }

// Webhook is what Bitbucket calls.
func Webhook(ingest Ingest) Group { return webhookGroup{ingest} }

func (a webhookGroup) routes(*API) []route {
	return []route{
		{http.MethodPost, "/hooks/{hook}", public, 200, asJSON, hookDeadline, a.hook},
	}
}
