package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/infra/lambdahost"
	"runnerhub/infra/rehearsal"
	"runnerhub/infra/visitor"
)

// The crash points of the functions: between any two calls that one makes on one of the paths, of which the first changed something, and before and
// after them all. The function is killed there, and nothing else is; then the world goes on as it would, and what the path promises has to come true.

// path is a way through functions.
type path struct {
	name string
	// functions are those whose calls are crash points; none: all but those that come by the clock.
	functions []string
	// least is how many points there are at least, so that none gets lost unseen.
	least int
	// begin makes what one walk along the path needs.
	begin func(m *mortal) walkOf
	// end cleans up after the last walk; may be nil.
	end func(m *mortal)
}

// walkOf is one walk along a path.
type walkOf struct {
	// act is what a client does, again and again until it works. It may also be what comes by the clock.
	act func() error
	// over is nil once nothing is on its way any more, as far as can be seen without RunnerHub: asking it would be calls as well. Where it is
	// left out, the path ends with act.
	over func() error
	// check is nil once the promise is kept.
	check func() error
}

// bomb counts calls while it is armed, and kills the caller at a given one.
type bomb struct {
	mu        sync.Mutex
	armed     bool
	functions []string // whose calls count; none: all but those that come by the clock
	at        int
	count     int
	only      func(lambdahost.Call) bool // instead of functions, unless nil
	begun     map[string]bool            // invocations of which a call was seen
	fired     string                     // the call it killed at

	renewing int // calls to Bitbucket for a token, under way
	renewed  int // and answered
	together int // and begun while another was
}

func (b *bomb) arm(at int, functions []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed, b.at, b.count, b.fired, b.functions, b.only, b.begun = true, at, 0, "", functions, nil, map[string]bool{}
}

