package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"runnerhub/shared/budget"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/pipeline"
	"runnerhub/shared/store"
	"runnerhub/shared/timetable"
)

// minute builds what a schedule asks for at a minute. Of minutes that come out of order,
// or that could not be looked into when they came, the newest counts: a minute that is older than
// the last one on the record is passed over.
func (d *Dispatch) minute(ctx context.Context, msg message.Dispatch) error {
	minute, err := time.Parse(time.RFC3339, msg.Minute)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "%.50q is no minute of schedule %s", msg.Minute, msg.Schedule)
	}
	minute = minute.UTC().Truncate(time.Minute)
	s, err := d.Store.Schedule(ctx, msg.Schedule)
	if fault.Is(err, fault.NotFound) || err == nil && !s.Active {
		return nil // it was deleted or put to rest after this was published
	}
	if err != nil {
		return fmt.Errorf("dispatch: %w", err)
	}
	if s.Last.Over(minute) {
		return d.Admit(ctx) // a repeat; what follows may still be missing
	}
	decisions, cause := told("branch " + s.Branch)(d.scheduled(ctx, s, minute))
	last := ci.Occasion{Minute: minute}
	if cause != nil {
		reason, _ := fault.Public(cause)
		if reason == "" {
			reason = "an internal error"
		}
		last.Problem, last.Pending = "not decided yet, it will be tried again: "+reason, true
	}
	for _, decision := range decisions { // one
		last.Build, last.Number = decision.Build, decision.Number
		if decision.Verdict != ci.Built && decision.Verdict != ci.AlreadyBuilt {
			last.Problem = cut(decision.Reason, maxText)
		}
		d.Log.Info("decided", "schedule", s.ID, "minute", minute, "app", s.App, "ref", decision.Ref, "decision", decision.Verdict, "build", decision.Build)
	}
	if err := d.came(ctx, s.ID, last); err != nil || cause != nil {
		return errors.Join(cause, err)
	}
	return d.Admit(ctx)
}

// came records what came of a minute, unless a later one is on the record.
func (d *Dispatch) came(ctx context.Context, schedule string, last ci.Occasion) error {
	// The caller's time may be what ran out.
	ctx, cancel := budget.Record(ctx)
	defer cancel()
	_, err := d.Store.ChangeSchedule(ctx, schedule, func(s *store.Schedule) (bool, error) {
		if s.Last.Over(last.Minute) {
			return false, nil
		}
		s.Last = &last
		if s.Active && s.Layout != timetable.Layout && s.DueAt.IsZero() {
			s.DueAt = d.Now().UTC() // made by an older version: the sweep tells the timetable anew
		}
		return true, nil
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return fmt.Errorf("dispatch: recording the minute of a schedule: %w", err)
	}
	return nil
}

// scheduled decides the minute of a schedule.
func (d *Dispatch) scheduled(ctx context.Context, s store.Schedule, minute time.Time) ([]ci.Decision, error) {
	c, tied, err := d.subject(ctx, s.App)
	if err != nil {
		return nil, err
	}
	c.ref, c.trigger, c.branch, c.received = "branch "+s.Branch, ci.TriggerSchedule, s.Branch, minute
	if !tied {
		return c.skip(codeNoRepository, "%s", noRepository), nil
	}
	c.change = strings.Join([]string{"schedule", s.ID, minute.Format(time.RFC3339)}, "|")
	head, err := d.head(ctx, c)
	if err != nil {
		return nil, err
	}
	commit, err := d.commit(ctx, c, c.tie.UUID, head)
	if err != nil {
		return nil, err
	}
	c.commit, c.message, c.author = commit.Hash, commit.Message, commit.Author
	file, decisions, err := d.file(ctx, c)
	if file == nil {
		return decisions, err
	}
	return d.match(ctx, c, file, pipeline.Event{Kind: pipeline.Schedule, Branch: s.Branch})
}

// head answers the commit that a schedule's minute builds: the branch's head, or what an earlier
// run of this very minute took for it.
func (d *Dispatch) head(ctx context.Context, c candidate) (string, error) {
	made, err := d.Store.BuildOf(ctx, c.app.ID, c.change)
	if err == nil {
		return made.Commit, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return "", fmt.Errorf("dispatch: %w", err)
	}
	hash, err := c.client.Branch(ctx, c.tie.UUID, c.branch)
	if fault.Is(err, fault.NotFound) {
		return "", fault.Wrap(fault.NotFound, err, "branch %s cannot be read: it is not on Bitbucket, or not any more", c.branch)
	}
	if err != nil {
		return "", fmt.Errorf("dispatch: reading branch %s: %w", c.branch, err)
	}
	return hash, nil
}
