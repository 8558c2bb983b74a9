package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/store"
)

// permissions says what each role gets on each route that asks who the caller is, in the
// order OWNER, ADMIN, MEMBER, VIEWER, stranger, nobody.
func permissions() map[string][6]int {
	return map[string][6]int{
		"GET /api/me":                                    {200, 200, 200, 200, 200, 401},
		"POST /auth/logout":                              {204, 204, 204, 204, 204, 401},
		"GET /api/tokens":                                {200, 200, 200, 200, 200, 401},
		"POST /api/tokens":                               {201, 201, 201, 201, 201, 401},
		"DELETE /api/tokens/{token}":                     {204, 404, 404, 404, 404, 401}, // the owner's own
		"GET /api/workspaces":                            {200, 200, 200, 200, 200, 401},
		"POST /api/workspaces":                           {201, 201, 201, 201, 201, 401},
		"GET /api/workspaces/{workspace}":                {200, 200, 200, 200, 404, 401},
		"GET /api/workspaces/{workspace}/apps":           {200, 200, 200, 200, 404, 401},
		"POST /api/workspaces/{workspace}/apps":          {201, 201, 403, 403, 404, 401},
		"GET /api/workspaces/{workspace}/connections":    {200, 200, 200, 200, 404, 401},
		"POST /api/workspaces/{workspace}/connections":   {201, 201, 403, 403, 404, 401},
		"GET /api/connections/{connection}":              {200, 200, 200, 200, 404, 401},
		"GET /api/connections/{connection}/workspaces":   {200, 200, 403, 403, 404, 401},
		"GET /api/connections/{connection}/repositories": {200, 200, 403, 403, 404, 401},
		"GET /api/apps/{app}":                            {200, 200, 200, 200, 404, 401},
		"PATCH /api/apps/{app}":                          {200, 200, 403, 403, 404, 401},
		"PATCH /api/apps/{absent}":                       {404, 404, 404, 404, 404, 401},
		"GET /api/apps/{app}/repository":                 {200, 200, 200, 200, 404, 401},
		"PUT /api/apps/{app}/repository":                 {200, 200, 403, 403, 404, 401},
		"GET /api/apps/{app}/deliveries":                 {200, 200, 200, 200, 404, 401},
		"POST /api/apps/{app}/pipeline/check":            {200, 200, 200, 200, 404, 401},
		"POST /api/apps/{absent}/pipeline/check":         {404, 404, 404, 404, 404, 401},
		"POST /api/deliveries/{delivery}/replay":         {202, 202, 202, 403, 404, 401},
		"POST /api/deliveries/{absent}/replay":           {404, 404, 404, 404, 404, 401},
		"GET /api/apps/{app}/builds":                     {200, 200, 200, 200, 404, 401},
		"GET /api/apps/{app}/schedules":                  {200, 200, 200, 200, 404, 401},
		"POST /api/apps/{app}/schedules":                 {201, 201, 403, 403, 404, 401},
		"PATCH /api/schedules/{schedule}":                {200, 200, 403, 403, 404, 401},
		"DELETE /api/schedules/{schedule}":               {204, 204, 403, 403, 404, 401},
		"GET /api/builds/{build}":                        {200, 200, 200, 200, 404, 401},
		"GET /api/builds/{build}/log":                    {200, 200, 200, 200, 404, 401},
		"GET /builds/{build}":                            {200, 200, 200, 200, 404, 401},
		"POST /api/builds/{build}/approve":               {202, 202, 202, 403, 404, 401},
		"POST /api/builds/{ended}/approve":               {409, 409, 409, 403, 404, 401},
		"POST /api/builds/{absent}/approve":              {404, 404, 404, 404, 404, 401},
		"POST /api/builds/{build}/cancel":                {202, 202, 202, 403, 404, 401},
		"POST /api/builds/{ended}/cancel":                {409, 409, 409, 403, 404, 401},
		"POST /api/builds/{absent}/cancel":               {404, 404, 404, 404, 404, 401},
		"POST /auth/confirm (a ticket nobody has)":       {400, 400, 400, 400, 400, 401},
		"GET /api/apps/{absent}/schedules":               {404, 404, 404, 404, 404, 401},
		"PATCH /api/schedules/{absent}":                  {404, 404, 404, 404, 404, 401},
		"DELETE /api/schedules/{absent}":                 {404, 404, 404, 404, 404, 401},
		"GET /api/workspaces/{absent}":                   {404, 404, 404, 404, 404, 401},
		"GET /api/apps/{absent}":                         {404, 404, 404, 404, 404, 401},
		"PUT /api/apps/{absent}/repository":              {404, 404, 404, 404, 404, 401},
		"GET /api/connections/{absent}/workspaces":       {404, 404, 404, 404, 404, 401},
		"GET /api/builds/{absent}":                       {404, 404, 404, 404, 404, 401},
		"GET /builds/{absent}":                           {404, 404, 404, 404, 404, 401},
		"GET /api/builds/{absent}/log":                   {404, 404, 404, 404, 404, 401},
		"POST /api/workspaces/{absent}/apps":             {404, 404, 404, 404, 404, 401},
		"POST /api/workspaces/{absent}/connections":      {404, 404, 404, 404, 404, 401},

		"GET /api/apps/{app}/pipelines":                   {200, 200, 200, 200, 404, 401},
		"PUT /api/apps/{app}/pipelines":                   {409, 200, 403, 403, 404, 401}, // the admin was first
		"DELETE /api/apps/{app}/pipelines/{pipeline}":     {404, 404, 403, 403, 404, 401},
		"GET /api/apps/{app}/pipeline-versions":           {200, 200, 200, 200, 404, 401},
		"GET /api/apps/{app}/pipeline-versions/{version}": {404, 404, 404, 404, 404, 401},
	}
}

