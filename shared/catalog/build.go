package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/access"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
)

const (
	// maxReads bounds the reads for one page of a log: drivers may answer less than they
	// have, or nothing, and only an unchanged cursor says that there is no more.
	maxReads = 10
	// maxTailPages bounds what Tail reads: a log of a million lines is not read to its end
	// for one page in a browser.
	maxTailPages = 100
)

// Build is a build as members see it.
type Build struct {
	ci.Build
	URL    string  `json:"url"`              // of its page, for people
	Status *Status `json:"status,omitempty"` // not in lists
}

// Status is what the build's commit shows on Bitbucket.
type Status struct {
	Build   string         `json:"build"` // whose state it is: this build's, or a newer one's with the same key
	State   ci.StatusState `json:"state"`
	Posted  bool           `json:"posted"`            // Bitbucket has acknowledged it
	Problem string         `json:"problem,omitempty"` // why the last post failed; it is tried again
	Ended   string         `json:"ended,omitempty"`   // why it is not tried any more
}

// Builds lists the builds of an app, newest first.
func (c *Catalog) Builds(ctx context.Context, user, app, cursor string) (store.Page[Build], error) {
	if _, err := access.App(ctx, c.Store, user, app, ci.See); err != nil {
		return store.Page[Build]{}, fmt.Errorf("catalog: builds: %w", err)
	}
	page, err := c.Store.Builds(ctx, app, cursor, pageSize)
	if err != nil {
		return store.Page[Build]{}, fmt.Errorf("catalog: listing builds: %w", err)
	}
	if err := c.Store.TellTurns(ctx, page.Items); err != nil {
		return store.Page[Build]{}, fmt.Errorf("catalog: listing builds: %w", err)
	}
	return mapped(page, c.shown), nil
}

// Build answers a build with its status on Bitbucket.
func (c *Catalog) Build(ctx context.Context, user, id string) (Build, error) {
	stored, err := access.Build(ctx, c.Store, user, id, ci.See)
	if err != nil {
		return Build{}, fmt.Errorf("catalog: build: %w", err)
	}
	told := []store.Build{stored}
	if err := c.Store.TellTurns(ctx, told); err != nil {
		return Build{}, fmt.Errorf("catalog: build: %w", err)
	}
	b := c.shown(told[0])
	status, err := c.Store.Status(ctx, store.StatusOf(stored))
	switch {
	case err == nil:
		b.Status = &Status{
			Build: status.Build, State: status.State, Posted: status.Posted == status.Revision && !status.Doubtful,
			Problem: status.Problem, Ended: status.Ended,
		}
	case !fault.Is(err, fault.NotFound):
		return Build{}, fmt.Errorf("catalog: reading the status of a build: %w", err)
	}
	return b, nil
}

func (c *Catalog) shown(b store.Build) Build {
	if b.Steps == nil {
		b.Steps = []ci.Step{}
	}
	return Build{Build: b.Build, URL: c.PublicURL + "/builds/" + b.ID}
}

// Lines is a page of a log. Done says that the build ended, its log is all there, and nothing is left to read.
type Lines struct {
	Items  []buildlog.Line `json:"items"`
	Cursor string          `json:"cursor"`
	Done   bool            `json:"done"`

	end bool // there was no more when it was read
}

