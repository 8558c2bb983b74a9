package pipeline

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// maxProblems bounds what one file can make us report.
const maxProblems = 100

// Problem is one mistake in a pipeline file, in words for its author.
type Problem struct {
	// Line and Column count from 1; a column counts characters, as editors
	// do. 0 is unknown.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Path names the value, such as "steps[0].run"; empty for the whole file.
	Path string `json:"path"`
	// Message says what was found, what was expected and how to mend it.
	Message string `json:"message"`
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

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// shown quotes a foreign value for a message, cut to a readable length.
func shown(s string) string {
	return strconv.Quote(cut(s, 60))
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
