// Package runner is the contract of what executes a build: start, stop, state.
// A runner starts the agent (package agent) in a place of its own and gives it
// an address and a ticket, nothing else; everything the build needs, it claims
// with that ticket. Drivers live one level below and pass package runnertest.
package runner

import (
	"context"
	"time"

	"runnerhub/shared/secret"
)

// Job is one attempt to run a build.
type Job struct {
	Build   string // id of the build
	Log     string // name of its log
	Attempt string // id of the attempt, unique over all builds
	Address string // of the server as the build reaches it: http, https or SocketScheme
	Ticket  secret.Text
	Timeout time.Duration // after it the runner ends the build
	Image   string        // asked for by the pipeline file; may be empty
	Compute string        // likewise, the size of the machine: small, medium, large, xlarge or 2xlarge
}

// Phase is what a runner knows of an attempt.
type Phase string

const (
	Pending Phase = "PENDING" // accepted, not running yet
	Running Phase = "RUNNING"
	Ended   Phase = "ENDED" // see Result
	Lost    Phase = "LOST"  // the runner knows nothing of it (any more)
)

// Result is how an attempt ended, as the runner saw it. What the steps reported is
// more exact and goes first.
type Result string

const (
	Succeeded Result = "SUCCEEDED"
	Failed    Result = "FAILED"
	Stopped   Result = "STOPPED"  // by Stop
	TimedOut  Result = "TIMEDOUT" // by the runner's own limit
	// Errored is an end that is not the work of the build's steps, as far as the runner
	// knows: the agent could not prepare them, was killed, or went down with its machine.
	Errored Result = "ERRORED"
)

// State is an answer of State, and what a runner says by itself when it changes.
type State struct {
	Phase  Phase
	Result Result // with Ended
	Detail string // in words, for people; may be empty
}

// Event says that an attempt changed its state. Events come late, twice and out of
// order; they are hints, and State is asked when none came.
type Event struct {
	Build   string
	Attempt string
	Ref     string
	State   State
	At      time.Time
}

// Runner is the contract. Errors: fault.RateLimited with no capacity (nothing was
// started, ask later), fault.Invalid for a job it can never run,
// fault.Unavailable and fault.Unknown as everywhere.
type Runner interface {
	// Start begins the attempt and answers the runner's reference to it. Started
	// again with the same attempt it answers the same reference and starts nothing, as far as
	// the runner can tell; the ticket makes sure of the rest.
	Start(ctx context.Context, job Job) (ref string, err error)
	// Stop ends the attempt with everything it started. One that ended, or that the
	// runner does not know, is no error.
	Stop(ctx context.Context, ref string) error
	// State answers what the runner knows of the attempt.
	State(ctx context.Context, ref string) (State, error)
}
