package store_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/store"
	"runnerhub/shared/store/storetest"
	"runnerhub/shared/table"
)

func build(b *storetest.Bench, workspace, app, commit string) store.Build {
	id := b.IDs.New()
	return store.Build{
		Build: ci.Build{
			ID: id, Workspace: workspace, App: app, State: ci.Queued, Commit: commit, Branch: "main",
			Repository: "{repository}", StatusKey: "key-" + app, Steps: []ci.Step{}, CreatedAt: b.Clock.Now(),
		},
		Runner: "local", Refname: "main", TimeoutSeconds: 60, DueAt: b.Clock.Now().Add(time.Minute),
	}
}

func create(t testing.TB, b *storetest.Bench, n store.NewBuild) store.Build {
	t.Helper()
	made, created, err := b.CreateBuild(t.Context(), n)
	if err != nil || !created {
		t.Fatalf("creating %s: %v %v", n.Build.ID, created, err)
	}
	return made
}

func end(t testing.TB, b *storetest.Bench, id string, state ci.State) bool {
	t.Helper()
	_, changed, err := b.ChangeBuild(t.Context(), id, func(b *store.Build) (bool, error) {
		if b.State.Final() {
			return false, nil
		}
		b.State = state
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func attempt(id string) store.Attempt {
	return store.Attempt{ID: "attempt-" + id, Ticket: "ticket-" + id, DueAt: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
}

// all32 runs f 32 times at once.
func all32(f func(i int)) {
	var group sync.WaitGroup
	begin := make(chan struct{})
	for i := range 32 {
		group.Go(func() {
			<-begin
			f(i)
		})
	}
	close(begin)
	group.Wait()
}

func TestOneChangeOneBuild(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	var mu sync.Mutex
	seen, made := map[string]bool{}, 0
	all32(func(int) {
		got, created, err := b.CreateBuild(t.Context(), store.NewBuild{Build: build(b, "w", "app", "c"), Change: "push|main|a|b"})
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		seen[got.ID] = true
		if created {
			made++
		}
		if got.Number != 1 {
			t.Errorf("build #%d", got.Number)
		}
	})
	if len(seen) != 1 || made != 1 {
		t.Errorf("%d builds, %d made", len(seen), made)
	}
	found, err := b.BuildOf(t.Context(), "app", "push|main|a|b")
	if err != nil || !seen[found.ID] {
		t.Errorf("the change has build %s, %v", found.ID, err)
	}
	if _, err := b.BuildOf(t.Context(), "other", "push|main|a|b"); !fault.Is(err, fault.NotFound) {
		t.Errorf("another app's build of the change: %v", err)
	}
	b.Check(t)
}

func TestNumbersHaveNoGaps(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	var mu sync.Mutex
	var numbers []int
	all32(func(i int) {
		n := store.NewBuild{Build: build(b, "w", "app", "c"), Change: fmt.Sprint(i)}
		if i%2 == 0 {
			n.Change = "" // by hand
		}
		got, created, err := b.CreateBuild(t.Context(), n)
		if err != nil || !created {
			t.Errorf("%v %v", created, err)
		}
		mu.Lock()
		defer mu.Unlock()
		numbers = append(numbers, got.Number)
	})
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != i+1 {
			t.Fatalf("numbers %v", numbers)
		}
	}
	b.Check(t)

	var listed []int
	for cursor, more := "", true; more; more = cursor != "" {
		page, err := b.Builds(t.Context(), "app", cursor, 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range page.Items {
			listed = append(listed, x.Number)
		}
		cursor = page.Cursor
	}
	slices.Reverse(numbers)
	if !slices.Equal(listed, numbers) {
		t.Errorf("listed %v, want %v", listed, numbers)
	}
}

func TestAdmitKeepsLimits(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	for i := range 20 {
		create(t, b, store.NewBuild{Build: build(b, fmt.Sprintf("w%d", i%3), "app", "c"), Change: fmt.Sprint(i)})
		b.Clock.Add(time.Second)
	}
	limits := store.Limits{Runner: 5, PerWorkspace: 2}
	var mu sync.Mutex
	atWork := map[string]string{}
	// Each of 32 admits and, when it got one, ends one: the number at work, counted
	// from before an end to after an admission, never passes the limits.
	all32(func(i int) {
		got, admitted, err := b.Admit(t.Context(), "local", limits, attempt(fmt.Sprint(i)))
		if err != nil {
			t.Error(err)
			return
		}
		if !admitted {
			return
		}
		mu.Lock()
		if _, twice := atWork[got.ID]; twice {
			t.Errorf("%s admitted twice", got.ID)
		}
		atWork[got.ID] = got.Workspace
		perWorkspace := map[string]int{}
		for _, w := range atWork {
			perWorkspace[w]++
		}
		if len(atWork) > limits.Runner || slices.Max(slices.Collect(maps.Values(perWorkspace))) > limits.PerWorkspace {
			t.Errorf("at work: %v", atWork)
		}
		if i%4 == 0 {
			delete(atWork, got.ID)
			mu.Unlock()
			end(t, b, got.ID, ci.Failed)
			return
		}
		mu.Unlock()
	})
	b.Check(t)
	ids, err := b.Admitted(t.Context(), "local")
	if err != nil || len(ids) != len(atWork) {
		t.Errorf("slots: %v, at work: %v, %v", ids, atWork, err)
	}
	// Everybody at once ends the same build: its slot is freed once, one more fits.
	if len(ids) == 0 {
		t.Fatal("nothing at work")
	}
	var freed sync.Map
	all32(func(i int) { freed.Store(i, end(t, b, ids[0], ci.Successful)) })
	times := 0
	freed.Range(func(_, changed any) bool {
		if changed.(bool) {
			times++
		}
		return true
	})
	if times != 1 {
		t.Errorf("ended %d times", times)
	}
	b.Check(t)
}

func TestAdmitIsFair(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	for i := range 100 {
		create(t, b, store.NewBuild{Build: build(b, "busy", "app", "c"), Change: fmt.Sprint(i)})
	}
	b.Clock.Add(time.Hour)
	quiet := create(t, b, store.NewBuild{Build: build(b, "quiet", "app2", "c"), Change: "1"})
	limits := store.Limits{Runner: 3}
	admit := func(i int) store.Build {
		t.Helper()
		got, admitted, err := b.Admit(t.Context(), "local", limits, attempt(fmt.Sprint(i)))
		if err != nil || !admitted {
			t.Fatalf("admitting: %v %v", admitted, err)
		}
		return got
	}
	first := admit(1)
	if first.Workspace != "busy" {
		t.Errorf("of workspaces without a build at work, %s was first, which waits for an hour less", first.Workspace)
	}
	if got := admit(2); got.ID != quiet.ID {
		t.Errorf("second was %s of %s", got.ID, got.Workspace)
	}
	admit(3)
	if got, admitted, err := b.Admit(t.Context(), "local", limits, attempt("4")); admitted || err != nil {
		t.Errorf("a fourth of three: %s, %v", got.ID, err)
	}
	if waits, err := b.Waits(t.Context(), "local"); !waits || err != nil {
		t.Errorf("waits: %v, %v", waits, err)
	}
	if waits, err := b.Waits(t.Context(), "other"); waits || err != nil {
		t.Errorf("before another runner waits: %v, %v", waits, err)
	}
	b.Check(t)
}

// The build that was next may end, or be admitted by somebody else, between the
// reading of the line and the reading of the build.
func TestAdmitOfABuildThatEnds(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	gone := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "1"})
	b.Clock.Add(time.Second)
	next := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "2"})
	b.Table.OnGet(func(k table.Key) {
		if k.Partition == "BUILD#"+gone.ID {
			b.Table.OnGet(nil)
			end(t, b, gone.ID, ci.Stopped)
		}
	})
	got, admitted, err := b.Admit(t.Context(), "local", store.Limits{Runner: 1}, attempt("1"))
	if err != nil || !admitted || got.ID != next.ID {
		t.Errorf("admitted %s (%v, %v), want %s", got.ID, admitted, err, next.ID)
	}
	b.Check(t)
}

