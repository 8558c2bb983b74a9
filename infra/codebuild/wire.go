package codebuild

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxRequest is the longest request in bytes.
const maxRequest = 1 << 20

// refusal is an error that the caller sees: its type is what the SDK goes by.
type refusal struct {
	kind, message string
}

func (r *refusal) Error() string { return r.kind + ": " + r.message }

func refuse(kind, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

// Kinds of refusals.
const (
	invalidInput = "InvalidInputException"
	notFound     = "ResourceNotFoundException"
	accountLimit = "AccountLimitExceededException"
	throttling   = "ThrottlingException"
)

// epoch is a time as AWS JSON has it: seconds, with three places.
type epoch time.Time

// MarshalJSON implements json.Marshaler.
func (e epoch) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Time(e).UnixMilli())/1000, 'f', 3, 64), nil
}

// What goes over the wire: of each shape, the members that are used.
type (
	startBuildInput struct {
		ProjectName                      string         `json:"projectName"`
		IdempotencyToken                 string         `json:"idempotencyToken"`
		EnvironmentVariablesOverride     []wireVariable `json:"environmentVariablesOverride"`
		ImageOverride                    string         `json:"imageOverride"`
		ComputeTypeOverride              string         `json:"computeTypeOverride"`
		ImagePullCredentialsTypeOverride string         `json:"imagePullCredentialsTypeOverride"`
		LogsConfigOverride               *wireLogs      `json:"logsConfigOverride"`
		TimeoutInMinutesOverride         *int           `json:"timeoutInMinutesOverride"`
		QueuedTimeoutInMinutesOverride   *int           `json:"queuedTimeoutInMinutesOverride"`
	}
	wireLogs struct {
		CloudWatchLogs *wireCloudWatchLogs `json:"cloudWatchLogs,omitempty"`
	}
	wireCloudWatchLogs struct {
		Status     string `json:"status"`
		GroupName  string `json:"groupName,omitempty"`
		StreamName string `json:"streamName,omitempty"`
	}
	wireVariable struct {
		Name  string `json:"name"`
		Value string `json:"value"`
		Type  string `json:"type,omitempty"`
	}
	buildOutput struct {
		Build wireBuild `json:"build"`
	}
	batchGetBuildsInput struct {
		IDs []string `json:"ids"`
	}
	batchGetBuildsOutput struct {
		Builds         []wireBuild `json:"builds"`
		BuildsNotFound []string    `json:"buildsNotFound"`
	}
	stopBuildInput struct {
		ID string `json:"id"`
	}
	wireBuild struct {
		ID                           string            `json:"id"`
		ARN                          string            `json:"arn"`
		BuildNumber                  int64             `json:"buildNumber"`
		StartTime                    epoch             `json:"startTime"`
		EndTime                      *epoch            `json:"endTime,omitempty"`
		CurrentPhase                 string            `json:"currentPhase"`
		BuildStatus                  string            `json:"buildStatus"`
		BuildComplete                bool              `json:"buildComplete"`
		ProjectName                  string            `json:"projectName"`
		Phases                       []wirePhase       `json:"phases"`
		Source                       map[string]string `json:"source"`
		Artifacts                    map[string]string `json:"artifacts"`
		Environment                  wireEnvironment   `json:"environment"`
		Logs                         wireLogsLocation  `json:"logs"`
		TimeoutInMinutes             int               `json:"timeoutInMinutes"`
		QueuedTimeoutInMinutes       int               `json:"queuedTimeoutInMinutes"`
		Initiator                    string            `json:"initiator"`
		ExportedEnvironmentVariables []wireVariable    `json:"exportedEnvironmentVariables,omitempty"`
	}
	wirePhase struct {
		PhaseType         string        `json:"phaseType"`
		PhaseStatus       string        `json:"phaseStatus,omitempty"`
		StartTime         epoch         `json:"startTime"`
		EndTime           *epoch        `json:"endTime,omitempty"`
		DurationInSeconds *int64        `json:"durationInSeconds,omitempty"`
		Contexts          []wireContext `json:"contexts,omitempty"`
	}
	wireContext struct {
		StatusCode string `json:"statusCode"`
		Message    string `json:"message"`
	}
	wireEnvironment struct {
		Type                     string         `json:"type"`
		Image                    string         `json:"image"`
		ComputeType              string         `json:"computeType"`
		EnvironmentVariables     []wireVariable `json:"environmentVariables"`
		PrivilegedMode           bool           `json:"privilegedMode"`
		ImagePullCredentialsType string         `json:"imagePullCredentialsType"`
	}
	wireLogsLocation struct {
		GroupName      string             `json:"groupName,omitempty"`
		StreamName     string             `json:"streamName,omitempty"`
		CloudWatchLogs wireCloudWatchLogs `json:"cloudWatchLogs"`
	}
)

// token is what is remembered of an idempotency token.
type token struct {
	input startBuildInput
	build *build
	at    time.Time
}

