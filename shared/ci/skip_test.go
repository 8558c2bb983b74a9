package ci_test

import (
	"strings"
	"testing"

	"runnerhub/shared/ci"
)

func TestSkipMarker(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"":                                 "",
		"Fix the build":                    "",
		"[skip ci]":                        "[skip ci]",
		"[ci skip] docs":                   "[ci skip]",
		"Docs [Skip CI]":                   "[Skip CI]",
		"Docs\n\nLong text\n\n[CI SKIP]\n": "[CI SKIP]",
		"[[skip ci]":                       "[skip ci]",
		"[JIRA-1] [skip ci]":               "[skip ci]",
		"skip ci":                          "",
		"[skip  ci]":                       "",
		"[skip-ci]":                        "",
		"[no ci]":                          "",
		"[skip ci":                         "",
		"[s\u212aip ci]":                   "", // the sign for Kelvin, which folds to k
		strings.Repeat("[", 10_000):        "",
	} {
		if got := ci.SkipMarker(message); got != want {
			t.Errorf("%.40q: got %q, want %q", message, got, want)
		}
	}
}
