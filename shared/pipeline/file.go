package pipeline

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
)

// Limits of a pipeline file. They are far above what a team writes by hand
// and low enough that reading a hostile file stays cheap.
const (
	MaxBytes   = 256 << 10 // of the file
	maxEntries = 200       // of any list or map in it
	maxName    = 100       // characters of a name
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
	// Variables are environment.variables in the file's order, each value
	// the text as written: 01 stays "01".
	Variables []Variable
	Triggers  []Trigger // may be empty: manual and scheduled builds only
	Steps     []Step    // at least one
	Timeout   time.Duration

	platformLine, platformColumn int
}

// Variable is an environment variable.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Trigger is one rule that starts builds.
type Trigger struct {
	Event Kind // Push or PullRequest
	// Branches are globs: the pushed branch for Push, the target branch for
	// PullRequest. Empty means every branch.
	Branches []string
	Line     int // where the rule stands in the file
}

// Step is one script of the build.
type Step struct {
	Name string // empty when the file gives none
	Run  string
	// WorkingDirectory is a clean path inside the clone; empty is its root.
	WorkingDirectory string
	Env              []Variable
}

// Platforms lists the platforms the format knows. Which of them can be run is
// the runner's to say: see Plan.
func Platforms() []string {
	return []string{"android", "flutter", "ios", "linux", "macos", "react-native"}
}

// DefaultPaths lists where the pipeline file of an app without a path of its
// own is looked for, the first found wins.
func DefaultPaths() []string {
	return []string{".runnerhub/runnerhub.yml", "runnerhub.yml"}
}

// ValidPath reports why p cannot be an app's own pipeline path, in words for
// the person who typed it.
func ValidPath(p string) error {
	switch {
	case p == "":
		return errors.New("the path is empty")
	case len(p) > 255:
		return errors.New("the path is longer than 255 bytes")
	case strings.ContainsFunc(p, unicode.IsControl):
		return errors.New("the path contains a control character")
	case strings.Contains(p, `\`):
		return errors.New(`the path contains \: write / between folders`)
	case strings.HasPrefix(p, "/"):
		return errors.New("the path starts with /: write it from the root of the repository")
	case outside(p) || strings.Contains("/"+p+"/", "/../"):
		return errors.New("the path contains ..: it must stay inside the repository")
	case !strings.HasSuffix(p, ".yml") && !strings.HasSuffix(p, ".yaml"):
		return errors.New("the path must end in .yml or .yaml")
	case path.Clean(p) != p:
		return fmt.Errorf("write the path as %q", path.Clean(p))
	}
	return nil
}

// outside reports whether the relative path p leaves the folder it starts in.
func outside(p string) bool {
	p = path.Clean(p)
	return p == ".." || strings.HasPrefix(p, "../")
}
