package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"runnerhub/infra/lambdahost"
	"runnerhub/infra/ministack"
	"runnerhub/infra/rehearsal"
	"runnerhub/infra/sandbox"
)

// workers is how many instances of dispatch and of report there are at the most.
const workers = 10

// deployment is the functions as they are deployed, on this machine, and a forge whose repositories are connected to apps.
type deployment struct {
	*rehearsal.Installation
	services *ministack.Server
	forge    *forge
	hub      *hub
	ledger   *ledger
	output   *volume
}

// programs builds what is deployed, once.
func (b *bench) programs(ctx context.Context) (*rehearsal.Programs, error) {
	if b.deployed != nil {
		return b.deployed, nil
	}
	b.say("building the functions")
	where := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	root, err := where.Output()
	if err != nil {
		return nil, fmt.Errorf("looking for the source tree: %w", err)
	}
	b.deployed, err = rehearsal.Build(ctx, strings.TrimSpace(string(root)), filepath.Join(b.dir, "deployed"))
	return b.deployed, err
}

// deploy brings up a deployment of its own, with so many repositories of so many commits connected.
func (b *bench) deploy(ctx context.Context, name, pipeline string, repositories, commits, concurrency int) (_ *deployment, err error) {
	d := &deployment{ledger: &ledger{}, output: &volume{}, forge: &forge{hooks: map[string]hook{}, posts: map[string]*posted{}, said: map[string]string{}}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	programs, err := b.programs(ctx)
	if err != nil {
		return nil, err
	}
	// Builds run as other users, who have to get to their folders.
	builds := filepath.Join(b.dir, name)
	if err := errors.Join(os.Mkdir(builds, 0o755), os.Chmod(builds, 0o755)); err != nil {
		return nil, err
	}
	if d.services, err = ministack.Start(ctx); err != nil {
		return nil, err
	}
	d.Installation, err = rehearsal.New(ctx, rehearsal.Deps{
		Programs: programs, Services: d.services.URL(), Name: "bench-" + name, Dir: builds,
		Parameters:  map[string]string{"WorkerConcurrency": fmt.Sprint(workers)},
		Concurrency: concurrency, Instances: workers, Watch: d.ledger.watch, Done: d.ledger.done, Output: d.output.of,
		Before: func(s *sandbox.Sandbox) http.Handler {
			d.forge.box = s
			return d.forge
		},
	})
	if err != nil {
		return nil, err
	}
	d.forge.address = d.Forge
	b.say("filling the forge")
	if err := d.forge.fill(ctx, repositories, commits, pipeline); err != nil {
		return nil, err
	}
	if err := d.Start(); err != nil {
		return nil, err
	}
	d.hub, err = newHub(ctx, d.forge, d.Hub, repositories)
	if err != nil {
		return nil, err
	}
	d.hub.drain = d.drained
	return d, nil
}

func (d *deployment) close() (err error) {
	if d.Installation != nil {
		err = d.Close()
	}
	if d.services != nil {
		err = errors.Join(err, d.services.Close())
	}
	return err
}

// left is how many messages there are, in queues that a function is fed from and among the dead letters.
func (d *deployment) left(ctx context.Context) (left, dead int, err error) {
	for _, q := range d.Stack.Queues {
		state, err := d.Host().Queue(ctx, q.ID)
		if err != nil {
			return 0, 0, err
		}
		if n := state.Visible + state.Hidden + state.Delayed; q.DeadLetter == "" {
			dead += n
		} else {
			left += n
		}
	}
	return left, dead, nil
}

// drained waits until no message is left. A dead letter is an error: nothing here fails on purpose.
func (d *deployment) drained(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		left, dead, err := d.left(ctx)
		switch {
		case err != nil:
			return err
		case dead > 0:
			return fmt.Errorf("%d messages became dead letters", dead)
		case left == 0:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d messages: %w", left, context.Cause(ctx))
		}
	}
}

// work is an event that a function got, with what it called meanwhile.
type work struct {
	lambdahost.Invocation
	calls []lambdahost.Call
}

// ledger keeps what functions did.
type ledger struct {
	mu    sync.Mutex
	open  map[string][]lambdahost.Call // calls by invocation, of those that are not over
	works []work
	last  time.Time // when something was noted
}

