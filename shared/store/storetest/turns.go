package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
	"runnerhub/shared/table"
)

// Turns is the rules of builds of a group that run one after the other, on any table. Many is how many of them wait for one.
func Turns(t *testing.T, open func(testing.TB) *Bench, many int) {
	for name, rule := range map[string]func(*line){
		"one after the other":              oneAfterTheOther,
		"every end passes the turn on":     everyEnd,
		"who waits can be ended":           whoWaitsEnds,
		"others do not wait":               othersDoNotWait,
		"who is held does not wait yet":    heldOnes,
		"the order of what follows":        orderOfTurns,
		"before one that has no slot yet":  beforeOneWithoutSlot,
		"what is learned later":            learnedLater,
		"a turn that was not passed on":    notPassedOn,
		"an entry of which no build knows": deadEntries,
		"many at once":                     manyAtOnce,
		"what a long line costs":           func(l *line) { longLine(l, many) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &line{T: t, Bench: open(t)}
			rule(l)
			l.Check(t)
		})
	}
}

// line makes builds of groups and has them run.
type line struct {
	*testing.T
	*Bench
	made int
}

func room() store.Limits { return store.Limits{Runner: 1000} }

func (l *line) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// build makes a build of a group; edit changes it before.
func (l *line) build(group string, edit func(*store.NewBuild)) store.Build {
	l.Helper()
	l.made++
	n := store.NewBuild{Change: fmt.Sprint(l.made), Build: store.Build{
		Build: ci.Build{
			ID: l.IDs.New(), Workspace: "w", App: "app", State: ci.Queued, Branch: "main", Commit: fmt.Sprint("c", l.made),
			Repository: "{repository}", StatusKey: "key", Steps: []ci.Step{}, CreatedAt: l.Clock.Now(),
		},
		Runner: "local", Refname: "main", TimeoutSeconds: 60, DueAt: l.Clock.Now().Add(time.Hour), Group: group, Queues: true,
	}}
	l.Clock.Add(time.Second)
	if edit != nil {
		edit(&n)
	}
	b, _, err := l.CreateBuild(l.Context(), n)
	l.must(err)
	return b
}

// admit gives slots to all builds that may have one, and answers their numbers.
func (l *line) admit() (numbers []int) {
	l.Helper()
	for {
		id := l.IDs.New()
		b, admitted, err := l.Admit(l.Context(), "local", room(), store.Attempt{ID: id, Ticket: "ticket" + id, DueAt: l.Clock.Now().Add(time.Minute)})
		l.must(err)
		if !admitted {
			slices.Sort(numbers)
			return numbers
		}
		numbers = append(numbers, b.Number)
	}
}

// expect admits, and compares.
func (l *line) expect(numbers ...int) {
	l.Helper()
	if got := l.admit(); !slices.Equal(got, numbers) {
		l.Errorf("admitted are %v, want %v", got, numbers)
	}
	l.Check(l.T)
}

func (l *line) end(id string, state ci.State) {
	l.Helper()
	_, _, err := l.ChangeBuild(l.Context(), id, func(b *store.Build) (bool, error) {
		if b.State.Final() {
			return false, nil
		}
		b.State = state
		return true, nil
	})
	l.must(err)
}

// reason is what a reader is told of a build.
func (l *line) reason(id string) string {
	l.Helper()
	b, err := l.Bench.Build(l.Context(), id)
	l.must(err)
	told := []store.Build{b}
	l.must(l.TellTurns(l.Context(), told))
	return told[0].Reason
}

