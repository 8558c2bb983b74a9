package codebuild_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"
	"github.com/aws/smithy-go"

	"runnerhub/infra/codebuild"
	"runnerhub/infra/ministack"
)

// patience bounds every wait.
const patience = 60 * time.Second

// account is an endpoint, and what came out of it.
type account struct {
	*testing.T
	host   *codebuild.Host
	url    string
	client *sdk.Client
	dir    string
	clock  atomic.Int64 // what the clock is ahead, in nanoseconds
	ids    atomic.Int64

	mu     sync.Mutex
	logs   map[string]string // by group and stream
	events []map[string]any
}

func newAccount(t *testing.T, change func(*codebuild.Deps)) *account {
	t.Helper()
	dir, err := os.MkdirTemp("", "codebuild") // others can get to it, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	a := &account{T: t, dir: dir, logs: map[string]string{}}
	deps := codebuild.Deps{
		Region: "us-east-1", Account: "000000000000", Dir: dir, Path: os.Getenv("PATH"), Grace: 10 * time.Second,
		Lines: func(_ context.Context, group, stream string, lines []codebuild.Line) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, l := range lines {
				a.logs[group+" "+stream] += l.Text
			}
			return nil
		},
		Event: func(_ context.Context, event []byte) {
			var e map[string]any
			if err := json.Unmarshal(event, &e); err != nil {
				t.Errorf("an event is no JSON: %v", err)
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			a.events = append(a.events, e)
		},
		Now:   func() time.Time { return time.Now().Add(time.Duration(a.clock.Load())) },
		NewID: func() string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", a.ids.Add(1)) },
		Log:   slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	if change != nil {
		change(&deps)
	}
	if a.host, err = codebuild.New(deps); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(a.host)
	a.url = server.URL
	a.client = sdk.NewFromConfig(ministack.Config(server.URL), func(o *sdk.Options) { o.Retryer = aws.NopRetryer{} })
	t.Cleanup(func() {
		server.Close()
		if err := a.host.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in the builds' folder: %v, %v", left, err)
		}
	})
	return a
}

// testLog fails the test for whatever the endpoint has to complain about.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Errorf("the endpoint logged: %s", bytes.TrimSpace(p))
	return len(p), nil
}

// project registers a project whose build phase has these commands.
func (a *account) project(name string, commands ...string) {
	a.Helper()
	a.register(codebuild.Project{Name: name, Buildspec: spec("", "build", commands...)})
}

func (a *account) register(p codebuild.Project) {
	a.Helper()
	if err := a.host.Register(p); err != nil {
		a.Fatal(err)
	}
}

// spec writes a buildspec of phases, each a name and commands; JSON strings are YAML, too.
func spec(exported string, phase string, commands ...string) string {
	text := "version: 0.2\n"
	if exported != "" {
		text += "env: {exported-variables: [" + exported + "]}\n"
	}
	text += "phases:\n"
	return text + phaseOf(phase, commands...)
}

func phaseOf(phase string, commands ...string) string {
	text := "  " + phase + ":\n    commands:\n"
	for _, c := range commands {
		quoted, _ := json.Marshal(c)
		text += "      - " + string(quoted) + "\n"
	}
	return text
}

// start starts a build and answers its id.
func (a *account) start(project string, change func(*sdk.StartBuildInput)) string {
	a.Helper()
	out, err := a.tries(project, change)
	if err != nil {
		a.Fatalf("StartBuild: %v", err)
	}
	return *out.Build.Id
}

func (a *account) tries(project string, change func(*sdk.StartBuildInput)) (*sdk.StartBuildOutput, error) {
	in := &sdk.StartBuildInput{ProjectName: &project}
	if change != nil {
		change(in)
	}
	return a.client.StartBuild(a.Context(), in)
}

func (a *account) build(id string) types.Build {
	a.Helper()
	out, err := a.client.BatchGetBuilds(a.Context(), &sdk.BatchGetBuildsInput{Ids: []string{id}})
	if err != nil || len(out.Builds) != 1 {
		a.Fatalf("BatchGetBuilds: %+v, %v", out, err)
	}
	return out.Builds[0]
}

// ends waits for the end of a build.
func (a *account) ends(id string) types.Build {
	a.Helper()
	var b types.Build
	a.eventually(func() bool {
		b = a.build(id)
		return b.BuildComplete
	}, func() string {
		return fmt.Sprintf("the end of %s, which is %s; its log:\n%s", id, b.BuildStatus, a.log(b))
	})
	return b
}

// runs runs a build to its end, and answers it with its log.
func (a *account) runs(project string, status types.StatusType) (types.Build, string) {
	a.Helper()
	b := a.ends(a.start(project, nil))
	log := a.log(b)
	if b.BuildStatus != status {
		a.Fatalf("the build is %s, want %s; its log:\n%s", b.BuildStatus, status, log)
	}
	return b, log
}

