package httpapi

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"

	"runnerhub/shared/buildlog"
	"runnerhub/shared/catalog"
	"runnerhub/shared/ci"
	"runnerhub/shared/connect"
)

// The pages are plain on purpose: they work without scripts, wherever a commit's status
// links to, and the dashboard is built on the API. They are made of Go values, not of
// templates, because a program that contains Go's templates keeps every exported method of
// every type, for the templates might call it: with the SDK of AWS that is half of a function's size.
//
// Everything but the style sheet is escaped text. Addresses are not checked here: they are paths of ours, or
// made by onBitbucket.

const style = `
:root { color-scheme: light dark; --line: #d0d7de; --soft: #57606a; --panel: #f6f8fa; --good: #1a7f37; --bad: #c62828; --busy: #9a6700; --link: #0550ae; }
@media (prefers-color-scheme: dark) {
  :root { --line: #30363d; --soft: #9198a1; --panel: #161b22; --good: #3fb950; --bad: #ff7b72; --busy: #d29922; --link: #79b8ff; }
  body { background: #0d1117; color: #e6edf3; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; }
a { color: var(--link); }
header { display: flex; justify-content: space-between; gap: 1rem; padding: .75rem 1.5rem; border-bottom: 1px solid var(--line); }
header a { color: inherit; text-decoration: none; font-weight: 600; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
.soft { color: var(--soft); }
.state { display: inline-block; padding: .05rem .6rem; border: 1px solid currentColor; border-radius: 1rem; font-size: .8rem; font-weight: 600; vertical-align: middle; }
.successful { color: var(--good); } .failed, .error, .timeout { color: var(--bad); } .running, .starting, .queued { color: var(--busy); } .stopped, .pending, .skipped { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
td { padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); }
td:last-child { text-align: right; color: var(--soft); }
.note { padding: .6rem .9rem; border-left: 3px solid currentColor; background: var(--panel); overflow-wrap: anywhere; }
code, .log { font: 13px/1.55 ui-monospace, "DejaVu Sans Mono", monospace; }
.log { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 0; overflow-x: auto; margin: 0; }
.log div { display: flex; gap: 1rem; padding: 0 .9rem; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 1.55em; }
.log time { color: var(--soft); flex: none; }
.log .step { color: var(--soft); font-weight: 600; padding-top: .6rem; }
.button { display: inline-block; padding: .45rem 1rem; border: 1px solid var(--link); border-radius: 6px; background: var(--link); color: #fff; font: inherit; text-decoration: none; cursor: pointer; }
.plain { background: none; color: inherit; border-color: var(--line); }
@media (prefers-color-scheme: dark) { .button:not(.plain) { color: #0d1117; } }
`

// whole is a page around what it shows.
func whole(v view, content ...g.Node) g.Node {
	return h.Doctype(h.HTML(
		h.Lang("en"),
		h.Head(
			h.Meta(h.Charset("utf-8")),
			h.Meta(h.Name("viewport"), h.Content("width=device-width, initial-scale=1")),
			g.If(v.reload > 0, h.Meta(g.Attr("http-equiv", "refresh"), h.Content(fmt.Sprint(v.reload)))),
			h.TitleEl(g.Text(v.title)),
			h.StyleEl(g.Raw(style)),
		),
		h.Body(
			h.Header(h.A(h.Href("/"), g.Text("RunnerHub")), g.Iff(v.user != nil, func() g.Node { return soft(nameOf(v.user)) })),
			h.Main(content...),
		),
	))
}

func nameOf(u *ci.User) string {
	if u.Name != "" {
		return u.Name
	}
	return u.Nickname
}

func soft(text string) g.Node { return h.Span(h.Class("soft"), g.Text(text)) }

func strong(text string) g.Node { return h.Strong(g.Text(text)) }

func code(text string) g.Node { return h.Code(g.Text(text)) }

func link(to string, content g.Node) g.Node { return h.A(h.Href(to), content) }

// linked is content as a link, unless there is nothing to link to.
func linked(to string, content g.Node) g.Node {
	if to == "" {
		return content
	}
	return link(to, content)
}

// signInButton is for who is not signed in.
func signInButton(v view) g.Node {
	return g.If(v.user == nil, h.P(h.A(h.Class("button"), h.Href(v.signIn), g.Text("Sign in with Bitbucket"))))
}

