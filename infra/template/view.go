package template

import (
	"fmt"
	"time"
)

// view reads one table of a resource's evaluated properties, and remembers what was read: what
// nobody read is reported, so that nothing the template says is passed over.
type view struct {
	*problems
	place          // of the resource
	n        *node // nil for a table that is not there
	shape    *shape
	resource string
	at       string
	seen     map[string]bool
	inner    []*view
}

func (v *view) get(key string) *node {
	v.seen[key] = true
	return v.n.get(key)
}

func (v *view) wrong(key, format string, args ...any) {
	at := v.place
	if n := v.n.get(key); n != nil {
		at = n.place
	} else if v.n != nil {
		at = v.n.place
	}
	v.add(at, v.resource, join(v.at, key), format, args...)
}

// given reports whether there is a value.
func (v *view) given(key string) bool { return v.n.get(key) != nil }

func (v *view) text(key string) string { return v.textOr(key, "") }

func (v *view) textOr(key, fallback string) string {
	n := v.get(key)
	if n == nil {
		return fallback
	}
	if f, ok := v.shape.fields[key]; ok && n.kind == scalar {
		if wrong := f.wrong(n.text); wrong != "" {
			v.wrong(key, "%s", wrong)
		}
	}
	return n.text
}

func (v *view) whole(key string, fallback int) int {
	n := v.get(key)
	if n == nil {
		return fallback
	}
	i, ok := wholeNumber(n.text)
	if !ok {
		v.wrong(key, "found %s, expected a whole number", shown(n.text))
	}
	return i
}

// between is whole within what AWS takes.
func (v *view) between(key string, fallback, least, most int) int {
	i := v.whole(key, fallback)
	if i < least || i > most {
		v.wrong(key, "%d is not between %d and %d", i, least, most)
	}
	return i
}

func (v *view) seconds(key string, fallback, least, most int) time.Duration {
	return time.Duration(v.between(key, fallback, least, most)) * time.Second
}

func (v *view) number(key string, fallback float64) float64 {
	n := v.get(key)
	if n == nil {
		return fallback
	}
	x, ok := number(n.text)
	if !ok {
		v.wrong(key, "found %s, expected a number", shown(n.text))
	}
	return x
}

func (v *view) flag(key string) bool {
	n := v.get(key)
	if n == nil {
		return false
	}
	if n.text != "true" && n.text != "false" {
		v.wrong(key, "found %s, expected true or false", shown(n.text))
	}
	return n.text == "true"
}

// list answers the items of a list, or the one value where one may stand for a list.
func (v *view) list(key string) []*node {
	return several(v.get(key))
}

func (v *view) texts(key string) []string { return words(v.get(key)) }

func (v *view) any(key string) any {
	n := v.get(key)
	if n == nil {
		return nil
	}
	return plain(n)
}

// pairs answers a table of texts.
func (v *view) pairs(key string) map[string]string {
	out := map[string]string{}
	if n := v.get(key); n != nil {
		for i, k := range n.keys {
			out[k.text] = n.items[i].text
		}
	}
	return out
}

func (v *view) open(n *node, s *shape, at string) *view {
	inner := &view{problems: v.problems, place: v.place, n: n, shape: s, resource: v.resource, at: at, seen: map[string]bool{}}
	v.inner = append(v.inner, inner)
	return inner
}

// table answers the table called key, which may not be there.
func (v *view) table(key string) *view {
	return v.open(v.get(key), v.shape.fields[key].shape, join(v.at, key))
}

// tables answers the tables of a list.
func (v *view) tables(key string) []*view {
	var out []*view
	for i, n := range v.list(key) {
		s := v.shape.fields[key].shape
		if s.form == isList {
			s = s.of
		}
		out = append(out, v.open(n, s, fmt.Sprintf("%s[%d]", join(v.at, key), i)))
	}
	return out
}

// named answers the tables of a table with free names.
func (v *view) named(key string) (names []string, tables []*view) {
	n := v.get(key)
	if n == nil {
		return nil, nil
	}
	for i, k := range n.keys {
		names = append(names, k.text)
		tables = append(tables, v.open(n.items[i], v.shape.fields[key].of, join(join(v.at, key), k.text)))
	}
	return names, tables
}

// done reports what was not read.
func (v *view) done() {
	if v.n != nil && v.n.kind == table {
		for _, key := range v.n.keys {
			if !v.seen[key.text] && !v.shape.fields[key.text].aside {
				v.add(key.place, v.resource, join(v.at, key.text), "known to the reader, and not read by it")
			}
		}
	}
	for _, inner := range v.inner {
		inner.done()
	}
}
