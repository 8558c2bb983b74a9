// Package timetabletest is the contract suite of package timetable: every driver runs it.
package timetabletest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/timetable"
)

// Driver is what is under test.
type Driver struct {
	// Open answers an empty timetable at work. What it began ends with the test.
	Open func(t *testing.T) Running
	// Bubble runs one test: synctest.Test for a driver that waits on the clock of the
	// process, and nil for one whose minutes are real. A test then takes up to five of them.
	Bubble func(t *testing.T, test func(t *testing.T))
}

// Running is a timetable at work.
type Running struct {
	Timetable timetable.Timetable
	// Due answers the body of the next message published, and waits for it until ctx ends.
	Due func(ctx context.Context) (timetable.Due, error)
	// Restart ends what works in this process and begins it anew on the same state; nil
	// where nothing does.
	Restart func()
}

// Run runs the suite.
func Run(t *testing.T, d Driver) {
	for name, test := range map[string]func(*testing.T, Running){
		"publishes every minute":            publishesEveryMinute,
		"publishes at the time of the zone": publishesInTheZone,
		"publishes a replaced schedule":     publishesReplaced,
		"publishes several":                 publishesSeveral,
		"a deleted schedule is silent":      deletedIsSilent,
		"put again it goes on":              putAgainGoesOn,
		"survives a restart":                survivesRestart,
		"refuses what is no schedule":       refusesBadSchedules,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d.Bubble == nil {
				test(t, d.Open(t))
				return
			}
			d.Bubble(t, func(t *testing.T) { test(t, d.Open(t)) })
		})
	}
}

const everyMinute = "* * * * *"

func publishesEveryMinute(t *testing.T, r Running) {
	begun := time.Now()
	put(t, r, "s", everyMinute, "UTC")
	w := watch{Running: r, after: begun}
	first := w.next(t, "s")
	if first.Sub(begun) > 2*time.Minute {
		t.Errorf("the first minute is %v, put at %v", first, begun)
	}
	for i := 1; i < 3; i++ {
		if at := w.next(t, "s"); !at.Equal(first.Add(time.Duration(i) * time.Minute)) {
			t.Errorf("minute %d after %v is %v", i, first, at)
		}
	}
}

func publishesInTheZone(t *testing.T, r Running) {
	const zone = "Asia/Kathmandu" // 5:45 ahead, all the year
	local, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	at := begun.Truncate(time.Minute).Add(2 * time.Minute).In(local)
	put(t, r, "there", fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), zone)
	put(t, r, "here", fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour()), "UTC") // hours away
	w := watch{Running: r, after: begun}
	if got := w.next(t, "there"); !got.Equal(at) {
		t.Errorf("published at %v, want %v", got, at)
	}
	w.silent(t, time.Now())
}

func publishesReplaced(t *testing.T, r Running) {
	begun := time.Now()
	put(t, r, "s", farAway(begun), "UTC")
	put(t, r, "s", everyMinute, "UTC")
	w := watch{Running: r, after: begun}
	w.next(t, "s")
	put(t, r, "s", farAway(begun), "UTC")
	w.silent(t, time.Now())
}