func oneAfterTheOther(l *line) {
	one, two, three := l.build("g", nil), l.build("g", nil), l.build("g", nil)
	l.expect(1)
	l.expect()
	for _, waiting := range []store.Build{two, three} {
		if got := l.reason(waiting.ID); got != "waits for #1 of its concurrency group to end" {
			l.Errorf("#%d %s", waiting.Number, got)
		}
	}
	l.end(one.ID, ci.Successful)
	if got := l.reason(two.ID); got != store.WaitsForRunner {
		l.Errorf("#2 %s", got)
	}
	if got := l.reason(three.ID); !strings.HasPrefix(got, "waits for #2 ") {
		l.Errorf("#3 %s", got)
	}
	l.expect(2)
	l.end(two.ID, ci.Failed)
	l.end(two.ID, ci.Failed) // told twice
	l.expect(3)
	l.end(three.ID, ci.Successful)
	l.build("g", nil) // the group is free again
	l.expect(4)
}

func everyEnd(l *line) {
	var last store.Build
	states := []ci.State{ci.Successful, ci.Failed, ci.Stopped, ci.TimedOut, ci.Errored}
	for range states {
		l.build("g", nil)
	}
	for i, state := range states {
		l.expect(i + 1)
		page, err := l.Builds(l.Context(), "app", "", 100)
		l.must(err)
		last = page.Items[len(page.Items)-1-i]
		if state == ci.Successful || state == ci.Failed || state == ci.TimedOut {
			l.end(last.ID, ci.Running)
		}
		l.end(last.ID, state)
	}
	l.expect()
}

// One that waits for its turn is ended, and so is the one whose turn it is before it has a slot.
func whoWaitsEnds(l *line) {
	one, two, three := l.build("g", nil), l.build("g", nil), l.build("g", nil)
	l.build("g", nil)
	l.end(two.ID, ci.Stopped)
	l.Check(l.T)
	l.expect(1)
	l.end(one.ID, ci.Successful)
	l.end(three.ID, ci.Stopped)
	l.expect(4)
}

func othersDoNotWait(l *line) {
	l.build("g", nil)
	l.build("g", nil)
	l.build("another", nil)
	l.build("g", func(n *store.NewBuild) { n.Build.App = "app2" })
	l.build("g", func(n *store.NewBuild) { n.Build.Queues = false })
	l.build("g", func(n *store.NewBuild) { n.Build.Queues, n.Build.Supersedes = false, true })
	l.build("", func(n *store.NewBuild) { n.Build.Queues = true })
	l.build("g", func(n *store.NewBuild) { n.Build.State, n.Build.DueAt = ci.Errored, time.Time{} })
	l.expect(1, 1, 3, 4, 5, 6) // the first of app2, and all but #2 of app
}

// A build that is held is no part of its group until it is approved.
func heldOnes(l *line) {
	held := func(n *store.NewBuild) { n.Build.Held, n.Build.PullRequest = true, 7 }
	first, second := l.build("g", held), l.build("g", held)
	l.expect()
	free := l.build("g", nil)
	l.expect(3)
	for _, b := range []store.Build{second, first} {
		_, _, err := l.ChangeBuild(l.Context(), b.ID, func(b *store.Build) (bool, error) {
			approved := b.Held
			b.Held, b.ApprovedAt = false, l.Clock.Now()
			return approved, nil
		})
		l.must(err)
		l.Check(l.T)
		l.end(free.ID, ci.Successful)
		l.expect(b.Number)
		free = b
	}
}

// follows has a build move its branch from the commit of another.
func follows(commit string, ahead *store.Build) func(*store.NewBuild) {
	return func(n *store.NewBuild) {
		if n.Build.Old = commit; ahead != nil {
			n.Ahead = ahead.ID
		}
	}
}

