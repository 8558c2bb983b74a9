package agent

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
)

// Mask is what stands in the log in the place of a secret.
const Mask = "***"

// MinSecret is the length in bytes from which a secret is masked. Shorter ones
// would blot out ordinary text, and what is blotted out would show what they are.
const MinSecret = 4

// wrapDepth is how much of a secret must stand before a line break for the match to
// go on behind it. With less, the end of nearly every line would be held back, and a
// log that is watched would always lack its last line.
const wrapDepth = 8

// mask is the automaton (Aho and Corasick) that finds every form of every secret. It
// is built once and does not change; a maskWriter is one stream through it.
type mask struct {
	root  [256]int32 // transitions of node 0
	nodes []maskNode
}

type maskNode struct {
	edges []maskEdge
	fail  int32 // node of the longest proper suffix
	depth int32 // bytes matched
	match int32 // length of the longest form that ends here; 0: none
}

type maskEdge struct {
	b    byte
	node int32
}

// newMask masks these secrets: as they are, each line of a multi-line one, and
// both also in base64 (either alphabet, wherever they stand in what was encoded), escaped for
// URLs and for JSON. White space around a secret or a line does not matter.
func newMask(secrets []string) *mask {
	m := &mask{nodes: make([]maskNode, 1)}
	for _, s := range secrets {
		for _, form := range forms(s) {
			m.add(form)
		}
	}
	m.link()
	return m
}

// forms answers the texts to look for, without line breaks.
func forms(s string) []string {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(parts) > 1 {
		parts = append(parts, s)
	}
	var all []string
	for _, part := range parts {
		part = strings.TrimSpace(part)
		if len(part) < MinSecret {
			continue
		}
		all = append(all, squeeze(part))
		for _, escaped := range []string{url.QueryEscape(part), url.PathEscape(part)} {
			all = append(all, escaped, lowerEscapes(escaped))
		}
		if quoted, err := json.Marshal(part); err == nil {
			all = append(all, string(quoted[1:len(quoted)-1]))
		}
		all = append(all, strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(part)), "="))
		for shift := range 3 {
			inner := embedded(part, shift)
			all = append(all, inner, strings.NewReplacer("+", "-", "/", "_").Replace(inner))
		}
	}
	return all
}

func squeeze(s string) string { return strings.NewReplacer("\n", "", "\r", "").Replace(s) }

// lowerEscapes turns %2F into %2f.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:i+3], strings.ToLower(string(b[i+1:i+3])))
			i += 2
		}
	}
	return string(b)
}

// embedded answers those characters of the base64 of something containing s that
// depend on s alone, when s begins at an offset of shift modulo 3.
func embedded(s string, shift int) string {
	text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + s))
	return text[(shift*8+5)/6 : (shift+len(s))*8/6]
}

func (m *mask) add(form string) {
	if len(form) < MinSecret {
		return
	}
	at := int32(0)
	for i := range len(form) {
		next := m.child(at, form[i])
		if next == 0 {
			next = int32(len(m.nodes))
			m.nodes = append(m.nodes, maskNode{depth: m.nodes[at].depth + 1})
			m.nodes[at].edges = append(m.nodes[at].edges, maskEdge{form[i], next})
			if at == 0 {
				m.root[form[i]] = next
			}
		}
		at = next
	}
	m.nodes[at].match = m.nodes[at].depth
}

// child answers the node one byte on, or 0.
func (m *mask) child(at int32, b byte) int32 {
	if at == 0 {
		return m.root[b]
	}
	for _, e := range m.nodes[at].edges {
		if e.b == b {
			return e.node
		}
	}
	return 0
}

// step follows b from at, over the failure links where need be.
func (m *mask) step(at int32, b byte) int32 {
	for {
		if next := m.child(at, b); next != 0 || at == 0 {
			return next
		}
		at = m.nodes[at].fail
	}
}

// link sets the failure links, nearest nodes first.
func (m *mask) link() {
	var order []int32
	for _, e := range m.nodes[0].edges {
		order = append(order, e.node)
	}
	for i := 0; i < len(order); i++ {
		at := order[i]
		for _, e := range m.nodes[at].edges {
			fail := m.step(m.nodes[at].fail, e.b)
			m.nodes[e.node].fail = fail
			m.nodes[e.node].match = max(m.nodes[e.node].match, m.nodes[fail].match)
			order = append(order, e.node)
		}
	}
}

