package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"

	"runnerhub/shared/buildlog"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                             "",
		"as it is":                     "as it is",
		"\x1b[1;31mred\x1b[0m":         "red",
		"a\x1b[2Kb":                    "ab",
		"\x1b]8;;http://x\x1b\\l\x07":  "l\a",
		"\x1b]0;t\alater":              "later",
		"\x1b(Bx":                      "x",
		"cut\x1b":                      "cut",
		"cut\x1b[31":                   "cut",
		"cut\x1b]0;never ended":        "cut",
		"\x1b[31é":                     "é",
		"\x1bé":                        "é",
		"x\b\by":                       "xy",
		"\x1b[38;2;1;2;3mtrue\x1b[39m": "true",
	} {
		if got := plain(buildlog.Line{Text: in}); got != want {
			t.Errorf("plain(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPlain(f *testing.F) {
	for _, s := range []string{"\x1b[1mx", "\x1b]x\x1b\\", "\x1b(é", "\b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := plain(buildlog.Line{Text: s})
		if strings.ContainsAny(got, "\x1b\b") || (utf8.ValidString(s) && !utf8.ValidString(got)) {
			t.Errorf("plain(%q) = %q", s, got)
		}
	})
}

func TestOnBitbucket(t *testing.T) {
	t.Parallel()
	const web = "https://bitbucket.org"
	for _, test := range []struct{ web, name, kind, id, want string }{
		{web, "acme/shop", "commits", "abc", web + "/acme/shop/commits/abc"},
		{web, "acme/shop", "pull-requests", "7", web + "/acme/shop/pull-requests/7"},
		{"http://127.0.0.1:7990", "acme/shop", "commits", "abc", "http://127.0.0.1:7990/acme/shop/commits/abc"},
		{web, "a?b/c d/../e#f", "commits", "abc", web + "/a%3Fb/c%20d%2F..%2Fe%23f/commits/abc"},
		{web, "shop", "commits", "abc", ""},
		{web, "acme/shop", "commits", "", ""},
		{"", "acme/shop", "commits", "abc", ""},
		{"javascript:alert(1)//x", "acme/shop", "commits", "abc", ""},
		{"//bitbucket.org", "acme/shop", "commits", "abc", ""},
		{"ftp://bitbucket.org", "acme/shop", "commits", "abc", ""},
	} {
		if got := onBitbucket(test.web, test.name, test.kind, test.id); got != test.want {
			t.Errorf("the %s %s of %q at %q are at %q, want %q", test.kind, test.id, test.name, test.web, got, test.want)
		}
	}
}

// The policy lets in exactly the style sheet as it stands in the pages.
func TestPolicyFitsTheStyle(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := errorPage(view{}, problem{}).Render(&b); err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(b.String(), "<style>")
	sheet, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(sheet))
	if !strings.Contains(contentPolicy(), base64.StdEncoding.EncodeToString(sum[:])) {
		t.Error("the page's style is not the one that the policy allows")
	}
}