func TestStatesNeverGoBack(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	made := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "1"})
	move := func(to ci.State) error {
		_, _, err := b.ChangeBuild(t.Context(), made.ID, func(b *store.Build) (bool, error) {
			b.State = to
			return true, nil
		})
		return err
	}
	if err := move(ci.Running); err != nil {
		t.Fatal(err)
	}
	if err := move(ci.Starting); !fault.Is(err, fault.Conflict) {
		t.Errorf("RUNNING to STARTING: %v", err)
	}
	b.Clock.Add(time.Minute)
	if err := move(ci.Failed); err != nil {
		t.Fatal(err)
	}
	b.Clock.Add(time.Minute)
	for _, late := range []ci.State{ci.Queued, ci.Running, ci.Successful, ci.Stopped} {
		if err := move(late); !fault.Is(err, fault.Conflict) {
			t.Errorf("FAILED to %s: %v", late, err)
		}
	}
	got, err := b.Build(t.Context(), made.ID)
	if err != nil || got.State != ci.Failed || !got.FinishedAt.Equal(made.CreatedAt.Add(time.Minute)) {
		t.Errorf("the build is %s, finished at %s, %v", got.State, got.FinishedAt, err)
	}
	b.Check(t)
}

func TestTicketsDie(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	made := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "1"})
	if _, admitted, err := b.Admit(t.Context(), "local", store.Limits{Runner: 1}, attempt("1")); !admitted || err != nil {
		t.Fatal(admitted, err)
	}
	knows := func(ticket string, want bool) {
		t.Helper()
		got, err := b.BuildOfTicket(t.Context(), ticket)
		if want && (err != nil || got.ID != made.ID) || !want && !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %s, %v", ticket, got.ID, err)
		}
	}
	knows("ticket-1", true)
	if _, _, err := b.ChangeBuild(t.Context(), made.ID, func(x *store.Build) (bool, error) {
		x.Begin(attempt("2"), b.Clock.Now())
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	knows("ticket-1", false)
	knows("ticket-2", true)
	b.Check(t)
	end(t, b, made.ID, ci.Successful)
	knows("ticket-2", false)
	b.Check(t)
}

func TestNewestBuildSpeaks(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	older := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "1"})
	status := func() store.Status {
		t.Helper()
		st, err := b.Status(t.Context(), store.StatusOf(older))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	if st := status(); st.Build != older.ID || st.State != ci.StatusInProgress || st.DueAt.IsZero() || st.Settled() {
		t.Errorf("%+v", st)
	}
	// Posted, and found impossible later: a new build begins anew.
	if _, _, err := b.ChangeStatus(t.Context(), store.StatusOf(older), func(st *store.Status) bool {
		st.Ended, st.Tries = "no such commit", 4
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if st := status(); !st.Settled() || !st.DueAt.IsZero() {
		t.Errorf("ended: %+v", st)
	}
	newer := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "2"})
	before := status()
	if before.Build != newer.ID || before.Ended != "" || before.Tries != 0 || before.Settled() {
		t.Errorf("after a newer build: %+v", before)
	}
	end(t, b, older.ID, ci.Failed)
	if after := status(); after.Revision != before.Revision || after.State != ci.StatusInProgress {
		t.Errorf("the end of an older build made it %+v", after)
	}
	end(t, b, newer.ID, ci.TimedOut)
	if after := status(); after.State != ci.StatusFailed || after.Revision != before.Revision+1 {
		t.Errorf("the end of the newest build made it %+v", after)
	}
	b.Check(t)
}

