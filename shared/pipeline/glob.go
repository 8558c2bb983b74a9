package pipeline

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

const (
	maxGlob = 255 // characters
	// maxAlternatives bounds what the braces of one glob multiply to; each
	// costs the matcher a pass of its own.
	maxAlternatives = 64
)

// globOf says what a glob is about, in the words of messages.
type globOf string

const (
	globOfBranches  globOf = "branch"
	globOfTags      globOf = "tag"
	globOfFiles     globOf = "file"
	globOfArtifacts globOf = "kept file"
	globOfCache     globOf = "cached file" // may also lie below the home folder
)

func (of globOf) file() bool { return of != globOfBranches && of != globOfTags }

// matched reports whether events are matched with such globs.
func (of globOf) matched() bool { return of == globOfBranches || of == globOfTags || of == globOfFiles }

// refs is how git begins the full name.
func (of globOf) refs() string {
	if of == globOfTags {
		return "refs/tags/"
	}
	return "refs/heads/"
}

// refuse says why a glob is not taken and what to write instead; nil means that
// it is fine. What it takes, doublestar takes too: anchored, "*" stops at "/", and
// "**" is a whole segment.
func (of globOf) refuse(glob string) *mistake {
	expected := "a pattern for the name of a " + string(of)
	if of.file() {
		expected = "a pattern for a path inside the repository"
	}
	switch length := utf8.RuneCountInString(glob); {
	case glob == "":
		return &mistake{found: "an empty pattern", expected: expected, message: "found an empty pattern, which matches nothing: remove it"}
	case length > maxGlob:
		return &mistake{found: fmt.Sprintf("a pattern of %d characters", length), expected: fmt.Sprintf("at most %d", maxGlob)}
	case strings.HasPrefix(glob, "!"):
		return of.refuseExclusion(glob)
	case strings.ContainsFunc(glob, unicode.IsControl):
		return &mistake{found: "a control character in " + shown(glob), expected: expected, remedy: "remove it"}
	case strings.Contains(glob, `\`):
		return &mistake{found: `\ in ` + shown(glob), expected: expected, message: `found \ in ` + shown(glob) + ": write / between the parts of a name"}
	}
	if why := of.refuseStart(glob, expected); why != nil {
		return why
	}
	if !doublestar.ValidatePattern(glob) {
		return &mistake{
			found: "a [ or { in " + shown(glob) + " that is not closed, or holds nothing", expected: expected,
			message: "found a [ or { in " + shown(glob) + " that is not closed, or holds nothing: close it, or remove it", unsayable: true,
		}
	}
	if class := slashClass(glob); class != "" {
		return &mistake{
			found: "a / in the class " + shown(class), expected: "other characters", unsayable: true,
			message: "found a / in the class " + shown(class) + ": no class matches one, so remove it",
		}
	}
	if class, from, to := turnedRange(glob); class != "" {
		return &mistake{
			found: "a range in the class " + shown(class) + " that ends before it starts", expected: "a range from the lower to the higher character", unsayable: true,
			message: "found a range in the class " + shown(class) + " that ends before it starts: write " + shown(to+"-"+from),
		}
	}
	alternatives, why := expand(glob)
	if why != nil {
		return why
	}
	if why := of.refuseUnmatched(glob, alternatives, expected); why != nil {
		return why
	}
	for _, plain := range alternatives {
		if strings.Contains("/"+plain+"/", "/**/**/") {
			return &mistake{
				found: "** twice in a row in " + shown(plain), expected: "** once", unsayable: true,
				message: "found ** twice in a row in " + shown(plain) + ", which means no more than once: remove one",
			}
		}
		for segment := range strings.SplitSeq(plain, "/") {
			if of.file() && (segment == ".." || segment == ".") {
				m := of.refuseStart(segment, expected)
				m.unsayable = true
				return m
			}
			if segment != "**" && strings.Contains(segment, "**") {
				return &mistake{
					found: "** inside " + shown(segment), expected: "** alone between two /", unsayable: true,
					message: "found ** inside " + shown(segment) + ", where it means no more than *: " + whole(segment),
				}
			}
		}
	}
	return nil
}

// refuseUnmatched refuses a glob none of whose alternatives any name can match, by the rules of git check-ref-format.
func (of globOf) refuseUnmatched(glob string, alternatives []string, expected string) *mistake {
	var first string
	for _, plain := range alternatives {
		why := of.unmatched(plain)
		if why == "" {
			return nil
		}
		if first == "" {
			first = why
		}
	}
	m := &mistake{found: first + " in " + shown(glob), expected: expected, unsayable: true, message: "found " + first + " in " + shown(glob)}
	m.message += ": no name of a " + string(of) + " has that; patterns are globs for the whole name, not regular expressions"
	if better := asGlob(glob); better != glob && of.refuse(better) == nil {
		m.message += ": write " + shown(better)
	}
	return m
}

// asGlob writes a regular expression for whole names as a glob; as it is, where that is not certain.
func asGlob(expression string) string {
	glob := strings.TrimSuffix(strings.TrimLeft(expression, "^"), "$")
	if strings.Contains(glob, "..*") { // one or more of anything, which no glob says
		return expression
	}
	glob = strings.TrimPrefix(glob, "./")
	if rest, found := strings.CutPrefix(glob, ".*/"); found {
		glob = "**/" + rest
	}
	if rest, found := strings.CutSuffix(glob, ".*"); found && (rest == "" || strings.HasSuffix(rest, "/")) {
		glob = rest + "**"
	}
	if strings.Contains(glob, "(") && !strings.ContainsAny(glob, "{,}") {
		glob = strings.NewReplacer("(", "{", "|", ",", ")", "}").Replace(glob)
	}
	if glob = strings.ReplaceAll(glob, ".*", "*"); strings.ContainsAny(glob, `()|+$\`) {
		return expression
	}
	return glob
}

// unmatched is what no name has in a glob without braces; empty where it may match one.
func (of globOf) unmatched(plain string) string {
	if of.file() {
		return ""
	}
	bare := withoutClasses(plain)
	if i := strings.IndexAny(bare, "^~:"); i >= 0 {
		return bare[i : i+1]
	}
	switch {
	case strings.Contains(bare, ".."):
		return ".."
	case strings.Contains("/"+bare, "/."):
		return "a part that starts with ."
	case strings.HasSuffix(bare, "."):
		return ". at the end"
	case strings.Contains(bare+"/", ".lock/"):
		return ".lock at the end of a part"
	}
	return ""
}

// withoutClasses is a valid glob with a letter for each class.
func withoutClasses(plain string) string {
	bare := ""
	for {
		before, rest, opened := strings.Cut(plain, "[")
		bare += before
		if !opened {
			return bare
		}
		_, plain, _ = strings.Cut(rest, "]")
		bare += "x"
	}
}

// turnedRange is the first class of a valid glob that has a range such as z-a, and the ends of that. The matcher and its documentation
// disagree about what it matches.
func turnedRange(glob string) (class, from, to string) {
	for {
		_, rest, opened := strings.Cut(glob, "[")
		if !opened {
			return "", "", ""
		}
		inside, after, _ := strings.Cut(rest, "]")
		set := []rune(strings.TrimLeft(inside[:1], "^!") + inside[1:])
		for i := 0; i+2 < len(set); i++ {
			if set[i+1] != '-' {
				continue
			}
			if set[i] > set[i+2] {
				return "[" + inside + "]", string(set[i]), string(set[i+2])
			}
			i += 2
		}
		glob = after
	}
}

// refuseExclusion is what is said of a "!" at the start.
func (of globOf) refuseExclusion(glob string) *mistake {
	rest := strings.TrimSpace(strings.TrimLeft(glob, "! "))
	if rest == "" {
		rest = "…"
	}
	m := &mistake{
		found: "! at the start of a pattern", expected: "a pattern of what to take",
		message: "found ! at the start of a pattern, which excludes nothing here: name the files to take",
	}
	switch of {
	case globOfBranches, globOfTags, globOfFiles:
		m.message = "found ! at the start of a pattern: to leave something out, write {include: […], exclude: " + strconv.Quote(cut(rest, maxShown)) + "}"
	}
	return m
}

// refuseStart looks at the parts of a glob that no glob of its kind can have.
func (of globOf) refuseStart(glob, expected string) *mistake {
	body := glob
	if of == globOfCache {
		body = strings.TrimPrefix(glob, "~/")
	}
	named := func(found, remedy string) *mistake {
		return &mistake{found: found + " in " + shown(glob), expected: expected, message: "found " + found + " in " + shown(glob) + ": " + remedy}
	}
	switch {
	case !of.file() && strings.HasPrefix(glob, "refs/"):
		short := strings.TrimPrefix(glob, of.refs())
		if short == glob || short == "" {
			return &mistake{found: shown(glob), expected: expected, message: "found " + shown(glob) + ": patterns match the name of a " + string(of) + ", without refs/"}
		}
		return &mistake{found: shown(glob), expected: expected, message: "found " + shown(glob) + ": write the name of the " + string(of) + " alone, " + shown(short)}
	case !of.file() && strings.ContainsFunc(glob, unicode.IsSpace):
		return named("a space", "no name of a "+string(of)+" has one"+asList(glob))
	case of.file() && strings.TrimFunc(body, unicode.IsSpace) != body:
		return named("a space at the start or the end", "remove it")
	case of.file() && strings.HasSuffix(body, "/") && strings.Trim(body, "/") != "":
		return named("/ at the end", "write "+strconv.Quote(cut(strings.TrimRight(glob, "/"), maxShown)+"/**")+" for all that is in the folder")
	case strings.HasPrefix(body, "/") || strings.HasSuffix(body, "/") || strings.Contains(body, "//") || body == "":
		return named("a part without a name", "remove the / at the start or the end, or the second one")
	case of.file() && climbs(body):
		return named("..", "patterns stay inside the repository, written from its root")
	case of.file() && strings.Contains("/"+body+"/", "/./"):
		return named("a part that is only a dot", "remove it: patterns are written from the root of the repository")
	case of.file() && strings.HasPrefix(body, "~/"):
		return named("~", "patterns stay inside the repository, written from its root")
	}
	return nil
}

// asList says how to write several patterns that stand in one text; nothing where that would not help.
func asList(glob string) string {
	depth := 0
	several := strings.FieldsFunc(glob, func(c rune) bool {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		return unicode.IsSpace(c) || c == ',' && depth <= 0
	})
	for i, one := range several {
		if globOfBranches.refuse(one) != nil {
			return ""
		}
		plain := isLetter(one[0]) || isDigit(one[0]) || one[0] == '_'
		if !plain || strings.ContainsAny(one, `?[]{}"'#:`) || strings.EqualFold(one, "null") {
			several[i] = strconv.Quote(one)
		}
	}
	list := "[" + strings.Join(several, ", ") + "]"
	if len(several) == 0 || utf8.RuneCountInString(list) > 2*maxShown {
		return "; write several patterns as a list"
	}
	return "; write several patterns as a list, " + list
}

