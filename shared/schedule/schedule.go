// Package schedule shows, makes, changes and deletes the schedules of apps. Every method
// asks package access first, on behalf of a user.
//
// The record comes first; then the timetable is told (package timekeeper), and where that
// fails the sweep sees to it. So a change that was stored is answered as done, with a note while
// the timetable is behind. What a minute leads to is package dispatch's.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"runnerhub/shared/access"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
	"runnerhub/shared/timekeeper"
	"runnerhub/shared/timetable"
)

const (
	// maxSchedules is how many an app has.
	maxSchedules = 50
	// maxBranch is the longest name of a branch in bytes; Bitbucket's own limit.
	maxBranch = 255
	// shownMinutes is how many of the next minutes are shown, for people to see what
	// a cron expression means.
	shownMinutes = 3
)

// Deps is what a Schedules needs.
type Deps struct {
	Store      *store.Store
	Timekeeper *timekeeper.Keeper
	Now        func() time.Time
	NewID      func() string // names schedules in the timetable, too: see timetable.CheckID
	Log        *slog.Logger
}

// Schedules reads and changes schedules.
type Schedules struct{ Deps }

// New makes a Schedules.
func New(d Deps) (*Schedules, error) {
	if d.Store == nil || d.Timekeeper == nil || d.Now == nil || d.NewID == nil || d.Log == nil {
		return nil, errors.New("schedule: a dependency is missing")
	}
	return &Schedules{d}, nil
}

// Schedule is a schedule as members see it.
type Schedule struct {
	ci.Schedule
	Next []time.Time `json:"next"`           // the first minutes it will run at, UTC; none while it is not active
	Note string      `json:"note,omitempty"` // why the timetable does not know it as it is here
}

// Change is what a schedule is to be; nil leaves a member as it is.
type Change struct {
	Cron, Zone, Branch *string
	Active             *bool
}

// List answers the schedules of an app.
func (s *Schedules) List(ctx context.Context, user, app, cursor string) (store.Page[Schedule], error) {
	if _, err := access.App(ctx, s.Store, user, app, ci.See); err != nil {
		return store.Page[Schedule]{}, fmt.Errorf("schedule: listing: %w", err)
	}
	page, err := s.Store.Schedules(ctx, app, cursor)
	if err != nil {
		return store.Page[Schedule]{}, fmt.Errorf("schedule: listing: %w", err)
	}
	out := store.Page[Schedule]{Items: make([]Schedule, 0, len(page.Items)), Cursor: page.Cursor}
	for _, stored := range page.Items {
		out.Items = append(out.Items, s.shown(stored))
	}
	return out, nil
}

// Create makes a schedule of an app. What c leaves out is empty, and refused where that
// is no value; the schedule is active unless c says otherwise.
func (s *Schedules) Create(ctx context.Context, user, app string, c Change) (Schedule, error) {
	of, err := access.App(ctx, s.Store, user, app, ci.Configure)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule: making one: %w", err)
	}
	now := s.Now().UTC()
	made := store.Schedule{
		Schedule:  ci.Schedule{ID: s.NewID(), App: app, Active: true, CreatedBy: user, CreatedAt: now},
		Workspace: of.Workspace,
	}
	if err := s.apply(&made, user, c); err != nil {
		return Schedule{}, err
	}
	n, err := s.count(ctx, app)
	if err != nil {
		return Schedule{}, err
	}
	if n >= maxSchedules {
		return Schedule{}, fault.New(fault.Conflict, "the app has %d schedules, which is the most: delete some", n)
	}
	if err := s.Store.CreateSchedule(ctx, made); err != nil {
		return Schedule{}, fmt.Errorf("schedule: storing a new one: %w", err)
	}
	return s.told(ctx, made), nil
}

func (s *Schedules) count(ctx context.Context, app string) (n int, err error) {
	cursor := ""
	for {
		page, err := s.Store.Schedules(ctx, app, cursor)
		if err != nil {
			return 0, fmt.Errorf("schedule: counting: %w", err)
		}
		n += len(page.Items)
		if cursor = page.Cursor; cursor == "" {
			return n, nil
		}
	}
}

