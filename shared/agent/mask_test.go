package agent

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"runnerhub/shared/buildlog"
)

// through runs text through the masking and the cutting into lines, in pieces of n bytes.
func through(m *mask, text string, n int) []string {
	var all []string
	cut := &lines{write: func(text string) { all = append(all, text) }}
	w := &maskWriter{mask: m, emit: cut.add}
	for b := []byte(text); len(b) > 0; {
		piece := b[:min(n, len(b))]
		w.write(piece)
		b = b[len(piece):]
	}
	w.flush()
	cut.flush()
	return all
}

func TestMask(t *testing.T) {
	t.Parallel()
	const long = "a-long-secret/with+signs&more=1 and a space"
	for name, c := range map[string]struct {
		secrets  []string
		in, want string
	}{
		"plain":          {[]string{"hunter2"}, "x hunter2 y", "x *** y"},
		"twice":          {[]string{"hunter2"}, "hunter2hunter2", "******"},
		"overlap":        {[]string{"abcdef", "defghi"}, "1abcdefghi2", "1***2"},
		"inside":         {[]string{"abcdefgh", "cdef"}, "abcdefgh cdef abcdefg", "*** *** ab***g"},
		"own overlap":    {[]string{"abab"}, "ababab!", "***!"},
		"prefix":         {[]string{"hunter2"}, "hunter1 hunte", "hunter1 hunte"},
		"false start":    {[]string{"aaab"}, "aaaaab", "aa***"},
		"short":          {[]string{"abc", "", " ab "}, "abc ab", "abc ab"},
		"spaces around":  {[]string{"  hunter2\n"}, "=hunter2=", "=***="},
		"none":           {nil, "any\nthing", "any|thing"},
		"line by line":   {[]string{"first line\nab\nthird line\n"}, "third line, first line, ab", "***, ***, ab"},
		"whole":          {[]string{"first line\nab\nthird line"}, "first line\nab\nthird line!", "***!"},
		"whole, CRLF":    {[]string{"first line\nab\nthird line"}, "first line\r\nab\r\nthird line!", "***!"},
		"wrapped":        {[]string{"0123456789abcdef"}, "-0123456789a\nbcdef-", "-***-"},
		"wrapped early":  {[]string{"0123456789abcdef"}, "-01\n23456789abcdef-", "-01|23456789abcdef-"}, // see wrapDepth
		"line end":       {[]string{"0123456789abcdef"}, "0123456789abcdef\n0123456789abcdef\n", "***|***"},
		"blank lines":    {[]string{"0123456789abcdef"}, "0123456789\n\n\nabcdef", "0123456789|||abcdef"},
		"base64":         {[]string{long}, base64.StdEncoding.EncodeToString([]byte(long)) + ".", "***==."},
		"base64, raw":    {[]string{long}, base64.RawURLEncoding.EncodeToString([]byte(long)) + ".", "***."},
		"query":          {[]string{long}, "?q=" + url.QueryEscape(long) + "&b", "?q=***&b"},
		"query, small":   {[]string{long}, "?q=" + lowerEscapes(url.QueryEscape(long)) + "&b", "?q=***&b"},
		"path":           {[]string{long}, "/" + url.PathEscape(long) + "/", "/***/"},
		"JSON":           {[]string{`with "quotes"`}, mustJSON(`say with "quotes" now`), `"say *** now"`},
		"not in between": {[]string{"hunter2"}, "hun\nter2", "hun|ter2"},
		"return":         {[]string{"hunter2"}, "hunter2\rhunter2 x\r\ny", "*** x|y"},
		"progress":       {nil, "1%\r2%\r100%\rdone\n\r", "done"},
		"empty lines":    {nil, "a\n\n\nb\n", "a|||b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMask(c.secrets)
			for n := 1; n <= len(c.in)+1; n++ {
				if got := strings.Join(through(m, c.in, n), "|"); got != c.want {
					t.Fatalf("in pieces of %d: %q, want %q", n, got, c.want)
				}
			}
		})
	}
}

func mustJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestMaskEmbedded encodes a secret amid other text, at every offset, and looks for what
// the encoding shows of it.
func TestMaskEmbedded(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-with-?>~-in-it"
	m := newMask([]string{secret})
	for before := range 7 {
		for after := range 5 {
			plain := strings.Repeat("u", before) + secret + strings.Repeat("v", after)
			for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
				got := m.text(enc.EncodeToString([]byte(plain)))
				if len(strings.ReplaceAll(got, Mask, "")) > (before+after+2)*8/6+4 || !strings.Contains(got, Mask) {
					t.Errorf("%d before, %d after: %q", before, after, got)
				}
			}
		}
	}
}

