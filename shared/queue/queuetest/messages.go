package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
)

func life(t *testing.T, q queue.Queue, _ Harness) {
	before := time.Now().Add(-time.Second) // for what keeps whole seconds
	publish(t, q, `{"n":1}`)
	m := one(t, q)
	now := time.Now().Add(time.Second)
	if string(m.Body) != `{"n":1}` || m.Attempt != 1 || m.ID == "" || m.Receipt == "" {
		t.Errorf("delivered %+v", m)
	}
	if m.SentAt.Before(before) || m.SentAt.After(now) || m.Deadline.Before(before.Add(long)) || m.Deadline.After(now.Add(long)) {
		t.Errorf("sent at %v, deadline %v, now %v", m.SentAt, m.Deadline, now)
	}
	end(t, q, m)
	none(t, q, 0)
	end(t, q, m) // once more is no error
	if err := q.Retry(t.Context(), m.Receipt, 0); err != nil {
		t.Errorf("retrying what is gone: %v", err)
	}
	none(t, q, 0)
}

func empty(t *testing.T, q queue.Queue, h Harness) {
	began := time.Now()
	none(t, q, h.Shortest)
	if waited := time.Since(began); waited < h.Shortest {
		t.Errorf("waited %v for a message, was to wait %v", waited, h.Shortest)
	}
	none(t, q, 0)
}

func heldIsHidden(t *testing.T, q queue.Queue, h Harness) {
	publish(t, q, "one")
	publish(t, q, "two")
	first, second := one(t, q), one(t, q)
	if first.ID == second.ID || first.Receipt == second.Receipt {
		t.Errorf("the held message was delivered again: %+v, %+v", first, second)
	}
	none(t, q, h.Shortest)
	end(t, q, first)
	putBack(t, q, second)
	if again := one(t, q); again.ID != second.ID || again.Attempt != 2 {
		t.Errorf("after deleting %s and returning %s came %+v", first.ID, second.ID, again)
	}
}

func leftIsDeliveredAgain(t *testing.T, q queue.Queue, _ Harness) {
	publish(t, q, "left")
	last := one(t, q)
	for attempt := 2; attempt <= 4; attempt++ {
		m := one(t, q)
		if early := time.Until(last.Deadline); early > 0 {
			t.Errorf("delivered %v before the deadline of attempt %d", early, last.Attempt)
		}
		if m.ID != last.ID || m.Attempt != attempt || m.Receipt == last.Receipt || string(m.Body) != "left" || !m.SentAt.Equal(last.SentAt) {
			t.Errorf("after %+v came %+v", last, m)
		}
		last = m
	}
}

func staleReceipts(t *testing.T, q queue.Queue, _ Harness) {
	publish(t, q, "kept")
	stale := one(t, q)
	one(t, q) // a second delivery, by which the first is stale
	if err := q.Delete(t.Context(), stale.Receipt); err != nil {
		t.Errorf("deleting with a stale receipt: %v", err)
	}
	if err := q.Retry(t.Context(), stale.Receipt, queue.MaxDelay); err != nil {
		t.Errorf("retrying with a stale receipt: %v", err)
	}
	// It is still there, and not put off by a quarter of an hour.
	current := one(t, q)
	if string(current.Body) != "kept" || current.Attempt != 3 {
		t.Errorf("delivered %+v", current)
	}
}

func retry(t *testing.T, q queue.Queue, h Harness) {
	publish(t, q, "again")
	m := one(t, q)
	putBack(t, q, m)
	if m = one(t, q); m.Attempt != 2 {
		t.Errorf("delivered %+v", m)
	}
	began := time.Now()
	if err := q.Retry(t.Context(), m.Receipt, h.Shortest); err != nil {
		t.Fatal(err)
	}
	m = one(t, q)
	if waited := time.Since(began); waited < h.Shortest || m.Attempt != 3 {
		t.Errorf("attempt %d came after %v, not before %v was asked", m.Attempt, waited, h.Shortest)
	}
	end(t, q, m)
}

func delay(t *testing.T, q queue.Queue, h Harness) {
	began := time.Now()
	if err := q.Publish(t.Context(), []byte("later"), h.Shortest); err != nil {
		t.Fatal(err)
	}
	if err := q.Publish(t.Context(), []byte("much later"), queue.MaxDelay); err != nil {
		t.Fatal(err)
	}
	m := one(t, q)
	if waited := time.Since(began); waited < h.Shortest || string(m.Body) != "later" {
		t.Errorf("%s came after %v, not before %v was asked", m.Body, waited, h.Shortest)
	}
	none(t, q, h.Shortest)
}

