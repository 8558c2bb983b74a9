package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/buildlog"
	"runnerhub/shared/ci"
	"runnerhub/shared/store"
)

func (b *bed) prints(build, step string, texts ...string) {
	b.t.Helper()
	lines := make([]buildlog.Line, 0, len(texts))
	for _, text := range texts {
		lines = append(lines, buildlog.Line{Time: b.now(), Step: step, Text: text})
	}
	b.ok(b.logs.Append(b.t.Context(), "log-of-"+build, lines...))
}

func TestBuilds(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	if items := br.get("/api/apps/" + app + "/builds").want(200).items(); len(items) != 0 {
		t.Errorf("there are builds: %v", items)
	}
	var last string
	for range 51 {
		last = b.builds(app, workspace, ci.Queued)
	}
	first := br.get("/api/apps/" + app + "/builds").want(200)
	if items := first.items(); len(items) != 50 || items[0]["id"] != last || items[0]["number"] != 51.0 {
		t.Errorf("the first page has %d builds", len(items))
	}
	second := br.get("/api/apps/" + app + "/builds?cursor=" + first.text("cursor")).want(200)
	if items := second.items(); len(items) != 1 || items[0]["number"] != 1.0 || second.json()["cursor"] != "" {
		t.Errorf("the second page is %s", second.body)
	}

	build := br.get("/api/builds/" + last).want(200).json()
	if build["state"] != "QUEUED" || build["trigger"] != "push" || build["branch"] != "main" || build["app"] != app || build["url"] != b.public+"/builds/"+last {
		t.Errorf("the build is %v", build)
	}
	status := build["status"].(map[string]any)
	if status["state"] != "INPROGRESS" || status["posted"] != false || status["build"] != last {
		t.Errorf("its status is %v", status)
	}
	_, _, err := b.store.ChangeStatus(t.Context(), store.StatusRef{Repository: "{r}", Commit: strings.Repeat("ab", 20), Key: "key"}, func(st *store.Status) bool {
		st.Posted = st.Revision
		return true
	})
	b.ok(err)
	b.becomes(last, ci.Running)
	if status := br.get("/api/builds/" + last).json()["status"].(map[string]any); status["posted"] != true {
		t.Errorf("its status is %v", status)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	build := b.builds(app, workspace, ci.Running)
	read := func(cursor string) (texts []string, next string, done bool) {
		a := br.get("/api/builds/" + build + "/log?cursor=" + cursor).want(200)
		for _, line := range a.items() {
			texts = append(texts, line["text"].(string))
		}
		return texts, a.json()["cursor"].(string), a.json()["done"].(bool)
	}
	if texts, _, done := read(""); len(texts) != 0 || done {
		t.Errorf("a log that was not begun: %q, done %v", texts, done)
	}
	b.prints(build, "Test", "one", "two")
	texts, cursor, done := read("")
	if fmt.Sprint(texts) != "[one two]" || done {
		t.Errorf("%q, done %v", texts, done)
	}
	if texts, same, done := read(cursor); len(texts) != 0 || same != cursor || done {
		t.Errorf("nothing new: %q, %s, done %v", texts, same, done)
	}
	long := make([]string, 0, 1500)
	for i := range 1500 {
		long = append(long, fmt.Sprint("line ", i))
	}
	b.prints(build, "Test", long...)
	b.becomes(build, ci.Failed)
	texts, cursor, done = read(cursor)
	if len(texts) != 1000 || done {
		t.Errorf("%d lines, done %v", len(texts), done)
	}
	if texts, _, done = read(cursor); len(texts) != 500 || texts[499] != "line 1499" || !done {
		t.Errorf("%d lines, done %v", len(texts), done)
	}
	other := b.builds(app, workspace, ci.Running)
	if field := br.get("/api/builds/" + other + "/log?cursor=" + cursor).want(400).text("field"); field != "cursor" {
		t.Errorf("the field is %s", field)
	}
	if _, err := time.Parse(time.RFC3339Nano, br.get("/api/builds/" + build + "/log").items()[0]["time"].(string)); err != nil {
		t.Error(err)
	}
}

// Where lines come after a build's end, its log is done when it has its last line, or the time for lines to come is over, and
// until then its page is asked for again.
func TestLogsThatComeLate(t *testing.T) {
	t.Parallel()
	const settling = 30 * time.Second
	b := newBed(t, options{settling: settling})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	last := func(build string) {
		line := buildlog.End("FAILED")
		line.Time = b.now()
		b.ok(b.logs.Append(t.Context(), "log-of-"+build, line))
	}
	attempt := func(claimed bool) func(build string) {
		return func(build string) {
			_, _, err := b.store.ChangeBuild(t.Context(), build, func(edited *store.Build) (bool, error) {
				edited.Begin(store.Attempt{ID: b.newID(), Ticket: b.newID()}, b.now())
				if claimed {
					edited.State, edited.Nonce, edited.StartedAt = ci.Running, b.newID(), b.now().UTC()
				}
				return true, nil
			})
			b.ok(err)
			b.clock.Add(int64(5 * time.Second))
		}
	}
	begins, waits := attempt(true), attempt(false)
	says := func(build string) { b.prints(build, "Test", "one") }
	ends := func(state ci.State) func(build string) {
		return func(build string) {
			_, _, err := b.store.ChangeBuild(t.Context(), build, func(edited *store.Build) (bool, error) {
				edited.State = state
				return true, nil
			})
			b.ok(err)
		}
	}
	fails := ends(ci.Failed)
	for name, test := range map[string]struct {
		before []func(build string) // what happens before the log is read for the first time
		done   bool
		then   func(build string) // what ends the wait before its time; nil: nothing does
	}{
		"the agent's report is first":                {before: []func(string){begins, fails}, then: last},
		"some lines have come":                       {before: []func(string){begins, says, fails}, then: last},
		"all lines have come":                        {before: []func(string){begins, says, last, fails}, done: true},
		"the last line alone":                        {before: []func(string){begins, last, fails}, done: true},
		"no agent says a last line":                  {before: []func(string){begins, says, fails}},
		"a step says what looks like a last line":    {before: []func(string){begins, func(build string) { b.prints(build, "Test", buildlog.End("FAILED").Text) }, fails}, then: last},
		"the last line is of an earlier attempt":     {before: []func(string){begins, last, begins, fails}, then: last},
		"the agent of the last attempt did not come": {before: []func(string){begins, last, waits, fails}},
		"it was stopped before any attempt":          {before: []func(string){ends(ci.Stopped)}, done: true},
		"its file is broken":                         {before: []func(string){ends(ci.Errored)}, then: func(build string) { b.prints(build, "", "line 1: no") }},
		"its file is broken, and the log says why":   {before: []func(string){func(build string) { b.prints(build, "", "line 1: no") }, ends(ci.Errored)}, done: true},
	} {
		t.Run(name, func(t *testing.T) {
			build := b.builds(app, workspace, ci.Queued)
			cursors := []string{""}
			is := func(when string, want bool) {
				t.Helper()
				for _, cursor := range cursors { // of a reader who begins now, and of those who went on from each place
					a := br.get("/api/builds/" + build + "/log?cursor=" + cursor).want(200)
					if done := a.json()["done"]; done != want {
						t.Errorf("%s, from %q on, done is %v: %s", when, cursor, done, a.body)
					}
					cursors = append(cursors, a.text("cursor"))
				}
				a := br.get("/builds/" + build).want(200)
				if again := strings.Contains(a.body, `http-equiv="refresh"`); again == want {
					t.Errorf("%s, the page is asked for again: %v", when, again)
				}
				if !want && strings.Contains(a.body, "The log is empty.") {
					t.Errorf("%s, the page says that the log is empty", when)
				}
			}
			for _, step := range test.before {
				is("before it ended", false)
				step(build)
			}
			is("when it ended", test.done)
			if test.done {
				return
			}
			b.clock.Add(int64(settling / 2))
			is("a while later", false)
			if test.then != nil {
				test.then(build)
				is("with its last line", true)
				return
			}
			b.clock.Add(int64(settling / 2))
			is("when all had the time to come", true)
		})
	}
	build := b.builds(app, workspace, ci.Queued)
	for _, cursor := range []string{".1", "x.1", ".", br.get("/api/builds/"+build+"/log").text("cursor") + ".x"} {
		if field := br.get("/api/builds/" + build + "/log?cursor=" + cursor).want(400).text("field"); field != "cursor" {
			t.Errorf("of cursor %q the field is %s", cursor, field)
		}
	}
}

// The name of a log is for those who write and read it: who knows it may be able to write there, too.
func TestLogNamesAreNotShown(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	build := b.builds(app, workspace, ci.Running)
	b.prints(build, "Test", "one")
	for _, path := range []string{"/api/builds/" + build, "/api/apps/" + app + "/builds", "/api/builds/" + build + "/log", "/builds/" + build} {
		a := br.get(path).want(200)
		if !strings.Contains(a.body, build) && !strings.Contains(a.body, "one") || strings.Contains(a.body, "log-of-") {
			t.Errorf("%s shows the name of the log, or nothing: %s", path, a.body)
		}
	}
	if a := br.get("/api/builds/" + build + "/log?cursor=x").want(400); strings.Contains(a.body, "log-of-") {
		t.Errorf("a refusal shows it: %s", a.body)
	}
}

func TestDeliveries(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	for i, decisions := range [][]ci.Decision{nil, {{
		Ref: "branch x", Verdict: ci.Skipped, Reason: "branch x matches none of main", Code: "no_match", Rule: &ci.Rule{Trigger: 1, Line: 3},
		Findings: []ci.Finding{{Rule: ci.Rule{Trigger: 0, Line: 2}, Filter: "branches", Result: "not_included", Value: "x", Patterns: []string{"main"}}},
	}}} {
		_, err := b.store.PutDelivery(t.Context(), store.Delivery{
			Delivery: ci.Delivery{
				ID: fmt.Sprint("d", i), App: app, Event: "repo:push", RequestID: "r", Attempt: 1,
				ReceivedAt: b.now().Add(time.Duration(i) * time.Second).UTC(), Decisions: decisions,
			},
			Workspace: workspace, Hook: "the-hook-id", Note: "a note",
		})
		b.ok(err)
	}
	a := br.get("/api/apps/" + app + "/deliveries").want(200)
	items := a.items()
	if len(items) != 2 || items[0]["id"] != "d1" || items[0]["event"] != "repo:push" || items[0]["note"] != "a note" {
		t.Fatalf("the deliveries are %v", items)
	}
	decision := items[0]["decisions"].([]any)[0].(map[string]any)
	if decision["ref"] != "branch x" || decision["decision"] != "SKIPPED" || decision["reason"] != "branch x matches none of main" {
		t.Errorf("the decision is %v", decision)
	}
	finding := decision["findings"].([]any)[0].(map[string]any)
	if decision["code"] != "no_match" || finding["line"] != 2. || finding["result"] != "not_included" || finding["value"] != "x" {
		t.Errorf("as data, the decision is %v", decision)
	}
	if undecided, ok := items[1]["decisions"].([]any); !ok || len(undecided) != 0 {
		t.Errorf("no decisions are %v", items[1]["decisions"])
	}
	if strings.Contains(a.body, "the-hook-id") {
		t.Error("the answer shows the hook's address")
	}
}

func TestBuildPage(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop & <Co>")
	build := b.builds(app, workspace, ci.Running)
	path := "/builds/" + build

	b.browser().get(path).want(401).says("Sign in with Bitbucket").says("/auth/login?return=%2Fbuilds%2F" + build)
	b.signsIn("mallory").get(path).want(404).says("no such build")

	shop := b.forge.address + "/acme/shop/"
	a := br.get(path).want(200).says(`http-equiv="refresh"`).says("Nothing yet.").says(`href="` + shop + "commits/" + strings.Repeat("ab", 20) + `"`)
	if strings.Contains(a.body, "pull-requests") {
		t.Error("a push links to a pull request")
	}
	_, _, err := b.store.ChangeBuild(t.Context(), build, func(edited *store.Build) (bool, error) {
		edited.PullRequest, edited.Target = 7, "main"
		return true, nil
	})
	b.ok(err)
	br.get(path).want(200).says(`<a href="` + shop + `pull-requests/7">pull request #7</a>, main → main`)
	b.prints(build, "", "claimed")
	br.get(path).want(200).says(`<div class="step">RunnerHub</div>`)
	b.prints(build, "Test", "\x1b[32mgreen\x1b[0m <script>alert(1)</script>", "\x1b]0;title\x07after", "plain")
	b.prints(build, "Package", "packing")
	b.becomes(build, ci.Failed)
	a = br.get(path).want(200).says("Shop &amp; &lt;Co&gt;").says("FAILED").says("Count &lt;b&gt;everything").
		says("green &lt;script&gt;").says("<span>after</span>").says("exit code 2").says("step Package failed")
	for _, unwanted := range []string{"http-equiv=\"refresh\"", "\x1b", "<script", "ZgotmplZ"} {
		if strings.Contains(a.body, unwanted) {
			t.Errorf("the page holds %q", unwanted)
		}
	}
	if got := a.header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("the page is %s", got)
	}
	br.do(http.MethodHead, path, nil).want(200)

	lines := make([]string, 0, 2500)
	for i := range 2500 {
		lines = append(lines, fmt.Sprint("count ", i, " end"))
	}
	b.prints(build, "Package", lines...)
	a = br.get(path).want(200).says("505 earlier lines").says("count 2499 end")
	if strings.Contains(a.body, "count 499 end") {
		t.Error("the page shows more than its end")
	}
}