// text masks a whole text.
func (m *mask) text(s string) string {
	var out strings.Builder
	w := maskWriter{mask: m, emit: func(b []byte) { out.Write(b) }}
	w.write([]byte(s))
	w.flush()
	return out.String()
}

// maskWriter masks one stream. What may be the beginning of a secret is held back
// until it is known; everything else is passed on at once. A byte that lies in any
// occurrence of a secret is never passed on, even where occurrences overlap.
type maskWriter struct {
	mask *mask
	emit func([]byte) // gets masked bytes; must not keep them

	state  int32
	held   []heldByte // from head on: not passed on yet
	head   int
	base   int64  // position of held[head] in the stream, line breaks not counted
	hidden []span // ascending, apart
	out    []byte
}

// heldByte is a byte with the line breaks after it, which the automaton did not see.
type heldByte struct {
	b      byte
	breaks uint8
	brk    [2]byte
}

// span is a run of positions that occurrences cover, both ends included.
type span struct{ from, to int64 }

func (w *maskWriter) write(p []byte) {
	for _, b := range p {
		if b == '\n' || b == '\r' {
			w.lineBreak(b)
			continue
		}
		w.state = w.mask.step(w.state, b)
		if w.state == 0 && !w.holds() {
			w.out = append(w.out, b)
			w.base++
			continue
		}
		w.held = append(w.held, heldByte{b: b})
		node := w.mask.nodes[w.state]
		if node.match > 0 {
			w.hide(int64(node.match))
		}
		w.release(int(node.depth))
	}
	w.send()
}

// flush passes on what is held: at the end of the stream no secret can follow.
func (w *maskWriter) flush() {
	w.state = 0
	w.release(0)
	w.send()
}

// holds reports whether anything is held back.
func (w *maskWriter) holds() bool { return w.head < len(w.held) }

// lineBreak holds b with the byte before it when a secret may go on behind it.
func (w *maskWriter) lineBreak(b byte) {
	for w.state != 0 && len(w.mask.nodes[w.state].edges) == 0 {
		w.state = w.mask.nodes[w.state].fail
	}
	if w.mask.nodes[w.state].depth >= wrapDepth {
		last := &w.held[len(w.held)-1]
		if int(last.breaks) < len(last.brk) {
			last.brk[last.breaks] = b
			last.breaks++
			return
		}
	}
	w.state = 0
	w.release(0)
	w.out = append(w.out, b)
}

// hide marks the last n bytes.
func (w *maskWriter) hide(n int64) {
	to := w.base + int64(len(w.held)-w.head) - 1
	from := to - n + 1
	last := len(w.hidden) - 1
	for last >= 0 && w.hidden[last].from >= from {
		last--
	}
	w.hidden = w.hidden[:last+1]
	if last >= 0 && w.hidden[last].to >= from {
		w.hidden[last].to = to
		return
	}
	w.hidden = append(w.hidden, span{from, to})
}

// release passes on all but the last keep bytes.
func (w *maskWriter) release(keep int) {
	for len(w.held)-w.head > keep {
		w.pass(w.held[w.head])
		w.head++
		w.base++
	}
	if w.head == len(w.held) || w.head > 64<<10 {
		w.held = append(w.held[:0], w.held[w.head:]...)
		w.head = 0
	}
}

func (w *maskWriter) pass(h heldByte) {
	if len(w.hidden) == 0 || w.base < w.hidden[0].from {
		w.out = append(append(w.out, h.b), h.brk[:h.breaks]...)
		return
	}
	if w.base == w.hidden[0].from {
		w.out = append(w.out, Mask...)
	}
	if w.base == w.hidden[0].to {
		w.out = append(w.out, h.brk[:h.breaks]...)
		w.hidden = append(w.hidden[:0], w.hidden[1:]...)
	}
}

func (w *maskWriter) send() {
	if len(w.out) > 0 {
		w.emit(w.out)
		w.out = w.out[:0]
	}
}