// Builds that come late are put before the one that follows them, in whatever order they come.
func orderOfTurns(l *line) {
	l.build("g", nil)
	l.expect(1)
	last := l.build("g", follows("c4", nil))                                           // #2
	other := l.build("g", nil)                                                         // #3 has nothing to do with them
	middle := l.build("g", func(n *store.NewBuild) { follows("c5", &last)(n) })        // #4
	first := l.build("g", func(n *store.NewBuild) { follows("", &middle)(n) })         // #5
	second := l.build("g", func(n *store.NewBuild) { follows("nothing", &middle)(n) }) // #6 behind #5, before #4
	gone := l.build("g", func(n *store.NewBuild) { n.Ahead = "nobody" })               // #7 at the end
	for follower, of := range map[string]store.Build{last.ID: middle, middle.ID: first} {
		found, err := l.Following(l.Context(), of)
		if err != nil || len(found) != 1 || found[0].ID != follower {
			l.Errorf("#%d is followed by %+v, %v", of.Number, found, err)
		}
	}
	if found, err := l.Following(l.Context(), store.Build{Build: ci.Build{App: "app"}, Group: "g"}); err != nil || len(found) != 0 {
		l.Errorf("a build without a commit is followed by %+v, %v", found, err)
	}
	running := 1
	for _, next := range []store.Build{first, second, middle, last, other, gone} {
		page, err := l.Builds(l.Context(), "app", "", 100)
		l.must(err)
		l.end(page.Items[len(page.Items)-running].ID, ci.Successful)
		running = next.Number
		l.expect(running)
	}
	// Put before each other for ever, places do not get too long for a key.
	front := l.build("g", nil)
	for range 60 {
		ahead := front
		front = l.build("g", func(n *store.NewBuild) { n.Ahead = ahead.ID })
	}
}

// What is learned of a build while it waits is known to those that come after it. What has a slot follows nobody.
func learnedLater(l *line) {
	learn := func(b store.Build, edit func(*store.Build)) {
		l.Helper()
		_, _, err := l.ChangeBuild(l.Context(), b.ID, func(b *store.Build) (bool, error) { edit(b); return true, nil })
		l.must(err)
		l.Check(l.T)
	}
	at := l.Clock.Now()
	older := store.Build{Build: ci.Build{App: "app", Commit: "before", PullRequest: 7}, Group: "g", Revised: at}
	following := func(want ...string) {
		l.Helper()
		found, err := l.Following(l.Context(), older)
		var ids []string
		for _, b := range found {
			ids = append(ids, b.ID)
		}
		if err != nil || !slices.Equal(ids, want) {
			l.Errorf("it is followed by %v, %v; want %v", ids, err, want)
		}
	}
	pull := func(n *store.NewBuild) { n.Build.PullRequest, n.Build.Revised = 7, at }
	turn, waits, other := l.build("g", pull), l.build("g", pull), l.build("g", func(n *store.NewBuild) {
		n.Build.PullRequest, n.Build.Revised = 8, at.Add(time.Hour)
	})
	following()
	learn(turn, func(b *store.Build) { b.Old = "before" })
	following(turn.ID)
	learn(waits, func(b *store.Build) { b.Revised = at.Add(time.Minute) })
	following(turn.ID, waits.ID)
	learn(other, func(b *store.Build) { b.Old = "before" })
	following(turn.ID, waits.ID, other.ID)
	older.Revised = time.Time{}
	following(turn.ID, other.ID)
	l.expect(1)
	learn(turn, func(b *store.Build) { b.Revised = at.Add(time.Minute) })
	following(other.ID)
	l.end(turn.ID, ci.Successful)
	following(other.ID)
	older.Revised = at
	following(waits.ID, other.ID)
	l.expect(2)
}

// What waits for a runner gives its turn to one that it follows; what has a slot does not.
func beforeOneWithoutSlot(l *line) {
	newer := l.build("g", follows("c2", nil))
	older := l.build("g", func(n *store.NewBuild) { n.Ahead = newer.ID })
	if got := l.reason(newer.ID); got != "waits for #2 of its concurrency group to end" {
		l.Errorf("#1 %s", got)
	}
	l.build("g", nil)
	oldest := l.build("g", func(n *store.NewBuild) { n.Ahead = older.ID })
	l.expect(4)
	late := l.build("g", func(n *store.NewBuild) { n.Ahead = oldest.ID })
	for i, next := range []store.Build{older, newer} {
		l.end([]string{oldest.ID, older.ID}[i], ci.Successful)
		l.expect(next.Number)
	}
	l.end(newer.ID, ci.Successful)
	l.expect(3)
	if got := l.reason(late.ID); !strings.HasPrefix(got, "waits for #3") {
		l.Errorf("#5 %s", got)
	}
}

