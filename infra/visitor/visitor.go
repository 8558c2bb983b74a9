// Package visitor is a person who uses RunnerHub and a sandbox Bitbucket, for the
// demo, the end-to-end scripts and the benchmarks: a browser with cookies, the
// HTTP API, Bitbucket's REST API, and git. It knows nothing of either from the
// inside, and checks what it is answered.
package visitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// Visitor is one person: a browser session at RunnerHub, an account at Bitbucket.
type Visitor struct {
	Hub      string // RunnerHub's address
	Forge    string // the sandbox's address
	Name     string // account at the sandbox
	Password string
	Token    string // of RunnerHub's API; sent in place of the session unless empty

	http *http.Client
}

// New makes a visitor with an empty browser.
func New(hub, forge, name, password string) (*Visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &Visitor{Hub: hub, Forge: forge, Name: name, Password: password, http: &http.Client{
		Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Refusal is an answer other than the expected one.
type Refusal struct {
	Method, URL string
	Status      int
	Body        string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s %s answered %d: %.300s", r.Method, r.URL, r.Status, r.Body)
}

// do sends a request and reads the whole answer.
func (v *Visitor) do(req *http.Request) (*http.Response, []byte, error) {
	resp, err := v.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp, body, err
}

// Call calls RunnerHub's API as the signed-in browser. In is sent as JSON unless nil; out
// is read unless nil. Any status but 2xx is a *Refusal.
func (v *Visitor) Call(ctx context.Context, method, path string, in, out any) error {
	req, err := request(ctx, method, v.Hub+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("X-RunnerHub-CSRF", "1")
	if v.Token != "" {
		req.Header.Set("Authorization", "Bearer "+v.Token)
	}
	return v.exchange(req, out)
}

// Send sends any request as the browser, cookies included, and answers whatever
// status and body it gets.
func (v *Visitor) Send(req *http.Request) (status int, body []byte, err error) {
	resp, body, err := v.do(req)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, body, nil
}

// Ask calls Bitbucket's REST API with the account's password.
func (v *Visitor) Ask(ctx context.Context, method, path string, in, out any) error {
	req, err := request(ctx, method, v.Forge+"/2.0"+path, in)
	if err != nil {
		return err
	}
	req.SetBasicAuth(v.Name, v.Password)
	return v.exchange(req, out)
}

// Control calls the sandbox's own controls, such as PUT /_sandbox/faults.
func (v *Visitor) Control(ctx context.Context, method, path string, in, out any) error {
	req, err := request(ctx, method, v.Forge+"/_sandbox"+path, in)
	if err != nil {
		return err
	}
	return v.exchange(req, out)
}

func request(ctx context.Context, method, address string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	return req, nil
}

func (v *Visitor) exchange(req *http.Request, out any) error {
	resp, body, err := v.do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return &Refusal{req.Method, req.URL.String(), resp.StatusCode, string(body)}
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	reflect.ValueOf(out).Elem().SetZero() // what an answer leaves out is not there, whatever an earlier one said
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s %s answered what is no JSON of the expected shape: %w", req.Method, req.URL, err)
	}
	return nil
}

// SignIn goes through Bitbucket's consent page, as a browser does.
func (v *Visitor) SignIn(ctx context.Context) error {
	authorize, err := v.Login(ctx)
	if err != nil {
		return err
	}
	return v.there(ctx, authorize)
}

// Login answers where RunnerHub sends a browser that wants to sign in.
func (v *Visitor) Login(ctx context.Context) (*url.URL, error) {
	resp, _, err := v.Visit(ctx, v.Hub+"/auth/login?return=/")
	if err != nil {
		return nil, err
	}
	where, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("signing in: no redirect to Bitbucket: %w", err)
	}
	return where, nil
}

// Consent fills in the form at Bitbucket's authorize address, and answers where Bitbucket sends the browser.
func (v *Visitor) Consent(ctx context.Context, authorize *url.URL) (callback *url.URL, err error) {
	resp, _, err := v.Visit(ctx, authorize.String())
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the consent page answered %d", resp.StatusCode)
	}
	resp, body, err := v.Submit(ctx, authorize.String(), url.Values{"user": {v.Name}, "password": {v.Password}, "action": {"grant"}})
	if err != nil {
		return nil, err
	}
	if callback, err = resp.Location(); err != nil {
		return nil, &Refusal{"POST", authorize.Path, resp.StatusCode, string(body)}
	}
	return callback, nil
}

// there goes through the consent page and back, to where RunnerHub sends the browser then.
func (v *Visitor) there(ctx context.Context, authorize *url.URL) error {
	callback, err := v.Consent(ctx, authorize)
	if err != nil {
		return err
	}
	resp, _, err := v.Visit(ctx, callback.String())
	if err != nil {
		return err
	}
	if _, err := resp.Location(); err != nil {
		return fmt.Errorf("the callback answered %d and leads nowhere", resp.StatusCode)
	}
	return nil
}

// Visit opens an address, without following where it leads. What is refused is a *Refusal.
func (v *Visitor) Visit(ctx context.Context, address string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, body, err := v.do(req)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode >= 400 {
		return nil, nil, &Refusal{"GET", req.URL.Path, resp.StatusCode, string(body)}
	}
	return resp, body, nil
}

// Submit sends a form, and answers whatever comes back.
func (v *Visitor) Submit(ctx context.Context, address string, form url.Values) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return v.do(req)
}