// Change changes a schedule. Without a change in it, the timetable is told anew.
func (s *Schedules) Change(ctx context.Context, user, id string, c Change) (Schedule, error) {
	if _, err := access.Schedule(ctx, s.Store, user, id, ci.Configure); err != nil {
		return Schedule{}, fmt.Errorf("schedule: changing one: %w", err)
	}
	changed, err := s.Store.ChangeSchedule(ctx, id, func(stored *store.Schedule) (bool, error) {
		if stored.Deleted {
			return false, fault.New(fault.NotFound, "no such schedule")
		}
		return true, s.apply(stored, user, c)
	})
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule: changing one: %w", err)
	}
	return s.told(ctx, changed), nil
}

// Delete deletes a schedule. A minute that has come already may still be built.
func (s *Schedules) Delete(ctx context.Context, user, id string) error {
	if _, err := access.Schedule(ctx, s.Store, user, id, ci.Configure); err != nil {
		return fmt.Errorf("schedule: deleting one: %w", err)
	}
	_, err := s.Store.ChangeSchedule(ctx, id, func(stored *store.Schedule) (bool, error) {
		if stored.Deleted {
			return false, nil // by an earlier run of this very change
		}
		stored.Deleted, stored.Active = true, false
		s.behind(stored, user)
		return true, nil
	})
	if fault.Is(err, fault.NotFound) {
		return nil // by somebody else, and the timetable knows
	}
	if err != nil {
		return fmt.Errorf("schedule: deleting one: %w", err)
	}
	s.tell(ctx, id)
	return nil
}

// apply makes the change, in a schedule whose timetable is behind then.
func (s *Schedules) apply(stored *store.Schedule, user string, c Change) error {
	for member, value := range map[*string]*string{&stored.Cron: c.Cron, &stored.Zone: c.Zone, &stored.Branch: c.Branch} {
		if value != nil {
			*member = *value
		}
	}
	if c.Active != nil {
		stored.Active = *c.Active
	}
	if err := entry(*stored).Check(); err != nil {
		return err
	}
	if err := checkBranch(stored.Branch); err != nil {
		return err
	}
	s.behind(stored, user)
	return nil
}

func (s *Schedules) behind(stored *store.Schedule, user string) {
	stored.Revision++
	stored.ChangedBy, stored.ChangedAt, stored.DueAt = user, s.Now().UTC(), s.Timekeeper.Due()
}

// told tells the timetable of a schedule and answers how it then stands.
func (s *Schedules) told(ctx context.Context, changed store.Schedule) Schedule {
	s.tell(ctx, changed.ID)
	now, err := s.Store.Schedule(ctx, changed.ID)
	if err != nil {
		return s.shown(changed) // it is stored, and what is not known is only whether the timetable knows
	}
	return s.shown(now)
}

func (s *Schedules) tell(ctx context.Context, id string) {
	if err := s.Timekeeper.Align(ctx, id); err != nil {
		s.Log.Warn("the timetable is behind a schedule; the sweep will see to it", "schedule", id, "error", err)
	}
}

func (s *Schedules) shown(stored store.Schedule) Schedule {
	out := Schedule{Schedule: stored.Schedule, Next: []time.Time{}}
	if !stored.DueAt.IsZero() {
		out.Note = "the timetable does not know this yet; it will be told"
		if stored.Trouble != "" {
			out.Note += " again: " + stored.Trouble
		}
	}
	at := s.Now()
	for stored.Active && len(out.Next) < shownMinutes {
		next, err := entry(stored).Next(at)
		if err != nil {
			break // one that an earlier release took
		}
		out.Next = append(out.Next, next)
		at = next
	}
	return out
}

func entry(s store.Schedule) timetable.Schedule {
	return timetable.Schedule{ID: s.ID, Cron: s.Cron, Zone: s.Zone}
}

// checkBranch refuses what git would not take for the name of a branch
// (https://git-scm.com/docs/git-check-ref-format).
func checkBranch(name string) error {
	switch {
	case name == "":
		return fault.Field("branch", "is empty")
	case len(name) > maxBranch:
		return fault.Field("branch", "has %d bytes; at most %d are allowed", len(name), maxBranch)
	case strings.HasPrefix(name, "refs/heads/"):
		return fault.Field("branch", "is a name without refs/heads/, such as main")
	}
	foreign := func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`~^:?*[\`, r)
	}
	wrong := !utf8.ValidString(name) || strings.ContainsFunc(name, foreign) || name == "@" ||
		strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.HasPrefix(name, "-") || strings.HasSuffix(name, ".")
	for part := range strings.SplitSeq(name, "/") {
		wrong = wrong || part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	if wrong {
		return fault.Field("branch", "%q is no name of a branch", name)
	}
	return nil
}
