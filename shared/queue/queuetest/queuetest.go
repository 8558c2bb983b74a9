// Package queuetest holds every driver of package queue to the same contract:
// what was published is delivered, also when holders and publishers are killed;
// what was deleted stays deleted; what nobody can work on is set aside.
//
// A driver's test is two lines, a TestMain and a Run. The suite waits for
// messages and never for time; the times in it are a driver's own.
package queuetest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/crashtest"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
)

// Settings are those of one queue.
type Settings struct {
	Visibility  time.Duration
	MaxAttempts int
}

// Harness is how the suite reaches a driver.
type Harness struct {
	// New makes an empty queue for one test and answers its address (a file, a
	// URL), good for Open in this process and in others.
	New func(t testing.TB, s Settings) (address string)
	// Open opens it, with the same settings. The suite closes it before it is
	// opened elsewhere.
	Open func(address string, s Settings) (q queue.Queue, closing func() error, err error)
	// Shortest is the shortest visibility and delay, but none, that the driver keeps exactly.
	Shortest time.Duration
}

const (
	// long is a visibility that does not end within a test.
	long = 10 * time.Minute
	// patience is for what must come; a healthy driver needs a part of it.
	patience = 20 * time.Second
)

// Main is to be called by the TestMain of the driver.
func Main(m *testing.M, h Harness) {
	crashtest.Main(m, map[string]crashtest.Role{
		"hold":    h.role(holdUntilKilled),
		"publish": h.role(publishUntilKilled),
		"consume": h.role(consumeUntilKilled),
	})
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	seldom := Settings{Visibility: long, MaxAttempts: 3}
	often := Settings{Visibility: h.Shortest, MaxAttempts: 100}
	for name, test := range map[string]struct {
		settings Settings
		run      func(*testing.T, queue.Queue, Harness)
	}{
		"a message's life":            {seldom, life},
		"held is hidden":              {seldom, heldIsHidden},
		"left is delivered again":     {often, leftIsDeliveredAgain},
		"stale receipts":              {often, staleReceipts},
		"retry":                       {seldom, retry},
		"delay":                       {seldom, delay},
		"dead letters":                {seldom, deadLetters},
		"left too often is dead":      {Settings{h.Shortest, 2}, leftTooOften},
		"redrive within limit":        {Settings{long, 1}, redriveWithinLimit},
		"bodies":                      {seldom, bodies},
		"refusals":                    {seldom, refusals},
		"limit":                       {seldom, limit},
		"many consumers":              {seldom, manyConsumers},
		"a publish wakes":             {seldom, publishWakes},
		"the earlier wakes first":     {seldom, earlierFirst},
		"a retry wakes":               {seldom, retryWakes},
		"one redrive wakes all":       {Settings{long, 1}, redriveWakesAll},
		"the one left waiting":        {seldom, theOneLeftWaiting},
		"ended context":               {seldom, endedContext},
		"cancelled receivers":         {often, cancelledReceivers},
		"an empty queue has nothing ": {seldom, empty},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, closing, err := h.Open(h.New(t, test.settings), test.settings)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := closing(); err != nil {
					t.Error(err)
				}
			})
			test.run(t, q, h)
		})
	}
	for name, test := range map[string]func(*testing.T, Harness){
		"killed holder": killedHolder, "killed publisher": killedPublisher, "killed consumer": killedConsumer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h)
		})
	}
}

func publish(t *testing.T, q queue.Queue, body string) {
	t.Helper()
	if err := q.Publish(t.Context(), []byte(body), 0); err != nil {
		t.Fatalf("publishing: %v", err)
	}
}

// one waits for a message, which must come when it is due, not when the wait ends.
func one(t *testing.T, q queue.Queue) queue.Message {
	t.Helper()
	defer inTime(t, time.Now())
	messages, err := q.Receive(t.Context(), 1, patience)
	if err != nil || len(messages) != 1 {
		t.Fatalf("receiving one message: %d, %v", len(messages), err)
	}
	return messages[0]
}

// inTime holds that a driver delivers by itself what is due, and does not find
// it only by looking once more when the receiver's time is over.
func inTime(t *testing.T, began time.Time) {
	t.Helper()
	if waited := time.Since(began); waited > patience/2 {
		t.Errorf("it took %v until what was due had come", waited)
	}
}

// none holds that nothing is delivered within wait.
func none(t *testing.T, q queue.Queue, wait time.Duration) {
	t.Helper()
	messages, err := q.Receive(t.Context(), 10, wait)
	if err != nil || len(messages) != 0 {
		t.Fatalf("want no message: %v, %v", messages, err)
	}
}

func end(t *testing.T, q queue.Queue, m queue.Message) {
	t.Helper()
	if err := q.Delete(t.Context(), m.Receipt); err != nil {
		t.Fatalf("deleting: %v", err)
	}
}

func putBack(t *testing.T, q queue.Queue, m queue.Message) {
	t.Helper()
	if err := q.Retry(t.Context(), m.Receipt, 0); err != nil {
		t.Fatalf("retrying: %v", err)
	}
}

// drain receives and deletes until n messages came, and answers how often each body did.
func drain(t *testing.T, q queue.Queue, n int) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for range n {
		m := one(t, q)
		seen[string(m.Body)]++
		end(t, q, m)
	}
	return seen
}

func wantKind(t *testing.T, doing string, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("%s: %v, want an error of the kind %s", doing, err, kind.Outcome().Name)
	}
}

// together runs n goroutines and waits for them.
func together(t *testing.T, n int, do func(ctx context.Context, n int) error) {
	t.Helper()
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := do(t.Context(), i); err != nil {
				t.Errorf("goroutine %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// role makes a child's role of a function on an open queue.
func (h Harness) role(play func(q queue.Queue, say func(string)) error) crashtest.Role {
	return func(args []string, say func(string)) error {
		visibility, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		attempts, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		q, _, err := h.Open(args[0], Settings{visibility, attempts})
		if err != nil {
			return fmt.Errorf("opening in the child: %w", err)
		}
		return play(q, say)
	}
}

// start runs a role on the place in a child process.
func start(t *testing.T, role, address string, s Settings) *crashtest.Child {
	t.Helper()
	return crashtest.Start(t, role, address, s.Visibility.String(), strconv.Itoa(s.MaxAttempts))
}
