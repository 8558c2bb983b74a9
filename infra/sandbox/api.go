package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAPIBody is the largest JSON body the API reads.
const maxAPIBody = 1 << 20

// obj is a JSON object as the API writes it.
type obj = map[string]any

// A call is one request to the REST API whose caller is known.
type call struct {
	*http.Request
	user    *user    // nil: anonymous
	granted []string // scopes of the token; nil with a password, which may do all
	bearer  bool
	repo    *repository // of a path that names one; visible to the caller
	role    role        // the caller's on repo
}

// A reply is what a handler answers: a body to be written as JSON, or raw bytes.
type reply struct {
	status int
	body   any
	raw    []byte
	header http.Header
}

func ok(body any) (*reply, error)      { return &reply{status: http.StatusOK, body: body}, nil }
func created(body any) (*reply, error) { return &reply{status: http.StatusCreated, body: body}, nil }
func noContent() (*reply, error)       { return &reply{status: http.StatusNoContent}, nil }

// An apiError is answered in Bitbucket's envelope.
type apiError struct {
	status  int
	message string
	detail  any
	fields  map[string][]string
	data    obj
}

func (e *apiError) Error() string { return fmt.Sprintf("%d %s", e.status, e.message) }

func (e *apiError) envelope() obj {
	inner := obj{"message": e.message}
	if e.detail != nil {
		inner["detail"] = e.detail
	}
	if e.fields != nil {
		inner["fields"] = e.fields
	}
	if e.data != nil {
		inner["data"] = e.data
	}
	return obj{"type": "error", "error": inner}
}

func refuse(status int, format string, args ...any) *apiError {
	return &apiError{status: status, message: fmt.Sprintf(format, args...)}
}

// badField is the envelope of a refused field, as Bitbucket words it.
func badField(field, format string, args ...any) *apiError {
	text := fmt.Sprintf(format, args...)
	return &apiError{
		status: http.StatusBadRequest, message: field + ": " + text,
		fields: map[string][]string{field: {text}},
	}
}

func notFound(what string) *apiError {
	return refuse(http.StatusNotFound, "%s not found", what)
}

// hidden answers for a repository that is not there and for one the caller may not
// see, so that the two cannot be told apart.
func hidden() *apiError {
	return refuse(http.StatusNotFound, "You may not have access to this repository or it no longer exists in this workspace. If you think this repository exists and you have access, make sure you are authenticated.")
}

// A route is one operation of the API.
type route struct {
	pattern string
	scopes  []string // all of them are needed from a token
	role    role     // at least, on the repository the path names
	serve   func(*call) (*reply, error)
}

const repositoryPath = "/2.0/repositories/{workspace}/{repository}"