func TestRoles(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	b.ok(b.sandbox.AddUser("dave", "Dave Watcher"))
	owner, connection, app := b.app()
	workspace := owner.get("/api/apps/" + app).text("workspace")
	shop := owner.repositoryNamed(connection, "shop")
	owner.put("/api/apps/"+app+"/repository", tie(connection, shop)).want(201)
	build := b.builds(app, workspace, ci.Successful)
	admin, member, viewer := b.signsIn("bob"), b.signsIn("carol"), b.signsIn("dave")
	b.joins(admin.id(), workspace, ci.Admin)
	b.joins(member.id(), workspace, ci.Editor)
	b.joins(viewer.id(), workspace, ci.Viewer)
	delivery := b.delivers(app, workspace, ci.Event{Kind: ci.EventOther, Key: "repo:fork"}, "")
	callers := []*browser{owner, admin, member, viewer, b.signsIn("mallory"), b.browser()}
	names := []string{"OWNER", "ADMIN", "MEMBER", "VIEWER", "stranger", "nobody"}

	bodies := map[string]any{
		"POST /api/workspaces/{workspace}/connections": map[string]string{"provider": "bitbucket"},
		"PUT /api/apps/{app}/repository":               tie(connection, shop),
		"POST /api/apps/{app}/schedules":               nightly(),
		"PATCH /api/schedules/{schedule}":              map[string]bool{"active": false},
		"PUT /api/apps/{app}/pipelines":                map[string]any{"branches": "**", "text": "name: Shop\ntriggers: []\nsteps:\n  - run: make\n", "version": 0},
		"POST /api/apps/{app}/pipeline/check":          map[string]string{"text": "steps: []"},
		"PATCH /api/schedules/{absent}":                map[string]bool{"active": false},
	}
	for _, absent := range []string{"POST /api/workspaces/{absent}/connections", "PUT /api/apps/{absent}/repository", "POST /api/apps/{absent}/pipeline/check"} {
		bodies[absent] = bodies[strings.NewReplacer("workspaces/{absent}", "workspaces/{workspace}", "apps/{absent}", "apps/{app}").Replace(absent)]
	}
	covered := map[string]bool{}
	for row, statuses := range permissions() {
		route, _, _ := strings.Cut(row, " (")
		covered[route] = true
		method, path, _ := strings.Cut(route, " ")
		token := ""
		if strings.Contains(route, "{token}") {
			token = owner.post("/api/tokens", map[string]string{"name": "x"}).want(201).text("id")
		}
		path = strings.NewReplacer("{workspace}", workspace, "{connection}", connection, "{app}", app, "{ended}", build, "{delivery}", delivery, "{token}", token, "{absent}", "nosuchthing").Replace(path)
		if strings.HasSuffix(path, "/repositories") {
			path += "?workspace=acme"
		}
		path = strings.NewReplacer("{pipeline}", "nosuchfile?version=1", "{version}", "999").Replace(path)
		for i := len(callers) - 1; i >= 0; i-- { // the owner, who can delete, is the last
			caller := callers[i].clone()
			path := path
			if strings.Contains(path, "{schedule}") { // each caller has one of his own to delete
				id := owner.post("/api/apps/"+app+"/schedules", nightly()).want(201).text("id")
				path = strings.Replace(path, "{schedule}", id, 1)
			}
			if strings.HasSuffix(path, "{build}/cancel") { // and one to stop
				path = strings.Replace(path, "{build}", b.builds(app, workspace, ci.Queued), 1)
			}
			if strings.HasSuffix(path, "{build}/approve") { // and one to approve
				held := b.builds(app, workspace, ci.Queued)
				_, err := b.store.ChangeApp(t.Context(), app, func(a *ci.App) { a.AllowForks = true })
				b.ok(err)
				_, _, err = b.store.ChangeBuild(t.Context(), held, func(edited *store.Build) (bool, error) {
					edited.Held = true
					return true, nil
				})
				b.ok(err)
				path = strings.Replace(path, "{build}", held, 1)
			}
			path = strings.Replace(path, "{build}", build, 1)
			if route == "POST /auth/logout" && i < 5 {
				caller = b.signsIn([]string{"alice", "bob", "carol", "dave", "mallory"}[i])
			}
			var body any
			if method != http.MethodGet {
				if body = bodies[route]; body == nil {
					body = map[string]string{"name": "x"}
				}
			}
			if a := caller.do(method, path, body); a.status != statuses[i] {
				t.Errorf("%s: %s gets %d, want %d: %.200s", row, names[i], a.status, statuses[i], a.body)
			}
		}
	}
	// What a stranger may not see looks like what does not exist.
	stranger := callers[4]
	for _, pair := range [][2]string{
		{"/api/workspaces/" + workspace, "/api/workspaces/x"},
		{"/api/apps/" + app, "/api/apps/x"},
		{"/api/connections/" + connection, "/api/connections/x"},
		{"/api/builds/" + build, "/api/builds/x"},
		{"/api/apps/" + app + "/schedules", "/api/apps/x/schedules"},
	} {
		if hidden, absent := stranger.get(pair[0]).text("detail"), stranger.get(pair[1]).text("detail"); hidden != absent {
			t.Errorf("a stranger is told %q of what is there, and %q of what is not", hidden, absent)
		}
	}
	for _, r := range b.api.Routes() {
		if !r.Public && !covered[r.Method+" "+r.Path] {
			t.Errorf("no row for %s %s", r.Method, r.Path)
		}
	}
}

