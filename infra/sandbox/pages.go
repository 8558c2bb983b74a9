package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed pages
var pageFiles embed.FS

const (
	sessionCookie = "sandbox_session"
	sessionLife   = 30 * 24 * time.Hour
	commitsOnPage = 30
	shownOnPage   = 50 // deliveries of a hook
)

// A session is a browser that signed in. Only the hash of its cookie is stored.
type session struct {
	Hash, User string
	ExpiresAt  time.Time
}

func (s *session) kind() string { return "session" }
func (s *session) key() string  { return s.Hash }

// A page is one request to the web UI, with what every page shows.
type page struct {
	*http.Request
	User *user
	Repo *repository
	Role string
	Full string // workspace/repository
	Tab  string
}

// May says whether the page's user has a role in its repository.
func (p *page) May(name string) bool {
	have, _ := roleNamed(p.Role)
	need, _ := roleNamed(name)
	return have >= need
}

// webHandler serves the web UI, the consent page, and git, whose addresses start like
// those of a repository's pages.
func (s *Sandbox) webHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /site/oauth2/authorize", s.showConsent)
	mux.HandleFunc("POST /site/oauth2/authorize", s.decideConsent)
	mux.HandleFunc("GET /{workspace}/{repository}/info/refs", s.serveGit)
	mux.HandleFunc("POST /{workspace}/{repository}/git-upload-pack", s.serveGit)
	mux.HandleFunc("POST /{workspace}/{repository}/git-receive-pack", s.serveGit)

	mux.HandleFunc("GET /signin", s.showSignIn)
	mux.HandleFunc("POST /signin", s.signIn)
	mux.HandleFunc("POST /signout", s.signOut)
	mux.Handle("GET /{$}", s.page(none, s.homePage))
	mux.Handle("GET /account/authorizations", s.page(none, s.authorizationsPage))
	mux.Handle("POST /account/authorizations/{grant}/revoke", s.page(none, s.revokeForm))

	const repo = "/{workspace}/{repository}"
	mux.Handle("GET "+repo, s.page(read, s.repositoryPage))
	mux.Handle("GET "+repo+"/branch/{branch...}", s.page(read, s.repositoryPage))
	mux.Handle("GET "+repo+"/commits/{commit}", s.page(read, s.commitPage))
	mux.Handle("GET "+repo+"/pull-requests", s.page(read, s.pullsPage))
	mux.Handle("POST "+repo+"/pull-requests", s.page(read, s.openPullForm))
	mux.Handle("GET "+repo+"/pull-requests/{id}", s.page(read, s.pullPage))
	mux.Handle("POST "+repo+"/pull-requests/{id}/merge", s.page(write, s.mergeForm))
	mux.Handle("POST "+repo+"/pull-requests/{id}/decline", s.page(write, s.declineForm))
	mux.Handle("POST "+repo+"/merge-check", s.page(admin, s.mergeCheckForm))
	mux.Handle("GET "+repo+"/webhooks", s.page(admin, s.hooksPage))
	mux.Handle("POST "+repo+"/deliveries/{id}/redeliver", s.page(admin, s.redeliverForm))
	return mux
}

// A pageHandler fills a template: its name and its data, or an address to go to.
type pageHandler func(*page) (pageAnswer, error)

type pageAnswer struct {
	template string
	data     any
	to       string
}

// page lets in who is signed in and, where the path names a repository, has the role
// there. A stranger and a repository that is not there look the same.
func (s *Sandbox) page(least role, handle pageHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
		p := &page{Request: r, User: s.signedIn(r)}
		if p.User == nil {
			http.Redirect(w, r, "/signin?return="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		var err error
		if least != none {
			err = s.enter(p, least)
		}
		var answer pageAnswer
		if err == nil {
			answer, err = handle(p)
		}
		switch {
		case err != nil:
			s.pageError(w, r, err)
		case answer.to != "":
			http.Redirect(w, r, answer.to, http.StatusSeeOther)
		default:
			s.render(w, http.StatusOK, answer.template, map[string]any{"Page": p, "Data": answer.data})
		}
	})
}

