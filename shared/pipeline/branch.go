package pipeline

import (
	"cmp"
	"slices"
	"strings"
)

// EveryBranch is the pattern for branches that leaves none out.
const EveryBranch = "**"

// RefuseBranches says in words why a pattern for branches is not taken; empty: it is.
func RefuseBranches(glob string) string {
	why := globOfBranches.refuse(glob)
	switch {
	case why == nil:
		return ""
	case why.message != "":
		return why.message
	case why.remedy != "":
		return "found " + why.found + ": " + why.remedy
	}
	return "found " + why.found + ", expected " + why.expected
}

// MostSpecific answers the pattern that says most about a branch, of those that match it: a name without
// wildcards before all others, then the one with more characters before its first wildcard, then the longer one,
// then the first in the order of the alphabet. The order of globs has no influence. Empty: none matches.
func MostSpecific(globs []string, branch string) string {
	fit := slices.DeleteFunc(slices.Clone(globs), func(glob string) bool { return !matches(glob, branch) })
	if len(fit) == 0 {
		return ""
	}
	literal := func(glob string) int {
		if at := strings.IndexAny(glob, "*?[{"); at >= 0 {
			return at
		}
		return maxGlob * 4 // longer than any
	}
	return slices.MinFunc(fit, func(a, b string) int {
		return cmp.Or(cmp.Compare(literal(b), literal(a)), cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
}
