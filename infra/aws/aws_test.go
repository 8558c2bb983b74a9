package aws_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"runnerhub/infra/aws"
	"runnerhub/infra/aws/builders"
	"runnerhub/infra/aws/buildlogs"
	"runnerhub/infra/aws/forge"
	"runnerhub/infra/aws/keys"
	"runnerhub/infra/aws/offers"
	"runnerhub/infra/aws/queues"
	"runnerhub/infra/aws/timers"
	"runnerhub/infra/aws/web"
)

// lambdas is what Lambda sets, and the tests' endpoint.
func lambdas() map[string]string {
	return map[string]string{
		"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hidden-key", "AWS_SESSION_TOKEN": "hidden-session",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1/", "AWS_ENDPOINT_URL_CODEBUILD": "http://127.0.0.1:2",
	}
}

// deployment is what the template sets, by what needs it.
func deployment() map[string]string {
	return map[string]string{
		"PUBLIC_URL": "https://ci.example.com", "BITBUCKET_API_URL": "https://api.bitbucket.org/2.0", "BITBUCKET_WEB_URL": "https://bitbucket.org",
		"BITBUCKET_CLIENT_ID": "client", "BITBUCKET_CLIENT_SECRET": "arn:aws:secretsmanager:us-east-1:1:secret:s", "ALLOWED_BITBUCKET_WORKSPACES": "acme, beta",
		"RUNNERHUB_TABLE": "table", "RUNNERHUB_DELIVERIES_QUEUE": "https://sqs.us-east-1.amazonaws.com/1/deliveries",
		"RUNNERHUB_REPORTS_QUEUE": "https://sqs.us-east-1.amazonaws.com/1/reports",
		"RUNNERHUB_TOKENS_KEY":    "arn:aws:kms:us-east-1:1:key/t", "RUNNERHUB_HOOKS_KEY": "arn:aws:kms:us-east-1:1:key/h",
		"RUNNERHUB_BUILD_PROJECT": "project", "RUNNERHUB_LOG_GROUP": "group", "RUNNERHUB_CONCURRENCY": "2", "RUNNERHUB_MAX_COMPUTE": "large", "RUNNERHUB_AGENTS": "/opt/agents",
		"RUNNERHUB_SCHEDULE_GROUP": "group", "RUNNERHUB_SCHEDULE_ROLE": "arn:aws:iam::1:role/r", "RUNNERHUB_DELIVERIES_QUEUE_ARN": "arn:aws:sqs:us-east-1:1:deliveries",
		"RUNNERHUB_SCHEDULES_DEAD_QUEUE_ARN": "arn:aws:sqs:us-east-1:1:schedules-dead",
	}
}