func deadLetters(t *testing.T, q queue.Queue, h Harness) {
	publish(t, q, "poison")
	for round := range 2 { // after a redrive all is as in the beginning
		var m queue.Message
		for attempt := 1; attempt <= 3; attempt++ {
			if m = one(t, q); m.Attempt != attempt || string(m.Body) != "poison" {
				t.Fatalf("round %d: delivered %+v, want attempt %d", round, m, attempt)
			}
			putBack(t, q, m)
		}
		none(t, q, h.Shortest)
		end(t, q, m) // the receipt is stale: a dead letter stays
		if n, err := q.Redrive(t.Context(), 10); n != 1 || err != nil {
			t.Fatalf("round %d: redriven %d, %v", round, n, err)
		}
	}
	m := one(t, q)
	if m.Attempt != 1 {
		t.Errorf("redriven, it is at attempt %d", m.Attempt)
	}
	end(t, q, m)
	if n, err := q.Redrive(t.Context(), 10); n != 0 || err != nil {
		t.Errorf("redriven %d, %v, with none dead", n, err)
	}
}

// leftTooOften is the message whose holder dies each time.
func leftTooOften(t *testing.T, q queue.Queue, h Harness) {
	publish(t, q, "deadly")
	publish(t, q, "harmless")
	attempts := map[string]int{}
	for attempts["deadly"] < 2 || attempts["harmless"] < 1 {
		m := one(t, q)
		attempts[string(m.Body)]++
		if string(m.Body) == "harmless" {
			end(t, q, m)
		}
	}
	none(t, q, 3*h.Shortest)
	if n, err := q.Redrive(t.Context(), 10); n != 1 || err != nil {
		t.Fatalf("redriven %d, %v", n, err)
	}
	if m := one(t, q); string(m.Body) != "deadly" || m.Attempt != 1 {
		t.Errorf("delivered %+v", m)
	}
}

func redriveWithinLimit(t *testing.T, q queue.Queue, h Harness) {
	for n := range 3 {
		publish(t, q, strconv.Itoa(n))
		putBack(t, q, one(t, q))
	}
	none(t, q, h.Shortest)
	total := 0
	for _, want := range []int{2, 1, 0} {
		n, err := q.Redrive(t.Context(), 2)
		if n != want || err != nil {
			t.Errorf("redriven %d, %v, want %d", n, err, want)
		}
		total += n
	}
	if got := drain(t, q, total); len(got) != 3 {
		t.Errorf("delivered %v", got)
	}
}

func bodies(t *testing.T, q queue.Queue, _ Harness) {
	for _, body := range []string{"0", "1e3", "{\n\t\"a\": \"é😀\\u0000\"\r\n}", " ", strings.Repeat("m", queue.MaxBody), strings.Repeat("é", queue.MaxBody/2)} {
		given := []byte(body)
		if err := q.Publish(t.Context(), given, 0); err != nil {
			t.Errorf("publishing %d bytes: %v", len(body), err)
			continue
		}
		clear(given) // the caller's bytes are his own again
		m := one(t, q)
		if string(m.Body) != body {
			t.Errorf("%.20q (%d bytes) came back as %.20q (%d bytes)", body, len(body), m.Body, len(m.Body))
		}
		end(t, q, m)
	}
}

