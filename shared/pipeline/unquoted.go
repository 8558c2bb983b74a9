package pipeline

import (
	"bytes"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// span is a part of a text.
type span struct{ from, to int }

// maxUnquoted bounds the values without quotes that one text is searched for, and so how often it is parsed to find
// out which of them is to blame.
const maxUnquoted = 2000

// culprit is the first value without quotes that is to blame for an error of text: as it is written there is an error, and in quotes there
// is another one or none. yaml.v3 reads ahead, so that its own words may be about a later one.
func culprit(text []byte, err error) (at span, found bool) {
	spans := unquoted(text)
	// failure is what is wrong when all of them but the first so many are in quotes.
	failure := func(asWritten int) error {
		_, err := nodes(inQuotes(text, spans[asWritten:]))
		return err
	}
	if len(spans) == 0 {
		return span{}, false
	}
	rest := failure(0)
	if sameError(rest, err) {
		return span{}, false
	}
	i := sort.Search(len(spans), func(i int) bool { return !sameError(failure(i+1), rest) })
	if i == len(spans) {
		return span{}, false
	}
	// A tag takes the comma behind it, too, so that only something later is wrong.
	for _, s := range spans[:i] {
		if text[s.from] == '!' && s.to < len(text) && text[s.to] == ',' && !bytes.ContainsAny(text[s.from:s.to], blank) {
			return s, true
		}
	}
	return spans[i], true
}

func sameError(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}

// inQuotes is text with these parts of it in quotes.
func inQuotes(text []byte, spans []span) []byte {
	var b bytes.Buffer
	last := 0
	for _, s := range spans {
		b.Write(text[last:s.from])
		b.WriteString(strconv.Quote(string(text[s.from:s.to])))
		last = s.to
	}
	b.Write(text[last:])
	return b.Bytes()
}

// unquoted lists the values of a text that their author may have meant as text, while YAML reads a sign in them: an alias, a
// tag, an anchor, a key, or a list or map that starts inside them or ends before they do. Inside brackets a value is what
// stands between two commas, and brackets inside it belong to it. Not every one is to blame for anything.
func unquoted(text []byte) []span {
	s := scan{text: text}
	for s.at < len(text) && len(s.found) < maxUnquoted {
		s.line()
	}
	return s.found[:min(len(s.found), maxUnquoted)]
}

// scan goes through a text that may not be sound, as its author would read it.
type scan struct {
	text  []byte
	at    int
	found []span
}

// is reports whether the byte at i is one of chars; the end of the text is a line's end.
func (s *scan) is(i int, chars string) bool {
	if i >= len(s.text) {
		return strings.IndexByte(chars, '\n') >= 0
	}
	return strings.IndexByte(chars, s.text[i]) >= 0
}

const (
	lineEnd = "\r\n"
	blank   = " \t"
)

func (s *scan) skip(chars string) {
	for s.at < len(s.text) && s.is(s.at, chars) {
		s.at++
	}
}

// end is where the value that starts at from ends, when it goes on to the line's end or a comment.
func (s *scan) end(from int) int {
	to := from
	for !s.is(to, lineEnd) && (!s.is(to, "#") || to == from || !s.is(to-1, blank)) {
		to++
	}
	return from + len(bytes.TrimRight(s.text[from:to], blank))
}

func (s *scan) nextLine() {
	for s.at < len(s.text) && !s.is(s.at, lineEnd) {
		s.at++
	}
	s.skip(lineEnd)
}

// line reads what starts in a line outside brackets, to the end of the line where that ends.
func (s *scan) line() {
	start := s.at
	if bytes.HasPrefix(s.text[s.at:], []byte("---")) {
		s.at += 3
	}
	s.skip(blank)
	column := -1 // of what holds a value of several lines
	for s.is(s.at, "-?") && s.is(s.at+1, blank+lineEnd) {
		column = s.at - start
		s.at++
		s.skip(blank)
	}
	s.anchor()
	keyed := false
	if key := s.at; !s.is(key, "[{*!&") {
		if s.is(key, `"'`) {
			s.quoted()
			s.skip(blank)
		} else {
			for end := s.end(key); s.at < end && (!s.is(s.at, ":") || !s.is(s.at+1, blank+lineEnd)); {
				s.at++
			}
		}
		if keyed = s.is(s.at, ":"); keyed {
			s.at, column = s.at+1, key-start
			s.skip(blank)
			s.anchor()
		}
	}
	switch {
	case s.is(s.at, "|>"):
		s.nextLine()
		s.deeper(column)
		return
	case keyed && s.is(s.at, `"'`):
		s.quoted()
	case s.is(s.at, "[{"):
		s.brackets()
	case s.is(s.at, "*!&") || keyed && s.is(s.at, "?") && s.is(s.at+1, blank+lineEnd):
		value := span{s.at, s.end(s.at)}
		s.nextLine()
		// A tag can be that of a list or map below it.
		tag := s.text[value.from] == '!' && !bytes.ContainsAny(s.text[value.from:value.to], blank)
		if !tag || !s.below(column, keyed) {
			s.found = append(s.found, value)
		}
		return
	}
	s.nextLine()
}

// anchor goes past a sound "&name".
func (s *scan) anchor() {
	if !s.is(s.at, "&") || s.at+1 == len(s.text) || !isAnchor(s.text[s.at+1]) {
		return
	}
	for s.at++; s.at < len(s.text) && isAnchor(s.text[s.at]); {
		s.at++
	}
	s.skip(blank)
}

func isAnchor(c byte) bool { return isLetter(c) || isDigit(c) || c == '_' || c == '-' }

// quoted goes past a text in quotes.
func (s *scan) quoted() {
	quote := s.text[s.at]
	for s.at++; s.at < len(s.text); s.at++ {
		switch {
		case quote == '"' && s.text[s.at] == '\\':
			s.at++
		case s.text[s.at] == quote:
			s.at++
			return // that of '' opens the rest
		}
	}
	s.at = min(s.at, len(s.text))
}

// deeper goes past lines that are indented further than column.
func (s *scan) deeper(column int) {
	for s.at < len(s.text) {
		start := s.at
		s.skip(" ")
		if !s.is(s.at, lineEnd) && s.at-start <= column {
			s.at = start
			return
		}
		s.nextLine()
	}
}

// below reports whether the next line belongs to a value at column.
func (s *scan) below(column int, keyed bool) bool {
	here := s.at
	defer func() { s.at = here }()
	for s.at < len(s.text) {
		start := s.at
		s.skip(" ")
		if s.is(s.at, "#") {
			s.nextLine()
			continue
		}
		indent := s.at - start
		return indent > column || indent == column && keyed && s.is(s.at, "-") && s.is(s.at+1, blank+lineEnd)
	}
	return false
}

// brackets reads a list or map in brackets, and what follows it in its last line.
func (s *scan) brackets() {
	var open []int // where each list and map starts that is not closed
	closed := -1   // where the one starts that is closed right before here
	line := s.at   // no value before here is one of this line
	for s.at < len(s.text) {
		if closed >= line && closed >= 0 && !s.is(s.at, ",:]}#"+blank+lineEnd) {
			// It goes on, so it was no list or map.
			for len(s.found) > 0 && s.found[len(s.found)-1].from >= closed {
				s.found = s.found[:len(s.found)-1]
			}
			if len(open) == 0 {
				s.found = append(s.found, span{closed, s.end(closed)})
				return
			}
			s.value(closed, true)
			closed = -1
			continue
		}
		if closed >= 0 && len(open) == 0 {
			return
		}
		closed = -1
		switch {
		case s.is(s.at, "[{"):
			open = append(open, s.at)
			s.at++
		case s.is(s.at, "]}"):
			s.at++
			closed, open = open[len(open)-1], open[:len(open)-1]
		case s.is(s.at, lineEnd):
			s.at++
			line = s.at
		case s.is(s.at, ",:"+blank) || s.is(s.at, "?") && s.is(s.at+1, blank+lineEnd):
			s.at++
		case s.is(s.at, "#"):
			for !s.is(s.at, lineEnd) {
				s.at++
			}
		case s.is(s.at, `"'`):
			s.quoted()
		case s.is(s.at, "&") && s.at+1 < len(s.text) && isAnchor(s.text[s.at+1]):
			s.anchor()
		default:
			s.value(s.at, s.is(s.at, "*!&?"))
		}
	}
}

// value reads on in a value inside brackets that starts at from. It is listed if a sign in it is YAML's.
func (s *scan) value(from int, sign bool) {
	depth := 0
	for ; ; s.at++ {
		switch {
		case s.is(s.at, lineEnd), s.is(s.at, "#") && s.is(s.at-1, blank), s.is(s.at, ":") && s.is(s.at+1, blank+lineEnd) && depth == 0:
		case s.is(s.at, "[{"):
			depth, sign = depth+1, true
			continue
		case depth > 0 && s.is(s.at, "]}"):
			depth--
			continue
		case depth == 0 && s.is(s.at, ",]}"):
		case s.is(s.at, "?"):
			sign = true
			continue
		default:
			continue
		}
		if sign && depth == 0 {
			s.found = append(s.found, span{from, from + len(bytes.TrimRight(s.text[from:s.at], blank))})
		}
		return
	}
}

// balanced is the list or map in brackets, or the key behind a "?", that text begins with, as it is written in its line;
// empty where there is none.
func balanced(text []byte) string {
	depth := 0
	for i, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}', ',':
			if c != ',' {
				depth--
			}
			switch {
			case text[0] == '?' && depth <= 0 && (c == ',' || depth < 0):
				return string(bytes.TrimRight(text[:i], blank))
			case text[0] != '?' && depth == 0:
				return string(text[:i+1])
			}
		case '"', '\'', '#', '\r', '\n':
			return ""
		}
		if i == 0 && c != '[' && c != '{' && c != '?' {
			return ""
		}
	}
	return ""
}

