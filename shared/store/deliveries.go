package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Delivery is a verified webhook request with what it said and what was decided.
type Delivery struct {
	ci.Delivery
	Workspace string   `json:"workspace"`
	Hook      string   `json:"hook"`
	Content   ci.Event `json:"content"`
	// Note says why there are no decisions yet, or none for good.
	Note  string    `json:"note,omitempty"`
	DueAt time.Time `json:"due_at,omitzero"`
	// Replays is how often it was opened again after it had been decided, DecidedBefore when that
	// was, the last time: a build of its changes that is not newer was there before the replay. ReplayedAt is when it was opened.
	Replays       int       `json:"replays,omitempty"`
	DecidedBefore time.Time `json:"decided_before,omitzero"`
	ReplayedAt    time.Time `json:"replayed_at,omitzero"`

	Version int64 `json:"-"`
}

func deliveryKey(id string) table.Key { return key("DELIVERY#"+id, "DELIVERY") }

// Delivery answers a delivery.
func (s *Store) Delivery(ctx context.Context, id string) (Delivery, error) {
	d, version, err := get[Delivery](ctx, s, deliveryKey(id), "delivery")
	d.Version = version
	return d, err
}

// PutDelivery stores what is known of a delivery. A decided one is final, until it is
// replayed: a repeat of its message changes nothing, and what is stored is answered. So it is with
// what somebody decided who has not heard of a replay.
func (s *Store) PutDelivery(ctx context.Context, d Delivery) (Delivery, error) {
	out := d
	fresh := d.Version == 0 // most are put once: looking at what is there can wait for a conflict
	err := s.again(ctx, func() error {
		var old Delivery
		var version int64
		var err error
		if !fresh {
			if old, version, err = find[Delivery](ctx, s, deliveryKey(d.ID), "delivery"); err != nil {
				return err
			}
		}
		fresh = false
		if version != 0 && (!old.DecidedAt.IsZero() || old.Replays > d.Replays) {
			out = old
			return nil
		}
		err = s.commit(ctx, deliveryChange(d, old, version))
		if fault.Is(err, fault.TooLarge) && !d.DecidedAt.IsZero() {
			// The decisions are what matters, and they name every change. Before there
			// are any, only the message knows them all.
			short := d
			short.Content.Changes = nil
			short.Note = "the event is too large to be kept: it cannot be replayed"
			err = s.commit(ctx, deliveryChange(short, old, version))
		}
		return err
	})
	return out, err
}

// maxReplayed is the longest event in bytes of JSON that can be replayed: it is stored beside new
// decisions, however long those get.
const maxReplayed = table.MaxItemBytes - 200<<10

// ReopenDelivery makes a decided delivery an undecided one without decisions, for which somebody has to
// leave a message by due. An undecided one is answered as it is. One whose event is not on
// the record is fault.Conflict, with the reason.
func (s *Store) ReopenDelivery(ctx context.Context, id string, due time.Time) (Delivery, error) {
	var out Delivery
	err := s.again(ctx, func() error {
		old, version, err := get[Delivery](ctx, s, deliveryKey(id), "delivery")
		if err != nil {
			return err
		}
		out = old
		if old.DecidedAt.IsZero() {
			return nil
		}
		body, err := json.Marshal(old.Content)
		switch {
		case err != nil:
			return fmt.Errorf("store: encoding the event of a delivery: %w", err)
		case old.Content.Kind == "":
			return fault.New(fault.Conflict, "the body of the delivery could not be read, so there is nothing to decide: it cannot be replayed")
		case old.Note != "":
			return fault.New(fault.Conflict, "%s", old.Note)
		case len(body) > maxReplayed:
			return fault.New(fault.Conflict, "the event is too large to be decided beside what is recorded: it cannot be replayed")
		}
		out.DecidedBefore, out.DecidedAt, out.Decisions = old.DecidedAt, time.Time{}, nil
		out.Replays++
		out.ReplayedAt = s.now().UTC()
		out.Note, out.DueAt = "it is replayed, and not decided yet", due.UTC()
		return s.commit(ctx, deliveryChange(out, old, version))
	})
	return out, err
}

func deliveryChange(d, old Delivery, version int64) *change {
	var c change
	c.put(deliveryKey(d.ID), d, unlessVersion(version))
	if version == 0 {
		c.put(key("APP#"+d.App, "DELIVERY#"+inKey(d.ReceivedAt)+"#"+d.ID), d.ID, table.Absent())
	}
	c.due(DueDelivery, d.ID, old.DueAt, d.DueAt)
	return &c
}

// Deliveries lists the deliveries of an app, newest first.
func (s *Store) Deliveries(ctx context.Context, app, cursor string, limit int) (Page[Delivery], error) {
	from, before := table.Prefix("DELIVERY#")
	ids, err := list[string](ctx, s, table.Query{
		Partition: "APP#" + app, From: from, Before: before, Reverse: true, Limit: limit, Cursor: cursor,
	}, "deliveries")
	if err != nil {
		return Page[Delivery]{}, err
	}
	keys := make([]table.Key, 0, len(ids.Items))
	for _, id := range ids.Items {
		keys = append(keys, deliveryKey(id))
	}
	items, err := batch[Delivery](ctx, s, keys, "deliveries")
	return Page[Delivery]{Items: items, Cursor: ids.Cursor}, err
}