func homePage(v view, denied bool) g.Node {
	return whole(
		v,
		h.H1(g.Text("RunnerHub for Bitbucket")),
		h.P(g.Text("Continuous integration for Bitbucket repositories: a push or a pull request starts a build, and the commit shows how it went.")),
		g.If(denied, h.P(h.Class("note failed"), g.Text("Bitbucket was not allowed to say who you are, so you are not signed in."))),
		g.Iff(v.user != nil, func() g.Node {
			also := ""
			if v.user.Name != "" && v.user.Name != v.user.Nickname {
				also = " (" + v.user.Nickname + " on Bitbucket)"
			}
			return h.P(g.Text("You are signed in as "), strong(nameOf(v.user)), g.Text(also+"."))
		}),
		signInButton(v),
		h.H2(g.Text("API")),
		h.P(
			g.Text("Everything is at "), code("/api"), g.Text(", described in "), code("docs/openapi.yaml"), g.Text(". Start with "),
			link("/api/me", g.Text("/api/me")), g.Text(" and "), link("/api/workspaces", g.Text("/api/workspaces")), g.Text(". Scripts send "),
			code("Authorization: Bearer"), g.Text(" with a token from "), code("/api/tokens"), g.Text("."),
		),
	)
}

func errorPage(v view, p problem) g.Node {
	return whole(
		v,
		h.H1(g.Text(v.title)),
		h.P(g.Text(p.Detail)),
		signInButton(v),
		h.P(h.Class("soft"), g.Text("Reference "), code(p.Ref)),
	)
}

// confirmPage asks whether another account is meant. Its form knows the ticket, and nothing else does.
func confirmPage(v view, nickname string, q connect.Question) g.Node {
	return whole(
		v,
		h.H1(g.Text("Connect the Bitbucket account "+q.Account+"?")),
		h.P(
			g.Text("You are signed in as "), strong(nickname), g.Text(", but it was "), strong(q.Account), g.Text(" who consented on Bitbucket. The workspace "),
			strong(q.Workspace), g.Text(" would read repositories, install webhooks and post statuses as "), strong(q.Account), g.Text("."),
		),
		h.Form(
			h.Method("post"), h.Action("/auth/confirm"),
			h.Input(h.Type("hidden"), h.Name("ticket"), h.Value(q.Ticket.Reveal())),
			h.Button(h.Class("button"), h.Name("answer"), h.Value("yes"), g.Text("Connect "+q.Account)), g.Text(" "),
			h.Button(h.Class("button plain"), h.Name("answer"), h.Value("no"), g.Text("Cancel")),
		),
	)
}

func buildPage(v buildView) g.Node {
	b := v.build
	return whole(
		v.view,
		h.H1(g.Textf("Build #%d of %s ", b.Number, v.app.Name), h.Span(h.Class("state "+lower(b.State)), g.Text(string(b.State)))),
		g.If(b.Reason != "", h.P(h.Class("note "+lower(b.State)), g.Text(b.Reason))),
		g.Iff(b.SupersededBy != nil, func() g.Node {
			return h.P(g.Text("Its place took "), link("/builds/"+b.SupersededBy.Build, g.Textf("build #%d", b.SupersededBy.Number)), g.Text("."))
		}),
		g.Iff(b.Held, func() g.Node { return approval(v) }),
		facts(v),
		steps(b.Steps),
		h.H2(g.Text("Log")),
		logOf(v),
	)
}

// approval is what a member has to know who is to approve a build.
func approval(v buildView) g.Node {
	b := v.build
	return h.P(
		g.Text("The commit comes from "), strong(forkOf(b)), g.Text(", whose author may not write to "+b.FullName+". Read "),
		linked(v.pullRequest, g.Text("the change")), g.Text(" first: it is its code that will run here. A member of the workspace approves this one commit with "),
		code("POST /api/builds/"+b.ID+"/approve"), g.Text("."),
	)
}

func forkOf(b catalog.Build) string { return cmp.Or(b.ForkName, "a fork") }

