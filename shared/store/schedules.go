package store

import (
	"context"
	"slices"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/table"
)

// Schedule is a schedule with what only the service knows of it. The timetable is told of
// it afterwards, by one process at a time (package timekeeper).
type Schedule struct {
	ci.Schedule
	Workspace string `json:"workspace"`
	// Revision rises with each change that the timetable has to be told of.
	Revision int `json:"revision"`
	// Deleted is one that nobody sees any more and that is not active, kept until the
	// timetable has let go of it.
	Deleted bool `json:"deleted,omitempty"`

	// Layout is that of the timetable (timetable.Layout) when it was told last.
	Layout int `json:"layout,omitempty"`

	Holder     string    `json:"holder,omitempty"` // who tells the timetable now
	LeaseUntil time.Time `json:"lease_until,omitzero"`
	Trouble    string    `json:"trouble,omitempty"` // why the timetable could not be told, in words
	DueAt      time.Time `json:"due_at,omitzero"`   // set while the timetable may be behind

	Version int64 `json:"-"`
}

func scheduleKey(id string) table.Key        { return key("SCHEDULE#"+id, "SCHEDULE") }
func scheduleOfKey(app, id string) table.Key { return key("APP#"+app, "SCHEDULE#"+id) }

// Schedule answers a schedule, also one that was deleted and that the timetable has not
// let go of yet.
func (s *Store) Schedule(ctx context.Context, id string) (Schedule, error) {
	app, _, err := get[string](ctx, s, scheduleKey(id), "schedule")
	if err != nil {
		return Schedule{}, err
	}
	v, version, err := get[Schedule](ctx, s, scheduleOfKey(app, id), "schedule")
	v.Version = version
	return v, err
}

// Schedules lists the schedules of an app that are not deleted.
func (s *Store) Schedules(ctx context.Context, app, cursor string) (Page[Schedule], error) {
	from, before := table.Prefix("SCHEDULE#")
	page, err := list[Schedule](ctx, s, table.Query{Partition: "APP#" + app, From: from, Before: before, Cursor: cursor}, "schedules")
	page.Items = slices.DeleteFunc(page.Items, func(v Schedule) bool { return v.Deleted })
	return page, err
}

// CreateSchedule stores a schedule. Created again with the same id it changes nothing.
func (s *Store) CreateSchedule(ctx context.Context, v Schedule) error {
	return s.again(ctx, func() error {
		_, known, err := find[string](ctx, s, scheduleKey(v.ID), "schedule")
		if err != nil || known != 0 {
			return err
		}
		var c change
		c.put(scheduleKey(v.ID), v.App, table.Absent())
		c.put(scheduleOfKey(v.App, v.ID), v, table.Absent())
		c.due(DueSchedule, v.ID, time.Time{}, v.DueAt)
		return s.commit(ctx, &c)
	})
}

// ChangeSchedule edits a schedule under its version, as Schedule answers it. edit may be
// run several times, each time on what is stored then; it answers false when there is nothing
// to do. A deleted schedule that an edit leaves without a due time is removed.
func (s *Store) ChangeSchedule(ctx context.Context, id string, edit func(*Schedule) (bool, error)) (Schedule, error) {
	var out Schedule
	err := s.again(ctx, func() error {
		old, err := s.Schedule(ctx, id)
		if err != nil {
			return err
		}
		out = old
		if write, err := edit(&out); err != nil || !write {
			return err
		}
		var c change
		if k := scheduleOfKey(old.App, id); out.Deleted && out.DueAt.IsZero() {
			c.delete(k, table.VersionIs(old.Version))
			c.delete(scheduleKey(id), table.Condition{})
		} else {
			c.put(k, out, table.VersionIs(old.Version))
		}
		c.due(DueSchedule, id, old.DueAt, out.DueAt)
		if err := s.commit(ctx, &c); err != nil {
			return err
		}
		out.Version++
		return nil
	})
	return out, err
}