func (a *account) log(b types.Build) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.logs[*b.Logs.GroupName+" "+*b.Logs.StreamName]
}

// said waits for a line of a build's log that begins with prefix, and answers its rest.
func (a *account) said(id, prefix string) string {
	a.Helper()
	b := a.build(id)
	var rest string
	a.eventually(func() bool {
		for line := range strings.Lines(a.log(b)) {
			if after, ok := strings.CutPrefix(line, prefix); ok {
				rest = strings.TrimSpace(after)
				return true
			}
		}
		return false
	}, func() string { return fmt.Sprintf("%q in the log:\n%s", prefix, a.log(b)) })
	return rest
}

func (a *account) eventually(is func() bool, what func() string) {
	a.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if time.Now().After(deadline) {
			a.Fatalf("waited %v in vain for %s", patience, what())
		}
		<-tick.C
	}
}

// code answers the error code of a refusal.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func isAlive(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatalf("process id %q: %v", pid, err)
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return !errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
	}
	return !strings.Contains(string(stat), ") Z ")
}

func TestBuildspecs(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	shipped, err := os.ReadFile("../aws/buildspec.yml")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		string(shipped):                           "",
		spec("A", "post_build", "true"):           "",
		"version: 0.1\nphases: {}\n":              "0.1",
		"version: 0.2\n":                          "no commands",
		"phases: {build: {commands: [\"true\"]}}": "version",
		spec("", "test", "true"):                  "field test not found",
		spec("A-B", "build", "true"):              "A-B",
		"version: 0.2\nenv: {shell: bash}\nphases: {build: {commands: [x]}}":          "field shell not found",
		"version: 0.2\nenv: {variables: {A: b}}\nphases: {build: {commands: [x]}}":    "field variables not found",
		"version: 0.2\nphases: {build: {commands: [x], finally: [y]}}":                "field finally not found",
		"version: 0.2\nphases: {build: {commands: [x], on-failure: CONTINUE}}":        "field on-failure not found",
		"version: 0.2\nphases: {install: {runtime-versions: {go: 1}, commands: [x]}}": "field runtime-versions not found",
		"version: 0.2\nphases: {build: {commands: [x]}}\nartifacts: {files: ['*']}":   "field artifacts not found",
		"version: 0.2\nphases: {build: {commands: [x]}}\n---\nversion: 0.2\n":         "more than one document",
		"version: 0.2\nphases: {build: {commands: {a: b}}}":                           "cannot unmarshal",
	} {
		err := a.host.Register(codebuild.Project{Name: "it", Buildspec: text})
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	for _, p := range []codebuild.Project{
		{Name: "x"},
		{Name: "a b"},
		{Name: "it", Timeout: 4},
		{Name: "it", Timeout: 2161},
		{Name: "it", QueuedTimeout: 481},
		{Name: "it", Limit: -1},
		{Name: "it", LogGroup: "a b"},
		{Name: "it", LogStream: "a:b"},
		{Name: "it", Environment: []codebuild.Variable{{Name: "A=B"}}},
	} {
		p.Buildspec = spec("", "build", "true")
		if err := a.host.Register(p); err == nil {
			t.Errorf("registered %+v", p)
		}
	}
}

// TestEnvironment looks at what commands find, and what one leaves to the next.
func TestEnvironment(t *testing.T) {
	t.Setenv("SERVER_SECRET", "not-for-builds")
	a := newAccount(t, nil)
	a.register(codebuild.Project{
		Name: "it", Image: "image:1", Environment: []codebuild.Variable{{Name: "FIXED", Value: "by the project"}, {Name: "OVER", Value: "project"}},
		Buildspec: spec("KEPT, NEVER_SET", "build",
			`env | sort | sed 's/^/env /'; pwd | sed 's/^/at /'; id -u | sed 's/^/uid /'; stat -c 'mode %a %u' .`,
			`mkdir sub; cd sub; export KEPT='two
lines' LATER=1; local_only=1; unset FIXED; umask | sed 's/^/umask /'`,
			`pwd | sed 's/^/then at /'; echo "then $KEPT $LATER ${local_only-gone} ${FIXED-unset}"; readlink /proc/self/fd/0; trap 'echo mine' EXIT`,
			`echo "still $LATER"`,
		),
	})
	id := a.start("it", func(in *sdk.StartBuildInput) {
		in.EnvironmentVariablesOverride = []types.EnvironmentVariable{
			{Name: aws.String("OVER"), Value: aws.String(`a "b" $c`)}, {Name: aws.String("NEW"), Value: aws.String("n")},
		}
	})
	b := a.ends(id)
	log := a.log(b)
	source := filepath.Join(a.dir, strings.TrimPrefix(id, "it:"), "src")
	for _, want := range []string{
		"env FIXED=by the project\n", "env OVER=a \"b\" $c\n", "env NEW=n\n", "env AWS_REGION=us-east-1\n", "env AWS_DEFAULT_REGION=us-east-1\n",
		"env CODEBUILD_BUILD_ID=" + id + "\n", "env CODEBUILD_BUILD_ARN=arn:aws:codebuild:us-east-1:000000000000:build/" + id + "\n",
		"env CODEBUILD_SRC_DIR=" + source + "\n", "env CODEBUILD_BUILD_NUMBER=1\n", "env CODEBUILD_BUILD_IMAGE=image:1\n", "env CODEBUILD_BUILD_SUCCEEDING=1\n",
		"env CODEBUILD_PROJECT_ARN=arn:aws:codebuild:us-east-1:000000000000:project/it\n",
		"at " + source + "\n", "then at " + source + "/sub\n", "then two\nlines 1 gone unset\n", "/dev/null\n", "mine\n", "still 1\n",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not have %q", want)
		}
	}
	for _, never := range []string{"SERVER_SECRET", "not-for-builds", "_codebuild_"} {
		if strings.Contains(log, never) {
			t.Errorf("the log has %q", never)
		}
	}
	uid := a.said(id, "uid ")
	if os.Geteuid() == 0 && (uid == "0" || !strings.Contains(log, "mode 700 "+uid+"\n")) {
		t.Errorf("the user is %q", uid)
	}
	exported := map[string]string{}
	for _, v := range b.ExportedEnvironmentVariables {
		exported[*v.Name] = *v.Value
	}
	if fmt.Sprint(exported) != fmt.Sprint(map[string]string{"KEPT": "two\nlines", "NEVER_SET": ""}) {
		t.Errorf("exported %q", exported)
	}
	if t.Failed() {
		t.Log(log)
	}
}