// facts is the list of what a build is.
func facts(v buildView) g.Node {
	b := v.build
	var list g.Group
	add := func(term string, what ...g.Node) { list = append(list, h.Dt(g.Text(term)), h.Dd(what...)) }
	if b.Name != "" {
		add("Pipeline", g.Text(b.Name))
	}
	add("Repository", g.Text(b.FullName))
	if b.Fork != "" {
		add("Fork", g.Text(forkOf(b)))
	}
	way := ""
	if b.PullRequest != 0 {
		way = ", " + b.Branch + " → " + b.Target
	}
	add("Builds", linked(v.pullRequest, g.Text(b.Ref())), g.Text(way))
	add("Commit", linked(v.commit, code(b.Commit[:min(12, len(b.Commit))])), g.Text(" "+b.Message), g.If(b.Author != "", soft(" by "+b.Author)))
	switch {
	case b.PipelineVersion != 0:
		add("Pipeline file", g.Textf("version %d of the app's own", b.PipelineVersion))
	case b.PipelineCommit != "":
		add("Pipeline file", g.Text("of "+b.Target+" at "), code(b.PipelineCommit[:min(12, len(b.PipelineCommit))]))
	}
	if b.ApprovedBy != "" {
		add("Approved", g.Text("by "+b.ApprovedBy+" at "+b.ApprovedAt.UTC().Format("2006-01-02 15:04:05 UTC")))
	}
	add("Trigger", g.Text(string(b.Trigger)))
	add("Created", g.Text(b.CreatedAt.UTC().Format("2006-01-02 15:04:05 UTC")))
	if t := took(b.StartedAt, b.FinishedAt); t != "" {
		add("Took", g.Text(t))
	}
	if b.Status != nil {
		add("On Bitbucket", g.Text(told(*b.Status)), g.If(b.Status.Build != b.ID, soft(" (of a newer build)")))
	}
	return h.Dl(list)
}

// told is what a commit shows, in words.
func told(s catalog.Status) string {
	switch {
	case s.Ended != "":
		return string(s.State) + ", not posted: " + s.Ended
	case s.Problem != "":
		return string(s.State) + ", not posted yet: " + s.Problem
	case !s.Posted:
		return string(s.State) + ", not posted yet"
	}
	return string(s.State)
}

func steps(all []ci.Step) g.Node {
	if len(all) == 0 {
		return nil
	}
	return g.Group{h.H2(g.Text("Steps")), h.Table(g.Map(all, func(s ci.Step) g.Node {
		state := string(s.State)
		if s.ExitCode != 0 {
			state += fmt.Sprintf(" (exit code %d)", s.ExitCode)
		}
		return h.Tr(h.Td(g.Text(s.Name)), h.Td(h.Class(lower(s.State)), g.Text(state)), h.Td(g.Text(took(s.StartedAt, s.FinishedAt))))
	}))}
}

func logOf(v buildView) g.Node {
	t := v.log
	var out g.Group
	if t.Left > 0 {
		are := "lines are"
		if t.Left == 1 {
			are = "line is"
		}
		out = append(out, h.P(
			h.Class("soft"), g.Textf("%d earlier %s left out, as this page shows the last 2,000 lines or 256 KiB; all of them are at ", t.Left, are),
			code("/api/builds/"+v.build.ID+"/log"), g.Text("."),
		))
	}
	switch {
	case len(t.Lines) > 0:
		out = append(out, h.Div(h.Class("log"), lines(t.Lines)))
	case t.Running:
		out = append(out, h.P(h.Class("soft"), g.Text("Nothing yet.")))
	default:
		out = append(out, h.P(h.Class("soft"), g.Text("The log is empty.")))
	}
	if t.Cut {
		out = append(out, h.P(h.Class("soft"), g.Text("The log goes on: it is too long for this page.")))
	}
	return out
}

// lines are the lines of a log, with a heading wherever another step begins.
func lines(all []buildlog.Line) g.Node {
	var out g.Group
	step := ""
	for i, line := range all {
		if i == 0 || line.Step != step {
			if step = line.Step; step == "" {
				out = append(out, h.Div(h.Class("step"), g.Text("RunnerHub")))
			} else {
				out = append(out, h.Div(h.Class("step"), g.Text(step)))
			}
		}
		at := ""
		if !line.Time.IsZero() {
			at = line.Time.Format(time.TimeOnly)
		}
		out = append(out, h.Div(h.Time(g.Text(at)), h.Span(g.Text(plain(line)))))
	}
	return out
}

// lower is the style of a state.
func lower[S ~string](state S) string { return strings.ToLower(string(state)) }
