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

// The crash points of the functions: every call that one makes on one of the paths, before and after it. The function is killed there,
// and nothing else is; then the world goes on as it would, and what the path promises has to come true.

// path is a way through functions.
type path struct {
	name string
	// functions are those whose calls are crash points; none: all but those that come by the clock.
	functions []string
	// least is how many calls there are at least, so that none gets lost unseen.
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

// aim arms for one call of a kind.
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

// fate decides. A read is a point only where it is the first call of an invocation: any other one is made in the world that the call
// before it left, and a function that dies there has done no more than one that died after that call.
func (b *bomb) fate(c lambdahost.Call, after bool) lambdahost.Fate {
	if !b.armed || !b.counts(c) {
		return lambdahost.Pass
	}
	first := !after && !b.begun[c.Invocation]
	b.begun[c.Invocation] = true
	if reads(c) && !first {
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
	holder     string // id of the build that has the only place
	made       int    // things that have a name of their own
}

// diesAtEachCall goes through all paths and their crash points. Several installations share the calls among them, because most of the time
// goes into waiting: for Bitbucket's next attempt, for a message to come again, for a lease to run out.
func diesAtEachCall(t *testing.T, in stack) {
	const sites = 8
	for first := range sites {
		t.Run(fmt.Sprintf("every %dth from %d", sites, first+1), func(t *testing.T) {
			t.Parallel()
			m := newMortal(t, in.(*lambda))
			for _, p := range paths() {
				if !t.Run(p.name, func(t *testing.T) { m.goAlong(t, p, first+1, sites) }) {
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

// goAlong goes through every so many crash points of a path.
func (m *mortal) goAlong(t *testing.T, p path, at, step int) {
	whole := m.t
	m.t = t
	defer func() { m.t = whole }()
	for m.dieAt(p, at) {
		at += step
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

// dieAt walks a path while a function is to die at a call, and looks at what comes of it. It answers false when
// the path has no such call.
func (m *mortal) dieAt(p path, at int) bool {
	m.t.Helper()
	w := p.begin(m)
	m.b.arm(at, p.functions)
	m.insist(p.name, w.act)
	if w.over != nil {
		m.quiet(p.name, w.over)
	}
	count, fired := m.b.disarm()
	if fired == "" {
		m.t.Logf("%d calls", count)
		if at <= count || count < p.least {
			m.t.Fatalf("call %d of %d killed nobody; there should be %d calls", at, count, p.least)
		}
	} else {
		m.t.Logf("killed at %d: %s", at, fired)
	}
	if err := m.mends(m.a, w.check); err != nil {
		m.t.Fatalf("killed at %d: %s: %v", at, fired, err)
	}
	return fired != ""
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
