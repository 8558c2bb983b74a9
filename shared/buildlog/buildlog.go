// Package buildlog is the contract of build logs: lines appended in order, read
// from a cursor while more arrive, and the one text form of a line that the agent
// writes and every driver reads. Drivers live one level below and pass package
// buildlogtest. What secrets a log must not show is masked by the agent before it gets here.
package buildlog

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"runnerhub/shared/fault"
)

const (
	// MaxText is the longest text of a line in bytes; longer ones are split by the writer.
	MaxText = 16 << 10
	// MaxStep is the longest name of a step in a line, in bytes.
	MaxStep = 256
	// MaxLine is the longest text form of a line in bytes, with its newline: time, step and
	// text, and what is between them.
	MaxLine = 64 + MaxStep + MaxText
	// MaxPage is the most lines one Read answers.
	MaxPage = 1000
	// MaxPageBytes is the most bytes, by Line.Size, that one Read answers. JSON writes some
	// bytes as six, and what a Lambda answers is escaped again and ends at 6 MB.
	MaxPageBytes = 512 << 10
)

// Line is one line of output.
type Line struct {
	Time time.Time `json:"time"`
	Step string    `json:"step"` // name of the step; empty: the service itself
	Text string    `json:"text"` // UTF-8 without line breaks; may hold ANSI colours
}

// endText begins the line that an agent says last.
const endText = "Build ended: "

// End is the last line of an attempt's log, but for its time: it says what came of the attempt.
func End(outcome string) Line { return Line{Text: endText + outcome} }

// Ends reports whether a line is one that End made. Whoever can write to the log can write such a line: it says when to
// stop reading, and nothing else may be made of it.
func (l Line) Ends() bool { return l.Step == "" && strings.HasPrefix(l.Text, endText) }

// Size is what a line counts against MaxPageBytes: its text and the name of its step.
func (l Line) Size() int { return len(l.Step) + len(l.Text) }

// Page is an answer of Read. Cursor is of [A-Za-z0-9_-], and never empty: reading on from it answers what was
// appended since, with no line twice and none left out.
type Page struct {
	Lines  []Line
	Cursor string
}

// Log is the contract. Each build's log has a name (store.Build.LogName) of [A-Za-z0-9._-]{1,128} that does not
// begin with a dot; any other is fault.Invalid. A log nobody wrote to is empty, not absent.
type Log interface {
	// Append adds lines, all or none, after what is there. Only when its process dies, or after
	// fault.Unknown, the first ones may be there without the others, each of them whole.
	Append(ctx context.Context, name string, lines ...Line) error
	// Read answers up to limit lines (1 to MaxPage), and up to MaxPageBytes, from cursor on; the
	// empty cursor is the beginning. It may answer fewer though there are more, but none only when there was
	// no more. A cursor that was not made for this log is fault.Invalid.
	Read(ctx context.Context, name, cursor string, limit int) (Page, error)
}

// CheckName refuses what is no name of a log.
func CheckName(name string) error {
	bad := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	}
	if name == "" || len(name) > 128 || name[0] == '.' || strings.ContainsFunc(name, bad) {
		return fault.New(fault.Invalid, "%.200q is no name of a log", name)
	}
	return nil
}

// CheckLimit refuses what is no limit of a page.
func CheckLimit(limit int) error {
	if limit < 1 || limit > MaxPage {
		return fault.New(fault.Invalid, "a page of a log has 1 to %d lines, not %d", MaxPage, limit)
	}
	return nil
}

// BadCursor is the error for a cursor that the log did not make.
func BadCursor() error {
	return fault.Field("cursor", "is not one of this log")
}

// AppendText appends the text form of l to b: time, tab, step, tab, text, newline. Tabs
// and line breaks in the step, and line breaks in the text, become spaces; NUL and bytes that
// are not UTF-8 become U+FFFD; a step over MaxStep or a text over MaxText is cut. So the form of a line
// never holds a NUL, and drivers may use it for marks of their own.
func (l Line) AppendText(b []byte) []byte {
	b = l.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '\t')
	b = append(b, clean(l.Step, "\t\r\n", MaxStep)...)
	b = append(b, '\t')
	b = append(b, clean(l.Text, "\r\n", MaxText)...)
	return append(b, '\n')
}

// ParseLine reads the text form, without its newline. A line that is none, for
// instance because something else wrote to the log, becomes text without time and step.
// Whatever s is, the line keeps to the limits that AppendText sets.
func ParseLine(s string) Line {
	if line, ok := ParseForm(s); ok {
		return line
	}
	return Line{Text: clean(s, "\r\n", MaxText)}
}

// ParseForm is ParseLine for text that must be the text form of a line.
func ParseForm(s string) (line Line, ok bool) {
	at, rest, _ := strings.Cut(s, "\t")
	step, text, ok := strings.Cut(rest, "\t")
	t, err := time.Parse(time.RFC3339Nano, at)
	// Moved to UTC, the first and last day may leave the years that the form can hold.
	if t = t.UTC(); !ok || err != nil || t.Year() < 1 || t.Year() > 9999 {
		return Line{}, false
	}
	return Line{Time: t, Step: clean(step, "\t\r\n", MaxStep), Text: clean(text, "\r\n", MaxText)}, true
}

// clean makes s valid UTF-8 of at most limit bytes, without NUL, its breaks turned into spaces.
func clean(s, breaks string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.ContainsAny(s, breaks) || strings.ContainsRune(s, 0) {
		s = strings.Map(func(r rune) rune {
			if r == 0 {
				return utf8.RuneError
			}
			if strings.ContainsRune(breaks, r) {
				return ' '
			}
			return r
		}, s)
	}
	if len(s) <= limit {
		return s
	}
	for !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