// aim arms for one call of a kind, before or after it.
func (b *bomb) aim(at int, only func(lambdahost.Call) bool) {
	b.arm(at, nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.only = only
}

// disarm answers how many calls there were, and at which one it killed.
func (b *bomb) disarm() (count int, fired string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = false
	return b.count, b.fired
}

func (b *bomb) seen() (count int, fired string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count, b.fired
}

// tokens answers how often Bitbucket gave tokens, and how often it was asked while it was being asked.
func (b *bomb) tokens() (renewed, together int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.renewed, b.together
}

// watch implements lambdahost.Deps.Watch.
func (b *bomb) watch(c lambdahost.Call, after bool) lambdahost.Fate {
	b.mu.Lock()
	defer b.mu.Unlock()
	fate := b.fate(c, after)
	if strings.HasSuffix(c.Action, "/access_token") {
		switch {
		case after:
			b.renewing--
			b.renewed++
		case fate == lambdahost.Pass:
			if b.renewing++; b.renewing > 1 {
				b.together++
			}
		}
	}
	return fate
}

// fate decides. A point is before the first call of an invocation, and after each that changes something. Any other call is made in the world
// that such a one left: a function that dies before it, or after a read, has done no more than one that died there.
func (b *bomb) fate(c lambdahost.Call, after bool) lambdahost.Fate {
	if !b.armed || !b.counts(c) {
		return lambdahost.Pass
	}
	first := !after && (!b.begun[c.Invocation] || c.Invocation == "")
	b.begun[c.Invocation] = true
	if b.only == nil && !first && (!after || reads(c)) {
		return lambdahost.Pass
	}
	if b.count++; b.count != b.at {
		return lambdahost.Pass
	}
	b.armed = false
	when := "before"
	if after {
		when = "after"
	}
	b.fired = fmt.Sprintf("%s, %s %s %s", c.Function, when, c.Name(), c.Resource)
	return lambdahost.Kill
}

func (b *bomb) counts(c lambdahost.Call) bool {
	switch {
	case b.only != nil:
		return b.only(c)
	case len(b.functions) > 0:
		return slices.Contains(b.functions, c.Function)
	}
	return c.Function != "SweepFunction" && c.Function != "RefreshFunction"
}

// reads reports whether a call changes nothing where it goes.
func reads(c lambdahost.Call) bool {
	switch c.Action {
	case "GetItem", "BatchGetItem", "Query", "Decrypt", "GenerateDataKey", "GetSecretValue", "BatchGetBuilds", "DescribeLogStreams", "GetLogEvents", "GetSchedule":
		return true
	}
	return strings.HasPrefix(c.Action, http.MethodGet+" ")
}

// mortal is a site whose functions die.
type mortal struct {
	*site
	a          *account
	b          *bomb
	workspace  string
	connection string // through which the app is tied
	docs       *visitor.Clone
	stranger   *stranger
	holder     string // id of the build that has the only place
	made       int    // things that have a name of their own
}

// round is what is left of the crash points of all paths. Several installations share it, because most of the time goes into
// waiting: for Bitbucket's next attempt, for a message to come again, for a lease to run out.
type round struct {
	mu    sync.Mutex
	paths []path
	left  []progress // by path
}

// progress is how far a path is gone through.
type progress struct {
	next  int // the crash point to be tried next
	sites int // how many installations are at it
	dry   int // on how many walks nobody was left to be killed
	most  int // points seen on a walk
}

// dryWalks is on how many walks nobody is killed until a path is over: not every walk makes as many calls.
const dryWalks = 2

// enter answers the path that an installation goes along next, which is none of those it has been on: the first one of those at which the
// fewest are.
func (r *round) enter(been map[int]bool) (i int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i = -1
	for n, p := range r.left {
		if !been[n] && p.dry < dryWalks && (i < 0 || p.sites < r.left[i].sites) {
			i = n
		}
	}
	if i < 0 {
		return 0, false
	}
	been[i] = true
	r.left[i].sites++
	return i, true
}

// point answers the next crash point of a path, while there are any.
func (r *round) point(i int) (at int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.left[i]
	p.next++
	return p.next, p.dry < dryWalks
}

// walked tells of a walk: how many points were seen, and whether somebody was killed.
func (r *round) walked(i, points int, killed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.left[i]
	p.most = max(p.most, points)
	if !killed {
		p.dry++
	}
}

func (r *round) leave(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left[i].sites--
}

// diesAtEachCall goes through all paths and their crash points.
func diesAtEachCall(t *testing.T, in stack) {
	all := paths()
	const sites = 12 // as many as there is room for: they come last, when the other scripts are at their end
	r := &round{paths: all, left: make([]progress, len(all))}
	t.Cleanup(func() {
		for i, p := range r.left {
			if p.next > 0 && p.most < all[i].least && !t.Failed() {
				t.Errorf("%s: there were %d points at most; there should be %d", all[i].name, p.most, all[i].least)
			}
		}
	})
	for n := range sites {
		t.Run(fmt.Sprintf("site %d", n+1), func(t *testing.T) {
			t.Parallel()
			m := newMortal(t, in.(*lambda))
			been := map[int]bool{}
			for i, ok := r.enter(been); ok; i, ok = r.enter(been) {
				passed := t.Run(all[i].name, func(t *testing.T) { m.goAlong(t, r, i) })
				r.leave(i)
				if !passed {
					return
				}
			}
			if _, together := m.b.tokens(); together > 0 {
				t.Errorf("Bitbucket was asked for tokens %d times while it was being asked", together)
			}
		})
	}
}

func newMortal(t *testing.T, l *lambda) *mortal {
	t.Helper()
	m := &mortal{b: &bomb{}}
	m.site, m.a = newMarked(t, l, rehearsal.Deps{Watch: m.b.watch, Visibility: 2 * time.Second, Concurrency: 1})
	var app struct {
		Workspace string `json:"workspace"`
	}
	m.must(m.Call(t.Context(), http.MethodGet, "/api/apps/"+m.app, nil, &app))
	m.workspace = app.Workspace
	all, err := m.Connections(t.Context(), m.workspace)
	m.must(err)
	if len(all) != 1 {
		t.Fatalf("the connections are %+v", all)
	}
	m.connection = all[0].ID
	return m
}

// goAlong goes through crash points of a path until none are left.
func (m *mortal) goAlong(t *testing.T, r *round, i int) {
	whole, p := m.t, r.paths[i]
	m.t = t
	defer func() { m.t = whole }()
	for at, ok := r.point(i); ok; at, ok = r.point(i) {
		points, killed := m.dieAt(p, at)
		r.walked(i, points, killed)
	}
	if p.end != nil {
		p.end(m)
	}
}

// name is one that nothing else has.
func (m *mortal) name(what string) string {
	m.made++
	return fmt.Sprintf("%s-%d", what, m.made)
}

// dieAt walks a path while a function is to die at a point, and looks at what comes of it. It answers how many points there were until
// then, or in all, when nobody was killed.
func (m *mortal) dieAt(p path, at int) (points int, killed bool) {
	m.t.Helper()
	times := []time.Time{time.Now()}
	lap := func() { times = append(times, time.Now()) }
	w := p.begin(m)
	lap()
	m.b.arm(at, p.functions)
	m.insist(p.name, w.act)
	if w.over != nil {
		m.quiet(p.name, w.over)
	}
	lap()
	count, fired := m.b.disarm()
	what := fmt.Sprintf("killed at %d: %s", at, fired)
	if fired == "" {
		what = fmt.Sprintf("nobody killed, there are %d points", count)
		if at <= count {
			m.t.Fatalf("%s; number %d was to kill", what, at)
		}
	}
	if err := m.mends(m.a, w.check); err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
	lap()
	took := func(i int) time.Duration { return times[i].Sub(times[i-1]).Round(100 * time.Millisecond) }
	m.t.Logf("%s (made ready in %s, walked in %s, all well in %s)", what, took(1), took(2), took(3))
	return count, fired != ""
}

// insist acts until it works. Before anything was killed, it has to.
func (m *mortal) insist(what string, act func() error) {
	m.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := act()
		if err == nil {
			return
		}
		if _, fired := m.b.seen(); fired == "" || time.Now().After(deadline) {
			m.t.Fatalf("%s, killed at %q: %v", what, fired, err)
		}
		m.must(visitor.Pause(m.t.Context()))
	}
}

// quiet waits until something was killed, or all is over and nobody has called for a while.
func (m *mortal) quiet(what string, over func() error) {
	m.t.Helper()
	const enough = 8
	looks := time.NewTicker(250 * time.Millisecond)
	defer looks.Stop()
	calls, quiet := 0, 0
	for deadline := time.Now().Add(patience); quiet < enough; <-looks.C {
		count, fired := m.b.seen()
		if fired != "" {
			return
		}
		err := over()
		if err != nil && time.Now().After(deadline) {
			m.t.Fatalf("the end of %s: %v", what, err)
		}
		if quiet++; err != nil || count != calls {
			calls, quiet = count, 0
		}
	}
}

// buildOf waits for the one build of a commit of the shop, by what Bitbucket shows: to have RunnerHub list builds again and again takes
// from those who are at work.
func (m *mortal) buildOf(commit string) (b visitor.Build) {
	m.t.Helper()
	m.until("a build of "+commit, func() error {
		all, err := m.Statuses(m.t.Context(), shop, commit)
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("Bitbucket shows %+v", all)
		}
		if err == nil {
			b, err = m.Build(m.t.Context(), strings.TrimPrefix(all[0].URL, m.Hub+"/builds/"))
		}
		return err
	})
	return b
}
