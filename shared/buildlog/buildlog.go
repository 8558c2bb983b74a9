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
)

// MaxText is the longest text of a line in bytes; longer ones are split by the writer.
const MaxText = 16 << 10

// Line is one line of output.
type Line struct {
	Time time.Time `json:"time"`
	Step string    `json:"step"` // name of the step; empty: the service itself
	Text string    `json:"text"` // UTF-8 without line breaks; may hold ANSI colours
}

// Page is an answer of Read. Cursor is never empty: reading on from it answers what was
// appended since, with no line twice and none left out.
type Page struct {
	Lines  []Line
	Cursor string
}

// Log is the contract. A build is named by its id; a log nobody wrote to is empty, not absent.
type Log interface {
	// Append adds lines, all or none, after what is there.
	Append(ctx context.Context, build string, lines ...Line) error
	// Read answers up to limit lines (1 to 1,000) from cursor on; the empty cursor is the
	// beginning. A cursor that this log did not make is fault.Invalid.
	Read(ctx context.Context, build, cursor string, limit int) (Page, error)
}

// AppendText appends the text form of l to b: time, tab, step, tab, text, newline. Tabs
// and line breaks in the step, and line breaks in the text, become spaces; bytes that are not UTF-8
// become U+FFFD; a text over MaxText is cut.
func (l Line) AppendText(b []byte) []byte {
	b = l.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '\t')
	b = append(b, flat(l.Step, "\t\r\n")...)
	b = append(b, '\t')
	text := flat(l.Text, "\r\n")
	if len(text) > MaxText {
		cut := MaxText
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	b = append(b, text...)
	return append(b, '\n')
}

func flat(s, breaks string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if !strings.ContainsAny(s, breaks) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(breaks, r) {
			return ' '
		}
		return r
	}, s)
}

// ParseLine reads the text form, without its newline. A line that is none, for
// instance because something else wrote to the log, becomes text without time and step.
func ParseLine(s string) Line {
	at, rest, ok := strings.Cut(s, "\t")
	if ok {
		if t, err := time.Parse(time.RFC3339Nano, at); err == nil {
			if step, text, ok := strings.Cut(rest, "\t"); ok {
				return Line{Time: t, Step: step, Text: text}
			}
		}
	}
	return Line{Text: strings.ToValidUTF8(s, "\uFFFD")}
}
