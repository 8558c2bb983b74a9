package sandbox

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzQuery(f *testing.F) {
	for _, q := range []string{`name~"api"`, `a="x" AND (b>1 OR c!=null)`, `permission>="write"`, `x = 2020-01-01T00:00:00+00:00`, `((`, `a="\"`, `a~"`} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, q string) {
		c, err := parseQuery(q)
		if err != nil {
			return
		}
		for _, value := range []any{nil, true, 1.5, "text", write.rank()} {
			// Whatever was parsed can be asked of any value, and says the same twice.
			field := func(string) (any, bool) { return value, true }
			first, err1 := c.holds(field)
			second, err2 := c.holds(field)
			if first != second || (err1 == nil) != (err2 == nil) {
				t.Errorf("%q of %v: %v and %v", q, value, first, second)
			}
		}
	})
}

func FuzzFields(f *testing.F) {
	f.Add("next,values.uuid", `{"values":[{"uuid":"x","name":"y"}],"next":"z"}`)
	f.Add("-a.b,+c,*.d", `{"a":{"b":[1,{"d":2}]}}`)
	f.Fuzz(func(t *testing.T, spec, body string) {
		var tree any
		if json.Unmarshal([]byte(body), &tree) != nil {
			return
		}
		cut, err := selectFields(tree, spec)
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := json.Marshal(tree)
		part, err := json.Marshal(cut)
		if err != nil || len(part) > len(whole) {
			t.Errorf("%s of %s is %s (%v)", spec, whole, part, err)
		}
	})
}

func FuzzGitObjects(f *testing.F) {
	f.Add("tree 1\nparent 2\nauthor A B <a@b> 1700000000 +0530\n\nmessage\n")
	f.Add("object 1\ntype commit\ntag v1\ntagger A <> 1 -0000\n\n")
	f.Add("author <>\n")
	f.Fuzz(func(t *testing.T, data string) {
		o := &gitObject{hash: "h", data: []byte(data)}
		if c := parseCommit(o); !strings.Contains(data, c.message) {
			t.Errorf("message %q", c.message)
		}
		parseTag(o)
	})
}

func FuzzDiff(f *testing.F) {
	f.Add(":100644 100644 a b M\x00x\x00:100644 000000 a b R090\x00old\x00new\x001\t2\tx\x000\t0\t\x00old\x00new\x00")
	f.Add(":000000 100644 a b A\x00bin\x00-\t-\tbin\x00")
	f.Fuzz(func(_ *testing.T, out string) { parseDiff(out) })
}

func FuzzLocalPath(f *testing.F) {
	for _, path := range []string{"/acme", "//evil", "http://evil", `/\evil`, "/a?b=c#d"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := localPath(text)
		base, _ := url.Parse("http://sandbox/")
		to, err := base.Parse(path)
		if err != nil || utf8.ValidString(text) && to.Host != "sandbox" {
			t.Errorf("%q leads to %v (%v)", text, to, err)
		}
	})
}
