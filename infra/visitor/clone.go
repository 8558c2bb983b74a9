package visitor

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Clone is a working copy of a repository on the sandbox.
type Clone struct {
	Dir string
	as  *Visitor
}

// Clone clones a repository into dir, which must not exist.
func (v *Visitor) Clone(ctx context.Context, fullName, dir string) (*Clone, error) {
	u, err := url.Parse(v.Forge + "/" + fullName + ".git")
	if err != nil {
		return nil, err
	}
	u.User = url.UserPassword(v.Name, v.Password)
	c := &Clone{Dir: dir, as: v}
	if _, err := c.run(ctx, "", "clone", "--quiet", u.String(), dir); err != nil {
		return nil, err
	}
	return c, nil
}

// Git runs git in the working copy and answers what it printed.
func (c *Clone) Git(ctx context.Context, args ...string) (string, error) {
	return c.run(ctx, c.Dir, args...)
}

func (c *Clone) run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=" + c.as.Name, "GIT_AUTHOR_EMAIL=" + c.as.Name + "@example.com",
		"GIT_COMMITTER_NAME=" + c.as.Name, "GIT_COMMITTER_EMAIL=" + c.as.Name + "@example.com",
	}
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Commit writes a file and commits it, and answers the commit's hash.
func (c *Clone) Commit(ctx context.Context, file, text, message string) (string, error) {
	path := filepath.Join(c.Dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", err
	}
	for _, args := range [][]string{{"add", "--", file}, {"commit", "--quiet", "--allow-empty", "-m", message}} {
		if _, err := c.Git(ctx, args...); err != nil {
			return "", err
		}
	}
	return c.Git(ctx, "rev-parse", "HEAD")
}

// Push pushes refs to Bitbucket.
func (c *Clone) Push(ctx context.Context, refs ...string) error {
	_, err := c.Git(ctx, append([]string{"push", "--quiet", "origin"}, refs...)...)
	return err
}
