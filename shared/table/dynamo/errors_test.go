package dynamo

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"runnerhub/infra/ministack"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

func refusal(code, rest string) amazontest.Answer {
	return amazontest.Answer{Status: 400, Body: `{"__type":"com.amazonaws.dynamodb.v20120810#` + code + `","message":"no"` + rest + `}`}
}

func cancelled(reasons ...string) amazontest.Answer {
	return refusal("TransactionCanceledException", `,"CancellationReasons":[`+strings.Join(reasons, ",")+`]`)
}

const (
	none     = `{"Code":"None"}`
	failed   = `{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"}`
	another  = `{"Code":"ConditionalCheckFailed","Item":{"pk":{"S":"p"},"sk":{"S":"s"},"written_by":{"S":"another"}}}`
	own      = `{"Code":"ConditionalCheckFailed","Item":{"pk":{"S":"p"},"sk":{"S":"s"},"written_by":{"S":"token"}}}`
	collided = `{"Code":"TransactionConflict"}`
	slow     = `{"Code":"ThrottlingError"}`
)

func over(t *testing.T, config aws.Config, name string, token func() string) *Table {
	t.Helper()
	tb, err := New(Deps{Config: config, Table: name, NewToken: token})
	if err != nil {
		t.Fatal(err)
	}
	return tb
}

func TestTransactionsThatAreNotAcknowledged(t *testing.T) {
	t.Parallel()
	lost := amazontest.Answer{Drop: true}
	torn := amazontest.Answer{Body: `{"Consumed`}
	done := amazontest.Answer{Body: `{}`}
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		calls   int
		done    bool
		kind    fault.Kind
		failed  []int // with kind Conflict
	}{
		"an answer lost":              {answers: []amazontest.Answer{lost, done}, calls: 2, done: true},
		"an answer torn":              {answers: []amazontest.Answer{torn, done}, calls: 2, done: true},
		"lost, and found done":        {answers: []amazontest.Answer{lost, cancelled(own, none)}, calls: 2, done: true},
		"done, found by one of two":   {answers: []amazontest.Answer{lost, cancelled(another, own)}, calls: 2, done: true},
		"lost, and found not done":    {answers: []amazontest.Answer{lost, cancelled(none, another)}, calls: 2, kind: fault.Conflict, failed: []int{1}},
		"still at work, then done":    {answers: []amazontest.Answer{lost, refusal("TransactionInProgressException", ""), done}, calls: 3, done: true},
		"still at work":               {answers: []amazontest.Answer{refusal("TransactionInProgressException", "")}, calls: 3, kind: fault.Unknown},
		"no answer ever":              {answers: []amazontest.Answer{lost}, calls: 3, kind: fault.Unknown},
		"its own trouble":             {answers: []amazontest.Answer{{Status: 500, Body: `{"__type":"InternalServerError"}`}}, calls: 3, kind: fault.Unknown},
		"conditions failed":           {answers: []amazontest.Answer{cancelled(failed, another)}, calls: 1, kind: fault.Conflict, failed: []int{0, 1}},
		"a condition and a collision": {answers: []amazontest.Answer{cancelled(collided, failed)}, calls: 1, kind: fault.Conflict, failed: []int{1}},
		"a collision, then done":      {answers: []amazontest.Answer{cancelled(collided, none), done}, calls: 2, done: true},
		"collisions only":             {answers: []amazontest.Answer{cancelled(collided, none)}, calls: 3, kind: fault.Conflict},
		// The collision may be with the attempt whose answer was lost.
		"lost, then collisions": {answers: []amazontest.Answer{lost, cancelled(collided, none)}, calls: 3, kind: fault.Unknown},
		"throttled":             {answers: []amazontest.Answer{cancelled(slow, none)}, calls: 3, kind: fault.Unavailable},
		"throttled as a whole":  {answers: []amazontest.Answer{refusal("ThrottlingException", "")}, calls: 3, kind: fault.Unavailable},
		"a request of ours":     {answers: []amazontest.Answer{refusal("ValidationException", "")}, calls: 1, kind: fault.Internal},
		"no table":              {answers: []amazontest.Answer{refusal("ResourceNotFoundException", "")}, calls: 1, kind: fault.Internal},
		"an update of no sense": {answers: []amazontest.Answer{cancelled(`{"Code":"ValidationError"}`, none)}, calls: 1, kind: fault.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := amazontest.Serve(t, test.answers...)
			tb := over(t, service.Config(), "t", func() string { return "token" })
			err := tb.Transact(t.Context(),
				table.Put(table.Item{Key: table.Key{Partition: "p", Sort: "s"}, Body: []byte("{}")}, table.Absent()),
				table.Check(table.Key{Partition: "p", Sort: "t"}, table.VersionIs(1)))
			if test.done != (err == nil) || !test.done && !fault.Is(err, test.kind) {
				t.Fatalf("%v, want done %t, or the kind %s", err, test.done, test.kind.Outcome().Name)
			}
			for i := range 2 {
				if table.Failed(err, i) != slices.Contains(test.failed, i) {
					t.Errorf("write %d is reported wrongly: %v", i, err)
				}
			}
			requests := service.Requests()
			if len(requests) != test.calls {
				t.Fatalf("%d calls, want %d", len(requests), test.calls)
			}
			for _, r := range requests {
				if r.Body != requests[0].Body || !strings.Contains(r.Body, `"ClientRequestToken":"token"`) {
					t.Errorf("an attempt asks for something else: %s", r.Body)
				}
			}
		})
	}
}

