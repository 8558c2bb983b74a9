package buildlog

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"runnerhub/shared/fault"
)

func TestTextForm(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 6, 36, 35, 120_000_000, time.UTC)
	for name, test := range map[string]struct {
		line Line
		text string // with its newline
		back Line   // the line that comes back, when it is another one
	}{
		"plain":        {line: Line{at, "build", "go build ./..."}, text: "2026-11-23T06:36:35.12Z\tbuild\tgo build ./...\n"},
		"empty":        {line: Line{at, "", ""}, text: "2026-11-23T06:36:35.12Z\t\t\n"},
		"tabs in text": {line: Line{at, "a", "x\ty\t"}, text: "2026-11-23T06:36:35.12Z\ta\tx\ty\t\n"},
		"colours":      {line: Line{at, "a", "\x1b[31mred\x1b[0m"}, text: "2026-11-23T06:36:35.12Z\ta\t\x1b[31mred\x1b[0m\n"},
		"breaks in step": {
			line: Line{at, "a\tb\r\nc", "x"}, text: "2026-11-23T06:36:35.12Z\ta b  c\tx\n",
			back: Line{at, "a b  c", "x"},
		},
		"breaks in text": {
			line: Line{at, "a", "x\ny\r"}, text: "2026-11-23T06:36:35.12Z\ta\tx y \n",
			back: Line{at, "a", "x y "},
		},
		"no UTF-8": {
			line: Line{at, "\xff", "x\xc3"}, text: "2026-11-23T06:36:35.12Z\t\uFFFD\tx\uFFFD\n",
			back: Line{at, "\uFFFD", "x\uFFFD"},
		},
		"NUL": {
			line: Line{at, "\x00", "x\x00"}, text: "2026-11-23T06:36:35.12Z\t\uFFFD\tx\uFFFD\n",
			back: Line{at, "\uFFFD", "x\uFFFD"},
		},
		"another zone": {
			line: Line{at.In(time.FixedZone("", 3600)), "a", "x"}, text: "2026-11-23T06:36:35.12Z\ta\tx\n",
			back: Line{at, "a", "x"},
		},
		"no time": {line: Line{time.Time{}, "a", "x"}, text: "0001-01-01T00:00:00Z\ta\tx\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := string(test.line.AppendText(nil))
			if text != test.text {
				t.Errorf("the text is %q, want %q", text, test.text)
			}
			if test.back == (Line{}) {
				test.back = test.line
			}
			if got := ParseLine(strings.TrimSuffix(text, "\n")); got != test.back {
				t.Errorf("it comes back as %+v, want %+v", got, test.back)
			}
		})
	}
}

func TestTextFormIsBounded(t *testing.T) {
	t.Parallel()
	// Four bytes a rune, so that the limits fall inside of one.
	long := "x" + strings.Repeat("😀", MaxText)
	form := Line{time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), long, long}.AppendText(nil)
	if len(form) > MaxLine || !utf8.Valid(form) {
		t.Errorf("%d bytes, valid UTF-8: %v; the limit is %d", len(form), utf8.Valid(form), MaxLine)
	}
	line := ParseLine(strings.TrimSuffix(string(form), "\n"))
	if len(line.Text) != MaxText-3 || len(line.Step) != MaxStep-3 {
		t.Errorf("text of %d, step of %d bytes", len(line.Text), len(line.Step))
	}
}

func TestParseForeignLines(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "\t", "\t\t", "panic: oh no", "2026-11-23T06:36:35Z", "2026-11-23T06:36:35Z\tbuild", "yesterday\tbuild\tx",
		"0000-01-01T00:00:00Z\ta\tx", "9999-12-31T23:59:59-01:00\ta\tx",
	} {
		if got := ParseLine(s); got != (Line{Text: s}) {
			t.Errorf("%q becomes %+v, want text alone", s, got)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"1", "b-1_c.d", strings.Repeat("b", 128)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".a", "a/b", "a\\b", "a b", "a\x00", "a\n", "ä", strings.Repeat("b", 129)} {
		if err := CheckName(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, want fault.Invalid", bad, err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("2026-11-23T06:36:35.12Z\tbuild\tgo build ./...")
	f.Add("0000-01-01T00:00:00+23:59\t\t")
	f.Add("2026-11-23T06:36:35,5Z\ta\rb\tx\x00y\xff\t")
	f.Fuzz(func(t *testing.T, s string) {
		line := ParseLine(s)
		form := string(line.AppendText(nil))
		body, ok := strings.CutSuffix(form, "\n")
		if !ok || strings.ContainsAny(body, "\r\n\x00") || !utf8.ValidString(form) || len(form) > MaxLine {
			t.Fatalf("%q has the form %q", s, form)
		}
		if again := ParseLine(body); again != line {
			t.Fatalf("%q is %+v, and %+v when written again", s, line, again)
		}
	})
}

func FuzzAppendText(f *testing.F) {
	f.Add(int64(0), "build", "text")
	f.Add(int64(-1), "a\tb", "x\r\ny\x00\xff")
	f.Fuzz(func(t *testing.T, nanos int64, step, text string) {
		line := Line{time.Unix(0, nanos).UTC(), step, text}
		form := string(line.AppendText(nil))
		body, ok := strings.CutSuffix(form, "\n")
		if !ok || strings.ContainsAny(body, "\r\n\x00") || !utf8.ValidString(form) || len(form) > MaxLine {
			t.Fatalf("%+v has the form %q", line, form)
		}
		back := ParseLine(body)
		if !back.Time.Equal(line.Time) || string(back.AppendText(nil)) != form {
			t.Fatalf("%+v comes back as %+v", line, back)
		}
	})
}