func environment(t *testing.T, variables map[string]string) aws.Environment {
	t.Helper()
	e, err := aws.Read(pairs(variables), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func pairs(variables map[string]string) []string {
	var environ []string
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// Each part needs its own variables, each of them, and no other; what is missing or wrong is named with the remedy.
func TestPartsReadTheirOwn(t *testing.T) {
	t.Parallel()
	bitbucket := []string{"PUBLIC_URL", "BITBUCKET_API_URL", "BITBUCKET_WEB_URL", "BITBUCKET_CLIENT_ID", "BITBUCKET_CLIENT_SECRET"}
	for name, test := range map[string]struct {
		open  func(aws.Environment) error
		needs []string
	}{
		"public address": {func(e aws.Environment) error { _, err := aws.PublicURL(e); return err }, []string{"PUBLIC_URL"}},
		"api address":    {func(e aws.Environment) error { _, err := aws.APIURL(e); return err }, []string{"BITBUCKET_API_URL"}},
		"web address":    {func(e aws.Environment) error { _, err := aws.WebURL(e); return err }, []string{"BITBUCKET_WEB_URL"}},
		"limits":         {func(e aws.Environment) error { _, err := builders.Limits(e); return err }, []string{"RUNNERHUB_CONCURRENCY"}},
		"offer":          {func(e aws.Environment) error { _, err := offers.CodeBuild(e); return err }, []string{"RUNNERHUB_MAX_COMPUTE"}},
		"store":          {func(e aws.Environment) error { _, err := aws.Store(e); return err }, []string{"RUNNERHUB_TABLE"}},
		"deliveries":     {func(e aws.Environment) error { _, err := queues.Deliveries(e); return err }, []string{"RUNNERHUB_DELIVERIES_QUEUE"}},
		"reports":        {func(e aws.Environment) error { _, err := queues.Reports(e); return err }, []string{"RUNNERHUB_REPORTS_QUEUE"}},
		"hooks":          {func(e aws.Environment) error { _, err := keys.Hooks(e); return err }, []string{"RUNNERHUB_HOOKS_KEY"}},
		"bitbucket":      {func(e aws.Environment) error { _, err := forge.Bitbucket(e); return err }, bitbucket},
		"grants": {func(e aws.Environment) error {
			stored, err := aws.Store(e)
			bb, err2 := forge.Bitbucket(e)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			_, err = forge.Grants(e, stored, bb)
			return err
		}, append([]string{"RUNNERHUB_TABLE", "RUNNERHUB_TOKENS_KEY"}, bitbucket...)},
		"timekeeper": {func(e aws.Environment) error {
			stored, err := aws.Store(e)
			if err != nil {
				return err
			}
			_, err = timers.Keeper(e, stored)
			return err
		}, []string{"RUNNERHUB_TABLE", "RUNNERHUB_SCHEDULE_GROUP", "RUNNERHUB_SCHEDULE_ROLE", "RUNNERHUB_DELIVERIES_QUEUE_ARN", "RUNNERHUB_SCHEDULES_DEAD_QUEUE_ARN"}},
		"builds":  {func(e aws.Environment) error { _, err := builders.Watcher(e); return err }, []string{"RUNNERHUB_BUILD_PROJECT"}},
		"starter": {func(e aws.Environment) error { _, err := builders.Starter(e); return err }, []string{"RUNNERHUB_BUILD_PROJECT", "RUNNERHUB_LOG_GROUP"}},
		"logs":    {func(e aws.Environment) error { _, err := buildlogs.Open(e); return err }, []string{"RUNNERHUB_LOG_GROUP"}},
		"agents":  {func(e aws.Environment) error { _, err := aws.Agents(e); return err }, []string{"RUNNERHUB_AGENTS"}},
		"api":     {func(e aws.Environment) error { _, err := web.Serve(e, nil); return err }, []string{"PUBLIC_URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := lambdas()
			for _, v := range test.needs {
				own[v] = deployment()[v]
			}
			if err := test.open(environment(t, own)); err != nil {
				t.Errorf("with all it needs: %v", err)
			}
			for _, v := range test.needs {
				without := maps.Clone(own)
				delete(without, v)
				if err := test.open(environment(t, without)); err == nil || !strings.Contains(err.Error(), v) || !strings.Contains(err.Error(), "deploy") {
					t.Errorf("without %s: %v", v, err)
				}
			}
		})
	}
}

func TestWrongValuesAreNamed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		value string
		open  func(aws.Environment) error
	}{
		"PUBLIC_URL":                 {"ci.example.com", func(e aws.Environment) error { _, err := aws.PublicURL(e); return err }},
		"RUNNERHUB_DELIVERIES_QUEUE": {"deliveries", func(e aws.Environment) error { _, err := queues.Deliveries(e); return err }},
		"RUNNERHUB_CONCURRENCY":      {"many", func(e aws.Environment) error { _, err := builders.Limits(e); return err }},
		"RUNNERHUB_MAX_COMPUTE":      {"gigantic", func(e aws.Environment) error { _, err := offers.CodeBuild(e); return err }},
		"BITBUCKET_API_URL":          {"http://api.example.com/2.0", func(e aws.Environment) error { _, err := forge.Bitbucket(e); return err }},
	} {
		variables := lambdas()
		maps.Copy(variables, deployment())
		variables[name] = test.value
		if err := test.open(environment(t, variables)); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), test.value) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Tokens are sent to Bitbucket over TLS, except to what stands for it in a test, beside what stands for AWS.
func TestTokensAreSentSecurely(t *testing.T) {
	t.Parallel()
	for address, test := range map[string]struct{ deployed, tested bool }{
		"https://api.bitbucket.org/2.0": {true, true},
		"http://api.bitbucket.org/2.0":  {false, false},
		"http://127.0.0.1:7990":         {false, true},
		"http://[::1]:7990":             {false, true},
		"http://10.0.0.1":               {false, false},
		"http://127.0.0.1.example.com":  {false, false},
	} {
		for endpoint, want := range map[string]bool{"": test.deployed, "http://127.0.0.1:4566": test.tested} {
			for name, open := range map[string]func(aws.Environment) (string, error){"BITBUCKET_API_URL": aws.APIURL, "BITBUCKET_WEB_URL": aws.WebURL} {
				variables := lambdas()
				variables[name] = address
				delete(variables, "AWS_ENDPOINT_URL")
				if endpoint != "" {
					variables["AWS_ENDPOINT_URL"] = endpoint
				}
				got, err := open(environment(t, variables))
				if (err == nil) != want || want && got != address || !want && (!strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "https")) {
					t.Errorf("%s=%s with the endpoint %q: %q, %v", name, address, endpoint, got, err)
				}
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		variables := lambdas()
		delete(variables, name)
		_, err := aws.Read(pairs(variables), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("without %s: %v", name, err)
		}
	}
	variables := lambdas()
	variables["AWS_ENDPOINT_URL"] = "nowhere"
	if _, err := aws.Read(pairs(variables), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "AWS_ENDPOINT_URL") {
		t.Errorf("with an endpoint that is none: %v", err)
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	e := environment(t, lambdas())
	if got := aws.Allowed(e); len(got) != 0 {
		t.Errorf("allowed by nobody: %q", got)
	}
	variables := lambdas()
	variables["ALLOWED_BITBUCKET_WORKSPACES"] = deployment()["ALLOWED_BITBUCKET_WORKSPACES"]
	e = environment(t, variables)
	if got := aws.Allowed(e); !slices.Equal(got, []string{"acme", "beta"}) {
		t.Errorf("allowed: %q", got)
	}
}

// Drivers speak to the endpoint with the credentials of the function, CodeBuild's to its own.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	asked := make(chan *http.Request, 10)
	serve := func() string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r
			w.WriteHeader(http.StatusBadRequest)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	variables := lambdas()
	maps.Copy(variables, deployment())
	variables["AWS_ENDPOINT_URL"], variables["AWS_ENDPOINT_URL_CODEBUILD"] = serve(), serve()
	e := environment(t, variables)
	stored, err := aws.Store(e)
	if err != nil {
		t.Fatal(err)
	}
	builds, err := builders.Watcher(e)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		host, target string
		call         func() error
	}{
		{variables["AWS_ENDPOINT_URL"], "DynamoDB", func() error { _, err := stored.Hook(t.Context(), "hook"); return err }},
		{variables["AWS_ENDPOINT_URL_CODEBUILD"], "CodeBuild", func() error { _, err := builds.State(t.Context(), "project:1"); return err }},
	} {
		if err := test.call(); err == nil {
			t.Errorf("%s is refused, and that is no error", test.target)
		}
		r := <-asked
		if "http://"+r.Host != test.host || !strings.HasPrefix(r.Header.Get("X-Amz-Target"), test.target) ||
			!strings.Contains(r.Header.Get("Authorization"), "Credential=AKIA1/") || r.Header.Get("X-Amz-Security-Token") != "hidden-session" {
			t.Errorf("%s was asked %s of %s", test.target, r.Header.Get("X-Amz-Target"), r.Host)
		}
	}
	agents, err := aws.Agents(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(agents, "linux-amd64.gz"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the agents are there: %v", err)
	}
}
