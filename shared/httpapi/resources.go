package httpapi

import (
	"net/http"

	"runnerhub/shared/catalog"
	"runnerhub/shared/connect"
	"runnerhub/shared/schedule"
)

func (a appsGroup) workspaces(c *call) (answer, error) {
	return replyList(a.things.Workspaces(c.Context(), c.user(), c.query("cursor")))
}

// named is the body that makes a workspace or an app.
type named struct {
	Name string `json:"name"`
}

func (a appsGroup) createWorkspace(c *call) (answer, error) {
	var in named
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.things.CreateWorkspace(c.Context(), c.user(), in.Name))
}

func (a appsGroup) workspace(c *call) (answer, error) {
	return reply(a.things.Workspace(c.Context(), c.user(), c.PathValue("workspace")))
}

func (a appsGroup) apps(c *call) (answer, error) {
	return replyList(a.things.Apps(c.Context(), c.user(), c.PathValue("workspace"), c.query("cursor")))
}

func (a appsGroup) createApp(c *call) (answer, error) {
	var in named
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.things.CreateApp(c.Context(), c.user(), c.PathValue("workspace"), in.Name))
}

func (a appsGroup) app(c *call) (answer, error) {
	return reply(a.things.App(c.Context(), c.user(), c.PathValue("app")))
}

func (a appsGroup) changeApp(c *call) (answer, error) {
	var in struct {
		Name         *string `json:"name"`
		PipelinePath *string `json:"pipeline_path"`
		AllowForks   *bool   `json:"allow_forks"`

		CancelSuperseded *bool `json:"cancel_superseded"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.things.ChangeApp(c.Context(), c.user(), c.PathValue("app"), catalog.Settings(in)))
}

func (a appsGroup) deliveries(c *call) (answer, error) {
	return replyList(a.things.Deliveries(c.Context(), c.user(), c.PathValue("app"), c.query("cursor")))
}

func (a buildsGroup) builds(c *call) (answer, error) {
	return replyList(a.things.Builds(c.Context(), c.user(), c.PathValue("app"), c.query("cursor")))
}

func (a buildsGroup) replay(c *call) (answer, error) {
	return reply(a.things.Replay(c.Context(), c.user(), c.PathValue("delivery")))
}

func (a buildsGroup) build(c *call) (answer, error) {
	return reply(a.things.Build(c.Context(), c.user(), c.PathValue("build")))
}

func (a buildsGroup) approve(c *call) (answer, error) {
	if err := a.orders.Approve(c.Context(), c.user(), c.PathValue("build")); err != nil {
		return nil, err
	}
	return reply(a.things.Build(c.Context(), c.user(), c.PathValue("build")))
}

func (a buildsGroup) cancel(c *call) (answer, error) {
	if err := a.orders.Cancel(c.Context(), c.user(), c.PathValue("build")); err != nil {
		return nil, err
	}
	return reply(a.things.Build(c.Context(), c.user(), c.PathValue("build")))
}

func (a buildsGroup) buildLog(c *call) (answer, error) {
	return reply(a.things.Log(c.Context(), c.user(), c.PathValue("build"), c.query("cursor")))
}

func (a reposGroup) list(c *call) (answer, error) {
	return replyList(a.connections.Connections(c.Context(), c.user(), c.PathValue("workspace"), c.query("cursor")))
}

func (a reposGroup) create(c *call) (answer, error) {
	var in struct {
		Provider string `json:"provider"`
		Return   string `json:"return"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	to, err := a.connections.Begin(c.Context(), browserOf(c), c.PathValue("workspace"), in.Provider, in.Return)
	return reply(struct {
		AuthorizeURL string `json:"authorize_url"`
	}{to}, err)
}

func (a reposGroup) connection(c *call) (answer, error) {
	return reply(a.connections.Connection(c.Context(), c.user(), c.PathValue("connection")))
}

func (a reposGroup) bitbucketWorkspaces(c *call) (answer, error) {
	return replyList(a.connections.Workspaces(c.Context(), c.user(), c.PathValue("connection"), c.query("cursor")))
}

func (a reposGroup) bitbucketRepositories(c *call) (answer, error) {
	return replyList(a.connections.Repositories(c.Context(), c.user(), c.PathValue("connection"), connect.Search{
		Workspace: c.query("workspace"), Query: c.query("q"), All: c.query("all") == "true", Cursor: c.query("cursor"),
	}))
}

func (a reposGroup) repository(c *call) (answer, error) {
	return reply(a.connections.Repository(c.Context(), c.user(), c.PathValue("app")))
}

func (a reposGroup) putRepository(c *call) (answer, error) {
	var in struct {
		Connection string `json:"connection"`
		Repository string `json:"repository"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	repo, created, err := a.connections.PutRepository(c.Context(), c.user(), c.PathValue("app"), in.Connection, in.Repository)
	if created {
		c.status = http.StatusCreated
	}
	return reply(repo, err)
}

func (a schedulesGroup) list(c *call) (answer, error) {
	return replyList(a.plans.List(c.Context(), c.user(), c.PathValue("app"), c.query("cursor")))
}

// scheduled is the body that makes or changes a schedule.
type scheduled struct {
	Cron   *string `json:"cron"`
	Zone   *string `json:"zone"`
	Branch *string `json:"branch"`
	Active *bool   `json:"active"`
}

func (a schedulesGroup) create(c *call) (answer, error) {
	var in scheduled
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.plans.Create(c.Context(), c.user(), c.PathValue("app"), schedule.Change(in)))
}

func (a schedulesGroup) change(c *call) (answer, error) {
	var in scheduled
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return reply(a.plans.Change(c.Context(), c.user(), c.PathValue("schedule"), schedule.Change(in)))
}

func (a schedulesGroup) delete(c *call) (answer, error) {
	if err := a.plans.Delete(c.Context(), c.user(), c.PathValue("schedule")); err != nil {
		return nil, err
	}
	return nothing{}, nil
}