// TestUsers runs two builds at once, which must not get at each other.
func TestUsers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // builds are as mighty as the test
	}
	a := newAccount(t, nil)
	a.project("it", `echo secret >mine; chmod 777 . mine; id -u | sed 's/^/uid /'; until [ -e "$HOME/go" ]; do sleep 0.05; done`)
	one, two := a.start("it", nil), a.start("it", nil)
	first, second := a.said(one, "uid "), a.said(two, "uid ")
	if first == second || first == "0" || second == "0" {
		t.Errorf("users %s and %s", first, second)
	}
	folder := func(id string) string { return filepath.Join(a.dir, strings.TrimPrefix(id, "it:")) }
	uid, err := strconv.Atoi(second)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{folder(one) + "/src/mine": false, folder(two) + "/src/mine": true} {
		cat := exec.Command("cat", path)
		cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		if out, err := cat.CombinedOutput(); (err == nil) != want {
			t.Errorf("reading %s: %s, %v", path, out, err)
		}
	}
	for _, id := range []string{one, two} {
		if err := os.WriteFile(folder(id)+"/home/go", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		a.ends(id)
	}
}

func TestPhases(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	phases := func(b types.Build) string {
		var all []string
		for _, p := range b.Phases {
			text := string(p.PhaseType)
			if p.PhaseStatus != types.StatusTypeSucceeded {
				text += "=" + string(p.PhaseStatus)
			}
			all = append(all, text)
		}
		return strings.Join(all, " ")
	}
	before := "SUBMITTED QUEUED PROVISIONING DOWNLOAD_SOURCE INSTALL"
	for name, test := range map[string]struct {
		spec   string
		status types.StatusType
		phases string
		log    []string
		never  string
	}{
		"all is well": {
			spec("", "install", "echo in") + phaseOf("pre_build", "echo pre") + phaseOf("build", "echo build") + phaseOf("post_build", "echo post $CODEBUILD_BUILD_SUCCEEDING"),
			types.StatusTypeSucceeded, before + " PRE_BUILD BUILD POST_BUILD UPLOAD_ARTIFACTS FINALIZING COMPLETED=",
			[]string{"Entering phase INSTALL\nRunning command echo in\nin\nPhase complete: INSTALL State: SUCCEEDED\nEntering phase PRE_BUILD\n", "\npre\n", "\nbuild\n", "\npost 1\n"},
			"nothing",
		},
		"install fails": {
			spec("", "install", "exit 7", "echo never") + phaseOf("build", "echo never") + phaseOf("post_build", "echo never"),
			types.StatusTypeFailed, before + "=FAILED FINALIZING COMPLETED=",
			[]string{"Phase complete: INSTALL State: FAILED"},
			"\nnever",
		},
		"build fails": {
			spec("", "build", "echo first", "(exit 9)", "echo never") + phaseOf("post_build", "echo post $CODEBUILD_BUILD_SUCCEEDING"),
			types.StatusTypeFailed, before + " PRE_BUILD BUILD=FAILED POST_BUILD FINALIZING COMPLETED=",
			[]string{"first", "post 0", "exit status 9"},
			"\nnever",
		},
		"what comes after the build fails": {
			spec("", "build", "true") + phaseOf("post_build", "false"),
			types.StatusTypeFailed, before + " PRE_BUILD BUILD POST_BUILD=FAILED FINALIZING COMPLETED=", nil, "\nnever",
		},
		"a signal": {
			spec("", "build", "kill -9 $$", "echo never"), types.StatusTypeFailed,
			before + " PRE_BUILD BUILD=FAILED POST_BUILD FINALIZING COMPLETED=",
			[]string{"exit status 137"},
			"\nnever",
		},
	} {
		project := strings.ReplaceAll(name, " ", "-")
		a.register(codebuild.Project{Name: project, Buildspec: test.spec})
		b, log := a.runs(project, test.status)
		// The lines of CodeBuild itself come with the time, which is cut out here.
		var plain strings.Builder
		for line := range strings.Lines(log) {
			if fields := strings.SplitN(line, " ", 4); fields[0] == "[Container]" {
				line = fields[3]
			}
			plain.WriteString(line)
		}
		if got := phases(b); got != test.phases {
			t.Errorf("%s: %s", name, got)
		}
		for _, want := range test.log {
			if !strings.Contains(plain.String(), want) {
				t.Errorf("%s: the log does not have %q:\n%s", name, want, log)
			}
		}
		if strings.Contains(plain.String(), test.never) {
			t.Errorf("%s: the log has %q:\n%s", name, test.never, log)
		}
		if b.EndTime == nil || b.StartTime == nil || b.EndTime.Before(*b.StartTime) || *b.CurrentPhase != "COMPLETED" {
			t.Errorf("%s: from %v to %v, in %s", name, b.StartTime, b.EndTime, *b.CurrentPhase)
		}
	}
}

