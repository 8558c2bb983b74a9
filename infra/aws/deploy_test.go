//go:build deployment

// These tests run what `make sam` installs, so `make template` runs them.

package aws_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"runnerhub/infra/ministack"
	"runnerhub/infra/template"
)

const (
	root    = "../.." // of the tree
	region  = "us-east-1"
	account = "000000000000" // of MiniStack
	stack   = "runnerhub-dev"

	secretARN = "arn:aws:secretsmanager:" + region + ":" + account + ":secret:"

	word = "se'cr$et\"\\word" // a consumer's secret that is hard on whoever quotes
	// patience is for a build of all functions and their deployment.
	patience = 8 * time.Minute
)

// TestDeploy deploys as a person does: without a consumer, then with one. MiniStack cannot change what it made, so the
// second time sam is a program that keeps what it was called with.
func TestDeploy(t *testing.T) {
	url := emulator(t)
	said := deploy(t, "bin/sam/bin/sam", url, "dev", region, "", "", "acme", "ops@example.com", "y", "y")
	for _, part := range []string{
		"the stack " + stack + " is made", "/auth/callback", "Nobody can sign in yet", "Webhooks: Read and write", `"make deploy ENV=dev" again`, "AWS asks ops@example.com",
	} {
		if !strings.Contains(said, part) {
			t.Errorf("the first deployment does not say %q: %s", part, said)
		}
	}
	t.Run("what was built", func(t *testing.T) { built(t) })
	t.Run("what was made", func(t *testing.T) { made(t, url) })

	calls := filepath.Join(t.TempDir(), "calls")
	t.Setenv("CALLS", calls)
	said = deploy(t, recorder(t), url, "dev", region, "", "Key1", word, "-", "", "y")
	if !strings.Contains(said, "is brought up to date") || strings.Contains(said, "Nobody can sign in") {
		t.Errorf("the second deployment says: %s", said)
	}
	called := read(t, calls)
	if strings.Contains(said+called, word) {
		t.Errorf("the secret is shown, or stands on a command line: %s%s", said, called)
	}
	for _, part := range []string{
		"build --config-env dev\n", "deploy --config-env dev --region us-east-1 --stack-name runnerhub-dev --parameter-overrides file://infra/aws/environments/dev.yaml file:///", " mode 600\n",
	} {
		if !strings.Contains(called, part) {
			t.Errorf("sam was not called with %q but %s", part, called)
		}
	}
	answers := read(t, calls+".answers")
	want := "BitbucketClientId: 'Key1'\nAllowedBitbucketWorkspaces: ''\nAlarmEmail: 'ops@example.com'\nBitbucketClientSecret: '" + strings.ReplaceAll(word, "'", "''") + "'\n"
	if answers != want {
		t.Errorf("sam got the answers %s instead of %s", answers, want)
	}
	file := regexp.MustCompile(`file://(/\S+)`).FindStringSubmatch(called)[1]
	if _, err := os.Stat(filepath.Dir(file)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the answers are left in %s: %v", file, err)
	}
}

