package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"runnerhub/infra/lambdahost"
	"runnerhub/infra/scheduler"
	"runnerhub/infra/visitor"
)

// The paths whose crash points diesAtEachCall goes through. What several have in common is gone through in one of them: above all the
// posting of a status, where a poster that died keeps others away for most of a minute.

// docs is a repository of the sandbox that nothing is tied to by itself.
const docs = "acme/docs"

func paths() []path {
	auth, repos, apps, plans := []string{"AuthFunction"}, []string{"ReposFunction"}, []string{"AppsFunction"}, []string{"SchedulesFunction"}
	builds, decides := []string{"BuildsFunction", "DispatchFunction"}, []string{"DispatchFunction"}
	return []path{
		// First, while there is one connection; then those that take long.
		{name: "refresh", functions: []string{"RefreshFunction"}, least: 3, begin: refreshing},
		{name: "push", least: 15, begin: pushing},
		{name: "pull request of a fork", functions: builds, least: 20, begin: approving},
		{name: "pull request that is overtaken", functions: decides, least: 16, begin: overtaking},
		{name: "turns", functions: builds, least: 10, begin: takingTurns},
		{name: "end that only the runner tells", functions: []string{"ReportFunction"}, least: 4, begin: abandoned},
		{name: "sweep", functions: []string{"SweepFunction"}, least: 3, begin: sweeping},
		{name: "sweep of lines", functions: []string{"SweepFunction"}, least: 4, begin: sweepingLines},
		{name: "replay", functions: builds, least: 6, begin: replaying},
		{name: "minute of a schedule", functions: decides, least: 5, begin: minute},
		{name: "cancel", functions: builds, least: 4, begin: cancelling},
		{name: "cancel what waits", functions: []string{"BuildsFunction"}, least: 2, begin: cancellingEarly, end: cancelledEarly},
		{name: "connect another account", functions: auth, least: 5, begin: connectingAnother},
		{name: "connect", functions: []string{"AuthFunction", "ReposFunction"}, least: 5, begin: connecting},
		{name: "workspace and app", functions: apps, least: 6, begin: makingApp},
		{name: "move", functions: repos, least: 6, begin: moving},
		{name: "tie", functions: repos, least: 5, begin: tying},
		{name: "new schedule", functions: plans, least: 4, begin: planning},
		{name: "changed schedule", functions: plans, least: 4, begin: replanning},
		{name: "deleted schedule", functions: plans, least: 4, begin: unplanning},
		{name: "API token", functions: auth, least: 3, begin: makingToken},
		{name: "sign in", functions: auth, least: 4, begin: signingIn},
		{name: "sign out", functions: auth, least: 2, begin: signingOut},
	}
}

// pushing goes from a push to the status of its build.
func pushing(m *mortal) walkOf {
	commit := m.commit("n", m.name("push")+"\n")
	return walkOf{
		act:   func() error { return m.clone.Push(m.t.Context(), "HEAD:main") },
		over:  func() error { return m.showsAll(commit, "SUCCESSFUL") },
		check: func() error { return m.told(commit) },
	}
}

// showsAll is nil when Bitbucket shows one status for a commit, which is this one.
func (s *site) showsAll(commit, state string) error {
	all, err := s.Statuses(s.t.Context(), shop, commit)
	if err == nil && (len(all) != 1 || all[0].State != state) {
		err = fmt.Errorf("Bitbucket shows %+v of %s", all, commit)
	}
	return err
}

// refreshing renews the tokens of a connection that nobody used for a month. Whatever pair is stored then, has to be good for the next time.
func refreshing(m *mortal) walkOf {
	month := func() error {
		return m.a.Host().Tick(m.t.Context(), "RefreshFunction", time.Now().Add(40*24*time.Hour))
	}
	return walkOf{act: month, check: func() error {
		before, _ := m.b.tokens()
		if err := month(); err != nil {
			return err
		}
		if now, _ := m.b.tokens(); now == before {
			return errors.New("nothing was renewed")
		}
		return m.works(m.Visitor, m.connection)
	}}
}

// works is nil when something can be seen through a connection.
func (m *mortal) works(v *visitor.Visitor, connection string) error {
	var list visitor.List[struct{}]
	err := v.Call(m.t.Context(), http.MethodGet, "/api/connections/"+connection+"/workspaces", nil, &list)
	if err == nil && len(list.Items) == 0 {
		err = errors.New("the connection shows no workspace")
	}
	return err
}

