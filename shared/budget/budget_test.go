package budget

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestDetach(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end, limit, want time.Duration
	}{
		"nothing ends it":        {0, Recording, Recording},
		"there is time":          {time.Minute, Recording, Recording},
		"little is left":         {3 * time.Second, Recording, 3 * time.Second},
		"nothing is left":        {-time.Second, Recording, 0},
		"a limit of the callers": {time.Minute, 2 * time.Second, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.end != 0 {
					ctx = Until(ctx, time.Now().Add(test.end))
				}
				if left, ok := Left(ctx); ok != (test.end != 0) || ok && left != test.end {
					t.Errorf("%v are left, %v", left, ok)
				}
				ctx, gone := context.WithCancel(ctx)
				gone() // the caller
				began := time.Now()
				ctx, cancel := Detach(ctx, test.limit)
				defer cancel()
				<-ctx.Done()
				if took := time.Since(began); took != test.want {
					t.Errorf("it took %v, not %v", took, test.want)
				}
			})
		})
	}
}

// Several recordings one after the other share what is left.
func TestRecordings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := Until(t.Context(), time.Now().Add(10*time.Second))
		began := time.Now()
		for range 3 {
			ctx, cancel := Record(ctx)
			<-ctx.Done()
			cancel()
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("they took %v", took)
		}
	})
}
