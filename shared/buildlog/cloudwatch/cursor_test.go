package cloudwatch

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"runnerhub/shared/fault"
)

// awsToken is as long as what CloudWatch gives.
const awsToken = "f/39181395389186823452345236452345234523452345234523452345"

func TestCursorsComeBack(t *testing.T) {
	t.Parallel()
	for name, places := range map[string]map[streamID]place{
		"nothing read": {},
		"a few": {
			idOf("b/1/x"): {awsToken, 17, 20}, idOf("b/~y"): {"f/1730000000000:3", 1, 1}, idOf("b/2/z"): {"", 0, 12345678},
			idOf("empty"): {"f/-", 0, 0}, idOf("zero"): {"f/0", 0, 0}, idOf("zeros"): {"f/0012", 0, 0}, idOf("sign"): {"f/+12", 0, 0}, idOf("backward"): {"b/12", 0, 0},
		},
	} {
		got, err := parseCursor("b", makeCursor("b", places))
		if err != nil || !maps.Equal(got, places) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// A token too long to carry is left out; what was answered stays known.
	long := map[streamID]place{idOf("b/1/x"): {"f/" + strings.Repeat("x", 100), 17, 20}}
	got, err := parseCursor("b", makeCursor("b", long))
	if want := (place{"", 0, 20}); err != nil || got[idOf("b/1/x")] != want {
		t.Errorf("with a long token: %v, %v", got, err)
	}
}

// Cursors travel in addresses, for which API Gateway has 10,240 bytes with all headers.
func TestCursorsAreShort(t *testing.T) {
	t.Parallel()
	places := map[streamID]place{}
	for i := range maxPlaces {
		places[idOf(fmt.Sprint(i))] = place{awsToken, 100_000, 100_900}
		if n := len(makeCursor("b", places)); i == 0 && n > 80 || n > 4096 {
			t.Errorf("for %d streams it has %d bytes", i+1, n)
		}
	}
	if _, err := parseCursor("b", makeCursor("b", places)); err != nil {
		t.Error(err)
	}
	places[idOf("one more")] = place{}
	if _, err := parseCursor("b", makeCursor("b", places)); !fault.Is(err, fault.Invalid) {
		t.Errorf("with more streams than a log has: %v", err)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("")
	f.Add(makeCursor("b", map[streamID]place{idOf("b/1/x"): {awsToken, 17, 20}, idOf("b/~y"): {"f/1:3", 0, 3}}))
	f.Fuzz(func(t *testing.T, cursor string) {
		places, err := parseCursor("b", cursor)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatal(err)
			}
			return
		}
		if cursor != "" && makeCursor("b", places) != cursor {
			t.Fatalf("%q comes back as another", cursor)
		}
		for _, p := range places {
			if p.base < 0 || p.last < p.base {
				t.Fatalf("%q holds %+v", cursor, p)
			}
		}
	})
}
