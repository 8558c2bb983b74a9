package setting_test

import (
	"slices"
	"strings"
	"testing"

	"runnerhub/shared/setting"
)

func TestEnvironment(t *testing.T) {
	t.Parallel()
	e := setting.Read([]string{"A=1", "B=", "C=x=y", "no pair"})
	if e["A"] != "1" || e["C"] != "x=y" || e.Or("A", "2") != "1" || e.Or("B", "2") != "2" || e.Or("D", "2") != "2" || len(e) != 3 {
		t.Errorf("the environment is %v", e)
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://ci.example.com":    "https://ci.example.com",
		"https://ci.example.com/":   "https://ci.example.com",
		"http://127.0.0.1:8080/a//": "http://127.0.0.1:8080/a",
		"":                          "",
		"ci.example.com":            "",
		"ftp://ci.example.com":      "",
		"https://u:p@example.com":   "",
		"https://example.com?a=b":   "",
		"https://example.com#a":     "",
		"https://exa mple.com":      "",
	} {
		got, err := setting.URL("PUBLIC_URL", text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "PUBLIC_URL") || !strings.Contains(err.Error(), "https://ci.example.com")) {
			t.Errorf("%q: %v names neither the variable nor what to do", text, err)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{"": nil, " , ": nil, "acme": {"acme"}, "acme, {1-2} ,,x": {"acme", "{1-2}", "x"}} {
		if got := setting.List(text); !slices.Equal(got, want) {
			t.Errorf("%q is %q", text, got)
		}
	}
}

func TestConcurrency(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"1": 1, "1000": 1000, "0": 0, "1001": 0, "": 0, "x": 0, "2.5": 0} {
		if got, err := setting.Concurrency("N", text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
}
