package codebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Statuses of builds and phases.
const (
	inProgress = "IN_PROGRESS"
	succeeded  = "SUCCEEDED"
	failed     = "FAILED"
	stopped    = "STOPPED"
	timedOut   = "TIMED_OUT"
	fault      = "FAULT"
)

// maxState is the largest environment in bytes that one command leaves to the next.
const maxState = 1 << 20

// wrapper runs a command and leaves folder and environment behind, however the command ends.
const wrapper = `_codebuild_command=$1 _codebuild_state=$2
set --
trap '_codebuild_code=$?; { pwd; env -0; } >"$_codebuild_state"; exit "$_codebuild_code"' EXIT
eval "$_codebuild_command"`

// build is one build. What follows the empty line is guarded by Host.mu once it runs.
type build struct {
	host                   *Host
	project                Project
	spec                   buildspec
	uuid, id, arn          string
	number                 int64
	variables              []Variable
	image, credentials     string
	compute                string // type of the machine
	timeout, queuedTimeout int    // minutes
	group, prefix, stream  string
	started                time.Time
	ctx                    context.Context // ends when the build is stopped, and with the host
	cancel                 context.CancelCauseFunc
	output                 *output
	place                  *place
	heldBack               []byte // its first event, when that comes last

	status   string
	complete bool
	ended    time.Time
	phases   []phase
	exported []wireVariable
}

// phase is one phase of a build; its status is empty while it lasts.
type phase struct {
	kind, status string
	begun, ended time.Time
	contexts     []wireContext
}

// begin ends the phase that there is, if it lasts, and begins another. Lock held.
func (b *build) begin(kind string, now time.Time) {
	b.close(succeeded, now)
	b.phases = append(b.phases, phase{kind: kind, begun: now})
}

// close ends the phase that there is, if it lasts. Lock held.
func (b *build) close(status string, now time.Time, contexts ...wireContext) {
	if len(b.phases) == 0 {
		return
	}
	if last := &b.phases[len(b.phases)-1]; last.status == "" {
		last.status, last.ended, last.contexts = status, now, contexts
	}
}

// enter begins a phase.
func (b *build) enter(kind string) {
	b.host.mu.Lock()
	defer b.host.mu.Unlock()
	b.begin(kind, b.host.deps.Now())
}

// leave ends the phase.
func (b *build) leave(status string, contexts ...wireContext) {
	b.host.mu.Lock()
	defer b.host.mu.Unlock()
	b.close(status, b.host.deps.Now(), contexts...)
}

// run is the life of a build.
func (b *build) run() {
	defer b.cancel(nil)
	h := b.host
	h.announce(b)
	b.enter("QUEUED")
	queued, done := context.WithTimeoutCause(b.ctx, time.Duration(b.queuedTimeout)*h.deps.Minute, errQueuedOut)
	err := h.slot(queued)
	done()
	if err != nil {
		b.end(b.cutOff(err))
		return
	}
	ctx, done := context.WithTimeoutCause(b.ctx, time.Duration(b.timeout)*h.deps.Minute, errTimedOut)
	defer done()
	b.enter("PROVISIONING")
	b.output = newOutput(h, b.group, b.stream)
	status := fault
	b.place, err = h.newPlace(b.uuid)
	if err == nil {
		err = b.output.open()
	}
	if err == nil {
		b.enter("DOWNLOAD_SOURCE")
		b.output.say("Phase is DOWNLOAD_SOURCE")
		b.output.say("CODEBUILD_SRC_DIR=%s", b.place.source())
		status = b.perform(ctx)
	} else {
		h.deps.Log.Error("prepare a build", "build", b.id, "error", err)
		b.leave(fault, wireContext{"INTERNAL_SERVICE_ERROR", err.Error()})
	}
	if b.place != nil {
		if err := b.place.clear(); err != nil {
			h.deps.Log.Error("clear up after a build", "build", b.id, "error", err)
		}
	}
	b.output.close()
	if h.slots != nil {
		<-h.slots
	}
	b.end(status)
}

