package queuetest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"runnerhub/shared/queue"
)

// reopen opens the queue after a child was killed, for the rest of the test.
func reopen(t *testing.T, h Harness, address string, s Settings, then func(queue.Queue)) {
	t.Helper()
	q, closing, err := h.Open(address, s)
	if err != nil {
		t.Fatalf("opening: %v", err)
	}
	then(q)
	if err := closing(); err != nil {
		t.Fatalf("closing: %v", err)
	}
}

// killedHolder kills who holds a message: another gets it.
func killedHolder(t *testing.T, h Harness) {
	s := Settings{h.Shortest, 3}
	address := h.New(t, s)
	reopen(t, h, address, s, func(q queue.Queue) { publish(t, q, "held") })
	for range 2 {
		child := start(t, "hold", address, s)
		if got := child.Line(); got != "held" {
			t.Errorf("the child held %q", got)
		}
		child.Kill()
	}
	reopen(t, h, address, s, func(q queue.Queue) {
		m := one(t, q)
		if m.Attempt != 3 || string(m.Body) != "held" {
			t.Errorf("after two holders were killed came %+v", m)
		}
		end(t, q, m)
		none(t, q, 2*h.Shortest)
	})
}

func holdUntilKilled(q queue.Queue, say func(string)) error {
	messages, err := q.Receive(context.Background(), 1, patience)
	if err != nil || len(messages) == 0 {
		return fmt.Errorf("nothing to hold: %w", err)
	}
	say(string(messages[0].Body))
	select {}
}

// killedPublisher kills who publishes: every acknowledged message is delivered.
func killedPublisher(t *testing.T, h Harness) {
	s := Settings{long, 3}
	address := h.New(t, s)
	for _, lines := range []int{1, 90} {
		child := start(t, "publish", address, s)
		var acknowledged []string
		for range lines {
			acknowledged = append(acknowledged, child.Line())
		}
		acknowledged = append(acknowledged, child.Kill()...)
		reopen(t, h, address, s, func(q queue.Queue) {
			seen := map[string]int{}
			for !has(seen, acknowledged) {
				m := one(t, q)
				seen[string(m.Body)]++
				end(t, q, m)
			}
			for { // what was under way may be there as well, whole
				messages, err := q.Receive(t.Context(), 10, 0)
				if err != nil {
					t.Fatal(err)
				}
				if len(messages) == 0 {
					break
				}
				for _, m := range messages {
					seen[string(m.Body)]++
					end(t, q, m)
				}
			}
			for body, times := range seen {
				number, filler, _ := strings.Cut(body, " ")
				if _, err := strconv.Atoi(number); err != nil || times != 1 || filler != padding() {
					t.Errorf("%.20q came %d times", body, times)
				}
			}
		})
	}
}

func padding() string { return strings.Repeat("x", 3000) }

// has reports whether each number was seen as a message.
func has(seen map[string]int, numbers []string) bool {
	return !slices.ContainsFunc(numbers, func(n string) bool { return seen[n+" "+padding()] == 0 })
}

func publishUntilKilled(q queue.Queue, say func(string)) error {
	var last atomic.Int64
	failed := make(chan error)
	for range 4 {
		go func() {
			for {
				n := strconv.FormatInt(last.Add(1), 10)
				if err := q.Publish(context.Background(), []byte(n+" "+padding()), 0); err != nil {
					failed <- err
					return
				}
				say(n)
			}
		}()
	}
	return <-failed
}

// killedConsumer kills who receives and deletes: what it deleted does not come
// again, and everything else does.
func killedConsumer(t *testing.T, h Harness) {
	const total = 300
	s := Settings{max(h.Shortest, time.Second), 10}
	address := h.New(t, s)
	reopen(t, h, address, s, func(q queue.Queue) {
		together(t, 4, func(ctx context.Context, stream int) error {
			for n := stream; n < total; n += 4 {
				if err := q.Publish(ctx, []byte(strconv.Itoa(n)), 0); err != nil {
					return err
				}
			}
			return nil
		})
	})
	deleted := map[string]bool{}
	for _, lines := range []int{1, 40, 80} {
		child := start(t, "consume", address, s)
		var said []string
		for range lines {
			said = append(said, child.Line())
		}
		for _, body := range append(said, child.Kill()...) {
			deleted[body] = true
		}
	}
	reopen(t, h, address, s, func(q queue.Queue) {
		rest := map[string]bool{}
		for {
			// Nothing for longer than any delivery is held: that was all.
			messages, err := q.Receive(t.Context(), 10, 2*s.Visibility)
			if err != nil {
				t.Fatal(err)
			}
			if len(messages) == 0 {
				break
			}
			for _, m := range messages {
				if deleted[string(m.Body)] {
					t.Errorf("%s was deleted and came again", m.Body)
				}
				rest[string(m.Body)] = true
				end(t, q, m)
			}
		}
		// A deletion under way in each consumer at each kill may have happened unsaid.
		if missing := total - len(deleted) - len(rest); missing < 0 || missing > 3*4 {
			t.Errorf("of %d messages %d were deleted, %d came: %d are lost", total, len(deleted), len(rest), missing)
		}
	})
}

func consumeUntilKilled(q queue.Queue, say func(string)) error {
	failed := make(chan error)
	for range 4 {
		go func() {
			for {
				messages, err := q.Receive(context.Background(), 1, patience)
				for _, m := range messages {
					if err = q.Delete(context.Background(), m.Receipt); err == nil {
						say(string(m.Body))
					}
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}