// delivers stores a delivery of an app that has been decided.
func (b *bed) delivers(app, workspace string, content ci.Event, note string) string {
	b.t.Helper()
	d := store.Delivery{
		Delivery: ci.Delivery{
			ID: b.newID(), App: app, Event: "repo:push", RequestID: "r", Attempt: 1, ReceivedAt: b.now().UTC(), DecidedAt: b.now().UTC(),
			Decisions: []ci.Decision{{Ref: "branch main", Verdict: ci.Skipped, Reason: "not then"}},
		},
		Workspace: workspace, Hook: "hook", Content: content, Note: note,
	}
	_, err := b.store.PutDelivery(b.t.Context(), d)
	b.ok(err)
	return d.ID
}

// builds stores a build of an app.
func (b *bed) builds(app, workspace string, state ci.State) string {
	b.t.Helper()
	build := store.Build{Build: ci.Build{
		ID: b.newID(), Workspace: workspace, App: app, State: ci.Queued, Trigger: ci.TriggerPush, Name: "Shop", Branch: "main",
		Commit: strings.Repeat("ab", 20), Message: "Count <b>everything</b>", Author: "Alice", Repository: "{r}", FullName: "acme/shop",
		StatusKey: "key", CreatedAt: b.now().UTC(), Steps: []ci.Step{
			{Name: "Test", State: ci.StepSuccessful, StartedAt: b.now(), FinishedAt: b.now().Add(3 * time.Second)},
			{Name: "Package", State: ci.StepFailed, ExitCode: 2, StartedAt: b.now(), FinishedAt: b.now().Add(time.Second)},
		},
	}, Runner: "test"}
	build.Log = "log-of-" + build.ID
	made, _, err := b.store.CreateBuild(b.t.Context(), store.NewBuild{Build: build, Script: "none"})
	b.ok(err)
	b.becomes(made.ID, state)
	return made.ID
}

// becomes moves a build to a state.
func (b *bed) becomes(build string, state ci.State) {
	b.t.Helper()
	_, _, err := b.store.ChangeBuild(b.t.Context(), build, func(edited *store.Build) (bool, error) {
		if state == ci.Queued {
			return false, nil
		}
		edited.State = state
		if state.Final() {
			edited.Reason = "step Package failed with exit code 2"
		}
		edited.StartedAt = b.now()
		return true, nil
	})
	b.ok(err)
}

func TestOneWorkspace(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{one: true})
	br := b.signsIn("alice")
	first := br.makes("/api/workspaces", "First")
	for name, advice := range map[string]string{"alice": first, "bob": "ask its owner"} {
		b.signsIn(name).post("/api/workspaces", map[string]string{"name": "Second"}).want(409).says("one workspace only").says(advice)
	}
	if got := br.get("/api/workspaces").want(200).items(); len(got) != 1 || got[0]["id"] != first {
		t.Errorf("the workspaces are %v", got)
	}
	if only, err := b.store.OnlyWorkspace(t.Context(), first); err != nil || !only {
		t.Errorf("the first workspace is the only one: %v, %v", only, err)
	}
}