// slot waits until the build may run.
func (h *Host) slot(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if h.slots == nil {
		return nil
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cutOff ends the phase that there is for a reason of no command, and answers the
// build's status.
func (b *build) cutOff(err error) string {
	switch {
	case errors.Is(err, errStopped):
		b.leave(stopped)
		return stopped
	case errors.Is(err, errTimedOut):
		b.leave(timedOut, wireContext{"BUILD_TIMED_OUT", "Build has timed out. "})
		return timedOut
	case errors.Is(err, errQueuedOut):
		b.leave(timedOut, wireContext{"BUILD_TIMED_OUT", "Build has timed out while it was queued. "})
		return timedOut
	}
	b.leave(fault, wireContext{"INTERNAL_SERVICE_ERROR", err.Error()})
	return fault
}

// end is the last act.
func (b *build) end(status string) {
	h := b.host
	h.mu.Lock()
	now := h.deps.Now()
	b.begin("COMPLETED", now)
	b.status, b.complete, b.ended = status, true, now
	h.mu.Unlock()
	h.announce(b)
}

// perform runs the commands and answers the build's status. The phases go as AWS documents: after one that failed
// before the build, nothing else is run; POST_BUILD is run whatever became of BUILD.
func (b *build) perform(ctx context.Context) string {
	env := b.environment()
	folder := b.place.source()
	result := succeeded
	for _, p := range []struct {
		kind     string
		commands []string
		goesOn   bool // after its failure
	}{
		{"INSTALL", b.spec.Phases.Install.Commands, false},
		{"PRE_BUILD", b.spec.Phases.PreBuild.Commands, false},
		{"BUILD", b.spec.Phases.Build.Commands, true},
		{"POST_BUILD", b.spec.Phases.PostBuild.Commands, true},
	} {
		b.enter(p.kind)
		b.output.say("Entering phase %s", p.kind)
		status := succeeded
		var contexts []wireContext
		for _, command := range p.commands {
			b.output.say("Running command %s", command)
			code, err := b.command(ctx, command, &folder, &env)
			if err != nil {
				return b.cutOff(err)
			}
			if code != 0 {
				b.output.say("Command did not exit successfully %s exit status %d", command, code)
				status = failed
				contexts = []wireContext{{"COMMAND_EXECUTION_ERROR", fmt.Sprintf("Error while executing command: %s. Reason: exit status %d", command, code)}}
				break
			}
		}
		b.output.say("Phase complete: %s State: %s", p.kind, status)
		b.leave(status, contexts...)
		if status == failed {
			result = failed
			setVariable(&env, "CODEBUILD_BUILD_SUCCEEDING", "0")
			if !p.goesOn {
				break
			}
		}
	}
	b.export(env)
	if result == succeeded {
		b.enter("UPLOAD_ARTIFACTS")
	}
	b.enter("FINALIZING")
	return result
}

// environment is all that the first command finds.
func (b *build) environment() []string {
	h := b.host
	env := []string{
		"PATH=" + h.deps.Path,
		"HOME=" + b.place.home(),
		"AWS_REGION=" + h.deps.Region,
		"AWS_DEFAULT_REGION=" + h.deps.Region,
		"CODEBUILD_CI=true",
		"CODEBUILD_BUILD_ARN=" + b.arn,
		"CODEBUILD_BUILD_ID=" + b.id,
		"CODEBUILD_BUILD_IMAGE=" + b.image,
		"CODEBUILD_BUILD_NUMBER=" + strconv.FormatInt(b.number, 10),
		"CODEBUILD_BUILD_SUCCEEDING=1",
		"CODEBUILD_INITIATOR=" + initiator,
		"CODEBUILD_LOG_PATH=" + b.stream,
		"CODEBUILD_PROJECT_ARN=" + strings.Replace(strings.TrimSuffix(b.arn, ":"+b.uuid), ":build/", ":project/", 1),
		"CODEBUILD_SRC_DIR=" + b.place.source(),
		"CODEBUILD_START_TIME=" + strconv.FormatInt(b.started.UnixMilli(), 10),
	}
	for _, v := range b.variables {
		setVariable(&env, v.Name, v.Value)
	}
	return env
}

func setVariable(env *[]string, name, value string) {
	for i, e := range *env {
		if strings.HasPrefix(e, name+"=") {
			(*env)[i] = name + "=" + value
			return
		}
	}
	*env = append(*env, name+"="+value)
}

// export keeps the values of the exported variables.
func (b *build) export(env []string) {
	b.host.mu.Lock()
	defer b.host.mu.Unlock()
	for _, name := range b.spec.Env.Exported {
		v := wireVariable{Name: name}
		for _, e := range env {
			if value, ok := strings.CutPrefix(e, name+"="); ok {
				v.Value = value
			}
		}
		b.exported = append(b.exported, v)
	}
}

// command runs one command in a shell of its own, in the folder and with the environment
// that the one before left, and answers its exit code. An error is a build that ended otherwise.
func (b *build) command(ctx context.Context, command string, folder *string, env *[]string) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	state := b.place.state()
	cmd := exec.Command("/bin/sh", "-c", wrapper, "/codebuild/output/tmp/script.sh", command, state)
	cmd.Dir, cmd.Env = *folder, *env
	cmd.Stdout, cmd.Stderr = b.output.file(), b.output.file()
	cmd.SysProcAttr = b.place.attributes()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start a shell: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		b.place.endGroup(cmd.Process.Pid, b.grace(ctx), ended)
		return 0, context.Cause(ctx)
	}
	// What a shell could not leave, because it was killed or its folder is gone, stays as it was.
	if left, err := readState(state, b.place.uid); err == nil {
		if at, rest, ok := bytes.Cut(left, []byte("\n")); ok && filepath.IsAbs(string(at)) {
			*folder, *env = string(at), splitEnvironment(rest)
		}
	}
	if err := os.Remove(state); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("take up a command's environment: %w", err)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exitCode(exit), nil
	}
	return 0, fmt.Errorf("wait for a shell: %w", err)
}

