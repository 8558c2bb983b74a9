package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxSearch is the largest text in which the place of any syntax error is
// searched for: the search parses up to log2 of it beginnings of the text. A value that needs
// quotes is looked for in any text.
const maxSearch = 64 << 10

// document reads the one YAML document in text. Its problem is the first
// syntax error, the only one that can be told apart from its consequences.
func document(text []byte) (*yaml.Node, *Problem) {
	if len(text) > MaxBytes {
		return nil, &Problem{
			Message:  fmt.Sprintf("the file is larger than %d bytes: move long scripts into files of their own", MaxBytes),
			Found:    "a larger file",
			Expected: fmt.Sprintf("at most %d bytes", MaxBytes), unsayable: true,
		}
	}
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return nil, problemAt(text, i, mistake{found: "a NUL byte", expected: "text", remedy: "is this a binary file?"})
	}
	if !utf8.Valid(text) {
		return nil, problemAt(text, invalidUTF8(text), mistake{
			found: "bytes that are not UTF-8", expected: "UTF-8", message: "found bytes that are not UTF-8: save the file as UTF-8",
		})
	}
	root, err := nodes(text)
	var second *secondDocument
	switch {
	case errors.As(err, &second):
		p := mistake{
			found: `a second document after "---"`, expected: "one", unsayable: true,
			message: `found a second document after "---", expected one: make it a file of its own and an app with that path`,
		}.at(second.line, second.column, "")
		return nil, &p
	case err != nil:
		return nil, syntaxProblem(text, err)
	case root == nil || isNull(root):
		p := mistake{
			found: "an empty file", expected: "name, triggers and steps",
			message: "the file is empty, expected at least name, triggers and steps",
		}.at(1, 1, "")
		return nil, &p
	}
	return root, nil
}

// version11 is text with the version of YAML that yaml.v3 knows, where it says that it is of the next one: what the format takes is the
// same in both.
func version11(text []byte) []byte {
	const directive = "%YAML 1.2"
	start := 0
	for line := range bytes.Lines(text) {
		switch trimmed := bytes.TrimSpace(line); {
		case string(trimmed) == directive:
			text = bytes.Clone(text)
			text[start+bytes.IndexByte(line, '2')] = '1'
			return text
		case len(trimmed) > 0 && trimmed[0] != '#':
			return text
		}
		start += len(line)
	}
	return text
}

// secondDocument is the error of a text with more than one document.
type secondDocument struct{ line, column int }

func (*secondDocument) Error() string { return "second document" }

// nodes reads text without interpreting it; nil without an error is a text
// that holds nothing. Nothing is expanded, so aliases cost nothing here.
func nodes(text []byte) (root *yaml.Node, err error) {
	// yaml.v3 panics on purpose where it finds its own state impossible.
	// On foreign bytes this must not end the process.
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, fmt.Errorf("yaml: %v", p)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	switch err := decoder.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, &secondDocument{second.Line, second.Column}
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return first.Content[0], nil
}

// syntaxProblem says where and what the syntax error err of text is. yaml.v3
// gives no column, often no line and sometimes a wrong one.
func syntaxProblem(text []byte, err error) *Problem {
	if at, found := culprit(text, err); found {
		return problemAt(text, at.from, refuseUnquoted(string(text[at.from:at.to])))
	}
	line, what := splitLine(err)
	if len(text) > maxSearch {
		p := explain(what, nil).at(line, 0, "")
		return &p
	}
	if remembered(what) {
		line, at := openedAt(text, what)
		if at < 0 {
			p := explain(what, nil).at(line, 0, "")
			return &p
		}
		return problemAt(text, at, explain(what, nil))
	}
	at := errorAt(text, what)
	return problemAt(text, at, explain(what, text[at:]))
}

// errorAt finds the place of an error in text: the end of the shortest
// beginning of the text that fails in the same way. Whole lines come first, as a
// beginning that ends inside a sound line may fail for that alone.
func errorAt(text []byte, what string) int {
	var ends []int
	for line := range bytes.SplitAfterSeq(text, []byte{'\n'}) {
		start := 0
		if len(ends) > 0 {
			start = ends[len(ends)-1]
		}
		ends = append(ends, start+len(line))
	}
	line := sort.Search(len(ends)-1, func(i int) bool { return failsWith(text[:ends[i]], what) })
	start := 0
	if line > 0 {
		start = ends[line-1]
	}
	length := sort.Search(ends[line]-start, func(n int) bool { return failsWith(text[:start+n], what) })
	at := max(start, start+length-1)
	if strings.HasPrefix(what, "unknown anchor") {
		// The name has to be read before it can be unknown; point to its start.
		at = max(start, start+bytes.LastIndexByte(text[start:at+1], '*'))
	}
	return at
}

// remembered reports whether yaml.v3 knows the line of an error. They are the
// errors that a text gets just by ending in a quote or a list, so that errorAt
// would find them in sound places.
func remembered(what string) bool {
	return opening(what) != "" || strings.Contains(what, "expected node content")
}

// opening lists the characters that open what the error says is not closed.
func opening(what string) string {
	switch {
	case strings.Contains(what, "unexpected end of stream"):
		return `'"`
	case strings.Contains(what, "expected ',' or ']'"):
		return "["
	case strings.Contains(what, "expected ',' or '}'"):
		return "{"
	}
	return ""
}

