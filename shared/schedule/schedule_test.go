package schedule_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/schedule"
	"runnerhub/shared/table"
)

const user = "user" // owns the Bench's workspace

func change(cron, branch string) schedule.Change {
	zone := "Europe/Berlin"
	return schedule.Change{Cron: &cron, Zone: &zone, Branch: &branch}
}

func active(is bool) schedule.Change { return schedule.Change{Active: &is} }

func create(b *dispatchtest.Bench, c schedule.Change) schedule.Schedule {
	b.Helper()
	made, err := b.Plans.Create(b.Context(), user, dispatchtest.App, c)
	b.Must(err)
	return made
}

// knows checks that the timetable has this cron expression of a schedule, or nothing, and that
// the store says so.
func knows(b *dispatchtest.Bench, id, cron string) {
	b.Helper()
	if got := b.Timetable.Entries()[id].Cron; got != cron {
		b.Errorf("the timetable has %q, want %q", got, cron)
	}
	stored, err := b.Schedule(b.Context(), id)
	if err != nil && !fault.Is(err, fault.NotFound) || err == nil && (!stored.DueAt.IsZero() || stored.Holder != "" || stored.Trouble != "") {
		b.Errorf("stored is %+v, %v", stored, err)
	}
	b.Check(b.T)
}

func TestTheTimetableFollows(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	made := create(b, change("0 9 * * *", "main"))
	knows(b, made.ID, "0 9 * * *")
	want := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC) // nine in Berlin
	if len(made.Next) != 3 || !made.Next[0].Equal(want) || !made.Next[2].Equal(want.Add(48*time.Hour)) {
		t.Errorf("the next minutes are %v", made.Next)
	}
	b.Clock.Add(time.Hour)
	changed, err := b.Plans.Change(t.Context(), user, made.ID, change("0 10 * * *", "main"))
	b.Must(err)
	knows(b, made.ID, "0 10 * * *")
	if changed.CreatedAt != made.CreatedAt || !changed.ChangedAt.Equal(b.Clock.Now()) {
		t.Errorf("made at %s, changed at %s", changed.CreatedAt, changed.ChangedAt)
	}
	for _, is := range []bool{false, true, false} {
		_, err = b.Plans.Change(t.Context(), user, made.ID, active(is))
		b.Must(err)
		knows(b, made.ID, map[bool]string{true: "0 10 * * *"}[is])
	}
	b.Must(b.Plans.Delete(t.Context(), user, made.ID))
	knows(b, made.ID, "")
	for k := range b.Dump(t) {
		if strings.Contains(k.Partition+k.Sort, "SCHEDULE#") {
			t.Errorf("%s is left of a deleted schedule", k)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	for _, branch := range []string{
		"", "refs/heads/main", "a b", "a..b", "a//b", "/a", "a/", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "-a", "@", "a@{1}", "a~1", "a^", "a:b",
		"a?", "a*", "a[b", `a\b`, "a\x00", "a\n", "a\u00a0b", "a\xff", strings.Repeat("a", 256),
	} {
		_, err := b.Plans.Create(t.Context(), user, dispatchtest.App, change("* * * * *", branch))
		if _, field := fault.Public(err); !fault.Is(err, fault.Invalid) || field != "branch" {
			t.Errorf("branch %q: %v", branch, err)
		}
	}
	for _, branch := range []string{"main", "release/1.x", "feature/Ä-ö_1", "a@b", "@a", "a.b", "a-", "lock", strings.Repeat("a", 255)} {
		create(b, change("* * * * *", branch))
	}
	for field, c := range map[string]schedule.Change{"cron": change("* * * *", "main"), "zone": {Cron: ptr("* * * * *"), Branch: ptr("main")}} {
		_, err := b.Plans.Create(t.Context(), user, dispatchtest.App, c)
		if _, got := fault.Public(err); !fault.Is(err, fault.Invalid) || got != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if n := len(b.Timetable.Entries()); n != 9 {
		t.Errorf("the timetable has %d schedules", n)
	}
}

func ptr(s string) *string { return &s }

func TestStrangers(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	made := create(b, change("* * * * *", "main"))
	for what, ask := range map[string]func() error{
		"list": func() error {
			_, err := b.Plans.List(t.Context(), "stranger", dispatchtest.App, "")
			return err
		},
		"create": func() error {
			_, err := b.Plans.Create(t.Context(), "stranger", dispatchtest.App, change("* * * * *", "main"))
			return err
		},
		"change": func() error {
			_, err := b.Plans.Change(t.Context(), "stranger", made.ID, active(false))
			return err
		},
		"delete": func() error { return b.Plans.Delete(t.Context(), "stranger", made.ID) },
	} {
		if err := ask(); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	knows(b, made.ID, "* * * * *")
}

// Each write of a change fails once: before it is done, and after it was done with its answer
// lost. When the caller has asked again and the sweep has run, the timetable is right.
func TestEachWriteFailsOnce(t *testing.T) {
	t.Parallel()
	for what, op := range map[string]struct {
		do   func(b *dispatchtest.Bench, id string) error
		want string
	}{
		"change": {func(b *dispatchtest.Bench, id string) error {
			_, err := b.Plans.Change(b.Context(), user, id, change("5 5 * * *", "main"))
			return err
		}, "5 5 * * *"},
		"put to rest": {func(b *dispatchtest.Bench, id string) error {
			_, err := b.Plans.Change(b.Context(), user, id, active(false))
			return err
		}, ""},
		"delete": {func(b *dispatchtest.Bench, id string) error {
			err := b.Plans.Delete(b.Context(), user, id)
			if fault.Is(err, fault.NotFound) {
				return nil
			}
			return err
		}, ""},
	} {
		for k := range 4 { // the record, the lease, the timetable, the record
			for _, done := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, write %d, done %v", what, k, done), func(t *testing.T) {
					t.Parallel()
					b := dispatchtest.New(t, "")
					id := create(b, change("0 0 * * *", "main")).ID
					calls := 0
					fail := func(do func() error) error {
						if calls++; calls != k+1 {
							return do()
						}
						if done {
							b.Must(do())
							return fault.New(fault.Unknown, "the answer was lost")
						}
						return fault.New(fault.Unavailable, "the process died")
					}
					b.Table.OnTransact(func(_ int, _ []table.Write, do func() error) error { return fail(do) })
					for try := 0; op.do(b, id) != nil; try++ {
						if try == 2 {
							t.Fatal("it does not work again")
						}
					}
					for range 3 {
						b.Clock.Add(time.Minute)
						_ = b.Sweep.Run(t.Context())
					}
					if calls <= k {
						t.Fatalf("there were %d writes", calls)
					}
					knows(b, id, op.want)
				})
			}
		}
	}
}

func TestLostNew(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, "")
	b.Table.OnTransact(func(n int, _ []table.Write, do func() error) error {
		if err := do(); err != nil || n > 1 {
			return err
		}
		return fault.New(fault.Unknown, "the answer was lost")
	})
	made := create(b, change("0 0 * * *", "main"))
	knows(b, made.ID, "0 0 * * *")
	if page, err := b.Plans.List(t.Context(), user, dispatchtest.App, ""); err != nil || len(page.Items) != 1 {
		t.Errorf("%+v, %v", page, err)
	}
}