// ServeHTTP answers one call in AWS JSON 1.1.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation, ours := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "CodeBuild_20161006.")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var out any
	switch {
	case err != nil:
		err = refuse("SerializationException", "the body broke off or is too long")
	case r.Method != http.MethodPost || r.URL.Path != "/" || !ours:
		err = refuse("UnknownOperationException", "this is CodeBuild: POST / with X-Amz-Target CodeBuild_20161006.…")
	case !strings.Contains(r.Header.Get("Authorization"), "/"+h.deps.Region+"/codebuild/aws4_request"):
		err = refuse("MissingAuthenticationTokenException", "the request is not signed for codebuild in %s", h.deps.Region)
	case h.takes(func(f *Faults) map[string]int { return f.Throttle }, operation):
		err = refuse(throttling, "Rate exceeded")
	case h.ctx.Err() != nil:
		err = refuse("ServiceUnavailableException", "closed")
	default:
		out, err = h.call(operation, body)
	}
	if h.takes(func(f *Faults) map[string]int { return f.Lose }, operation) {
		panic(http.ErrAbortHandler) // breaks the connection
	}
	status := http.StatusOK
	var refused *refusal
	if errors.As(err, &refused) {
		status, out = http.StatusBadRequest, map[string]string{"__type": refused.kind, "message": refused.message}
		if refused.kind == "ServiceUnavailableException" {
			status = http.StatusServiceUnavailable
		}
	}
	answer, err := json.Marshal(out)
	if err != nil {
		panic(fmt.Errorf("encoding an answer: %w", err))
	}
	header := w.Header()
	header.Set("Content-Type", "application/x-amz-json-1.1")
	header.Set("Content-Length", strconv.Itoa(len(answer)))
	header.Set("X-Amzn-Requestid", h.deps.NewID())
	w.WriteHeader(status)
	_, _ = w.Write(answer) // to who does not wait for it any more, perhaps
}

func (h *Host) call(operation string, body []byte) (any, error) {
	switch operation {
	case "StartBuild":
		var in startBuildInput
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return h.startBuild(in)
	case "BatchGetBuilds":
		var in batchGetBuildsInput
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return h.batchGetBuilds(in)
	case "StopBuild":
		var in stopBuildInput
		if err := decode(body, &in); err != nil {
			return nil, err
		}
		return h.stopBuild(in)
	}
	return nil, refuse("UnknownOperationException", "this endpoint does not know %.50q", operation)
}

// decode refuses members it has no place for: to CodeBuild they mean something.
func decode(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return refuse("SerializationException", "%v", err)
	}
	return nil
}

func (h *Host) startBuild(in startBuildInput) (any, error) {
	now := h.deps.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, t := range h.tokens {
		if now.Sub(t.at) >= TokenLife {
			delete(h.tokens, name)
		}
	}
	if known, ok := h.tokens[in.IdempotencyToken]; ok && in.IdempotencyToken != "" {
		if !reflect.DeepEqual(known.input, in) {
			return nil, refuse(invalidInput, "the parameters differ from those of the first request with this idempotency token")
		}
		return buildOutput{known.build.shown()}, nil
	}
	p := h.projects[in.ProjectName]
	if p == nil {
		return nil, refuse(notFound, "Project cannot be found: arn:aws:codebuild:%s:%s:project/%s", h.deps.Region, h.deps.Account, in.ProjectName)
	}
	b, err := h.newBuild(p, in, now)
	if err != nil {
		return nil, err
	}
	if err := h.room(p); err != nil {
		return nil, err
	}
	if h.ctx.Err() != nil {
		return nil, refuse("ServiceUnavailableException", "closed")
	}
	b.ctx, b.cancel = context.WithCancelCause(h.ctx)
	p.number++
	b.number = p.number
	h.known[b.id] = b
	if in.IdempotencyToken != "" {
		h.tokens[in.IdempotencyToken] = token{in, b, now}
	}
	h.builds.Go(b.run)
	return buildOutput{b.shown()}, nil
}

// room refuses a build for which there is none. It is called under the lock.
func (h *Host) room(p *project) error {
	ofProject, all := 0, 0
	for _, b := range h.known {
		if !b.complete {
			all++
			if b.project.Name == p.Name {
				ofProject++
			}
		}
	}
	switch {
	case h.faults.Full:
		return refuse(accountLimit, "Cannot have more than %d builds in queue for the account", 0)
	case p.Limit > 0 && ofProject >= p.Limit:
		return refuse(accountLimit, "Cannot have more than %d active builds for the project", p.Limit)
	case h.deps.Running > 0 && all-h.deps.Running >= queueFactor*h.deps.Running:
		return refuse(accountLimit, "Cannot have more than %d builds in queue for the account", queueFactor*h.deps.Running)
	}
	return nil
}