func refusals(t *testing.T, q queue.Queue, h Harness) {
	ctx := t.Context()
	for name, body := range map[string]string{"empty": "", "no text": "a\xff", "a NUL": "a\x00", "a control character": "\x1b[0m", "U+FFFF": "\uffff"} {
		wantKind(t, "a body that is "+name, q.Publish(ctx, []byte(body), 0), fault.Invalid)
	}
	wantKind(t, "a body too long", q.Publish(ctx, []byte(strings.Repeat("m", queue.MaxBody+1)), 0), fault.TooLarge)
	wantKind(t, "a negative delay", q.Publish(ctx, []byte("x"), -1), fault.Invalid)
	wantKind(t, "a delay too long", q.Publish(ctx, []byte("x"), queue.MaxDelay+1), fault.Invalid)
	for _, limit := range []int{-1, 0, 11} {
		_, err := q.Receive(ctx, limit, 0)
		wantKind(t, fmt.Sprintf("limit %d", limit), err, fault.Invalid)
	}
	for _, wait := range []time.Duration{-1, 21 * time.Second} {
		_, err := q.Receive(ctx, 1, wait)
		wantKind(t, fmt.Sprintf("wait %v", wait), err, fault.Invalid)
	}
	_, err := q.Redrive(ctx, 0)
	wantKind(t, "redriving none", err, fault.Invalid)
	wantKind(t, "deleting nonsense", q.Delete(ctx, "nonsense"), fault.Invalid)
	wantKind(t, "retrying nonsense", q.Retry(ctx, "nonsense", 0), fault.Invalid)
	none(t, q, h.Shortest)
	publish(t, q, "x")
	m := one(t, q)
	wantKind(t, "retrying after a negative delay", q.Retry(ctx, m.Receipt, -1), fault.Invalid)
	wantKind(t, "retrying after too long a delay", q.Retry(ctx, m.Receipt, queue.MaxDelay+1), fault.Invalid)
	end(t, q, m)
}

func limit(t *testing.T, q queue.Queue, _ Harness) {
	const total = 25
	for n := range total {
		publish(t, q, strconv.Itoa(n))
	}
	seen := map[string]int{}
	for len(seen) < total {
		messages, err := q.Receive(t.Context(), 10, patience)
		if err != nil || len(messages) == 0 || len(messages) > 10 {
			t.Fatalf("received %d, %v, after %d of %d", len(messages), err, len(seen), total)
		}
		for _, m := range messages {
			if seen[string(m.Body)]++; seen[string(m.Body)] > 1 {
				t.Fatalf("%s was delivered twice", m.Body)
			}
			if err := q.Delete(t.Context(), m.Receipt); err != nil {
				t.Fatal(err)
			}
		}
	}
	none(t, q, 0)
}

// manyConsumers has publishers and consumers at work at once: within the
// visibility time each message is delivered to one of them.
func manyConsumers(t *testing.T, q queue.Queue, _ Harness) {
	const consumers, publishers, each = 8, 4, 50
	all, finish := context.WithTimeout(t.Context(), time.Minute)
	defer finish()
	var mu sync.Mutex
	seen := map[string]int{}
	together(t, consumers+publishers, func(ctx context.Context, n int) error {
		if n >= consumers {
			for i := range each {
				if err := q.Publish(ctx, fmt.Appendf(nil, "%d/%d", n, i), 0); err != nil {
					return err
				}
			}
			return nil
		}
		for all.Err() == nil {
			messages, err := q.Receive(all, 1+n%3, patience)
			if err != nil && all.Err() == nil {
				return err
			}
			for _, m := range messages {
				mu.Lock()
				seen[string(m.Body)]++
				done := len(seen) == publishers*each
				mu.Unlock()
				if err := q.Delete(ctx, m.Receipt); err != nil {
					return err
				}
				if done {
					finish()
				}
			}
		}
		return nil
	})
	if len(seen) != publishers*each {
		t.Errorf("%d of %d messages came", len(seen), publishers*each)
	}
	for body, times := range seen {
		if times != 1 {
			t.Errorf("%s was delivered %d times", body, times)
		}
	}
	none(t, q, 0)
}

// publishWakes has more receivers wait than messages come at once; none may wait out
// his time with a message there.
func publishWakes(t *testing.T, q queue.Queue, _ Harness) {
	const receivers = 8
	defer inTime(t, time.Now())
	together(t, receivers+1, func(ctx context.Context, n int) error {
		if n == receivers {
			for i := range receivers {
				if err := q.Publish(ctx, []byte(strconv.Itoa(i)), 0); err != nil {
					return err
				}
			}
			return nil
		}
		messages, err := q.Receive(ctx, 1, patience)
		if err == nil && len(messages) != 1 {
			err = errors.New("nobody woke this receiver")
		}
		return err
	})
}

