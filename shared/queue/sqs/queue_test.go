package sqs

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"runnerhub/infra/ministack"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/fault"
	"runnerhub/shared/queue"
	"runnerhub/shared/queue/queuetest"
)

// harness makes queues in the MiniStack at url. An address names it and both queues, as a
// child of the suite has nothing else.
func harness(url string) queuetest.Harness {
	return queuetest.Harness{
		New: func(t testing.TB, s queuetest.Settings) string {
			queue, dead := declare(t, ministack.Config(url), s)
			return strings.Join([]string{url, queue, dead}, " ")
		},
		Open: func(address string, s queuetest.Settings) (queue.Queue, func() error, error) {
			parts := strings.Split(address, " ")
			q, err := New(Deps{Config: ministack.Config(parts[0]), URL: parts[1], DeadURL: parts[2], Visibility: s.Visibility, Now: time.Now})
			return q, func() error { return nil }, err
		},
		Shortest: time.Second,
	}
}

// declare makes the two queues as the template does.
func declare(t testing.TB, config aws.Config, s queuetest.Settings) (url, dead string) {
	t.Helper()
	client, name := sqs.NewFromConfig(config), rand.Text()
	create := func(name string, attributes map[string]string) string {
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return *out.QueueUrl
	}
	dead = create(name+"-dead", nil)
	url = create(name, map[string]string{
		"VisibilityTimeout": strconv.Itoa(int(s.Visibility / time.Second)),
		"RedrivePolicy":     fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:%s-dead","maxReceiveCount":%d}`, name, s.MaxAttempts),
	})
	return url, dead
}

func TestMain(m *testing.M) { queuetest.Main(m, harness("")) }

func TestOnMiniStack(t *testing.T) {
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
	queuetest.Run(t, harness(server.URL()))
}

func over(t *testing.T, answers ...amazontest.Answer) (*Queue, *amazontest.Service) {
	t.Helper()
	service := amazontest.Serve(t, answers...)
	q, err := New(Deps{Config: service.Config(), URL: "https://queue/q", DeadURL: "https://queue/dead", Visibility: time.Minute, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return q, service
}

func refusal(code string) amazontest.Answer {
	return amazontest.Answer{
		Status: 400, Header: map[string]string{"X-Amzn-Query-Error": code + ";Sender"},
		Body: `{"__type":"com.amazonaws.sqs#` + code + `","message":"no"}`,
	}
}

// SQS answers for a receipt whose delivery is over in several ways; a receipt that is
// none of this queue's does not get to it.
func TestReceipts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer amazontest.Answer
		ok     bool
		kind   fault.Kind
	}{
		"done":               {amazontest.Answer{Body: "{}"}, true, 0},
		"invalid by now":     {refusal("ReceiptHandleIsInvalid"), true, 0},
		"not in flight":      {refusal("MessageNotInflight"), true, 0},
		"expired":            {refusal("InvalidParameterValue"), true, 0},
		"no queue":           {refusal("QueueDoesNotExist"), false, fault.Internal},
		"too many in flight": {refusal("OverLimit"), false, fault.Unavailable},
		"throttled":          {refusal("RequestThrottled"), false, fault.Unavailable},
		"no answer":          {amazontest.Answer{Drop: true}, false, fault.Unknown},
		"trouble of its own": {amazontest.Answer{Status: 500, Body: "{}"}, false, fault.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, _ := over(t, test.answer)
			receipt := q.Receipt("handle")
			errs := map[string]error{
				"Delete": q.Delete(t.Context(), receipt),
				"Retry":  q.Retry(t.Context(), receipt, 0),
			}
			for doing, err := range errs {
				if test.ok != (err == nil) || !test.ok && !fault.Is(err, test.kind) {
					t.Errorf("%s: %v", doing, err)
				}
			}
		})
	}
	q, service := over(t, amazontest.Answer{Body: "{}"})
	other, err := New(Deps{Config: service.Config(), URL: "https://queue/other", Visibility: time.Minute, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	for _, receipt := range []string{"", ".", "handle", other.Receipt("handle"), q.Receipt("handle") + "x"} {
		if err := q.Delete(t.Context(), receipt); !fault.Is(err, fault.Invalid) {
			t.Errorf("the receipt %q: %v", receipt, err)
		}
	}
	if n := len(service.Requests()); n != 0 {
		t.Errorf("%d calls for what is no receipt", n)
	}
}

// A published message whose answer is lost is published again, rather than not at all.
func TestPublishAsksAgain(t *testing.T) {
	t.Parallel()
	done := amazontest.Answer{Body: `{"MessageId":"1","MD5OfMessageBody":"9dd4e461268c8034f5c8564e155c67a6"}`} // of "x"
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		calls   int
		kind    fault.Kind
	}{
		"lost":                 {[]amazontest.Answer{{Drop: true}, done}, 2, 0},
		"throttled":            {[]amazontest.Answer{refusal("RequestThrottled"), done}, 2, 0},
		"taken as another":     {[]amazontest.Answer{{Body: `{"MessageId":"1","MD5OfMessageBody":"00"}`}, done}, 2, 0},
		"always lost":          {[]amazontest.Answer{{Drop: true}}, 3, fault.Unknown},
		"always throttled":     {[]amazontest.Answer{refusal("RequestThrottled")}, 3, fault.Unavailable},
		"lost, then throttled": {[]amazontest.Answer{{Drop: true}, refusal("RequestThrottled")}, 3, fault.Unknown},
		"no queue":             {[]amazontest.Answer{refusal("QueueDoesNotExist")}, 1, fault.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, service := over(t, test.answers...)
			err := q.Publish(t.Context(), []byte("x"), 1500*time.Millisecond)
			if ok := test.answers[len(test.answers)-1].Body == done.Body; ok != (err == nil) || !ok && !fault.Is(err, test.kind) {
				t.Errorf("%v", err)
			}
			requests := service.Requests()
			if len(requests) != test.calls || !strings.Contains(requests[0].Body, `"DelaySeconds":2`) {
				t.Errorf("%d calls, the first: %s", len(requests), requests[0].Body)
			}
		})
	}
}

