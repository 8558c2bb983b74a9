package timers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
	sqlitequeue "runnerhub/shared/queue/sqlite"
	"runnerhub/shared/table"
	sqlitetable "runnerhub/shared/table/sqlite"
	"runnerhub/shared/timetable"
	"runnerhub/shared/timetable/timetabletest"
)

// state is what outlives a process.
type state struct {
	table table.Table
	queue queue.Queue
}

func newState(t *testing.T) state {
	t.Helper()
	file, err := datafile.Open(datafile.Deps{Path: filepath.Join(t.TempDir(), "data.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	items, err := sqlitetable.New(sqlitetable.Deps{File: file, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := sqlitequeue.New(sqlitequeue.Deps{
		File: file, Name: "due", Visibility: time.Minute, MaxAttempts: 5, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return state{items, messages}
}

// process is one running timetable. Stop is a normal end, and waits for it.
type process struct {
	*Timers
	stop func()
}

func start(t *testing.T, items table.Table, messages queue.Publisher) process {
	t.Helper()
	timers, err := New(Deps{
		Table: items, Queue: messages, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { timers.Run(ctx) })
	p := process{timers, func() {
		cancel()
		running.Wait()
	}}
	t.Cleanup(p.stop)
	return p
}

// due answers the next message, or the error of the ended context.
func (s state) due(ctx context.Context) (timetable.Due, error) {
	for {
		messages, err := s.queue.Receive(ctx, 1, 20*time.Second)
		if ctx.Err() != nil {
			return timetable.Due{}, ctx.Err()
		}
		if err != nil {
			return timetable.Due{}, err
		}
		if len(messages) == 0 {
			continue
		}
		var due timetable.Due
		if err := json.Unmarshal(messages[0].Body, &due); err != nil {
			return timetable.Due{}, err
		}
		return due, s.queue.Delete(ctx, messages[0].Receipt)
	}
}

// within answers the minutes published within d, of all schedules.
func (s state) within(t *testing.T, d time.Duration) (minutes []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for {
		due, err := s.due(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return minutes
		}
		if err != nil {
			t.Fatal(err)
		}
		minutes = append(minutes, due.Minute)
	}
}

func want(t *testing.T, got []string, minutes ...time.Time) {
	t.Helper()
	var wanted []string
	for _, m := range minutes {
		wanted = append(wanted, m.UTC().Format(time.RFC3339))
	}
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Fatalf("published are %v, want %v", got, wanted)
	}
}

func put(t *testing.T, p process, cron string) {
	t.Helper()
	if err := p.Put(t.Context(), timetable.Schedule{ID: "s", Cron: cron, Zone: "UTC"}); err != nil {
		t.Fatal(err)
	}
}

// minute answers the nth whole minute after the clock of the test began.
func minute(n int) time.Time {
	return time.Date(2000, 1, 1, 0, n, 0, 0, time.UTC)
}

func TestContract(t *testing.T) {
	t.Parallel()
	timetabletest.Run(t, timetabletest.Driver{
		Bubble: synctest.Test,
		Open: func(t *testing.T) timetabletest.Running {
			s := newState(t)
			p := start(t, s.table, s.queue)
			return timetabletest.Running{
				Timetable: p,
				Due:       s.due,
				Restart: func() {
					p.stop()
					start(t, s.table, s.queue)
				},
			}
		},
	})
}

func TestTwoProcessesPublishOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newState(t)
		p := start(t, s.table, s.queue)
		start(t, s.table, s.queue)
		start(t, s.table, s.queue)
		put(t, p, "* * * * *")
		want(t, s.within(t, 4*time.Minute+time.Second), minute(1), minute(2), minute(3), minute(4))
	})
}

