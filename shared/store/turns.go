package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// WaitsForRunner is the reason of a build that stands in the line before its runner.
const WaitsForRunner = "waits for a runner"

const (
	// waitsForTurn is the stored reason of a build that waits for its turn. Whose turn it is changes with
	// each build of the group that ends; TellTurns says it to who reads.
	waitsForTurn = "waits for its turn in its concurrency group"
	// turnCheck is after how long the sweep looks whether the build whose turn it is still is there.
	turnCheck = 5 * time.Minute
	// lastInLine is how many builds at the end of a group's line are looked at for those that follow a new one.
	lastInLine = 50
	// maxPlace bounds what putting builds in front of each other makes of a place, in bytes of a key.
	maxPlace = 200
)

// turn is the one build of a group that is not waiting for its turn: it stands in the line before its runner, or has a slot. The item is there as long as
// there is such a build, and is written in the transaction that makes it another one, so no two have the turn at once.
type turn struct {
	queued
	App   string    `json:"app"`
	Group string    `json:"group"` // as in keys
	DueAt time.Time `json:"due_at"`
}

func (t turn) key() table.Key    { return key("TURN#"+t.App, t.Group+"0") }
func (t turn) reference() string { return t.App + "/" + t.Group }

// queued is a build of a group, with what says which one comes before it, as in Build.
type queued struct {
	Build       string    `json:"build"`
	Number      int       `json:"number"`
	Old         string    `json:"old,omitempty"`
	PullRequest int       `json:"pull_request,omitempty"`
	Revised     time.Time `json:"revised,omitzero"`
	Place       string    `json:"place,omitempty"`
}

func queuedOf(b Build) queued {
	return queued{b.ID, b.Number, b.Old, b.PullRequest, b.Revised, b.Place}
}

// follows reports whether the build of an entry came after b, as far as the entry says.
func (q queued) follows(b Build) bool {
	return q.Old != "" && q.Old == b.Commit ||
		b.PullRequest != 0 && q.PullRequest == b.PullRequest && !b.Revised.IsZero() && q.Revised.After(b.Revised)
}

func turnKey(b Build) table.Key { return turn{App: b.App, Group: groupOf(b.Group)}.key() }

func queuedKey(b Build) table.Key {
	return key("TURN#"+b.App, groupOf(b.Group)+"1#"+b.Place)
}

// takesTurns reports whether a build has the turn of its group, or waits for it.
func (b Build) takesTurns() bool { return b.Queues && b.Group != "" && !b.State.Final() && !b.Held }

// lastPlace is the place behind all builds with smaller numbers.
func lastPlace(number int) string { return fmt.Sprintf("%010d", number) }

// placeBefore is a place right before another one, and behind everything that is before that already. Where builds were put in front of each other so
// often that the key would get too long, it is the last place.
func placeBefore(place string, number int) string {
	cut := strings.LastIndexByte(place, '~') + 1
	var last int
	if _, err := fmt.Sscanf(place[cut:], "%d", &last); err != nil || last < 1 || len(place) > maxPlace {
		return lastPlace(number)
	}
	return place[:cut] + lastPlace(last-1) + "~" + lastPlace(number)
}

// giveTurn makes it the turn of b, which then stands in the line before its runner. Before is the group's item as it is.
func (s *Store) giveTurn(c *change, b *Build, before turn, version int64) {
	b.Place, b.Reason = "", WaitsForRunner
	now := turn{App: b.App, Group: groupOf(b.Group), queued: queuedOf(*b), DueAt: s.now().Add(turnCheck)}
	c.put(now.key(), now, unlessVersion(version))
	c.due(DueTurn, now.reference(), before.DueAt, now.DueAt)
}

// wait gives b its place among the builds that wait for their turn.
func (c *change) wait(b *Build, place string) {
	b.Place, b.Reason = place, waitsForTurn
	c.put(queuedKey(*b), queuedOf(*b), table.Absent())
}

// join makes it the turn of a build, if it is that of no other, or has it wait: behind all others, or before the build
// ahead names, if that waits still.
func (s *Store) join(ctx context.Context, c *change, b *Build, ahead string) error {
	now, version, err := find[turn](ctx, s, turnKey(*b), "turn")
	if err != nil {
		return err
	}
	if version == 0 {
		s.giveTurn(c, b, now, 0)
		return nil
	}
	var other Build
	if ahead != "" {
		if other, _, err = find[Build](ctx, s, buildKey(ahead), "build"); err != nil {
			return err
		}
	}
	same := other.takesTurns() && other.App == b.App && other.Group == b.Group
	switch {
	case same && other.Place != "":
		c.wait(b, placeBefore(other.Place, b.Number))
	case same && now.Build == other.ID && other.Attempt == "":
		return s.yield(ctx, c, b, other.ID, now, version)
	default:
		c.wait(b, lastPlace(b.Number))
	}
	c.check(now.key(), table.VersionIs(version)) // whose turn it is wakes the next one, which it has to see
	return nil
}

// yield makes it the turn of b in the place of a build that waits for a runner, which waits for its turn again, before all others.
func (s *Store) yield(ctx context.Context, c *change, b *Build, id string, now turn, version int64) error {
	other, err := s.Build(ctx, id)
	if err != nil {
		return err
	}
	place := lastPlace(other.Number)
	if first, found, err := s.nextOf(ctx, now); err != nil {
		return err
	} else if found {
		place = placeBefore(first.Place, other.Number)
	}
	c.delete(waitingKey(other), table.Condition{})
	c.wait(&other, place)
	c.put(buildKey(other.ID), other, table.VersionIs(other.Version))
	s.giveTurn(c, b, now, version)
	return nil
}

