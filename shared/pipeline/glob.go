package pipeline

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
)

const (
	maxGlob = 255 // bytes: no branch name is longer
	// maxAlternatives bounds what the braces of one glob multiply to; each
	// costs the matcher a pass of its own.
	maxAlternatives = 64
)

// refuseGlob says why a branch glob is not taken and what to write instead;
// empty means that it is fine. What it takes, doublestar takes too: anchored,
// "*" stops at "/", and "**" is a whole segment.
func refuseGlob(glob string) string {
	switch {
	case glob == "":
		return "found an empty pattern, which matches no branch: remove it"
	case len(glob) > maxGlob:
		return fmt.Sprintf("found a pattern of %d bytes, expected at most %d", len(glob), maxGlob)
	case strings.HasPrefix(glob, "!"):
		return "found ! at the start: exclusions are not supported, name the branches that build"
	case strings.Contains(glob, `\`):
		return `found \ in a pattern, which no branch name contains: write / between its parts`
	case strings.HasPrefix(glob, "refs/"):
		short := strings.TrimPrefix(glob, "refs/heads/")
		if short == glob || short == "" {
			return "found " + shown(glob) + ": patterns match the name of a branch, without refs/"
		}
		return fmt.Sprintf("found %s: write the name of the branch alone, %s", shown(glob), shown(short))
	case strings.ContainsFunc(glob, func(c rune) bool { return unicode.IsSpace(c) || unicode.IsControl(c) }):
		return "found a space in " + shown(glob) + ", which no branch name contains: write several patterns as a list, [main, develop]"
	case strings.HasPrefix(glob, "/") || strings.HasSuffix(glob, "/") || strings.Contains(glob, "//"):
		return "found a part without a name in " + shown(glob) + ": remove the / at the start or the end, or the second one"
	case !doublestar.ValidatePattern(glob):
		return "found a [ or { in " + shown(glob) + " that is not closed, or holds nothing: close it, or remove it"
	}
	alternatives, why := expand(glob)
	if why != "" {
		return why
	}
	for _, plain := range alternatives {
		for segment := range strings.SplitSeq(plain, "/") {
			if segment != "**" && strings.Contains(segment, "**") {
				return "found ** inside " + shown(segment) + `, where it means no more than *: ` + whole(segment)
			}
		}
	}
	return ""
}

// whole says how to write a segment in which "**" is not alone.
func whole(segment string) string {
	before, after, _ := strings.Cut(segment, "**")
	after = strings.TrimLeft(after, "*")
	switch {
	case before == "" && after == "":
		return `write "**" for any number of parts`
	case after == "":
		return fmt.Sprintf(`write "%s*" for one part of the name, and "%s*/**" beside it for more`, before, before)
	case before == "":
		return fmt.Sprintf(`write "*%s" for one part of the name, "**/*%s" for any number`, after, after)
	}
	return fmt.Sprintf(`write "%s*%s" for one part of the name, or "%s*/**/*%s" for several`, before, after, before, after)
}

// expand writes out the braces of a valid glob. It refuses braces in braces
// and more than maxAlternatives, as the matcher would try all of them.
func expand(glob string) (plain []string, why string) {
	plain = []string{""}
	for glob != "" {
		next := indexOutsideClass(glob, "{")
		if next < 0 {
			next = len(glob)
		}
		var options []string
		literal := glob[:next]
		if glob = glob[next:]; glob == "" {
			options = []string{literal}
		} else {
			end := indexOutsideClass(glob, "}")
			inside := glob[1:end]
			glob = glob[end+1:]
			if indexOutsideClass(inside, "{") >= 0 {
				return nil, "found braces inside braces: write the patterns as a list"
			}
			for {
				comma := indexOutsideClass(inside, ",")
				if comma < 0 {
					break
				}
				options = append(options, literal+inside[:comma])
				inside = inside[comma+1:]
			}
			options = append(options, literal+inside)
		}
		if len(plain)*len(options) > maxAlternatives {
			return nil, fmt.Sprintf("found braces that stand for more than %d patterns: write the patterns as a list", maxAlternatives)
		}
		var longer []string
		for _, start := range plain {
			for _, option := range options {
				longer = append(longer, start+option)
			}
		}
		plain = longer
	}
	return plain, ""
}

// indexOutsideClass finds c in a valid glob where it is not in a [class].
func indexOutsideClass(glob, c string) int {
	inside := false
	for i := range len(glob) {
		switch {
		case inside:
			inside = glob[i] != ']'
		case glob[i] == '[':
			inside = true
		case glob[i] == c[0]:
			return i
		}
	}
	return -1
}