// turns answers the due entries of turns.
func (l *line) turns() []store.Due {
	l.Helper()
	l.Clock.Add(time.Hour)
	due, err := l.DueBefore(l.Context(), store.DueTurn, l.Clock.Now(), 10)
	l.must(err)
	return due
}

// A build that ended or vanished, by a program that knew nothing of turns or an operator, holds nobody up.
func notPassedOn(l *line) {
	one, _ := l.build("g", nil), l.build("g", nil)
	three := l.build("g", nil)
	l.expect(1)
	due := l.turns()
	if len(due) != 1 {
		l.Fatalf("%d turns are due", len(due))
	}
	if passed, err := l.MendTurn(l.Context(), due[0]); passed || err != nil {
		l.Errorf("a turn that somebody has is passed on: %v", err)
	}
	if passed, err := l.MendTurn(l.Context(), due[0]); passed || err != nil {
		l.Errorf("it is looked at twice: %v, %v", passed, err)
	}
	l.expect()
	// It ends, and its turn and slot stay.
	one.State, one.Attempt = ci.Stopped, ""
	l.overwrite(one)
	if passed, err := l.MendTurn(l.Context(), l.turns()[0]); !passed || err != nil {
		l.Errorf("the turn of a build that ended is not passed on: %v", err)
	}
	if got := l.admit(); !slices.Equal(got, []int{2}) {
		l.Errorf("admitted are %v", got)
	}
	page, err := l.Builds(l.Context(), "app", "", 100)
	l.must(err)
	k := table.Key{Partition: "BUILD#" + page.Items[1].ID, Sort: "BUILD"}
	l.must(l.Table.Transact(l.Context(), table.Delete(k, table.Condition{})))
	if passed, err := l.MendTurn(l.Context(), l.turns()[0]); !passed || err != nil {
		l.Errorf("the turn of a build that vanished is not passed on: %v", err)
	}
	if got := l.admit(); !slices.Equal(got, []int{3}) {
		l.Errorf("admitted are %v", got)
	}
	three.State, three.Attempt = ci.Stopped, ""
	l.overwrite(three)
	if passed, err := l.MendTurn(l.Context(), l.turns()[0]); !passed || err != nil {
		l.Errorf("the last turn is not ended: %v", err)
	}
	l.build("g", nil)
	if got := l.admit(); !slices.Equal(got, []int{4}) {
		l.Errorf("admitted are %v", got)
	}
	l.clear()
}

// overwrite stores a record as a program without rules would.
func (l *line) overwrite(b store.Build) {
	l.Helper()
	body, err := json.Marshal(b)
	l.must(err)
	k := table.Key{Partition: "BUILD#" + b.ID, Sort: "BUILD"}
	l.must(l.Table.Transact(l.Context(), table.Put(table.Item{Key: k, Body: body}, table.Condition{})))
}

// clear removes everything: what a rule broke on purpose agrees with nothing.
func (l *line) clear() {
	l.Helper()
	for k := range l.Dump(l.T) {
		l.must(l.Table.Transact(l.Context(), table.Delete(k, table.Condition{})))
	}
}

func deadEntries(l *line) {
	one := l.build("g", nil)
	var dead []store.Build
	for range 3 {
		dead = append(dead, l.build("g", nil))
	}
	l.build("g", nil)
	for i, b := range dead {
		if b.State = ci.Errored; i == 2 {
			b.App, b.State = "", ci.Stopped
		}
		l.overwrite(b)
	}
	l.admit()
	l.end(one.ID, ci.Successful)
	if got := l.admit(); !slices.Equal(got, []int{5}) {
		l.Errorf("admitted are %v", got)
	}
	l.clear()
}