func (s *Sandbox) routes() []route {
	const (
		repo  = repositoryPath
		hooks = repo + "/hooks"
		pulls = repo + "/pullrequests"
		built = repo + "/commit/{commit}/statuses"
		rules = repo + "/branch-restrictions"
	)
	account, source, pullRead := []string{"account"}, []string{"repository"}, []string{"pullrequest"}
	webhook, pullWrite := []string{"webhook"}, []string{"pullrequest:write"}
	sourceWrite, sourceAdmin := []string{"repository:write"}, []string{"repository:admin"}
	return []route{
		{"GET /2.0/repositories", nil, none, s.removed},
		{"GET /2.0/workspaces", nil, none, s.removed},
		{"GET /2.0/user/permissions/workspaces", nil, none, s.removed},
		{"GET /2.0/user/permissions/repositories", nil, none, s.removed},

		{"GET /2.0/user", account, none, s.getUser},
		{"GET /2.0/user/workspaces", account, none, s.listWorkspaces},
		{"GET /2.0/user/workspaces/{workspace}/permission", account, none, s.getWorkspacePermission},
		{"GET /2.0/user/workspaces/{workspace}/permissions/repositories", []string{"account", "repository"}, none, s.listRepositoryPermissions},
		{"GET /2.0/workspaces/{workspace}", account, none, s.getWorkspace},
		{"GET /2.0/hook_events/{subject}", nil, none, s.listHookEvents},

		{"GET /2.0/repositories/{workspace}", source, none, s.listRepositories},
		{"GET " + repo, source, read, s.getRepository},
		{"PUT " + repo, sourceAdmin, admin, s.updateRepository},
		{"DELETE " + repo, []string{"repository:delete"}, admin, s.deleteRepository},
		{"POST " + repo + "/forks", sourceWrite, read, s.forkRepository},
		{"GET " + repo + "/refs/branches", source, read, s.listBranches},
		{"GET " + repo + "/refs/branches/{name...}", source, read, s.getBranch},
		{"GET " + repo + "/refs/tags", source, read, s.listTags},
		{"GET " + repo + "/refs/tags/{name...}", source, read, s.getTag},
		{"GET " + repo + "/commit/{commit}", source, read, s.getCommit},
		{"GET " + repo + "/commits", source, read, s.listCommits},
		{"GET " + repo + "/commits/{revision...}", source, read, s.listCommits},
		{"GET " + repo + "/src", source, read, s.srcRoot},
		{"GET " + repo + "/src/{commit}", source, read, s.srcWithoutPath},
		{"GET " + repo + "/src/{commit}/{path...}", source, read, s.getSource},
		{"GET " + repo + "/diffstat/{spec}", source, read, s.listDiffstat},

		{"GET " + hooks, webhook, admin, s.listHooks},
		{"POST " + hooks, webhook, admin, s.createHook},
		{"GET " + hooks + "/{hook}", webhook, admin, s.getHook},
		{"PUT " + hooks + "/{hook}", webhook, admin, s.updateHook},
		{"DELETE " + hooks + "/{hook}", webhook, admin, s.deleteHook},

		{"GET " + built, source, read, s.listStatuses},
		{"POST " + built + "/build", source, read, s.createStatus},
		{"GET " + built + "/build/{key}", source, read, s.getStatus},
		{"PUT " + built + "/build/{key}", source, read, s.updateStatus},

		{"GET " + pulls, pullRead, read, s.listPullRequests},
		{"POST " + pulls, pullWrite, read, s.createPullRequest},
		{"GET " + pulls + "/{id}", pullRead, read, s.getPullRequest},
		{"PUT " + pulls + "/{id}", pullWrite, read, s.updatePullRequest},
		{"POST " + pulls + "/{id}/merge", pullWrite, write, s.mergePullRequest},
		{"POST " + pulls + "/{id}/decline", pullWrite, read, s.declinePullRequest},
		{"GET " + pulls + "/{id}/statuses", pullRead, read, s.listPullRequestStatuses},

		{"GET " + rules, sourceAdmin, admin, s.listRestrictions},
		{"POST " + rules, sourceAdmin, admin, s.createRestriction},
		{"DELETE " + rules + "/{id}", sourceAdmin, admin, s.deleteRestriction},
	}
}

// apiHandler serves /2.0. Creating a repository stands apart: its path names one
// that is not there yet.
func (s *Sandbox) apiHandler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.Handle(r.pattern, s.operation(r))
	}
	mux.Handle("POST "+repositoryPath, s.operation(route{
		pattern: "POST", scopes: []string{"repository:write"}, serve: s.createRepository,
	}))
	mux.Handle("/2.0/", s.operation(route{serve: func(*call) (*reply, error) {
		return nil, &apiError{status: http.StatusNotFound, message: "Resource not found", detail: "There is no API hosted at this URL."}
	}}))
	return mux
}

// operation authenticates, checks scopes and role, runs the route, writes its answer.
func (s *Sandbox) operation(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.Body = http.MaxBytesReader(w, req.Body, maxAPIBody)
		c, err := s.authenticate(req)
		if err == nil {
			noteCaller(req.Context(), c)
			err = s.admit(c, r)
		}
		var answer *reply
		if err == nil {
			answer, err = r.serve(c)
		}
		if err != nil {
			s.writeError(w, req, err)
			return
		}
		s.write(w, req, answer)
	})
}

// admit checks that the caller may do the operation at all.
func (s *Sandbox) admit(c *call, r route) error {
	inRepository := strings.Contains(r.pattern, repositoryPath)
	if inRepository {
		s.store.read(func(d *data) {
			c.repo = d.repositoryAt(c.PathValue("workspace"), c.PathValue("repository"))
			c.role = d.roleOf(c.user, c.repo)
		})
	}
	if c.user == nil {
		// Public repositories are there for everyone, to read.
		publicRead := inRepository && r.role == read && c.Method == http.MethodGet && slices.Equal(r.scopes, []string{"repository"})
		switch {
		case inRepository && c.role == none:
			return hidden()
		case len(r.scopes) > 0 && !publicRead:
			return refuse(http.StatusUnauthorized, "Access denied. This resource needs authentication.")
		}
	}
	if err := c.need(r.scopes...); err != nil {
		return err
	}
	switch {
	case !inRepository || c.role >= r.role:
		return nil
	case c.role == none:
		return hidden()
	}
	return refuse(http.StatusForbidden, "Access denied. You must have %s access.", r.role)
}

