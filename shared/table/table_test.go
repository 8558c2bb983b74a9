package table

import (
	"strings"
	"testing"
	"unicode/utf8"

	"runnerhub/shared/fault"
)

func TestPrefix(t *testing.T) {
	t.Parallel()
	for p, want := range map[string]string{
		"":                   "",
		"a":                  "b",
		"build/":             "build0",
		"\u007f":             "\u0080", // one byte becomes two
		"\ud7ff":             "\ue000", // the surrogates between are no text
		"\uffff":             "\U00010000",
		"a\U0010ffff":        "b",
		"\U0010ffff":         "",
		"é\U0010ffff\u07ff":  "é\U0010ffff\u0800",
		"z\U0010ffff\ud7ffa": "z\U0010ffff\ud7ffb",
	} {
		if from, before := Prefix(p); from != p || before != want {
			t.Errorf("Prefix(%q) = %q, %q, want %q", p, from, before, want)
		}
	}
}

func FuzzPrefix(f *testing.F) {
	f.Add("build/", "build/1")
	f.Add("\ud7ff", "\ue000")
	f.Add("\U0010ffff", "\U0010ffff\U0010ffff")
	f.Fuzz(func(t *testing.T, p, key string) {
		if !utf8.ValidString(p) || !utf8.ValidString(key) {
			return
		}
		from, before := Prefix(p)
		if !utf8.ValidString(before) {
			t.Errorf("Prefix(%q) ends before %q, which is no text", p, before)
		}
		if within := key >= from && (before == "" || key < before); within != strings.HasPrefix(key, p) {
			t.Errorf("Prefix(%q) = %q, %q: %q within: %t", p, from, before, key, within)
		}
	})
}

// Whatever a client sends as a cursor leads to a place in its own range or nowhere.
func FuzzCursor(f *testing.F) {
	r, err := Query{Partition: "p", From: "b", Before: "d"}.Range()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("b", "d", r.Cursor("c"))
	f.Add("b", "d", r.Cursor("d"))
	f.Add("", "", r.Cursor("c"))
	f.Add("", "", "AAAA")
	f.Fuzz(func(t *testing.T, from, before, cursor string) {
		q := Query{Partition: "p", From: from, Before: before, Cursor: cursor}
		r, err := q.Range()
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		if cursor == "" {
			return
		}
		if r.After < from || (before != "" && r.After >= before) {
			t.Errorf("the cursor %q leads to %q, out of [%q, %q)", cursor, r.After, from, before)
		}
		q.Cursor = r.Cursor(r.After)
		if again, err := q.Range(); err != nil || again != r {
			t.Errorf("the same place again is %+v, %v, want %+v", again, err, r)
		}
	})
}

func TestConditionsAreApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		condition Condition
		absent    bool
		version   int64
		valid     bool
	}{
		"none":              {Condition{}, false, 0, true},
		"absent":            {Absent(), true, 0, true},
		"version 3":         {VersionIs(3), false, 3, true},
		"version 0":         {VersionIs(0), false, 0, false},
		"a version below 0": {VersionIs(-1), false, -1, false},
	} {
		if c.condition.IsAbsent() != c.absent || c.condition.Version() != c.version {
			t.Errorf("%s: absent %t, version %d", name, c.condition.IsAbsent(), c.condition.Version())
		}
		err := Validate([]Write{Put(Item{Key: Key{"p", "s"}}, c.condition)})
		if c.valid != (err == nil) || !c.valid && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