func TestMinutesMissed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		cron string
		down time.Duration // from 00:01:30 on
		want []time.Time   // published within 3 minutes and a second of the start
	}{
		"none, by a quick restart": {"* * * * *", 10 * time.Second, []time.Time{minute(2), minute(3), minute(4)}},
		"one":                      {"2 * * * *", 5 * time.Minute, []time.Time{minute(2)}},
		"one, by a moment":         {"2 * * * *", 31 * time.Second, []time.Time{minute(2)}},
		"of many the last":         {"* * * * *", 10 * time.Minute, []time.Time{minute(11), minute(12), minute(13), minute(14)}},
		"of days the last":         {"* * * * *", 30 * 24 * time.Hour, []time.Time{minute(30*24*60 + 1), minute(30*24*60 + 2), minute(30*24*60 + 3), minute(30*24*60 + 4)}},
		"an hour ago":              {"2 0 1 * *", time.Hour, []time.Time{minute(2)}},
		"longer ago":               {"2 0 * * *", time.Hour + 31*time.Second, nil},
		"longer ago, goes on":      {"2 0 * * *", 24*time.Hour - time.Minute, []time.Time{minute(24*60 + 2)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newState(t)
				p := start(t, s.table, s.queue)
				put(t, p, test.cron)
				s.within(t, 90*time.Second)
				p.stop()
				time.Sleep(test.down)
				start(t, s.table, s.queue)
				want(t, s.within(t, 3*time.Minute+time.Second), test.want...)
			})
		})
	}
}

// What fails now and then is the table or the queue; no minute is lost by it.
func TestFailuresLoseNoMinute(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(f *faulty){
		"the table cannot be read":    func(f *faulty) { f.reads = errors.New("broken") },
		"the table cannot be written": func(f *faulty) { f.writes = errors.New("broken") },
		"the queue is down":           func(f *faulty) { f.publishes = fault.New(fault.Unavailable, "broken") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newState(t)
				f := &faulty{Table: s.table, Publisher: s.queue}
				p := start(t, f, f)
				put(t, p, "* * * * *")
				want(t, s.within(t, 90*time.Second), minute(1))
				f.set(broken)
				want(t, s.within(t, 3*time.Minute))
				f.set(func(f *faulty) { f.reads, f.writes, f.publishes = nil, nil, nil })
				want(t, s.within(t, time.Minute), minute(2), minute(3), minute(4), minute(5))
			})
		})
	}
}

// A process that dies between its steps leaves a claim or a minute that was not recorded.
func TestDeathBetweenTheSteps(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		writes int // that work after the put: 1 is the claim, 2 the record
		want   []time.Time
	}{
		"before the claim":    {0, []time.Time{minute(1), minute(2)}},
		"before it publishes": {1, []time.Time{minute(1), minute(2)}},
		"before the record":   {1, []time.Time{minute(1), minute(2)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newState(t)
				f := &faulty{Table: s.table, Publisher: s.queue}
				p := start(t, f, f)
				put(t, p, "* * * * *")
				f.set(func(f *faulty) {
					f.left = test.writes
					f.dies = true
					if name == "before it publishes" {
						f.publishes = errors.New("dead")
					}
				})
				before := s.within(t, time.Minute+time.Second)
				p.stop() // it could do nothing more
				start(t, s.table, s.queue)
				got := s.within(t, 61*time.Second)
				want(t, got, test.want...)
				if name == "before the record" {
					want(t, before, minute(1)) // twice, as is allowed
				} else {
					want(t, before)
				}
			})
		})
	}
}

// The server is asked to end while a minute is on its way: that one is completed, and the
// others are left to the next start.
func TestStopCompletesTheMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newState(t)
		onItsWay, goOn := make(chan struct{}), make(chan struct{})
		p := start(t, s.table, publisher(func(ctx context.Context, body []byte, delay time.Duration) error {
			close(onItsWay)
			<-goOn
			return s.queue.Publish(ctx, body, delay)
		}))
		put(t, p, "1 0 * * *")
		if err := p.Put(t.Context(), timetable.Schedule{ID: "t", Cron: "1 0 * * *", Zone: "UTC"}); err != nil {
			t.Fatal(err)
		}
		<-onItsWay
		var stopping sync.WaitGroup
		stopping.Go(p.stop)
		synctest.Wait()
		close(goOn)
		stopping.Wait()
		want(t, s.within(t, time.Second), minute(1))
		start(t, s.table, s.queue)
		want(t, s.within(t, time.Minute), minute(1)) // of the other schedule
	})
}

type publisher func(ctx context.Context, body []byte, delay time.Duration) error

func (p publisher) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	return p(ctx, body, delay)
}

// faulty is a table and a queue that fail when they are told to.
type faulty struct {
	table.Table
	queue.Publisher

	mu                       sync.Mutex
	reads, writes, publishes error
	dies                     bool // after left writes more
	left                     int
}