// comeBack brings the browser back from Bitbucket. When that fails, the page is loaded again, as people do, before they start again. A way back
// that was taken is closed.
func (m *mortal) comeBack(v *visitor.Visitor, authorize *url.URL) (body []byte, err error) {
	callback, err := v.Consent(m.t.Context(), authorize)
	if err != nil {
		return nil, err
	}
	_, body, err = v.Visit(m.t.Context(), callback.String())
	if err != nil {
		if _, body, err = v.Visit(m.t.Context(), callback.String()); err != nil {
			return nil, err
		}
	}
	_, _, again := v.Visit(m.t.Context(), callback.String())
	var refusal *visitor.Refusal
	if !errors.As(again, &refusal) {
		m.t.Errorf("a second return from Bitbucket is %v", again)
	} else if refusal.Status != http.StatusBadRequest && refusal.Status < 500 {
		m.t.Errorf("a second return from Bitbucket is %v; expected 400", again)
	}
	return body, nil
}

// signingIn signs bob in, in a browser in which he is.
func signingIn(m *mortal) walkOf {
	v := m.person(m.Hub, m.Forge, "bob")
	m.must(v.SignIn(m.t.Context()))
	before := v.Cookies()
	return walkOf{
		act: func() error {
			authorize, err := v.Login(m.t.Context())
			if err == nil {
				_, err = m.comeBack(v, authorize)
			}
			return err
		},
		check: func() error {
			var me visitor.Object
			if err := v.Call(m.t.Context(), http.MethodGet, "/api/me", nil, &me); err != nil {
				return err
			}
			return m.signedOut(before)
		},
	}
}

// signedOut is nil when the session of these cookies has ended.
func (m *mortal) signedOut(cookies []*http.Cookie) error {
	req, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, m.Hub+"/api/me", nil)
	m.must(err)
	for _, c := range cookies {
		req.AddCookie(c)
	}
	status, _, err := m.person(m.Hub, m.Forge, "nobody").Send(req)
	if err == nil && status != http.StatusUnauthorized {
		err = fmt.Errorf("with the session before, /api/me answers %d", status)
	}
	return err
}

// connecting connects Bitbucket to a new workspace.
func connecting(m *mortal) walkOf {
	workspace, err := m.Workspace(m.t.Context(), m.name("Connected"))
	m.must(err)
	return walkOf{
		act: func() error {
			authorize, err := m.Authorize(m.t.Context(), workspace)
			if err == nil {
				_, err = m.comeBack(m.Visitor, authorize)
			}
			return err
		},
		check: func() error { return m.connected(workspace, "Alice Admin") },
	}
}

// connected is nil when a workspace has one connection, which works.
func (m *mortal) connected(workspace, nickname string) error {
	all, err := m.Connections(m.t.Context(), workspace)
	if err != nil {
		return err
	}
	if len(all) != 1 || all[0].State != "ACTIVE" || all[0].Nickname != nickname {
		return fmt.Errorf("the connections are %+v", all)
	}
	return m.works(m.Visitor, all[0].ID)
}

// connectingAnother connects with an account at Bitbucket that is not the one signed in: a question has to be answered on the way.
func connectingAnother(m *mortal) walkOf {
	workspace, err := m.Workspace(m.t.Context(), m.name("Another"))
	m.must(err)
	bob := *m.Visitor // in alice's browser
	bob.Name, bob.Password = "bob", "bob"
	ticket := regexp.MustCompile(`name="ticket"[^>]* value="([^"]+)"`)
	return walkOf{
		act: func() error {
			authorize, err := bob.Authorize(m.t.Context(), workspace)
			if err != nil {
				return err
			}
			page, err := m.comeBack(&bob, authorize)
			if err != nil {
				return err
			}
			found := ticket.FindSubmatch(page)
			if found == nil {
				m.t.Fatalf("the page has no question:\n%s", page)
			}
			answer := url.Values{"ticket": {string(found[1])}, "answer": {"yes"}}
			for range 2 { // once more, as people do
				resp, body, err := bob.Submit(m.t.Context(), m.Hub+"/auth/confirm", answer)
				if err != nil {
					return err
				}
				if resp.StatusCode == http.StatusSeeOther {
					return nil
				}
				err = fmt.Errorf("the answer to the question is %d: %.200s", resp.StatusCode, body)
				if resp.StatusCode < 500 {
					return err
				}
			}
			return errors.New("the question could not be answered")
		},
		check: func() error { return m.connected(workspace, "Bob Builder") },
	}
}