// TestContexts compares with what CodeBuild says of a command that failed, as seen in many a public issue.
func TestContexts(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.project("it", "exit 3")
	b, log := a.runs("it", types.StatusTypeFailed)
	var got []string
	for _, p := range b.Phases {
		for _, c := range p.Contexts {
			got = append(got, string(p.PhaseType), *c.StatusCode, *c.Message)
		}
	}
	if want := []string{"BUILD", "COMMAND_EXECUTION_ERROR", "Error while executing command: exit 3. Reason: exit status 3"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("contexts %q", got)
	}
	for _, want := range []string{"[Container] ", "Running command exit 3\n", "Command did not exit successfully exit 3 exit status 3\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not have %q:\n%s", want, log)
		}
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	var lost atomic.Int64
	a := newAccount(t, func(d *codebuild.Deps) {
		next := d.Lines
		d.Lines = func(ctx context.Context, group, stream string, lines []codebuild.Line) error {
			if lost.Add(1)%2 == 1 {
				return errors.New("not this time")
			}
			for _, l := range lines {
				if l.Time.IsZero() || !strings.HasSuffix(l.Text, "\n") || len(l.Text) < 2 || len(l.Text) > 256<<10 {
					t.Errorf("a line of %d bytes at %v", len(l.Text), l.Time)
				}
			}
			return next(ctx, group, stream, lines)
		}
	})
	a.project("it",
		`echo out; echo err >&2; printf 'no end'`,
		`head -c 600000 /dev/zero | tr '\0' x; echo; printf 'bad \377 byte\n'; echo; echo`,
		// The one writes on when the build is over, the other holds on to the output.
		`(while :; do echo on and on; sleep 0.01; done) & setsid sleep 1000 & echo last`,
	)
	_, log := a.runs("it", types.StatusTypeSucceeded)
	for _, want := range []string{"out\nerr\nno end\n", strings.Repeat("x", 255<<10) + "\n" + strings.Repeat("x", 255<<10) + "\n", "bad \uFFFD byte\n", "last\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not have %.100q", want)
		}
	}
	if n := strings.Count(log, "x") - strings.Count(log, "Running command head -c 600000 /dev/zero | tr '\\0' x") - strings.Count(log, "xit") - strings.Count(log, "ext"); n < 600000 {
		t.Errorf("%d of 600000 bytes came", n)
	}
}

