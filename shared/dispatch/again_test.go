package dispatch_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/dispatch"
	"runnerhub/shared/dispatch/dispatchtest"
	"runnerhub/shared/queue"
	"runnerhub/shared/store"
)

// moves is a branch that is pushed back and forth. Bitbucket says that it is where it was pushed to last.
type moves struct {
	*pushes
	mu    sync.Mutex
	at    int // the hash the branch is at
	told  int // deliveries so far
	bodys []any
}

func newMoves(t *testing.T, file string) *moves {
	t.Helper()
	m := &moves{pushes: newPushes(t, file, 3)}
	m.Transport.Say(func(r *http.Request) any {
		if !strings.HasSuffix(r.URL.Path, "/refs/branches/main") {
			return nil
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return map[string]any{"name": "main", "target": map[string]any{"hash": m.hashes[m.at]}}
	})
	return m
}

func (m *moves) is(at int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = at
}

// push moves the branch. Its event is what again tells under its index.
func (m *moves) push(from, to int) ci.Decision {
	m.Helper()
	m.is(to)
	m.bodys = append(m.bodys, m.Push(dispatchtest.Change{Name: "main", Old: m.hashes[from], New: m.hashes[to], Forced: to < from}))
	return m.again(len(m.bodys) - 1)
}

// again delivers an event under another id.
func (m *moves) again(event int) ci.Decision {
	m.Helper()
	m.told++
	return one(m.Bench, m.Deliver(fmt.Sprint("told-", m.told), "repo:push", m.bodys[event]))
}

func (m *moves) are(want string) {
	m.Helper()
	if got := states(m.Bench); got != want {
		m.Errorf("the builds are: %s; want %s", got, want)
	}
}

// A push back to what was stopped builds it again, as often as that is, whatever comes twice or late.
func TestPushedBack(t *testing.T) {
	t.Parallel()
	for _, repeats := range []bool{false, true} {
		t.Run(fmt.Sprint("repeats ", repeats), func(t *testing.T) {
			t.Parallel()
			m := newMoves(t, cancels)
			for i, want := range []string{"on", "by 2, on", "by 2, by 3, on", "by 2, by 3, by 4, on", "by 2, by 3, by 4, by 5, on"} {
				from, to := 1+(i+1)%2, 1+i%2
				if i == 0 {
					from = 0
				}
				expect(m.Bench, m.push(from, to), ci.Built, "push of branch main")
				m.are(want)
				for event := range m.bodys {
					if repeats {
						expect(m.Bench, m.again(event), ci.AlreadyBuilt, "already built as #")
						m.are(want)
					}
				}
				// It is the newest build that the commit tells of.
				if shown := m.Shown(m.hashes[to], "main"); shown != ci.StatusInProgress {
					t.Errorf("after %d pushes the commit shows %s", i+1, shown)
				}
			}
			m.Claim(m.Last()).Says("SUCCESSFUL")
			m.Pump()
			if shown := m.Shown(m.hashes[1], "main"); shown != ci.StatusSuccessful {
				t.Errorf("in the end the commit shows %s", shown)
			}
			expect(m.Bench, m.again(4), ci.AlreadyBuilt, "already built as #5")
			if got := m.again(3); got.Reason != "already built as #4, which was stopped (superseded by #5); branch main is not at that any more" {
				t.Errorf("%q", got.Reason)
			}
			m.are("by 2, by 3, by 4, by 5, SUCCESSFUL")
		})
	}
}

// The same as another change counts, too.
func TestPushedBackAnotherWay(t *testing.T) {
	t.Parallel()
	m := newMoves(t, cancels)
	m.push(0, 1)
	m.push(1, 2)
	m.Claim(m.Last()).Says("SUCCESSFUL")
	m.push(2, 1)
	// #1 was stopped, but #3 is what builds its commit, now and when it has ended.
	for _, want := range []string{"by 2, SUCCESSFUL, on", "by 2, SUCCESSFUL, FAILED"} {
		expect(m.Bench, m.again(0), ci.AlreadyBuilt, "already built as #3")
		m.are(want)
		if want[len(want)-2:] == "on" {
			m.Claim(m.Last()).Says("FAILED")
		}
	}
	expect(m.Bench, m.again(2), ci.AlreadyBuilt, "already built as #3, which failed")
	// What somebody stopped stays stopped.
	m.push(1, 3)
	_, _, err := m.ChangeBuild(t.Context(), m.TheBuild().ID, func(b *store.Build) (bool, error) { return b.Stop("stopped by Alice", m.Clock.Now()), nil })
	m.Must(err)
	m.Must(m.Sweep.Run(t.Context()))
	expect(m.Bench, m.again(3), ci.AlreadyBuilt, "(stopped by Alice)")
	if m.Count() != 4 {
		t.Errorf("%d builds", m.Count())
	}
	m.Check(t)
}

// The events of a push and of the push back to it come in the other order.
func TestPushedBackSwapped(t *testing.T) {
	t.Parallel()
	m := newMoves(t, cancels)
	m.push(0, 1)
	m.push(1, 2)
	m.push(1, 2) // the push back in between is not heard of yet
	m.tells(2, 1)
	m.are("by 2, on, on")
	m = newMoves(t, cancels)
	m.push(0, 1)
	m.push(1, 2)
	m.push(2, 1)
	m.is(2) // pushed again, and the event is late
	expect(m.Bench, m.again(2), ci.AlreadyBuilt, "already built as #3")
	expect(m.Bench, m.again(1), ci.Built, "push of branch main")
	m.are("by 2, by 3, by 4, on")
}

// A replay builds what is missing. That of an old push does not say that it is newer than the one after it.
func TestReplayOfWhatWasSetAside(t *testing.T) {
	t.Parallel()
	m := newMoves(t, cancels)
	m.push(0, 1)
	m.push(1, 2)
	for i, want := range []string{"by 2, on", "by 2, on, on", "by 2, on, on"} {
		m.is(2 - min(i, 1))
		m.Clock.Add(time.Minute)
		_, err := replayer(m.Bench).Replay(t.Context(), "user", "told-1")
		m.Must(err)
		m.are(want)
	}
}

// Several processes decide the push back, under the same and under other ids.
func TestPushedBackAtOnce(t *testing.T) {
	t.Parallel()
	m := newMoves(t, cancels)
	m.push(0, 1)
	m.push(1, 2)
	m.push(2, 1)
	m.is(2)
	for i := range 8 {
		m.Deliver(fmt.Sprint("at once ", i/2), "repo:push", m.bodys[1])
	}
	var all []queue.Message
	for len(all) < 8 {
		got, err := m.Deliveries.Receive(t.Context(), 10, 0)
		m.Must(err)
		all = append(all, got...)
	}
	var group sync.WaitGroup
	for _, message := range all {
		group.Go(func() {
			for queue.Keeps(m.Dispatch.Handle(t.Context(), message)) {
			}
		})
	}
	group.Wait()
	m.are("by 2, by 3, by 4, on")
	built := 0
	for i := range 4 {
		if d := m.Decisions(fmt.Sprint("at once ", i))[0]; d.Verdict == ci.Built && d.Number == 4 {
			built++
		} else if d.Verdict != ci.AlreadyBuilt || d.Number != 4 {
			t.Errorf("%+v", d)
		}
	}
	if built != 1 {
		t.Errorf("%d deliveries built it", built)
	}
}

// The process dies at each of its writes once, before and after it.
func TestPushedBackDies(t *testing.T) {
	t.Parallel()
	for at := 1; at <= 7; at++ {
		for _, done := range []bool{false, true} {
			m := newMoves(t, cancels)
			m.push(0, 1)
			m.push(1, 2)
			m.push(2, 1)
			m.is(2)
			m.DiesAt(at, done)
			m.tells(1, 2)
			m.Table.OnTransact(nil)
			m.PumpFor(time.Minute)
			m.Clock.Add(2 * time.Minute)
			m.Must(m.Sweep.Run(t.Context()))
			if got := states(m.Bench); got != "by 2, by 3, by 4, on" {
				t.Errorf("died at %d, %v: the builds are: %s", at, done, got)
			}
		}
	}
}

// Two processes each take the other's build for the older one: one of them wins.
func TestEachTakesTheOthersPlace(t *testing.T) {
	t.Parallel()
	m := newMoves(t, cancels)
	m.push(0, 1)
	m.push(1, 2)
	m.push(2, 1)
	// Right before #3 is stopped, the branch is pushed back, and that is decided.
	once := sync.Once{}
	m.Table.OnTransact(dispatchtest.Numbered(func(n int, do func() error) error {
		if n == 2 {
			once.Do(func() {
				m.is(1)
				m.Deliver("back", "repo:push", m.bodys[2])
				got, err := m.Deliveries.Receive(t.Context(), 1, 0)
				m.Must(err)
				for _, message := range got {
					m.Must(m.Dispatch.Handle(t.Context(), message))
				}
			})
		}
		return do()
	}))
	m.is(2)
	m.tells(1, 2)
	m.Table.OnTransact(nil)
	m.are("by 2, by 3, on, by 3")
}

// pull is a pull request, of which Bitbucket says that it is as it was told last.
type pull struct {
	*fork
	mu   sync.Mutex
	now  map[string]any
	told int
}

func newPull(t *testing.T, file string) *pull {
	t.Helper()
	p := &pull{fork: newFork(t, true)}
	if file != onPR {
		p.Main = p.Commit("main", ".runnerhub/runnerhub.yml", file)
	}
	p.Transport.Say(func(r *http.Request) any {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case p.now == nil:
			return nil
		case strings.HasSuffix(r.URL.Path, "/pullrequests/7"):
			return p.now
		case strings.HasSuffix(r.URL.Path, "/pullrequests"):
			return map[string]any{"values": []any{p.now}}
		case strings.HasSuffix(r.URL.Path, "/refs/branches/feature"):
			hash := p.now["source"].(map[string]any)["commit"].(map[string]any)["hash"]
			return map[string]any{"name": "feature", "target": map[string]any{"hash": p.full(hash.(string))}}
		}
		return nil
	})
	return p
}