// The page of a build of a fork says that it waits for an approval, and then who gave it; one that was superseded leads to
// the newer one.
func TestForksOnTheBuildPage(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	br.do(http.MethodPatch, "/api/apps/"+app, map[string]any{"allow_forks": true}).want(200)
	build, newer := b.builds(app, workspace, ci.Queued), b.builds(app, workspace, ci.Queued)
	for _, id := range []string{build, newer} {
		_, _, err := b.store.ChangeBuild(t.Context(), id, func(edited *store.Build) (bool, error) {
			edited.PullRequest, edited.Target, edited.Held, edited.Reason = 7, "main", true, "waits until a member approves the commit"
			edited.Fork, edited.ForkName, edited.PipelineCommit = "{f}", "carol/<shop>", strings.Repeat("cd", 20)
			return true, nil
		})
		b.ok(err)
	}
	page := "/builds/" + build
	a := br.get(page).want(200).says("waits until a member approves").says("<strong>carol/&lt;shop&gt;</strong>").
		says("<code>POST /api/builds/" + build + "/approve</code>").says(`href="` + b.forge.address + `/acme/shop/pull-requests/7">the change</a>`).
		says(`href="` + b.forge.address + `/carol/%3Cshop%3E/commits/` + strings.Repeat("ab", 20)).says("of main at <code>cdcdcdcdcdcd</code>")
	if strings.Contains(a.body, "Approved") || strings.Contains(a.body, "<shop>") {
		t.Errorf("the page is %s", a.body)
	}
	approved := br.do(http.MethodPost, "/api/builds/"+build+"/approve", nil).want(202).json()
	if approved["approved_by"] != "Alice Admin" || approved["approved_at"] == nil || approved["held"] != nil {
		t.Errorf("approved, the build is %v", approved)
	}
	if again := br.do(http.MethodPost, "/api/builds/"+build+"/approve", nil).want(202).json(); again["approved_at"] != approved["approved_at"] {
		t.Errorf("approved again, the build is %v", again)
	}
	a = br.get(page).want(200).says("by Alice Admin at ")
	if strings.Contains(a.body, "/approve") {
		t.Errorf("the page is %s", a.body)
	}
	_, _, err := b.store.ChangeBuild(t.Context(), build, func(edited *store.Build) (bool, error) {
		edited.SupersededBy = &ci.Successor{Build: newer, Number: 2}
		return edited.Stop("superseded by #2", b.now()), nil
	})
	b.ok(err)
	br.get(page).want(200).says("superseded by #2").says(`<a href="/builds/` + newer + `">build #2</a>`)
}

