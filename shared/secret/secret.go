// Package secret holds values that cannot be printed by accident: every way a
// value reaches a log, an error, JSON or a format string shows a mask instead.
// It is no encryption; what is stored is sealed by package vault.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// Mask is what every printed secret looks like.
const Mask = "[secret]"

// Text is a secret string. The zero value is empty. Reveal is the only way out,
// so that every place that opens a secret can be found by that name.
type Text struct{ reveal func() string }

// New makes a secret of s.
func New(s string) Text {
	if s == "" {
		return Text{}
	}
	// A closure, not a field: reflection-based printers (%+v of an enclosing
	// struct with unexported fields) do not call String and would show a field.
	return Text{reveal: func() string { return s }}
}

// Reveal answers the value itself.
func (t Text) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// Empty reports whether there is no value.
func (t Text) Empty() bool { return t.reveal == nil }

// Equal compares in constant time for equal lengths.
func (t Text) Equal(o Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(o.Reveal())) == 1
}

// Hash answers the lower-case hex SHA-256 of the value: the form in which
// bearer secrets of high entropy (sessions, API tokens, tickets) are stored.
func (t Text) Hash() string {
	sum := sha256.Sum256([]byte(t.Reveal()))
	return hex.EncodeToString(sum[:])
}

func (t Text) String() string               { return Mask }
func (t Text) GoString() string             { return Mask }
func (t Text) Format(s fmt.State, _ rune)   { _, _ = s.Write([]byte(Mask)) }
func (t Text) LogValue() slog.Value         { return slog.StringValue(Mask) }
func (t Text) MarshalText() ([]byte, error) { return []byte(Mask), nil }
func (t Text) MarshalJSON() ([]byte, error) { return []byte(`"` + Mask + `"`), nil }