func (f *faulty) set(change func(*faulty)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *faulty) Query(ctx context.Context, q table.Query) (table.Page, error) {
	f.mu.Lock()
	err := f.reads
	f.mu.Unlock()
	if err != nil {
		return table.Page{}, err
	}
	return f.Table.Query(ctx, q)
}

func (f *faulty) Transact(ctx context.Context, writes ...table.Write) error {
	f.mu.Lock()
	err := f.writes
	if f.dies {
		if f.left--; f.left < 0 {
			err = errors.New("dead")
		}
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Table.Transact(ctx, writes...)
}

func (f *faulty) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	f.mu.Lock()
	err := f.publishes
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.Publisher.Publish(ctx, body, delay)
}

// One entry that nobody can read does not hold up the others.
func TestUnreadableEntries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newState(t)
		for id, body := range map[string]string{"a": `{"cron":`, "b": `{"cron":"nonsense","zone":"UTC"}`, "c": `[]`} {
			if err := s.table.Transact(t.Context(), table.Put(table.Item{Key: key(id), Body: []byte(body)}, table.Condition{})); err != nil {
				t.Fatal(err)
			}
		}
		p := start(t, s.table, s.queue)
		put(t, p, "* * * * *")
		want(t, s.within(t, 61*time.Second), minute(1))
		if err := p.Put(t.Context(), timetable.Schedule{ID: "a", Cron: "2 * * * *", Zone: "UTC"}); err != nil {
			t.Errorf("an unreadable entry cannot be replaced: %v", err)
		}
		if err := p.Delete(t.Context(), "c"); err != nil {
			t.Errorf("an unreadable entry cannot be deleted: %v", err)
		}
		want(t, s.within(t, time.Minute), minute(2), minute(2))
	})
}

// A process that read a schedule before it was deleted and put anew does not bring the
// old one back, though it still has the version it read.
func TestStaleProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newState(t)
		p := start(t, s.table, s.queue)
		p.stop()
		put(t, p, "* * * * *")
		stale, err := s.table.Get(t.Context(), key("s"))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Delete(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		put(t, p, "0 0 1 1 *")
		time.Sleep(time.Minute)
		if _, err := p.publish(t.Context(), stale, time.Now()); err != nil {
			t.Fatal(err)
		}
		start(t, s.table, s.queue)
		want(t, s.within(t, 3*time.Minute))
	})
}

// Run looks at the table each minute; a schedule put in between does not wait for that.
func TestPutWakesRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newState(t)
		time.Sleep(30 * time.Second) // so that it looks at half past
		p := start(t, s.table, s.queue)
		time.Sleep(10 * time.Second)
		put(t, p, "* * * * *")
		want(t, s.within(t, 21*time.Second), minute(1))
		if now := time.Now(); now.After(minute(1).Add(2 * time.Second)) {
			t.Errorf("it took until %v", now)
		}
	})
}

// There may be more schedules than the table answers at once.
func TestManySchedules(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newState(t)
		for i := range 12 {
			var writes []table.Write
			for j := range table.MaxItems {
				item := table.Item{Key: key(fmt.Sprintf("%02d-%02d", i, j)), Body: []byte(`{"cron":"0 0 1 7 *","zone":"UTC","done":"2000-01-01T00:00:00Z"}`)}
				writes = append(writes, table.Put(item, table.Absent()))
			}
			if err := s.table.Transact(t.Context(), writes...); err != nil {
				t.Fatal(err)
			}
		}
		p := start(t, s.table, s.queue)
		put(t, p, "* * * * *") // the last of them
		want(t, s.within(t, 2*time.Minute+time.Second), minute(1), minute(2))
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newState(t)
		good := Deps{Table: s.table, Queue: s.queue, Now: time.Now, Log: slog.Default()}
		for name, change := range map[string]func(d *Deps){
			"Table": func(d *Deps) { d.Table = nil },
			"Queue": func(d *Deps) { d.Queue = nil },
			"Now":   func(d *Deps) { d.Now = nil },
			"Log":   func(d *Deps) { d.Log = nil },
		} {
			d := good
			change(&d)
			if _, err := New(d); err == nil {
				t.Errorf("New without %s is accepted", name)
			}
		}
	})
}
