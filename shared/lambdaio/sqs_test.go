package lambdaio

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"runnerhub/infra/ministack"
	"runnerhub/shared/queue"
	queuesqs "runnerhub/shared/queue/sqs"
)

// What the event source mapping received, the driver can give a pause: the message is back when that is over, long before its
// queue would have shown it again.
func TestPausesReachTheQueue(t *testing.T) {
	t.Parallel()
	server, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	config := ministack.Config(server.URL())
	client, name := sqs.NewFromConfig(config), rand.Text()
	made, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{"VisibilityTimeout": "3600"}})
	if err != nil {
		t.Fatal(err)
	}
	q, err := queuesqs.New(queuesqs.Deps{Config: config, URL: *made.QueueUrl, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Publish(t.Context(), []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	h := handler(t, Events{Messages: &Messages{Queue: q, Name: "q", Handle: func(context.Context, queue.Message) error { return errors.New("x") }}})
	for attempt := range 2 {
		received, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: made.QueueUrl, WaitTimeSeconds: 20, MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(received.Messages) != 1 {
			t.Fatalf("attempt %d brings %d messages", attempt+1, len(received.Messages))
		}
		m := received.Messages[0]
		payload, err := json.Marshal(events.SQSEvent{Records: []events.SQSMessage{{
			MessageId: *m.MessageId, ReceiptHandle: *m.ReceiptHandle, Body: *m.Body, Attributes: m.Attributes, EventSource: "aws:sqs",
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := failed(t.Context(), t, h, payload); !got[*m.MessageId] {
			t.Errorf("failed: %v", got)
		}
	}
}
