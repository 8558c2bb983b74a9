// Package timetable is the contract of schedules: a cron expression in a time
// zone that publishes a message when its minute comes. Drivers live one level
// below and pass package timetabletest. A minute may be published twice, never
// silently dropped while the driver runs; the message names the minute, so that the
// receiver can tell a repeat.
package timetable

import "context"

// Layout is raised when drivers make entries in another way than before: schedules that were made before are then
// put again (see package timekeeper), each after its next minute.
const Layout = 1

// Schedule is one entry.
type Schedule struct {
	ID   string // [A-Za-z0-9_-]{1,64}
	Cron string // five fields: minute, hour, day of month, month, day of week; see Check
	Zone string // IANA name, e.g. "Europe/Berlin"
}

// Due is the body of the published message, as JSON.
type Due struct {
	Schedule string `json:"schedule"` // its ID
	Minute   string `json:"minute"`   // RFC 3339 UTC, at whole minutes
}

// Timetable is the contract. What Schedule.Check refuses is refused with its error:
// fault.Invalid naming the field, "id", "cron" or "zone".
type Timetable interface {
	// Put adds the schedule or replaces the one with its ID; the first minute published is one that
	// comes after. The same schedule put again changes nothing.
	Put(ctx context.Context, s Schedule) error
	// Delete removes it; an absent one is no error. A minute already published may still arrive.
	Delete(ctx context.Context, id string) error
}