// openedAt is the line of a remembered error and the place in text where
// the thing was opened that the text never closes; -1 where that is unclear.
func openedAt(text []byte, what string) (line, at int) {
	chars := opening(what)
	quote := strings.Contains(chars, "'")
	// yaml.v3 takes line 0 for unknown and counts from 1 in its scanner, which
	// reads quotes, and from 0 in its parser. A line before the text makes both
	// tell the truth.
	_, err := nodes(append([]byte{'\n'}, text...))
	if err == nil {
		return 0, -1
	}
	line, _ = splitLine(err)
	if quote {
		line--
	}
	line = min(line, bytes.Count(text, []byte{'\n'})+1) // the end may count as a line
	start := 0
	for range line - 1 {
		start += bytes.IndexByte(text[start:], '\n') + 1
	}
	end := len(text)
	if i := bytes.IndexByte(text[start:], '\n'); i >= 0 {
		end = start + i
	}
	const tries = 20
	for range tries {
		end = start + bytes.LastIndexAny(text[start:end], chars)
		if end < start {
			break
		}
		// Before the quote a list may be open; before the outermost open list
		// all is well.
		if quote && !failsWith(text[:end], what) || !quote && sound(text[:end]) {
			return line, end
		}
	}
	return line, -1
}

func sound(text []byte) bool {
	_, err := nodes(text)
	return err == nil
}

// failsWith reports whether text has this very error.
func failsWith(text []byte, what string) bool {
	_, err := nodes(text)
	if err == nil {
		return false
	}
	_, got := splitLine(err)
	return got == what
}

// splitLine takes the line apart from the words of an error of yaml.v3.
func splitLine(err error) (line int, what string) {
	what = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		number, after, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			return n, after
		}
	}
	return 0, what
}

// explain puts an error of yaml.v3 into words that say what to do. rest is
// the text from the place of the error on, if that is known.
func explain(what string, rest []byte) mistake {
	has := func(part string) bool { return strings.Contains(what, part) }
	say := func(found, expected, remedy string) mistake {
		return mistake{found: found, expected: expected, message: "found " + found + ": " + remedy, unsayable: true}
	}
	first, _ := utf8.DecodeRune(rest)
	switch {
	case aboutStar(what):
		return say("* or & at the start of a value", "a value in quotes", "quote patterns that start with *")
	case has("tag") || has("did not find the expected '>'") || has("URI"):
		return say("! at the start of a value, which YAML reads as a tag", "a value in quotes", "put the value in quotes")
	case has("cannot start any token") && first == '\t':
		return mistake{found: "a tab", expected: "spaces", remedy: "YAML is indented with spaces only", unsayable: true}
	case has("cannot start any token") && len(rest) > 0:
		return say(fmt.Sprintf("%q at the start of a value", first), "a value in quotes", "put the value in quotes")
	case has("mapping values are not allowed"):
		return say(`a second ":" where a value stands`, "a value", `put a value with ": " in quotes, or check the indentation of this line`)
	case has("expected ',' or ']'"):
		return say("a list that is not closed", `"]" or ","`, `add the "]", or the "," between its entries`)
	case has("expected ',' or '}'"):
		return say("a map that is not closed", `"}" or ","`, `add the "}", or the "," between its entries`)
	case has("unexpected end of stream"):
		return say("a quoted text that is not closed", "a quote at its end", "add the quote at its end")
	case has("expected node content"):
		m := say("nothing", "a value", "")
		m.message = `a value is missing: remove the "," too many, or close the list or map`
		return m
	case has("unknown escape character"):
		return say(`a \ escape that does not exist`, "an escape of YAML", `use single quotes, in which \ means itself, or write \\`)
	case has("did not find expected key"):
		return say(`something that is no "key: value" at this place`, `"key: value"`, "check the indentation of this line, and that nothing follows a closing quote")
	case has("expected '-' indicator"):
		return say(`a key where the next "- " of a list was expected`, `"- "`, "check the indentation of this line")
	case has("could not find expected ':'"):
		return mistake{found: `text without ":"`, expected: `"key: value"`, remedy: "check the indentation of this line", unsayable: true}
	case has("block sequence entries are not allowed"):
		return say(`"- " behind a key`, "a list on the next line", "start the list on the next line, or write it in brackets")
	case has("exceeded max depth"):
		m := say("values nested far deeper than the format allows", "at most a few levels", "")
		m.message = "found values nested far deeper than the format allows"
		return m
	}
	return mistake{found: "text that is not YAML", expected: "YAML", message: "not valid YAML: " + what}
}

// aboutStar reports whether an error comes from a "*" or "&" at the start of a value.
func aboutStar(what string) bool {
	return strings.Contains(what, "unknown anchor") || strings.Contains(what, "did not find expected alphabetic")
}

// problemAt is a problem of the whole file at a byte of its text.
func problemAt(text []byte, offset int, m mistake) *Problem {
	before := text[:offset]
	m.unsayable = true
	p := m.at(bytes.Count(before, []byte{'\n'})+1, utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])+1, "")
	return &p
}

func invalidUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(text)
}
