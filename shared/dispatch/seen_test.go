package dispatch

import (
	"fmt"
	"testing"
)

// A push of many branches and commits does not fill the memory with what was read for it.
func TestSeenIsBounded(t *testing.T) {
	t.Parallel()
	known := map[string]reading{}
	for i := range 10 * maxSeen {
		remember(known, fmt.Sprint(i), reading{missing: true})
		if _, ok := known[fmt.Sprint(i)]; !ok || len(known) > maxSeen {
			t.Fatalf("after %d, %d are kept", i+1, len(known))
		}
	}
}
