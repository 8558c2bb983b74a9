package httpapi_test

import (
	"net/http"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// nightly is the body of a schedule.
func nightly() map[string]any {
	return map[string]any{"cron": "30 2 * * *", "zone": "Europe/Berlin", "branch": "main"}
}

func (br *browser) patch(path string, body any) answer {
	return br.do(http.MethodPatch, path, body)
}

func TestSchedules(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, _, app := b.app()
	path := "/api/apps/" + app + "/schedules"
	made := br.post(path, nightly()).want(201)
	id := made.text("id")
	one := "/api/schedules/" + id
	v := made.json()
	if v["app"] != app || v["cron"] != "30 2 * * *" || v["zone"] != "Europe/Berlin" || v["branch"] != "main" || v["active"] != true ||
		v["created_by"] != br.id() || v["note"] != nil || v["last"] != nil {
		t.Errorf("it is %v", v)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	b.ok(err)
	next := v["next"].([]any)
	for _, text := range next {
		at, err := time.Parse(time.RFC3339, text.(string))
		b.ok(err)
		if local := at.In(berlin); local.Minute() != 30 || local.Hour() != 2 || !at.After(b.now()) {
			t.Errorf("one of the next minutes is %s", text)
		}
	}
	if len(next) != 3 || b.entries()[id] == "" {
		t.Errorf("the next minutes are %v, the timetable has %v", next, b.entries())
	}

	v = br.patch(one, map[string]any{"cron": "0 12 * * MON", "branch": "develop"}).want(200).json()
	if v["cron"] != "0 12 * * MON" || v["zone"] != "Europe/Berlin" || v["branch"] != "develop" || v["active"] != true {
		t.Errorf("changed, it is %v", v)
	}
	v = br.patch(one, map[string]any{"active": false}).want(200).json()
	if v["active"] != false || len(v["next"].([]any)) != 0 {
		t.Errorf("put to rest, it is %v", v)
	}
	list := br.get(path).want(200).items()
	if len(list) != 1 || list[0]["id"] != id || list[0]["active"] != false {
		t.Errorf("the list is %v", list)
	}
	br.do(http.MethodDelete, one, nil).want(204)
	br.do(http.MethodDelete, one, nil).want(404)
	br.patch(one, map[string]any{}).want(404)
	if list := br.get(path).want(200).items(); len(list) != 0 {
		t.Errorf("the list is %v", list)
	}
}

func TestSchedulesRefused(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, _, app := b.app()
	path := "/api/apps/" + app + "/schedules"
	id := br.post(path, nightly()).want(201).text("id")
	for field, value := range map[string]any{
		"cron": "61 * * * *", "zone": "Mars/Olympus", "branch": "refs/heads/main", "active": "yes", "name": "nightly",
	} {
		body := nightly()
		body[field] = value
		for _, a := range []answer{br.post(path, body), br.patch("/api/schedules/"+id, map[string]any{field: value})} {
			if got := a.want(400).text("field"); got != field {
				t.Errorf("%s = %v: the field is %s", field, value, got)
			}
		}
		delete(body, field)
		if field == "cron" || field == "zone" || field == "branch" {
			if got := br.post(path, body).want(400).text("field"); got != field {
				t.Errorf("without %s: the field is %s", field, got)
			}
		}
	}
	if v := br.get(path).want(200).items(); len(v) != 1 || v[0]["cron"] != "30 2 * * *" || v[0]["branch"] != "main" {
		t.Errorf("what was refused was stored: %v", v)
	}
	for range 49 {
		br.post(path, nightly()).want(201)
	}
	br.post(path, nightly()).want(409).says("50 schedules")
}

// What is stored is answered, also while the timetable cannot be told.
func TestTimetableIsDown(t *testing.T) {
	t.Parallel()
	b := newBed(t, options{})
	br, _, app := b.app()
	b.timetable.off.Store(true)
	made := br.post("/api/apps/"+app+"/schedules", nightly()).want(201).says("no timetable today")
	if len(b.entries()) != 0 {
		t.Errorf("the timetable has %v", b.entries())
	}
	b.timetable.off.Store(false)
	v := br.patch("/api/schedules/"+made.text("id"), map[string]any{}).want(200).json()
	if v["note"] != nil || len(b.entries()) != 1 {
		t.Errorf("told anew, it is %v, and the timetable has %v", v, b.entries())
	}
}

// entries answers what the timetable has, by id.
func (b *bed) entries() map[string]string {
	b.t.Helper()
	out := map[string]string{}
	page, err := b.table.Query(b.t.Context(), table.Query{Partition: "TIMETABLE", Limit: 100})
	if err != nil && !fault.Is(err, fault.NotFound) {
		b.t.Fatal(err)
	}
	for _, item := range page.Items {
		out[item.Key.Sort] = string(item.Body)
	}
	return out
}