// Log answers the lines of a build's log from a cursor on, as many as a page of
// buildlog may hold; the empty cursor is the beginning. It does not wait for lines to come.
func (c *Catalog) Log(ctx context.Context, user, build, cursor string) (Lines, error) {
	if c.Logs == nil {
		return Lines{}, errors.New("catalog: opened without the builds' logs")
	}
	// Read before the log: lines written between the two reads come with the next page.
	b, err := access.Build(ctx, c.Store, user, build, ci.See)
	if err != nil {
		return Lines{}, fmt.Errorf("catalog: log: %w", err)
	}
	at, err := parsePlace(cursor)
	if err != nil {
		return Lines{}, fmt.Errorf("catalog: log: %w", err)
	}
	out := Lines{Items: []buildlog.Line{}}
	size := 0
	for range maxReads {
		page, err := c.Logs.Read(ctx, b.LogName(), at.cursor, buildlog.MaxPage-len(out.Items))
		if err != nil {
			return Lines{}, fmt.Errorf("catalog: reading a log: %w", err)
		}
		if size += sizeOf(page.Lines); size > buildlog.MaxPageBytes {
			break // it is read again for the next page
		}
		out.Items = append(out.Items, page.Lines...)
		out.end = len(page.Lines) == 0 && page.Cursor == at.cursor
		at.pass(b, page)
		if out.end || len(out.Items) == buildlog.MaxPage {
			break
		}
	}
	out.Cursor = at.String()
	out.Done = out.end && c.complete(b, at)
	return out, nil
}

// complete reports whether the log of a build, read up to a place after which there was nothing, has all it will ever have. A build
// can have ended before its last lines are in its log.
func (c *Catalog) complete(b store.Build, at place) bool {
	switch {
	case !b.State.Final():
		return false
	case !c.Now().Before(b.FinishedAt.Add(c.Settling)) || c.Settling == 0:
		return true
	case b.Attempt == "" && b.State != ci.Errored:
		return true // no runner was asked, and nothing was wrong with its file
	case b.Attempt == "":
		return !at.closed.IsZero()
	}
	// The last line of an earlier attempt is none of this one, which was claimed later, or not at all.
	return b.Nonce != "" && !at.closed.IsZero() && !at.closed.Before(b.StartedAt.Truncate(time.Millisecond))
}

// place is how far a log was read.
type place struct {
	cursor string    // the log's own
	closed time.Time // of the newest last line before it, in milliseconds; zero: there was none
}

// pass moves behind a page. Of a build that no runner was asked to run, what the service says in one go is
// all, so that any line is a last one.
func (p *place) pass(b store.Build, page buildlog.Page) {
	p.cursor = page.Cursor
	for _, line := range page.Lines {
		if (b.Attempt == "" || line.Ends()) && !line.Time.IsZero() {
			p.closed = line.Time.Truncate(time.Millisecond)
		}
	}
}

// String is the form that parsePlace reads. Who makes one up misleads himself alone.
func (p place) String() string {
	if p.closed.IsZero() {
		return p.cursor
	}
	return p.cursor + "." + strconv.FormatInt(p.closed.UnixMilli(), 10)
}

func parsePlace(s string) (place, error) {
	cursor, closed, ok := strings.Cut(s, ".")
	if !ok {
		return place{cursor: s}, nil
	}
	at, err := strconv.ParseInt(closed, 10, 64)
	if err != nil || cursor == "" {
		return place{}, buildlog.BadCursor()
	}
	return place{cursor, time.UnixMilli(at)}, nil
}

func sizeOf(lines []buildlog.Line) (size int) {
	for _, line := range lines {
		size += line.Size()
	}
	return size
}

// Tail is the end of a log, for a page that shows it at once.
type Tail struct {
	Lines   []buildlog.Line
	Left    int  // lines before these
	Cut     bool // the log goes on after these: it is too long to be read to its end
	Running bool // more may come, also when the build has ended
}

// Tail answers the last lines of a build's log, at most n and of at most size bytes, by
// their Size.
func (c *Catalog) Tail(ctx context.Context, user, build string, n, size int) (Tail, error) {
	tail := Tail{Cut: true}
	cursor := ""
	for range maxTailPages {
		page, err := c.Log(ctx, user, build, cursor)
		if err != nil {
			return Tail{}, err
		}
		tail.Lines = append(tail.Lines, page.Items...)
		over := max(0, len(tail.Lines)-n)
		for held := sizeOf(tail.Lines[over:]); held > size; over++ {
			held -= tail.Lines[over].Size()
		}
		tail.Left += over
		tail.Lines = slices.Clone(tail.Lines[over:])
		if page.end {
			tail.Cut, tail.Running = false, !page.Done
			break
		}
		cursor = page.Cursor
	}
	return tail, nil
}