// Builds are made, admitted, ended and stopped by many at once: of no group are two ever at work.
func manyAtOnce(l *line) {
	const groups, each = 3, 6
	ctx, cancel := context.WithTimeout(l.Context(), 3*time.Minute)
	defer cancel()
	working, done := map[string]string{}, map[string]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for g := range groups {
		all.Go(func() {
			group := fmt.Sprint("g", g)
			for range each {
				mu.Lock()
				l.made++
				change := fmt.Sprint(l.made)
				mu.Unlock()
				_, _, err := l.CreateBuild(ctx, store.NewBuild{Change: change, Build: store.Build{
					Build:  ci.Build{ID: l.IDs.New(), Workspace: "w", App: "app", State: ci.Queued, Commit: change, Repository: "{r}", StatusKey: "k", CreatedAt: l.Clock.Now()},
					Runner: "local", Group: group, Queues: true, DueAt: l.Clock.Now().Add(time.Hour),
				}})
				if err != nil && !busy(err) {
					l.Error(err)
				}
			}
		})
	}
	finish := func(b store.Build) {
		mu.Lock()
		delete(working, b.Group)
		done[b.ID] = true
		mu.Unlock()
		for ctx.Err() == nil {
			_, _, err := l.ChangeBuild(ctx, b.ID, func(b *store.Build) (bool, error) {
				if b.State.Final() {
					return false, nil
				}
				b.State = ci.Stopped
				return true, nil
			})
			if err == nil {
				return
			}
			if !busy(err) {
				l.Error(err)
				return
			}
		}
	}
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				left := groups*each - len(done)
				mu.Unlock()
				if left == 0 {
					return
				}
				id := l.IDs.New()
				b, admitted, err := l.Admit(ctx, "local", store.Limits{Runner: 10}, store.Attempt{ID: id, Ticket: "t" + id, DueAt: l.Clock.Now().Add(time.Minute)})
				if err != nil && !busy(err) {
					l.Error(err)
					return
				}
				if err != nil || !admitted {
					continue
				}
				mu.Lock()
				if other := working[b.Group]; other != "" {
					l.Errorf("%s and %s of group %s are at work at once", other, b.ID, b.Group)
				}
				working[b.Group] = b.ID
				mu.Unlock()
				finish(b)
			}
		})
	}
	all.Wait()
	if len(done) != groups*each {
		l.Errorf("%d builds ran, of %d", len(done), groups*each)
	}
}

// busy reports whether an error says no more than that others were faster, forty times.
func busy(err error) bool { return fault.Is(err, fault.Conflict) }

// With a long line, making a build, admitting one and ending one read and write as much as with a short one.
func longLine(l *line, many int) {
	var reads, writes int
	l.Table.OnGet(func(table.Key) { reads++ })
	l.Table.OnTransact(func(_ int, w []table.Write, do func() error) error {
		writes = max(writes, len(w))
		return do()
	})
	current := l.build("g", nil)
	for range many {
		l.build("g", nil)
	}
	before := reads
	last := l.build("g", func(n *store.NewBuild) { n.Build.Old = "c2" })
	if n := reads - before; n > 8 {
		l.Errorf("a build that is the last of %d costs %d reads", many, n)
	}
	if found, err := l.Following(l.Context(), store.Build{Build: ci.Build{App: "app", Commit: "c2"}, Group: "g"}); err != nil || len(found) != 1 || found[0].ID != last.ID {
		l.Errorf("%+v, %v", found, err)
	}
	for range 3 {
		before = reads
		l.end(current.ID, ci.Stopped)
		b, admitted, err := l.Admit(l.Context(), "local", room(), store.Attempt{ID: l.IDs.New(), Ticket: l.IDs.New(), DueAt: l.Clock.Now()})
		if err != nil || !admitted || b.Number != current.Number+1 {
			l.Fatalf("#%d: %v, %v", b.Number, admitted, err)
		}
		if n := reads - before; n > 12 {
			l.Errorf("the end of one and the beginning of the next cost %d reads", n)
		}
		current = b
	}
	if writes > 20 {
		l.Errorf("a transaction has %d writes", writes)
	}
}