func publishesSeveral(t *testing.T, r Running) {
	begun := time.Now()
	want := map[string]bool{}
	for i := range 5 {
		id := fmt.Sprint("several-", i)
		put(t, r, id, everyMinute, "UTC")
		want[id] = true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for len(want) > 0 {
		due, err := r.Due(ctx)
		if err != nil {
			t.Fatalf("%v were not published: %v", want, err)
		}
		parse(t, due, begun)
		delete(want, due.Schedule)
	}
}

func deletedIsSilent(t *testing.T, r Running) {
	begun := time.Now()
	put(t, r, "s", everyMinute, "UTC")
	w := watch{Running: r, after: begun}
	w.next(t, "s")
	for range 2 { // the second time it is absent
		if err := r.Timetable.Delete(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
	}
	deleted := time.Now()
	w.silent(t, deleted)
	put(t, r, "s", everyMinute, "UTC")
	w.after = deleted
	w.next(t, "s")
}

func putAgainGoesOn(t *testing.T, r Running) {
	begun := time.Now()
	w := watch{Running: r, after: begun}
	for range 3 {
		put(t, r, "s", everyMinute, "UTC")
	}
	first := w.next(t, "s")
	put(t, r, "s", everyMinute, "UTC")
	if at := w.next(t, "s"); !at.Equal(first.Add(time.Minute)) {
		t.Errorf("after %v comes %v", first, at)
	}
}

func survivesRestart(t *testing.T, r Running) {
	if r.Restart == nil {
		return // nothing in this process knows of the schedules
	}
	begun := time.Now()
	put(t, r, "s", everyMinute, "UTC")
	w := watch{Running: r, after: begun}
	first := w.next(t, "s")
	r.Restart()
	if at := w.next(t, "s"); !at.Equal(first.Add(time.Minute)) {
		t.Errorf("after %v comes %v", first, at)
	}
}

func refusesBadSchedules(t *testing.T, r Running) {
	good := timetable.Schedule{ID: "s", Cron: everyMinute, Zone: "UTC"}
	for _, test := range []struct {
		field string
		s     timetable.Schedule
	}{
		{"id", timetable.Schedule{ID: "", Cron: good.Cron, Zone: good.Zone}},
		{"id", timetable.Schedule{ID: "a/b", Cron: good.Cron, Zone: good.Zone}},
		{"id", timetable.Schedule{ID: strings.Repeat("a", 65), Cron: good.Cron, Zone: good.Zone}},
		{"cron", timetable.Schedule{ID: good.ID, Cron: "", Zone: good.Zone}},
		{"cron", timetable.Schedule{ID: good.ID, Cron: "* * * *", Zone: good.Zone}},
		{"cron", timetable.Schedule{ID: good.ID, Cron: "0 * * * * *", Zone: good.Zone}},
		{"cron", timetable.Schedule{ID: good.ID, Cron: "60 * * * *", Zone: good.Zone}},
		{"cron", timetable.Schedule{ID: good.ID, Cron: "0 0 31 2 *", Zone: good.Zone}},
		{"zone", timetable.Schedule{ID: good.ID, Cron: good.Cron, Zone: ""}},
		{"zone", timetable.Schedule{ID: good.ID, Cron: good.Cron, Zone: "Local"}},
		{"zone", timetable.Schedule{ID: good.ID, Cron: good.Cron, Zone: "Mars/Olympus"}},
	} {
		err := r.Timetable.Put(t.Context(), test.s)
		if _, field := fault.Public(err); !fault.Is(err, fault.Invalid) || field != test.field {
			t.Errorf("Put(%+v) = %v of field %q, want fault.Invalid of %q", test.s, err, field, test.field)
		}
	}
	if err := r.Timetable.Delete(t.Context(), "a/b"); !fault.Is(err, fault.Invalid) {
		t.Errorf("Delete(a/b) = %v, want fault.Invalid", err)
	}
	if err := r.Timetable.Delete(t.Context(), "never-put"); err != nil {
		t.Errorf("Delete of what is absent: %v", err)
	}
}

// watch passes over messages that come twice, as the contract allows.
type watch struct {
	Running
	after time.Time // minutes up to here are known
}

// next answers the next minute of the schedule, which must be the only one at work.
func (w *watch) next(t *testing.T, id string) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	for {
		due, err := w.Due(ctx)
		if err != nil {
			t.Fatalf("waiting for schedule %s: %v", id, err)
		}
		if due.Schedule != id {
			t.Fatalf("schedule %s is published, want %s", due.Schedule, id)
		}
		if at := parse(t, due, time.Time{}); at.After(w.after) {
			w.after = at
			return at
		}
	}
}

// silent fails when a minute after the given moment is published within two more.
func (w *watch) silent(t *testing.T, from time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+10*time.Second)
	defer cancel()
	for {
		due, err := w.Due(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if at := parse(t, due, time.Time{}); at.After(from) {
			t.Fatalf("%v of schedule %s is published after the change at %v", at, due.Schedule, from)
		}
	}
}

// parse answers the minute, which is whole, past, and not before the given one.
func parse(t *testing.T, due timetable.Due, from time.Time) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, due.Minute)
	if err != nil || at.Location() != time.UTC || !at.Equal(at.Truncate(time.Minute)) {
		t.Fatalf("the minute is %q, %v", due.Minute, err)
	}
	if at.After(time.Now()) || at.Before(from) {
		t.Fatalf("the minute is %v, published at %v", at, time.Now())
	}
	return at
}

// farAway is a cron expression that is not due within days.
func farAway(now time.Time) string {
	at := now.UTC().AddDate(0, 0, 20)
	return fmt.Sprintf("0 0 %d %d *", at.Day(), at.Month())
}

func put(t *testing.T, r Running, id, cron, zone string) {
	t.Helper()
	if err := r.Timetable.Put(t.Context(), timetable.Schedule{ID: id, Cron: cron, Zone: zone}); err != nil {
		t.Fatal(err)
	}
}
