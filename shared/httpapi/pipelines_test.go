package httpapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"runnerhub/shared/ci"
)

func TestCheckPipeline(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, _, app := b.app()
	path := "/api/apps/" + app + "/pipeline/check"
	check := func(text string, event any) map[string]any {
		t.Helper()
		return br.post(path, map[string]any{"text": text, "event": event}).want(200).json()
	}

	const sound = "name: Shop\ntriggers:\n  - event: push\n    branches: [main, release/*]\nsteps:\n  - run: make\n"
	got := check(sound, map[string]any{"kind": "push", "branch": "feature/x"})
	verdict := got["verdict"].(map[string]any)
	if verdict["matched"] != false || verdict["code"] != "no_match" || !strings.Contains(verdict["reason"].(string), "feature/x") {
		t.Errorf("the verdict is %v", verdict)
	}
	if steps := got["plan"].(map[string]any)["steps"].([]any); len(steps) != 1 || len(got["problems"].([]any)) != 0 || len(got["unoffered"].([]any)) != 0 {
		t.Errorf("the report is %v", got)
	}
	if got := check(sound, map[string]any{"kind": "push", "branch": "release/1"})["verdict"].(map[string]any); got["matched"] != true {
		t.Errorf("release/1 is decided %v", got)
	}
	if got := check(sound, nil); got["verdict"] != nil || got["plan"] == nil {
		t.Errorf("without an event: %v", got)
	}

	fork := map[string]any{"kind": "pull_request", "branch": "a", "target": "main", "fork": map[string]any{"foreign": true, "allowed": true}}
	asked := strings.ReplaceAll(sound, "push", "pull_request")
	if got := check(asked, fork)["verdict"].(map[string]any); got["code"] != "fork" {
		t.Errorf("a fork, which the app does not allow, is decided %v", got)
	}
	br.patch("/api/apps/"+app, map[string]any{"allow_forks": true}).want(200)
	if got := check(asked, fork)["verdict"].(map[string]any); got["code"] != "held" {
		t.Errorf("a fork, which the app allows, is decided %v", got)
	}

	got = check("trigers: [push]\nname: Shop\nsteps:\n  - run: make\n", map[string]any{"kind": "push", "branch": "main"})
	problem := got["problems"].([]any)[0].(map[string]any)
	if problem["line"] != 1.0 || problem["column"] != 1.0 || problem["nearest"] != "triggers" || problem["found"] == "" || problem["expected"] == "" {
		t.Errorf("the mistake is %v", problem)
	}
	if got["plan"] != nil || got["verdict"] != nil {
		t.Errorf("a broken file has a plan or a verdict: %v", got)
	}
	if got := check("platform: macos\n"+sound, nil); len(got["problems"].([]any)) != 0 || len(got["unoffered"].([]any)) != 1 || got["plan"] == nil {
		t.Errorf("what is not offered: %v", got)
	}
	if got := check("# "+strings.Repeat("x", 256<<10)+"\n"+sound, nil); len(got["problems"].([]any)) != 1 {
		t.Errorf("a file that is too long: %v", got)
	}
	if list := br.get("/api/apps/" + app + "/builds").want(200).items(); len(list) != 0 {
		t.Errorf("checking made builds: %v", list)
	}

	for field, body := range map[string]map[string]any{
		"text":               {},
		"texts":              {"texts": sound},
		"event":              {"text": sound, "event": "push"},
		"event.branc":        {"text": sound, "event": map[string]any{"kind": "push", "branc": "main"}},
		"event.kind":         {"text": sound, "event": map[string]any{"branch": "main"}},
		"event.action":       {"text": sound, "event": map[string]any{"kind": "push", "action": "exploded"}},
		"event.branch":       {"text": sound, "event": map[string]any{"kind": "push", "branch": strings.Repeat("x", 256)}},
		"event.message":      {"text": sound, "event": map[string]any{"kind": "push", "message": strings.Repeat("x", 65<<10)}},
		"event.changed":      {"text": sound, "event": map[string]any{"kind": "push", "changed": make([]string, 10_001)}},
		"event.fork.foreign": {"text": sound, "event": map[string]any{"kind": "push", "fork": map[string]any{"foreign": 1}}},
	} {
		if got := br.post(path, body).want(400).text("field"); got != field {
			t.Errorf("%s: the field is %q", field, got)
		}
	}
	br.post(path, map[string]any{"text": strings.Repeat("x", 1<<20)}).want(413)
}

func TestPipelineSchema(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	a := b.browser().get("/pipeline.schema.json").want(200)
	if a.json()["title"] != "RunnerHub pipeline file" || !strings.Contains(a.header.Get("Cache-Control"), "max-age=") {
		t.Errorf("it is %v, %.100s", a.header, a.body)
	}
	tag := a.header.Get("ETag")
	if tag == "" {
		t.Fatal("it has no ETag")
	}
	b.browser().do(http.MethodGet, "/pipeline.schema.json", nil, "If-None-Match", tag).want(304)
	b.browser().do(http.MethodGet, "/pipeline.schema.json", nil, "If-None-Match", `"old"`).want(200)
}