// need refuses a token that lacks one of the scopes.
func (c *call) need(scopes ...string) error {
	if !c.bearer {
		return nil
	}
	for _, scope := range scopes {
		if !grants(c.granted, scope) {
			return &apiError{
				status:  http.StatusForbidden,
				message: "Your credentials lack one or more required privilege scopes.",
				detail:  obj{"required": scopes, "granted": c.granted},
			}
		}
	}
	return nil
}

// grants says whether one of the granted scopes is, or implies, the one needed.
func grants(granted []string, needed string) bool {
	implied := map[string][]string{
		"repository:write":  {"repository"},
		"pullrequest":       {"repository"},
		"pullrequest:write": {"pullrequest", "repository:write"},
		"project":           {"repository"},
	}
	return slices.ContainsFunc(granted, func(have string) bool {
		return have == needed || grants(implied[have], needed)
	})
}

// authenticate finds out who calls: Basic with a user's password, or a Bearer
// token in the header. A token anywhere else is not looked at.
func (s *Sandbox) authenticate(req *http.Request) (*call, error) {
	c := &call{Request: req}
	header := req.Header.Get("Authorization")
	if header == "" {
		return c, nil
	}
	if name, password, isBasic := req.BasicAuth(); isBasic {
		if c.user = s.userWithPassword(name, password); c.user == nil {
			return nil, refuse(http.StatusUnauthorized, "Invalid credentials.")
		}
		return c, nil
	}
	scheme, value, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, refuse(http.StatusUnauthorized, "Unsupported authentication scheme.")
	}
	owner, scopes, err := s.userWithToken(value)
	if err != nil {
		return nil, err
	}
	c.user, c.granted, c.bearer = owner, scopes, true
	return c, nil
}

func (s *Sandbox) removed(*call) (*reply, error) {
	return nil, &apiError{
		status: http.StatusGone, message: "CHANGE-2770 - Functionality has been deprecated",
		data: obj{"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog#CHANGE-2770"},
	}
}

// decode reads a JSON object into v. Unknown members are ignored, as Bitbucket does.
func (c *call) decode(v any) error {
	if media, _, _ := strings.Cut(c.Header.Get("Content-Type"), ";"); strings.TrimSpace(media) != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "The body must be application/json.")
	}
	body, err := io.ReadAll(c.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, "The body is larger than %d bytes.", tooLarge.Limit)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "The body could not be read.")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return refuse(http.StatusBadRequest, "Bad request: the body is not the JSON expected: %v", err)
	}
	return nil
}

func (s *Sandbox) writeError(w http.ResponseWriter, req *http.Request, err error) {
	var known *apiError
	if !errors.As(err, &known) {
		s.log.Error("sandbox: operation failed", "method", req.Method, "path", req.URL.Path, "error", err)
		known = refuse(http.StatusInternalServerError, "Something went wrong")
	}
	if known.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="Bitbucket Sandbox API"`)
	}
	writeJSON(w, known.status, known.envelope())
}

// write answers with JSON, cut down to what the caller asked for by fields=, or
// with raw bytes.
func (s *Sandbox) write(w http.ResponseWriter, req *http.Request, r *reply) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	if r.raw != nil || r.body == nil {
		if r.raw != nil {
			w.Header().Set("Content-Length", strconv.Itoa(len(r.raw)))
		}
		w.WriteHeader(r.status)
		if _, err := w.Write(r.raw); err != nil {
			s.log.Debug("sandbox: answer not taken", "path", req.URL.Path, "error", err)
		}
		return
	}
	body := r.body
	if fields := req.URL.Query().Get("fields"); fields != "" {
		cut, err := selectFields(body, fields)
		if err != nil {
			s.writeError(w, req, err)
			return
		}
		body = cut
	}
	writeJSON(w, r.status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		http.Error(w, "answer could not be written as JSON", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(buffer.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(buffer.Bytes()) // nobody is left to tell when the caller went away
}

// timestamp is how the API writes times.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000-07:00") }

// commitTime is how it writes a commit's, which git knows to the second.
func commitTime(t time.Time) string { return t.Format("2006-01-02T15:04:05-07:00") }

// link is one entry of a links object.
func link(href string) obj { return obj{"href": href} }

type callerKey struct{}

// noteCaller tells the call log who is calling.
func noteCaller(ctx context.Context, c *call) {
	entry, found := ctx.Value(callerKey{}).(*callEntry)
	if !found {
		return
	}
	if c.user != nil {
		entry.User = c.user.Name
		entry.Auth = "basic"
	}
	if c.bearer {
		entry.Auth = "bearer"
	}
}
