// Package message is what use cases leave for each other in queues. Use cases do
// not call each other: they change the state, then leave a message, and the sweep
// leaves it again when it got lost. Every message may come twice; each names
// something stored, whose state says whether anything is left to do. The
// exceptions are a delivery, which is stored nowhere else yet, and the minute of a
// schedule, which the timetable leaves.
package message

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
	"runnerhub/shared/runner"
	"runnerhub/shared/store"
)

// Dispatch is a message of the queue "deliveries". One field is set, or
// Start and Attempt, or Schedule and Minute.
type Dispatch struct {
	Delivery *Delivery `json:"delivery,omitempty"`
	Again    string    `json:"again,omitempty"` // id of a recorded delivery, new or replayed: decide what is undecided
	Admit    string    `json:"admit,omitempty"` // name of a runner with room for the next build
	Start    string    `json:"start,omitempty"` // id of an admitted build that has not started
	// Attempt goes with Start: the attempt that did not get going. Once the build has
	// another one the message says nothing new.
	Attempt string `json:"attempt,omitempty"`
	Stop    string `json:"stop,omitempty"` // id of a build that is to end
	// Schedule and Minute are a timetable.Due, which is published as it is: this minute of
	// the schedule has come.
	Schedule string `json:"schedule,omitempty"`
	Minute   string `json:"minute,omitempty"`
}

// Delivery is a verified webhook request as it came.
type Delivery struct {
	ID         string    `json:"id"`
	Hook       string    `json:"hook"`
	App        string    `json:"app"`
	Workspace  string    `json:"workspace"`
	Event      string    `json:"event"`
	RequestID  string    `json:"request_id"`
	Attempt    int       `json:"attempt"`
	ReceivedAt time.Time `json:"received_at"`
	Body       []byte    `json:"body"` // raw; base64 in the message
}

// Report is a message of the queue "reports". One field is set.
type Report struct {
	Status *store.StatusRef `json:"status,omitempty"` // a commit status that has something to post
	Runner *runner.Event    `json:"runner,omitempty"` // what a runner says of an attempt
}

// Send publishes a message of either queue.
func Send(ctx context.Context, q queue.Publisher, m any, delay time.Duration) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("message: encoding: %w", err)
	}
	if err := q.Publish(ctx, body, delay); err != nil {
		return fmt.Errorf("message: publishing: %w", err)
	}
	return nil
}

// Read decodes a message. One that cannot be read is never going to be, but it is
// kept as a dead letter, because it is somebody's event: hence fault.Internal.
func Read[T any](m queue.Message) (T, error) {
	var v T
	if err := json.Unmarshal(m.Body, &v); err != nil {
		return v, fault.Wrap(fault.Internal, err, "message %s is not readable", m.ID)
	}
	return v, nil
}