// makingToken makes an API token, uses it, and ends it.
func makingToken(m *mortal) walkOf {
	name := m.name("token")
	var made struct {
		ID    string `json:"id"`
		Token string `json:"token"`
	}
	script := m.person(m.Hub, m.Forge, "nobody")
	ended := false
	return walkOf{
		act: func() error {
			if made.ID == "" {
				if err := m.Call(m.t.Context(), http.MethodPost, "/api/tokens", map[string]string{"name": name}, &made); err != nil {
					return err
				}
				script.Token = made.Token
			}
			if !ended {
				if err := script.Call(m.t.Context(), http.MethodGet, "/api/me", nil, nil); err != nil && !refusedWith(err, http.StatusUnauthorized) {
					return err
				}
				err := m.Call(m.t.Context(), http.MethodDelete, "/api/tokens/"+made.ID, nil, nil)
				if err != nil && !refusedWith(err, http.StatusNotFound) {
					return err
				}
				ended = true
			}
			return nil
		},
		check: func() error {
			if err := script.Call(m.t.Context(), http.MethodGet, "/api/me", nil, nil); !refusedWith(err, http.StatusUnauthorized) {
				return fmt.Errorf("with a token that was deleted: %w", err)
			}
			// One whose making was never answered is in the list, and can be deleted.
			var list visitor.List[visitor.Object]
			if err := m.Call(m.t.Context(), http.MethodGet, "/api/tokens", nil, &list); err != nil {
				return err
			}
			for _, token := range list.Items {
				if err := m.Call(m.t.Context(), http.MethodDelete, "/api/tokens/"+token.ID, nil, nil); err != nil {
					return err
				}
			}
			if len(list.Items) > 1 {
				m.t.Errorf("the tokens are %+v", list.Items)
			}
			return nil
		},
	}
}

// refusedWith reports whether an error is an answer with a status.
func refusedWith(err error, status int) bool {
	var refusal *visitor.Refusal
	return errors.As(err, &refusal) && refusal.Status == status
}

// makingApp makes a workspace with an app, gives that another name, has it hold a pipeline file and lets go of that.
func makingApp(m *mortal) walkOf {
	name := m.name("Made")
	var workspace, app string
	var file held
	stages := []func() error{
		func() (err error) {
			workspace, err = m.Workspace(m.t.Context(), name)
			return err
		},
		func() (err error) {
			app, err = m.App(m.t.Context(), workspace, name)
			return err
		},
		func() error {
			return m.Call(m.t.Context(), http.MethodPatch, "/api/apps/"+app, map[string]any{"name": name + " changed"}, nil)
		},
		func() error {
			text := map[string]any{"branches": "main", "text": pipeline("[push]", "echo")}
			err := m.Call(m.t.Context(), http.MethodPut, "/api/apps/"+app+"/pipelines", text, &file)
			if !refusedWith(err, http.StatusConflict) {
				return err
			}
			// It was stored, and the answer was lost: people look at the list.
			var list visitor.List[held]
			if err := m.Call(m.t.Context(), http.MethodGet, "/api/apps/"+app+"/pipelines", nil, &list); err != nil || len(list.Items) != 1 {
				return errors.Join(err, fmt.Errorf("the pipeline files are %+v", list.Items))
			}
			file = list.Items[0]
			return nil
		},
		func() error {
			err := m.Call(m.t.Context(), http.MethodDelete, fmt.Sprintf("/api/apps/%s/pipelines/%s?version=%d", app, file.ID, file.Version), nil, nil)
			if refusedWith(err, http.StatusNotFound) {
				return nil
			}
			return err
		},
	}
	return walkOf{
		act: func() error {
			for len(stages) > 0 {
				if err := stages[0](); err != nil {
					return err
				}
				stages = stages[1:]
			}
			return nil
		},
		check: func() error {
			var shown visitor.Object
			if err := m.Call(m.t.Context(), http.MethodGet, "/api/apps/"+app, nil, &shown); err != nil || shown.Name != name+" changed" {
				return errors.Join(err, fmt.Errorf("the app is %+v", shown))
			}
			var files visitor.List[held]
			if err := m.Call(m.t.Context(), http.MethodGet, "/api/apps/"+app+"/pipelines", nil, &files); err != nil || len(files.Items) != 0 {
				return errors.Join(err, fmt.Errorf("the pipeline files are %+v", files.Items))
			}
			// What was made and not answered is whole.
			var list, of visitor.List[visitor.Object]
			if err := m.Call(m.t.Context(), http.MethodGet, "/api/workspaces", nil, &list); err != nil {
				return err
			}
			found := 0
			for _, w := range list.Items {
				if w.Name != name {
					continue
				}
				found++
				if err := m.Call(m.t.Context(), http.MethodGet, "/api/workspaces/"+w.ID, nil, &shown); err != nil {
					return err
				}
				if err := m.Call(m.t.Context(), http.MethodGet, "/api/workspaces/"+w.ID+"/apps", nil, &of); err != nil {
					return err
				}
			}
			if found < 1 || found > 2 {
				return fmt.Errorf("there are %d workspaces of the name", found)
			}
			return nil
		},
	}
}

