package httpapi_test

import (
	"net/http"
	"testing"
)

func TestSettingsOfAnApp(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br := b.signsIn("alice")
	app := "/api/apps/" + br.makes("/api/workspaces/"+br.makes("/api/workspaces", "Acme")+"/apps", "Shop")
	shown := func(name, path string, forks bool) {
		t.Helper()
		got := br.get(app).want(200).json()
		if got["name"] != name || got["pipeline_path"] != path || got["allow_forks"] != forks {
			t.Errorf("the app is %v", got)
		}
	}
	shown("Shop", "", false)
	br.do(http.MethodPatch, app, map[string]any{"pipeline_path": "ios/ci.yml", "allow_forks": true}).want(200).says("ios/ci.yml")
	shown("Shop", "ios/ci.yml", true)
	br.do(http.MethodPatch, app, map[string]any{"name": "  Till "}).want(200)
	shown("Till", "ios/ci.yml", true)
	for path, why := range map[string]string{"/ci.yml": "starts with /", "../ci.yml": "..", "ci.json": ".yml or .yaml", "a//b.yml": "a/b.yml"} {
		if field := br.do(http.MethodPatch, app, map[string]any{"pipeline_path": path}).want(400).says(why).text("field"); field != "pipeline_path" {
			t.Errorf("%s: the field is %s", path, field)
		}
	}
	br.do(http.MethodPatch, app, map[string]any{"name": ""}).want(400)
	br.do(http.MethodPatch, app, map[string]any{"nme": "x"}).want(400)
	br.do(http.MethodPatch, app, map[string]any{"pipeline_path": "", "allow_forks": false}).want(200)
	shown("Till", "", false)
	if got := br.do(http.MethodPatch, app, map[string]any{"cancel_superseded": true}).want(200).json()["cancel_superseded"]; got != true {
		t.Errorf("cancel_superseded is %v", got)
	}
	br.do(http.MethodPatch, app, map[string]any{}).want(200)
	shown("Till", "", false)
}
