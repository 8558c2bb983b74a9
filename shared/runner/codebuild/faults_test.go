package codebuild_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	endpoint "runnerhub/infra/codebuild"
	"runnerhub/infra/ministack"
	"runnerhub/infra/template"
	"runnerhub/shared/amazon/amazontest"
	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
	"runnerhub/shared/runner/codebuild"
	"runnerhub/shared/runner/runnertest"
	"runnerhub/shared/secret"
)

const patience = time.Minute

// stage is a site with the server's side of builds, for what only faults show.
type stage struct {
	*testing.T
	*site
	server *runnertest.Server
	driver behind
	events chan string // builds that events were about
}

func newStage(t *testing.T, f *front, change func(*endpoint.Deps)) *stage {
	t.Helper()
	s := newSite(t, f, 0, change)
	events := make(chan string, 100)
	s.listen(func(_ context.Context, id string) { events <- id })
	return &stage{T: t, site: s, server: runnertest.NewServer(t), driver: behind{s.driver(), s.front}, events: events}
}

func (s *stage) job(name string) runner.Job {
	return runner.Job{
		Build: "b-" + name, Log: "l-" + name, Attempt: "a-" + name, Address: s.server.URL, Ticket: secret.New(runnertest.TicketOf(name)), Timeout: time.Minute,
	}
}

// start offers a build of one step, and starts it.
func (s *stage) start(name, run string) string {
	s.Helper()
	s.server.Offer(name, nil, runner.Step{Name: "one", Run: run})
	ref, err := s.driver.Start(s.Context(), s.job(name))
	if err != nil {
		s.Fatalf("Start: %v", err)
	}
	return ref
}

// ends waits for the end of an attempt.
func (s *stage) ends(ref string) runner.State {
	s.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		state, err := s.driver.State(s.Context(), ref)
		if err != nil {
			s.Fatal(err)
		}
		if state.Phase == runner.Ended {
			return state
		}
		if time.Now().After(deadline) {
			s.Fatalf("%s is still %+v", ref, state)
		}
		<-tick.C
	}
}

// heard waits for an event and answers which build it is about.
func (s *stage) heard() string {
	s.Helper()
	select {
	case id := <-s.events:
		return id
	case <-time.After(patience):
		s.Fatal("waited in vain for an event")
		return ""
	}
}

func (s *stage) ran(name string) int {
	n := 0
	for _, l := range s.log(name) {
		if l.Step == "one" && l.Text == "ran" {
			n++
		}
	}
	return n
}

// lostAnswers loses the answers of StartBuild within the life of its token: there is one build, whoever
// asks again.
func lostAnswers(s *stage) {
	s.host.Spoil(endpoint.Faults{Lose: map[string]int{"StartBuild": 2, "BatchGetBuilds": 2, "StopBuild": 2}})
	ref := s.start("some", "echo ran")
	if state := s.ends(ref); state.Result != runner.Succeeded {
		s.Errorf("State = %+v", state)
	}
	if err := s.driver.Stop(s.Context(), ref); err != nil {
		s.Errorf("Stop: %v", err)
	}

	s.host.Spoil(endpoint.Faults{Lose: map[string]int{"StartBuild": 3}})
	s.server.Offer("all", nil, runner.Step{Name: "one", Run: "echo ran"})
	if ref, err := s.driver.Start(s.Context(), s.job("all")); !fault.Is(err, fault.Unknown) {
		s.Fatalf("Start = %q, %v, want %v", ref, err, fault.Unknown)
	}
	ref, err := s.driver.Start(s.Context(), s.job("all"))
	if err != nil {
		s.Fatal(err)
	}
	if state := s.ends(ref); state.Result != runner.Succeeded {
		s.Errorf("State = %+v", state)
	}
	if _, claims, _ := s.server.Last("all"); claims != 1 || s.ran("l-all") != 1 {
		s.Errorf("%d claims, ran %d times", claims, s.ran("l-all"))
	}
}