func TestReplay(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, _, app := b.app()
	workspace := br.get("/api/apps/" + app).text("workspace")
	path := func(id string) string { return "/api/deliveries/" + id + "/replay" }
	id := b.delivers(app, workspace, ci.Event{Kind: ci.EventPush, Key: "repo:push"}, "")
	for range 2 {
		got := br.post(path(id), nil).want(202).json()
		if got["id"] != id || got["decided_at"] != nil || len(got["decisions"].([]any)) != 0 || got["note"] == "" {
			t.Errorf("it is %v", got)
		}
	}
	br.post(path(b.delivers(app, workspace, ci.Event{Kind: ci.EventPush}, "the event is too large to be kept: it cannot be replayed")), nil).want(409).says("too large")
	messages, err := b.queue.Receive(t.Context(), 10, 0)
	b.ok(err)
	for _, m := range messages {
		if string(m.Body) != `{"again":"`+id+`"}` {
			t.Errorf("a message is %s", m.Body)
		}
	}
	if len(messages) != 2 {
		t.Errorf("%d messages", len(messages))
	}
}

func TestStoredPipelines(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, _, app := b.app()
	path, versions := "/api/apps/"+app+"/pipelines", "/api/apps/"+app+"/pipeline-versions"
	text := func(name string) string { return "name: " + name + "\ntriggers: []\nsteps:\n  - run: make\n" }
	put := func(branches, text string, version int) answer {
		return br.do(http.MethodPut, path, map[string]any{"branches": branches, "text": text, "version": version})
	}
	if got := br.get(path).want(200).items(); len(got) != 0 {
		t.Errorf("at first there are %v", got)
	}
	first := put("**", text("One"), 0).want(200).json()
	if first["version"] != 1.0 || first["text"] != text("One") || first["changed_by"] != br.id() || first["changed_by_name"] == nil || first["changed_by_name"] == "" || first["branches"] != "**" {
		t.Errorf("it is %v", first)
	}
	put("**", text("Two"), 0).want(409).says("version 1")
	put("**", text("Two"), 1).want(200)
	put("**", text("Three"), 1).want(409).says("version 2")
	put("release/*", text("Release"), 1).want(409).says("no pipeline file")
	put("release/*", text("Release"), 0).want(200)
	for field, a := range map[string]answer{"branches": put("feature**", text("x"), 0), "text": put("main", "name: Shop\nsteps: []\ntrigers: [push]\n", 0)} {
		if got := a.want(400).text("field"); got != field {
			t.Errorf("the field is %s", got)
		}
		if problems, _ := a.json()["problems"].([]any); (len(problems) >= 2) != (field == "text") {
			t.Errorf("%s: the problems are %v", field, problems)
		}
	}
	put("main", strings.Repeat("x", 1<<20), 0).want(413)
	put("main", "# "+strings.Repeat("x", 256<<10), 0).want(400)
	list := br.get(path).want(200).items()
	if len(list) != 2 || list[0]["version"] != 2.0 || list[1]["branches"] != "release/*" {
		t.Errorf("there are %v", list)
	}
	one := path + "/" + first["id"].(string)
	br.do(http.MethodDelete, one, nil).want(400)
	br.do(http.MethodDelete, one+"?version=1", nil).want(409)
	br.do(http.MethodDelete, one+"?version=2", nil).want(204)
	br.do(http.MethodDelete, one+"?version=2", nil).want(404)
	history := br.get(versions).want(200).items()
	if len(history) != 4 || history[0]["deleted"] != true || history[0]["version"] != 4.0 || history[3]["version"] != 1.0 {
		t.Errorf("the versions are %v", history)
	}
	if got := br.get(versions + "/1").want(200).text("text"); got != text("One") {
		t.Errorf("version 1 is %q", got)
	}
	br.get(versions + "/9").want(404)
	br.get(versions + "/x").want(400)
	// Races: of several at once, one is first. The most is 20.
	var group sync.WaitGroup
	statuses := make([]int, 8)
	for i := range statuses {
		group.Go(func() { statuses[i] = put("**", text(fmt.Sprint("Race", i)), 0).status })
	}
	group.Wait()
	slices.Sort(statuses)
	if statuses[0] != 200 || statuses[1] != 409 {
		t.Errorf("of many at once: %v", statuses)
	}
	for i := range 18 {
		put(fmt.Sprint("b", i), text("x"), 0).want(200)
	}
	put("one-more", text("x"), 0).want(409).says("20 pipeline files")
}