// TestStop asks and then forces the whole family to end.
func TestStop(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(d *codebuild.Deps) { d.Grace = 300 * time.Millisecond })
	a.project("willing", `trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.05; done`, "echo never")
	a.project("unwilling", `trap '' TERM
setsid sh -c 'trap "" TERM HUP; echo daemon $$; while :; do sleep 100; done' &
sh -c 'trap "" TERM; echo child $$; while :; do sleep 100; done' &
echo ready; while :; do sleep 100; done`, "echo never")
	for _, project := range []string{"willing", "unwilling"} {
		id := a.start(project, nil)
		a.said(id, "ready")
		var pids []string
		if project == "unwilling" {
			pids = []string{a.said(id, "daemon "), a.said(id, "child ")}
		}
		for range 2 {
			if _, err := a.client.StopBuild(t.Context(), &sdk.StopBuildInput{Id: &id}); err != nil {
				t.Fatal(err)
			}
		}
		b := a.ends(id)
		log := a.log(b)
		if b.BuildStatus != types.StatusTypeStopped || strings.Contains(log, "\nnever") || (project == "willing") != strings.Contains(log, "\nasked\n") {
			t.Errorf("%s: %s:\n%s", project, b.BuildStatus, log)
		}
		for _, pid := range pids {
			if isAlive(t, pid) {
				t.Errorf("process %s lives", pid)
			}
		}
		if out, err := a.client.StopBuild(t.Context(), &sdk.StopBuildInput{Id: &id}); err != nil || out.Build.BuildStatus != types.StatusTypeStopped {
			t.Errorf("stopped again: %v", err)
		}
	}
	if _, err := a.client.StopBuild(t.Context(), &sdk.StopBuildInput{Id: aws.String("willing:nobody")}); code(err) != "ResourceNotFoundException" {
		t.Errorf("stopping nobody: %v", err)
	}
	if _, err := a.client.StopBuild(t.Context(), &sdk.StopBuildInput{Id: aws.String("nonsense")}); code(err) != "InvalidInputException" {
		t.Errorf("stopping nonsense: %v", err)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(d *codebuild.Deps) { d.Minute, d.Grace, d.Running = 40*time.Millisecond, 100*time.Millisecond, 1 })
	a.project("it", "trap '' TERM; echo holds; while :; do sleep 100; done")
	short := func(in *sdk.StartBuildInput) { in.TimeoutInMinutesOverride = aws.Int32(30) } // 1.2 s
	first := a.start("it", short)
	a.said(first, "holds")
	second := a.start("it", func(in *sdk.StartBuildInput) { in.QueuedTimeoutInMinutesOverride = aws.Int32(5) })
	third := a.start("it", short)
	if b := a.build(third); b.BuildStatus != types.StatusTypeInProgress || (*b.CurrentPhase != "QUEUED" && *b.CurrentPhase != "SUBMITTED") {
		t.Errorf("one that waits is %s in %s", b.BuildStatus, *b.CurrentPhase)
	}
	for id, phase := range map[string]types.BuildPhaseType{first: types.BuildPhaseTypeBuild, second: types.BuildPhaseTypeQueued, third: types.BuildPhaseTypeBuild} {
		b := a.ends(id)
		last := b.Phases[len(b.Phases)-2]
		if b.BuildStatus != types.StatusTypeTimedOut || last.PhaseType != phase || last.PhaseStatus != types.StatusTypeTimedOut || *last.Contexts[0].StatusCode != "BUILD_TIMED_OUT" {
			t.Errorf("%s is %s after %+v", id, b.BuildStatus, last)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(d *codebuild.Deps) { d.Running = 1 })
	a.register(codebuild.Project{Name: "two", Limit: 2, Buildspec: spec("", "build", "echo holds; while :; do sleep 100; done")})
	a.project("more", "while :; do sleep 100; done")
	var ids []string
	for range 2 {
		ids = append(ids, a.start("two", nil))
	}
	if _, err := a.tries("two", nil); code(err) != "AccountLimitExceededException" {
		t.Errorf("over the project's limit: %v", err)
	}
	for range 4 { // five may wait for the one that runs, and one of "two" does
		ids = append(ids, a.start("more", nil))
	}
	if _, err := a.tries("more", nil); code(err) != "AccountLimitExceededException" || !strings.Contains(err.Error(), "Cannot have more than 5 builds in queue for the account") {
		t.Errorf("over the account's: %v", err)
	}
	a.said(ids[0], "holds")
	if _, err := a.client.StopBuild(t.Context(), &sdk.StopBuildInput{Id: &ids[0]}); err != nil {
		t.Fatal(err)
	}
	a.ends(ids[0])
	ids = append(ids, a.start("two", nil))
	for _, id := range ids[1:] {
		if _, err := a.client.StopBuild(t.Context(), &sdk.StopBuildInput{Id: &id}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids[1:] {
		if b := a.ends(id); b.BuildStatus != types.StatusTypeStopped {
			t.Errorf("%s is %s", id, b.BuildStatus)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.project("it", "true")
	with := func(token, value string) func(*sdk.StartBuildInput) {
		return func(in *sdk.StartBuildInput) {
			in.IdempotencyToken = &token
			in.EnvironmentVariablesOverride = []types.EnvironmentVariable{{Name: aws.String("A"), Value: &value}}
		}
	}
	first := a.start("it", with("t", "1"))
	a.ends(first)
	a.clock.Add(int64(codebuild.TokenLife - time.Second))
	if again := a.start("it", with("t", "1")); again != first {
		t.Errorf("the repeat is %s instead of %s", again, first)
	}
	if _, err := a.tries("it", with("t", "2")); code(err) != "InvalidInputException" {
		t.Errorf("another request with the token: %v", err)
	}
	if other := a.start("it", with("u", "1")); other == first {
		t.Error("another token is taken for the first")
	}
	a.clock.Add(int64(time.Second))
	if late := a.start("it", with("t", "2")); late == first {
		t.Error("the token is known after five minutes")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.project("it", "true")
	for name, change := range map[string]func(*sdk.StartBuildInput){
		"ResourceNotFoundException":   func(in *sdk.StartBuildInput) { in.ProjectName = aws.String("another") },
		"InvalidInputException short": func(in *sdk.StartBuildInput) { in.TimeoutInMinutesOverride = aws.Int32(4) },
		"InvalidInputException long":  func(in *sdk.StartBuildInput) { in.TimeoutInMinutesOverride = aws.Int32(2161) },
		"InvalidInputException queue": func(in *sdk.StartBuildInput) { in.QueuedTimeoutInMinutesOverride = aws.Int32(481) },
		"InvalidInputException name": func(in *sdk.StartBuildInput) {
			in.EnvironmentVariablesOverride = []types.EnvironmentVariable{{Name: aws.String("a b"), Value: aws.String("")}}
		},
		"InvalidInputException reserved": func(in *sdk.StartBuildInput) {
			in.EnvironmentVariablesOverride = []types.EnvironmentVariable{{Name: aws.String("CODEBUILD_X"), Value: aws.String("")}}
		},
		"InvalidInputException secret": func(in *sdk.StartBuildInput) {
			in.EnvironmentVariablesOverride = []types.EnvironmentVariable{{Name: aws.String("A"), Value: aws.String("b"), Type: types.EnvironmentVariableTypeSecretsManager}}
		},
		"InvalidInputException logs": func(in *sdk.StartBuildInput) {
			in.LogsConfigOverride = &types.LogsConfig{CloudWatchLogs: &types.CloudWatchLogsConfig{Status: types.LogsConfigStatusTypeDisabled}}
		},
		"InvalidInputException stream": func(in *sdk.StartBuildInput) {
			in.LogsConfigOverride = &types.LogsConfig{CloudWatchLogs: &types.CloudWatchLogsConfig{Status: types.LogsConfigStatusTypeEnabled, StreamName: aws.String("a*b")}}
		},
		"InvalidInputException compute":     func(in *sdk.StartBuildInput) { in.ComputeTypeOverride = types.ComputeTypeBuildLambda1gb },
		"InvalidInputException credentials": func(in *sdk.StartBuildInput) { in.ImagePullCredentialsTypeOverride = "MINE" },
		// What CodeBuild has and this has not.
		"SerializationException": func(in *sdk.StartBuildInput) { in.BuildspecOverride = aws.String("version: 0.2") },
	} {
		want, _, _ := strings.Cut(name, " ")
		if _, err := a.tries("it", change); code(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.client.ListBuilds(t.Context(), &sdk.ListBuildsInput{}); code(err) != "UnknownOperationException" {
		t.Errorf("another operation: %v", err)
	}
	for name, ids := range map[string][]string{"none": {}, "too many": make([]string, 101), "nonsense": {"x"}} {
		if _, err := a.client.BatchGetBuilds(t.Context(), &sdk.BatchGetBuildsInput{Ids: ids}); code(err) != "InvalidInputException" {
			t.Errorf("%s: %v", name, err)
		}
	}
	out, err := a.client.BatchGetBuilds(t.Context(), &sdk.BatchGetBuildsInput{Ids: []string{"it:nobody"}})
	if err != nil || len(out.Builds) != 0 || fmt.Sprint(out.BuildsNotFound) != "[it:nobody]" {
		t.Errorf("nobody: %+v, %v", out, err)
	}
	for name, test := range map[string]struct{ method, target, authorization, want string }{
		"unsigned":        {http.MethodPost, "CodeBuild_20161006.StopBuild", "", "MissingAuthenticationTokenException"},
		"another service": {http.MethodPost, "CodeBuild_20161006.StopBuild", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/sqs/aws4_request", "MissingAuthenticationTokenException"},
		"another target":  {http.MethodPost, "AmazonSQS.SendMessage", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/codebuild/aws4_request", "UnknownOperationException"},
		"get":             {http.MethodGet, "CodeBuild_20161006.StopBuild", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/codebuild/aws4_request", "UnknownOperationException"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, a.url, strings.NewReader(`{"id":"it:x"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Amz-Target", test.target)
		request.Header.Set("Authorization", test.authorization)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var body struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if err := errors.Join(json.NewDecoder(response.Body).Decode(&body), response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusBadRequest || body.Type != test.want || body.Message == "" || response.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
			t.Errorf("%s: %d %+v", name, response.StatusCode, body)
		}
	}
}

func TestLogsAndEnvironmentAreShown(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.project("it", "echo here")
	own := a.ends(a.start("it", nil))
	if *own.Logs.GroupName != "/aws/codebuild/it" || *own.Logs.StreamName != strings.TrimPrefix(*own.Id, "it:") || !strings.Contains(a.log(own), "here\n") {
		t.Errorf("its own choice is %s %s", *own.Logs.GroupName, *own.Logs.StreamName)
	}
	b := a.ends(a.start("it", func(in *sdk.StartBuildInput) {
		in.LogsConfigOverride = &types.LogsConfig{CloudWatchLogs: &types.CloudWatchLogsConfig{
			Status: types.LogsConfigStatusTypeEnabled, GroupName: aws.String("/of/ours"), StreamName: aws.String("b1/a1"),
		}}
		in.EnvironmentVariablesOverride = []types.EnvironmentVariable{{Name: aws.String("A"), Value: aws.String("b")}}
		in.ImageOverride, in.ImagePullCredentialsTypeOverride = aws.String("x/y:1"), types.ImagePullCredentialsTypeServiceRole
		in.ComputeTypeOverride = types.ComputeTypeBuildGeneral12xlarge
	}))
	if want := "b1/a1/" + strings.TrimPrefix(*b.Id, "it:"); *b.Logs.GroupName != "/of/ours" || *b.Logs.StreamName != want || *b.Logs.CloudWatchLogs.StreamName != "b1/a1" {
		t.Errorf("logs go to %s %s, prefix %s", *b.Logs.GroupName, *b.Logs.StreamName, *b.Logs.CloudWatchLogs.StreamName)
	}
	if v := b.Environment.EnvironmentVariables; len(v) != 1 || *v[0].Name != "A" || *v[0].Value != "b" || *b.Environment.Image != "x/y:1" || b.Environment.ComputeType != "BUILD_GENERAL1_2XLARGE" || own.Environment.ComputeType != "BUILD_GENERAL1_SMALL" {
		t.Errorf("the environment is %+v", b.Environment)
	}
	if *b.BuildNumber != 2 || *b.TimeoutInMinutes != 60 || *b.QueuedTimeoutInMinutes != 480 || *b.Arn != "arn:aws:codebuild:us-east-1:000000000000:build/"+*b.Id {
		t.Errorf("it is number %d, %s, with %d and %d minutes", *b.BuildNumber, *b.Arn, *b.TimeoutInMinutes, *b.QueuedTimeoutInMinutes)
	}
}

// sample is the shape of AWS's documented example of an event: each member with an example of its type.
const sample = `{"version": "", "id": "", "detail-type": "", "source": "", "account": "", "time": "", "region": "", "resources": [""],
"detail": {"build-status": "", "project-name": "", "build-id": "", "current-phase": "", "current-phase-context": "", "version": "",
"additional-information": {"artifact": {"location": ""}, "environment": {"image": "", "privileged-mode": false, "compute-type": "", "type": "", "environment-variables": []},
"timeout-in-minutes": 1, "build-complete": true, "build-number": 1, "initiator": "", "build-start-time": "", "source": {"type": ""},
"logs": {"group-name": "", "stream-name": "", "deep-link": ""},
"phases": [{"phase-context": [], "start-time": "", "end-time": "", "duration-in-seconds": 1, "phase-type": "", "phase-status": ""}]}}}`

// lacks answers what of a sample is missing in v, or of another type.
func lacks(sample, v any, at string) (wrong []string) {
	switch s := sample.(type) {
	case map[string]any:
		object, ok := v.(map[string]any)
		if !ok {
			return []string{at}
		}
		for name, below := range s {
			if _, there := object[name]; !there {
				wrong = append(wrong, at+"."+name)
				continue
			}
			wrong = append(wrong, lacks(below, object[name], at+"."+name)...)
		}
	case []any:
		list, ok := v.([]any)
		if !ok || (len(s) > 0 && len(list) == 0) {
			return []string{at}
		}
		if len(s) > 0 {
			return lacks(s[0], list[0], at+"[0]")
		}
	default:
		if fmt.Sprintf("%T", s) != fmt.Sprintf("%T", v) {
			return []string{at}
		}
	}
	return wrong
}

// heard waits for n events, and answers of each its status.
func (a *account) heard(n int) []string {
	a.Helper()
	var all []string
	a.eventually(func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		all = nil
		for _, e := range a.events {
			all = append(all, e["detail"].(map[string]any)["build-status"].(string))
		}
		return len(all) >= n
	}, func() string { return fmt.Sprintf("%d events; there are %v", n, all) })
	return all
}

func TestEvents(t *testing.T) {
	t.Parallel()
	var want any
	if err := json.Unmarshal([]byte(sample), &want); err != nil {
		t.Fatal(err)
	}
	for status, command := range map[string]string{"SUCCEEDED": "true", "FAILED": "false", "STOPPED": "echo holds; while :; do sleep 100; done"} {
		a := newAccount(t, nil)
		a.project("it", command)
		id := a.start("it", func(in *sdk.StartBuildInput) {
			in.EnvironmentVariablesOverride = []types.EnvironmentVariable{{Name: aws.String("A"), Value: aws.String("b")}}
		})
		if status == "STOPPED" {
			a.said(id, "holds")
			if _, err := a.client.StopBuild(t.Context(), &sdk.StopBuildInput{Id: &id}); err != nil {
				t.Fatal(err)
			}
		}
		b := a.ends(id)
		if got := fmt.Sprint(a.heard(2)); got != "[IN_PROGRESS "+status+"]" {
			t.Errorf("%s: the events are %s", status, got)
		}
		last := a.events[1]
		if wrong := lacks(want, last, ""); len(wrong) > 0 {
			t.Errorf("%s: an event lacks %v", status, wrong)
		}
		detail := last["detail"].(map[string]any)
		if last["source"] != "aws.codebuild" || last["detail-type"] != "CodeBuild Build State Change" || detail["build-id"] != *b.Arn ||
			detail["project-name"] != "it" || fmt.Sprint(last["resources"]) != "["+*b.Arn+"]" || last["region"] != "us-east-1" || last["account"] != "000000000000" {
			t.Errorf("%s: an event says %v", status, last)
		}
		if env := fmt.Sprint(detail["additional-information"].(map[string]any)["environment"].(map[string]any)["environment-variables"]); !strings.Contains(env, "name:A") {
			t.Errorf("%s: the variables are %s", status, env)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	a.project("it", "true")
	a.host.Spoil(codebuild.Faults{Twice: true, Reversed: true})
	a.ends(a.start("it", nil))
	if got := fmt.Sprint(a.heard(4)); got != "[SUCCEEDED IN_PROGRESS SUCCEEDED IN_PROGRESS]" {
		t.Errorf("the events are %s", got)
	}
	token := func(in *sdk.StartBuildInput) { in.IdempotencyToken = aws.String("t") }
	a.host.Spoil(codebuild.Faults{Lose: map[string]int{"StartBuild": 1}})
	if out, err := a.tries("it", token); err == nil || code(err) != "" {
		t.Errorf("a lost answer is %+v, %v", out, err)
	}
	b := a.ends(a.start("it", token))
	if *b.BuildNumber != 2 {
		t.Errorf("the repeat of the lost one is number %d", *b.BuildNumber)
	}
	a.host.Spoil(codebuild.Faults{Throttle: map[string]int{"BatchGetBuilds": 1}, Full: true})
	if _, err := a.client.BatchGetBuilds(t.Context(), &sdk.BatchGetBuildsInput{Ids: []string{*b.Id}}); code(err) != "ThrottlingException" {
		t.Errorf("throttled: %v", err)
	}
	a.build(*b.Id)
	if _, err := a.tries("it", nil); code(err) != "AccountLimitExceededException" {
		t.Errorf("full: %v", err)
	}
	if again := a.start("it", token); again != *b.Id {
		t.Errorf("a repeat is no new build, and is %s", again)
	}
	a.host.Spoil(codebuild.Faults{})
	a.ends(a.start("it", nil))
}

// TestClose starts builds for a client that is gone, and closes the endpoint.
func TestClose(t *testing.T) {
	t.Parallel()
	a := newAccount(t, func(d *codebuild.Deps) { d.Running = 1 })
	a.project("it", `trap '' TERM; setsid sh -c 'echo daemon $$; while :; do sleep 100; done' & echo ready $$; while :; do sleep 100; done`)
	id := a.start("it", nil)
	waiting := a.start("it", nil)
	pids := []string{a.said(id, "ready "), a.said(id, "daemon ")}
	if err := a.host.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if isAlive(t, pid) {
			t.Errorf("process %s lives", pid)
		}
	}
	if _, err := a.tries("it", nil); code(err) != "ServiceUnavailableException" {
		t.Errorf("started after the end: %v", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.events); n != 4 || waiting == id {
		t.Errorf("%d events", n)
	}
}

// TestHostileState has a build put something else where its environment is taken up.
func TestHostileState(t *testing.T) {
	t.Parallel()
	a := newAccount(t, nil)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("/\nSTOLEN=1\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.register(codebuild.Project{Name: "it", Buildspec: spec("STOLEN, KEPT", "build",
		`export KEPT=1`,
		`ln -s '`+secret+`' ../state/env; trap - EXIT; kill -9 $$ & wait`,
	) + phaseOf("post_build", `mkfifo ../state/env; trap - EXIT`, `mkdir ../state/env; trap - EXIT`, `echo "at the end ${STOLEN-nothing}"`)})
	b, log := a.runs("it", types.StatusTypeFailed)
	for _, v := range b.ExportedEnvironmentVariables {
		if *v.Name == "STOLEN" && *v.Value != "" {
			t.Error("a build reads what is the server's")
		}
		if *v.Name == "KEPT" && *v.Value != "1" {
			t.Error("what was there is lost")
		}
	}
	if !strings.Contains(log, "at the end nothing\n") {
		t.Errorf("log:\n%s", log)
	}
}