// hooks are the webhooks of a repository at Bitbucket, by their addresses.
func (m *mortal) hooks(repository string) (urls []string, err error) {
	var page struct {
		Values []struct {
			URL string `json:"url"`
		} `json:"values"`
	}
	err = m.Ask(m.t.Context(), http.MethodGet, "/repositories/"+repository+"/hooks?pagelen=100", nil, &page)
	for _, h := range page.Values {
		urls = append(urls, h.URL)
	}
	slices.Sort(urls)
	return urls, err
}

// tying ties a new app to a repository, which has a webhook for it then, and one only.
func tying(m *mortal) walkOf {
	app, err := m.App(m.t.Context(), m.workspace, m.name("Tied"))
	m.must(err)
	before, err := m.hooks(docs)
	m.must(err)
	return walkOf{
		act:   func() error { return m.tie(app, docs) },
		check: func() error { return m.tied(app, docs, before) },
	}
}

func (m *mortal) tie(app, repository string) error {
	picked, err := m.Pick(m.t.Context(), m.connection, repository)
	if err != nil {
		return err
	}
	return m.Tie(m.t.Context(), app, m.connection, picked.UUID)
}

// tied is nil when an app is tied to a repository that has one webhook more than before.
func (m *mortal) tied(app, repository string, before []string) error {
	var shown visitor.Repository
	if err := m.Call(m.t.Context(), http.MethodGet, "/api/apps/"+app+"/repository", nil, &shown); err != nil {
		return err
	}
	now, err := m.hooks(repository)
	if err != nil {
		return err
	}
	if shown.FullName != repository || len(now) != len(before)+1 || len(slices.Compact(now)) != len(now) {
		return fmt.Errorf("the app is tied to %+v, whose webhooks are %q; before they were %q", shown, now, before)
	}
	// Bitbucket signs with the secret that is kept: an event is recorded.
	return m.rings(app)
}

// rings pushes to the other repository, and is nil when the app has heard of it.
func (m *mortal) rings(app string) error {
	if m.docs == nil {
		var err error
		m.docs, err = m.Clone(m.t.Context(), docs, filepath.Join(m.in.folder(), "docs"))
		m.must(err)
	}
	known, err := m.Deliveries(m.t.Context(), app)
	if err != nil {
		return err
	}
	_, err = m.docs.Commit(m.t.Context(), "n", m.name("ring"), "Ring")
	m.must(err)
	m.must(m.docs.Push(m.t.Context(), "HEAD:main"))
	m.until("an event", func() error {
		now, err := m.Deliveries(m.t.Context(), app)
		if err == nil && len(now) == len(known) {
			err = errors.New("there is none")
		}
		return err
	})
	return nil
}

// moving ties an app to another repository than before, which keeps none of its webhooks.
func moving(m *mortal) walkOf {
	app, err := m.App(m.t.Context(), m.workspace, m.name("Moving"))
	m.must(err)
	left, err := m.hooks(docs)
	m.must(err)
	m.must(m.tie(app, docs))
	before, err := m.hooks(shop)
	m.must(err)
	return walkOf{
		act: func() error { return m.tie(app, shop) },
		check: func() error {
			now, err := m.hooks(docs)
			if err != nil {
				return err
			}
			if !slices.Equal(now, left) {
				return fmt.Errorf("the repository that was left has the webhooks %q; before they were %q", now, left)
			}
			shown, err := m.hooks(shop)
			if err != nil || len(shown) != len(before)+1 {
				return errors.Join(err, fmt.Errorf("the webhooks are %q; before they were %q", shown, before))
			}
			// The shop is to have the events of one app only, for the other paths.
			return m.tie(app, docs)
		},
	}
}

