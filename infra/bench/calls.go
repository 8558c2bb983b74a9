package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"runnerhub/infra/lambdahost"
)

// passing is a pipeline whose builds pass at once.
const passing = "name: Bench\nplatform: linux\ntriggers: [push, pull_request]\nsteps:\n  - name: One\n    run: echo one\n  - name: Two\n    run: echo two\n"

const (
	// calm is for how long nobody calls anybody once a build is over: CodeBuild tells of its end after its agent did.
	calm = 2 * time.Second
	// warmed is how many builds have to meet no process that has just been started, or that has no token opened yet, and tries after how
	// many builds that is given up.
	warmed = 5
	tries  = 30
)

// life is a build from its push to its end, as the functions had to do with it.
type life struct {
	works []work
	// polls is what the event sources asked of their queues, by the queue's name.
	polls   map[string]lambdahost.Polls
	printed map[string]int // bytes, by the function's id
}

// functionCalls counts what functions call on the way from a push to the end of its build.
func (b *bench) functionCalls(ctx context.Context) (figures []figure, err error) {
	d, err := b.deploy(ctx, "calls", passing, 1, 1+tries, 2)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	// Setting that up has woken functions.
	if err := errors.Join(d.Stop(), d.Start()); err != nil {
		return nil, err
	}
	cold, err := d.build(ctx)
	if err != nil {
		return nil, err
	}
	var all []life
	for try := 1; len(all) < warmed; try++ {
		if try == tries {
			return nil, fmt.Errorf("%d of %d builds met warm functions alone", len(all), tries)
		}
		l, err := d.build(ctx)
		if err != nil {
			return nil, err
		}
		if t := sum(l.works); t.cold == 0 && t.calls["kms Decrypt"] == 0 {
			all = append(all, l)
		}
	}
	// They differ by a call that was made again because its answer got lost, and by how many steps an agent tells of at once.
	slices.SortFunc(all, func(a, b life) int { return cmp.Compare(a.size(), b.size()) })
	warm := all[len(all)/2]
	minute, err := d.minute(ctx)
	for _, call := range d.Host().Denied() {
		err = errors.Join(err, fmt.Errorf("the template does not allow that %s", call))
	}
	build := figureBuild(cold, warm)
	build.notes = append(build.notes, fmt.Sprintf("warm is the one in the middle of %d warm builds, with %d to %d calls each", warmed, all[0].size(), all[len(all)-1].size()))
	routed := map[string]bool{}
	for _, r := range d.Stack.Routes {
		routed[r.Function] = true
	}
	return []figure{figureAccepted(cold, warm), build, figureStatus(cold, warm), minute, figureCost(warm, routed)}, err
}

// size is how many calls there were.
func (l life) size() int {
	aws, bitbucket := sum(l.works).total()
	return aws + bitbucket
}

// build pushes and waits for the end of all that follows.
func (d *deployment) build(ctx context.Context) (life, error) {
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	pushes, err := d.hub.pushes(1)
	if err != nil {
		return life{}, err
	}
	commit := pushes[0].commit
	before := d.polls()
	d.ledger.take()
	d.output.take()
	if _, _, err := d.hub.send(ctx, pushes[0]); err != nil {
		return life{}, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		state := d.forge.state(commit)
		if state == "SUCCESSFUL" && d.ledger.quiet(calm) {
			left, dead, err := d.left(ctx)
			if err != nil {
				return life{}, err
			}
			if dead > 0 {
				return life{}, fmt.Errorf("%d messages became dead letters", dead)
			}
			if left == 0 {
				break
			}
		}
		if state != "" && state != "INPROGRESS" && state != "SUCCESSFUL" {
			return life{}, fmt.Errorf("the build of %.12s is %s", commit, state)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return life{}, fmt.Errorf("waiting for the end of the build of %.12s, which is %q: %w", commit, state, context.Cause(ctx))
		}
	}
	l := life{works: slices.DeleteFunc(d.ledger.take(), clocked), polls: d.polls()}
	for queue, p := range l.polls {
		b := before[queue]
		l.polls[queue] = lambdahost.Polls{Empty: p.Empty - b.Empty, Batches: p.Batches - b.Batches, Deletes: p.Deletes - b.Deletes}
	}
	l.printed = d.output.take()
	return l, nil
}

// polls is what the event sources have asked so far.
func (d *deployment) polls() map[string]lambdahost.Polls {
	all := map[string]lambdahost.Polls{}
	for _, s := range d.Stack.Sources {
		for _, q := range d.Stack.Queues {
			if q.ID == s.Queue {
				all[q.Name] = d.Host().Polls(q.ID)
			}
		}
	}
	return all
}