// Cookies are those that the browser has for RunnerHub.
func (v *Visitor) Cookies() []*http.Cookie {
	hub, err := url.Parse(v.Hub)
	if err != nil {
		return nil
	}
	return v.http.Jar.Cookies(hub)
}

// Object is anything with an id.
type Object struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// List is a page of the API.
type List[T any] struct {
	Items  []T    `json:"items"`
	Cursor string `json:"cursor"`
}

// Workspace makes a workspace and answers its id.
func (v *Visitor) Workspace(ctx context.Context, name string) (string, error) {
	var w Object
	err := v.Call(ctx, http.MethodPost, "/api/workspaces", map[string]string{"name": name}, &w)
	return w.ID, err
}

// App makes an app and answers its id.
func (v *Visitor) App(ctx context.Context, workspace, name string) (string, error) {
	var a Object
	err := v.Call(ctx, http.MethodPost, "/api/workspaces/"+workspace+"/apps", map[string]string{"name": name}, &a)
	return a.ID, err
}

// EnsureWorkspace answers the id of the visitor's workspace of that name, and makes it
// when there is none. Where there must not be another workspace, it is the one there is.
func (v *Visitor) EnsureWorkspace(ctx context.Context, name string) (string, error) {
	known, err := everything[Object](ctx, v, "/api/workspaces")
	if err != nil {
		return "", err
	}
	if id := named(known, name); id != "" {
		return id, nil
	}
	id, err := v.Workspace(ctx, name)
	var refusal *Refusal
	if len(known) > 0 && errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
		return known[0].ID, nil
	}
	return id, err
}

// EnsureApp answers the id of the app of that name, and makes it when there is none.
func (v *Visitor) EnsureApp(ctx context.Context, workspace, name string) (string, error) {
	known, err := everything[Object](ctx, v, "/api/workspaces/"+workspace+"/apps")
	if err != nil {
		return "", err
	}
	if id := named(known, name); id != "" {
		return id, nil
	}
	return v.App(ctx, workspace, name)
}

// named answers the id of the first object of that name, or nothing.
func named(objects []Object, name string) string {
	for _, o := range objects {
		if o.Name == name {
			return o.ID
		}
	}
	return ""
}

// everything reads all pages of a list.
func everything[T any](ctx context.Context, v *Visitor, path string) ([]T, error) {
	var all []T
	cursor := ""
	for {
		var page List[T]
		if err := v.Call(ctx, http.MethodGet, path+"?cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if cursor = page.Cursor; cursor == "" {
			return all, nil
		}
	}
}

// Authorize begins to connect Bitbucket to a workspace, and answers where the browser has to go for it.
func (v *Visitor) Authorize(ctx context.Context, workspace string) (*url.URL, error) {
	var answer struct {
		AuthorizeURL string `json:"authorize_url"`
	}
	err := v.Call(ctx, http.MethodPost, "/api/workspaces/"+workspace+"/connections", map[string]string{"provider": "bitbucket"}, &answer)
	if err != nil {
		return nil, err
	}
	authorize, err := url.Parse(answer.AuthorizeURL)
	if err != nil || authorize.Host == "" {
		return nil, fmt.Errorf("authorize_url is %q", answer.AuthorizeURL)
	}
	return authorize, nil
}

// Connection is a connection of a workspace.
type Connection struct {
	ID       string `json:"id"`
	Nickname string `json:"nickname"` // of the account at Bitbucket
	State    string `json:"state"`
	Reason   string `json:"reason"`
}

// Connections lists the connections of a workspace.
func (v *Visitor) Connections(ctx context.Context, workspace string) ([]Connection, error) {
	return everything[Connection](ctx, v, "/api/workspaces/"+workspace+"/connections")
}