func (s *Sandbox) enter(p *page, least role) error {
	have := none
	s.store.read(func(d *data) {
		p.Repo = d.repositoryAt(p.PathValue("workspace"), p.PathValue("repository"))
		have = d.roleOf(p.User, p.Repo)
		if have != none {
			p.Full = d.fullName(p.Repo)
		}
	})
	p.Role = have.String()
	switch {
	case have == none:
		return hidden()
	case have < least:
		return refuse(http.StatusForbidden, "This needs %s access to the repository.", least)
	}
	return nil
}

// signedIn is the user of the session cookie, or of Basic authentication, which is
// handy for scripts.
func (s *Sandbox) signedIn(r *http.Request) *user {
	if name, password, isBasic := r.BasicAuth(); isBasic {
		return s.userWithPassword(name, password)
	}
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	var u *user
	s.store.read(func(d *data) {
		if held := d.sessions[hashToken(cookie.Value)]; held != nil && s.now().Before(held.ExpiresAt) {
			u = d.users[held.User]
		}
	})
	return u
}

// localPath keeps a redirect on this host.
func localPath(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || strings.Contains(text, `\`) {
		return "/"
	}
	return text
}

func (s *Sandbox) showSignIn(w http.ResponseWriter, r *http.Request) {
	s.renderSignIn(w, r, http.StatusOK, "")
}

func (s *Sandbox) renderSignIn(w http.ResponseWriter, r *http.Request, status int, problem string) {
	s.render(w, status, "signin", map[string]any{"Return": localPath(r.FormValue("return")), "Problem": problem})
}

func (s *Sandbox) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	u := s.userWithPassword(r.PostFormValue("user"), r.PostFormValue("password"))
	if u == nil {
		s.renderSignIn(w, r, http.StatusUnauthorized, "User and password do not match.")
		return
	}
	text := newSecret(24)
	err := s.store.update(func(t *tx) error {
		t.put(&session{Hash: hashToken(text), User: u.ID, ExpiresAt: s.now().Add(sessionLife)})
		return nil
	})
	if err != nil {
		s.pageError(w, r, err)
		return
	}
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: text, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: strings.HasPrefix(s.publicURL, "https:"), MaxAge: int(sessionLife / time.Second),
	})
	http.Redirect(w, r, localPath(r.PostFormValue("return")), http.StatusSeeOther)
}

func (s *Sandbox) signOut(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		err := s.store.update(func(t *tx) error {
			if held := t.sessions[hashToken(cookie.Value)]; held != nil {
				t.drop(held)
			}
			return nil
		})
		if err != nil {
			s.pageError(w, r, err)
			return
		}
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1})
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
}

// renderConsent shows the consent page: what the application wants, and a sign-in.
func (s *Sandbox) renderConsent(w http.ResponseWriter, r *http.Request, status int, problem string) {
	meaning := map[string]string{
		"account":          "Read your account information",
		"email":            "Read your primary e-mail address",
		"repository":       "Read your repositories",
		"repository:write": "Read and modify your repositories",
		"repository:admin": "Administer your repositories",
		"pullrequest":      "Read your repositories and their pull requests",
		"webhook":          "Read and modify your repositories' webhooks",
	}
	var scopes []string
	for _, scope := range s.scopes {
		scopes = append(scopes, cmp.Or(meaning[scope], scope))
	}
	s.render(w, status, "consent", map[string]any{
		"Action": r.URL.RequestURI(), "Scopes": scopes, "Problem": problem,
		"Name": cmp.Or(r.PostFormValue("user"), "alice"),
	})
}

func (s *Sandbox) pageError(w http.ResponseWriter, r *http.Request, err error) {
	var refused *apiError
	if !errors.As(err, &refused) {
		s.log.Error("sandbox: page failed", "path", r.URL.Path, "error", err)
		refused = refuse(http.StatusInternalServerError, "Something went wrong")
	}
	s.render(w, refused.status, "error", map[string]any{"Status": refused.status, "Message": refused.message})
}

// render writes a template of the folder pages within the layout. Templates are
// parsed each time: pages are few, and nothing has to be kept.
func (s *Sandbox) render(w http.ResponseWriter, status int, name string, data map[string]any) {
	functions := template.FuncMap{
		"short": func(hash string) string { return hash[:min(len(hash), shortHash)] },
		"time":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"lower": strings.ToLower,
		"title": func(text string) string { first, _, _ := strings.Cut(text, "\n"); return first },
	}
	parsed, err := template.New("layout.html").Funcs(functions).ParseFS(pageFiles, "pages/layout.html", "pages/"+name+".html")
	var out bytes.Buffer
	if err == nil {
		err = parsed.Execute(&out, data)
	}
	if err != nil {
		s.log.Error("sandbox: page not rendered", "page", name, "error", err)
		http.Error(w, "Something went wrong", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

func (s *Sandbox) homePage(p *page) (pageAnswer, error) {
	type entry struct {
		Repo *repository
		Full string
		Role string
	}
	var list []entry
	s.store.read(func(d *data) {
		for _, w := range d.workspaces {
			for _, r := range d.repositoriesOf(w.ID) {
				if have := d.roleOf(p.User, r); have != none {
					list = append(list, entry{r, d.fullName(r), have.String()})
				}
			}
		}
	})
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.Full, b.Full) })
	return pageAnswer{template: "home", data: list}, nil
}

func (s *Sandbox) authorizationsPage(p *page) (pageAnswer, error) {
	var list []*grant
	s.store.read(func(d *data) {
		for _, g := range d.grants {
			if g.User == p.User.ID && !g.Revoked {
				list = append(list, g)
			}
		}
	})
	return pageAnswer{template: "authorizations", data: map[string]any{"Grants": list, "Scopes": strings.Join(s.scopes, ", ")}}, nil
}

func (s *Sandbox) revokeForm(p *page) (pageAnswer, error) {
	return pageAnswer{to: "/account/authorizations"}, s.revoke(p.User.ID, p.PathValue("grant"))
}

// A commitLine is a commit in a list, with the statuses it has.
type commitLine struct {
	Hash, Message, Author string
	When                  time.Time
	Statuses              []*status
}

func (s *Sandbox) commitLine(ctx context.Context, repo *repository, hash string) (commitLine, error) {
	c, err := s.git.commit(ctx, repo.ID, hash)
	if err != nil {
		return commitLine{}, err
	}
	line := commitLine{Hash: c.hash, Message: c.message, Author: c.author.name, When: c.author.when}
	s.store.read(func(d *data) { line.Statuses = d.statuses[repo.ID+c.hash] })
	return line, nil
}

// repositoryPage shows the commits of a branch with their statuses.
func (s *Sandbox) repositoryPage(p *page) (pageAnswer, error) {
	p.Tab = "commits"
	branch := cmp.Or(p.PathValue("branch"), p.URL.Query().Get("branch"), p.Repo.MainBranch)
	var tip *ref
	s.store.read(func(d *data) { tip = d.branch(p.Repo.ID, branch) })
	var lines []commitLine
	if tip != nil {
		out, err := s.git.run(p.Context(), p.Repo.ID, "rev-list", "--max-count="+strconv.Itoa(commitsOnPage), tip.Commit)
		if err != nil {
			return pageAnswer{}, err
		}
		for hash := range strings.FieldsSeq(out) {
			line, err := s.commitLine(p.Context(), p.Repo, hash)
			if err != nil {
				return pageAnswer{}, err
			}
			lines = append(lines, line)
		}
	}
	return pageAnswer{template: "repository", data: map[string]any{
		"Branch": branch, "Commits": lines, "Clone": s.namesOf(p.Repo).web + ".git",
		"Branches": s.refsOf(p.Repo.ID, branchPrefix), "Tags": s.refsOf(p.Repo.ID, tagPrefix),
	}}, nil
}

func (s *Sandbox) commitPage(p *page) (pageAnswer, error) {
	p.Tab = "commits"
	hash, err := s.resolveCommit(p.Context(), p.Repo, p.PathValue("commit"))
	if err != nil {
		return pageAnswer{}, err
	}
	line, err := s.commitLine(p.Context(), p.Repo, hash)
	return pageAnswer{template: "commit", data: line}, err
}

func (s *Sandbox) pullsPage(p *page) (pageAnswer, error) {
	p.Tab = "pulls"
	type entry struct {
		*pullRequest
		By       *user
		Statuses []*status
	}
	var list []entry
	s.store.read(func(d *data) {
		for _, pull := range d.pulls[p.Repo.ID] {
			list = append(list, entry{pull, d.users[pull.Author], d.headStatuses(pull)})
		}
	})
	slices.Reverse(list)
	return pageAnswer{template: "pulls", data: map[string]any{"Pulls": list, "Branches": s.refsOf(p.Repo.ID, branchPrefix)}}, nil
}

func (s *Sandbox) openPullForm(p *page) (pageAnswer, error) {
	pull := pullRequest{
		Repository: p.Repo.ID, Title: p.PostFormValue("title"), State: "OPEN", Author: p.User.ID,
		SourceBranch: p.PostFormValue("source"), DestinationBranch: p.PostFormValue("destination"),
		CreatedAt: s.now(), UpdatedAt: s.now(),
	}
	if err := s.openPull(p.Context(), p.User, &pull, pullEnd{}); err != nil {
		return pageAnswer{}, err
	}
	return pageAnswer{to: "/" + p.Full + "/pull-requests/" + strconv.Itoa(pull.Number)}, nil
}

func (s *Sandbox) pagePull(p *page) (*pullRequest, error) {
	number, _ := strconv.Atoi(p.PathValue("id")) // 0 is no pull request
	var pull *pullRequest
	s.store.read(func(d *data) { pull = d.pull(p.Repo.ID, number) })
	if pull == nil {
		return nil, notFound("Pull request " + p.PathValue("id"))
	}
	return pull, nil
}

func (s *Sandbox) pullPage(p *page) (pageAnswer, error) {
	p.Tab = "pulls"
	pull, err := s.pagePull(p)
	if err != nil {
		return pageAnswer{}, err
	}
	shown := map[string]any{"Pull": pull}
	s.store.read(func(d *data) {
		shown["By"], shown["ClosedBy"] = d.users[pull.Author], d.users[pull.ClosedBy]
		shown["Statuses"] = d.headStatuses(pull)
		shown["Blocked"] = d.unmergeable(pull)
		shown["Destination"] = d.destination(pull)
	})
	return pageAnswer{template: "pull", data: shown}, nil
}

func (s *Sandbox) mergeForm(p *page) (pageAnswer, error) {
	pull, err := s.pagePull(p)
	if err == nil {
		_, err = s.merge(p.Context(), pull, p.User, mergeRequest{Strategy: p.PostFormValue("strategy")})
	}
	return pageAnswer{to: "/" + p.Full + "/pull-requests/" + p.PathValue("id")}, err
}

func (s *Sandbox) declineForm(p *page) (pageAnswer, error) {
	pull, err := s.pagePull(p)
	if err == nil {
		_, err = s.decline(pull, p.User)
	}
	return pageAnswer{to: "/" + p.Full + "/pull-requests/" + p.PathValue("id")}, err
}

func (s *Sandbox) mergeCheckForm(p *page) (pageAnswer, error) {
	n, err := strconv.Atoi(p.PostFormValue("builds"))
	if err != nil || n < 0 {
		return pageAnswer{}, badField("builds", "A number of builds.")
	}
	_, err = s.setNeededBuilds(p.Repo.ID, n)
	return pageAnswer{to: "/" + p.Full + "/pull-requests"}, err
}

// hooksPage shows each hook with its latest deliveries, the newest first.
func (s *Sandbox) hooksPage(p *page) (pageAnswer, error) {
	p.Tab = "hooks"
	type entry struct {
		*hook
		Deliveries []*delivery
	}
	var list []entry
	s.store.read(func(d *data) {
		for _, h := range d.hooks[p.Repo.ID] {
			all := d.history[h.ID]
			latest := slices.Clone(all[max(0, len(all)-shownOnPage):])
			slices.Reverse(latest)
			list = append(list, entry{h, latest})
		}
	})
	return pageAnswer{template: "hooks", data: list}, nil
}

func (s *Sandbox) redeliverForm(p *page) (pageAnswer, error) {
	var m *delivery
	s.store.read(func(d *data) { m = d.deliveries[p.PathValue("id")] })
	if m == nil || m.Repository != p.Repo.ID {
		return pageAnswer{}, notFound("Delivery")
	}
	_, err := s.requeue(m.ID)
	return pageAnswer{to: "/" + p.Full + "/webhooks"}, err
}
