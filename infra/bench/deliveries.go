package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// holding is a pipeline whose first build holds the only place, so that all others wait.
const holding = "name: Bench\nplatform: linux\ntriggers: [push, pull_request]\nsteps:\n  - name: Hold\n    run: sleep 3000\n"

// manyDeliveries sends signed pushes to the public route, each a change of its own, and looks at what became of them.
func (b *bench) manyDeliveries(ctx context.Context) (figures []figure, err error) {
	each := (b.deliveries + b.repositories - 1) / b.repositories
	d, err := b.deploy(ctx, "deliveries", holding, b.repositories, each+2, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.hub.warm(ctx, b.clients); err != nil { // and one of them holds the place
		return nil, err
	}
	pushes, err := d.hub.pushes(b.deliveries)
	if err != nil {
		return nil, err
	}
	d.ledger.take()
	d.output.take()
	began := time.Now()
	var whole time.Duration
	var works []work
	d.hub.drain = func(ctx context.Context) error {
		b.say("all are sent")
		err := d.drained(ctx)
		whole, works = time.Since(began), d.ledger.take()
		return err
	}
	b.say(fmt.Sprintf("sending %d deliveries", len(pushes)))
	sent, err := d.hub.burst(ctx, pushes, b.clients)
	if err != nil {
		return nil, err
	}
	n := float64(len(pushes))
	f := figure{
		what:     fmt.Sprintf("%d deliveries, %d instances of dispatch", len(pushes), workers),
		measured: fmt.Sprintf("%d accepted, %d refused, %.0f a second", len(sent.answers), len(sent.refusals), n/whole.Seconds()),
		reach:    "one build each, no dead letter, 0 refused, 0 lost", reached: sent.ok(),
		notes: []string{
			fmt.Sprintf("accepted at %.0f a second; decided, stored and told to Bitbucket at %.0f a second, which took %s", sent.rate(), n/whole.Seconds(), short(whole)),
			"answers: " + sent.answers.spread(),
		},
	}
	if sent.ok() {
		f.measured += ", none lost"
		f.notes = append(f.notes, "none lost: every accepted push had one delivery with one decision, one build, and its INPROGRESS; no queue had a dead letter")
	}
	functions := by(works, function)
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		t := sum(functions[name])
		aws, bitbucket := t.total()
		f.notes = append(f.notes, fmt.Sprintf("%s: %.3g calls of AWS and %.3g of Bitbucket a delivery; %s", name, float64(aws)/n, float64(bitbucket)/n, t.measured()), "  "+t.String())
	}
	for queue, p := range d.polls() {
		f.notes = append(f.notes, fmt.Sprintf("event source of %s: %d receives with messages, %d messages deleted", queue, p.Batches, p.Deletes))
	}
	f.notes = append(f.notes, sent.troubles()...)
	return []figure{f}, nil
}
