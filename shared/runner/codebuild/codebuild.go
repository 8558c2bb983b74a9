// Package codebuild is the runner on AWS CodeBuild: each attempt is a build of one project,
// whose buildspec (infra/aws/buildspec.yml) fetches the agent and runs it. The driver holds no
// state, so any number of processes may use the same project.
//
// CodeBuild's events are hints that come late, twice and out of order: whoever gets one
// asks Event, which looks at the build itself. The ticket stands in the build's environment,
// where whoever may read builds of the account finds it; it is spent once the agent has claimed
// the build, and dead when the build ends. It appears in no error.
package codebuild

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/codebuild"
	"github.com/aws/aws-sdk-go-v2/service/codebuild/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
	"runnerhub/shared/secret"
)

// Variables of a build's environment beside those of package runner. They are how an
// event of CodeBuild leads back to the attempt; the agent does not need them.
const (
	BuildVariable   = "RUNNERHUB_BUILD_ID"
	AttemptVariable = "RUNNERHUB_ATTEMPT"
	// ResultVariable is exported by the buildspec: the agent's verdict in one word.
	ResultVariable = "RUNNERHUB_RESULT"
)

const (
	// MaxTimeout is the longest a build may take: CodeBuild ends it then.
	MaxTimeout = 2160 * time.Minute
	// backstop is how much longer than its own limit an agent may take, in minutes: to begin, and
	// to report its end to a server that is away.
	backstop = 10
	// queuedTimeout is as long as CodeBuild lets a build wait, in minutes. No capacity is no error.
	queuedTimeout = 480
	// maxAttempt is the longest id of an attempt.
	maxAttempt = 128
	// maxDetail cuts what CodeBuild says of an end, in bytes.
	maxDetail = 300
)

var (
	attemptPattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
	exitPattern    = regexp.MustCompile(`exit status (\d+)`)
)

// Deps is what a Runner needs.
type Deps struct {
	Config  aws.Config
	Project string // name of the build project
	// LogGroup is where builds write their output, each attempt into one stream whose name
	// begins with "<log>/<attempt>/". Empty for who starts none.
	LogGroup string
}

// Runner implements runner.Runner. References are the ids of CodeBuild.
type Runner struct {
	deps   Deps
	client *codebuild.Client
}

var _ runner.Runner = (*Runner)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Runner, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.Project == "" {
		return nil, errors.New("runner/codebuild: no credentials, region or project")
	}
	client := codebuild.NewFromConfig(deps.Config, func(o *codebuild.Options) { o.Retryer = aws.NopRetryer{} })
	return &Runner{deps: deps, client: client}, nil
}

// calls leaves StartBuild more time than services of data need.
func calls() amazon.Calls { return amazon.Calls{Attempts: 3, Each: 5 * time.Second} }

// Start implements runner.Runner. CodeBuild knows a repeat by the attempt for five minutes;
// after that, the same attempt starts a second build, which finds the ticket claimed.
func (r *Runner) Start(ctx context.Context, job runner.Job) (string, error) {
	input, err := r.input(job)
	if err != nil {
		return "", err
	}
	var out *codebuild.StartBuildOutput
	err = calls().Do(ctx, func(ctx context.Context) error {
		var err error
		out, err = r.client.StartBuild(ctx, input)
		return err
	})
	if err != nil {
		return "", hide(started(err), job.Ticket)
	}
	if out.Build == nil || aws.ToString(out.Build.Id) == "" {
		return "", fault.New(fault.Unknown, "CodeBuild did not say which build it started")
	}
	return *out.Build.Id, nil
}

