// Package fault is the one error type that crosses packages: a kind, a message
// that is safe to show to a caller, and the cause, which is not.
//
// The kind alone decides what happens next. Outcome is the only table of that:
// which HTTP status a caller sees, what becomes of a queue message, and how
// loud the log line is. The package wraps errors; it does not log them and it
// knows no protocol beyond the status number.
package fault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// Kind says what sort of failure an error is. The zero Kind is Internal, so an
// error nobody classified is never mistaken for a harmless one.
type Kind int

const (
	// Internal is a failure nobody foresaw: shown as "internal error (ref …)".
	Internal Kind = iota
	// Invalid is input that can never be accepted as it is.
	Invalid
	// Unauthenticated is a caller who has not said, or not proven, who he is.
	Unauthenticated
	// Forbidden is a known member who lacks the role.
	Forbidden
	// NotFound is absent, or not to be seen by this caller.
	NotFound
	// Conflict is a lost race or a state that does not allow the change.
	Conflict
	// TooLarge is a body or a value past its limit.
	TooLarge
	// RateLimited is a refusal that passes with time.
	RateLimited
	// Unavailable is a dependency that failed and may work when asked again.
	Unavailable
	// Unknown is a write whose outcome was not learned: it may have happened.
	// Callers read again before they act.
	Unknown
	// Revoked is a grant that the user or the provider has withdrawn.
	Revoked
	// Gone is something that existed and will not come back.
	Gone
)

// Outcome is what a kind means to the three places that act on an error.
type Outcome struct {
	Name  string     // short, stable, for logs and metrics
	HTTP  int        // status of an HTTP answer
	Retry bool       // a queue message is kept and tried again
	Level slog.Level // of the one log line at the edge
}

// Outcome answers the row of the table for k. Kinds that no retry can mend are
// acknowledged to a queue; the record of the refusal is the caller's duty.
func (k Kind) Outcome() Outcome {
	switch k {
	case Invalid:
		return Outcome{"invalid", http.StatusBadRequest, false, slog.LevelInfo}
	case Unauthenticated:
		return Outcome{"unauthenticated", http.StatusUnauthorized, false, slog.LevelInfo}
	case Forbidden:
		return Outcome{"forbidden", http.StatusForbidden, false, slog.LevelInfo}
	case NotFound:
		return Outcome{"not_found", http.StatusNotFound, false, slog.LevelInfo}
	case Conflict:
		return Outcome{"conflict", http.StatusConflict, true, slog.LevelInfo}
	case TooLarge:
		return Outcome{"too_large", http.StatusRequestEntityTooLarge, false, slog.LevelInfo}
	case RateLimited:
		return Outcome{"rate_limited", http.StatusTooManyRequests, true, slog.LevelWarn}
	case Unavailable:
		return Outcome{"unavailable", http.StatusServiceUnavailable, true, slog.LevelWarn}
	case Unknown:
		return Outcome{"unknown", http.StatusServiceUnavailable, true, slog.LevelWarn}
	case Revoked:
		return Outcome{"revoked", http.StatusConflict, false, slog.LevelWarn}
	case Gone:
		return Outcome{"gone", http.StatusGone, false, slog.LevelInfo}
	default:
		return Outcome{"internal", http.StatusInternalServerError, true, slog.LevelError}
	}
}

// Error is a classified error. Message is written for the caller and must not
// hold secrets or internals; Cause is for the log.
type Error struct {
	Kind    Kind
	Message string
	Cause   error
	// RetryAfter is the pause a dependency asked for; zero when it asked for none.
	RetryAfter time.Duration
	// Field names the input that was refused, as the caller wrote it; may be empty.
	Field string
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Message
	}
	if e.Message == "" {
		return e.Cause.Error()
	}
	return e.Message + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// New makes an error of the kind with a message for the caller.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Field makes an Invalid error about one named input.
func Field(field, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Field: field, Message: field + ": " + fmt.Sprintf(format, args...)}
}

// Wrap gives cause a kind and a message for the caller. A nil cause stays nil.
func Wrap(kind Kind, cause error, format string, args ...any) error {
	if cause == nil {
		return nil
	}
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), Cause: cause}
}

// KindOf answers the kind of the outermost classified error in err's chain.
// Deadlines and cancellations nobody classified are Unavailable; anything else
// unclassified is Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is not nil and of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// RetryAfter answers the longest pause asked for in err's chain, or zero.
func RetryAfter(err error) time.Duration {
	var longest time.Duration
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			break
		}
		longest = max(longest, e.RetryAfter)
		err = e.Cause
	}
	return longest
}

// Few joins errors as errors.Join does, but of more than ten the first ten and how many there are: an error is one line in the log.
func Few(errs ...error) error {
	const few = 10
	var first []error
	more := 0
	for _, err := range errs {
		switch {
		case err == nil:
		case len(first) < few:
			first = append(first, err)
		default:
			more++
		}
	}
	if more > 0 {
		first = append(first, fmt.Errorf("and %d more", more))
	}
	return errors.Join(first...)
}

// Public answers what a caller may read of err: the outermost message for a
// classified error, and nothing of one that is not.
func Public(err error) (message, field string) {
	var e *Error
	if errors.As(err, &e) && e.Kind != Internal && e.Message != "" {
		return e.Message, e.Field
	}
	return "", ""
}