// Who dies within a redrive leaves a message in both queues, never in none.
func TestRedriveSendsBeforeItDeletes(t *testing.T) {
	t.Parallel()
	dead := amazontest.Answer{Body: `{"Messages":[{"MessageId":"1","ReceiptHandle":"h","Body":"x","MD5OfBody":"9dd4e461268c8034f5c8564e155c67a6"}]}`}
	q, service := over(t, dead, refusal("QueueDoesNotExist"))
	if n, err := q.Redrive(t.Context(), 1); n != 0 || err == nil {
		t.Errorf("redriven %d, %v", n, err)
	}
	for i, want := range []string{"ReceiveMessage", "SendMessage"} {
		if got := service.Requests(); len(got) != 2 || !strings.HasSuffix(got[i].Target, want) {
			t.Errorf("call %d of %d is not %s", i, len(got), want)
		}
	}
}

func TestMessagesWithPartsMissing(t *testing.T) {
	t.Parallel()
	for _, m := range []string{
		`{"MessageId":"1","ReceiptHandle":"h"}`, `{"MessageId":"1","ReceiptHandle":"h","Body":"x"}`,
		`{"MessageId":"1","ReceiptHandle":"h","Body":"x","Attributes":{"ApproximateReceiveCount":"many","SentTimestamp":"1"}}`,
	} {
		q, _ := over(t, amazontest.Answer{Body: `{"Messages":[` + m + `]}`})
		if got, err := q.Receive(t.Context(), 1, 0); err == nil {
			t.Errorf("%s is received as %+v", m, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	whole := Deps{Config: ministack.Config("http://127.0.0.1:1"), URL: "u", Visibility: time.Minute, Now: time.Now}
	if _, err := New(whole); err != nil {
		t.Fatal(err)
	}
	for name, take := range map[string]func(*Deps){
		"credentials":      func(d *Deps) { d.Config.Credentials = nil },
		"region":           func(d *Deps) { d.Config.Region = "" },
		"queue":            func(d *Deps) { d.URL = "" },
		"clock":            func(d *Deps) { d.Now = nil },
		"visibility":       func(d *Deps) { d.Visibility = -time.Second },
		"whole seconds":    func(d *Deps) { d.Visibility = 1500 * time.Millisecond },
		"a bearable limit": func(d *Deps) { d.Visibility = 12 * time.Hour },
	} {
		d := whole
		take(&d)
		if _, err := New(d); err == nil {
			t.Errorf("without %s it is made", name)
		}
	}
	q, err := New(whole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Redrive(t.Context(), 1); !fault.Is(err, fault.Internal) {
		t.Errorf("without dead letters: %v", err)
	}
	whole.Visibility = 0
	if q, err = New(whole); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Receive(t.Context(), 1, 0); !fault.Is(err, fault.Internal) {
		t.Errorf("without a visibility: %v", err)
	}
}