// earlierFirst publishes what is due ever earlier to receivers that already wait.
func earlierFirst(t *testing.T, q queue.Queue, h Harness) {
	const receivers = 4
	defer inTime(t, time.Now())
	together(t, receivers+1, func(ctx context.Context, n int) error {
		if n == receivers {
			for i := range receivers {
				later := time.Duration(receivers-i) * h.Shortest
				if err := q.Publish(ctx, []byte(later.String()), later); err != nil {
					return err
				}
			}
			return nil
		}
		messages, err := q.Receive(ctx, 1, patience)
		if err == nil && len(messages) != 1 {
			err = errors.New("nobody woke this receiver")
		}
		return err
	})
}

// retryWakes returns a message while another receiver waits for it.
func retryWakes(t *testing.T, q queue.Queue, h Harness) {
	publish(t, q, "returned")
	held := one(t, q)
	defer inTime(t, time.Now())
	together(t, 2, func(ctx context.Context, n int) error {
		if n == 0 {
			// A short wait of its own, for the other to begin his.
			if messages, err := q.Receive(ctx, 1, h.Shortest); err != nil || len(messages) != 0 {
				return fmt.Errorf("received %v, %w", messages, err)
			}
			return q.Retry(ctx, held.Receipt, 0)
		}
		messages, err := q.Receive(ctx, 1, patience)
		if err == nil && len(messages) != 1 {
			err = errors.New("nobody woke this receiver")
		}
		return err
	})
}

// redriveWakesAll makes several messages visible at once, for receivers that
// take one each.
func redriveWakesAll(t *testing.T, q queue.Queue, h Harness) {
	const receivers = 4
	for n := range receivers {
		publish(t, q, strconv.Itoa(n))
		putBack(t, q, one(t, q))
	}
	none(t, q, h.Shortest) // now they are dead
	defer inTime(t, time.Now())
	together(t, receivers+1, func(ctx context.Context, n int) error {
		if n == receivers {
			// A short wait of its own, for the others to begin theirs.
			if messages, err := q.Receive(ctx, 1, h.Shortest); err != nil || len(messages) != 0 {
				return fmt.Errorf("received %v, %w", messages, err)
			}
			moved, err := q.Redrive(ctx, 10)
			if err == nil && moved != receivers {
				err = fmt.Errorf("redriven %d", moved)
			}
			return err
		}
		messages, err := q.Receive(ctx, 1, patience)
		if err == nil && len(messages) != 1 {
			err = errors.New("nobody woke this receiver")
		}
		return err
	})
}

// theOneLeftWaiting has several receivers wait for a delayed message, of which all
// but one give up before it is due.
func theOneLeftWaiting(t *testing.T, q queue.Queue, h Harness) {
	const impatient = 6
	defer inTime(t, time.Now())
	together(t, impatient+2, func(ctx context.Context, n int) error {
		switch n {
		case impatient:
			return q.Publish(ctx, []byte("late"), 3*h.Shortest)
		case impatient + 1:
			messages, err := q.Receive(ctx, 1, patience)
			if err == nil && len(messages) != 1 {
				err = errors.New("nobody woke this receiver")
			}
			return err
		default:
			_, err := q.Receive(ctx, 1, h.Shortest)
			return err
		}
	})
}

func endedContext(t *testing.T, q queue.Queue, h Harness) {
	publish(t, q, "there")
	m := one(t, q)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Publish(ctx, []byte("x"), 0); err == nil {
		t.Error("Publish went on")
	}
	if _, err := q.Receive(ctx, 1, 0); err == nil {
		t.Error("Receive went on")
	}
	if err := q.Delete(ctx, m.Receipt); err == nil {
		t.Error("Delete went on")
	}
	if err := q.Retry(ctx, m.Receipt, 0); err == nil {
		t.Error("Retry went on")
	}
	if _, err := q.Redrive(ctx, 1); err == nil {
		t.Error("Redrive went on")
	}
	none(t, q, h.Shortest)
	putBack(t, q, m)
	end(t, q, one(t, q))
}

// cancelledReceivers gives up waiting while a message comes: it may go with the
// one who gave up, until its visibility ends, and must not get lost.
func cancelledReceivers(t *testing.T, q queue.Queue, _ Harness) {
	for round := range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				// What it answers is left, as by one who dies.
				if _, err := q.Receive(ctx, 1, patience); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			})
		}
		publish(t, q, strconv.Itoa(round))
		cancel()
		group.Wait()
		if got := drain(t, q, 1); got[strconv.Itoa(round)] != 1 {
			t.Fatalf("round %d: delivered %v", round, got)
		}
	}
}