// input is the request for a job, or what is wrong with the job.
func (r *Runner) input(job runner.Job) (*codebuild.StartBuildInput, error) {
	if r.deps.LogGroup == "" {
		return nil, errors.New("starting a build: this runner was opened without a log group")
	}
	if err := buildlog.CheckName(job.Log); err != nil {
		return nil, err
	}
	address, err := url.Parse(job.Address)
	switch {
	case len(job.Attempt) > maxAttempt || !attemptPattern.MatchString(job.Attempt): // the number in the pattern would cost each start of a process
		return nil, fault.New(fault.Invalid, "the attempt's id is not of up to 128 letters, digits, dots, dashes and underscores")
	case job.Build == "":
		return nil, fault.New(fault.Invalid, "a job needs a build")
	case err != nil || address.Host == "" || (address.Scheme != "http" && address.Scheme != "https"):
		return nil, fault.New(fault.Invalid, "builds on CodeBuild reach the server by http or https only")
	case job.Ticket.Empty() || job.Timeout <= 0:
		return nil, fault.New(fault.Invalid, "a job needs ticket and timeout")
	case job.Compute != "" && !slices.Contains(types.ComputeType("").Values(), compute(job.Compute)):
		return nil, fault.New(fault.Invalid, "CodeBuild has no machine of the size %.20q", job.Compute)
	case job.Timeout > MaxTimeout:
		return nil, fault.New(fault.Invalid, "a build on CodeBuild may take %d hours, not %v", MaxTimeout/time.Hour, job.Timeout)
	}
	minutes := int32((job.Timeout+time.Minute-1)/time.Minute) + backstop
	input := &codebuild.StartBuildInput{
		ProjectName:                    &r.deps.Project,
		ComputeTypeOverride:            compute(job.Compute),
		IdempotencyToken:               &job.Attempt,
		TimeoutInMinutesOverride:       aws.Int32(min(minutes, int32(MaxTimeout/time.Minute))),
		QueuedTimeoutInMinutesOverride: aws.Int32(queuedTimeout),
		LogsConfigOverride: &types.LogsConfig{CloudWatchLogs: &types.CloudWatchLogsConfig{
			Status: types.LogsConfigStatusTypeEnabled, GroupName: &r.deps.LogGroup, StreamName: aws.String(job.Log + "/" + job.Attempt),
		}},
	}
	for _, v := range [][2]string{
		{runner.AddressVariable, strings.TrimRight(job.Address, "/")},
		{runner.TicketVariable, job.Ticket.Reveal()},
		{BuildVariable, job.Build},
		{AttemptVariable, job.Attempt},
	} {
		input.EnvironmentVariablesOverride = append(input.EnvironmentVariablesOverride, types.EnvironmentVariable{
			Name: &v[0], Value: &v[1], Type: types.EnvironmentVariableTypePlaintext,
		})
	}
	if job.Image != "" {
		input.ImageOverride = &job.Image
		// CodeBuild's own images are pulled with its own credentials, and no others are.
		input.ImagePullCredentialsTypeOverride = types.ImagePullCredentialsTypeServiceRole
		if strings.HasPrefix(job.Image, "aws/codebuild/") {
			input.ImagePullCredentialsTypeOverride = types.ImagePullCredentialsTypeCodebuild
		}
	}
	return input, nil
}

// compute is CodeBuild's name of a size of machine; without one, that of the project counts.
func compute(size string) types.ComputeType {
	if size == "" {
		return ""
	}
	return types.ComputeType("BUILD_GENERAL1_" + strings.ToUpper(size))
}

// started gives the error of StartBuild its kind. Throttling that lasts is no capacity, unless an
// attempt before it may have started the build.
func started(err error) error {
	var f *amazon.Failure
	if errors.As(err, &f) && f.Verdict == amazon.Busy && !f.Doubt && amazon.Code(err) != "" {
		return fault.Wrap(fault.RateLimited, err, "CodeBuild takes no more requests at the moment")
	}
	return amazon.Fault(err, true, kindOf, "CodeBuild did not start the build")
}

// hide takes the ticket out of an error: a service may repeat what it refuses.
func hide(err error, ticket secret.Text) error {
	if !strings.Contains(err.Error(), ticket.Reveal()) {
		return err
	}
	message, _ := fault.Public(err)
	return fault.Wrap(fault.KindOf(err), errors.New(strings.ReplaceAll(err.Error(), ticket.Reveal(), secret.Mask)), "%s", message)
}