// retell has the group know what was learned of a build that no runner has yet.
func (s *Store) retell(ctx context.Context, c *change, b Build) error {
	switch {
	case b.Place != "":
		c.put(queuedKey(b), queuedOf(b), table.Condition{})
		return nil
	case b.Attempt != "":
		return nil // nothing is put before it any more
	}
	now, version, err := find[turn](ctx, s, turnKey(b), "turn")
	if err != nil || now.Build != b.ID {
		return err
	}
	now.queued = queuedOf(b)
	c.put(now.key(), now, table.VersionIs(version))
	return nil
}

// leave takes a build that ends out of its group's line, or passes its turn on.
func (s *Store) leave(ctx context.Context, c *change, b *Build) error {
	if b.Place != "" {
		c.delete(queuedKey(*b), table.Condition{})
		b.Place = ""
		return nil
	}
	now, version, err := find[turn](ctx, s, turnKey(*b), "turn")
	if err != nil || now.Build != b.ID {
		return err
	}
	return s.passTurn(ctx, c, now, version)
}

// passTurn makes it the turn of the next build of a group, or of none.
func (s *Store) passTurn(ctx context.Context, c *change, now turn, version int64) error {
	next, found, err := s.nextOf(ctx, now)
	if err != nil {
		return err
	}
	if !found {
		c.delete(now.key(), table.VersionIs(version))
		c.due(DueTurn, now.reference(), now.DueAt, time.Time{})
		return nil
	}
	c.delete(queuedKey(next), table.Condition{})
	s.giveTurn(c, &next, now, version)
	c.put(buildKey(next.ID), next, table.VersionIs(next.Version))
	c.put(waitingKey(next), waiting{next.ID, next.Workspace, next.WaitsSince()}, table.Absent())
	return nil
}

// nextOf answers the first build that waits for its turn. Entries of which no build knows are removed.
func (s *Store) nextOf(ctx context.Context, now turn) (Build, bool, error) {
	from, before := table.Prefix(now.Group + "1#")
	for {
		entry, found, err := first[queued](ctx, s, table.Query{Partition: "TURN#" + now.App, From: from, Before: before}, "builds that wait for their turn")
		if err != nil || !found {
			return Build{}, false, err
		}
		b, err := s.Build(ctx, entry.Build)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return Build{}, false, err
		}
		if err == nil && b.takesTurns() && b.Place != "" {
			return b, true, nil
		}
		var c change
		c.delete(key("TURN#"+now.App, now.Group+"1#"+entry.Place), table.Condition{})
		if err := s.settle(ctx, &c); err != nil {
			return Build{}, false, err
		}
	}
}

// Following lists the builds of the group of b that no runner has yet, and that follow b: their old commit is its
// commit, or the same pull request became what they build later. They come in the order of their turns; of a long line, the end is looked at.
func (s *Store) Following(ctx context.Context, b Build) ([]Build, error) {
	now, version, err := find[turn](ctx, s, turnKey(b), "turn")
	if err != nil || version == 0 {
		return nil, err
	}
	from, before := table.Prefix(now.Group + "1#")
	page, err := list[queued](ctx, s, table.Query{Partition: "TURN#" + b.App, From: from, Before: before, Reverse: true, Limit: lastInLine}, "builds that wait for their turn")
	if err != nil {
		return nil, err
	}
	var keys []table.Key
	line := append(page.Items, now.queued) // the last first
	for i := range line {
		if entry := line[len(line)-1-i]; entry.follows(b) {
			keys = append(keys, buildKey(entry.Build))
		}
	}
	found, err := batch[Build](ctx, s, keys, "builds")
	out := found[:0]
	for _, x := range found {
		if x.takesTurns() && x.Attempt == "" {
			out = append(out, x)
		}
	}
	return out, err
}

// TellTurns says, in the reason of each of up to 100 builds that waits for its turn, whose turn it is.
func (s *Store) TellTurns(ctx context.Context, builds []Build) error {
	var keys []table.Key
	asked := map[table.Key]bool{}
	for _, b := range builds {
		if k := turnKey(b); b.Place != "" && !asked[k] {
			asked[k] = true
			keys = append(keys, k)
		}
	}
	turns, err := batch[turn](ctx, s, keys, "turns")
	if err != nil {
		return err
	}
	for _, now := range turns {
		for i, b := range builds {
			if b.Place != "" && turnKey(b) == now.key() && now.Build != b.ID {
				builds[i].Reason = fmt.Sprintf("waits for #%d of its concurrency group to end", now.Number)
			}
		}
	}
	return nil
}

// MendTurn looks at whose turn a due entry is about. When that build ended without passing it on, or is not there any
// more, it passes it on: then passed is true.
func (s *Store) MendTurn(ctx context.Context, d Due) (passed bool, err error) {
	app, group, _ := strings.Cut(d.Reference, "/")
	err = s.again(ctx, func() error {
		now, version, err := find[turn](ctx, s, turn{App: app, Group: group}.key(), "turn")
		if err != nil {
			return err
		}
		if version == 0 || !now.DueAt.Equal(d.At) {
			return s.DropDue(ctx, d) // somebody was here, perhaps an earlier run of this
		}
		var c change
		b, _, err := find[Build](ctx, s, buildKey(now.Build), "build")
		if err != nil {
			return err
		}
		if b.takesTurns() && b.Place == "" {
			next := now
			next.DueAt = s.now().Add(turnCheck)
			c.put(now.key(), next, table.VersionIs(version))
			c.due(DueTurn, now.reference(), now.DueAt, next.DueAt)
			return s.commit(ctx, &c)
		}
		passed = true
		if err := s.passTurn(ctx, &c, now, version); err != nil {
			return err
		}
		return s.commit(ctx, &c)
	})
	return passed, err
}