// slashClass finds a class in a valid glob that "/" is one of.
func slashClass(glob string) string {
	for {
		_, rest, opened := strings.Cut(glob, "[")
		if !opened {
			return ""
		}
		class, after, _ := strings.Cut(rest, "]")
		if strings.Contains(class, "/") {
			return "[" + class + "]"
		}
		if set := []rune(class); set[0] != '^' && set[0] != '!' {
			for i := 1; i+1 < len(set); i++ {
				if set[i] == '-' && set[i-1] <= '/' && '/' <= set[i+1] {
					return "[" + class + "]"
				}
			}
		}
		glob = after
	}
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
func expand(glob string) (plain []string, why *mistake) {
	whole := glob
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
				return nil, &mistake{found: "braces inside braces", expected: "braces with plain text", message: "found braces inside braces: write the patterns as a list", unsayable: true}
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
			found := fmt.Sprintf("braces that stand for more than %d patterns", maxAlternatives)
			return nil, &mistake{found: found, expected: "fewer", message: "found " + found + ": write the patterns as a list", unsayable: true}
		}
		var longer []string
		for _, start := range plain {
			for _, option := range options {
				if strings.HasSuffix(start, "*") && strings.HasPrefix(option, "*") {
					return nil, &mistake{
						found: "braces in " + shown(whole) + " beside which * becomes **", expected: "braces that keep * alone", unsayable: true,
						message: "found braces in " + shown(whole) + " beside which * becomes **: write the patterns as a list",
					}
				}
				longer = append(longer, start+option)
			}
		}
		plain = longer
	}
	return plain, nil
}

// alternatives is how many globs the braces of a valid one stand for.
func alternatives(glob string) int {
	n := 1
	for {
		from := indexOutsideClass(glob, "{")
		if from < 0 {
			return n
		}
		glob = glob[from+1:]
		to := indexOutsideClass(glob, "}")
		options := 1
		for inside := glob[:to]; ; options++ {
			comma := indexOutsideClass(inside, ",")
			if comma < 0 {
				break
			}
			inside = inside[comma+1:]
		}
		n, glob = n*options, glob[to+1:]
	}
}

// steps is how many characters of a name a valid glob compares at the worst, for each that the name has: its alternatives one after
// the other, and behind a "*" a whole text at each place.
func steps(glob string) int {
	longest, run := 1, 0
	for i := range len(glob) {
		switch glob[i] {
		case '*', '?', '[', ']', '{', '}', ',', '/':
			run = 0
		default:
			run++
			longest = max(longest, run)
		}
	}
	return longest * alternatives(glob)
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