// However long the lines are that a build prints, an answer stays small.
func TestLongLines(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	workspace := br.makes("/api/workspaces", "Acme")
	app := br.makes("/api/workspaces/"+workspace+"/apps", "Shop")
	build := b.builds(app, workspace, ci.Running)
	const count = 200
	lines := make([]string, 0, count)
	for i := range count {
		lines = append(lines, fmt.Sprintf("<%d>", i)+strings.Repeat("\x01", buildlog.MaxText-16))
	}
	b.prints(build, "Test", lines...)
	b.becomes(build, ci.Failed)
	got, cursor := 0, ""
	for pages := 0; ; pages++ {
		a := br.get("/api/builds/" + build + "/log?cursor=" + cursor).want(200)
		if len(a.body) > 4<<20 || pages > 20 {
			t.Fatalf("page %d has %d bytes", pages, len(a.body))
		}
		for _, line := range a.items() {
			if line["text"] != lines[got] {
				t.Fatalf("line %d is %.20q", got, line["text"])
			}
			got++
		}
		if cursor = a.text("cursor"); a.json()["done"] == true {
			break
		}
	}
	if got != count {
		t.Errorf("there are %d lines, want %d", got, count)
	}
	a := br.get("/builds/" + build).want(200).says("184 earlier lines are left out").says("&lt;199&gt;").says("&lt;184&gt;")
	if len(a.body) > 512<<10 || strings.Contains(a.body, "&lt;183&gt;") {
		t.Errorf("the page has %d bytes", len(a.body))
	}
}