// TestDeployRefusals are answers with which nothing is done.
func TestDeployRefusals(t *testing.T) {
	url := emulator(t)
	for name, test := range map[string]struct {
		answers []string // the environment first
		want    string
	}{
		"no such environment":  {[]string{"test"}, "there is no environment test"},
		"a path":               {[]string{"../x"}, "there is no environment"},
		"no region":            {[]string{"dev", ""}, "is no region"},
		"a stack's name":       {[]string{"dev", region, "My stack"}, "is no name for a stack"},
		"a long name":          {[]string{"dev", region, strings.Repeat("a", 33)}, "is no name for a stack"},
		"a key without secret": {[]string{"dev", region, "", "Key1", ""}, "a new key needs its secret"},
		"a secret with blanks": {[]string{"dev", region, "", "Key1", "a b"}, "that is no secret"},
		"workspaces":           {[]string{"dev", region, "", "", "a'b"}, "a workspace has letters"},
		"an address":           {[]string{"dev", region, "", "", "", "ops"}, "is no address"},
		"doubts":               {[]string{"prod", region, "", "", "", "", ""}, "nothing was done"},
		"no answer":            {[]string{"dev", region, "", ""}, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			said, err := script(t, "false", url, test.answers...)
			if err == nil || !strings.Contains(said, test.want) {
				t.Errorf("%v, and it says: %s", err, said)
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		said, err := script(t, "false", "http://127.0.0.1:1", "dev", region)
		if err == nil || !strings.Contains(said, "sign in to AWS first") {
			t.Errorf("%v, and it says: %s", err, said)
		}
	})
}

// emulator starts the MiniStack that can read templates of SAM.
func emulator(t *testing.T) string {
	t.Helper()
	program, err := filepath.Abs(root + "/bin/sam/bin/ministack")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("MINISTACK", program)
	s, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.URL()
}

// command prepares a program of the tree that calls AWS at url. Of the environment it gets what Go and programs need.
func command(t *testing.T, url, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = root
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "AWS_") && !strings.HasPrefix(pair, "MAKE") && !strings.HasPrefix(pair, "MFLAGS") {
			c.Env = append(c.Env, pair)
		}
	}
	home := t.TempDir()
	settings := `{"telemetryEnabled": false, "lastVersionCheck": 4102444800.0}` // it asks nobody
	if err := os.WriteFile(filepath.Join(home, "metadata.json"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Env = append(c.Env, "AWS_ENDPOINT_URL="+url, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_MAX_ATTEMPTS=1", "SAM_CLI_TELEMETRY=0", "SAM_CLI_POLL_DELAY=0.5", "__SAM_CLI_APP_DIR="+home)
	return c
}

// TestDeployAfterAFailure says what to do about a stack that AWS cannot bring up to date.
func TestDeployAfterAFailure(t *testing.T) {
	for status, want := range map[string]string{
		"ROLLBACK_COMPLETE": "sam delete --stack-name " + stack + " --region " + region, "DELETE_FAILED": "sam delete", "UPDATE_IN_PROGRESS": "is being changed just now",
		"UPDATE_ROLLBACK_FAILED": "aws cloudformation continue-update-rollback --stack-name " + stack + " --region " + region,
	} {
		python := filepath.Join(t.TempDir(), "python")
		text := "#!/bin/bash\ncase $2 in account) echo 1 me ;; state) echo status " + status + " ;; esac\n"
		if err := os.WriteFile(python, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("SAM_PYTHON", python)
		said, err := script(t, "sam", "http://127.0.0.1:1", "dev", region, "")
		if err == nil || !strings.Contains(said, want) || strings.Contains(said, "Key of the consumer") {
			t.Errorf("%s: got %v, %s; want %q", status, err, said, want)
		}
	}
}

// script runs deploy.sh for an environment, with answers.
func script(t *testing.T, sam, url string, answers ...string) (said string, err error) {
	t.Helper()
	read(t, "deploy.sh") // so that a change of it is one of the test
	read(t, "stack.py")
	c := command(t, url, "infra/aws/deploy.sh", answers[0])
	c.Env = append(c.Env, "SAM="+sam)
	c.Stdin = strings.NewReader(strings.Join(append(slices.Clone(answers[1:]), ""), "\n"))
	out, err := c.CombinedOutput()
	return string(out), err
}

func deploy(t *testing.T, sam, url string, answers ...string) string {
	t.Helper()
	said, err := script(t, sam, url, answers...)
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return said
}

// recorder is a sam that notes its arguments and the answers it was given.
func recorder(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sam")
	text := `#!/bin/bash
set -eu
echo "$@" >>"$CALLS"
for argument; do
  case $argument in
  file:///*) file=${argument#file://}; stat -c ' mode %a' "$file" >>"$CALLS"; cp "$file" "$CALLS.answers" ;;
  esac
done
`
	if err := os.WriteFile(name, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// built looks at what sam built: programs that Lambda can run, on what the template says.
func built(t *testing.T) {
	parsed, err := template.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := parsed.Resolve(template.Site{Name: stack, Region: region, Account: account})
	if err != nil {
		t.Fatal(err)
	}
	machines := map[string]elf.Machine{"arm64": elf.EM_AARCH64, "x86_64": elf.EM_X86_64}
	for _, f := range s.Functions {
		name := filepath.Join(root, ".aws-sam/build", f.ID, "bootstrap")
		info, err := os.Stat(name)
		if err != nil {
			t.Error(err)
			continue
		}
		program, err := elf.Open(name)
		if err != nil {
			t.Errorf("%s: %v", f.ID, err)
			continue
		}
		defer program.Close()
		if program.Machine != machines[f.Architecture] || info.Mode()&0o111 != 0o111 {
			t.Errorf("%s is a program for %v with mode %v; it runs on %s", f.ID, program.Machine, info.Mode(), f.Architecture)
		}
		if program.Section(".interp") != nil || program.Section(".symtab") != nil {
			t.Errorf("%s needs libraries of the machine, or has symbols that nobody needs", f.ID)
		}
	}
}

// facts are what is known of things, by kind and name.
type facts map[string]map[string]map[string]any

func (f facts) add(kind, name string, what map[string]any) {
	if f[kind] == nil {
		f[kind] = map[string]map[string]any{}
	}
	f[kind][name] = what
}

// made compares what the services tell with the template. What MiniStack leaves out is what docs/emulator.md says it does.
func made(t *testing.T, url string) {
	read(t, "observe.py")
	c := command(t, url, "bin/sam/bin/python", "infra/aws/observe.py", stack)
	c.Env = append(c.Env, "AWS_DEFAULT_REGION="+region)
	var out, failed bytes.Buffer
	c.Stdout, c.Stderr = &out, &failed
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %s", err, &failed)
	}
	var seen struct {
		Facts     facts
		Resources map[string]string
	}
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		t.Fatal(err)
	}
	// On AWS, Ref answers the ARN of a secret.
	secret := seen.Resources["Data.ConsumerSecret"]
	if strings.HasPrefix(secret, "arn:") {
		t.Fatal("MiniStack refers to secrets as AWS does: drop this, and the line of docs/emulator.md")
	}
	value := regexp.MustCompile(`"` + regexp.QuoteMeta(secret) + `"([,\n])`)
	text := value.ReplaceAllString(out.String(), `"`+secretARN+secret+`"$1`)
	if err := json.Unmarshal([]byte(text), &seen); err != nil {
		t.Fatal(err)
	}
	want := expected(t, url, seen.Resources)

	different := map[string]string{} // an example, by kind and what of it
	for kind, things := range want {
		names := slices.Sorted(maps.Keys(things))
		if got := slices.Sorted(maps.Keys(seen.Facts[kind])); !slices.Equal(got, names) {
			t.Errorf("%s: there is %q instead of %q", kind, got, names)
			continue
		}
		for name, what := range things {
			for key, value := range what {
				if got := plain(t, seen.Facts[kind][name][key]); !reflect.DeepEqual(got, plain(t, value)) {
					different[kind+", "+key] = fmt.Sprintf("%s has %v instead of %v", name, got, value)
				}
			}
		}
	}
	different["secret, reference"] = secret
	listed := map[string]bool{}
	_, list, _ := strings.Cut(read(t, root+"/docs/emulator.md"), "## Deploying to it")
	for line := range strings.Lines(list) {
		if m := regexp.MustCompile(`^\| ([a-z -]+, [a-z -]+) \|`).FindStringSubmatch(line); m != nil {
			listed[m[1]] = true
		}
	}
	for _, what := range slices.Sorted(maps.Keys(different)) {
		if !listed[what] {
			t.Errorf("%s: %s; docs/emulator.md does not say so", what, different[what])
		}
	}
	for _, what := range slices.Sorted(maps.Keys(listed)) {
		if different[what] == "" {
			t.Errorf("%s: docs/emulator.md says that MiniStack leaves it out, and it does not", what)
		}
	}
}

// plain is a value as it comes out of JSON.
func plain(t *testing.T, value any) any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return tidy(v)
}

// tidy puts the statements of policies, and their lists, into one form.
func tidy(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = tidy(v[i])
		}
		return v
	case map[string]any:
		if effect, ok := v["Effect"]; ok {
			conditions := []string{}
			for operator, keys := range asMap(v["Condition"]) {
				for key, values := range asMap(keys) {
					conditions = append(conditions, fmt.Sprint(operator, " ", key, " ", words(values)))
				}
			}
			slices.Sort(conditions)
			var principals []string
			switch p := v["Principal"].(type) {
			case string:
				principals = []string{p}
			case map[string]any:
				for kind, names := range p {
					for _, name := range words(names) {
						principals = append(principals, kind+":"+name)
					}
				}
			}
			return fmt.Sprint(effect, " ", principals, " ", words(v["Action"]), " ", words(v["Resource"]), " ", conditions)
		}
	}
	return v
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// words are a text or a list of them, sorted.
func words(v any) []string {
	var all []string
	switch v := v.(type) {
	case string:
		all = []string{v}
	case []any:
		for _, one := range v {
			all = append(all, fmt.Sprint(one))
		}
	}
	slices.Sort(all)
	return all
}

// statements are a policy in the form of tidy.
func statements(p template.Policy) []string {
	texts := []string{}
	for _, s := range p {
		conditions := []string{}
		for _, c := range s.Conditions {
			conditions = append(conditions, fmt.Sprint(c.Operator, " ", c.Key, " ", slices.Sorted(slices.Values(c.Values))))
		}
		slices.Sort(conditions)
		texts = append(texts, fmt.Sprint(s.Effect, " ", s.Principals, " ", slices.Sorted(slices.Values(s.Actions)), " ", slices.Sorted(slices.Values(s.Resources)), " ", conditions))
	}
	return texts
}

// expected is what the template says, with the ids that were made.
func expected(t *testing.T, url string, made map[string]string) facts {
	t.Helper()
	parsed, err := template.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := strings.Replace(url, "http://127.0.0.1", "http://"+made["Api"]+".execute-api.localhost", 1)
	s, err := parsed.Resolve(template.Site{
		Name: stack, Region: region, Account: account,
		Parameters: map[string]string{"AllowedBitbucketWorkspaces": "acme", "AlarmEmail": "ops@example.com", "DeletionProtection": "false", "LogDays": "7", "BuildLogDays": "14"},
		Value: func(r template.Resource, attribute string) string {
			id := made[r.ID]
			prefix := map[string]string{
				"AWS::DynamoDB::Table": "arn:aws:dynamodb:" + region + ":" + account + ":table/", "AWS::S3::Bucket": "arn:aws:s3:::",
				"AWS::KMS::Key": "arn:aws:kms:" + region + ":" + account + ":key/", "AWS::IAM::Role": "arn:aws:iam::" + account + ":role/",
			}[r.Type]
			switch {
			case prefix != "" && attribute == "Arn":
				return prefix + id
			case attribute == "ApiEndpoint":
				return endpoint
			case attribute == "" && (prefix != "" || r.Type == "AWS::SQS::Queue" || r.Type == "AWS::ApiGatewayV2::Api" || r.Type == "AWS::SecretsManager::Secret"):
				return id
			}
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	// named is what CloudFormation called what the template does not name.
	named := func(id, name string) string {
		if strings.HasPrefix(id, "Data.") || strings.HasPrefix(id, "Builds.") {
			return made[id]
		}
		return name
	}
	f := facts{}
	arns, roles, queues := map[string]string{}, map[string]string{}, map[string]string{}
	for _, r := range s.Roles {
		roles[r.ID] = r.ARN
		f.add("role", named(r.ID, r.Name), map[string]any{"trust": statements(r.Trust), "policy": statements(r.Policy), "managed": append([]string{}, r.Managed...)})
	}
	for _, q := range s.Queues {
		queues[q.ID] = q.ARN
		dead := []any{}
		if q.DeadLetter != "" {
			dead = []any{q.DeadLetter, q.MaxReceives}
		}
		f.add("queue", q.Name, map[string]any{
			"visibility": q.Visibility.Seconds(), "retention": q.Retention.Seconds(), "encrypted": fmt.Sprint(q.Encrypted), "dead letters": dead, "policy": statements(q.Policy),
		})
	}
	layers := map[string]string{}
	for _, l := range s.Layers {
		layers[l.ID] = l.ARN
		f.add("layer", l.Name, map[string]any{"content": []string{"agents/linux-amd64.gz", "agents/linux-arm64.gz"}})
	}
	for _, fn := range s.Functions {
		arns[fn.ID] = fn.ARN
		mine, callers, recursion := []string{}, [][]string{}, "Terminate"
		for _, l := range fn.Layers {
			mine = append(mine, layers[l])
		}
		for _, p := range s.Permissions {
			if p.Function == fn.ID {
				callers = append(callers, []string{p.Principal, p.Source})
			}
		}
		for _, r := range s.Rules {
			if r.Function == fn.ID {
				callers = append(callers, []string{"events.amazonaws.com", r.ARN})
			}
		}
		for _, r := range s.Rates {
			if r.Function == fn.ID {
				callers = append(callers, []string{"events.amazonaws.com", r.Caller})
			}
		}
		if fn.Recursive {
			recursion = "Allow"
		}
		f.add("function", fn.Name, map[string]any{
			"runtime": fn.Runtime, "handler": fn.Handler, "timeout": fn.Timeout.Seconds(), "memory": fn.Memory, "architecture": []string{fn.Architecture}, "role": roles[fn.Role],
			"environment": fn.Environment, "layers": mine, "log group": fn.LogGroup, "dead letters": fn.Async.DeadLetter, "recursion": recursion, "code": []string{"bootstrap"},
			"callers": callers, "asynchronous retries": fn.Async.Retries, "asynchronous age": fn.Async.MaxAge.Seconds(),
		})
	}
	for _, x := range s.Sources {
		failures := []string{}
		if x.ReportsFailures {
			failures = []string{"ReportBatchItemFailures"}
		}
		f.add("source", queues[x.Queue], map[string]any{
			"function": arns[x.Function], "batch": x.BatchSize, "window": x.Window.Seconds(), "concurrency": x.Concurrency, "failures": failures,
		})
	}
	for _, r := range s.Routes {
		f.add("route", r.Method+" "+r.Path, map[string]any{"function": arns[r.Function], "payload": "2.0", "timeout": r.Timeout.Milliseconds()})
	}
	limits := map[string]any{}
	for key, limit := range s.API.Routes {
		limits[key] = []any{limit.Rate, limit.Burst}
	}
	f.add("api", stack, map[string]any{
		"protocol": "HTTP", "stage": "$default", "deployed by itself": true, "log group": s.API.LogGroup,
		"throttle": []any{s.API.Throttle.Rate, s.API.Throttle.Burst}, "throttle of routes": limits,
	})
	rule := func(arn, function string, what map[string]any, r template.Retry) {
		what["target"], what["retries"], what["age"], what["dead letters"] = arns[function], r.Retries, r.MaxAge.Seconds(), r.DeadLetter
		f.add("rule", arn[strings.LastIndex(arn, "/")+1:], what)
	}
	for _, r := range s.Rules {
		rule(r.ARN, r.Function, map[string]any{"pattern": r.Pattern, "rate": ""}, r.Retry)
	}
	for _, r := range s.Rates {
		every := fmt.Sprintf("rate(%d minute)", int(r.Every.Minutes()))
		rule(r.Caller, r.Function, map[string]any{"pattern": nil, "rate": every}, r.Retry)
	}
	for _, x := range s.Tables {
		f.add("table", named(x.ID, x.Name), map[string]any{
			"keys": map[string]string{"HASH": x.Partition, "RANGE": x.Sort}, "billing": "PAY_PER_REQUEST", "encrypted": "ENABLED", "deletion protection": x.DeletionProtection,
			"expiry": x.Expiry, "point-in-time recovery": "ENABLED",
		})
	}
	for _, x := range s.Buckets {
		f.add("bucket", named(x.ID, x.Name), map[string]any{
			"encryption": x.Encryption, "public access blocked": x.PublicBlocked, "ownership": "BucketOwnerEnforced", "abandoned uploads": x.Lifecycle[0].AbandonedUploads,
			"policy": statements(x.Policy),
		})
	}
	for _, k := range s.Keys {
		f.add("key", k.Key, map[string]any{"aliases": k.Aliases, "rotation": k.Rotates, "policy": statements(k.Policy)})
	}
	f.add("secret", made["Data.ConsumerSecret"][len(secretARN):], map[string]any{"value": "none"})
	for _, x := range s.Projects {
		f.add("project", x.Name, map[string]any{
			"role": roles[x.Role], "buildspec": x.BuildSpec, "source": "NO_SOURCE", "image": x.Image, "machine": []string{x.Kind, x.Compute}, "privileged": x.Privileged,
			"timeout": x.Timeout.Minutes(), "queued": x.Queued.Minutes(), "log group": x.LogGroup,
		})
	}
	for _, g := range s.LogGroups {
		f.add("log group", g.Name, map[string]any{"days": g.RetentionDays})
	}
	for _, g := range s.ScheduleGroups {
		f.add("schedule group", g.Name, map[string]any{"state": "ACTIVE"})
	}
	for _, a := range s.Alarms {
		f.add("alarm", a.Name, map[string]any{"metric": []string{a.Namespace, a.Metric}, "dimensions": a.Dimensions, "tells": a.Actions})
	}
	for _, x := range s.Topics {
		f.add("topic", x.ARN, map[string]any{"policy": statements(x.Policy), "told": []string{"ops@example.com"}})
	}
	return f
}