// Connect connects Bitbucket to a workspace and answers the connection's id.
func (v *Visitor) Connect(ctx context.Context, workspace string) (string, error) {
	authorize, err := v.Authorize(ctx, workspace)
	if err != nil {
		return "", err
	}
	if err := v.there(ctx, authorize); err != nil {
		return "", err
	}
	all, err := v.Connections(ctx, workspace)
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", errors.New("the workspace has no connection after the consent")
	}
	return all[len(all)-1].ID, nil
}

// Repository is a repository in the picker.
type Repository struct {
	UUID     string `json:"uuid"`
	FullName string `json:"full_name"`
}

// Pick finds a repository by its full name through a connection, as the picker does.
func (v *Visitor) Pick(ctx context.Context, connection, fullName string) (Repository, error) {
	workspace, _, _ := strings.Cut(fullName, "/")
	cursor := ""
	for {
		var page List[Repository]
		path := "/api/connections/" + connection + "/repositories?workspace=" + url.QueryEscape(workspace) + "&cursor=" + url.QueryEscape(cursor)
		if err := v.Call(ctx, http.MethodGet, path, nil, &page); err != nil {
			return Repository{}, err
		}
		for _, r := range page.Items {
			if r.FullName == fullName {
				return r, nil
			}
		}
		if cursor = page.Cursor; cursor == "" {
			return Repository{}, fmt.Errorf("%s is not in the list of repositories", fullName)
		}
	}
}

// Tie connects an app to a repository; RunnerHub installs its webhook.
func (v *Visitor) Tie(ctx context.Context, app, connection, uuid string) error {
	return v.Call(ctx, http.MethodPut, "/api/apps/"+app+"/repository",
		map[string]string{"connection": connection, "repository": uuid}, nil)
}

// SetUp goes the whole way from signing in to a connected repository, and answers
// the app's id. What there is by that name already is used.
func (v *Visitor) SetUp(ctx context.Context, name, fullName string) (string, error) {
	if err := v.SignIn(ctx); err != nil {
		return "", fmt.Errorf("signing in: %w", err)
	}
	workspace, err := v.EnsureWorkspace(ctx, name)
	if err != nil {
		return "", fmt.Errorf("making a workspace: %w", err)
	}
	connection, err := v.Connect(ctx, workspace)
	if err != nil {
		return "", fmt.Errorf("connecting Bitbucket: %w", err)
	}
	app, err := v.EnsureApp(ctx, workspace, name)
	if err != nil {
		return "", fmt.Errorf("making an app: %w", err)
	}
	repository, err := v.Pick(ctx, connection, fullName)
	if err != nil {
		return "", fmt.Errorf("picking a repository: %w", err)
	}
	return app, v.Tie(ctx, app, connection, repository.UUID)
}

// Build is a build as the API shows it.
type Build struct {
	ID          string    `json:"id"`
	Number      int       `json:"number"`
	State       string    `json:"state"`
	Reason      string    `json:"reason"`
	Trigger     string    `json:"trigger"`
	Branch      string    `json:"branch"`
	Commit      string    `json:"commit"`
	PullRequest int       `json:"pull_request"`
	URL         string    `json:"url"`
	Held        bool      `json:"held"` // it waits for an approval
	ApprovedBy  string    `json:"approved_by"`
	Fork        string    `json:"fork_full_name"`
	FileAt      string    `json:"pipeline_commit"` // where its pipeline file is from, if that is another commit
	FinishedAt  time.Time `json:"finished_at"`
	// SupersededBy is the newer build because of which this one was stopped.
	SupersededBy struct {
		Build  string `json:"build"`
		Number int    `json:"number"`
	} `json:"superseded_by"`
	// Status is what the commit shows on Bitbucket, as RunnerHub knows it; not in lists.
	Status struct {
		Build   string `json:"build"`
		State   string `json:"state"`
		Posted  bool   `json:"posted"`
		Problem string `json:"problem"`
		Ended   string `json:"ended"`
	} `json:"status"`
}

// Ended reports whether the build's state is final.
func (b Build) Ended() bool {
	switch b.State {
	case "SUCCESSFUL", "FAILED", "STOPPED", "TIMEOUT", "ERROR":
		return true
	}
	return false
}

// Build reads a build.
func (v *Visitor) Build(ctx context.Context, id string) (Build, error) {
	var b Build
	err := v.Call(ctx, http.MethodGet, "/api/builds/"+id, nil, &b)
	return b, err
}