// newBuild makes a build of a request, or says what is wrong with it.
func (h *Host) newBuild(p *project, in startBuildInput, now time.Time) (*build, error) {
	b := &build{
		host: h, project: p.Project, spec: p.spec, image: p.Image, compute: cmp.Or(p.Compute, "BUILD_GENERAL1_SMALL"), credentials: "CODEBUILD", status: inProgress, started: now,
		timeout: p.Timeout, queuedTimeout: p.QueuedTimeout, group: p.LogGroup, prefix: p.LogStream,
	}
	b.variables = slices.Clone(p.Environment)
	for _, v := range in.EnvironmentVariablesOverride {
		switch {
		case v.Type != "" && v.Type != "PLAINTEXT":
			return nil, refuse(invalidInput, "this endpoint knows PLAINTEXT variables only, not %.50q", v.Type)
		case !namePattern.MatchString(v.Name) || strings.HasPrefix(v.Name, "CODEBUILD_"):
			return nil, refuse(invalidInput, "Environment variable name is not valid: %.100q", v.Name)
		case strings.Contains(v.Value, "\x00"):
			return nil, refuse(invalidInput, "Environment variable value is not valid: %.100q", v.Name)
		}
		i := slices.IndexFunc(b.variables, func(o Variable) bool { return o.Name == v.Name })
		if i < 0 {
			b.variables = append(b.variables, Variable{v.Name, v.Value})
		} else {
			b.variables[i].Value = v.Value
		}
	}
	if in.ImageOverride != "" {
		b.image = in.ImageOverride
	}
	if c := in.ComputeTypeOverride; c != "" {
		// Those of containers on Linux, x86-64 and ARM; others are for other types of environments.
		if size, is := strings.CutPrefix(c, "BUILD_GENERAL1_"); !is || !slices.Contains([]string{"SMALL", "MEDIUM", "LARGE", "XLARGE", "2XLARGE"}, size) {
			return nil, refuse(invalidInput, "Invalid compute type for an environment of type %s: %.50q", p.Type, c)
		}
		b.compute = c
	}
	switch in.ImagePullCredentialsTypeOverride {
	case "":
	case "CODEBUILD", "SERVICE_ROLE":
		b.credentials = in.ImagePullCredentialsTypeOverride
	default:
		return nil, refuse(invalidInput, "Invalid image pull credentials type: %.50q", in.ImagePullCredentialsTypeOverride)
	}
	if t := in.TimeoutInMinutesOverride; t != nil {
		if b.timeout = *t; b.timeout < minTimeout || b.timeout > maxTimeout {
			return nil, refuse(invalidInput, "Invalid timeout: timeout must be between %d and %d minutes", minTimeout, maxTimeout)
		}
	}
	if t := in.QueuedTimeoutInMinutesOverride; t != nil {
		if b.queuedTimeout = *t; b.queuedTimeout < minTimeout || b.queuedTimeout > maxQueuedTimeout {
			return nil, refuse(invalidInput, "Invalid queued timeout: timeout must be between %d and %d minutes", minTimeout, maxQueuedTimeout)
		}
	}
	if in.LogsConfigOverride != nil {
		logs := in.LogsConfigOverride.CloudWatchLogs
		switch {
		case logs == nil || logs.Status != "ENABLED":
			return nil, refuse(invalidInput, "this endpoint knows builds with CloudWatch Logs only")
		case logs.GroupName != "" && !groupPattern.MatchString(logs.GroupName), logs.StreamName != "" && !prefixPattern.MatchString(logs.StreamName):
			return nil, refuse(invalidInput, "Invalid log group or stream name")
		}
		if logs.GroupName != "" {
			b.group = logs.GroupName
		}
		b.prefix = logs.StreamName
	}
	b.uuid = h.deps.NewID()
	b.id = p.Name + ":" + b.uuid
	b.arn = fmt.Sprintf("arn:aws:codebuild:%s:%s:build/%s", h.deps.Region, h.deps.Account, b.id)
	b.begin("SUBMITTED", now)
	b.stream = b.uuid
	if b.prefix != "" {
		b.stream = b.prefix + "/" + b.uuid
	}
	return b, nil
}

func (h *Host) batchGetBuilds(in batchGetBuildsInput) (any, error) {
	if len(in.IDs) == 0 || len(in.IDs) > maxBatch {
		return nil, refuse(invalidInput, "Invalid number of build ids: must be between 1 and %d", maxBatch)
	}
	out := batchGetBuildsOutput{Builds: []wireBuild{}, BuildsNotFound: []string{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range in.IDs {
		if _, _, ok := strings.Cut(id, ":"); !ok {
			return nil, refuse(invalidInput, "Invalid build ID given")
		}
		if b := h.known[id]; b != nil {
			out.Builds = append(out.Builds, b.shown())
		} else {
			out.BuildsNotFound = append(out.BuildsNotFound, id)
		}
	}
	return out, nil
}

func (h *Host) stopBuild(in stopBuildInput) (any, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, _, ok := strings.Cut(in.ID, ":"); !ok {
		return nil, refuse(invalidInput, "Invalid build ID given")
	}
	b := h.known[in.ID]
	if b == nil {
		return nil, refuse(notFound, "Build %s does not exist", in.ID)
	}
	b.cancel(errStopped) // without effect once it ended
	return buildOutput{b.shown()}, nil
}
