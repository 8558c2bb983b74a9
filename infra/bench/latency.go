package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"runnerhub/shared/random"
)

// latency is what Bitbucket takes longer for each call in the figures that say so.
const latency = 100 * time.Millisecond

// lone is what one push, or one pull request, alone on the server, came to.
type lone struct {
	answered time.Duration // from the POST to its answer
	posted   time.Duration // from the POST until the forge had stored INPROGRESS
	calls    int           // of Bitbucket until then
	way      []string      // durable writes until then, see onTheWay
	floor    floor         // measured right after it
	forge    sample        // what the forge itself took for its calls
}

// alone sends a request while nothing else is to do.
func (h *hub) alone(ctx context.Context, r request) (l lone, err error) {
	if err := h.idle(ctx); err != nil {
		return l, err
	}
	var writes []write
	if err := h.ask(ctx, http.MethodGet, "writes", nil, &writes); err != nil {
		return l, err
	}
	h.forge.forget()
	began, took, err := h.send(ctx, r)
	if err != nil {
		return l, err
	}
	p, err := h.forge.await(ctx, r.commit)
	if err != nil {
		return l, err
	}
	if err := h.idle(ctx); err != nil {
		return l, err
	}
	if err := h.ask(ctx, http.MethodGet, "writes", nil, &writes); err != nil {
		return l, err
	}
	l = lone{answered: took, posted: p.at.Sub(began), calls: p.calls, way: onTheWay(writes, p.at), forge: h.forge.took()}
	err = h.ask(ctx, http.MethodPost, "floor", floorQuestion{App: r.target.app, Commit: r.commit, Key: random.ID()}, &l.floor)
	return l, err
}

// several sends pushes one after the other.
func (h *hub) several(ctx context.Context, count int) ([]lone, error) {
	commits, err := h.deal(count)
	if err != nil {
		return nil, err
	}
	all := make([]lone, count)
	for i, c := range commits {
		r, err := c.push()
		if err != nil {
			return nil, err
		}
		if all[i], err = h.alone(ctx, r); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func collect(all []lone, what func(lone) time.Duration) (s sample) {
	for _, l := range all {
		s = append(s, what(l))
	}
	return s
}

// benchLatency measures pushes that come one at a time.
func benchLatency(ctx context.Context, h *hub, rounds int) (figure, error) {
	if _, err := h.several(ctx, max(1, rounds/8)); err != nil { // prepares statements, opens connections
		return figure{}, err
	}
	all, err := h.several(ctx, rounds)
	if err != nil {
		return figure{}, err
	}
	typical := slices.MaxFunc(all, func(a, b lone) int { return len(a.way) - len(b.way) })
	posted := collect(all, func(l lone) time.Duration { return l.posted })
	least := collect(all, func(l lone) time.Duration { return l.floor.way(len(typical.way)) })
	var forge sample
	calls := 0
	for _, l := range all {
		forge = append(forge, l.forge...)
		calls = max(calls, l.calls)
	}
	reached := ratio(posted.median(), least.median())
	part := func(what func(floor) time.Duration) string {
		return short(collect(all, func(l lone) time.Duration { return what(l.floor) }).median())
	}
	return figure{
		what:     "POST to first INPROGRESS, 1 client",
		measured: fmt.Sprintf("p50 %s, p99 %s", short(posted.median()), short(posted.at(0.99))),
		floor:    short(least.median()), ratio: fmt.Sprintf("%.2f", reached),
		reach: "at most 3 × (its calls + its commits)", reached: reached <= 3, beside: "p50 6.5 ms, p99 22 ms",
		notes: []string{
			"to INPROGRESS:  " + posted.spread(),
			"to the answer:  " + collect(all, func(l lone) time.Duration { return l.answered }).spread(),
			"floor:          " + least.spread(),
			fmt.Sprintf("one call of each kind on the idle forge: pipeline file %s, open pull requests %s, status %s (at most %d calls a push)",
				part(func(f floor) time.Duration { return f.Source }), part(func(f floor) time.Duration { return f.PullRequests }),
				part(func(f floor) time.Duration { return f.Status }), calls),
			fmt.Sprintf("one durable commit on the idle file: %s; on the way there are %d: %s",
				part(func(f floor) time.Duration { return f.Commit }), len(typical.way), strings.Join(typical.way, ", ")),
			"the forge's own part of a call: " + forge.spread(),
		},
	}, nil
}

// benchCalls counts the calls of Bitbucket until INPROGRESS, where each takes long.
func benchCalls(ctx context.Context, h *hub, rounds int) (f figure, err error) {
	if err := h.forge.slow(ctx, latency); err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, h.forge.slow(ctx, 0)) }()
	pushed, err := h.several(ctx, rounds)
	if err != nil {
		return f, err
	}
	commits, err := h.deal(rounds)
	if err != nil {
		return f, err
	}
	asked := make([]lone, rounds)
	for i, c := range commits {
		r, err := c.pullRequest(i + 1)
		if err != nil {
			return f, err
		}
		if asked[i], err = h.alone(ctx, r); err != nil {
			return f, err
		}
	}
	most := func(all []lone) int {
		return slices.MaxFunc(all, func(a, b lone) int { return a.calls - b.calls }).calls
	}
	posted := func(l lone) time.Duration { return l.posted }
	push, pull := collect(pushed, posted), collect(asked, posted)
	return figure{
		what:     "calls until INPROGRESS",
		measured: fmt.Sprintf("push %d, pull request %d", most(pushed), most(asked)),
		reach:    "push at most 3, pull request at most 4", reached: most(pushed) <= 3 && most(asked) <= 4,
		beside: "8 calls before it answers",
		notes: []string{
			"push, POST to INPROGRESS with 100 ms a call:         " + push.spread(),
			"pull request, POST to INPROGRESS with 100 ms a call: " + pull.spread(),
			"either, POST to the answer with 100 ms a call:       " + collect(append(pushed, asked...), func(l lone) time.Duration { return l.answered }).spread(),
		},
	}, nil
}