// kindOf is the table of CodeBuild's refusals. A missing project is a fault of the installation.
func kindOf(code string) fault.Kind {
	switch code {
	case "AccountLimitExceededException":
		return fault.RateLimited
	case "InvalidInputException":
		return fault.Invalid
	}
	return fault.Internal
}

// Stop implements runner.Runner. It asks; the build has ended when State says so. Who may stop builds has to be allowed to look
// at them as well.
func (r *Runner) Stop(ctx context.Context, ref string) error {
	if !r.ours(ref) {
		return nil
	}
	err := calls().Do(ctx, func(ctx context.Context) error {
		_, err := r.client.StopBuild(ctx, &codebuild.StopBuildInput{Id: &ref})
		return err
	})
	switch amazon.Code(err) {
	case "ResourceNotFoundException":
		return nil
	case "InvalidInputException": // perhaps because there is nothing to stop
		if state, asked := r.State(ctx, ref); asked == nil && (state.Phase == runner.Ended || state.Phase == runner.Lost) {
			return nil
		}
	}
	return amazon.Fault(err, true, kindOf, "CodeBuild did not stop the build")
}

// State implements runner.Runner.
func (r *Runner) State(ctx context.Context, ref string) (runner.State, error) {
	b, err := r.build(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		return runner.State{Phase: runner.Lost, Detail: "CodeBuild knows no such build"}, nil
	}
	if err != nil {
		return runner.State{}, err
	}
	return stateOf(b), nil
}

// Event answers what there is to say of a build of CodeBuild, named by its id or ARN as its
// events name it. One that is not an attempt of ours is fault.NotFound. The state is the
// present one, whatever the event said.
func (r *Runner) Event(ctx context.Context, id string) (runner.Event, error) {
	if _, after, isARN := strings.Cut(id, ":build/"); isARN {
		id = after
	}
	b, err := r.build(ctx, id)
	if err != nil {
		return runner.Event{}, err
	}
	e := runner.Event{Build: variable(b, BuildVariable), Attempt: variable(b, AttemptVariable), Ref: id, State: stateOf(b), At: aws.ToTime(b.StartTime)}
	if e.Build == "" || e.Attempt == "" {
		return runner.Event{}, fault.New(fault.NotFound, "the build %.200q is no attempt of ours", id)
	}
	for _, p := range b.Phases {
		if p.StartTime != nil && p.StartTime.After(e.At) {
			e.At = *p.StartTime
		}
	}
	if b.EndTime != nil {
		e.At = *b.EndTime
	}
	return e, nil
}

// ours reports whether an id can be that of a build of the project.
func (r *Runner) ours(id string) bool { return strings.HasPrefix(id, r.deps.Project+":") }

// build looks a build up.
func (r *Runner) build(ctx context.Context, id string) (types.Build, error) {
	if !r.ours(id) {
		return types.Build{}, fault.New(fault.NotFound, "the build %.200q is none of the project %s", id, r.deps.Project)
	}
	var out *codebuild.BatchGetBuildsOutput
	err := calls().Do(ctx, func(ctx context.Context) error {
		var err error
		out, err = r.client.BatchGetBuilds(ctx, &codebuild.BatchGetBuildsInput{Ids: []string{id}})
		return err
	})
	if err != nil {
		return types.Build{}, amazon.Fault(err, false, kindOf, "CodeBuild did not say how the build is")
	}
	if len(out.Builds) == 0 {
		return types.Build{}, fault.New(fault.NotFound, "CodeBuild knows no build %.200q", id)
	}
	return out.Builds[0], nil
}

func variable(b types.Build, name string) string {
	if b.Environment != nil {
		for _, v := range b.Environment.EnvironmentVariables {
			if aws.ToString(v.Name) == name {
				return aws.ToString(v.Value)
			}
		}
	}
	return ""
}

