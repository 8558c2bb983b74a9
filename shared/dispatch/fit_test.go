package dispatch

import (
	"reflect"
	"strings"
	"testing"

	"runnerhub/shared/ci"
)

func TestFit(t *testing.T) {
	t.Parallel()
	list := func(n int, text string) []ci.Decision {
		out := make([]ci.Decision, n)
		for i := range out {
			out[i] = ci.Decision{Ref: text, Verdict: ci.AlreadyBuilt, Reason: text, Build: strings.Repeat("b", 32), Number: 1_000_000}
		}
		return out
	}
	for name, test := range map[string]struct {
		n    int
		text string
		want int // decisions left
		long int // bytes of text
	}{
		"none":                {0, "", 0, 0},
		"few and short":       {3, "short", 3, 5},
		"few and long":        {3, strings.Repeat("ä", 1000), 3, 300},
		"many":                {1000, strings.Repeat("x", 1000), 1000, 37},
		"many that grow":      {300, strings.Repeat("<", 1000), 300, 37},
		"more than ever seen": {5000, "branch main", 1489, 11},
	} {
		in := list(test.n, test.text)
		got := fit(in)
		if len(got) != test.want || size(got) > maxDecisions+len("[]") {
			t.Errorf("%s: %d decisions of %d bytes", name, len(got), size(got))
			continue
		}
		if len(got) == 0 {
			continue
		}
		if len(got[0].Ref) != test.long || got[0].Ref != got[0].Reason {
			t.Errorf("%s: %d bytes: %q", name, len(got[0].Ref), got[0].Ref)
		}
		if cut := test.want < test.n; cut != (got[len(got)-1].Ref == "the rest") {
			t.Errorf("%s: the last is %+v", name, got[len(got)-1])
		}
		if again := fit(got); len(again) != len(got) || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: fitting again changes it", name)
		}
		if len(in[0].Ref) != len(test.text) {
			t.Errorf("%s: the input was changed", name)
		}
	}
}
