// Package timers is the timetable of the standalone server: schedules are items of the
// table, so that they survive a restart, and Run, in the server's own process, waits for
// their minutes and publishes them to a queue.
//
// A minute is claimed in the table, published, and then recorded. Two processes on one
// table therefore publish it once; after a crash in between it is published again when the
// claim has run out. A minute that came while no process ran is published at the next start,
// the latest one of a schedule only, when it is less than an hour ago.
package timers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
	"runnerhub/shared/table"
	"runnerhub/shared/timetable"
)

const (
	// partition of the table that holds the schedules, by their ids.
	partition = "TIMETABLE"

	// catchUp is how long ago a minute may be that nobody was there to publish.
	catchUp = time.Hour
	// claim is how long a minute belongs to the process that publishes it; longer than
	// the calls it makes to do so.
	claim = 20 * time.Second
	// deadline of one call to the table or the queue.
	deadline = 5 * time.Second
	// lookAgain is the longest wait before the table is read anew, for what other
	// processes put there.
	lookAgain = time.Minute
	// retry is the wait after a call failed.
	retry = 5 * time.Second
	// buried is how long a deleted entry stays.
	buried = 24 * time.Hour
)

// Deps is what New needs.
type Deps struct {
	Table table.Table
	Queue queue.Publisher  // gets each timetable.Due as JSON
	Now   func() time.Time // must advance with the time that timers wait for
	Log   *slog.Logger
}

// Timers implements timetable.Timetable. It is safe for concurrent use.
type Timers struct {
	deps    Deps
	changed chan struct{} // wakes Run; holds one
}

// New answers a timetable that takes schedules; Run publishes them.
func New(d Deps) (*Timers, error) {
	if d.Table == nil || d.Queue == nil || d.Now == nil || d.Log == nil {
		return nil, errors.New("timers: Table, Queue, Now and Log are required")
	}
	return &Timers{deps: d, changed: make(chan struct{}, 1)}, nil
}

// entry is the body of an item.
type entry struct {
	Cron string `json:"cron"`
	Zone string `json:"zone"`
	// Done is the moment up to which every minute was published, or came before the
	// schedule did.
	Done time.Time `json:"done"`
	// Claimed is until when the minute after Done belongs to the process that claimed it.
	Claimed time.Time `json:"claimed,omitzero"`
	// Deleted entries stay for a while, so that the versions of a schedule that is put
	// again go on: a process that still holds the old one would otherwise write it over the new.
	Deleted bool `json:"deleted,omitempty"`
}

// Put implements timetable.Timetable.
func (t *Timers) Put(ctx context.Context, s timetable.Schedule) error {
	if err := s.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	old, err := t.get(ctx, s.ID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err == nil && !old.Deleted && old.Cron == s.Cron && old.Zone == s.Zone {
		return nil
	}
	// Without a condition: whatever was there, even claimed this moment, is replaced.
	err = t.put(ctx, s.ID, entry{Cron: s.Cron, Zone: s.Zone, Done: t.deps.Now().UTC()}, table.Condition{})
	if err != nil {
		return err
	}
	select {
	case t.changed <- struct{}{}:
	default: // Run is about to look already
	}
	return nil
}

// Delete implements timetable.Timetable.
func (t *Timers) Delete(ctx context.Context, id string) error {
	if err := timetable.CheckID(id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if _, err := t.get(ctx, id); fault.Is(err, fault.NotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return t.put(ctx, id, entry{Deleted: true}, table.Condition{})
}

// get answers the entry, empty when it is not understood, or fault.NotFound.
func (t *Timers) get(ctx context.Context, id string) (entry, error) {
	item, err := t.deps.Table.Get(ctx, key(id))
	if err != nil {
		return entry{}, fmt.Errorf("read schedule %s: %w", id, err)
	}
	e, _ := decode(item)
	return e, nil
}

func (t *Timers) put(ctx context.Context, id string, e entry, c table.Condition) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode schedule %s: %w", id, err)
	}
	item := table.Item{Key: key(id), Body: body}
	if e.Deleted {
		item.ExpiresAt = t.deps.Now().Add(buried)
	}
	if err := t.deps.Table.Transact(ctx, table.Put(item, c)); err != nil {
		return fmt.Errorf("write schedule %s: %w", id, err)
	}
	return nil
}

// Run publishes minutes as they come, until ctx ends; it then completes the one it is at.
func (t *Timers) Run(ctx context.Context) {
	started := t.deps.Now()
	for ctx.Err() == nil {
		next, err := t.publishDue(ctx, started)
		if err != nil && ctx.Err() == nil {
			t.deps.Log.Error("publishing schedules failed", "error", err)
			next = t.deps.Now().Add(retry)
		}
		t.wait(ctx, next)
	}
}

// wait returns at the moment, when a schedule was put, or when it is time to look again.
func (t *Timers) wait(ctx context.Context, until time.Time) {
	timer := time.NewTimer(min(until.Sub(t.deps.Now()), lookAgain))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-t.changed:
	case <-timer.C:
	}
}