// yearly is a schedule whose minute does not come while a test runs.
func yearly(branch string) map[string]any {
	at := time.Now().UTC().Add(30 * 24 * time.Hour)
	return map[string]any{"cron": fmt.Sprintf("%d %d 1 %d *", at.Minute(), at.Hour(), at.Month()), "zone": "UTC", "branch": branch}
}

func (m *mortal) plan(body map[string]any) (made plan, err error) {
	err = m.Call(m.t.Context(), http.MethodPost, "/api/apps/"+m.app+"/schedules", body, &made)
	return made, err
}

// scheduled is a schedule as the API shows it, with what can be changed.
type scheduled struct {
	plan
	Cron   string `json:"cron"`
	Active bool   `json:"active"`
	Branch string `json:"branch"`
}

// agreed is nil when EventBridge Scheduler holds an entry for each active schedule, for its time, and no other.
func (m *mortal) agreed() ([]scheduled, error) {
	var list visitor.List[scheduled]
	if err := m.Call(m.t.Context(), http.MethodGet, "/api/apps/"+m.app+"/schedules", nil, &list); err != nil {
		return nil, err
	}
	entries := m.a.Scheduler.Entries()
	for _, s := range list.Items {
		if s.Note != "" {
			return nil, fmt.Errorf("schedule %s: %s", s.ID, s.Note)
		}
		if !s.Active {
			continue
		}
		field := strings.Fields(s.Cron) // minute hour day month weekday
		at := slices.IndexFunc(entries, func(e scheduler.Entry) bool {
			return strings.Contains(e.Input, `"`+s.ID+`"`) && strings.HasPrefix(e.Expression, "cron("+field[0]+" "+field[1]+" ")
		})
		if at < 0 {
			return nil, fmt.Errorf("schedule %+v is not among %+v", s, entries)
		}
		entries = slices.Delete(entries, at, at+1)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("of schedules %+v there are no entries %+v", list.Items, entries)
	}
	return list.Items, nil
}

// clear deletes all schedules.
func (m *mortal) clear(all []scheduled) error {
	for _, s := range all {
		if err := m.Call(m.t.Context(), http.MethodDelete, "/api/schedules/"+s.ID, nil, nil); err != nil {
			return err
		}
	}
	if left := m.a.Scheduler.Entries(); len(left) > 0 {
		return fmt.Errorf("EventBridge Scheduler still has %+v", left)
	}
	return nil
}

// planning makes a schedule.
func planning(m *mortal) walkOf {
	return walkOf{
		act: func() error {
			_, err := m.plan(yearly("main"))
			return err
		},
		check: func() error {
			all, err := m.agreed()
			if err != nil {
				return err
			}
			if len(all) < 1 || len(all) > 2 { // one was perhaps made and not answered
				return fmt.Errorf("the schedules are %+v", all)
			}
			return m.clear(all)
		},
	}
}

// replanning changes a schedule.
func replanning(m *mortal) walkOf {
	made, err := m.plan(yearly("main"))
	m.must(err)
	change := map[string]any{"cron": "7 7 7 7 *", "branch": "other"}
	return walkOf{
		act: func() error { return m.Call(m.t.Context(), http.MethodPatch, "/api/schedules/"+made.ID, change, nil) },
		check: func() error {
			all, err := m.agreed()
			if err != nil {
				return err
			}
			if len(all) != 1 || all[0].Cron != "7 7 7 7 *" || all[0].Branch != "other" {
				return fmt.Errorf("the schedules are %+v", all)
			}
			return m.clear(all)
		},
	}
}

// unplanning deletes a schedule.
func unplanning(m *mortal) walkOf {
	made, err := m.plan(yearly("main"))
	m.must(err)
	return walkOf{
		act: func() error {
			err := m.Call(m.t.Context(), http.MethodDelete, "/api/schedules/"+made.ID, nil, nil)
			if refusedWith(err, http.StatusNotFound) {
				return nil
			}
			return err
		},
		check: func() error {
			all, err := m.agreed()
			if err == nil && len(all) > 0 {
				err = fmt.Errorf("the schedules are %+v", all)
			}
			return err
		},
	}
}

