// Package amazon is what the drivers for AWS have in common: how often and how long
// a call is tried, and what is known when it has failed. It speaks to no service: each
// driver does that with its own, and has the table of that service's error codes.
//
// Drivers switch the SDK's own retries off (aws.NopRetryer), because they hide what matters here: an
// attempt whose answer was lost may have written, and a refusal of the next one says
// nothing about it.
package amazon

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"runnerhub/shared/fault"
)

// Verdict is what an error says of the attempt that ended with it.
type Verdict int

const (
	// Lost is an attempt that may have happened; no answer told.
	Lost Verdict = iota
	// Refused did not happen, and will not when asked again.
	Refused
	// Busy did not happen, and may when asked again.
	Busy
)

// Judge answers the verdict on the error of a call of the SDK. What it does not know
// it takes for Lost, which is the careful one.
func Judge(err error) Verdict {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return Busy // nothing was sent
	}
	var answer *smithyhttp.ResponseError
	var api smithy.APIError
	if !errors.As(err, &answer) || !errors.As(err, &api) {
		return Lost
	}
	_, throttled := retry.DefaultThrottleErrorCodes[api.ErrorCode()]
	_, passing := retry.DefaultRetryableErrorCodes[api.ErrorCode()]
	switch status := answer.HTTPStatusCode(); {
	case throttled, status == http.StatusTooManyRequests, passing && status < 500:
		return Busy
	case status >= 400 && status < 500:
		return Refused
	}
	return Lost
}

// Code answers the error code of the service in err, or nothing.
func Code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// Calls says how a driver calls its service.
type Calls struct {
	Attempts int           // at least 1
	Each     time.Duration // deadline of one attempt
	// Judge is the driver's own verdict, where the general one will not do; may be nil.
	Judge func(error) Verdict
}

// Usual is right for calls that a service answers in milliseconds: it gives up after 10 s.
func Usual() Calls { return Calls{Attempts: 3, Each: 3 * time.Second} }

// Failure is the error of a call that did not succeed.
type Failure struct {
	Verdict Verdict // on the last attempt
	// Doubt says that some attempt was lost: what was to be written may be there.
	Doubt bool
	Cause error // of the last attempt
}

// Error implements error.
func (f *Failure) Error() string { return f.Cause.Error() }

// Unwrap answers the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// Do calls until an attempt succeeds or is refused, or there are no more of them. Each
// attempt must be the same request, and one that may happen twice. The error is a *Failure.
func (c Calls) Do(ctx context.Context, call func(ctx context.Context) error) error {
	judge := c.Judge
	if judge == nil {
		judge = Judge
	}
	doubt := false
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return &Failure{Verdict: Busy, Doubt: doubt, Cause: err}
		}
		trying, cancel := context.WithTimeout(ctx, c.Each)
		err := call(trying)
		cancel()
		if err == nil {
			return nil
		}
		verdict := judge(err)
		doubt = doubt || verdict == Lost
		if verdict == Refused || attempt >= c.Attempts {
			return &Failure{Verdict: verdict, Doubt: doubt, Cause: err}
		}
		Pause(ctx, attempt)
	}
}

// Pause waits before the attempt after this one: half to all of 100 ms, 200 ms, 400 ms …,
// or until ctx ends.
func Pause(ctx context.Context, attempt int) {
	d := 50 * time.Millisecond << min(attempt, 6)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Fault gives the error of Do its kind, and leaves nil as it is: kindOf says what the service's code means when it
// refused, and fault.Internal is for what should not happen. A write that is in doubt is
// fault.Unknown, whatever the last attempt said.
func Fault(err error, write bool, kindOf func(code string) fault.Kind, message string) error {
	var f *Failure
	if !errors.As(err, &f) {
		return err
	}
	kind := fault.Unavailable
	switch {
	case write && f.Doubt:
		kind, message = fault.Unknown, message+", or its answer was lost"
	case f.Verdict == Refused:
		kind = kindOf(Code(err))
	}
	return fault.Wrap(kind, err, "%s", message)
}
