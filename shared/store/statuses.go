package store

import (
	"cmp"
	"context"
	"strings"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// Status is what a commit's status has to say, and what Bitbucket has been told.
// There is one for each (repository, commit, key).
type Status struct {
	Repository string `json:"repository"`
	Commit     string `json:"commit"`
	Key        string `json:"key"`
	// Refname never changes for a status: Bitbucket keeps statuses of one key apart
	// by it and cannot take it back.
	Refname string `json:"refname,omitempty"`

	Build    string         `json:"build"` // the newest build with this key, whose state counts
	Number   int            `json:"number"`
	App      string         `json:"app"`
	State    ci.StatusState `json:"state"`
	Held     bool           `json:"held,omitempty"` // the build is held
	Revision int            `json:"revision"`       // rises when State, Build or Held change

	Posted   int       `json:"posted"` // the last revision Bitbucket acknowledged
	PostedAt time.Time `json:"posted_at,omitzero"`
	// Doubtful: some post was never answered, so what Bitbucket shows has to be
	// read back before the status counts as posted.
	Doubtful   bool      `json:"doubtful,omitempty"`
	DoubtfulAt time.Time `json:"doubtful_at,omitzero"`
	Ended      string    `json:"ended,omitempty"`   // why no more posts are made for this revision, in words
	Problem    string    `json:"problem,omitempty"` // why the last post failed, in words
	Tries      int       `json:"tries,omitempty"`   // that failed, since the last one that did not
	Missing    int       `json:"missing,omitempty"` // how often the commit, or what was posted, was not there
	// NotBefore is when Bitbucket may be asked again after a failure.
	NotBefore time.Time `json:"not_before,omitzero"`

	Holder     string    `json:"holder,omitempty"` // who posts now
	LeaseUntil time.Time `json:"lease_until,omitzero"`
	DueAt      time.Time `json:"due_at,omitzero"`

	Version int64 `json:"-"`
}

// unposted is after how long a status whose message got lost is looked at.
const unposted = time.Minute

// StatusRef names a status.
type StatusRef struct {
	Repository string `json:"repository"`
	Commit     string `json:"commit"`
	Key        string `json:"key"`
}

// Ref answers the status's name.
func (st Status) Ref() StatusRef { return StatusRef{st.Repository, st.Commit, st.Key} }

// Settled reports whether there is nothing (more) to post or to read back. A doubt
// matters once the status is final: until then another post follows anyway.
func (st Status) Settled() bool {
	doubt := st.Doubtful && st.State != ci.StatusInProgress
	return (st.Posted == st.Revision && !doubt) || st.Ended != ""
}

// String is the form a reference has in due entries.
func (r StatusRef) String() string { return r.Repository + "|" + r.Commit + "|" + r.Key }

// ParseStatusRef reads it.
func ParseStatusRef(s string) (StatusRef, error) {
	parts := strings.Split(s, "|")
	if len(parts) != 3 {
		return StatusRef{}, fault.New(fault.Invalid, "%q names no status", s)
	}
	return StatusRef{parts[0], parts[1], parts[2]}, nil
}

// StatusOf answers the name of the status a build shows on: in the repository that has the commit.
func StatusOf(b Build) StatusRef {
	return StatusRef{cmp.Or(b.Fork, b.Repository), b.Commit, b.StatusKey}
}

func statusKey(r StatusRef) table.Key { return key("STATUS#"+r.Repository+"#"+r.Commit, r.Key) }

// Status answers a status.
func (s *Store) Status(ctx context.Context, r StatusRef) (Status, error) {
	st, version, err := get[Status](ctx, s, statusKey(r), "status")
	st.Version = version
	return st, err
}

// wantStatus adds what b says to the status of its commit, which was read as st under version, unless a newer build
// speaks for it.
func (s *Store) wantStatus(c *change, b Build, st Status, version int64) {
	if version != 0 && st.Number > b.Number || st.Build == b.ID && st.State == b.State.Status() && st.Held == b.Held {
		return
	}
	was := st.DueAt
	if version == 0 {
		st = Status{Repository: StatusOf(b).Repository, Commit: b.Commit, Key: b.StatusKey, Refname: b.Refname}
	}
	st.Build, st.Number, st.App, st.State, st.Held = b.ID, b.Number, b.App, b.State.Status(), b.Held
	st.Revision++
	st.Ended, st.Problem, st.Tries, st.Missing = "", "", 0, 0
	st.DueAt = s.now().Add(unposted)
	c.put(statusKey(st.Ref()), st, unlessVersion(version))
	c.due(DueStatus, st.Ref().String(), was, st.DueAt)
}

// ChangeStatus edits a status under its version. edit may be run several times,
// each time on what is stored then; it answers false when there is nothing to do.
// A settled status is due no more.
func (s *Store) ChangeStatus(ctx context.Context, r StatusRef, edit func(*Status) bool) (st Status, changed bool, err error) {
	err = s.again(ctx, func() error {
		changed = false
		old, err := s.Status(ctx, r)
		if err != nil {
			return err
		}
		st = old
		if !edit(&st) {
			return nil
		}
		if st.Settled() {
			st.DueAt = time.Time{}
		}
		var c change
		c.put(statusKey(r), st, table.VersionIs(old.Version))
		c.due(DueStatus, r.String(), old.DueAt, st.DueAt)
		if err := s.commit(ctx, &c); err != nil {
			return err
		}
		changed = true
		return nil
	})
	return st, changed, err
}
