package consent

import (
	"net/url"
	"strings"
	"testing"

	"runnerhub/shared/fault"
)

func TestReturnPathsStayHere(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"":                          "/",
		"/":                         "/",
		"/builds/b1":                "/builds/b1",
		"/apps/a?tab=builds&x=1#l3": "/apps/a?tab=builds&x=1#l3",
		"/x//y":                     "/x//y",
		"/a?next=https://other":     "/a?next=https://other",
	}
	for in, want := range good {
		if got, err := Path(in); err != nil || got != want {
			t.Errorf("Path(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/a\\b", "https://evil.example", "http:/evil.example",
		"javascript:alert(1)", "evil.example", " /x", "/\t/evil.example", "/\n/evil.example", "/x\r\nSet-Cookie: a=b", "\t//evil.example",
		"/\u00a0x", "/" + strings.Repeat("x", maxReturn), "/%zz", "?x", "#x",
	} {
		if got, err := Path(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("Path(%q) = %q, %v", in, got, err)
		}
	}
}

func TestDeniedKeepsTheQuery(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/":          "/?error=access_denied",
		"/a?b=c#d":   "/a?b=c&error=access_denied#d",
		"/a?error=x": "/a?error=access_denied",
	} {
		if got := Denied(in); got != want {
			t.Errorf("Denied(%q) = %q", in, got)
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "//x", "/\\x", "/a?b#c", "/..//x", "/%2f/x"} {
		f.Add(s)
	}
	base, err := url.Parse("https://ci.example/auth/callback")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, err := Path(s)
		if err != nil {
			return
		}
		// What browsers do besides RFC 3986: backslashes are slashes, tabs and breaks vanish.
		seen := strings.NewReplacer("\\", "/", "\t", "", "\n", "", "\r", "").Replace(strings.TrimSpace(path))
		to, err := base.Parse(seen)
		if err != nil || to.Host != base.Host || to.Scheme != base.Scheme {
			t.Errorf("Path(%q) leads to %v (%v)", s, to, err)
		}
	})
}