func (p *pull) full(short string) string {
	page := p.Call("alice", http.MethodGet, "/2.0/repositories/acme/shop/commit/"+short, nil)
	return page["hash"].(string)
}

// becomes is an event of the pull request that Bitbucket knows of.
func (p *pull) becomes(event string, edit func(map[string]any), hash string) any {
	p.Helper()
	p.Clock.Add(time.Second)
	return p.event(event, hash, func(pr map[string]any) {
		if edit != nil {
			edit(pr)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.now = pr
	})
}

func (p *pull) tells(event string, body any) ci.Decision {
	p.Helper()
	p.told++
	return one(p.Bench, p.Deliver(fmt.Sprint("told-", p.told), event, body))
}

func into(target string) func(map[string]any) {
	return func(pr map[string]any) {
		pr["destination"].(map[string]any)["branch"] = map[string]any{"name": target}
	}
}

const updated = "pullrequest:updated"

// A fork's pull request goes to another target, and back.
func TestAForkIsRetargetedBack(t *testing.T) {
	t.Parallel()
	p := newPull(t, onPR)
	head := p.commit("x", "1")
	created := p.becomes("pullrequest:created", nil, head)
	first := p.tells("pullrequest:created", created)
	expect(p.Bench, p.tells(updated, p.becomes(updated, into("develop"), head)), ci.Skipped, "develop")
	p.is(first.Build, ci.Stopped, false, "has changed since")
	back := p.becomes(updated, nil, head)
	second := p.tells(updated, back)
	expect(p.Bench, second, ci.Held, waits)
	for range 2 { // whatever comes twice
		expect(p.Bench, p.tells(updated, back), ci.AlreadyBuilt, "already built as #2, which waits until")
		expect(p.Bench, p.tells("pullrequest:created", created), ci.AlreadyBuilt, "already built as #2")
	}
	p.is(second.Build, ci.Queued, true, waits)
	if state, says := p.shown(head); state != "INPROGRESS" || !strings.Contains(says, waits) {
		t.Errorf("the commit shows %s, %q", state, says)
	}
	p.Must(p.control.Approve(t.Context(), "user", second.Build))
	p.Pump()
	p.is(second.Build, ci.Starting, false, "")
	p.is(first.Build, ci.Stopped, false, "has changed since")
	p.Check(t)
	// What ran is not built again, and takes nobody's place when it has ended.
	p.Claim(p.Last()).Says("SUCCESSFUL")
	third := p.tells(updated, p.becomes(updated, nil, p.commit("x", "2")))
	expect(p.Bench, p.tells(updated, p.becomes(updated, nil, head)), ci.AlreadyBuilt, "already built as #2")
	p.is(third.Build, ci.Stopped, false, "has changed since")
	// Nor is what is closed.
	p.tells(updated, p.becomes(updated, nil, p.commit("x", "3")))
	last := p.TheBuild()
	again := p.becomes(updated, nil, last.Commit)
	p.tells("pullrequest:rejected", p.becomes("pullrequest:rejected", nil, last.Commit))
	expect(p.Bench, p.tells(updated, again), ci.AlreadyBuilt, "is closed")
	p.is(last.ID, ci.Stopped, false, "is closed")
	p.Check(t)
}

// A fork's pull request is pushed from a to b, and back, in any order.
func TestAForkIsPushedBack(t *testing.T) {
	t.Parallel()
	for order, want := range map[string]string{
		"abc":    "by 2, by 3, on",
		"aabbcc": "by 2, by 3, on",
		"abcab":  "by 2, by 3, on",
		"acb":    "on, by 1", // the push back is heard of first
		"bac":    "",         // whatever becomes of a, one is held of it in the end
		"bca":    "",
		"cab":    "",
		"cba":    "",
	} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			p := newPull(t, onPR)
			a, b := p.commit("x", "1"), p.commit("x", "2")
			bodies := map[rune]any{}
			late := order != "abc" && order != "aabbcc" && order != "abcab"
			say := func(r rune, event, hash string) {
				bodies[r] = p.becomes(event, nil, hash)
				for _, x := range order {
					if !late && x == r && strings.Count(order, string(x)) > 0 {
						p.tells(event, bodies[r])
					}
				}
			}
			if order == "abcab" {
				order = "abc"
				defer func() {
					p.tells(updated, bodies['a'])
					p.tells(updated, bodies['b'])
					if got := states(p.Bench); got != want {
						t.Errorf("after repeats the builds are: %s; want %s", got, want)
					}
				}()
			}
			say('a', "pullrequest:created", a)
			say('b', updated, b)
			say('c', updated, a)
			if late {
				for _, r := range order {
					event := updated
					if r == 'a' {
						event = "pullrequest:created"
					}
					p.tells(event, bodies[r])
				}
			}
			got := states(p.Bench)
			if want != "" && got != want {
				t.Errorf("the builds are: %s; want %s", got, want)
			}
			held, err := p.Held(t.Context(), dispatchtest.App, p.pull)
			p.Must(err)
			if len(held) != 1 || held[0].Commit != a {
				t.Errorf("held are %+v; the builds are: %s", held, got)
			}
			if state, _ := p.shown(a); state != "INPROGRESS" {
				t.Errorf("the commit shows %s", state)
			}
		})
	}
}

