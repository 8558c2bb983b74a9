// Package sqlite is the queue of a standalone server: rows of the data file, and
// a bell in the process that wakes who waits for them.
//
// A message is one row. Whether it waits, is delayed or held is only a matter of
// when it is visible, so one index answers every receive, however many
// messages stand behind. The file is one process's at a time; that is why a bell
// suffices, and why the messages a dead process held are free when the next begins.
package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/datafile"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
)

// Deps is what a Queue needs.
type Deps struct {
	File *datafile.File
	Name string // of the queue within the file
	// Visibility is how long a delivery hides its message from others, at least
	// a millisecond; longer than a handler may take.
	Visibility time.Duration
	// MaxAttempts is after how many deliveries a message is a dead letter, at least 1.
	MaxAttempts int
	// Now must advance with the real time, for which waiting receivers wait.
	Now func() time.Time
	Log *slog.Logger // of what nobody else sees: a message that becomes a dead letter
}

// Queue implements queue.Queue.
type Queue struct {
	deps Deps
	// bell holds a token when a receiver should look again. Whoever takes the
	// token rings again when he leaves, so that it goes round until a receiver
	// finds nothing, and none is woken in vain for a message another one has.
	bell chan struct{}
}

var _ queue.Queue = (*Queue)(nil)

// New opens the queue with the name. Messages that an earlier process held are
// visible again at once: their holders have died with it.
func New(deps Deps) (*Queue, error) {
	if deps.File == nil || deps.Name == "" || deps.Visibility < time.Millisecond || deps.MaxAttempts < 1 || deps.Now == nil || deps.Log == nil {
		return nil, errors.New("queue/sqlite: no file, name, visibility, attempts, clock or log")
	}
	q := &Queue{deps: deps, bell: make(chan struct{}, 1)}
	err := deps.File.Write(context.Background(), func(tx *datafile.Tx) error {
		_, err := tx.Exec(`UPDATE messages SET visible_at = ?, receipt = NULL
			WHERE queue = ? AND receipt IS NOT NULL AND dead_at IS NULL AND receipt NOT LIKE ?`,
			deps.Now().UnixMilli(), deps.Name, deps.File.Session()+"-%")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("freeing the held messages of %s: %w", deps.Name, err)
	}
	return q, nil
}

// Publish implements queue.Queue.
func (q *Queue) Publish(ctx context.Context, body []byte, delay time.Duration) error {
	if err := errors.Join(queue.CheckBody(body), queue.CheckDelay(delay)); err != nil {
		return err
	}
	now := q.deps.Now()
	err := q.deps.File.Write(ctx, func(tx *datafile.Tx) error {
		_, err := tx.Exec(`INSERT INTO messages (queue, visible_at, attempts, sent_at, body) VALUES (?, ?, 0, ?, ?)`,
			q.deps.Name, after(now, delay), now.UnixMilli(), string(body))
		return err
	})
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", q.deps.Name, err)
	}
	q.ring()
	return nil
}

// Receive implements queue.Queue.
func (q *Queue) Receive(ctx context.Context, limit int, wait time.Duration) ([]queue.Message, error) {
	if err := queue.CheckReceive(limit, wait); err != nil {
		return nil, err
	}
	// Whoever leaves may have had the token, or the earliest timer: another looks.
	defer q.ring()
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		messages, next, err := q.take(ctx, limit)
		if err != nil {
			return nil, fmt.Errorf("receiving from %s: %w", q.deps.Name, err)
		}
		if len(messages) > 0 || wait == 0 {
			return messages, nil
		}
		due := time.NewTimer(next)
		select {
		case <-q.bell:
		case <-due.C:
		case <-over.C:
			wait = 0 // one last look
		case <-ctx.Done():
			due.Stop()
			return nil, fmt.Errorf("receiving from %s: %w", q.deps.Name, ctx.Err())
		}
		due.Stop()
	}
}

