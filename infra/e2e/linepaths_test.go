package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"runnerhub/infra/visitor"
	"runnerhub/shared/table"
	"runnerhub/shared/table/dynamo"
)

// The paths on which builds give way to each other, or wait for each other or for a person.

// file commits a pipeline file, and leaves the one that the branch has otherwise for the next commit.
func (m *mortal) file(text string) (commit string) {
	m.t.Helper()
	before := m.git("show", "HEAD:"+pipelinePath)
	commit = m.commit(pipelinePath, text+"# "+m.name("file")+"\n")
	m.commit(pipelinePath, before+"\n")
	return commit
}

// with is a pipeline file that has more keys than its steps.
func with(text, more string) string { return strings.Replace(text, "steps:", more+"\nsteps:", 1) }

// leaves waits until a step has left a mark.
func (m *mortal) leaves(mark, text string) {
	m.t.Helper()
	m.until("the mark of "+mark, func() error {
		if got := m.marked(mark); got != text {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// explained is nil when every delivery says what it led to.
func (m *mortal) explained() ([]visitor.Delivery, error) {
	all, err := m.Deliveries(m.t.Context(), m.app)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if len(d.Decisions) == 0 || d.Note != "" {
			return nil, fmt.Errorf("delivery %s of %s is not decided: %q", d.ID, d.Event, d.Note)
		}
	}
	return all, nil
}

// overtaking updates a pull request whose build is at work, and is to be stopped for the new one.
func overtaking(m *mortal) walkOf {
	branch := m.name("overtaken")
	script := func(then string) string {
		return with(pipeline("[pull_request]", "echo ran >> "+m.mark("$RUNNERHUB_COMMIT")+"\n"+then), "concurrency:\n  cancel_in_progress: true")
	}
	m.git("checkout", "--quiet", "-B", branch, "main")
	outdated := m.commit(pipelinePath, script("sleep 600; echo survived >> "+m.mark("$RUNNERHUB_COMMIT")))
	m.push("HEAD:" + branch)
	updated := m.commit(pipelinePath, script("true"))
	m.git("checkout", "--quiet", "main")
	_, err := m.PullRequest(m.t.Context(), shop, branch, branch, "main")
	m.must(err)
	older := m.buildOf(outdated)
	m.leaves(outdated, "ran\n")
	m.shown(older, "INPROGRESS")
	return walkOf{
		act: func() error { return m.clone.Push(m.t.Context(), updated+":refs/heads/"+branch) },
		over: func() error {
			return errors.Join(m.showsAll(outdated, "STOPPED"), m.showsAll(updated, "SUCCESSFUL"))
		},
		check: func() error {
			newer, err := m.ranOnce(updated)
			if err != nil {
				return err
			}
			if err := m.showsAll(outdated, "STOPPED"); err != nil {
				return err
			}
			b := m.buildsOf(outdated)
			if len(b) != 1 || b[0].State != "STOPPED" || b[0].Reason != fmt.Sprintf("superseded by #%d", newer.Number) || b[0].SupersededBy.Build != newer.ID {
				return fmt.Errorf("the builds that were outdated are %+v; built was %+v", b, newer)
			}
			if got := m.marked(outdated); got != "ran\n" {
				return fmt.Errorf("the step of the build that was outdated left %q", got)
			}
			all, err := m.explained()
			if err != nil {
				return err
			}
			for _, event := range []string{"repo:push", "pullrequest:updated"} {
				if !slices.ContainsFunc(all, func(d visitor.Delivery) bool { return d.Event == event && d.Decisions[0].Build == newer.ID }) {
					return fmt.Errorf("no %s tells of build #%d: %+v", event, newer.Number, all)
				}
			}
			return nil
		},
	}
}

// pair is two builds of a group, of which one is at work and the other waits for its turn.
type pair struct {
	first, second   visitor.Build
	goes, goesAfter string // gates: of the end of each
}

// pair pushes one build after the other. The first ends with a script when its gate is open.
func (m *mortal) pair(script string) pair {
	m.t.Helper()
	p := pair{goes: m.name("goes"), goesAfter: m.name("goes-after")}
	group := "concurrency:\n  group: " + m.name("turns")
	ran := "echo ran >> " + m.mark("$RUNNERHUB_COMMIT") + "\n"
	first := m.file(with(pipeline("[push]", ran+m.waitFor(p.goes)+"\n"+script), group))
	m.push(first + ":main")
	p.first = m.buildOf(first)
	m.leaves(first, "ran\n")
	m.shown(p.first, "INPROGRESS")
	second := m.file(with(pipeline("[push]", ran+m.waitFor(p.goesAfter)), group))
	m.push(second + ":main")
	p.second = m.buildOf(second)
	m.shown(p.second, "INPROGRESS")
	if want := fmt.Sprintf("waits for #%d of its concurrency group to end", p.first.Number); p.second.Reason != want {
		m.t.Fatalf("the second build is %+v", p.second)
	}
	return p
}

// takingTurns ends the build of a group that is at work, so that the next one goes on.
func takingTurns(m *mortal) walkOf {
	p := m.pair("true")
	m.open(p.goesAfter)
	return walkOf{
		act: func() error { m.open(p.goes); return nil },
		over: func() error {
			return errors.Join(m.showsAll(p.first.Commit, "SUCCESSFUL"), m.showsAll(p.second.Commit, "SUCCESSFUL"))
		},
		check: func() error {
			_, err := m.ranOnce(p.first.Commit)
			_, also := m.ranOnce(p.second.Commit)
			return errors.Join(err, also)
		},
	}
}

// abandoned is a build whose agent dies, so that only the runner tells of its end; and another one waits for its turn.
func abandoned(m *mortal) walkOf {
	p := m.pair("kill -KILL $PPID; sleep 60")
	return walkOf{
		act:  func() error { m.open(p.goes); return nil },
		over: func() error { return m.showsAll(p.first.Commit, "FAILED") },
		check: func() error {
			m.open(p.goesAfter)
			if err := m.showsAll(p.first.Commit, "FAILED"); err != nil {
				return err
			}
			if builds := m.buildsOf(p.first.Commit); len(builds) != 1 || builds[0].State != "ERROR" {
				return fmt.Errorf("the builds are %+v", builds)
			}
			_, err := m.ranOnce(p.second.Commit)
			return err
		},
	}
}

// edit changes an item of the table by hand.
func (m *mortal) edit(partition string, change func(body []byte) []byte) {
	m.t.Helper()
	tb, err := dynamo.New(dynamo.Deps{
		Config: aws.Config{
			Region: "us-east-1", BaseEndpoint: &m.a.services, Credentials: credentials.NewStaticCredentialsProvider("by hand", "by hand", ""),
		},
		Table: m.a.Stack.Tables[0].Name, NewToken: rand.Text,
	})
	m.must(err)
	page, err := tb.Query(m.t.Context(), table.Query{Partition: partition})
	m.must(err)
	for _, item := range page.Items {
		if body := change(item.Body); !bytes.Equal(body, item.Body) {
			item.Body = body
			m.must(tb.Transact(m.t.Context(), table.Put(item, table.VersionIs(item.Version))))
			return
		}
	}
	m.t.Fatalf("%s has no such item: %+v", partition, page.Items)
}

// sweepingLines finds two lines in which nothing moves any more: a group in which it is the turn of a build that is gone, and the runner's,
// where nobody said that there is room.
func sweepingLines(m *mortal) walkOf {
	p := m.pair("true")
	m.open(p.goesAfter)
	// As an operator's hand would leave it.
	m.edit("TURN#"+m.app, func(body []byte) []byte {
		var turn map[string]any
		m.must(json.Unmarshal(body, &turn))
		if turn["build"] != p.first.ID {
			return body
		}
		return bytes.Replace(body, []byte(p.first.ID), []byte("gone"), 1)
	})
	m.open(p.goes)
	m.ended(p.first.ID, "SUCCESSFUL")
	slots := func(taken string) {
		m.edit("SLOTS#codebuild", func([]byte) []byte { return []byte(taken) })
	}
	slots(`{"builds":{"gone":"gone"}}`)
	waiting := m.commit("n", m.name("push")+"\n")
	m.push("HEAD:main")
	m.shown(m.buildOf(waiting), "INPROGRESS")
	m.explainedSoon()
	slots(`{"builds":{}}`)
	return walkOf{
		act: func() error { return m.a.Host().Tick(m.t.Context(), "SweepFunction", time.Now().Add(time.Hour)) },
		check: func() error {
			_, err := m.ranOnce(p.second.Commit)
			_, also := m.ranOnce(waiting)
			return errors.Join(err, also)
		},
	}
}

func (m *mortal) explainedSoon() {
	m.t.Helper()
	m.until("every delivery to be decided", func() error {
		_, err := m.explained()
		return err
	})
}

// stranger is carol, who may not write to the shop, with a fork of it.
type stranger struct {
	*visitor.Visitor
	fork  string
	clone *visitor.Clone
}

// target is the branch at which pull requests from the fork are aimed; its pipeline file is what they run.
const target = "forked"

// carol forks the shop, whose app allows that.
func (m *mortal) carol() *stranger {
	m.t.Helper()
	if m.stranger != nil {
		return m.stranger
	}
	m.must(m.Call(m.t.Context(), http.MethodPatch, "/api/apps/"+m.app, map[string]bool{"allow_forks": true}, nil))
	const looks = `if grep -rqs x-token-auth .git "$HOME" "$TMPDIR" || env GIT_TERMINAL_PROMPT=0 git push origin HEAD:main; then echo with a credential; else echo ran; fi >> `
	text := pipeline("[pull_request]", looks+m.mark("$RUNNERHUB_COMMIT"))
	m.git("checkout", "--quiet", "-B", target, "main")
	m.commit(pipelinePath, text)
	m.push("HEAD:" + target)
	m.git("checkout", "--quiet", "main")
	m.decided("repo:push", "branch "+target, "SKIPPED", "")
	s := &stranger{Visitor: m.person(m.Hub, m.Forge, "carol")}
	var err error
	s.fork, err = s.Fork(m.t.Context(), shop, "carol")
	m.must(err)
	s.clone, err = s.Clone(m.t.Context(), s.fork, filepath.Join(m.in.folder(), "fork"))
	m.must(err)
	m.stranger = s
	return s
}

// approving opens a pull request from a fork, and approves its build as soon as Bitbucket shows it.
func approving(m *mortal) walkOf {
	carol := m.carol()
	branch, opened := m.name("foreign"), false
	commit, err := carol.clone.Commit(m.t.Context(), "FEATURE", branch+"\n", "A feature")
	m.must(err)
	m.must(carol.clone.Push(m.t.Context(), "HEAD:"+branch))
	id := ""
	shows := func(state string) error {
		all, err := m.Statuses(m.t.Context(), carol.fork, commit)
		if err == nil && (len(all) != 1 || all[0].State != state) {
			err = fmt.Errorf("Bitbucket shows %+v of the fork's %s", all, commit)
		}
		if err == nil {
			id = strings.TrimPrefix(all[0].URL, m.Hub+"/builds/")
		}
		return err
	}
	return walkOf{
		act: func() error {
			if !opened {
				if _, err := carol.PullRequestFrom(m.t.Context(), carol.fork, shop, branch, branch, target); err != nil {
					return err
				}
				opened = true
			}
			m.until("the build to be held", func() error { return shows("INPROGRESS") })
			return m.approve(m.Visitor, id)
		},
		over: func() error { return shows("SUCCESSFUL") },
		check: func() error {
			if err := shows("SUCCESSFUL"); err != nil {
				return err
			}
			b := m.buildsOf(commit)
			if len(b) != 1 || b[0].ID != id || b[0].State != "SUCCESSFUL" || b[0].Held || b[0].ApprovedBy != "Alice Admin" || b[0].Fork != carol.fork {
				return fmt.Errorf("the builds are %+v", b)
			}
			if ran := m.marked(commit); ran != "ran\n" {
				return fmt.Errorf("the step left %q", ran)
			}
			all, err := m.explained()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(all, func(d visitor.Delivery) bool { return d.Event == "pullrequest:created" && d.Decisions[0].Build == id }) {
				return fmt.Errorf("no delivery tells of build %s: %+v", id, all)
			}
			return nil
		},
	}
}

// signingOut ends a session.
func signingOut(m *mortal) walkOf {
	v := m.person(m.Hub, m.Forge, "bob")
	m.must(v.SignIn(m.t.Context()))
	before := v.Cookies()
	return walkOf{
		act: func() error {
			err := v.Call(m.t.Context(), http.MethodPost, "/auth/logout", nil, nil)
			if refusedWith(err, http.StatusUnauthorized) { // it was ended, and the answer was lost
				return nil
			}
			return err
		},
		check: func() error { return m.signedOut(before) },
	}
}
