package message_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/message"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
)

// last keeps what was published last.
type last struct{ body []byte }

func (l *last) Publish(_ context.Context, body []byte, _ time.Duration) error {
	l.body = body
	return queue.CheckBody(body)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 9, 0, 0, 1, time.UTC)
	out := message.Report{
		Status: &store.StatusRef{Repository: "{r}", Commit: "c", Key: "k|<>&\x00\xff"},
		Runner: &runner.Event{Build: "b", Attempt: "a", State: runner.State{Phase: runner.Ended, Result: runner.Failed}, At: at},
	}
	var sent last
	if err := message.Send(t.Context(), &sent, out, 0); err != nil {
		t.Fatal(err)
	}
	in, err := message.Read[message.Report](queue.Message{Body: sent.body})
	if err != nil || *in.Runner != *out.Runner || in.Status.Key != "k|<>&\x00\ufffd" {
		t.Errorf("%+v %+v, %v", in.Status, in.Runner, err)
	}
	// Whatever bytes a webhook brings, they fit through a queue and come out the same.
	body := make([]byte, 256)
	for i := range body {
		body[i] = byte(i)
	}
	delivery := message.Dispatch{Delivery: &message.Delivery{ID: "d", Event: "\x01\xfe", ReceivedAt: at, Body: body}}
	if err := message.Send(t.Context(), &sent, delivery, 0); err != nil {
		t.Fatal(err)
	}
	got, err := message.Read[message.Dispatch](queue.Message{Body: sent.body})
	if err != nil || string(got.Delivery.Body) != string(body) || !got.Delivery.ReceivedAt.Equal(at) {
		t.Errorf("%+v, %v", got.Delivery, err)
	}
}

// What cannot be read is somebody's event: it is kept until it is a dead letter.
func TestUnreadableIsKept(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{", "[]", `"text"`, `{"delivery": 1}`} {
		_, err := message.Read[message.Dispatch](queue.Message{ID: "m1", Body: []byte(body)})
		if !queue.Keeps(err) || !strings.Contains(err.Error(), "m1") {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestErrorsOfTheQueueKeepTheirKind(t *testing.T) {
	t.Parallel()
	var sent last
	huge := message.Dispatch{Delivery: &message.Delivery{Body: make([]byte, queue.MaxBody)}}
	if err := message.Send(t.Context(), &sent, huge, 0); !fault.Is(err, fault.TooLarge) {
		t.Errorf("%v", err)
	}
	if err := message.Send(t.Context(), &sent, struct{ Bad chan ci.App }{}, 0); err == nil {
		t.Error("a channel was encoded")
	}
}
