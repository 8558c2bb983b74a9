package timekeeper_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/schedule"
	"runnerhub/shared/table"
)

const user = "user"

func cron(text string) schedule.Change {
	zone, branch := "UTC", "main"
	return schedule.Change{Cron: &text, Zone: &zone, Branch: &branch}
}

func create(b *dispatchtest.Bench, text string) schedule.Schedule {
	b.Helper()
	made, err := b.Plans.Create(b.Context(), user, dispatchtest.App, cron(text))
	b.Must(err)
	return made
}

func knows(b *dispatchtest.Bench, id, text string) {
	b.Helper()
	if got := b.Timetable.Entries()[id].Cron; got != text {
		b.Errorf("the timetable has %q, want %q", got, text)
	}
}

// settled checks that the store says that the timetable knows, or does not.
func settled(b *dispatchtest.Bench, id string, want bool) {
	b.Helper()
	stored, err := b.Schedule(b.Context(), id)
	b.Must(err)
	if stored.DueAt.IsZero() != want {
		b.Errorf("stored is %+v", stored)
	}
	b.Check(b.T)
}

// A change that comes while another one is told is not overtaken by it: who tells
// sees it, and who changed need not wait.
func TestTheNewestIsToldLast(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	made := create(b, "1 1 * * *")
	var calls []string
	b.Timetable.OnCall(func(do func() error) error {
		calls = append(calls, "")
		if len(calls) == 1 {
			second, err := b.Plans.Change(t.Context(), user, made.ID, cron("3 3 * * *"))
			if err != nil || second.Note == "" || second.Cron != "3 3 * * *" {
				t.Errorf("meanwhile: %+v, %v", second, err)
			}
		}
		return do()
	})
	first, err := b.Plans.Change(t.Context(), user, made.ID, cron("2 2 * * *"))
	if err != nil || first.Note != "" || first.Cron != "3 3 * * *" || len(calls) != 2 {
		t.Errorf("%+v after %d calls, %v", first, len(calls), err)
	}
	knows(b, made.ID, "3 3 * * *")
	settled(b, made.ID, true)
}

// A schedule that is deleted while it is put is gone from the timetable in the end.
func TestDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	deleting := true
	b.Timetable.OnCall(func(do func() error) error {
		if deleting {
			deleting = false
			page, err := b.Plans.List(t.Context(), user, dispatchtest.App, "")
			b.Must(err)
			b.Must(b.Plans.Delete(t.Context(), user, page.Items[0].ID))
		}
		return do()
	})
	made := create(b, "1 1 * * *")
	knows(b, made.ID, "")
	if _, err := b.Schedule(t.Context(), made.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	b.Check(t)
}

// While the timetable is down, each sweep tries again, and the schedule says why.
func TestTheTimetableIsDown(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	calls := 0
	b.Timetable.OnCall(func(func() error) error {
		calls++
		return fault.New(fault.Unavailable, "the timetable is closed")
	})
	made := create(b, "1 1 * * *")
	if made.Note != "the timetable does not know this yet; it will be told again: the timetable is closed" {
		t.Errorf("the note is %q", made.Note)
	}
	for range 3 {
		b.Clock.Add(time.Minute)
		if err := b.Sweep.Run(t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("the sweep says %v", err)
		}
		settled(b, made.ID, false)
	}
	if calls != 4 {
		t.Errorf("it was told %d times", calls)
	}
	b.Timetable.OnCall(nil)
	b.Clock.Add(time.Minute)
	b.Must(b.Sweep.Run(t.Context()))
	knows(b, made.ID, "1 1 * * *")
	settled(b, made.ID, true)
}

// Whoever told the timetable died over it. Its lease keeps others away until it runs out; a
// server that begins knows better.
func TestDeathOverACall(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		b := dispatchtest.New(t, "")
		made := create(b, "1 1 * * *")
		b.Timetable.OnCall(func(func() error) error {
			b.Table.OnTransact(func(int, []table.Write, func() error) error { return errors.New("the process is dead") })
			return errors.New("the process is dead")
		})
		_, err := b.Plans.Change(t.Context(), user, made.ID, cron("2 2 * * *"))
		b.Must(err)
		b.Timetable.OnCall(nil)
		b.Table.OnTransact(nil)
		if restart {
			b.Must(b.Sweep.Recover(t.Context()))
		} else {
			again, err := b.Plans.Change(t.Context(), user, made.ID, cron("3 3 * * *"))
			if err != nil || again.Note == "" {
				t.Errorf("%+v, %v", again, err)
			}
			knows(b, made.ID, "1 1 * * *")
			b.Clock.Add(31 * time.Second)
			b.Must(b.Sweep.Run(t.Context()))
		}
		knows(b, made.ID, map[bool]string{true: "2 2 * * *", false: "3 3 * * *"}[restart])
		settled(b, made.ID, true)
	}
}

// That the timetable was told is recorded even when the caller has gone.
func TestTheCallerIsGone(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	b.Timetable.OnCall(func(do func() error) error {
		defer cancel()
		return do()
	})
	made, err := b.Plans.Create(ctx, user, dispatchtest.App, cron("1 1 * * *"))
	b.Must(err)
	settled(b, made.ID, true)
}

// Many change one schedule at once, with a timetable that is slow with some: it ends up
// knowing what is stored.
func TestRaces(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	made := create(b, "0 0 * * *")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			text := []string{"1 1 * * *", "2 2 * * *", "3 3 * * *", "4 4 * * *"}[i%4]
			if _, err := b.Plans.Change(t.Context(), user, made.ID, cron(text)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	b.Clock.Add(2 * time.Minute)
	b.Must(b.Sweep.Run(t.Context()))
	stored, err := b.Schedule(t.Context(), made.ID)
	b.Must(err)
	knows(b, made.ID, stored.Cron)
	settled(b, made.ID, true)
}
