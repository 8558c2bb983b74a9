package bitbucket

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// wireTime is a time that only people look at: a spelling nobody expected is no
// reason to lose what it belongs to, and reads as zero.
type wireTime struct{ time.Time }

func (t *wireTime) UnmarshalJSON(data []byte) error {
	if parsed, err := time.Parse(`"`+time.RFC3339+`"`, string(data)); err == nil {
		t.Time = parsed.UTC()
	}
	return nil
}

// plain makes foreign text fit for one line: no control characters, at most n
// runes.
func plain(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	return cut(strings.TrimSpace(s), n)
}

// cut answers at most n runes of s.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// firstLine answers the subject of a commit message, cut as package ci says.
func firstLine(message string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return plain(line, 200)
}

// isUUID reports whether s is a UUID with braces, as Bitbucket writes it.
func isUUID(s string) bool {
	if len(s) != 38 || s[0] != '{' || s[37] != '}' {
		return false
	}
	for i, r := range []byte(s[1:37]) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (r == '-') || (!dash && !isHex(r)) {
			return false
		}
	}
	return true
}

// isHash reports whether s is a commit hash of shortest to 40 characters.
func isHash(s string, shortest int) bool {
	if len(s) < shortest || len(s) > 40 {
		return false
	}
	for _, r := range []byte(s) {
		if !isHex(r) {
			return false
		}
	}
	return true
}

func isHex(r byte) bool { return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F' }

// isRefName reports whether s can be a branch or a tag: git allows more to be
// refused, but nothing that is refused here.
func isRefName(s string) bool {
	return s != "" && len(s) <= 1024 && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}
