package httpapi

import (
	"net/http"

	"runnerhub/shared/connect"
)

func (a *API) workspaces(c *call) (answer, error) {
	return replyList(a.Catalog.Workspaces(c.Context(), c.user(), c.query("cursor")))
}

// named is the body that makes a workspace or an app.
type named struct {
	Name string `json:"name"`
}

func (a *API) createWorkspace(c *call) (answer, error) {
	var in named
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.Catalog.CreateWorkspace(c.Context(), c.user(), in.Name))
}

func (a *API) workspace(c *call) (answer, error) {
	return reply(a.Catalog.Workspace(c.Context(), c.user(), c.PathValue("workspace")))
}

func (a *API) apps(c *call) (answer, error) {
	return replyList(a.Catalog.Apps(c.Context(), c.user(), c.PathValue("workspace"), c.query("cursor")))
}

func (a *API) createApp(c *call) (answer, error) {
	var in named
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.Catalog.CreateApp(c.Context(), c.user(), c.PathValue("workspace"), in.Name))
}

func (a *API) app(c *call) (answer, error) {
	return reply(a.Catalog.App(c.Context(), c.user(), c.PathValue("app")))
}

func (a *API) deliveries(c *call) (answer, error) {
	return replyList(a.Catalog.Deliveries(c.Context(), c.user(), c.PathValue("app"), c.query("cursor")))
}

func (a *API) builds(c *call) (answer, error) {
	return replyList(a.Catalog.Builds(c.Context(), c.user(), c.PathValue("app"), c.query("cursor")))
}

func (a *API) build(c *call) (answer, error) {
	return reply(a.Catalog.Build(c.Context(), c.user(), c.PathValue("build")))
}

func (a *API) buildLog(c *call) (answer, error) {
	return reply(a.Catalog.Log(c.Context(), c.user(), c.PathValue("build"), c.query("cursor")))
}

func (a *API) connections(c *call) (answer, error) {
	return replyList(a.Connect.Connections(c.Context(), c.user(), c.PathValue("workspace"), c.query("cursor")))
}

func (a *API) createConnection(c *call) (answer, error) {
	var in struct {
		Provider string `json:"provider"`
		Return   string `json:"return"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	to, err := a.Connect.Begin(c.Context(), browserOf(c), c.PathValue("workspace"), in.Provider, in.Return)
	return reply(struct {
		AuthorizeURL string `json:"authorize_url"`
	}{to}, err)
}

func (a *API) connection(c *call) (answer, error) {
	return reply(a.Connect.Connection(c.Context(), c.user(), c.PathValue("connection")))
}

func (a *API) bitbucketWorkspaces(c *call) (answer, error) {
	return replyList(a.Connect.Workspaces(c.Context(), c.user(), c.PathValue("connection"), c.query("cursor")))
}

func (a *API) bitbucketRepositories(c *call) (answer, error) {
	return replyList(a.Connect.Repositories(c.Context(), c.user(), c.PathValue("connection"), connect.Search{
		Workspace: c.query("workspace"), Query: c.query("q"), All: c.query("all") == "true", Cursor: c.query("cursor"),
	}))
}

func (a *API) repository(c *call) (answer, error) {
	return reply(a.Connect.Repository(c.Context(), c.user(), c.PathValue("app")))
}

func (a *API) putRepository(c *call) (answer, error) {
	var in struct {
		Connection string `json:"connection"`
		Repository string `json:"repository"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	repo, created, err := a.Connect.PutRepository(c.Context(), c.user(), c.PathValue("app"), in.Connection, in.Repository)
	if created {
		c.status = http.StatusCreated
	}
	return reply(repo, err)
}