// grace is the time to end by itself: none when the endpoint closes.
func (b *build) grace(ctx context.Context) time.Duration {
	if errors.Is(context.Cause(ctx), errClosed) {
		return 0
	}
	return b.host.deps.Grace
}

// splitEnvironment reads what `env -0` wrote.
func splitEnvironment(body []byte) []string {
	var env []string
	for e := range bytes.SplitSeq(body, []byte{0}) {
		if len(e) > 0 && !bytes.HasPrefix(e, []byte("_codebuild_")) {
			env = append(env, string(e))
		}
	}
	return env
}

// initiator is who starts all builds.
const initiator = "runnerhub"

// shown is the build as callers see it. Lock held.
func (b *build) shown() wireBuild {
	w := wireBuild{
		ID: b.id, ARN: b.arn, BuildNumber: b.number, StartTime: epoch(b.started), BuildStatus: b.status, BuildComplete: b.complete,
		ProjectName: b.project.Name, Source: map[string]string{"type": "NO_SOURCE", "buildspec": b.project.Buildspec}, Artifacts: map[string]string{"location": ""},
		Environment: wireEnvironment{
			Type: b.project.Type, Image: b.image, ComputeType: b.compute, ImagePullCredentialsType: b.credentials,
			EnvironmentVariables: []wireVariable{},
		},
		Logs: wireLogsLocation{
			GroupName: b.group, StreamName: b.stream,
			CloudWatchLogs: wireCloudWatchLogs{Status: "ENABLED", GroupName: b.group, StreamName: b.prefix},
		},
		TimeoutInMinutes: b.timeout, QueuedTimeoutInMinutes: b.queuedTimeout, Initiator: initiator,
		ExportedEnvironmentVariables: b.exported,
	}
	for _, v := range b.variables {
		w.Environment.EnvironmentVariables = append(w.Environment.EnvironmentVariables, wireVariable{v.Name, v.Value, "PLAINTEXT"})
	}
	for _, p := range b.phases {
		w.CurrentPhase = p.kind
		out := wirePhase{PhaseType: p.kind, PhaseStatus: p.status, StartTime: epoch(p.begun), Contexts: p.contexts}
		if p.status != "" {
			seconds := int64(p.ended.Sub(p.begun) / time.Second)
			out.EndTime, out.DurationInSeconds = (*epoch)(&p.ended), &seconds
		}
		w.Phases = append(w.Phases, out)
	}
	if b.complete {
		w.EndTime = (*epoch)(&b.ended)
	}
	return w
}