// unnoticed pushes a commit to a branch whose pipeline file has nothing built, and waits for the decision.
func (m *mortal) unnoticed(branch string) (commit, delivery string) {
	m.t.Helper()
	m.git("checkout", "--quiet", "-B", branch, "main")
	m.commit(pipelinePath, pipeline("[]", "echo ran >> "+m.mark("$RUNNERHUB_COMMIT")))
	commit = m.commit("n", m.name(branch)+"\n")
	m.push("--force", "HEAD:"+branch)
	m.git("checkout", "--quiet", "main")
	m.until("the decision about "+commit, func() error {
		all, err := m.Deliveries(m.t.Context(), m.app)
		if err != nil {
			return err
		}
		for _, d := range all {
			if len(d.Decisions) == 1 && d.Decisions[0].Ref == "branch "+branch && d.Decisions[0].Decision == "SKIPPED" {
				delivery = d.ID
				return nil
			}
		}
		return fmt.Errorf("the deliveries are %+v", all)
	})
	return commit, delivery
}

// ranOnce is nil when a commit has one build, which ran its step once and whose end Bitbucket shows.
func (m *mortal) ranOnce(commit string) (visitor.Build, error) {
	if err := m.showsAll(commit, "SUCCESSFUL"); err != nil {
		return visitor.Build{}, err
	}
	builds := m.buildsOf(commit)
	if len(builds) != 1 || builds[0].State != "SUCCESSFUL" || m.marked(commit) != "ran\n" {
		return visitor.Build{}, fmt.Errorf("the builds are %+v, and the step left %q", builds, m.marked(commit))
	}
	return builds[0], nil
}

// minute is what EventBridge Scheduler sends at one; that it may come twice, killing sees to.
func minute(m *mortal) walkOf {
	branch := m.name("timed")
	commit, _ := m.unnoticed(branch)
	made, err := m.plan(yearly(branch))
	m.must(err)
	at := time.Now().UTC().Truncate(time.Minute)
	return walkOf{
		act: func() error {
			input := fmt.Sprintf(`{"schedule":%q,"minute":%q}`, made.ID, at.Format(time.RFC3339))
			return m.a.Deliver(m.t.Context(), "DispatchFunction", input)
		},
		over: func() error { return m.showsAll(commit, "SUCCESSFUL") },
		check: func() error {
			b, err := m.ranOnce(commit)
			if err != nil {
				return err
			}
			all, err := m.agreed()
			if err != nil {
				return err
			}
			if len(all) != 1 || all[0].Last.Build != b.ID || all[0].Last.Problem != "" || !all[0].Last.Minute.Equal(at) {
				return fmt.Errorf("the schedules are %+v; built was %s", all, b.ID)
			}
			return m.clear(all)
		},
	}
}

// replaying has a delivery decided again, of which something can be built by now.
func replaying(m *mortal) walkOf {
	branch := m.name("replayed")
	commit, delivery := m.unnoticed(branch)
	var file held
	files := "/api/apps/" + m.app + "/pipelines"
	m.must(m.Call(m.t.Context(), http.MethodPut, files, map[string]any{
		"branches": branch, "text": pipeline("[push]", "echo ran >> "+m.mark("$RUNNERHUB_COMMIT")),
	}, &file))
	return walkOf{
		act: func() error {
			return m.Call(m.t.Context(), http.MethodPost, "/api/deliveries/"+delivery+"/replay", nil, nil)
		},
		over: func() error { return m.showsAll(commit, "SUCCESSFUL") },
		check: func() error {
			b, err := m.ranOnce(commit)
			if err != nil {
				return err
			}
			all, err := m.Deliveries(m.t.Context(), m.app)
			if err != nil {
				return err
			}
			at := slices.IndexFunc(all, func(d visitor.Delivery) bool { return d.ID == delivery })
			if at < 0 || len(all[at].Decisions) != 1 || all[at].Decisions[0].Build != b.ID {
				return fmt.Errorf("the deliveries are %+v; built was %s", all, b.ID)
			}
			return m.Call(m.t.Context(), http.MethodDelete, fmt.Sprintf("%s/%s?version=%d", files, file.ID, file.Version), nil, nil)
		},
	}
}

