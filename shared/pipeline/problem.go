package pipeline

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds what one file can make us report.
const maxProblems = 100

// maxShown is how many characters of a foreign value a message shows.
const maxShown = 60

// Problem is one mistake in a pipeline file, in words for its author.
type Problem struct {
	File string `json:"file,omitempty"` // its path; empty until Problems.In
	// Line and Column count from 1; a column counts characters, as editors
	// do. 0 is unknown.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path names the value, such as "steps[0].run"; empty for the whole file.
	Path string `json:"path"`
	// Message says what was found, what was expected and how to mend it.
	Message string `json:"message"`
	// Found and Expected are the parts of Message, for programs.
	Found    string `json:"found"`
	Expected string `json:"expected"`
	// Nearest is the key or value that was probably meant; empty when none is near.
	Nearest string `json:"nearest,omitempty"`

	// unsayable is set where no JSON Schema could find the mistake: see Schema.
	unsayable bool
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		b.WriteString(strconv.Itoa(p.Line))
		b.WriteByte(':')
		if p.Column > 0 {
			b.WriteString(strconv.Itoa(p.Column))
			b.WriteByte(':')
		}
		b.WriteByte(' ')
	}
	if p.Path != "" {
		b.WriteString(p.Path)
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems are the mistakes of one file in the order of the text. Nil means
// that there are none; check for that before storing them in an error.
type Problems []Problem

// Error lists the problems, one a line, as line:column: path: message.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// InFile is Error with the file's path before each position, so that editors
// and terminals can jump there.
func (ps Problems) InFile(path string) string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = path + ":" + p.String()
		if p.Line == 0 {
			lines[i] = path + ": " + p.String()
		}
	}
	return strings.Join(lines, "\n")
}

// In is the same problems, each with the path of its file.
func (ps Problems) In(path string) Problems {
	named := slices.Clone(ps)
	for i := range named {
		named[i].File = path
	}
	return named
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// mistake is a problem that has no place yet.
type mistake struct {
	found, expected string
	remedy          string // what to do about it
	nearest         string
	sameValue       bool   // the value of an unknown key is one for nearest
	message         string // instead of the one that the others make
	unsayable       bool
}

// text is the mistake as a sentence.
func (m mistake) text() string {
	switch {
	case m.message != "":
		return m.message
	case m.nearest != "":
		return "found " + m.found + ", expected " + m.expected + ", did you mean " + strconv.Quote(m.nearest) + "?"
	case m.remedy != "":
		return "found " + m.found + ", expected " + m.expected + ": " + m.remedy
	}
	return "found " + m.found + ", expected " + m.expected
}

// at is the mistake at a place of the file.
func (m mistake) at(line, column int, path string) Problem {
	return Problem{
		Line: line, Column: column, Path: path, Message: m.text(),
		Found: m.found, Expected: m.expected, Nearest: m.nearest, unsayable: m.unsayable,
	}
}

// shown quotes a foreign value for a message, cut to a readable length.
func shown(s string) string {
	return strconv.Quote(cut(s, maxShown))
}

// cut shortens s to at most n characters.
func cut(s string, n int) string {
	seen := 0
	for i := range s {
		if seen == n {
			return s[:i] + "…"
		}
		seen++
	}
	return s
}