// bare is a folder of programs for an image that has all that the buildspec needs but one. What sleeps there sleeps
// for no time.
func bare(t *testing.T, without string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bare") // others can get to it, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cat", "chmod", "curl", "date", "env", "gzip", "head", "mkdir", "rm", "sh", "sleep", "uname"} {
		program := name
		if name == "sleep" {
			program = "true"
		}
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		if name != without {
			if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// noAgent is a build whose agent does not begin: its log says why, and nothing else.
func noAgent(want string) func(*stage) {
	return func(s *stage) {
		state := s.ends(s.start("none", "echo ran"))
		if state != (runner.State{Phase: runner.Ended, Result: runner.Errored, Detail: "CodeBuild says FAILED: phase INSTALL: exit status 1"}) {
			s.Errorf("State = %+v", state)
		}
		s.heard() // its beginning; by the time of the next its log is whole
		s.heard()
		log := s.log("l-none")
		if len(log) != 1 || log[0].Step != "" || !strings.HasPrefix(log[0].Text, want) || !strings.HasSuffix(log[0].Text, "not found") || time.Since(log[0].Time).Abs() > time.Hour {
			s.Errorf("the log is %+v", log)
		}
	}
}

// tokenForgotten starts an attempt again when CodeBuild has forgotten its token: there are two builds, and the
// ticket lets one of them run.
func tokenForgotten(s *stage) {
	s.host.Spoil(endpoint.Faults{Lose: map[string]int{"StartBuild": 3}})
	s.server.Offer("two", nil, runner.Step{Name: "one", Run: "echo ran"})
	if _, err := s.driver.Start(s.Context(), s.job("two")); !fault.Is(err, fault.Unknown) {
		s.Fatalf("Start: %v", err)
	}
	s.server.AwaitResult(s.T, "two")
	s.clock.Add(int64(endpoint.TokenLife))
	ref, err := s.driver.Start(s.Context(), s.job("two"))
	if err != nil {
		s.Fatal(err)
	}
	// The build whose answer was lost has ended by now; the second one finds the ticket used.
	if state := s.ends(ref); state.Result != runner.Errored || !strings.Contains(state.Detail, fmt.Sprintf("exit status %d", runner.ExitNotOurs)) {
		s.Errorf("State = %+v", state)
	}
	_, claims, _ := s.server.Last("two")
	if claims != 1 || s.ran("l-two") != 1 {
		s.Errorf("%d claims were looked at, it ran %d times", claims, s.ran("l-two"))
	}
	lost := s.heard()
	for range 3 { // a beginning and an end of each
		s.heard()
	}
	if first, err := s.driver.Event(s.Context(), lost); err != nil || first.Ref == ref || first.Attempt != "a-two" || first.State.Result != runner.Succeeded {
		s.Errorf("the lost one is %+v, %v", first, err)
	}
}

func capacity(s *stage) {
	s.server.Offer("x", nil, runner.Step{Name: "one", Run: "echo ran"})
	for name, faults := range map[string]endpoint.Faults{
		"throttled": {Throttle: map[string]int{"StartBuild": 3}}, "full": {Full: true}, "throttled, then full": {Throttle: map[string]int{"StartBuild": 2}, Full: true},
	} {
		s.host.Spoil(faults)
		if ref, err := s.driver.Start(s.Context(), s.job("x")); !fault.Is(err, fault.RateLimited) || ref != "" {
			s.Errorf("%s: Start = %q, %v", name, ref, err)
		}
	}
	s.host.Spoil(endpoint.Faults{Throttle: map[string]int{"StartBuild": 2, "BatchGetBuilds": 2}})
	ref, err := s.driver.Start(s.Context(), s.job("x"))
	if err != nil {
		s.Fatal(err)
	}
	if state := s.ends(ref); state.Result != runner.Succeeded {
		s.Errorf("State = %+v", state)
	}
	if _, claims, _ := s.server.Last("x"); claims != 1 {
		s.Errorf("%d claims: what was refused was started", claims)
	}
	s.host.Spoil(endpoint.Faults{Throttle: map[string]int{"BatchGetBuilds": 6, "StopBuild": 3}})
	if _, err := s.driver.State(s.Context(), ref); !fault.Is(err, fault.Unavailable) {
		s.Errorf("State throttled: %v", err)
	}
	if _, err := s.driver.Event(s.Context(), ref); !fault.Is(err, fault.Unavailable) {
		s.Errorf("Event throttled: %v", err)
	}
	if err := s.driver.Stop(s.Context(), ref); !fault.Is(err, fault.Unavailable) {
		s.Errorf("Stop throttled: %v", err)
	}
}

// events hears of an end twice, and of the beginning after it.
func events(s *stage) {
	s.host.Spoil(endpoint.Faults{Twice: true, Reversed: true})
	ref := s.start("x", "exit 3")
	s.ends(ref)
	for range 4 {
		arn := s.heard()
		e, err := s.driver.Event(s.Context(), arn)
		want := runner.Event{Build: "b-x", Attempt: "a-x", Ref: ref, State: runner.State{Phase: runner.Ended, Result: runner.Failed}, At: e.At}
		if err != nil || e != want || e.At.IsZero() || !strings.HasPrefix(arn, "arn:aws:codebuild:") {
			s.Errorf("Event(%s) = %+v, %v", arn, e, err)
		}
		if byID, err := s.driver.Event(s.Context(), ref); err != nil || byID != want {
			s.Errorf("by the id it is %+v, %v", byID, err)
		}
	}
	// Somebody presses "Start build" in the console.
	client := sdk.NewFromConfig(ministack.Config(s.address))
	out, err := client.StartBuild(s.Context(), &sdk.StartBuildInput{ProjectName: aws.String(projectName), LogsConfigOverride: &types.LogsConfig{CloudWatchLogs: &types.CloudWatchLogsConfig{
		Status: types.LogsConfigStatusTypeEnabled, GroupName: aws.String(logGroup),
	}}})
	if err != nil {
		s.Fatal(err)
	}
	for _, id := range []string{*out.Build.Id, *out.Build.Arn, projectName + ":nobody", "another:" + strings.TrimPrefix(ref, projectName+":"), "", "x"} {
		if e, err := s.driver.Event(s.Context(), id); !fault.Is(err, fault.NotFound) {
			s.Errorf("Event(%s) = %+v, %v", id, e, err)
		}
	}
	s.ends(*out.Build.Id)
}

// unasked kills a build at once when it is stopped, in case CodeBuild does not ask before: the agent
// says nothing, and the runner does. Another one waits in the queue meanwhile.
func unasked(s *stage) {
	ref := s.start("x", "while :; do sleep 100; done")
	s.server.Await(s.T, "x", "a running step", func(r runner.Report) bool { return len(r.Steps) > 0 && r.Steps[0].State == runner.StepRunning })
	next := s.start("next", "echo ran")
	if state, err := s.driver.State(s.Context(), next); err != nil || state != (runner.State{Phase: runner.Pending}) {
		s.Errorf("one that waits is %+v, %v", state, err)
	}
	if err := s.driver.Stop(s.Context(), ref); err != nil {
		s.Fatal(err)
	}
	if state := s.ends(ref); state.Result != runner.Stopped {
		s.Errorf("State = %+v", state)
	}
	if last, _, _ := s.server.Last("x"); last.Result != "" {
		s.Errorf("the agent had time to say %s", last.Result)
	}
	if state := s.ends(next); state.Result != runner.Succeeded {
		s.Errorf("the next one is %+v", state)
	}
}

// limit lets CodeBuild end a build that does not end by itself.
func limit(s *stage) {
	ref := s.start("x", "while :; do sleep 100; done") // a minute, and CodeBuild adds ten of its short ones
	state := s.ends(ref)
	if state.Result != runner.TimedOut || !strings.Contains(state.Detail, "CodeBuild ended it") {
		s.Errorf("State = %+v", state)
	}
}

// runningEvent asks while a build runs.
func runningEvent(s *stage) {
	ref := s.start("x", "while :; do sleep 100; done")
	s.server.Await(s.T, "x", "a running step", func(r runner.Report) bool { return len(r.Steps) > 0 && r.Steps[0].State == runner.StepRunning })
	e, err := s.driver.Event(s.Context(), ref)
	if err != nil || e.State != (runner.State{Phase: runner.Running}) || time.Since(e.At) > time.Minute {
		s.Errorf("Event = %+v, %v", e, err)
	}
	if err := s.driver.Stop(s.Context(), ref); err != nil {
		s.Fatal(err)
	}
	s.ends(ref)
}

// over is the driver over a service that answers what it is told to.
func over(t *testing.T, answers ...amazontest.Answer) (*codebuild.Runner, *amazontest.Service) {
	t.Helper()
	service := amazontest.Serve(t, answers...)
	r, err := codebuild.New(codebuild.Deps{Config: service.Config(), Project: projectName, LogGroup: logGroup})
	if err != nil {
		t.Fatal(err)
	}
	return r, service
}

func refusal(status int, kind, message string) amazontest.Answer {
	body, _ := json.Marshal(map[string]string{"__type": kind, "message": message})
	return amazontest.Answer{Status: status, Body: string(body)}
}

const theTicket = "tiCket4d8f00c2"

func aJob() runner.Job {
	return runner.Job{Build: "b1", Log: "l1", Attempt: "a1", Address: "https://hub.example.org/", Ticket: secret.New(theTicket), Timeout: 90*time.Second + 1}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	busy := refusal(400, "ThrottlingException", "Rate exceeded")
	lost := amazontest.Answer{Drop: true}
	limit := refusal(400, "AccountLimitExceededException", "Cannot have more than 0 builds in queue for the account")
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		want    fault.Kind
	}{
		"no room":                     {[]amazontest.Answer{limit}, fault.RateLimited},
		"throttled for good":          {[]amazontest.Answer{busy}, fault.RateLimited},
		"lost, then throttled":        {[]amazontest.Answer{lost, busy}, fault.Unknown},
		"lost, then no room":          {[]amazontest.Answer{lost, limit}, fault.Unknown},
		"lost for good":               {[]amazontest.Answer{lost}, fault.Unknown},
		"its own trouble":             {[]amazontest.Answer{refusal(500, "InternalFailure", "try "+theTicket)}, fault.Unknown},
		"a bad job":                   {[]amazontest.Answer{refusal(400, "InvalidInputException", "the value "+theTicket+" is not valid")}, fault.Invalid},
		"no project":                  {[]amazontest.Answer{refusal(400, "ResourceNotFoundException", "Project cannot be found")}, fault.Internal},
		"not allowed":                 {[]amazontest.Answer{refusal(400, "AccessDeniedException", "User is not authorized, said "+theTicket)}, fault.Internal},
		"an answer without a build":   {[]amazontest.Answer{{Body: "{}"}}, fault.Unknown},
		"an answer that is no answer": {[]amazontest.Answer{{Body: theTicket}}, fault.Unknown},
	} {
		r, _ := over(t, test.answers...)
		ref, err := r.Start(t.Context(), aJob())
		if !fault.Is(err, test.want) || ref != "" {
			t.Errorf("%s: Start = %q, %v", name, ref, err)
		}
		message, _ := fault.Public(err)
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err), message} {
			if strings.Contains(text, theTicket) {
				t.Errorf("%s: the ticket is in %s", name, text)
			}
		}
		if test.want != fault.Internal && message == "" {
			t.Errorf("%s: nothing for the caller in %v", name, err)
		}
	}
	config := aws.Config{Region: "us-east-1"}
	if _, err := codebuild.New(codebuild.Deps{Config: config, Project: "p", LogGroup: "g"}); err == nil {
		t.Error("made without credentials")
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	r, service := over(t, amazontest.Answer{Body: `{"build": {"id": "builds:1"}}`})
	image := aJob()
	image.Image = "public.ecr.aws/docker/library/golang:1.26"
	own := aJob()
	own.Image = "aws/codebuild/standard:7.0"
	longest := aJob()
	longest.Timeout = codebuild.MaxTimeout
	large := aJob()
	large.Compute = "2xlarge"
	jobs := []runner.Job{aJob(), image, own, longest, large}
	for _, job := range jobs {
		if ref, err := r.Start(t.Context(), job); err != nil || ref != "builds:1" {
			t.Fatalf("Start = %q, %v", ref, err)
		}
	}
	for i, want := range []string{
		`"timeoutInMinutesOverride":12`,
		`"imageOverride":"public.ecr.aws/docker/library/golang:1.26","imagePullCredentialsTypeOverride":"SERVICE_ROLE"`,
		`"imageOverride":"aws/codebuild/standard:7.0","imagePullCredentialsTypeOverride":"CODEBUILD"`,
		`"timeoutInMinutesOverride":2160`,
		`"computeTypeOverride":"BUILD_GENERAL1_2XLARGE"`,
	} {
		body := service.Requests()[i].Body
		if strings.Contains(body, "computeType") != (jobs[i].Compute != "") {
			t.Errorf("%d: %s", i, body)
		}
		for _, part := range []string{
			want, `"projectName":"builds"`, `"idempotencyToken":"a1"`, `"queuedTimeoutInMinutesOverride":480`,
			`"logsConfigOverride":{"cloudWatchLogs":{"groupName":"/runnerhub/builds","status":"ENABLED","streamName":"l1/a1"}}`,
			`"environmentVariablesOverride":[{"name":"RUNNERHUB_ADDRESS","type":"PLAINTEXT","value":"https://hub.example.org"},` +
				`{"name":"RUNNERHUB_TICKET","type":"PLAINTEXT","value":"` + theTicket + `"},{"name":"RUNNERHUB_BUILD_ID","type":"PLAINTEXT","value":"b1"},` +
				`{"name":"RUNNERHUB_ATTEMPT","type":"PLAINTEXT","value":"a1"}]`,
		} {
			if !strings.Contains(body, part) {
				t.Errorf("%d: %s is not in %s", i, part, body)
			}
		}
	}
	for name, change := range map[string]func(*runner.Job){
		"no build":         func(j *runner.Job) { j.Build = "" },
		"no log":           func(j *runner.Job) { j.Log = "" },
		"a log's odd name": func(j *runner.Job) { j.Log = "a/b" },
		"no attempt":       func(j *runner.Job) { j.Attempt = "" },
		"an odd attempt":   func(j *runner.Job) { j.Attempt = "a:b" },
		"a socket":         func(j *runner.Job) { j.Address = runner.SocketScheme + "/run/hub" },
		"no address":       func(j *runner.Job) { j.Address = "" },
		"no such machine":  func(j *runner.Job) { j.Compute = "tiny" },
		"no ticket":        func(j *runner.Job) { j.Ticket = secret.Text{} },
		"no time":          func(j *runner.Job) { j.Timeout = 0 },
		"too much time":    func(j *runner.Job) { j.Timeout = codebuild.MaxTimeout + 1 },
	} {
		job := aJob()
		change(&job)
		if ref, err := r.Start(t.Context(), job); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: Start = %q, %v", name, ref, err)
		}
	}
	if n := len(service.Requests()); n != len(jobs) {
		t.Errorf("%d requests", n)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	exported := func(result string) string {
		return `"exportedEnvironmentVariables": [{"name": "RUNNERHUB_RESULT", "value": "` + result + `"}]`
	}
	broken := func(phase, status, code, message string) string {
		body, _ := json.Marshal(message)
		return `"phases": [{"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED"}, {"phaseType": "` + phase + `", "phaseStatus": "` + status +
			`", "contexts": [{"statusCode": "` + code + `", "message": ` + string(body) + `}]}, {"phaseType": "COMPLETED"}]`
	}
	command := func(phase string, exit int) string {
		return broken(phase, "FAILED", "COMMAND_EXECUTION_ERROR", fmt.Sprintf("Error while executing command: some script\nwith lines. Reason: exit status %d", exit))
	}
	ended := func(result runner.Result, detail string) runner.State {
		return runner.State{Phase: runner.Ended, Result: result, Detail: detail}
	}
	for _, test := range []struct {
		status, phase, more string
		want                runner.State
	}{
		{"IN_PROGRESS", "SUBMITTED", "", runner.State{Phase: runner.Pending}},
		{"IN_PROGRESS", "QUEUED", "", runner.State{Phase: runner.Pending}},
		{"IN_PROGRESS", "PROVISIONING", "", runner.State{Phase: runner.Pending}},
		{"IN_PROGRESS", "DOWNLOAD_SOURCE", "", runner.State{Phase: runner.Running}},
		{"IN_PROGRESS", "BUILD", "", runner.State{Phase: runner.Running}},
		{"IN_PROGRESS", "FINALIZING", exported("SUCCESSFUL"), runner.State{Phase: runner.Running}},
		{"SUCCEEDED", "COMPLETED", exported("SUCCESSFUL"), ended(runner.Succeeded, "")},
		{"SUCCEEDED", "COMPLETED", "", ended(runner.Succeeded, "")},
		{"FAILED", "COMPLETED", exported("FAILED") + "," + command("BUILD", 1), ended(runner.Failed, "")},
		{"FAILED", "COMPLETED", exported("TIMEOUT") + "," + command("BUILD", 2), ended(runner.TimedOut, "")},
		{"FAILED", "COMPLETED", exported("STOPPED") + "," + command("BUILD", 2), ended(runner.Stopped, "")},
		{"FAILED", "COMPLETED", exported("ERROR") + "," + command("BUILD", 2), ended(runner.Errored, "the agent could not prepare the build")},
		{"FAILED", "COMPLETED", exported("") + "," + command("BUILD", 1), ended(runner.Failed, "")},
		{"FAILED", "COMPLETED", exported("nonsense") + "," + command("BUILD", 3), ended(runner.Errored, "CodeBuild says FAILED: phase BUILD: exit status 3")},
		{"FAILED", "COMPLETED", command("INSTALL", 1), ended(runner.Errored, "CodeBuild says FAILED: phase INSTALL: exit status 1")},
		{"FAILED", "COMPLETED", broken("PROVISIONING", "CLIENT_ERROR", "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE", "Unable to pull image "+theTicket), ended(runner.Errored, "CodeBuild says FAILED: phase PROVISIONING: Unable to pull image [secret]")},
		{"FAILED", "COMPLETED", broken("PROVISIONING", "FAULT", "INTERNAL_SERVICE_ERROR", ""), ended(runner.Errored, "CodeBuild says FAILED: phase PROVISIONING: INTERNAL_SERVICE_ERROR")},
		{"FAULT", "COMPLETED", "", ended(runner.Errored, "CodeBuild says FAULT")},
		{"STOPPED", "COMPLETED", broken("BUILD", "STOPPED", "", ""), ended(runner.Stopped, "")},
		{"STOPPED", "COMPLETED", exported("SUCCESSFUL"), ended(runner.Succeeded, "")}, // it came too late
		{"TIMED_OUT", "COMPLETED", broken("BUILD", "TIMED_OUT", "BUILD_TIMED_OUT", "Build has timed out. "), ended(runner.TimedOut, "CodeBuild ended it: the agent did not end by itself in time")},
		{"TIMED_OUT", "COMPLETED", broken("QUEUED", "TIMED_OUT", "BUILD_TIMED_OUT", "Build has timed out. "), ended(runner.Errored, "CodeBuild let it wait past its limit")},
	} {
		body := `{"builds": [{"id": "builds:1", "buildStatus": "` + test.status + `", "currentPhase": "` + test.phase + `",
			"environment": {"environmentVariables": [{"name": "RUNNERHUB_TICKET", "value": "` + theTicket + `"}]}`
		if test.more != "" {
			body += "," + test.more
		}
		r, _ := over(t, amazontest.Answer{Body: body + "}]}"})
		if state, err := r.State(t.Context(), "builds:1"); err != nil || state != test.want {
			t.Errorf("%s in %s with %s: State = %+v, %v", test.status, test.phase, test.more, state, err)
		}
	}
	r, service := over(t, amazontest.Answer{Body: `{"builds": [], "buildsNotFound": ["builds:1"]}`})
	for _, ref := range []string{"builds:1", "another:1", ""} {
		if state, err := r.State(t.Context(), ref); err != nil || state.Phase != runner.Lost {
			t.Errorf("State(%q) = %+v, %v", ref, state, err)
		}
	}
	if n := len(service.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestStops(t *testing.T) {
	t.Parallel()
	build := func(status string) amazontest.Answer {
		return amazontest.Answer{Body: `{"builds": [{"id": "builds:1", "buildStatus": "` + status + `", "currentPhase": "BUILD"}]}`}
	}
	odd := refusal(400, "InvalidInputException", "the build cannot be stopped")
	for name, test := range map[string]struct {
		answers []amazontest.Answer
		want    fault.Kind
		ok      bool
	}{
		"stopped":           {answers: []amazontest.Answer{{Body: `{"build": {}}`}}, ok: true},
		"lost, then not":    {answers: []amazontest.Answer{{Drop: true}, {Body: `{"build": {}}`}}, ok: true},
		"unknown":           {answers: []amazontest.Answer{refusal(400, "ResourceNotFoundException", "no")}, ok: true},
		"refused, as over":  {answers: []amazontest.Answer{odd, build("SUCCEEDED")}, ok: true},
		"refused, and runs": {answers: []amazontest.Answer{odd, build("IN_PROGRESS")}, want: fault.Invalid},
		"lost for good":     {answers: []amazontest.Answer{{Drop: true}}, want: fault.Unknown},
		"not allowed":       {answers: []amazontest.Answer{refusal(400, "AccessDeniedException", "no")}, want: fault.Internal},
	} {
		r, _ := over(t, test.answers...)
		if err := r.Stop(t.Context(), "builds:1"); (err == nil) != test.ok || (err != nil && !fault.Is(err, test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, service := over(t, odd)
	if err := r.Stop(t.Context(), "a-nobody"); err != nil || len(service.Requests()) != 0 {
		t.Errorf("Stop of what is none of ours: %v, %d requests", err, len(service.Requests()))
	}
}

// TestBuildspec compares what the template gives the project with what these tests run.
func TestBuildspec(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../../infra/aws/buildspec.yml")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := template.Parse("../../..")
	if err != nil {
		t.Fatal(err)
	}
	stack, err := parsed.Resolve(template.Site{Name: "x", Region: "us-east-1", Account: "000000000000"})
	if err != nil {
		t.Fatal(err)
	}
	if len(stack.Projects) != 1 || stack.Projects[0].BuildSpec != string(want) {
		t.Errorf("infra/aws/buildspec.yml and the project in the template differ: %+v", stack.Projects)
	}
}