// steps commits a pipeline file on main that has this step, pushes that, and goes back to the one that leaves marks.
func (m *mortal) steps(script string) (commit string) {
	m.t.Helper()
	before := m.git("show", "HEAD:"+pipelinePath)
	commit = m.commit(pipelinePath, pipeline("[push]", "# "+m.name("step")+"\n"+script))
	m.push("HEAD:main")
	m.commit(pipelinePath, before+"\n")
	return commit
}

// cancelling stops a build that runs.
func cancelling(m *mortal) walkOf {
	commit := m.steps("echo at work; sleep 600; echo survived")
	b := m.buildOf(commit)
	m.logged(b.ID, "at work")
	m.shown(b, "INPROGRESS")
	return m.stopping(b)
}

// stopping is the walk of a build that is to be stopped.
func (m *mortal) stopping(b visitor.Build) walkOf {
	return walkOf{
		act: func() error {
			err := m.cancel(b.ID)
			if refusedWith(err, http.StatusConflict) { // it has ended by now
				return nil
			}
			return err
		},
		over: func() error { return m.showsAll(b.Commit, "STOPPED") },
		check: func() error {
			if err := m.showsAll(b.Commit, "STOPPED"); err != nil {
				return err
			}
			if now := m.buildsOf(b.Commit); len(now) != 1 || now[0].State != "STOPPED" || now[0].Reason != "stopped by Alice Admin" {
				return fmt.Errorf("the builds are %+v", now)
			}
			return nil
		},
	}
}

// cancellingEarly stops a build that waits for another one to end.
func cancellingEarly(m *mortal) walkOf {
	if m.holder == "" {
		commit := m.steps(m.waitFor("room"))
		m.holder = m.buildOf(commit).ID
		m.reached(m.holder, "RUNNING")
	}
	commit := m.steps("echo never")
	b := m.buildOf(commit)
	m.shown(b, "INPROGRESS")
	return m.stopping(b)
}

// cancelledEarly lets the other one end.
func cancelledEarly(m *mortal) {
	m.open("room")
	if m.holder != "" {
		m.ended(m.holder, "SUCCESSFUL")
	}
}

// sweeping finds what got lost, all at once: the message that was to start a build, the one that was to have a delivery decided again, the one
// that was to show a status, and the call that was to tell the timetable.
func sweeping(m *mortal) walkOf {
	branch := m.name("swept")
	replayed, delivery := m.unnoticed(branch)
	var file held
	files := "/api/apps/" + m.app + "/pipelines"
	m.must(m.Call(m.t.Context(), http.MethodPut, files, map[string]any{
		"branches": branch, "text": pipeline("[push]", "echo ran >> "+m.mark("$RUNNERHUB_COMMIT")),
	}, &file))
	// A replay that was recorded, and no message left.
	m.b.aim(1, func(c lambdahost.Call) bool { return c.Function == "BuildsFunction" && c.Action == "SendMessage" })
	if err := m.Call(m.t.Context(), http.MethodPost, "/api/deliveries/"+delivery+"/replay", nil, nil); err == nil {
		m.t.Fatal("the replay was answered")
	}
	// A schedule that was stored, and the timetable not told.
	m.b.aim(3, func(c lambdahost.Call) bool { // the first write stores it, the second takes the lease to tell the timetable
		return c.Function == "SchedulesFunction" && c.Action == "TransactWriteItems"
	})
	if _, err := m.plan(yearly("main")); err == nil {
		m.t.Fatal("the schedule was answered")
	}
	// A build that was admitted, and not started.
	m.b.aim(1, func(c lambdahost.Call) bool { return c.Action == "StartBuild" })
	pushed := m.commit("n", m.name("push")+"\n")
	m.push("HEAD:main")
	m.until("a build to get lost", func() error {
		if _, fired := m.b.seen(); fired == "" {
			return errors.New("it is not")
		}
		return m.a.Purge(m.t.Context(), "DispatchFunction")
	})
	return walkOf{
		act: func() error { return m.a.Host().Tick(m.t.Context(), "SweepFunction", time.Now().Add(time.Hour)) },
		check: func() error {
			if _, err := m.ranOnce(pushed); err != nil {
				return err
			}
			if _, err := m.ranOnce(replayed); err != nil {
				return err
			}
			all, err := m.agreed()
			if err != nil {
				return err
			}
			return errors.Join(m.clear(all), m.Call(m.t.Context(), http.MethodDelete, fmt.Sprintf("%s/%s?version=%d", files, file.ID, file.Version), nil, nil))
		},
	}
}