// Builds lists all builds of an app, the newest first.
func (v *Visitor) Builds(ctx context.Context, app string) ([]Build, error) {
	return everything[Build](ctx, v, "/api/apps/"+app+"/builds")
}

// Decision is what was decided for one change.
type Decision struct {
	Ref      string `json:"ref"`
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
	Code     string `json:"code"` // of the pipeline file's verdict
	Build    string `json:"build"`
}

// Delivery is a webhook delivery as the API shows it.
type Delivery struct {
	ID        string     `json:"id"`
	Event     string     `json:"event"`
	Decisions []Decision `json:"decisions"`
	Note      string     `json:"note"` // why there are no decisions
}

// Deliveries lists an app's newest deliveries.
func (v *Visitor) Deliveries(ctx context.Context, app string) ([]Delivery, error) {
	var page List[Delivery]
	err := v.Call(ctx, http.MethodGet, "/api/apps/"+app+"/deliveries", nil, &page)
	return page.Items, err
}

// LogLine is a line of a build's log.
type LogLine struct {
	Time time.Time `json:"time"`
	Step string    `json:"step"`
	Text string    `json:"text"`
}

// LogPage is a part of a build's log; its cursor asks for what comes after it.
type LogPage struct {
	List[LogLine]
	Done bool `json:"done"` // the build has ended, and nothing is left to read
}

// Log reads a build's log from a cursor on; the empty one is the beginning.
func (v *Visitor) Log(ctx context.Context, build, cursor string) (LogPage, error) {
	var page LogPage
	err := v.Call(ctx, http.MethodGet, "/api/builds/"+build+"/log?cursor="+url.QueryEscape(cursor), nil, &page)
	return page, err
}

// Follow hands the lines of a build's log to line as they come, until the build is done.
func (v *Visitor) Follow(ctx context.Context, build string, line func(LogLine)) error {
	cursor := ""
	for {
		page, err := v.Log(ctx, build, cursor)
		if err != nil {
			return err
		}
		for _, l := range page.Items {
			line(l)
		}
		cursor = page.Cursor
		if page.Done {
			return nil
		}
		if len(page.Items) == 0 {
			if err := Pause(ctx); err != nil {
				return err
			}
		}
	}
}

// Status is a commit status as Bitbucket has it.
type Status struct {
	Key         string `json:"key"`
	State       string `json:"state"`
	URL         string `json:"url"`
	Refname     string `json:"refname"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Statuses lists the statuses of a commit on Bitbucket.
func (v *Visitor) Statuses(ctx context.Context, fullName, commit string) ([]Status, error) {
	var page struct {
		Values []Status `json:"values"`
	}
	err := v.Ask(ctx, http.MethodGet, "/repositories/"+fullName+"/commit/"+commit+"/statuses", nil, &page)
	return page.Values, err
}

// PullRequest opens a pull request and answers its number.
func (v *Visitor) PullRequest(ctx context.Context, fullName, title, source, target string) (int, error) {
	return v.PullRequestFrom(ctx, fullName, fullName, title, source, target)
}

// PullRequestFrom opens a pull request from a branch of another repository, and answers its number.
func (v *Visitor) PullRequestFrom(ctx context.Context, fork, fullName, title, source, target string) (int, error) {
	end := func(repository, branch string) map[string]any {
		return map[string]any{"repository": map[string]string{"full_name": repository}, "branch": map[string]string{"name": branch}}
	}
	var pr struct {
		ID int `json:"id"`
	}
	err := v.Ask(ctx, http.MethodPost, "/repositories/"+fullName+"/pullrequests",
		map[string]any{"title": title, "source": end(fork, source), "destination": end(fullName, target)}, &pr)
	return pr.ID, err
}

// Fork makes a fork of a repository, which everybody may read, in a workspace, and answers its full name.
func (v *Visitor) Fork(ctx context.Context, fullName, workspace string) (string, error) {
	var made struct {
		FullName string `json:"full_name"`
	}
	err := v.Ask(ctx, http.MethodPost, "/repositories/"+fullName+"/forks",
		map[string]any{"workspace": map[string]string{"slug": workspace}, "is_private": false}, &made)
	return made.FullName, err
}

// Until asks again until ask says true, or ctx ends; what is waited for is said in
// the error.
func Until(ctx context.Context, what string, ask func() (bool, error)) error {
	var last error
	for {
		ok, err := ask()
		if ok && err == nil {
			return nil
		}
		if err != nil {
			last = err
		}
		if Pause(ctx) != nil {
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), last))
		}
	}
}

// Pause waits a moment between two questions.
func Pause(ctx context.Context) error {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
