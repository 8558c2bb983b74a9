package codebuild

import (
	"encoding/json"
	"fmt"
	"time"
)

// What an event looks like. The variables of the environment are in it, as they are on AWS.
type (
	event struct {
		Version    string      `json:"version"`
		ID         string      `json:"id"`
		DetailType string      `json:"detail-type"`
		Source     string      `json:"source"`
		Account    string      `json:"account"`
		Time       string      `json:"time"`
		Region     string      `json:"region"`
		Resources  []string    `json:"resources"`
		Detail     eventDetail `json:"detail"`
	}
	eventDetail struct {
		BuildStatus           string           `json:"build-status"`
		ProjectName           string           `json:"project-name"`
		BuildID               string           `json:"build-id"`
		AdditionalInformation eventInformation `json:"additional-information"`
		CurrentPhase          string           `json:"current-phase"`
		CurrentPhaseContext   string           `json:"current-phase-context"`
		Version               string           `json:"version"`
	}
	eventInformation struct {
		Artifact               map[string]string `json:"artifact"`
		Environment            eventEnvironment  `json:"environment"`
		TimeoutInMinutes       float64           `json:"timeout-in-minutes"`
		QueuedTimeoutInMinutes float64           `json:"queued-timeout-in-minutes"`
		BuildComplete          bool              `json:"build-complete"`
		BuildNumber            float64           `json:"build-number"`
		Initiator              string            `json:"initiator"`
		BuildStartTime         string            `json:"build-start-time"`
		Source                 map[string]string `json:"source"`
		Logs                   eventLogs         `json:"logs"`
		Phases                 []eventPhase      `json:"phases"`
	}
	eventEnvironment struct {
		Image                string         `json:"image"`
		PrivilegedMode       bool           `json:"privileged-mode"`
		ComputeType          string         `json:"compute-type"`
		Type                 string         `json:"type"`
		EnvironmentVariables []wireVariable `json:"environment-variables"`
	}
	eventLogs struct {
		GroupName  string `json:"group-name"`
		StreamName string `json:"stream-name"`
		DeepLink   string `json:"deep-link"`
	}
	eventPhase struct {
		PhaseContext      []string `json:"phase-context"`
		StartTime         string   `json:"start-time"`
		EndTime           string   `json:"end-time,omitempty"`
		DurationInSeconds *float64 `json:"duration-in-seconds,omitempty"`
		PhaseType         string   `json:"phase-type"`
		PhaseStatus       string   `json:"phase-status,omitempty"`
	}
)

// eventTime is how details of an event write a time.
const eventTime = "Jan 2, 2006 3:04:05 PM"

// announce sends the event of a build's state: one when it begins, one when it ended.
func (h *Host) announce(b *build) {
	h.mu.Lock()
	faults, shown := h.faults, b.shown()
	h.mu.Unlock()
	body, err := json.Marshal(h.eventOf(shown, b))
	if err != nil {
		panic(fmt.Errorf("encoding an event: %w", err))
	}
	events := [][]byte{body}
	if faults.Reversed && !shown.BuildComplete {
		b.heldBack = body
		return
	}
	if b.heldBack != nil {
		events = append(events, b.heldBack)
		b.heldBack = nil
	}
	if faults.Twice {
		events = append(events, events...)
	}
	h.events.add(events...)
}

func (h *Host) eventOf(w wireBuild, b *build) event {
	at := time.Time(w.StartTime)
	if w.EndTime != nil {
		at = time.Time(*w.EndTime)
	}
	information := eventInformation{
		Artifact: w.Artifacts, Source: map[string]string{"type": w.Source["type"]}, Initiator: w.Initiator, BuildComplete: w.BuildComplete,
		Environment: eventEnvironment{
			Image: w.Environment.Image, ComputeType: w.Environment.ComputeType, Type: w.Environment.Type, EnvironmentVariables: w.Environment.EnvironmentVariables,
		},
		TimeoutInMinutes: float64(w.TimeoutInMinutes), QueuedTimeoutInMinutes: float64(w.QueuedTimeoutInMinutes), BuildNumber: float64(w.BuildNumber),
		BuildStartTime: time.Time(w.StartTime).UTC().Format(eventTime),
		Logs: eventLogs{
			GroupName: b.group, StreamName: b.stream,
			DeepLink: fmt.Sprintf("https://console.aws.amazon.com/cloudwatch/home?region=%s#logEvent:group=%s;stream=%s", h.deps.Region, b.group, b.stream),
		},
	}
	for _, p := range w.Phases {
		out := eventPhase{PhaseType: p.PhaseType, PhaseStatus: p.PhaseStatus, StartTime: time.Time(p.StartTime).UTC().Format(eventTime), PhaseContext: []string{}}
		if p.EndTime != nil {
			out.EndTime = time.Time(*p.EndTime).UTC().Format(eventTime)
			seconds := float64(*p.DurationInSeconds)
			out.DurationInSeconds = &seconds
		}
		for _, c := range p.Contexts {
			out.PhaseContext = append(out.PhaseContext, c.StatusCode+": "+c.Message)
		}
		information.Phases = append(information.Phases, out)
	}
	status := w.BuildStatus
	if status == timedOut || status == fault {
		status = failed // events know four statuses
	}
	return event{
		Version: "0", ID: h.deps.NewID(), DetailType: "CodeBuild Build State Change", Source: "aws.codebuild", Account: h.deps.Account,
		Time: at.UTC().Format(time.RFC3339), Region: h.deps.Region, Resources: []string{w.ARN},
		Detail: eventDetail{
			BuildStatus: status, ProjectName: w.ProjectName, BuildID: w.ARN, AdditionalInformation: information,
			CurrentPhase: w.CurrentPhase, CurrentPhaseContext: "[]", Version: "1",
		},
	}
}

// post delivers events, one after the other.
func (h *Host) post() {
	defer close(h.posted)
	for {
		events, ok := h.events.take()
		if !ok {
			return
		}
		for _, e := range events {
			h.deps.Event(h.ctx, e)
		}
	}
}