func TestEveryReadIsConsistent(t *testing.T) {
	t.Parallel()
	service := amazontest.Serve(t, amazontest.Answer{Body: `{}`})
	tb := over(t, service.Config(), "t", rand.Text)
	key := table.Key{Partition: "p", Sort: "s"}
	if _, err := tb.Get(t.Context(), key); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if _, err := tb.BatchGet(t.Context(), []table.Key{key}); err != nil {
		t.Error(err)
	}
	if _, err := tb.Query(t.Context(), table.Query{Partition: "p"}); err != nil {
		t.Error(err)
	}
	requests := service.Requests()
	if len(requests) != 3 {
		t.Fatalf("%d requests", len(requests))
	}
	for _, r := range requests {
		if !strings.Contains(r.Body, `"ConsistentRead":true`) {
			t.Errorf("%s: %s", r.Target, r.Body)
		}
	}
}

func item(sort string) string {
	return fmt.Sprintf(`{"pk":{"S":"p"},"sk":{"S":%q},"version":{"N":"1"},"body":{"S":"{}"}}`, sort)
}

// DynamoDB answers a part of a batch when it is busy, or the items are large.
func TestBatchGetAsksForTheRest(t *testing.T) {
	t.Parallel()
	part := func(found []string, rest ...string) amazontest.Answer {
		body := `{"Responses":{"t":[` + strings.Join(found, ",") + `]}`
		if len(rest) > 0 {
			body += `,"UnprocessedKeys":{"t":{"ConsistentRead":true,"Keys":[`
			for i, sort := range rest {
				if i > 0 {
					body += ","
				}
				body += fmt.Sprintf(`{"pk":{"S":"p"},"sk":{"S":%q}}`, sort)
			}
			body += `]}}`
		}
		return amazontest.Answer{Body: body + `}`}
	}
	keys := []table.Key{{Partition: "p", Sort: "a"}, {Partition: "p", Sort: "b"}, {Partition: "p", Sort: "c"}}
	service := amazontest.Serve(t, part([]string{item("c")}, "a", "b"), part(nil, "a", "b"), part([]string{item("b")}, "a"), part(nil))
	items, err := over(t, service.Config(), "t", rand.Text).BatchGet(t.Context(), keys)
	if err != nil || len(items) != 2 || items[0].Key.Sort != "b" || items[1].Key.Sort != "c" {
		t.Errorf("%+v, %v", items, err)
	}
	for i, r := range service.Requests() {
		var asked struct {
			RequestItems map[string]struct {
				ConsistentRead bool
				Keys           []any
			}
		}
		if err := json.Unmarshal([]byte(r.Body), &asked); err != nil {
			t.Fatal(err)
		}
		if got := asked.RequestItems["t"]; len(got.Keys) != []int{3, 2, 2, 1}[i] || !got.ConsistentRead {
			t.Errorf("request %d asks for %+v", i, got)
		}
	}
	service = amazontest.Serve(t, part(nil, "a", "b", "c"))
	if _, err := over(t, service.Config(), "t", rand.Text).BatchGet(t.Context(), keys); !fault.Is(err, fault.Unavailable) {
		t.Errorf("always busy: %v", err)
	}
}

