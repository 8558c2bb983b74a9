package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestKindSurvivesWrapping(t *testing.T) {
	t.Parallel()
	inner := New(RateLimited, "slow down")
	inner.RetryAfter = 3 * time.Second
	for name, test := range map[string]struct {
		err  error
		want Kind
	}{
		"plain":           {errors.New("x"), Internal},
		"wrapped once":    {fmt.Errorf("doing: %w", inner), RateLimited},
		"outermost wins":  {Wrap(Unavailable, inner, "the forge is busy"), Unavailable},
		"deadline":        {fmt.Errorf("get: %w", context.DeadlineExceeded), Unavailable},
		"nil is nothing":  {nil, Internal},
		"wrapping of nil": {Wrap(Gone, nil, "gone"), Internal},
	} {
		if got := KindOf(test.err); got != test.want {
			t.Errorf("%s: kind %v, want %v", name, got.Outcome().Name, test.want.Outcome().Name)
		}
	}
	if Is(nil, Internal) {
		t.Error("a nil error is of no kind")
	}
	if got := RetryAfter(Wrap(Unavailable, inner, "busy")); got != 3*time.Second {
		t.Errorf("RetryAfter = %v, want 3s", got)
	}
}

func TestFew(t *testing.T) {
	t.Parallel()
	var errs []error
	for i := range 25 {
		errs = append(errs, nil, fmt.Errorf("problem %d", i))
	}
	err := Few(errs...)
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 11 || lines[9] != "problem 9" || lines[10] != "and 15 more" {
		t.Errorf("of many: %v", err)
	}
	if err := Few(errs[:20]...); strings.Contains(err.Error(), "more") || !errors.Is(err, errs[19]) {
		t.Errorf("of ten: %v", err)
	}
	if err := Few(nil, nil); err != nil {
		t.Errorf("of none: %v", err)
	}
}

func TestPublicHidesCauses(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("store: %w", Wrap(Invalid, errors.New("token abc"), "name: is empty"))
	if got, _ := Public(err); got != "name: is empty" {
		t.Errorf("Public = %q", got)
	}
	if got, _ := Public(errors.New("token abc")); got != "" {
		t.Errorf("an unclassified error shows %q", got)
	}
	if got, _ := Public(Wrap(Internal, errors.New("x"), "secret")); got != "" {
		t.Errorf("an internal error shows %q", got)
	}
}
