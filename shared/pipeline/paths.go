package pipeline

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode"
)

// DefaultPaths lists where the pipeline file of an app without a path of its
// own is looked for, the first found wins.
func DefaultPaths() []string {
	return []string{".runnerhub/runnerhub.yml", "runnerhub.yml"}
}

// Paths lists where an app's pipeline file is looked for, the first found wins: only
// at the app's own path where it has one, else at the default ones.
// The error says, in words for the person who typed it, why own cannot be one.
func Paths(own string) ([]string, error) {
	if own == "" {
		return DefaultPaths(), nil
	}
	if err := ValidPath(own); err != nil {
		return nil, err
	}
	return []string{own}, nil
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
	case climbs(p):
		return errors.New("the path contains ..: it must stay inside the repository")
	case !strings.HasSuffix(p, ".yml") && !strings.HasSuffix(p, ".yaml"):
		return errors.New("the path must end in .yml or .yaml")
	case path.Clean(p) != p:
		return fmt.Errorf("write the path as %q", path.Clean(p))
	}
	return nil
}

// climbs reports whether a part of the path p is "..".
func climbs(p string) bool { return strings.Contains("/"+p+"/", "/../") }