// minute counts what goes on when nothing does.
func (d *deployment) minute(ctx context.Context) (figure, error) {
	f := figure{what: "calls of an idle minute", reach: "counted", reached: true}
	var all []work
	for _, name := range []string{sweepFunction, refreshFunction} {
		var works []work
		for range 2 { // the first event may be its process's first
			d.ledger.take()
			if err := d.Host().Tick(ctx, name, time.Now()); err != nil {
				return f, fmt.Errorf("an idle minute: %w", err)
			}
			works = slices.DeleteFunc(d.ledger.take(), func(w work) bool { return w.Function != name })
		}
		if len(works) == 0 {
			return f, fmt.Errorf("an idle minute: %s did nothing", name)
		}
		works = works[:1]
		all = append(all, works...)
		f.notes = append(f.notes, function(works[0])+": "+sum(works).measured(), "  "+sum(works).String())
	}
	aws, _ := sum(all).total()
	f.measured = fmt.Sprintf("%d of AWS", aws)
	f.notes = append(f.notes, "event sources are polled beside that: Lambda keeps at least five long polls of 20 s open for each of the two queues, and SQS charges them")
	return f, nil
}

func figureAccepted(cold, warm life) figure {
	of := func(l life) tally { return sum(by(l.works, function)["webhook"]) }
	t := of(warm)
	reads, sends, others := 0, 0, 0
	for name, n := range t.calls {
		switch name {
		case "dynamodb GetItem", "dynamodb BatchGetItem", "dynamodb Query":
			reads += n
		case "sqs SendMessage":
			sends += n
		default:
			others += n
		}
	}
	return figure{
		what: "calls of an accepted push", measured: t.String(),
		reach: "warm: 1 SQS send, no KMS, at most 1 read", reached: sends == 1 && reads <= 1 && others == 0,
		notes: []string{"warm: " + t.measured(), "  " + t.String(), "cold: " + of(cold).measured(), "  " + of(cold).String()},
	}
}

// figureBuild is what follows from a push that was accepted.
func figureBuild(cold, warm life) figure {
	f := figure{what: "calls of a build, from its delivery to its end", reach: "counted", reached: true}
	for _, l := range []struct {
		name string
		life
	}{{"warm", warm}, {"cold", cold}} {
		functions := by(l.works, function)
		delete(functions, "webhook")
		var all []work
		for _, name := range slices.Sorted(maps.Keys(functions)) {
			t := sum(functions[name])
			all = append(all, functions[name]...)
			f.notes = append(f.notes, l.name+" "+name+": "+t.measured(), "  "+t.String())
		}
		t := sum(all)
		aws, bitbucket := t.total()
		f.notes = append(f.notes, fmt.Sprintf("%s in all: %d calls of AWS, %d of Bitbucket; %s", l.name, aws, bitbucket, t.measured()))
		for _, queue := range slices.Sorted(maps.Keys(l.polls)) {
			p := l.polls[queue]
			f.notes = append(f.notes, fmt.Sprintf("%s event source of %s: %d receives with messages, %d messages deleted; %d receives of 1 s that found nothing",
				l.name, queue, p.Batches, p.Deletes, p.Empty))
		}
		if l.name == "warm" {
			f.measured = fmt.Sprintf("%d of AWS, %d of Bitbucket", aws, bitbucket)
		}
	}
	return f
}

// statuses are the events in which a status was posted.
func statuses(l life) (posts []work) {
	for _, w := range l.works {
		if slices.ContainsFunc(slices.Collect(maps.Keys(sum([]work{w}).calls)), func(name string) bool { return strings.HasSuffix(name, "/statuses/build") }) {
			posts = append(posts, w)
		}
	}
	return posts
}

func figureStatus(cold, warm life) figure {
	of := func(l life) (events int, t tally) {
		posts := statuses(l)
		return len(posts), sum(posts)
	}
	n, t := of(warm)
	aws, bitbucket := t.total()
	many, c := of(cold)
	n, many = max(n, 1), max(many, 1)
	return figure{
		what: "calls of a status", measured: fmt.Sprintf("%.3g of AWS, %.3g of Bitbucket", float64(aws)/float64(n), float64(bitbucket)/float64(n)),
		reach: "counted", reached: true,
		notes: []string{
			fmt.Sprintf("warm, %d statuses: %s", n, t.measured()), "  " + t.String(),
			fmt.Sprintf("cold, %d statuses: %s", many, c.measured()), "  " + c.String(),
		},
	}
}
