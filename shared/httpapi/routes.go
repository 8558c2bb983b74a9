package httpapi

import (
	"net/http"
	"time"
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
	deadline     = 25 * time.Second // API Gateway gives up after 30
	hookDeadline = 8 * time.Second  // Bitbucket gives up after 10
)

// route is one line of the table.
type route struct {
	method, path string
	guard        guard
	status       int  // of a success
	html         bool // errors are pages, too
	deadline     time.Duration
	handle       func(*call) (answer, error)
}

// routes is the table of everything there is. A route whose use case is not served has
// no handler.
func (a *API) routes() []route {
	table := []route{
		{http.MethodGet, "/healthz", public, 200, false, deadline, a.health},
	}
	if a.SignIn != nil {
		table = append(
			table,
			route{http.MethodGet, "/{$}", known, 200, true, deadline, a.home},
			route{http.MethodGet, "/auth/login", public, 303, true, deadline, a.login},
			route{http.MethodGet, "/auth/callback", public, 303, true, deadline, a.callback},
			route{http.MethodPost, "/auth/logout", user, 204, false, deadline, a.logout},
			route{http.MethodGet, "/api/me", user, 200, false, deadline, a.me},
			route{http.MethodGet, "/api/tokens", user, 200, false, deadline, a.tokens},
			route{http.MethodPost, "/api/tokens", user, 201, false, deadline, a.createToken},
			route{http.MethodDelete, "/api/tokens/{token}", user, 204, false, deadline, a.deleteToken},
		)
	}
	if a.Connect != nil {
		table = append(
			table,
			route{http.MethodPost, "/auth/confirm", form, 303, true, deadline, a.confirm},
			route{http.MethodGet, "/api/workspaces/{workspace}/connections", user, 200, false, deadline, a.connections},
			route{http.MethodPost, "/api/workspaces/{workspace}/connections", user, 201, false, deadline, a.createConnection},
			route{http.MethodGet, "/api/connections/{connection}", user, 200, false, deadline, a.connection},
			route{http.MethodGet, "/api/connections/{connection}/workspaces", user, 200, false, deadline, a.bitbucketWorkspaces},
			route{http.MethodGet, "/api/connections/{connection}/repositories", user, 200, false, deadline, a.bitbucketRepositories},
			route{http.MethodGet, "/api/apps/{app}/repository", user, 200, false, deadline, a.repository},
			route{http.MethodPut, "/api/apps/{app}/repository", user, 200, false, deadline, a.putRepository},
		)
	}
	if a.Catalog != nil {
		table = append(
			table,
			route{http.MethodGet, "/api/workspaces", user, 200, false, deadline, a.workspaces},
			route{http.MethodPost, "/api/workspaces", user, 201, false, deadline, a.createWorkspace},
			route{http.MethodGet, "/api/workspaces/{workspace}", user, 200, false, deadline, a.workspace},
			route{http.MethodGet, "/api/workspaces/{workspace}/apps", user, 200, false, deadline, a.apps},
			route{http.MethodPost, "/api/workspaces/{workspace}/apps", user, 201, false, deadline, a.createApp},
			route{http.MethodGet, "/api/apps/{app}", user, 200, false, deadline, a.app},
			route{http.MethodGet, "/api/apps/{app}/deliveries", user, 200, false, deadline, a.deliveries},
			route{http.MethodGet, "/api/apps/{app}/builds", user, 200, false, deadline, a.builds},
			route{http.MethodGet, "/api/builds/{build}", user, 200, false, deadline, a.build},
			route{http.MethodGet, "/api/builds/{build}/log", user, 200, false, deadline, a.buildLog},
			route{http.MethodGet, "/builds/{build}", user, 200, true, deadline, a.buildPage},
		)
	}
	if a.Ingest != nil {
		table = append(table, route{http.MethodPost, "/hooks/{hook}", public, 200, false, hookDeadline, a.hook})
	}
	if a.Report != nil {
		table = append(
			table,
			route{http.MethodPost, "/runner/claim", public, 200, false, deadline, a.claim},
			route{http.MethodPost, "/runner/steps", public, 200, false, deadline, a.steps},
		)
	}
	if a.Agents != nil {
		table = append(table, route{http.MethodGet, "/runner/agent/{platform}", public, 200, false, deadline, a.agent})
	}
	return table
}
