package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// burst is what a number of clients that send one push after the other came to.
type burst struct {
	sent     int
	took     time.Duration // until the last answer
	posted   time.Duration // until the last INPROGRESS
	answers  sample        // from the POST to a 200
	refusals []error       // of those that were not accepted
	lost     error         // what does not follow from those that were
}

// rate is how many were accepted a second.
func (b burst) rate() float64 { return float64(len(b.answers)) / b.took.Seconds() }

// burst sends pushes from a number of clients, waits for what follows from them and
// looks whether it did.
func (h *hub) burst(ctx context.Context, pushes []request, clients int) (burst, error) {
	h.forge.forget()
	b := burst{sent: len(pushes)}
	var mu sync.Mutex
	var accepted []request
	var sending sync.WaitGroup
	next := make(chan request)
	began := time.Now()
	for range clients {
		sending.Go(func() {
			for r := range next {
				_, took, err := h.send(ctx, r)
				mu.Lock()
				if err != nil {
					b.refusals = append(b.refusals, err)
				} else {
					accepted, b.answers = append(accepted, r), append(b.answers, took)
				}
				mu.Unlock()
			}
		})
	}
	for _, r := range pushes {
		next <- r
	}
	close(next)
	sending.Wait()
	b.took = time.Since(began)
	if err := h.drain(ctx); err != nil {
		return b, err
	}
	for _, r := range accepted {
		at, ok := h.forge.told(r.commit)
		if !ok {
			b.lost = fmt.Errorf("commit %.12s of %s never got its INPROGRESS", r.commit, r.target.FullName)
		}
		b.posted = max(b.posted, at.Sub(began))
	}
	b.lost = errors.Join(b.lost, h.audit(ctx))
	return b, nil
}

// ok reports whether every push was accepted and nothing was lost.
func (b burst) ok() bool { return len(b.refusals) == 0 && b.lost == nil }

// troubles are what was refused and lost, in words.
func (b burst) troubles() (notes []string) {
	if n := len(b.refusals); n > 0 {
		notes = append(notes, fmt.Sprintf("REFUSED: %d, the first of them: %v", n, b.refusals[0]))
	}
	if b.lost != nil {
		notes = append(notes, "LOST: "+b.lost.Error())
	}
	return notes
}

// warm sends one push a target: it prepares statements and opens connections.
func (h *hub) warm(ctx context.Context, clients int) error {
	pushes, err := h.pushes(len(h.targets))
	if err != nil {
		return err
	}
	b, err := h.burst(ctx, pushes, clients)
	return errors.Join(append(b.refusals, b.lost, err)...)
}

// loaded is one repeat of the load.
type loaded struct {
	burst
	cpu time.Duration // of the server under test, from the first push until all was done
}

// load is one repeat, on a server of its own.
func load(ctx context.Context, h *hub, server *child, each, clients int) (l loaded, err error) {
	if err := h.warm(ctx, clients); err != nil {
		return l, err
	}
	pushes, err := h.pushes(each * len(h.targets))
	if err != nil {
		return l, err
	}
	before, err := server.cpu()
	if err != nil {
		return l, err
	}
	if l.burst, err = h.burst(ctx, pushes, clients); err != nil {
		return l, err
	}
	after, err := server.cpu()
	l.cpu = after - before
	return l, err
}

// figureLoad sums the repeats up.
func figureLoad(all []loaded, clients, repositories int) figure {
	const want = 300 // a second
	f := figure{
		what:  fmt.Sprintf("signed pushes accepted, %d clients, %d repositories", clients, repositories),
		reach: "300 a second, none refused, none lost", beside: "156 at its best; 41 with 18 % refused as installed",
	}
	var per sample // times a push, to order the rates by
	refused, ok := 0, true
	for i, l := range all {
		per = append(per, l.took/time.Duration(max(1, len(l.answers))))
		refused += len(l.refusals)
		ok = ok && l.ok()
		f.notes = append(f.notes,
			fmt.Sprintf("repeat %d: %d pushes, %.0f a second accepted, %.0f a second told to Bitbucket as INPROGRESS, %d refused",
				i+1, l.sent, l.rate(), float64(l.sent)/max(l.posted, l.took).Seconds(), len(l.refusals)),
			"  answers: "+l.answers.spread(),
			"  "+short(l.cpu/time.Duration(max(1, l.sent)))+" of the server's processor time a push, from the POST to the end of all that follows",
		)
		f.notes = append(f.notes, l.troubles()...)
	}
	median := 1 / per.median().Seconds()
	f.measured = fmt.Sprintf("%.0f a second, %d refused", median, refused)
	f.ratio = fmt.Sprintf("%.2f of %d", median/want, want)
	f.reached = median >= want && ok
	if ok {
		f.measured += ", none lost"
		f.notes = append(f.notes, "none lost: after each repeat every accepted push had one delivery with one decision, one build, and its INPROGRESS")
	}
	return f
}

// benchSlow compares answers with and without a slow Bitbucket.
func benchSlow(ctx context.Context, h *hub, each, clients int) (f figure, err error) {
	if err := h.warm(ctx, clients); err != nil {
		return f, err
	}
	measure := func(took time.Duration) (burst, error) {
		if err := h.forge.slow(ctx, took); err != nil {
			return burst{}, err
		}
		pushes, err := h.pushes(each * len(h.targets))
		if err != nil {
			return burst{}, err
		}
		return h.burst(ctx, pushes, clients)
	}
	quick, err := measure(0)
	if err != nil {
		return f, err
	}
	slow, err := measure(latency)
	if err := errors.Join(err, h.forge.slow(ctx, 0)); err != nil {
		return f, err
	}
	r := ratio(slow.answers.median(), quick.answers.median())
	return figure{
		what:     "the same with 100 ms of Bitbucket latency",
		measured: fmt.Sprintf("answer p50 %s, p99 %s", short(slow.answers.median()), short(slow.answers.at(0.99))),
		floor:    short(quick.answers.median()), ratio: fmt.Sprintf("%.2f", r),
		reach: "answer unchanged (p50 within 1.2 ×), none lost", reached: r <= 1.2 && quick.ok() && slow.ok(), beside: "825 ms",
		notes: append([]string{
			"answers without latency: " + quick.answers.spread(),
			"answers with 100 ms:     " + slow.answers.spread(),
			fmt.Sprintf("%d pushes were accepted in %s; the last was told to Bitbucket as INPROGRESS after %s (without latency %s)",
				slow.sent, short(slow.took), short(slow.posted), short(quick.posted)),
		}, append(quick.troubles(), slow.troubles()...)...),
	}, nil
}
