package bitbucket_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runnerhub/shared/bitbucket"
	"runnerhub/shared/ci"
	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

const fixtures = "../../testdata/bitbucket"

func fixture(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixtures, path))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestVerify(t *testing.T) {
	t.Parallel()
	const (
		key    = "It's a Secret to Everybody"
		body   = "Hello World!"
		digest = "a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9" // Atlassian's documented vector
	)
	for name, c := range map[string]struct {
		key, body, header string
		want              bool
	}{
		"documented vector":   {key, body, "sha256=" + digest, true},
		"upper-case hex":      {key, body, "sha256=" + strings.ToUpper(digest), true},
		"another body":        {key, body + " ", "sha256=" + digest, false},
		"another secret":      {key + "!", body, "sha256=" + digest, false},
		"one bit off":         {key, body, "sha256=" + digest[:63] + "8", false},
		"no secret":           {"", body, "sha256=" + sign("", body), false},
		"no header":           {key, body, "", false},
		"no scheme":           {key, body, digest, false},
		"scheme of another":   {key, body, "sha1=" + digest[:40], false},
		"other scheme's name": {key, body, "sha512=" + digest, false},
		"scheme in capitals":  {key, body, "SHA256=" + digest, false},
		"cut":                 {key, body, "sha256=" + digest[:62], false},
		"longer":              {key, body, "sha256=" + digest + "00", false},
		"no hex":              {key, body, "sha256=" + strings.Repeat("z", 64), false},
		"space before":        {key, body, " sha256=" + digest, false},
		"empty body":          {key, "", "sha256=" + sign(key, ""), true},
	} {
		if got := bitbucket.Verify(secret.New(c.key), []byte(c.body), c.header); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func sign(key, body string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// TestParseEvent compares every webhook fixture with its golden event. With
// UPDATE_GOLDEN set it writes the events instead, to be read before committing.
func TestParseEvent(t *testing.T) {
	t.Parallel()
	bodies, err := filepath.Glob(fixtures + "/webhook/*/*.json")
	if err != nil || len(bodies) < 20 {
		t.Fatalf("%d fixtures: %v", len(bodies), err)
	}
	for _, path := range bodies {
		folder, name := filepath.Base(filepath.Dir(path)), filepath.Base(path)
		t.Run(folder+"/"+name, func(t *testing.T) {
			t.Parallel()
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			event, err := bitbucket.ParseEvent(strings.Replace(folder, "_", ":", 1), body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(event, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			golden := filepath.Join(fixtures, "event", folder, name)
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestParseEventRefuses(t *testing.T) {
	t.Parallel()
	const (
		uuid = `{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0}`
	)
	push := func(change string) string {
		return `{"repository":{"uuid":"` + uuid + `"},"push":{"changes":[` + change + `]}}`
	}
	pr := func(from, to string) string {
		good := `{"repository":{"uuid":"` + uuid + `"},"pullrequest":{"id":7,"state":"OPEN",` +
			`"source":{"branch":{"name":"topic"},"commit":{"hash":"0123456789ab"},"repository":{"uuid":"` + uuid + `"}},` +
			`"destination":{"branch":{"name":"main"},"commit":{"hash":"ba9876543210"},"repository":{"uuid":"` + uuid + `"}}}}`
		if !strings.Contains(good, from) {
			t.Fatalf("%s is not in the template", from)
		}
		return strings.Replace(good, from, to, 1)
	}
	if _, err := bitbucket.ParseEvent("pullrequest:created", []byte(pr("", ""))); err != nil {
		t.Fatalf("the template: %v", err)
	}
	for name, c := range map[string]struct{ key, body, field string }{
		"no key":                 {"", push(""), "X-Event-Key"},
		"a key with a line":      {"repo:push\n", push(""), "X-Event-Key"},
		"a long key":             {"repo:" + strings.Repeat("x", 60), push(""), "X-Event-Key"},
		"no JSON":                {"repo:push", "{", ""},
		"more after the JSON":    {"repo:push", push("") + "{}", ""},
		"null":                   {"repo:push", "null", "repository.uuid"},
		"no repository":          {"repo:push", `{"push":{"changes":[]}}`, "repository.uuid"},
		"other without one":      {"repo:updated", `{}`, "repository.uuid"},
		"uuid without braces":    {"repo:push", strings.Replace(push(""), uuid, strings.Trim(uuid, "{}"), 1), "repository.uuid"},
		"uuid with a dash moved": {"repo:push", strings.Replace(push(""), "3c-4b", "3-c4b", 1), "repository.uuid"},
		"uuid with a path":       {"repo:push", strings.Replace(push(""), "0f1e", "../x", 1), "repository.uuid"},
		"no push":                {"repo:push", `{"repository":{"uuid":"` + uuid + `"}}`, "push"},
		"changes are no list":    {"repo:push", strings.Replace(push(""), "[]", "{}", 1), ""},
		"no pull request":        {"pullrequest:created", push(""), "pullrequest"},
		"id 0":                   {"pullrequest:created", pr(`"id":7`, `"id":0`), "pullrequest.id"},
		"source hash short":      {"pullrequest:created", pr("0123456789ab", "012345"), "pullrequest.source.commit.hash"},
		"source hash missing":    {"pullrequest:created", pr("0123456789ab", ""), "pullrequest.source.commit.hash"},
		"source branch missing":  {"pullrequest:updated", pr("topic", ""), "pullrequest.source.branch.name"},
		"target hash no hex":     {"pullrequest:created", pr("ba9876543210", "main^{commit}"), "pullrequest.destination.commit.hash"},
		"target branch missing":  {"pullrequest:created", pr(`"main"`, `""`), "pullrequest.destination.branch.name"},
		"source uuid bad":        {"pullrequest:created", pr(`"repository":{"uuid":"`+uuid+`"}},"dest`, `"repository":{"uuid":"x"}},"dest`), "pullrequest.source.repository.uuid"},
		"another repository's":   {"pullrequest:created", pr("0f1e2d3c", "00000000"), "pullrequest.destination.repository.uuid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			event, err := bitbucket.ParseEvent(c.key, []byte(c.body))
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%+v, %v", event, err)
			}
			if _, field := fault.Public(err); field != c.field {
				t.Errorf("field %q (%v), want %q", field, err, c.field)
			}
		})
	}
}

// An odd change is told with its reason; those beside it are read.
func TestParseEventOddChanges(t *testing.T) {
	t.Parallel()
	const hash = `0123456789abcdef0123456789abcdef01234567`
	ref := func(kind, name, hash string) string {
		return `{"type":"` + kind + `","name":"` + name + `","target":{"hash":"` + hash + `"}}`
	}
	parse := func(changes ...string) ci.Event {
		t.Helper()
		event, err := bitbucket.ParseEvent("repo:push", []byte(
			`{"repository":{"uuid":"{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0}"},"push":{"changes":[`+strings.Join(changes, ",")+`]}}`))
		if err != nil {
			t.Fatal(err)
		}
		return event
	}
	good := `{"new":` + ref("tag", "v1", hash) + `}`
	for name, c := range map[string]struct{ change, name, problem string }{
		"empty":                  {`{}`, "", "push.changes[1]: "},
		"null":                   {`null`, "", "push.changes[1]: "},
		"a text":                 {`"main"`, "", "push.changes[1]: not of the documented shape"},
		"a number for a name":    {`{"new":{"type":"branch","name":7}}`, "", "push.changes[1]: not of the documented shape"},
		"short hash":             {`{"new":` + ref("branch", "main", hash[:12]) + `}`, "main", "push.changes[1].new.target.hash: "},
		"old hash no hex":        {`{"old":` + ref("branch", "main", hash[:39]+"g") + `}`, "main", "push.changes[1].old.target.hash: "},
		"no hash":                {`{"new":` + ref("tag", "v1", "") + `}`, "v1", "push.changes[1].new.target.hash: "},
		"no name":                {`{"new":` + ref("tag", "", hash) + `}`, "", "push.changes[1].new.name: "},
		"neither branch nor tag": {`{"new":` + ref("bookmark", "main", hash) + `}`, "main", "push.changes[1].new.type: "},
		"name with a line":       {`{"new":` + ref("branch", `main\nx`, hash) + `}`, "main x", "push.changes[1].new.name: "},
		"very long name":         {`{"new":` + ref("branch", strings.Repeat("x", 1025), hash) + `}`, strings.Repeat("x", 100), "push.changes[1].new.name: "},
	} {
		got := parse(good, c.change, good).Changes
		want := ci.Change{Kind: ci.RefTag, Name: "v1", New: hash}
		if len(got) != 3 || got[0] != want || got[2] != want {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if odd := got[1]; odd.Name != c.name || !strings.HasPrefix(odd.Problem, c.problem) || odd.New+odd.Old != "" {
			t.Errorf("%s: %+v", name, odd)
		}
	}
	many := make([]string, 1003)
	for i := range many {
		many[i] = good
	}
	if event := parse(many...); len(event.Changes) != 1000 || event.LeftOut != 3 {
		t.Errorf("%d changes, %d left out", len(event.Changes), event.LeftOut)
	}
}

// TestParseEventTolerates holds what may be odd without costing the event.
func TestParseEventTolerates(t *testing.T) {
	t.Parallel()
	body := string(fixture(t, "webhook/repo_push/branch_updated.json"))
	for name, change := range map[string][2]string{
		"a date nobody expects":  {`"date": "2026-10-12T08:15:30+00:00"`, `"date": "yesterday"`},
		"no actor":               {`"actor":`, `"robot":`},
		"a field of tomorrow":    {`"push":`, `"pushed_by": {"agents": []}, "push":`},
		"null where a list was":  {`"parents": [`, `"parents": null, "more": [`},
		"unpaired surrogate":     {`Round prices`, `Round \ud800 prices`},
		"a commit without a raw": {`"raw":`, `"law":`},
	} {
		changed := strings.ReplaceAll(body, change[0], change[1])
		if changed == body {
			t.Fatalf("%s: nothing changed", name)
		}
		event, err := bitbucket.ParseEvent("repo:push", []byte(changed))
		if err != nil || len(event.Changes) != 1 || event.Changes[0].New == "" {
			t.Errorf("%s: %+v, %v", name, event, err)
		}
	}
}

// TestRecordedPayloads reads bodies that a real Bitbucket sent, when there are
// any: the folder RUNNERHUB_PAYLOADS names, from the root of the project.
func TestRecordedPayloads(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("RUNNERHUB_PAYLOADS")
	if folder == "" {
		return
	}
	if !filepath.IsAbs(folder) {
		folder = filepath.Join("../..", folder)
	}
	keys := map[string]string{
		"createPayloadFork": "pullrequest:created", "fulfilledPayload": "pullrequest:fulfilled",
		"updatePayload_newCommit": "pullrequest:updated", "updatePayload_newDestination": "pullrequest:updated",
		"pullrequest_created": "pullrequest:created", "pullrequest_rejected": "pullrequest:rejected",
		"pullrequest_updated": "pullrequest:updated",
	}
	seen := 0
	for _, pattern := range []string{"cloud-push", "cloud-pr", "cloud-webhook"} {
		paths, err := filepath.Glob(filepath.Join(folder, pattern, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			seen++
			name := strings.TrimSuffix(filepath.Base(path), ".json")
			key, isPR := keys[name]
			if !isPR {
				key = "repo:push"
			}
			body, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			event, err := bitbucket.ParseEvent(key, body)
			switch {
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case isPR != (event.Kind == ci.EventPullRequest):
				t.Errorf("%s is a %s", name, event.Kind)
			case !isPR && len(event.Changes) == 0 && name != "emptyPayload":
				t.Errorf("%s has no changes", name)
			case isPR && (len(event.PullRequest.SourceHash) != 12 || event.PullRequest.UpdatedAt.IsZero()):
				t.Errorf("%s: %+v", name, event.PullRequest)
			}
		}
	}
	if seen == 0 {
		t.Errorf("no payloads below %s", folder)
	}

	const commit, key = "046d9a3c1532acf4cf08fe93235c00e4d673c1d2", "fe7e71305b004dd8dd5a124e1dae4c33"
	for name, call := range map[string]func(context.Context, *bitbucket.Client) error{
		"commit_by_short_hash": func(ctx context.Context, c *bitbucket.Client) error {
			_, err := c.Commit(ctx, shop, commit[:12])
			return err
		},
		"commit_status_build": func(ctx context.Context, c *bitbucket.Client) error {
			_, err := c.ReadStatus(ctx, shop, commit, key)
			return err
		},
		"pullrequest": func(ctx context.Context, c *bitbucket.Client) error {
			_, err := c.PullRequest(ctx, shop, 1)
			return err
		},
		"hooks_list": func(ctx context.Context, c *bitbucket.Client) error { // one hook, in truth
			_, err := c.UpdateHook(ctx, shop, bitbucket.Hook{UUID: hookUUID})
			return err
		},
	} {
		body, err := os.ReadFile(filepath.Join(folder, "cloud-api", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := call(t.Context(), newForge(t, says(200, "application/json", string(body))).client(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseEvent starts from bodies with the fields that are read and no others:
// the fuzzer gets nowhere with ten kilobytes of links.
func FuzzParseEvent(f *testing.F) {
	const (
		repository = `"repository":{"uuid":"{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0}","full_name":"acme/shop"}`
		ref        = `{"type":"branch","name":"main","target":{"hash":"0123456789abcdef0123456789abcdef01234567","message":"a\n","date":"2026-10-12T08:15:30+00:00","author":{"raw":"a <b>","user":{"nickname":"a"}}}}`
		end        = `{"branch":{"name":"main"},"commit":{"hash":"0123456789ab"},` + repository + `}`
	)
	for _, change := range []string{"", "null", `{"old":null,"new":` + ref + `}`, `{"new":null,"old":` + ref + `}`, `{"old":` + ref + `,"new":` + ref + `,"forced":true}`} {
		f.Add("repo:push", []byte(`{`+repository+`,"actor":{"display_name":"a"},"push":{"changes":[`+change+`]}}`))
	}
	for _, key := range []string{"pullrequest:created", "pullrequest:approved", "repo:updated"} {
		f.Add(key, []byte(`{`+repository+`,"pullrequest":{"id":7,"title":"t","state":"OPEN","updated_on":"2026-10-12T08:15:30+00:00","source":`+end+`,"destination":`+end+`}}`))
	}
	f.Fuzz(func(t *testing.T, key string, body []byte) {
		event, err := bitbucket.ParseEvent(key, body)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("kind of %v", err)
			}
			return
		}
		for _, c := range event.Changes {
			odd := c.Problem != "" && c.Kind == "" && c.Old+c.New == ""
			good := c.Problem == "" && c.Name != "" && (len(c.Old) == 40 || len(c.New) == 40)
			if odd == good || strings.ContainsAny(c.Name+c.Message+c.Author, "\n\x00") {
				t.Fatalf("let through %+v", c)
			}
		}
		if pr := event.PullRequest; pr != nil && (pr.TargetRepository != event.Repository || pr.Open && !pr.Fork() && len(pr.SourceHash) < 7) {
			t.Fatalf("let through %+v", pr)
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add("key", []byte("body"), "sha256="+sign("key", "body"))
	f.Add("", []byte(""), "")
	f.Fuzz(func(t *testing.T, key string, body []byte, header string) {
		want := key != "" && strings.HasPrefix(header, "sha256=") && strings.EqualFold(header[7:], sign(key, string(body)))
		if got := bitbucket.Verify(secret.New(key), body, header); got != want {
			t.Fatalf("%v, want %v", got, want)
		}
		if key != "" && !bitbucket.Verify(secret.New(key), body, "sha256="+sign(key, string(body))) {
			t.Fatal("a right signature was refused")
		}
	})
}

func BenchmarkParsePush(b *testing.B) {
	body := fixture(b, "webhook/repo_push/branch_updated.json")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bitbucket.ParseEvent("repo:push", body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	body := fixture(b, "webhook/repo_push/branch_updated.json")
	key := secret.New("a secret of thirty-two characters")
	for name, header := range map[string]string{
		"right":     "sha256=" + sign(key.Reveal(), string(body)),
		"wrong":     "sha256=" + strings.Repeat("0", 64),
		"malformed": "sha256=0",
	} {
		b.Run(fmt.Sprintf("%s/%dB", name, len(body)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bitbucket.Verify(key, body, header)
			}
		})
	}
}