// A pull request of the repository itself, whose older builds are stopped.
func TestAPullRequestIsPushedBack(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"push", "pull request"} {
		t.Run(first+" first", func(t *testing.T) {
			t.Parallel()
			p := newPull(t, cancels)
			heads := []string{p.Commit("feature", "x", "1"), p.Commit("feature", "x", "2")}
			own := func(pr map[string]any) {
				source := pr["source"].(map[string]any)
				source["repository"] = map[string]any{"uuid": p.Repository, "full_name": "acme/shop"}
				source["branch"] = map[string]any{"name": "feature"}
			}
			p.tells("pullrequest:created", p.becomes("pullrequest:created", own, heads[0]))
			var bodies [][2]any
			move := func(from, to int) {
				bodies = append(bodies, [2]any{
					p.Push(dispatchtest.Change{Name: "feature", Old: heads[from], New: heads[to]}), p.becomes(updated, own, heads[to]),
				})
			}
			tell := func(of [2]any) {
				if first == "push" {
					p.tells("repo:push", of[0])
				}
				p.tells(updated, of[1])
				if first != "push" {
					p.tells("repo:push", of[0])
				}
			}
			for i, want := range []string{"by 2, on", "by 2, by 3, on", "by 2, by 3, by 4, on"} {
				move(i%2, (i+1)%2)
				tell(bodies[i])
				if got := states(p.Bench); got != want {
					t.Errorf("the builds are: %s; want %s", got, want)
				}
				for _, of := range bodies {
					tell(of)
				}
				if got := states(p.Bench); got != want {
					t.Errorf("after repeats the builds are: %s; want %s", got, want)
				}
				key := dispatch.StatusKey(dispatchtest.App)
				if st := p.Statuses(heads[(i+1)%2])[key]; st[1] != "INPROGRESS" {
					t.Errorf("the commit shows %v", st)
				}
			}
		})
	}
}
