package credential

import (
	"fmt"
	"strings"
	"testing"

	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

func TestFixed(t *testing.T) {
	t.Parallel()
	c := Fixed(secret.New("given"))
	for _, refused := range []secret.Text{{}, secret.New("given")} {
		if got, err := c.Get(t.Context(), refused); err != nil || got.Reveal() != "given" {
			t.Errorf("%v, %v", got.Reveal(), err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, "given") {
		t.Errorf("printed it is %s", text)
	}
	if _, err := Fixed(secret.Text{}).Get(t.Context(), secret.Text{}); !fault.Is(err, fault.Internal) {
		t.Errorf("none: %v", err)
	}
}
