package agent

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"runnerhub/shared/buildlog"
)

// logbook writes the build's log in the text form of package buildlog. It counts what
// steps print and, past the limit, drops it with one line that says so. A log that
// cannot be written does not end the build.
type logbook struct {
	now   func() time.Time
	limit int64

	mu   sync.Mutex
	out  io.Writer
	used int64
	buf  []byte
}

// line writes a line of a step. The text is masked already.
func (l *logbook) line(step, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used > l.limit {
		return
	}
	at := l.now()
	l.buf = buildlog.Line{Time: at, Step: step, Text: text}.AppendText(l.buf[:0])
	if l.used += int64(len(l.buf)); l.used > l.limit {
		l.buf = buildlog.Line{Time: at, Text: fmt.Sprintf("The log is full (%d bytes): further output is dropped, the steps go on.", l.limit)}.AppendText(l.buf[:0])
	}
	_, _ = l.out.Write(l.buf)
}

// say writes a line of the agent itself, which the limit does not concern.
func (l *logbook) say(format string, args ...any) {
	l.add(buildlog.Line{Text: fmt.Sprintf(format, args...)})
}

// end writes the last line: who reads the log knows by it that no more will come.
func (l *logbook) end(outcome string) { l.add(buildlog.End(outcome)) }

func (l *logbook) add(line buildlog.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line.Time = l.now()
	l.buf = line.AppendText(l.buf[:0])
	_, _ = l.out.Write(l.buf)
}

// lines cuts one stream of masked bytes into lines as a terminal would show them: a
// carriage return begins the line anew, so that a progress bar is one line, not a
// thousand. Lines over buildlog.MaxText go on in the next.
type lines struct {
	write func(text string)

	line     []byte
	returned bool // a carriage return came, and nothing after it
}

func (l *lines) add(p []byte) {
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			l.text(p)
			return
		}
		l.text(p[:i])
		if p[i] == '\n' {
			l.end()
		} else {
			l.returned = true
		}
		p = p[i+1:]
	}
}

func (l *lines) text(p []byte) {
	if len(p) == 0 {
		return
	}
	if l.returned {
		l.line, l.returned = l.line[:0], false
	}
	for len(p) > 0 {
		if len(l.line) == buildlog.MaxText {
			l.split(p[0])
		}
		n := min(len(p), buildlog.MaxText-len(l.line))
		l.line = append(l.line, p[:n]...)
		p = p[n:]
	}
}

// split writes the full line, and keeps of it a last character that next goes on with.
// Bytes that are no UTF-8 are cut anywhere.
func (l *lines) split(next byte) {
	cut := len(l.line)
	if !utf8.RuneStart(next) {
		for back := 1; back < utf8.UTFMax; back++ {
			if b := l.line[len(l.line)-back]; utf8.RuneStart(b) {
				if b >= utf8.RuneSelf {
					cut = len(l.line) - back
				}
				break
			}
		}
	}
	l.write(string(l.line[:cut]))
	l.line = append(l.line[:0], l.line[cut:]...)
}

func (l *lines) end() {
	l.write(string(l.line))
	l.line, l.returned = l.line[:0], false
}

// flush writes a last line that has no end.
func (l *lines) flush() {
	if len(l.line) > 0 {
		l.end()
	}
}
