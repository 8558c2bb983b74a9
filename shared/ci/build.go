package ci

import (
	"fmt"
	"time"
)

// Trigger is what started a build.
type Trigger string

const (
	TriggerPush        Trigger = "push"
	TriggerPullRequest Trigger = "pull_request"
	TriggerManual      Trigger = "manual"
	TriggerSchedule    Trigger = "schedule"
)

// State is a build's state.
type State string

const (
	Queued     State = "QUEUED"
	Starting   State = "STARTING"
	Running    State = "RUNNING"
	Successful State = "SUCCESSFUL"
	Failed     State = "FAILED"
	Stopped    State = "STOPPED"
	TimedOut   State = "TIMEOUT"
	Errored    State = "ERROR" // never ran as meant: bad pipeline file, unsupported platform, lost runner, waited too long
)

// transitions is the one table of how states may move: forward only. A state that
// is reported late, or twice, finds no way back.
func transitions(from State) []State {
	switch from {
	case Queued:
		return []State{Starting, Running, Successful, Failed, Stopped, TimedOut, Errored}
	case Starting:
		return []State{Running, Successful, Failed, Stopped, TimedOut, Errored}
	case Running:
		return []State{Successful, Failed, Stopped, TimedOut, Errored}
	default:
		return nil
	}
}

// May reports whether a build may move from s to next.
func (s State) May(next State) bool {
	for _, t := range transitions(s) {
		if t == next {
			return true
		}
	}
	return false
}

// Final reports whether nothing comes after s.
func (s State) Final() bool { return len(transitions(s)) == 0 }

// StatusState is a commit status as Bitbucket names it.
type StatusState string

const (
	StatusInProgress StatusState = "INPROGRESS"
	StatusSuccessful StatusState = "SUCCESSFUL"
	StatusFailed     StatusState = "FAILED"
	StatusStopped    StatusState = "STOPPED"
)

// Status answers what Bitbucket is told of a build in state s. Bitbucket has no
// "pending": a build that waits is in progress.
func (s State) Status() StatusState {
	switch s {
	case Successful:
		return StatusSuccessful
	case Failed, TimedOut, Errored:
		return StatusFailed
	case Stopped:
		return StatusStopped
	default:
		return StatusInProgress
	}
}

// StepState is the state of one step.
type StepState string

const (
	StepPending    StepState = "PENDING"
	StepRunning    StepState = "RUNNING"
	StepSuccessful StepState = "SUCCESSFUL"
	StepFailed     StepState = "FAILED"
	StepSkipped    StepState = "SKIPPED"
)

// Step is one step of a build as it stands.
type Step struct {
	Name  string    `json:"name"`
	State StepState `json:"state"`
	// ContinueOnError is a step whose failure is not the build's.
	ContinueOnError bool      `json:"continue_on_error,omitempty"`
	ExitCode        int       `json:"exit_code,omitempty"`
	StartedAt       time.Time `json:"started_at,omitzero"`
	FinishedAt      time.Time `json:"finished_at,omitzero"`
}

// Build is one run of an app's pipeline file at one commit.
type Build struct {
	ID        string  `json:"id"`
	Workspace string  `json:"workspace"`
	App       string  `json:"app"`
	Number    int     `json:"number"`
	State     State   `json:"state"`
	Reason    string  `json:"reason,omitempty"` // why the state is what it is, in words
	Trigger   Trigger `json:"trigger"`
	Name      string  `json:"name"` // of the pipeline file

	Branch      string `json:"branch,omitempty"` // of a pull request: its source
	Tag         string `json:"tag,omitempty"`
	Commit      string `json:"commit"` // 40 characters
	PullRequest int    `json:"pull_request,omitempty"`
	Target      string `json:"target,omitempty"` // of a pull request: its target branch
	Message     string `json:"message,omitempty"`
	Author      string `json:"author,omitempty"`
	// Fork is the repository that has the commit, where that is not Repository: UUID with braces.
	Fork     string `json:"fork,omitempty"`
	ForkName string `json:"fork_full_name,omitempty"`
	// Held says that the build waits, out of the line, until a member approves its commit.
	Held       bool      `json:"held,omitempty"`
	ApprovedBy string    `json:"approved_by,omitempty"` // nickname of the member
	ApprovedAt time.Time `json:"approved_at,omitzero"`

	Repository string `json:"repository"` // UUID with braces
	FullName   string `json:"full_name"`
	Connection string `json:"connection"`
	Delivery   string `json:"delivery,omitempty"`
	StatusKey  string `json:"status_key"`
	// PipelineCommit is the commit whose pipeline file counts, where that is not Commit: of the target branch, 40 characters.
	PipelineCommit string `json:"pipeline_commit,omitempty"`
	// PipelineVersion is the version of the app's own pipeline files that it was made of; 0: of the repository's.
	PipelineVersion int `json:"pipeline_version,omitempty"`

	// SupersededBy is the newer build because of which this one was stopped.
	SupersededBy *Successor `json:"superseded_by,omitempty"`

	Steps      []Step    `json:"steps"`
	CreatedAt  time.Time `json:"created_at"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
}

// Successor is the build that took the place of another.
type Successor struct {
	Build  string `json:"build"`
	Number int    `json:"number"`
}

// Ref names what a build builds, for people: "pull request #7", "tag v1", "branch main".
func (b Build) Ref() string {
	switch {
	case b.PullRequest != 0:
		return fmt.Sprintf("pull request #%d", b.PullRequest)
	case b.Tag != "":
		return "tag " + b.Tag
	default:
		return "branch " + b.Branch
	}
}