// logName is the name of the build's log, which is for nobody to see.
func logName(b types.Build) string {
	if b.Logs == nil || b.Logs.CloudWatchLogs == nil {
		return ""
	}
	name, _, _ := strings.Cut(aws.ToString(b.Logs.CloudWatchLogs.StreamName), "/")
	return name
}

// stateOf reads a build. The agent's verdict goes before CodeBuild's, which tells no more than success from failure.
func stateOf(b types.Build) runner.State {
	phase := types.BuildPhaseType(aws.ToString(b.CurrentPhase))
	if b.BuildStatus == types.StatusTypeInProgress {
		switch phase {
		case "", types.BuildPhaseTypeSubmitted, types.BuildPhaseTypeQueued, types.BuildPhaseTypeProvisioning:
			return runner.State{Phase: runner.Pending}
		}
		return runner.State{Phase: runner.Running}
	}
	ended := func(result runner.Result, detail string) runner.State {
		for _, hidden := range []string{variable(b, runner.TicketVariable), logName(b)} {
			if hidden != "" {
				detail = strings.ReplaceAll(detail, hidden, secret.Mask)
			}
		}
		return runner.State{Phase: runner.Ended, Result: result, Detail: strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "")}
	}
	switch verdict(b) {
	case runner.VerdictSuccessful:
		return ended(runner.Succeeded, "")
	case runner.VerdictFailed:
		return ended(runner.Failed, "")
	case runner.VerdictTimeout:
		return ended(runner.TimedOut, "")
	case runner.VerdictStopped:
		return ended(runner.Stopped, "")
	case runner.VerdictError:
		return ended(runner.Errored, "the agent could not prepare the build")
	}
	broken, detail := failure(b)
	switch b.BuildStatus {
	case types.StatusTypeSucceeded:
		return ended(runner.Succeeded, "")
	case types.StatusTypeStopped:
		return ended(runner.Stopped, "")
	case types.StatusTypeTimedOut:
		if broken == types.BuildPhaseTypeQueued {
			return ended(runner.Errored, "CodeBuild let it wait past its limit")
		}
		return ended(runner.TimedOut, "CodeBuild ended it: the agent did not end by itself in time")
	case types.StatusTypeFailed:
		// The buildspec ends its build phase with the agent's exit code.
		if code := exitPattern.FindStringSubmatch(detail); code != nil && broken == types.BuildPhaseTypeBuild && code[1] == fmt.Sprint(runner.ExitFailed) {
			return ended(runner.Failed, "")
		}
	}
	return ended(runner.Errored, "CodeBuild says "+strings.TrimSuffix(string(b.BuildStatus)+": "+detail, ": "))
}

// verdict is what the agent left for the runner, if it is one.
func verdict(b types.Build) runner.Verdict {
	for _, v := range b.ExportedEnvironmentVariables {
		if aws.ToString(v.Name) == ResultVariable {
			return runner.Verdict(strings.TrimSpace(aws.ToString(v.Value)))
		}
	}
	return ""
}

// failure answers the phase that did not succeed, and what CodeBuild says of it: the reason
// where there is one, without the command before it, which is a script.
func failure(b types.Build) (types.BuildPhaseType, string) {
	for _, p := range b.Phases {
		if p.PhaseStatus == "" || p.PhaseStatus == types.StatusTypeSucceeded || p.PhaseStatus == types.StatusTypeInProgress {
			continue
		}
		words := []string{"phase " + string(p.PhaseType)}
		for _, c := range p.Contexts {
			message := aws.ToString(c.Message)
			if i := strings.LastIndex(message, "Reason: "); i >= 0 {
				message = message[i+len("Reason: "):]
			}
			words = append(words, strings.TrimSpace(cmp.Or(strings.TrimSpace(message), aws.ToString(c.StatusCode))))
		}
		return p.PhaseType, strings.Join(words, ": ")
	}
	return "", ""
}