// TestMaskHoldsLittle checks that a line which is no secret is shown when it ends.
func TestMaskHoldsLittle(t *testing.T) {
	t.Parallel()
	var shown strings.Builder
	w := &maskWriter{mask: newMask([]string{"ready-steady-go", "dynamite"}), emit: func(b []byte) { shown.Write(b) }}
	for _, line := range []string{"it is ready\n", "dyna\n", "ready-steady-go\n", "progress: r\r"} {
		shown.Reset()
		w.write([]byte(line))
		if got := shown.String(); !strings.HasSuffix(got, line[len(line)-1:]) {
			t.Errorf("after %q only %q is shown", line, got)
		}
	}
}

// TestMaskAdversary prints what is hardest for the automaton; it must stay linear.
func TestMaskAdversary(t *testing.T) {
	t.Parallel()
	m := newMask([]string{strings.Repeat("a", 4000) + "b", strings.Repeat("a", 3000)})
	w := &maskWriter{mask: m, emit: func([]byte) {}}
	piece := []byte(strings.Repeat("a", 1<<20))
	for range 8 {
		w.write(piece)
	}
	if len(w.held)-w.head > 4001 || cap(w.held) > 1<<18 {
		t.Errorf("holds %d bytes in %d", len(w.held)-w.head, cap(w.held))
	}
	newlines := &maskWriter{mask: m, emit: func([]byte) {}}
	newlines.write([]byte("aaaaaaaaaa" + strings.Repeat("\n", 1<<20)))
	if got := len(newlines.held); got > 16 {
		t.Errorf("holds %d bytes for line breaks", got)
	}
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	in := strings.Repeat("äöü€😀", 5000) // characters of 2, 3 and 4 bytes
	got := through(newMask(nil), in+"\nshort", 7)
	if strings.Join(got[:len(got)-1], "") != in || got[len(got)-1] != "short" {
		t.Error("splitting lost something")
	}
	for _, line := range got {
		if len(line) > buildlog.MaxText || strings.ToValidUTF8(line, "?") != line {
			t.Errorf("a line of %d bytes, cut inside a character", len(line))
		}
	}
	bar := through(newMask(nil), strings.Repeat("12345\r", 1<<18)+"end\n", 1<<16)
	if len(bar) != 1 || bar[0] != "end" {
		t.Errorf("a progress bar became %d lines", len(bar))
	}
}

// FuzzMask: whatever the secrets, the output and the sizes of its pieces, no line shows a
// secret, and what is shown does not depend on the sizes.
func FuzzMask(f *testing.F) {
	f.Add("hunter2", "abab", "xhunter2yababab hunter2", uint8(3))
	f.Add("line one\nline two", "aaaa", "line one\r\nline two aaaaaaaaa", uint8(1))
	f.Add("0123456789abcdef", "9abc", "0123456789\nabcdef 789abc", uint8(2))
	f.Fuzz(func(t *testing.T, a, b, text string, size uint8) {
		// A mask may itself complete a secret with stars in it; and what is no UTF-8 is replaced only later.
		if strings.Contains(a+b, "*") {
			return
		}
		for i, s := range []string{a, b} {
			if len(s) > 200 || strings.ToValidUTF8(s, "") != s {
				return
			}
			for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
				text = strings.ReplaceAll(text, string(rune('0'+i)), part) // so that there is something to find
			}
			if len(text) > 1<<16 {
				return
			}
		}
		m := newMask([]string{a, b})
		got := through(m, text, int(size)+1)
		whole := through(m, text, len(text)+1)
		if strings.Join(got, "\n") != strings.Join(whole, "\n") {
			t.Errorf("pieces of %d: %q, whole %q", int(size)+1, got, whole)
		}
		for _, s := range []string{a, b} {
			for part := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '\n' || r == '\r' }) {
				part = strings.TrimSpace(part)
				if len(part) < MinSecret {
					continue
				}
				for _, line := range got {
					if strings.Contains(line, part) {
						t.Errorf("%q shows %q of %q", line, part, text)
					}
				}
			}
		}
	})
}

func BenchmarkMask(b *testing.B) {
	secrets := []string{strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", 60)}
	for i := range 30 {
		secrets = append(secrets, strings.Repeat(string(rune('A'+i%26)), 8)+"secret-value-of-some-length")
	}
	m := newMask(secrets)
	text := []byte(strings.Repeat("2026-11-23 ok  	runnerhub/shared/agent	0.123s	coverage: 81.2% of statements\n", 400))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w := maskWriter{mask: m, emit: func([]byte) {}}
		w.write(text)
		w.flush()
	}
}