func TestOnlyOneTakesAState(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	put := func(hash string) {
		t.Helper()
		if err := b.PutOAuthState(t.Context(), hash, store.OAuthState{Verifier: "v", ExpiresAt: b.Clock.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	put("hash")
	var took sync.Map
	all32(func(i int) {
		if _, err := b.TakeOAuthState(t.Context(), "hash"); err == nil {
			took.Store(i, true)
		} else if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	})
	if n := len(maps.Collect(took.Range)); n != 1 {
		t.Errorf("%d took it", n)
	}
	put("late")
	b.Clock.Add(time.Minute)
	if _, err := b.TakeOAuthState(t.Context(), "late"); !fault.Is(err, fault.NotFound) {
		t.Errorf("an expired state: %v", err)
	}
	// Whether it was used is not known: then it was.
	put("lost")
	b.Clock.Add(-time.Minute)
	b.Table.OnTransact(loseFrom(1, 1))
	if _, err := b.TakeOAuthState(t.Context(), "lost"); !fault.Is(err, fault.Unknown) {
		t.Errorf("a lost answer: %v", err)
	}
}

func TestTheFirstChoiceStays(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	reserve := func(app, repository string) string {
		id, err := b.ReserveHook(t.Context(), app, repository)
		if err != nil {
			t.Error(err)
		}
		return id
	}
	var chosen sync.Map
	all32(func(int) { chosen.Store(reserve("app", "{r}"), true) })
	if n := len(maps.Collect(chosen.Range)); n != 1 {
		t.Errorf("%d addresses for one app and repository", n)
	}
	if a := reserve("app", "{r}"); a == reserve("app", "{other}") || a == reserve("other", "{r}") {
		t.Error("two have the same address")
	}
	b.Table.OnTransact(loseFrom(1, 1))
	if a := reserve("app", "{lost}"); a != reserve("app", "{lost}") {
		t.Error("the address whose answer was lost is not the one that is kept")
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	now := b.Clock.Now()
	ctx := t.Context()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fail(b.PutSession(ctx, "s", store.Session{User: "u", ExpiresAt: now.Add(time.Hour)}))
	fail(b.PutToken(ctx, store.APIToken{ID: "1", User: "u", Hash: "t", ExpiresAt: now.Add(time.Hour)}))
	fail(b.PutToken(ctx, store.APIToken{ID: "2", User: "u", Hash: "ever"}))
	check := func(session, token bool) {
		t.Helper()
		if _, err := b.Session(ctx, "s"); session != (err == nil) || !session && !fault.Is(err, fault.NotFound) {
			t.Errorf("session: %v", err)
		}
		if _, err := b.TokenByHash(ctx, "t"); token != (err == nil) || !token && !fault.Is(err, fault.NotFound) {
			t.Errorf("token: %v", err)
		}
	}
	b.Clock.Add(time.Hour - 1)
	check(true, true)
	b.Clock.Add(1)
	check(false, false)
	if _, err := b.TokenByHash(ctx, "ever"); err != nil {
		t.Error(err)
	}
	fail(b.DeleteToken(ctx, "u", "2"))
	if _, err := b.TokenByHash(ctx, "ever"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted token: %v", err)
	}
	if err := b.DeleteToken(ctx, "u", "2"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleting what is gone: %v", err)
	}
	if err := b.DeleteToken(ctx, "stranger", "1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("deleting another's token: %v", err)
	}
	fail(b.PutSession(ctx, "s", store.Session{User: "u", ExpiresAt: now.Add(10 * time.Hour)}))
	fail(b.DeleteSession(ctx, "s"))
	fail(b.DeleteSession(ctx, "s"))
	check(false, false)
}

// More builds of a branch wait than can be read at once, and those among which none stops another are not read at all.
func TestRivals(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	next := 0
	made := func(group string, supersedes bool) store.Build {
		x := build(b, "w", "app", "c")
		x.Group, x.Supersedes = group, supersedes
		next++
		return create(t, b, store.NewBuild{Build: x, Change: fmt.Sprint(next)})
	}
	rivals := func(of store.Build) (numbers []int) {
		t.Helper()
		all, err := b.Rivals(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range all {
			numbers = append(numbers, x.Number)
		}
		return numbers
	}
	for range 130 {
		if last := made("main", false); len(rivals(last)) != 0 {
			t.Fatalf("#%d has rivals", last.Number)
		}
	}
	made("another", true)
	stopping := made("main", true)
	if all := rivals(stopping); len(all) != 131 || !slices.Contains(all, 1) || !slices.Contains(all, 132) {
		t.Errorf("the rivals of one that stops others are %v", all)
	}
	if all := rivals(made("main", false)); !slices.Equal(all, []int{132}) {
		t.Errorf("the rivals of one that stops none are %v", all)
	}
	b.Check(t)
}

func TestDeliveriesNewestFirst(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	ctx := t.Context()
	var want []string
	for i := range 7 {
		d := store.Delivery{Delivery: ci.Delivery{ID: fmt.Sprintf("d%d", i), App: "app", ReceivedAt: b.Clock.Now()}, DueAt: b.Clock.Now().Add(time.Hour)}
		b.Clock.Add(time.Duration(i) * time.Millisecond)
		if _, err := b.PutDelivery(ctx, d); err != nil {
			t.Fatal(err)
		}
		want = append(want, d.ID)
	}
	slices.Reverse(want)
	var got []string
	for cursor, more := "", true; more; more = cursor != "" {
		page, err := b.Deliveries(ctx, "app", cursor, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Items {
			got = append(got, d.ID)
		}
		cursor = page.Cursor
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	b.Check(t)

	decided := store.Delivery{Delivery: ci.Delivery{
		ID: "d0", App: "app", ReceivedAt: b.Clock.Now(), DecidedAt: b.Clock.Now(),
		Decisions: []ci.Decision{{Ref: "branch main", Verdict: ci.Built}},
	}}
	first, err := b.Delivery(ctx, "d0")
	if err != nil {
		t.Fatal(err)
	}
	decided.ReceivedAt = first.ReceivedAt
	if _, err := b.PutDelivery(ctx, decided); err != nil {
		t.Fatal(err)
	}
	late := decided
	late.Decisions = nil
	late.DecidedAt = time.Time{}
	late.DueAt = b.Clock.Now()
	if kept, err := b.PutDelivery(ctx, late); err != nil || len(kept.Decisions) != 1 {
		t.Errorf("a repeat of a decided delivery: %+v, %v", kept, err)
	}
	b.Check(t)
}

func TestDeliveryTooLargeToKeep(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	d := store.Delivery{Delivery: ci.Delivery{ID: "d", App: "app", ReceivedAt: b.Clock.Now()}}
	for range 1000 {
		d.Content.Changes = append(d.Content.Changes, ci.Change{Kind: ci.RefBranch, Name: strings.Repeat("n", 500)})
	}
	if _, err := b.PutDelivery(t.Context(), d); !fault.Is(err, fault.TooLarge) {
		t.Errorf("undecided, its changes must not be forgotten: %v", err)
	}
	d.DecidedAt = b.Clock.Now()
	d.Decisions = []ci.Decision{{Ref: "branch main", Verdict: ci.Built}}
	if _, err := b.PutDelivery(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	kept, err := b.Delivery(t.Context(), "d")
	if err != nil || len(kept.Decisions) != 1 || len(kept.Content.Changes) != 0 || kept.Note == "" {
		t.Errorf("kept %d decisions, %d changes, note %q, %v", len(kept.Decisions), len(kept.Content.Changes), kept.Note, err)
	}
}

func TestChangeGrantEndsTheConnection(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	ctx := t.Context()
	conn := ci.Connection{ID: "c", Workspace: "w", State: ci.ConnectionActive}
	put := func(sealed string) {
		t.Helper()
		if err := b.PutConnection(ctx, conn, []byte(sealed), b.Clock.Now(), b.Clock.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	put("one")
	if _, err := b.ChangeGrant(ctx, "c", func(g *store.Grant) bool {
		g.Ended, g.DueAt = "revoked", time.Time{}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	got, err := b.Connection(ctx, "c")
	if err != nil || got.State != ci.ConnectionReconnect || got.Reason != "revoked" {
		t.Errorf("%+v, %v", got, err)
	}
	b.Check(t)
	put("two") // authorised again
	got, err = b.Connection(ctx, "c")
	if err != nil || got.State != ci.ConnectionActive {
		t.Errorf("%+v, %v", got, err)
	}
	if g, err := b.Grant(ctx, "c"); err != nil || g.Generation != 2 {
		t.Errorf("%+v, %v", g, err)
	}
	b.Check(t)
}

// loseFrom carries everything out and loses the answers of transactions first to
// last.
func loseFrom(first, last int) func(int, []table.Write, func() error) error {
	return func(n int, _ []table.Write, do func() error) error {
		err := do()
		if err == nil && n >= first && n <= last {
			return fault.New(fault.Unknown, "the answer was lost")
		}
		return err
	}
}

// everything makes every change the store knows, in an order that a day could have.
func everything(t testing.TB, b *storetest.Bench) {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := b.Clock.Now()
	user, err := b.SignIn(ctx, "{account}", "nick", "Name")
	must(err)
	_, err = b.SignIn(ctx, "{account}", "nick", "New Name")
	must(err)
	_, err = b.ClaimInstallation(ctx, user.ID)
	must(err)
	_, err = b.PinAllowedWorkspace(ctx, "acme", "{w}")
	must(err)
	must(b.PutSession(ctx, "session", store.Session{User: user.ID, ExpiresAt: now.Add(time.Hour)}))
	must(b.PutSession(ctx, "session2", store.Session{User: user.ID, ExpiresAt: now.Add(time.Hour)}))
	must(b.DeleteSession(ctx, "session2"))
	must(b.PutOAuthState(ctx, "state", store.OAuthState{ExpiresAt: now.Add(time.Hour)}))
	if _, err := b.TakeOAuthState(ctx, "state"); err != nil && !fault.Is(err, fault.Unknown) {
		t.Fatal(err)
	}
	must(b.PutToken(ctx, store.APIToken{ID: "1", User: user.ID, Hash: "h1"}))
	must(b.PutToken(ctx, store.APIToken{ID: "2", User: user.ID, Hash: "h2"}))
	must(b.DeleteToken(ctx, user.ID, "1"))
	must(b.CreateWorkspace(ctx, ci.Workspace{ID: "w", CreatedAt: now}, user.ID))
	must(b.CreateOnlyWorkspace(ctx, ci.Workspace{ID: "only", CreatedAt: now}, user.ID))
	_, err = b.OnlyWorkspace(ctx, "w")
	must(err)
	must(b.CreateApp(ctx, ci.App{ID: "app", Workspace: "w"}))
	conn := ci.Connection{ID: "c", Workspace: "w", State: ci.ConnectionActive}
	must(b.PutConnection(ctx, conn, []byte("one"), now, now.Add(time.Hour)))
	must(b.PutConnection(ctx, conn, []byte("two"), now, now.Add(2*time.Hour)))
	_, err = b.ChangeGrant(ctx, "c", func(g *store.Grant) bool {
		if g.Ended = "revoked"; g.Refusals == 3 {
			return false
		}
		g.Refusals, g.DueAt = 3, time.Time{}
		return true
	})
	must(err)
	_, err = b.ReserveHook(ctx, "app", "{r}")
	must(err)
	must(b.PutHook(ctx, store.Hook{ID: "h", App: "app"}))
	_, err = b.PutRepository(ctx, ci.Repository{App: "app", Connection: "c", UUID: "{r}", Hook: "h"})
	must(err)
	_, err = b.PutRepository(ctx, ci.Repository{App: "app", Connection: "c2", UUID: "{r2}", Hook: "h2"})
	must(err)
	_, err = b.PutDelivery(ctx, store.Delivery{Delivery: ci.Delivery{ID: "d", App: "app", ReceivedAt: now}, DueAt: now.Add(time.Minute)})
	must(err)
	_, err = b.PutDelivery(ctx, store.Delivery{Delivery: ci.Delivery{ID: "d", App: "app", ReceivedAt: now, DecidedAt: now}})
	must(err)
	broken := build(b, "w", "app", "c")
	broken.State, broken.DueAt = ci.Errored, time.Time{}
	create(t, b, store.NewBuild{Build: broken, Change: "broken"})
	first := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "1", Script: "true"})
	if again, created, err := b.CreateBuild(ctx, store.NewBuild{Build: build(b, "w", "app", "c"), Change: "1"}); created || again.ID != first.ID {
		t.Fatalf("a second build of a change: %s %v", again.ID, err)
	}
	b.Clock.Add(time.Second)
	byHand := create(t, b, store.NewBuild{Build: build(b, "w", "app", "c")})
	for i, want := range []string{first.ID, byHand.ID} {
		got, admitted, err := b.Admit(ctx, "local", store.Limits{Runner: 2}, attempt(fmt.Sprint(i)))
		must(err)
		if !admitted || got.ID != want {
			t.Fatalf("admitted %s (%v), want %s", got.ID, admitted, want)
		}
	}
	_, _, err = b.ChangeBuild(ctx, first.ID, func(x *store.Build) (bool, error) {
		if x.Attempt != "attempt-0" {
			return false, nil
		}
		x.Begin(attempt("new"), b.Clock.Now())
		return true, nil
	})
	must(err)
	end(t, b, first.ID, ci.Failed)
	end(t, b, byHand.ID, ci.Successful)
	var turns []store.Build
	for i, ahead := range []int{-1, -1, 0, 1} {
		n := store.NewBuild{Build: build(b, "w", "app", "c"), Change: fmt.Sprint("turn", i)}
		if n.Build.Group, n.Build.Queues = "g", true; ahead >= 0 {
			n.Ahead = turns[ahead].ID
		}
		turns = append(turns, create(t, b, n))
	}
	end(t, b, turns[2].ID, ci.Stopped) // it had the turn of the first
	end(t, b, turns[3].ID, ci.Stopped)
	b.Clock.Add(time.Hour)
	looked, err := b.DueBefore(ctx, store.DueTurn, b.Clock.Now(), 10)
	must(err)
	if _, err := b.MendTurn(ctx, looked[0]); err != nil {
		t.Fatal(err)
	}
	_, _, err = b.ChangeStatus(ctx, store.StatusOf(first), func(st *store.Status) bool {
		st.Posted = st.Revision
		return true
	})
	must(err)
	for _, id := range []string{"s", "deleted"} {
		must(b.CreateSchedule(ctx, store.Schedule{Schedule: ci.Schedule{ID: id, App: "app", Active: true}, Revision: 1, DueAt: now}))
	}
	_, err = b.ChangeSchedule(ctx, "s", func(v *store.Schedule) (bool, error) {
		v.DueAt = time.Time{}
		return true, nil
	})
	must(err)
	for _, due := range []time.Time{now.Add(time.Minute), {}} {
		_, err = b.ChangeSchedule(ctx, "deleted", func(v *store.Schedule) (bool, error) {
			v.Deleted, v.Active, v.DueAt = true, false, due
			return true, nil
		})
		if err != nil && (!due.IsZero() || !fault.Is(err, fault.NotFound)) { // its answer was lost, and it is gone
			t.Fatal(err)
		}
	}
	dues, err := b.DueBefore(ctx, store.DueConnection, now.Add(100*time.Hour), 10)
	must(err)
	for _, d := range dues {
		must(b.DropDue(ctx, d))
	}
	must(b.DropDue(ctx, store.Due{Kind: store.DueBuild, Reference: "nothing", At: now}))
}

func TestLostAnswersChangeNothing(t *testing.T) {
	t.Parallel()
	clean := storetest.New(t)
	clean.Table.OnTransact(loseFrom(0, -1))
	everything(t, clean)
	clean.Check(t)
	want := clean.Dump(t)
	for k := range clean.Table.Transacts() {
		t.Run(fmt.Sprint(k+1), func(t *testing.T) {
			t.Parallel()
			b := storetest.New(t)
			b.Table.OnTransact(loseFrom(k+1, k+1))
			everything(t, b)
			b.Check(t)
			got := b.Dump(t)
			for key, body := range want {
				if got[key] != body {
					t.Errorf("%s is %s, want %s", key, got[key], body)
				}
			}
			for key := range got {
				if _, ok := want[key]; !ok {
					t.Errorf("%s is there, with %s", key, got[key])
				}
			}
		})
	}
}

// A random life of a few builds, statuses, deliveries and grants, with answers lost
// and conflicts made up: the indexes always agree with the records.
func TestIndexesAgree(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			b := storetest.New(t)
			r := rand.New(rand.NewPCG(seed, 0))
			b.Table.OnTransact(func(_ int, _ []table.Write, do func() error) error {
				switch r.IntN(10) {
				case 0:
					if err := do(); err != nil {
						return err
					}
					return fault.New(fault.Unknown, "the answer was lost")
				case 1:
					return table.Conflicted()
				}
				return do()
			})
			live(t, b, r)
		})
	}
}

func live(t *testing.T, b *storetest.Bench, r *rand.Rand) {
	ctx := context.Background()
	var ids []string
	sometime := func() time.Time {
		if r.IntN(4) == 0 {
			return time.Time{}
		}
		return b.Clock.Now().Add(time.Duration(r.IntN(1e12)))
	}
	states := []ci.State{ci.Starting, ci.Running, ci.Successful, ci.Failed, ci.Stopped}
	for step := range 300 {
		b.Clock.Add(time.Duration(r.IntN(1e10)))
		var err error
		switch r.IntN(9) {
		case 0, 1:
			n := store.NewBuild{Build: build(b, fmt.Sprintf("w%d", r.IntN(3)), "app", fmt.Sprintf("c%d", r.IntN(3)))}
			n.Build.DueAt = sometime()
			n.Build.Group, n.Build.Queues = fmt.Sprint("g", r.IntN(2)), r.IntN(2) == 0
			if len(ids) > 0 && r.IntN(3) == 0 {
				n.Ahead = ids[r.IntN(len(ids))]
			}
			if r.IntN(5) > 0 {
				n.Change = fmt.Sprint(r.IntN(100))
			}
			if r.IntN(5) == 0 {
				n.Build.State, n.Build.DueAt = ci.Errored, time.Time{}
			}
			var made store.Build
			made, _, err = b.CreateBuild(ctx, n)
			ids = append(ids, made.ID)
		case 2, 3:
			a := attempt(fmt.Sprint(step))
			a.DueAt = sometime()
			_, _, err = b.Admit(ctx, "local", store.Limits{Runner: 4, PerWorkspace: 2}, a)
		case 4, 5:
			if len(ids) == 0 {
				continue
			}
			to, at := states[r.IntN(len(states))], sometime()
			_, _, err = b.ChangeBuild(ctx, ids[r.IntN(len(ids))], func(x *store.Build) (bool, error) {
				switch {
				case x.State.Final():
					return false, nil
				case x.State.May(to):
					x.State = to
					x.DueAt = at
				case x.Attempt != "":
					x.Begin(store.Attempt{ID: fmt.Sprint("again", step), Ticket: fmt.Sprint("again", step), DueAt: at}, b.Clock.Now())
				}
				return true, nil
			})
		case 6:
			ref := store.StatusRef{Repository: "{repository}", Commit: fmt.Sprintf("c%d", r.IntN(3)), Key: "key-app"}
			posted, at := r.IntN(2) == 0, sometime()
			_, _, err = b.ChangeStatus(ctx, ref, func(st *store.Status) bool {
				if st.DueAt = at; posted {
					st.Posted = st.Revision
				}
				return true
			})
		case 7:
			d := store.Delivery{Delivery: ci.Delivery{ID: fmt.Sprint("d", r.IntN(20)), App: "app"}, DueAt: sometime()}
			if r.IntN(3) == 0 {
				d.DecidedAt, d.DueAt = b.Clock.Now(), time.Time{}
			}
			if _, err = b.PutDelivery(ctx, d); err == nil {
				err = b.PutConnection(ctx, ci.Connection{ID: fmt.Sprint("c", r.IntN(3))}, []byte(fmt.Sprint(step)), sometime(), sometime())
			}
		case 8:
			v := store.Schedule{Schedule: ci.Schedule{ID: fmt.Sprint("s", r.IntN(5)), App: "app"}, DueAt: sometime()}
			if err = b.CreateSchedule(ctx, v); err == nil {
				deleted, at := r.IntN(3) == 0, sometime()
				_, err = b.ChangeSchedule(ctx, v.ID, func(x *store.Schedule) (bool, error) {
					x.Deleted, x.DueAt = x.Deleted || deleted, at
					return true, nil
				})
			}
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
		if step%50 == 49 {
			b.Check(t)
		}
	}
}

// What a tie replaced is answered by the one that replaced it, races and lost answers
// included.
func TestPutRepositoryAnswersWhatItReplaced(t *testing.T) {
	t.Parallel()
	b := storetest.New(t)
	put := func(uuid string) (replaced string) {
		t.Helper()
		r, err := b.PutRepository(t.Context(), ci.Repository{App: "app", Connection: "c", UUID: uuid, Hook: "hook of " + uuid})
		if err != nil {
			t.Fatal(err)
		}
		if r.UUID != "" && r.Hook != "hook of "+r.UUID {
			t.Errorf("the hook of %s is %q", r.UUID, r.Hook)
		}
		return r.UUID
	}
	var got []string
	got = append(got, put("{a}"), put("{b}"), put("{b}"))
	b.Table.OnTransact(func(n int, _ []table.Write, do func() error) error {
		if err := do(); err != nil || n > 1 {
			return err
		}
		return fault.New(fault.Unknown, "the answer was lost")
	})
	got = append(got, put("{c}"))
	b.Table.OnTransact(func(n int, _ []table.Write, do func() error) error {
		if n == 1 {
			got = append(got, put("{d}")) // comes in between
		}
		return do()
	})
	got = append(got, put("{e}"))
	if want := []string{"", "{a}", "", "{b}", "{c}", "{d}"}; !slices.Equal(got, want) {
		t.Errorf("replaced were %q, want %q", got, want)
	}
}
