package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/buildlog"
	"runnerhub/shared/catalog"
	"runnerhub/shared/ci"
)

// The page of a build shows the end of its log: at most so many lines, and so many bytes of
// them. Until the build has ended and its log is there, the page is asked for again and again.
const (
	tailLines = 2000
	tailBytes = 256 << 10
)

// contentPolicy allows the one style sheet, forms to us, and nothing else.
func contentPolicy() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

// view is what every page shows.
type view struct {
	title  string
	user   *ci.User // nil: nobody is signed in
	signIn string   // where to sign in and come back here
	reload int      // seconds after which the page is asked for again; 0: never
}

func newView(c *call, title string) view {
	v := view{title: title, signIn: "/auth/login?return=" + url.QueryEscape(c.URL.Path)}
	if c.user() != "" {
		v.user = &c.who.User
	}
	return v
}

// asPage shows a problem as a page. Where signing in helps, the way back leads to where the
// reader wanted to go; a sign-in that failed starts over.
func asPage(c *call, p problem) answer {
	v := newView(c, p.Title)
	if p.Status == http.StatusUnauthorized {
		v.title = "Sign in"
	}
	switch {
	case strings.HasPrefix(c.URL.Path, "/auth/"):
		v.signIn = "/auth/login"
	case p.Status == http.StatusUnauthorized:
		p.Detail = "This page is for members of its workspace."
	}
	return page{errorPage(v, p)}
}

func (a authGroup) home(c *call) (answer, error) {
	// What came of a sign-in is in the address of the page it returned to.
	return page{homePage(newView(c, "RunnerHub for Bitbucket"), c.query("error") == "access_denied")}, nil
}

type buildView struct {
	view

	app   ci.App
	build catalog.Build
	log   catalog.Tail
	// Pages on Bitbucket; empty where there is nothing to link to.
	commit, pullRequest string
}

func (a buildsGroup) buildPage(c *call) (answer, error) {
	build, err := a.things.Build(c.Context(), c.user(), c.PathValue("build"))
	if err != nil {
		return nil, err
	}
	app, err := a.things.App(c.Context(), c.user(), build.App)
	if err != nil {
		return nil, err
	}
	tail, err := a.things.Tail(c.Context(), c.user(), build.ID, tailLines, tailBytes)
	if err != nil {
		return nil, err
	}
	v := buildView{
		view: newView(c, fmt.Sprintf("Build #%d of %s", build.Number, app.Name)), app: app, build: build, log: tail,
		commit: onBitbucket(a.webURL, build.FullName, "commits", build.Commit),
	}
	if build.Fork != "" {
		v.commit = onBitbucket(a.webURL, build.ForkName, "commits", build.Commit)
	}
	if build.PullRequest != 0 {
		v.pullRequest = onBitbucket(a.webURL, build.FullName, "pull-requests", strconv.Itoa(build.PullRequest))
	}
	if !build.State.Final() || tail.Running {
		v.reload = 5
	}
	return page{buildPage(v)}, nil
}

// onBitbucket answers the address of a page of a repository on Bitbucket, or nothing when
// web is no http address. The name came from Bitbucket, so nothing in it is relied on.
func onBitbucket(web, fullName, kind, id string) string {
	u, err := url.Parse(web)
	workspace, slug, ok := strings.Cut(fullName, "/")
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || !ok || id == "" {
		return ""
	}
	return web + "/" + url.PathEscape(workspace) + "/" + url.PathEscape(slug) + "/" + kind + "/" + url.PathEscape(id)
}

// took says how long something took, or has been going on.
func took(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return ""
	}
	return to.Sub(from).Round(time.Second).String()
}

// plain is the text of a line without escape sequences, which programs write to colour
// a terminal.
func plain(line buildlog.Line) string {
	s := line.Text
	if !strings.ContainsAny(s, "\x1b\b") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		switch {
		case s[i] == '\x1b':
			i += escape(s[i:])
		case s[i] == '\b':
			i++
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String()
}

// escape answers the length of the escape sequence that s begins with (ECMA-48): ESC [
// up to a letter, ESC ] and its like up to BEL or ESC \, ESC and one character otherwise.
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
			if s[i] < 0x20 || s[i] > 0x3f {
				return i // not a sequence after all
			}
		}
		return len(s)
	case ']', 'P', 'X', '^', '_':
		for i := 2; i < len(s); i++ {
			if s[i] == '\a' {
				return i + 1
			}
			if s[i] == '\x1b' && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	case '(', ')', '*', '+', '#', '%', ' ':
		if len(s) > 2 && s[2] < 0x80 {
			return 3
		}
		return 2
	default:
		if s[1] >= 0x80 {
			return 1 // a character of the text
		}
		return 2
	}
}
