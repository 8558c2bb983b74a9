package dispatch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/schedule"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
	"runnerhub/shared/timetable"
)

const byHand = "name: Shop\ntriggers: []\nsteps:\n  - run: make\n"

// planned makes a schedule of a branch, and answers its id.
func planned(b *dispatchtest.Bench, app, branch string) string {
	b.Helper()
	cron, zone := "* * * * *", "UTC"
	made, err := b.Plans.Create(b.Context(), "user", app, schedule.Change{Cron: &cron, Zone: &zone, Branch: &branch})
	b.Must(err)
	return made.ID
}

// at is a minute of the Bench's day, n minutes after it began.
func at(n int) time.Time {
	return time.Date(2026, 11, 23, 9, n, 0, 0, time.UTC)
}

// due publishes a minute as the timetable does.
func due(b *dispatchtest.Bench, schedule string, minute time.Time) {
	b.Helper()
	body, err := json.Marshal(timetable.Due{Schedule: schedule, Minute: minute.Format(time.RFC3339)})
	b.Must(err)
	b.Must(b.Deliveries.Publish(b.Context(), body, 0))
}

// last answers what the record says of the last minute.
func last(b *dispatchtest.Bench, schedule string) ci.Occasion {
	b.Helper()
	s, err := b.Schedule(b.Context(), schedule)
	b.Must(err)
	if s.Last == nil {
		return ci.Occasion{}
	}
	return *s.Last
}

// nothingLeft checks that no message waits in the queue.
func nothingLeft(b *dispatchtest.Bench) {
	b.Helper()
	b.Clock.Add(queue.MaxDelay)
	messages, err := b.Deliveries.Receive(b.Context(), 1, 0)
	b.Must(err)
	if len(messages) != 0 {
		b.Errorf("a message is left: %s", messages[0].Body)
	}
}

func TestAMinuteIsBuilt(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	due(b, id, at(0))
	b.Pump()
	made := b.TheBuild()
	if made.Trigger != ci.TriggerSchedule || made.Branch != "main" || made.Commit != b.Main || made.Refname != "main" || made.Delivery != "" ||
		made.Message != "Change .runnerhub/runnerhub.yml" || made.Author != "Bob Builder" || len(made.Steps) != 1 {
		t.Errorf("the build is %+v", made)
	}
	if got := last(b, id); !got.Minute.Equal(at(0)) || got.Build != made.ID || got.Number != 1 || got.Problem != "" || got.Pending {
		t.Errorf("the record says %+v", got)
	}
	if b.Shown(b.Main, "main") != ci.StatusInProgress {
		t.Error("the commit does not show it")
	}
	claim, err := b.Report.Claim(t.Context(), runner.ClaimRequest{Ticket: b.Last().Ticket.Reveal(), Nonce: dispatchtest.Nonce})
	b.Must(err)
	if !strings.Contains(fmt.Sprint(claim.Variables), "{RUNNERHUB_TRIGGER schedule") {
		t.Errorf("the variables are %v", claim.Variables)
	}
	for range 3 {
		due(b, id, at(0))
	}
	b.Pump()
	if b.Count() != 1 {
		t.Errorf("repeats made %d builds", b.Count())
	}
	due(b, id, at(1))
	b.Pump()
	if got := last(b, id); b.Count() != 2 || got.Number != 2 || !got.Minute.Equal(at(1)) {
		t.Errorf("after the next minute there are %d builds, and %+v", b.Count(), got)
	}
	b.Check(t)
}

func TestMinutesWithoutABuild(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		branch  string
		before  func(b *dispatchtest.Bench, id string)
		problem string // empty: nothing is recorded
		builds  int
	}{
		"an absent branch": {"no/such", nil, "branch no/such cannot be read: it is not on Bitbucket", 0},
		"no pipeline file": {"main", func(b *dispatchtest.Bench, _ string) {
			b.Transport.Answer(func(r *http.Request) int {
				if strings.Contains(r.URL.Path, "/src/") {
					return http.StatusNotFound
				}
				return 0
			})
		}, "no pipeline file: neither", 0},
		"a broken file": {"main", func(b *dispatchtest.Bench, _ string) {
			b.Commit("main", ".runnerhub/runnerhub.yml", nonsense)
		}, ".runnerhub/runnerhub.yml:5:5: ", 1},
		"put to rest": {"main", func(b *dispatchtest.Bench, id string) {
			no := false
			_, err := b.Plans.Change(b.Context(), "user", id, schedule.Change{Active: &no})
			b.Must(err)
		}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, byHand)
			id := planned(b, dispatchtest.App, test.branch)
			if test.before != nil {
				test.before(b, id)
			}
			due(b, id, at(0))
			b.Pump()
			got := last(b, id)
			if b.Count() != test.builds || (got.Build != "") != (test.builds > 0) || got.Pending || !strings.Contains(got.Problem, test.problem) || got.Minute.IsZero() != (test.problem == "") {
				t.Errorf("%d builds, and the record says %+v", b.Count(), got)
			}
			if test.builds > 0 {
				made := b.TheBuild()
				log, err := b.BuildLog.Read(t.Context(), made.ID, "", 10)
				if made.State != ci.Errored || err != nil || len(log.Lines) != 1 || b.Shown(made.Commit, "main") != ci.StatusFailed {
					t.Errorf("the build is %s, its log %v, %v", made.State, log.Lines, err)
				}
			}
			nothingLeft(b)
			b.Check(t)
		})
	}
}