// publishDue publishes what is due of all schedules and answers when the next one will
// be. After a failure it stops: the next schedule would most likely fail as well, at
// its whole deadline.
func (t *Timers) publishDue(ctx context.Context, started time.Time) (next time.Time, err error) {
	next = t.deps.Now().Add(lookAgain)
	query := table.Query{Partition: partition, Limit: 1000}
	for {
		page, err := t.page(ctx, query)
		if err != nil {
			return time.Time{}, err
		}
		for _, item := range page.Items {
			if ctx.Err() != nil {
				return next, nil
			}
			at, err := t.publish(ctx, item, started)
			if err != nil {
				return time.Time{}, fmt.Errorf("schedule %s: %w", item.Key.Sort, err)
			}
			if at.Before(next) {
				next = at
			}
		}
		if page.Cursor == "" {
			return next, nil
		}
		query.Cursor = page.Cursor
	}
}

func (t *Timers) page(ctx context.Context, q table.Query) (table.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	page, err := t.deps.Table.Query(ctx, q)
	if err != nil {
		return table.Page{}, fmt.Errorf("read the schedules: %w", err)
	}
	return page, nil
}

// publish publishes the minute of one schedule that is due, if there is one, and answers
// when to come back to it.
func (t *Timers) publish(ctx context.Context, item table.Item, started time.Time) (time.Time, error) {
	now := t.deps.Now()
	s := timetable.Schedule{ID: item.Key.Sort}
	e, err := decode(item)
	if e.Deleted {
		return now.Add(lookAgain), nil
	}
	s.Cron, s.Zone = e.Cron, e.Zone
	var minute time.Time
	if err == nil {
		minute, err = s.Next(e.Done)
	}
	if err != nil {
		// Nothing here can mend it, and the others must go on.
		t.deps.Log.Error("a stored schedule is not understood", "schedule", s.ID, "error", err)
		return now.Add(lookAgain), nil
	}
	if minute.After(now) {
		return minute, nil
	}
	if e.Claimed.After(now) {
		return e.Claimed, nil
	}
	// From here on the end of ctx is not heeded: half of it done would leave the minute to
	// the claim's end.
	ctx = context.WithoutCancel(ctx)
	if last, err := lastMissed(s, e.Done, started); err != nil {
		return time.Time{}, err
	} else if minute.Before(last) {
		t.deps.Log.Warn("minutes of a schedule are passed over, nobody was there to publish them",
			"schedule", s.ID, "from", minute, "before", last)
		e.Done = last.Add(-time.Second)
		_, err := t.record(ctx, s.ID, e, item.Version)
		return now, err
	}
	e.Claimed = now.Add(claim).UTC()
	if claimed, err := t.record(ctx, s.ID, e, item.Version); !claimed || err != nil {
		return now, err
	}
	if err := t.send(ctx, timetable.Due{Schedule: s.ID, Minute: minute.Format(time.RFC3339)}); err != nil {
		return time.Time{}, err
	}
	e.Done, e.Claimed = minute, time.Time{}
	_, err = t.record(ctx, s.ID, e, item.Version+1)
	return now, err // there may be another one
}

// lastMissed answers the last minute after done and before the start that is not too long
// ago to be published still; with none, the start.
func lastMissed(s timetable.Schedule, done, started time.Time) (time.Time, error) {
	if oldest := started.Add(-catchUp); done.Before(oldest) {
		done = oldest
	}
	last := started
	for {
		minute, err := s.Next(done)
		if err != nil || !minute.Before(started) {
			return last.UTC(), err
		}
		last, done = minute, minute
	}
}

func (t *Timers) send(ctx context.Context, due timetable.Due) error {
	body, err := json.Marshal(due)
	if err != nil {
		return fmt.Errorf("encode a minute: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if err := t.deps.Queue.Publish(ctx, body, 0); err != nil {
		return fmt.Errorf("publish a minute: %w", err)
	}
	return nil
}

// record stores the entry when it is still at the version. That it is not means that
// another process was faster, or that the schedule was replaced or deleted.
func (t *Timers) record(ctx context.Context, id string, e entry, version int64) (recorded bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	err = t.put(ctx, id, e, table.VersionIs(version))
	if fault.Is(err, fault.Conflict) {
		return false, nil
	}
	return err == nil, err
}

func key(id string) table.Key { return table.Key{Partition: partition, Sort: id} }

func decode(item table.Item) (entry, error) {
	var e entry
	if err := json.Unmarshal(item.Body, &e); err != nil {
		return entry{}, fmt.Errorf("decode schedule %s: %w", item.Key.Sort, err)
	}
	return e, nil
}
