package pipeline

import (
	"time"
)

// Limits of a pipeline file. They are far above what a team writes by hand
// and low enough that reading a hostile file stays cheap.
const (
	MaxBytes   = 256 << 10 // of the file
	maxEntries = 200       // of any list or map in it
	// maxPatterns is how many patterns all triggers have together: an alias is counted wherever it stands, and braces as
	// the patterns that they stand for, because each costs the matcher a pass of its own.
	maxPatterns = 1000
	maxName     = 100 // characters of a name, and of a key of a cache
	maxWord     = 50  // characters of a version
	maxImage    = 255 // characters of an image
)

const (
	// DefaultPlatform is used when the file names none.
	DefaultPlatform = "linux"
	// DefaultTimeout is used when the file names none.
	DefaultTimeout = 60 * time.Minute

	maxTimeoutMinutes = 24 * 60
)

// File is a pipeline file without mistakes, as Parse returns it.
type File struct {
	Name     string
	Platform string // one of Platforms
	// Toolchain are the versions that environment names, in the file's order.
	Toolchain []Tool
	// Variables are environment.variables in the file's order, each value
	// the text as written: 01 stays "01".
	Variables []Variable
	Triggers  []Trigger // may be empty: scheduled builds only
	Steps     []Step    // at least one
	Artifacts []string  // globs of files that are kept after the build
	Timeout   time.Duration

	Image       string // of the container that the steps run in; empty: the runner's choice
	Runner      string // one of Runners; empty: the installation's choice
	Compute     string // one of Computes; empty: the runner's choice
	Cache       *Cache // nil: none
	Concurrency Concurrency

	// asks are the keys that not every installation obeys, in the order of the reader.
	asks []ask
}

// ask is a key of the file that asks an installation for more than steps.
type ask struct {
	feature      Feature
	path         string
	line, column int
}

// Tool is a tool of the environment and its version, as written.
type Tool struct {
	Name    string `json:"name"` // one of Tools
	Version string `json:"version"`
}

// Variable is an environment variable.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Trigger is one rule that starts builds. An event has to pass all of its filters.
type Trigger struct {
	Event Kind // Push or PullRequest
	// Branches is about the pushed branch for Push, the target branch for
	// PullRequest. Empty means every branch; but a Push with Tags alone is about
	// tags alone.
	Branches Filter
	// Tags is about the pushed tag; a Push without it takes no tags.
	Tags Filter
	// SourceBranches is about the branch a PullRequest comes from.
	SourceBranches Filter
	// Paths is about the changed files, one of which has to pass. It does not
	// concern tags.
	Paths Filter
	Line  int // where the rule stands in the file
}

// Filter is a set of names, described by globs. What matches one of Exclude is not
// in it, whatever Include says. The zero Filter is of no influence.
type Filter struct {
	Include []string // empty: everything
	Exclude []string
}

func (f Filter) empty() bool { return len(f.Include) == 0 && len(f.Exclude) == 0 }

// Step is one script of the build.
type Step struct {
	Name string // empty when the file gives none
	Run  string
	// WorkingDirectory is a clean path inside the clone; empty is its root.
	WorkingDirectory string
	Env              []Variable
	Timeout          time.Duration // 0: none of its own
	// ContinueOnError lets the build go on, and succeed, when this step fails.
	ContinueOnError bool
}

// Cache is what builds leave for later ones of the same app.
type Cache struct {
	// Paths are globs of files inside the clone, or below the home folder of the
	// build's user where they start with "~/".
	Paths []string `json:"paths"`
	// Key is a template for which of several caches to take; empty: there is one.
	Key string `json:"key,omitempty"`
}

// Concurrency is what builds of the same group do to each other.
type Concurrency struct {
	// Group names the builds that belong together, as a template; empty: those of the same branch,
	// tag or pull request. See File.Group.
	Group string
	// CancelInProgress stops the older build of the group when a newer one is made.
	CancelInProgress bool
	// Set is false when the file does not mention concurrency.
	Set bool
}

// Platforms lists the platforms the format knows. Which of them can be run is
// the installation's to say: see Offer.
func Platforms() []string {
	return []string{"android", "flutter", "ios", "linux", "macos", "react-native"}
}

// Runners lists the kinds of runners the format knows.
func Runners() []string { return []string{"codebuild", "docker", "fargate", "process"} }

// Computes lists the sizes of machines the format knows, the smallest first.
func Computes() []string { return []string{"small", "medium", "large", "xlarge", "2xlarge"} }

// Tools lists the tools whose version environment can name.
func Tools() []string { return []string{"android_sdk", "flutter", "node", "ruby", "xcode"} }