// What an older version told the timetable is told anew after the next minute, and once.
func TestAnOlderEntryIsToldAnew(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	stored := func() store.Schedule {
		s, err := b.Schedule(b.Context(), id)
		b.Must(err)
		return s
	}
	due(b, id, at(0))
	b.Pump()
	if s := stored(); s.Layout != timetable.Layout || !s.DueAt.IsZero() {
		t.Errorf("of this version it is %+v", s)
	}
	_, err := b.ChangeSchedule(t.Context(), id, func(s *store.Schedule) (bool, error) { s.Layout = 0; return true, nil })
	b.Must(err)
	due(b, id, at(1))
	b.Pump()
	if s := stored(); s.DueAt.IsZero() {
		t.Error("nobody tells the timetable")
	}
	b.Clock.Add(time.Minute)
	b.Must(b.Sweep.Run(t.Context()))
	if s := stored(); s.Layout != timetable.Layout || !s.DueAt.IsZero() {
		t.Errorf("after the sweep it is %+v", s)
	}
	b.Check(t)
}

// What has no schedule, or an app without a repository, is acknowledged.
func TestMinutesOfNothing(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	b.Must(b.CreateApp(t.Context(), ci.App{ID: "untied", Workspace: dispatchtest.Workspace}))
	untied, deleted := planned(b, "untied", "main"), planned(b, dispatchtest.App, "main")
	b.Must(b.Plans.Delete(t.Context(), "user", deleted))
	for _, id := range []string{untied, deleted, "nothing"} {
		due(b, id, at(0))
	}
	b.Pump()
	if got := last(b, untied); got.Problem != "the app has no repository any more" || b.Count() != 0 {
		t.Errorf("%d builds, and the record says %+v", b.Count(), got)
	}
	nothingLeft(b)
}

func TestMinutesOutOfOrder(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	b.Clock.Add(3 * time.Hour) // very late, and built all the same
	due(b, id, at(5))
	b.Pump()
	for _, n := range []int{4, 0, 5} {
		due(b, id, at(n))
	}
	b.Pump()
	if got := last(b, id); b.Count() != 1 || !got.Minute.Equal(at(5)) {
		t.Errorf("%d builds, and the record says %+v", b.Count(), got)
	}
	nothingLeft(b)
}

// While Bitbucket is down, a minute is tried again, until a later one takes its place.
func TestAMinuteIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ came, want int }{"the same": {1, 0}, "a later one": {3, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := dispatchtest.New(t, byHand)
			id := planned(b, dispatchtest.App, "main")
			b.Faults(map[string]any{"down": true})
			for n := range test.came {
				due(b, id, at(n))
				b.Pump()
				if got := last(b, id); !got.Pending || !got.Minute.Equal(at(n)) || !strings.Contains(got.Problem, "it will be tried again: Bitbucket, ") {
					t.Errorf("the record says %+v", got)
				}
			}
			b.Faults(nil)
			b.PumpFor(10 * time.Second)
			if got := last(b, id); b.Count() != 1 || !got.Minute.Equal(at(test.want)) || got.Pending || got.Problem != "" || got.Build != b.TheBuild().ID {
				t.Errorf("%d builds, and the record says %+v", b.Count(), got)
			}
			nothingLeft(b)
			b.Check(t)
		})
	}
}

// The build was stored, and then the process died. Who comes next finds it, at the commit it
// has, whatever the branch has come to since.
func TestTheBranchMovesMeanwhile(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	b.Table.OnTransact(func(_ int, writes []table.Write, do func() error) error {
		if strings.HasPrefix(writes[0].Item.Key.Sort, "SCHEDULE#") {
			return fault.New(fault.Unavailable, "the process is dead")
		}
		return do()
	})
	due(b, id, at(0))
	b.Pump()
	if b.Count() != 1 || !last(b, id).Minute.IsZero() {
		t.Fatalf("%d builds, and the record says %+v", b.Count(), last(b, id))
	}
	b.Table.OnTransact(nil)
	b.Commit("main", ".runnerhub/runnerhub.yml", nonsense)
	b.PumpFor(10 * time.Second)
	made := b.TheBuild()
	if got := last(b, id); b.Count() != 1 || made.Commit != b.Main || got.Build != made.ID || got.Problem != "" {
		t.Errorf("%d builds, %+v, and the record says %+v", b.Count(), made, got)
	}
	if log, err := b.BuildLog.Read(t.Context(), made.ID, "", 10); err != nil || len(log.Lines) != 0 {
		t.Errorf("its log has %v, %v", log.Lines, err)
	}
}

