package httpapi

// The pages are plain on purpose: they work without scripts, wherever a commit's status
// links to, and the dashboard is built on the API.

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

const templates = `
{{define "top"}}<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{{if .Reload}}<meta http-equiv="refresh" content="{{.Reload}}">{{end}}
<title>{{.Title}}</title>
<style>{{style}}</style>
</head>
<body>
<header><a href="/">RunnerHub</a>{{if .User}}<span class="soft">{{or .User.Name .User.Nickname}}</span>{{end}}</header>
<main>
{{end}}

{{define "bottom"}}</main>
</body>
</html>
{{end}}

{{define "home"}}{{template "top" .}}
<h1>RunnerHub for Bitbucket</h1>
<p>Continuous integration for Bitbucket repositories: a push or a pull request starts a build, and the commit shows how it went.</p>
{{if .Denied}}<p class="note failed">Bitbucket was not allowed to say who you are, so you are not signed in.</p>{{end}}
{{if .User}}<p>You are signed in as <strong>{{or .User.Name .User.Nickname}}</strong>{{if and .User.Name (ne .User.Name .User.Nickname)}} ({{.User.Nickname}} on Bitbucket){{end}}.</p>
{{else}}<p><a class="button" href="{{.SignIn}}">Sign in with Bitbucket</a></p>{{end}}
<h2>API</h2>
<p>Everything is at <code>/api</code>, described in <code>docs/openapi.yaml</code>. Start with <a href="/api/me">/api/me</a> and <a href="/api/workspaces">/api/workspaces</a>.
Scripts send <code>Authorization: Bearer</code> with a token from <code>/api/tokens</code>.</p>
{{template "bottom"}}{{end}}

{{define "error"}}{{template "top" .}}
<h1>{{.Title}}</h1>
<p>{{.Problem.Detail}}</p>
{{if not .User}}<p><a class="button" href="{{.SignIn}}">Sign in with Bitbucket</a></p>{{end}}
<p class="soft">Reference <code>{{.Problem.Ref}}</code></p>
{{template "bottom"}}{{end}}

{{define "confirm"}}{{template "top" .}}
<h1>Connect the Bitbucket account {{.Account}}?</h1>
<p>You are signed in as <strong>{{.Nickname}}</strong>, but it was <strong>{{.Account}}</strong> who consented on Bitbucket.
The workspace <strong>{{.Workspace}}</strong> would read repositories, install webhooks and post statuses as <strong>{{.Account}}</strong>.</p>
<form method="post" action="/auth/confirm">
<input type="hidden" name="ticket" value="{{.Ticket}}">
<button class="button" name="answer" value="yes">Connect {{.Account}}</button>
<button class="button plain" name="answer" value="no">Cancel</button>
</form>
{{template "bottom"}}{{end}}

{{define "build"}}{{template "top" .}}
{{with .Build}}
<h1>Build #{{.Number}} of {{$.App.Name}} <span class="state {{lower .State}}">{{.State}}</span></h1>
{{if .Reason}}<p class="note {{lower .State}}">{{.Reason}}</p>{{end}}
<dl>
{{if .Name}}<dt>Pipeline</dt><dd>{{.Name}}</dd>{{end}}
<dt>Repository</dt><dd>{{.FullName}}</dd>
<dt>Builds</dt><dd>{{with $.PullRequest}}<a href="{{.}}">{{$.Build.Ref}}</a>{{else}}{{.Ref}}{{end}}{{if .PullRequest}}, {{.Branch}} → {{.Target}}{{end}}</dd>
<dt>Commit</dt><dd>{{with $.Commit}}<a href="{{.}}"><code>{{short $.Build.Commit}}</code></a>{{else}}<code>{{short .Commit}}</code>{{end}} {{.Message}}{{if .Author}} <span class="soft">by {{.Author}}</span>{{end}}</dd>
<dt>Trigger</dt><dd>{{.Trigger}}</dd>
<dt>Created</dt><dd>{{when .CreatedAt}}</dd>
{{with took .StartedAt .FinishedAt}}<dt>Took</dt><dd>{{.}}</dd>{{end}}
{{with .Status}}<dt>On Bitbucket</dt><dd>{{.State}}{{if .Ended}}, not posted: {{.Ended}}{{else if .Problem}}, not posted yet: {{.Problem}}{{else if not .Posted}}, not posted yet{{end}}{{if ne .Build $.Build.ID}} <span class="soft">(of a newer build)</span>{{end}}</dd>{{end}}
</dl>
{{if .Steps}}<h2>Steps</h2>
<table>
{{range .Steps}}<tr><td>{{.Name}}</td><td class="{{lower .State}}">{{.State}}{{if .ExitCode}} (exit code {{.ExitCode}}){{end}}</td><td>{{took .StartedAt .FinishedAt}}</td></tr>
{{end}}</table>{{end}}
{{end}}
<h2>Log</h2>
{{if .Log.Left}}<p class="soft">{{.Log.Left}} earlier {{if eq .Log.Left 1}}line is{{else}}lines are{{end}} left out, as this page shows the last 2,000 lines or 256 KiB; all of them are at <code>/api/builds/{{.Build.ID}}/log</code>.</p>{{end}}
{{if .Log.Lines}}{{$step := ""}}<div class="log">
{{range $i, $line := .Log.Lines}}{{if or (eq $i 0) (ne .Step $step)}}{{$step = .Step}}<div class="step">{{or .Step "RunnerHub"}}</div>
{{end}}<div><time>{{if not .Time.IsZero}}{{clock .Time}}{{end}}</time><span>{{plain .}}</span></div>
{{end}}</div>
{{else}}<p class="soft">{{if .Log.Running}}Nothing yet.{{else}}The log is empty.{{end}}</p>{{end}}
{{if .Log.Cut}}<p class="soft">The log goes on: it is too long for this page.</p>{{end}}
{{template "bottom"}}{{end}}
`
