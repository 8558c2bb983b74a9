package runner

import "time"

// What follows is spoken between a build and the server, as JSON over HTTP: the
// agent claims its work with POST ClaimPath and says how it goes with POST StepsPath.
// Both answer 401 for a ticket they do not know and 409 for an attempt that is over
// or that another agent claimed; the agent then ends with ExitNotOurs. A ticket ends with its
// build, so the repeat of a last report whose answer was lost is refused like this, too.

// SocketScheme begins the address of a server that listens on a Unix socket: the
// socket's absolute path follows. Other addresses are http or https URLs.
const SocketScheme = "unix:"

// Paths below Job.Address, and the two variables that a runner gives the agent.
// Nothing else may stand in the agent's environment that a build must not read.
const (
	ClaimPath       = "/runner/claim"
	StepsPath       = "/runner/steps"
	AddressVariable = "RUNNERHUB_ADDRESS"
	TicketVariable  = "RUNNERHUB_TICKET"
)

// Exit codes of the agent.
const (
	ExitSuccessful = 0
	ExitFailed     = 1
	ExitOther      = 2 // timeout, stopped, or an error that is not the steps'
	ExitNotOurs    = 3 // another agent runs the build, or it is over
)

// ResultFile is what the agent leaves in its working folder as its last act: the
// Verdict in one word. A runner that cannot wait for the agent reads it there. The
// steps can write it too, so it is a hint like every Result.
const ResultFile = "result"

// ClaimRequest asks for the work behind a ticket. The first nonce is admitted, and
// answered as often as it asks until it has reported the checkout.
type ClaimRequest struct {
	Ticket string `json:"ticket"`
	Nonce  string `json:"nonce"` // chosen by the agent, 128 random bits in hex
}

// Claim is the answer to it: everything the build needs. It holds secrets.
type Claim struct {
	Build     Build      `json:"build"`
	Script    Script     `json:"script"`
	Clone     Clone      `json:"clone"`
	Variables []Variable `json:"variables"`
}

// Build says which build this is, for the log.
type Build struct {
	ID     string `json:"id"`
	Number int64  `json:"number"`
	URL    string `json:"url"`
}

// Script is what to run. TimeoutSeconds counts from the beginning of the checkout.
type Script struct {
	Steps          []Step `json:"steps"`
	TimeoutSeconds int    `json:"timeout_seconds"`
}

// Step is one shell script. WorkingDirectory is relative to the clone. Env goes over
// the build's variables and holds no secrets.
type Step struct {
	Name             string     `json:"name"`
	Run              string     `json:"run"`
	WorkingDirectory string     `json:"working_directory,omitempty"`
	Env              []Variable `json:"env,omitempty"`
	// TimeoutSeconds ends the step as failed; 0: only the build's does.
	TimeoutSeconds int `json:"timeout_seconds,omitempty"`
	// ContinueOnError lets the build go on, and succeed, when the step fails.
	ContinueOnError bool `json:"continue_on_error,omitempty"`
}

// Clone says what to check out and with which credential. URL is http or https.
type Clone struct {
	URL      string `json:"url"`
	Commit   string `json:"commit"`        // 40 (or 64) hex digits
	Ref      string `json:"ref,omitempty"` // where the commit was seen, as refs/heads/…; may be empty
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
}

// Variable is one environment variable of the steps. The values of secret ones do not
// show in the log.
type Variable struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Secret bool   `json:"secret,omitempty"`
}

// StepState is the state of one step.
type StepState string

const (
	StepPending    StepState = "PENDING"
	StepRunning    StepState = "RUNNING"
	StepSuccessful StepState = "SUCCESSFUL"
	StepFailed     StepState = "FAILED" // also a step that was cut off
	StepSkipped    StepState = "SKIPPED"
)

// Verdict is how something ended; empty while it has not.
type Verdict string

const (
	VerdictSuccessful Verdict = "SUCCESSFUL"
	VerdictFailed     Verdict = "FAILED"
	VerdictTimeout    Verdict = "TIMEOUT"
	VerdictStopped    Verdict = "STOPPED"
	VerdictError      Verdict = "ERROR"
)

// Report is what an agent knows of its build, always all of it: the highest Sequence
// seen is the truth, and repeats or late ones change nothing.
type Report struct {
	Ticket   string       `json:"ticket"`
	Nonce    string       `json:"nonce"`
	Sequence int64        `json:"sequence"`           // from 1
	Checkout Verdict      `json:"checkout,omitempty"` // successful or failed
	Steps    []StepReport `json:"steps"`
	Result   Verdict      `json:"result"`            // empty until the build ended
	Message  string       `json:"message,omitempty"` // why, in words, masked
}

// StepReport is the state of the step at Index of the script.
type StepReport struct {
	Index      int       `json:"index"`
	Name       string    `json:"name"`
	State      StepState `json:"state"`
	ExitCode   *int      `json:"exit_code,omitempty"` // absent when no shell ended; 128 + n after signal n
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
}

// ReportAnswer is the answer to a report. Stop asks the agent to end the build as
// VerdictStopped.
type ReportAnswer struct {
	Stop bool `json:"stop"`
}