// A later minute is done with while an earlier one is looked into: both are built, and
// the record keeps the later one.
func TestALaterMinuteMeanwhile(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	message := func(n int) queue.Message {
		body, err := json.Marshal(timetable.Due{Schedule: id, Minute: at(n).Format(time.RFC3339)})
		b.Must(err)
		return queue.Message{ID: "m", Body: body}
	}
	b.Transport.Before(func(r *http.Request) {
		if strings.Contains(r.URL.Path, "/src/") {
			b.Transport.Before(nil)
			b.Must(b.Dispatch.Handle(t.Context(), message(2)))
		}
	})
	b.Must(b.Dispatch.Handle(t.Context(), message(1)))
	if got := last(b, id); b.Count() != 2 || !got.Minute.Equal(at(2)) || got.Number != 1 {
		t.Errorf("%d builds, and the record says %+v", b.Count(), got)
	}
	b.Check(t)
}

// Time runs out in the midst of it: the record says that the minute is tried again.
func TestTimeRunsOutInAMinute(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	ctx, cancel := context.WithCancel(t.Context())
	b.Transport.Before(func(*http.Request) { cancel() })
	due(b, id, at(0))
	messages, err := b.Deliveries.Receive(t.Context(), 1, 0)
	b.Must(err)
	if err := b.Dispatch.Handle(ctx, messages[0]); !queue.Keeps(err) {
		t.Errorf("%v", err)
	}
	if got := last(b, id); !got.Pending || !got.Minute.Equal(at(0)) {
		t.Errorf("the record says %+v", got)
	}
}

// A grant that is gone is on the record once it is believed, and after somebody has authorised
// again the next minute is built.
func TestAMinuteOfflineIsRecorded(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	b.Clock.Add(3 * time.Hour) // past the token's end
	b.Faults(map[string]any{"revoked": true})
	due(b, id, at(0))
	b.PumpFor(5 * time.Minute)
	if got := last(b, id); b.Count() != 0 || got.Pending || !strings.Contains(got.Problem, "authorised again") {
		t.Errorf("%d builds, and the record says %+v", b.Count(), got)
	}
	b.Faults(nil)
	b.Authorize()
	due(b, id, at(1))
	b.Pump()
	if got := last(b, id); b.Count() != 1 || got.Number != 1 || got.Problem != "" {
		t.Errorf("%d builds, and the record says %+v", b.Count(), got)
	}
	nothingLeft(b)
}

// One message in many hands is one build.
func TestOneMinuteOneBuild(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	for range 8 {
		due(b, id, at(0))
	}
	messages, err := b.Deliveries.Receive(t.Context(), 8, 0)
	b.Must(err)
	var group sync.WaitGroup
	for _, m := range messages {
		group.Go(func() {
			if err := b.Dispatch.Handle(t.Context(), m); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if len(messages) != 8 || b.Count() != 1 || last(b, id).Build != b.TheBuild().ID {
		t.Errorf("%d messages, %d builds, %+v", len(messages), b.Count(), last(b, id))
	}
	b.Check(t)
}

// A minute that is none is somebody's fault and stays until it is a dead letter.
func TestNoMinute(t *testing.T) {
	t.Parallel()
	b := dispatchtest.New(t, byHand)
	id := planned(b, dispatchtest.App, "main")
	body, err := json.Marshal(timetable.Due{Schedule: id, Minute: "<aws.scheduler.scheduled-time>"})
	b.Must(err)
	if err := b.Dispatch.Handle(t.Context(), queue.Message{ID: "m", Body: body}); !queue.Keeps(err) || !fault.Is(err, fault.Internal) {
		t.Errorf("%v", err)
	}
}

// Each write of a minute fails once, before it is done and after it was done with its
// answer lost: there is one build, and the record knows it.
func TestEachWriteOfAMinuteFailsOnce(t *testing.T) {
	t.Parallel()
	clean := dispatchtest.New(t, byHand)
	id := planned(clean, dispatchtest.App, "main")
	clean.Table.OnTransact(nil)
	due(clean, id, at(0))
	clean.Pump()
	writes := clean.Table.Transacts()
	if writes < 3 {
		t.Fatalf("%d writes", writes)
	}
	for k := 1; k <= writes; k++ {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, done %v", k, done), func(t *testing.T) {
				t.Parallel()
				b := dispatchtest.New(t, byHand)
				id := planned(b, dispatchtest.App, "main")
				b.Table.OnTransact(dispatchtest.Numbered(func(n int, do func() error) error {
					if n != k {
						return do()
					}
					if done {
						b.Must(do())
						return fault.New(fault.Unknown, "the answer was lost")
					}
					return fault.New(fault.Unavailable, "the process died")
				}))
				due(b, id, at(0))
				b.PumpFor(10 * time.Second)
				for range 3 {
					b.Clock.Add(time.Minute)
					b.Must(b.Sweep.Run(t.Context()))
					b.Pump()
				}
				if got := last(b, id); b.Count() != 1 || got.Build != b.TheBuild().ID || got.Pending {
					t.Errorf("%d builds, and the record says %+v", b.Count(), got)
				}
				if jobs := b.Runner.Jobs(); len(jobs) == 0 {
					t.Error("nothing was started")
				}
				b.Check(t)
			})
		}
	}
}
