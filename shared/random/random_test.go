package random_test

import (
	"regexp"
	"testing"

	"runnerhub/shared/random"
)

func TestForms(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		form string
		make func() string
	}{
		"id":     {"^[a-z2-7]{26}$", random.ID},
		"ref":    {"^[a-z2-7]{12}$", random.Ref},
		"secret": {"^[A-Z2-7]{52}$", func() string { return random.Secret().Reveal() }},
	} {
		a, b := test.make(), test.make()
		if !regexp.MustCompile(test.form).MatchString(a) || a == b {
			t.Errorf("%s: %q and %q", name, a, b)
		}
	}
}
