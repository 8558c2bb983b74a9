// Package budget divides the time of an invocation. Lambda ends a function when its time is over, in the middle of
// whatever it does; so work ends earlier, by a deadline that it sees, and what came of calls that were made is recorded in what is
// left. The lengths stand here, beside each other, and a test holds them against the timeouts in the
// template. Where nothing ends a process, as in the standalone server, a recording has its time all the same, and no more.
package budget

import (
	"context"
	"time"
)

const (
	// Request is the longest work of a request; a function that serves requests has Request, Recording and Answer.
	Request = 20 * time.Second
	// Hook is the longest work of a webhook: Bitbucket gives up after 10 s. It stores one message, and records nothing after that.
	Hook = 8 * time.Second
	// Recording is the longest that one recording may take.
	Recording = 8 * time.Second
	// Answer is for the answer to a request, when everything is done.
	Answer = time.Second
	// Telling is for what a batch leaves: each of its messages gets a pause, and the batch an answer. What is not called over HTTP
	// works until Recording and Telling before its end.
	Telling = 4 * time.Second
)

type endKey struct{}

// Until answers ctx with the time at which the last recording has to be over.
func Until(ctx context.Context, end time.Time) context.Context {
	return context.WithValue(ctx, endKey{}, end)
}

// Left answers how much time there is until the last recording has to be over. It is false where nothing ends the process.
func Left(ctx context.Context) (time.Duration, bool) {
	end, ok := ctx.Value(endKey{}).(time.Time)
	return time.Until(end), ok
}

// Record answers the context of a recording: it does not end with ctx, whose time or patience may be what ran out.
func Record(ctx context.Context) (context.Context, context.CancelFunc) { return Detach(ctx, Recording) }

// Detach answers a context for what has to be brought to its end though the caller of ctx has gone, in at most this time, and by
// the end that Until has set.
func Detach(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if left, ok := Left(ctx); ok {
		limit = min(limit, left)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}
