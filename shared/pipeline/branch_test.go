package pipeline_test

import (
	"slices"
	"strings"
	"testing"

	"runnerhub/shared/pipeline"
)

func TestMostSpecific(t *testing.T) {
	t.Parallel()
	globs := []string{"**", "release/*", "release/**", "release/1", "*", "feature/*", "feature/x*", "{main,develop}"}
	for branch, want := range map[string]string{
		"release/1": "release/1", "release/2": "release/**", "release/2/a": "release/**", "main": "{main,develop}", "other": "**",
		"feature/xy": "feature/x*", "feature/y": "feature/*", "a/b/c": "**", "": "**",
	} {
		for range 2 {
			if got := pipeline.MostSpecific(globs, branch); got != want {
				t.Errorf("%s: %s, want %s", branch, got, want)
			}
			slices.Reverse(globs)
		}
	}
	if got := pipeline.MostSpecific([]string{"release/*"}, "main"); got != "" {
		t.Errorf("main takes %s", got)
	}
	for glob, want := range map[string]string{"release/*": "", "**": "", "": "empty", "!main": "!", "feature**": "**", "refs/heads/main": "refs/heads/", "a[": "["} {
		if got := pipeline.RefuseBranches(glob); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q is refused with %q", glob, got)
		}
	}
}