// unquotedAt is the value of such a list that starts at from; empty: none does.
func unquotedAt(text []byte, spans []span, from int) string {
	i, found := slices.BinarySearchFunc(spans, from, func(s span, from int) int { return s.from - from })
	if !found {
		return ""
	}
	return string(text[spans[i].from:spans[i].to])
}

// refuseUnquoted says of a value without quotes what YAML reads in it.
func refuseUnquoted(value string) mistake {
	short := cut(value, maxShown)
	m := mistake{found: short + " without quotes", expected: "text"}
	remedy := "put the value in quotes"
	if short == value {
		remedy = "put " + strconv.Quote(value) + " in quotes"
	}
	say := func(reads, remedy string) {
		m.found += ", which YAML reads as " + reads
		m.message = "found " + m.found + ": " + remedy
	}
	switch value[0] {
	case '!':
		rest := strings.TrimLeft(value, "! ")
		say("a tag", "put the value in quotes")
		first, _ := utf8.DecodeRuneInString(rest)
		named := unicode.IsLetter(first) || unicode.IsDigit(first) || strings.ContainsRune("*?{[", first)
		if short == value && named && globOfBranches.refuse(rest) == nil {
			m.message += "; to leave " + rest + " out of a list, write {include: […], exclude: " + strconv.Quote(rest) + "}"
		}
	case '*':
		if short == value {
			remedy = "quote patterns that start with *, as in " + strconv.Quote(value)
		}
		m.expected = "a value in quotes"
		say("an alias", remedy)
	case '&':
		say("an anchor", remedy)
	case '?':
		say("a key", remedy)
	case '[', '{':
		say("a list or a map that ends too early", remedy)
	default:
		sign := value[strings.IndexAny(value, "[{?")]
		m.found += ", in which YAML reads " + string(sign) + " as the start of " + map[byte]string{'[': "a list", '{': "a map", '?': "a key"}[sign]
		m.message = "found " + m.found + ": " + remedy
	}
	return m
}