func TestItemsOfSomebodyElse(t *testing.T) {
	t.Parallel()
	for name, stored := range map[string]string{
		"no body":              `{"pk":{"S":"p"},"sk":{"S":"s"},"version":{"N":"1"}}`,
		"no version":           `{"pk":{"S":"p"},"sk":{"S":"s"},"body":{"S":"{}"}}`,
		"a version of letters": `{"pk":{"S":"p"},"sk":{"S":"s"},"body":{"S":"{}"},"version":{"S":"1"}}`,
		"half a version":       `{"pk":{"S":"p"},"sk":{"S":"s"},"body":{"S":"{}"},"version":{"N":"1.5"}}`,
		"an odd expiry":        `{"pk":{"S":"p"},"sk":{"S":"s"},"body":{"S":"{}"},"version":{"N":"1"},"expires_at":{"S":"x"}}`,
	} {
		service := amazontest.Serve(t, amazontest.Answer{Body: `{"Item":` + stored + `}`})
		got, err := over(t, service.Config(), "t", rand.Text).Get(t.Context(), table.Key{Partition: "p", Sort: "s"})
		if !fault.Is(err, fault.Internal) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// forgetful takes the request token from transactions, so that a repeat is no repeat to
// the service: as after its ten minutes.
type forgetful struct{ next aws.HTTPClient }

func (f forgetful) Do(request *http.Request) (*http.Response, error) {
	var body map[string]any
	if err := json.NewDecoder(request.Body).Decode(&body); err != nil {
		return nil, err
	}
	delete(body, "ClientRequestToken")
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.Body, request.ContentLength = io.NopCloser(strings.NewReader(string(text))), int64(len(text))
	return f.next.Do(request)
}

// Two of three answers are lost, in front of a service that really does what it is asked.
func nothingIsDoneTwice(t *testing.T, config aws.Config) {
	const name, rounds = "table", 8
	declare(t, config, name)
	reader := over(t, config, name, rand.Text)
	lose := func(n int) bool { return n%3 != 2 }
	for what, test := range map[string]struct {
		client    aws.HTTPClient
		condition func(version int64) table.Condition
	}{
		"known by the request token": {config.HTTPClient, func(int64) table.Condition { return table.Condition{} }},
		"known by the item": {forgetful{config.HTTPClient}, func(version int64) table.Condition {
			if version == 0 {
				return table.Absent()
			}
			return table.VersionIs(version)
		}},
	} {
		lossy := config
		lossy.HTTPClient = amazontest.Losing(test.client, lose)
		tb, key := over(t, lossy, name, rand.Text), table.Key{Partition: what, Sort: "counter"}
		for version := range int64(rounds) {
			entry := table.Key{Partition: what, Sort: fmt.Sprintf("%03d", version)}
			if err := tb.Transact(t.Context(), table.Put(table.Item{Key: key, Body: []byte("{}")}, test.condition(version)),
				table.Put(table.Item{Key: entry, Body: []byte("{}")}, test.condition(0))); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		page, err := reader.Query(t.Context(), table.Query{Partition: what})
		if err != nil || len(page.Items) != rounds+1 || page.Items[rounds].Version != rounds {
			t.Errorf("%s: %d items, %v; the counter is %+v", what, len(page.Items), err, page.Items[len(page.Items)-1])
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	whole := Deps{Config: ministack.Config("http://127.0.0.1:1"), Table: "t", NewToken: rand.Text}
	for name, take := range map[string]func(*Deps){
		"credentials": func(d *Deps) { d.Config.Credentials = nil },
		"region":      func(d *Deps) { d.Config.Region = "" },
		"table":       func(d *Deps) { d.Table = "" },
		"tokens":      func(d *Deps) { d.NewToken = nil },
	} {
		d := whole
		take(&d)
		if _, err := New(d); err == nil {
			t.Errorf("without %s it is made", name)
		}
	}
}
