// Package timekeeper brings the timetable in line with what is stored of schedules. A
// schedule is changed first and says from then on that the timetable may be behind; then
// the timetable is told; then the schedule says that it was. Whoever dies in between leaves a due
// entry, and the sweep comes here again.
//
// The timetable has no versions: of two processes that tell it of one schedule, the
// one with the older state could be the last. So a lease lets one do it at a time. Who has it looks
// at the schedule again after each call, and tells what is new.
//
// It decides nothing about schedules, and what their minutes lead to is package dispatch's.
package timekeeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"runnerhub/shared/budget"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
	"runnerhub/shared/timetable"
)

const (
	// lease is how long one process keeps others away; longer than a call to the
	// timetable and what is stored after it.
	lease       = 30 * time.Second
	callTimeout = 10 * time.Second
	// again is after how long a timetable that failed is told once more; less than the
	// minute from one sweep to the next, so that each of them tries.
	again = 45 * time.Second
	// maxCalls is how often one Align calls the timetable, for changes that come meanwhile.
	maxCalls = 10
)

// Deps is what a Keeper needs.
type Deps struct {
	Store     *store.Store
	Timetable timetable.Timetable
	Now       func() time.Time
	NewID     func() string
}

// Keeper tells the timetable.
type Keeper struct{ Deps }

// New makes a Keeper.
func New(d Deps) (*Keeper, error) {
	if d.Store == nil || d.Timetable == nil || d.Now == nil || d.NewID == nil {
		return nil, errors.New("timekeeper: a dependency is missing")
	}
	return &Keeper{d}, nil
}

// Due answers when the sweep looks at a schedule that is changed now, should nobody have
// told the timetable by then.
func (k *Keeper) Due() time.Time { return k.Now().Add(lease).UTC() }

// Align tells the timetable of a schedule, unless it knows or somebody else is telling it.
// A timetable that failed is told again by the sweep; the schedule says why it is behind.
func (k *Keeper) Align(ctx context.Context, id string) error {
	holder := k.NewID()
	told := 0 // revisions begin at 1
	for range maxCalls {
		s, mine, err := k.take(ctx, id, holder, told)
		if err != nil || !mine {
			return err
		}
		if err := k.tell(ctx, s); err != nil {
			return errors.Join(fmt.Errorf("timekeeper: telling the timetable of schedule %s: %w", id, err), k.release(ctx, id, holder, err))
		}
		told = s.Revision
	}
	return k.release(ctx, id, holder, fault.New(fault.Unavailable, "the schedule was changed very often"))
}

// take records that the revision told is what the timetable knows. When that is all of it,
// or somebody else sees to the rest, the schedule is not mine; otherwise the lease is.
func (k *Keeper) take(ctx context.Context, id, holder string, told int) (s store.Schedule, mine bool, err error) {
	if told != 0 { // the timetable was told: that is recorded even if time ran out
		var cancel context.CancelFunc
		ctx, cancel = budget.Record(ctx)
		defer cancel()
	}
	s, err = k.Store.ChangeSchedule(ctx, id, func(s *store.Schedule) (bool, error) {
		mine = false
		now := k.Now().UTC()
		switch {
		case s.DueAt.IsZero():
			return false, nil
		case s.Holder != "" && s.Holder != holder && now.Before(s.LeaseUntil):
			return false, nil
		case s.Revision == told:
			s.Holder, s.LeaseUntil, s.DueAt, s.Trouble, s.Layout = "", time.Time{}, time.Time{}, "", timetable.Layout
			return true, nil
		}
		mine = true
		s.Holder, s.LeaseUntil = holder, now.Add(lease)
		s.DueAt = s.LeaseUntil
		return true, nil
	})
	if fault.Is(err, fault.NotFound) {
		return s, false, nil // it was deleted, and the timetable knows
	}
	if err != nil {
		return s, false, fmt.Errorf("timekeeper: recording what the timetable knows: %w", err)
	}
	return s, mine, nil
}

func (k *Keeper) tell(ctx context.Context, s store.Schedule) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !s.Active {
		return k.Timetable.Delete(ctx, s.ID)
	}
	return k.Timetable.Put(ctx, timetable.Schedule{ID: s.ID, Cron: s.Cron, Zone: s.Zone})
}

// release gives the lease back and says why the timetable is still behind.
func (k *Keeper) release(ctx context.Context, id, holder string, cause error) error {
	ctx, cancel := budget.Record(ctx)
	defer cancel()
	trouble, _ := fault.Public(cause)
	if trouble == "" {
		trouble = "an internal error"
	}
	_, err := k.Store.ChangeSchedule(ctx, id, func(s *store.Schedule) (bool, error) {
		if s.Holder != holder {
			return false, nil
		}
		s.Holder, s.LeaseUntil, s.Trouble, s.DueAt = "", time.Time{}, trouble, k.Now().Add(again).UTC()
		return true, nil
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("timekeeper: recording why the timetable is behind: %w", err)
	}
	return nil
}