func (l *ledger) watch(c lambdahost.Call, after bool) lambdahost.Fate {
	if after {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open == nil {
			l.open = map[string][]lambdahost.Call{}
		}
		l.open[c.Invocation] = append(l.open[c.Invocation], c)
		l.last = time.Now()
	}
	return lambdahost.Pass
}

func (l *ledger) done(i lambdahost.Invocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.works = append(l.works, work{i, l.open[i.ID]})
	delete(l.open, i.ID)
	l.last = time.Now()
}

// take answers what was done since the last time it was asked.
func (l *ledger) take() []work {
	l.mu.Lock()
	defer l.mu.Unlock()
	works := l.works
	l.works = nil
	return works
}

// clocked reports whether an event came by the clock, and not because of a push.
func clocked(w work) bool { return w.Function == sweepFunction || w.Function == refreshFunction }

// quiet reports whether nothing was noted for a while.
func (l *ledger) quiet(since time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open) == 0 && time.Since(l.last) >= since
}

const (
	sweepFunction   = "SweepFunction"
	refreshFunction = "RefreshFunction"
)

// tally is what a number of events came to.
type tally struct {
	events, cold  int
	took          time.Duration
	calls         map[string]int // by name
	reads, writes int            // units of DynamoDB
}

// sum adds events up.
func sum(works []work) tally {
	t := tally{calls: map[string]int{}}
	for _, w := range works {
		t.events++
		t.took += w.Took
		if w.Cold {
			t.cold++
		}
		for _, c := range w.calls {
			t.calls[called(c)]++
			if c.Action == "TransactWriteItems" {
				t.writes += c.Units
			} else {
				t.reads += c.Units
			}
		}
	}
	return t
}

// identity is a part of a path that names one thing.
var identity = regexp.MustCompile(`/(\{[^/]*\}|%7[Bb][^/]*|[0-9a-f]{12,})`)

// called is a call in a few words, without what it is about.
func called(c lambdahost.Call) string {
	if c.Service != "bitbucket" {
		return c.Name()
	}
	method, path, _ := strings.Cut(c.Action, " ")
	return "Bitbucket " + method + " " + identity.ReplaceAllString(strings.TrimPrefix(path, "/2.0"), "/…")
}

// total is how many calls there were to AWS and to Bitbucket.
func (t tally) total() (aws, bitbucket int) {
	for name, n := range t.calls {
		if strings.HasPrefix(name, "Bitbucket ") {
			bitbucket += n
		} else {
			aws += n
		}
	}
	return aws, bitbucket
}

// String names the calls, those to Bitbucket last.
func (t tally) String() string {
	var parts []string
	names := slices.SortedFunc(maps.Keys(t.calls), func(a, b string) int {
		if x, y := strings.HasPrefix(a, "Bitbucket "), strings.HasPrefix(b, "Bitbucket "); x != y {
			if x {
				return 1
			}
			return -1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%d %s", t.calls[name], name))
	}
	if len(parts) == 0 {
		parts = []string{"nothing"}
	}
	return strings.Join(parts, ", ")
}

// measured is what the events came to, beside their calls.
func (t tally) measured() string {
	text := fmt.Sprintf("%d events", t.events)
	if t.cold > 0 {
		text += fmt.Sprintf(" (%d of them cold)", t.cold)
	}
	return fmt.Sprintf("%s, %s, %d read and %d write units of DynamoDB", text, short(t.took), t.reads, t.writes)
}

// by sorts events by what they are told by.
func by(works []work, key func(work) string) map[string][]work {
	sorted := map[string][]work{}
	for _, w := range works {
		sorted[key(w)] = append(sorted[key(w)], w)
	}
	return sorted
}

// function is the short name of an event's function.
func function(w work) string { return strings.ToLower(strings.TrimSuffix(w.Function, "Function")) }

// volume counts the bytes that functions print, by a function's id.
type volume struct {
	mu    sync.Mutex
	bytes map[string]int
}

func (v *volume) of(function string) io.Writer { return printer{v, function} }

func (v *volume) take() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.bytes
	v.bytes = nil
	return all
}

// printer is where one function prints.
type printer struct {
	*volume
	function string
}

// Write implements io.Writer.
func (p printer) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes == nil {
		p.bytes = map[string]int{}
	}
	p.bytes[p.function] += len(text)
	return len(text), nil
}
