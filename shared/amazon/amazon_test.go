package amazon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"runnerhub/shared/fault"
)

// answered is the SDK's error for an answer with a status and a code.
func answered(status int, code string) error {
	return &smithy.OperationError{Err: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
		Err:      &smithy.GenericAPIError{Code: code},
	}}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err  error
		want Verdict
	}{
		"a refusal":           {answered(400, "ValidationException"), Refused},
		"no permission":       {answered(403, "AccessDeniedException"), Refused},
		"throttled":           {answered(400, "ThrottlingException"), Busy},
		"throttled by number": {answered(429, "Whatever"), Busy},
		"throughput":          {answered(400, "ProvisionedThroughputExceededException"), Busy},
		"slow down":           {answered(503, "SlowDown"), Busy},
		"too slow a request":  {answered(400, "RequestTimeout"), Busy},
		"its own trouble":     {answered(500, "InternalServerError"), Lost},
		"a gateway":           {answered(502, "BadGateway"), Lost},
		"a torn answer": {&smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: 200}}, Err: &smithy.DeserializationError{Err: net.ErrClosed},
		}, Lost},
		"the deadline":  {context.DeadlineExceeded, Lost},
		"reset":         {&net.OpError{Op: "read", Err: errors.New("reset")}, Lost},
		"nobody there":  {fmt.Errorf("x: %w", &net.OpError{Op: "dial", Err: errors.New("refused")}), Busy},
		"end of stream": {io.ErrUnexpectedEOF, Lost},
	} {
		if got := Judge(test.err); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestDoAndFault(t *testing.T) {
	t.Parallel()
	refused, busy, lost := answered(400, "No"), answered(400, "ThrottlingException"), errors.New("lost")
	kindOf := func(code string) fault.Kind {
		if code == "No" {
			return fault.NotFound
		}
		return fault.Internal
	}
	for name, test := range map[string]struct {
		answers     []error
		calls       int
		write, read fault.Kind
		ok          bool
	}{
		"at once":                       {answers: []error{nil}, calls: 1, ok: true},
		"the third time":                {answers: []error{busy, lost, nil}, calls: 3, ok: true},
		"refused":                       {answers: []error{refused}, calls: 1, write: fault.NotFound, read: fault.NotFound},
		"refused for a reason unknown":  {answers: []error{answered(400, "Odd")}, calls: 1, write: fault.Internal, read: fault.Internal},
		"busy to the end":               {answers: []error{busy, busy, busy}, calls: 3, write: fault.Unavailable, read: fault.Unavailable},
		"lost to the end":               {answers: []error{lost, lost, lost}, calls: 3, write: fault.Unknown, read: fault.Unavailable},
		"lost once, busy then":          {answers: []error{lost, busy, busy}, calls: 3, write: fault.Unknown, read: fault.Unavailable},
		"lost once, refused after that": {answers: []error{lost, refused}, calls: 2, write: fault.Unknown, read: fault.NotFound},
	} {
		calls := 0
		err := Calls{Attempts: 3, Each: time.Minute}.Do(t.Context(), func(context.Context) error {
			calls++
			return test.answers[calls-1]
		})
		if calls != test.calls || (err == nil) != test.ok {
			t.Errorf("%s: %d calls, %v", name, calls, err)
		}
		if err != nil && (!fault.Is(Fault(err, true, kindOf, "x"), test.write) || !fault.Is(Fault(err, false, kindOf, "x"), test.read)) {
			t.Errorf("%s: as a write %v, as a read %v", name, fault.KindOf(Fault(err, true, kindOf, "x")), fault.KindOf(Fault(err, false, kindOf, "x")))
		}
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	err := Calls{Attempts: 1000, Each: time.Minute}.Do(ctx, func(context.Context) error {
		calls++
		cancel()
		return context.Canceled
	})
	if calls != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d calls, %v", calls, err)
	}
	if err := Fault(err, true, nil, "x"); !fault.Is(err, fault.Unknown) {
		t.Errorf("cancelled on the way it is %v", err)
	}
	err = Usual().Do(ctx, func(context.Context) error { t.Error("called"); return nil })
	if err := Fault(err, true, nil, "x"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("cancelled before it began it is %v", err)
	}
	err = Calls{Attempts: 1}.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without time it ends with %v", err)
	}
}