// take holds up to limit visible messages. With none it answers how long until
// one becomes visible, as far as it knows now.
func (q *Queue) take(ctx context.Context, limit int) (taken []queue.Message, next time.Duration, err error) {
	// Looking first keeps an idle queue from writing.
	err = q.deps.File.Read(ctx, func(tx *datafile.Tx) error {
		next, err = q.next(tx)
		return err
	})
	if err != nil || next > 0 {
		return nil, next, err
	}
	var dead []queue.Message
	err = q.deps.File.Write(ctx, func(tx *datafile.Tx) error {
		now := q.deps.Now()
		receipt := q.deps.File.Session() + "-" + rand.Text()
		for len(taken) < limit {
			due, err := q.due(tx, now, limit-len(taken))
			if err != nil || len(due) == 0 {
				return err
			}
			for _, m := range due {
				if m.Attempt > q.deps.MaxAttempts {
					_, err = tx.Exec(`UPDATE messages SET dead_at = ?, receipt = NULL WHERE id = ?`, now.UnixMilli(), m.ID)
					dead = append(dead, m)
				} else {
					until := after(now, q.deps.Visibility)
					_, err = tx.Exec(`UPDATE messages SET attempts = ?, receipt = ?, visible_at = ? WHERE id = ?`, m.Attempt, receipt, until, m.ID)
					m.Receipt = m.ID + "." + receipt
					m.Deadline = time.UnixMilli(until).UTC()
					taken = append(taken, m)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	for _, m := range dead {
		q.deps.Log.Error("a message is a dead letter from now on", "queue", q.deps.Name, "message", m.ID, "attempts", m.Attempt-1)
	}
	// Another one was faster, or only dead letters were due: look again at once.
	return taken, 0, nil
}

// next answers how long until the first message is visible: 0 when one is, and
// longer than any wait when there is none.
func (q *Queue) next(tx *datafile.Tx) (time.Duration, error) {
	var visible int64
	found, err := tx.First([]any{&visible}, `SELECT visible_at FROM messages WHERE queue = ? AND dead_at IS NULL ORDER BY visible_at LIMIT 1`, q.deps.Name)
	if err != nil || !found {
		return time.Hour, err
	}
	return max(0, time.UnixMilli(visible).Sub(q.deps.Now())), nil
}

// due answers visible messages, as they would be delivered now.
func (q *Queue) due(tx *datafile.Tx, now time.Time, limit int) (due []queue.Message, err error) {
	err = tx.Query(func(scan func(...any) error) (bool, error) {
		var m queue.Message
		var sent int64
		if err := scan(&m.ID, &m.Body, &m.Attempt, &sent); err != nil {
			return false, err
		}
		m.Attempt++
		m.SentAt = time.UnixMilli(sent).UTC()
		due = append(due, m)
		return true, nil
	}, `SELECT id, body, attempts, sent_at FROM messages WHERE queue = ? AND dead_at IS NULL AND visible_at <= ? ORDER BY visible_at LIMIT ?`,
		q.deps.Name, now.UnixMilli(), limit)
	return due, err
}

// Delete implements queue.Queue.
func (q *Queue) Delete(ctx context.Context, receipt string) error {
	return q.end(ctx, "deleting", receipt, func(tx *datafile.Tx, id int64, delivery string) error {
		_, err := tx.Exec(`DELETE FROM messages WHERE id = ? AND queue = ? AND receipt = ?`, id, q.deps.Name, delivery)
		return err
	})
}

// Retry implements queue.Queue.
func (q *Queue) Retry(ctx context.Context, receipt string, delay time.Duration) error {
	if err := queue.CheckDelay(delay); err != nil {
		return err
	}
	defer q.ring()
	return q.end(ctx, "returning", receipt, func(tx *datafile.Tx, id int64, delivery string) error {
		_, err := tx.Exec(`UPDATE messages SET visible_at = ?, receipt = NULL WHERE id = ? AND queue = ? AND receipt = ?`,
			after(q.deps.Now(), delay), id, q.deps.Name, delivery)
		return err
	})
}

// end runs change for the message and the delivery that the receipt names.
func (q *Queue) end(ctx context.Context, doing, receipt string, change func(tx *datafile.Tx, id int64, delivery string) error) error {
	number, delivery, _ := strings.Cut(receipt, ".")
	id, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return fault.New(fault.Invalid, "that is not a receipt of this queue")
	}
	if err := q.deps.File.Write(ctx, func(tx *datafile.Tx) error { return change(tx, id, delivery) }); err != nil {
		return fmt.Errorf("%s a message of %s: %w", doing, q.deps.Name, err)
	}
	return nil
}

// Redrive implements queue.Queue.
func (q *Queue) Redrive(ctx context.Context, limit int) (int, error) {
	if limit < 1 {
		return 0, fault.New(fault.Invalid, "redriving %d messages is not at least one", limit)
	}
	var moved int64
	err := q.deps.File.Write(ctx, func(tx *datafile.Tx) (err error) {
		moved, err = tx.Exec(`UPDATE messages SET dead_at = NULL, attempts = 0, visible_at = ? WHERE id IN
			(SELECT id FROM messages WHERE queue = ? AND dead_at IS NOT NULL ORDER BY dead_at LIMIT ?)`,
			q.deps.Now().UnixMilli(), q.deps.Name, limit)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("redriving %s: %w", q.deps.Name, err)
	}
	q.ring()
	return int(moved), nil
}

// Stats is how many messages a queue has, for the operator.
type Stats struct {
	Waiting int // visible, or delayed
	Held    int // somebody works on them
	Dead    int // set aside after too many attempts
}

// Stats counts the messages of this moment.
func (q *Queue) Stats(ctx context.Context) (s Stats, err error) {
	err = q.deps.File.Read(ctx, func(tx *datafile.Tx) error {
		var all, held sql.NullInt64
		_, err := tx.First([]any{&all, &held, &s.Dead}, `SELECT
			(SELECT count(*) FROM messages WHERE queue = ?1 AND dead_at IS NULL),
			(SELECT count(*) FROM messages WHERE queue = ?1 AND dead_at IS NULL AND visible_at > ?2 AND receipt IS NOT NULL),
			(SELECT count(*) FROM messages WHERE queue = ?1 AND dead_at IS NOT NULL)`, q.deps.Name, q.deps.Now().UnixMilli())
		s.Waiting, s.Held = int(all.Int64-held.Int64), int(held.Int64)
		return err
	})
	if err != nil {
		return Stats{}, fmt.Errorf("counting the messages of %s: %w", q.deps.Name, err)
	}
	return s, nil
}

func (q *Queue) ring() {
	select {
	case q.bell <- struct{}{}:
	default:
	}
}

// after answers the moment d after t in milliseconds: not before it when there
// is something to wait for, and not after it when there is not.
func after(t time.Time, d time.Duration) int64 {
	if d == 0 {
		return t.UnixMilli()
	}
	return t.Add(d + time.Millisecond - 1).UnixMilli()
}
