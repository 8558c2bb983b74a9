package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"runnerhub/shared/runner"
)

// fetchTries is how often a fetch that failed for want of network is tried.
const fetchTries = 5

var commitPattern = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// credentialHelper passes on one credential from descriptor 3, without the empty line
// that ends it. The shell reads a pipe byte by byte, so the next one stays for the next question.
const credentialHelper = `!f() { test "$1" = get || return 0; while IFS= read -r l <&3 && test -n "$l"; do printf '%s\n' "$l"; done; }; f`

// checkout puts one commit into a folder. The credential reaches git through an
// inherited pipe: it is on no command line, in no environment and in no file.
type checkout struct {
	clone  runner.Clone
	source string // folder to make
	home   string
	path   string // PATH
	mask   *mask
	log    *logbook
	pause  time.Duration
	plain  string // URL without user information
	scope  string // scheme and host that get the credential
}

func (c *checkout) run(ctx context.Context) error {
	if err := c.validate(); err != nil {
		return err
	}
	c.log.say("Checking out %s of %s", c.clone.Commit, c.plain)
	if err := os.Mkdir(c.source, 0o755); err != nil {
		return fmt.Errorf("make source folder: %w", err)
	}
	for _, args := range [][]string{
		{"-c", "init.defaultBranch=main", "init", "--quiet", "--template="},
		{"remote", "add", "origin", c.plain},
	} {
		if _, err := c.git(ctx, args...); err != nil {
			return err
		}
	}
	if err := c.fetch(ctx); err != nil {
		return err
	}
	said, err := c.git(ctx, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", c.clone.Commit, "--")
	if strings.Contains(said, "reference is not a tree") {
		return fmt.Errorf("the repository does not hold commit %s (any more)", c.clone.Commit)
	}
	if err != nil {
		return err
	}
	head, err := c.git(ctx, "rev-parse", "--verify", "HEAD")
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(head); got != c.clone.Commit {
		return fmt.Errorf("checked out %s instead of %s", got, c.clone.Commit)
	}
	return nil
}

func (c *checkout) validate() error {
	if !commitPattern.MatchString(c.clone.Commit) {
		return errors.New("the commit to check out is no full hash")
	}
	u, err := url.Parse(c.clone.URL)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return errors.New("the address to clone from is neither http nor https")
	}
	u.User = nil
	c.plain = u.String()
	c.scope = u.Scheme + "://" + u.Host
	if strings.ContainsAny(c.clone.Username+c.clone.Password, "\n\r\x00") {
		return errors.New("the clone credential has a line break")
	}
	if strings.HasPrefix(c.clone.Ref, "-") {
		return errors.New("the ref to fetch is no ref")
	}
	return nil
}

// fetch gets the commit alone, or everything from servers that give out tips only.
func (c *checkout) fetch(ctx context.Context) error {
	alone := []string{"fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--depth", "1", "origin", c.clone.Commit}
	all := []string{"fetch", "--quiet", "--no-recurse-submodules", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"}
	if c.clone.Ref != "" && !strings.HasPrefix(c.clone.Ref, "refs/heads/") && !strings.HasPrefix(c.clone.Ref, "refs/tags/") {
		all = append(all, "+"+c.clone.Ref+":refs/runnerhub/ref")
	}
	args := alone
	pause := c.pause
	for try := 1; ; try++ {
		said, err := c.git(ctx, args...)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		switch verdict := judge(said); {
		case verdict == noTip && &args[0] != &all[0]:
			c.log.say("The server gives out branch tips only; fetching everything")
			args, try = all, 0
			continue
		case verdict != passing || try == fetchTries:
			return err
		}
		c.log.say("Fetching failed, trying again (%d of %d)", try+1, fetchTries)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause *= 2
	}
}

type fetchVerdict int

const (
	passing fetchVerdict = iota // network, or the server's bad moment
	noTip                       // the server does not give out this commit by its hash
	final                       // refused
)

// judge reads what git said. Its texts are stable in the C locale.
func judge(said string) fetchVerdict {
	for _, s := range []string{"unadvertised object", "not our ref", "remote error: upload-pack: not our"} {
		if strings.Contains(said, s) {
			return noTip
		}
	}
	for _, s := range []string{
		"Authentication failed", "could not read Username", "could not read Password", "not found",
		"error: 401", "error: 403", "error: 404", "error: 410", "couldn't find remote ref", "not allowed",
	} {
		if strings.Contains(said, s) {
			return final
		}
	}
	return passing
}

// git runs one command in the source folder and answers what it printed.
func (c *checkout) git(ctx context.Context, args ...string) (string, error) {
	verb := args[0]
	if verb == "-c" {
		verb = args[2]
	}
	cmd := exec.CommandContext(ctx, "git", append([]string{
		"-c", "credential.helper=",
		"-c", "credential." + c.scope + ".helper=" + credentialHelper,
		"-c", "core.hooksPath=/dev/null",
		"-c", "gc.auto=0",
		"-c", "maintenance.auto=false",
	}, args...)...)
	cmd.Dir = c.source
	cmd.Env = []string{
		"PATH=" + c.path, "HOME=" + c.home, "LC_ALL=C",
		"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_ALLOW_PROTOCOL=http:https", "GIT_ASKPASS=", "SSH_ASKPASS=",
		"GIT_HTTP_LOW_SPEED_LIMIT=1000", "GIT_HTTP_LOW_SPEED_TIME=60",
		"GIT_CEILING_DIRECTORIES=" + filepath.Dir(c.source),
	}
	out := &tail{limit: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, out
	endGroup(cmd)
	r, w, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("make credential pipe: %w", err)
	}
	cmd.ExtraFiles = []*os.File{r}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		// Git may ask several times (one helper per request it makes), so the answer is given until the pipe breaks.
		answer := []byte("username=" + c.clone.Username + "\npassword=" + c.clone.Password + "\n\n")
		for {
			if _, err := w.Write(answer); err != nil {
				return
			}
		}
	}()
	err = cmd.Run()
	_ = r.Close()
	_ = w.Close()
	<-fed
	said := c.mask.text(out.String())
	if err == nil {
		return said, nil
	}
	if ctx.Err() != nil {
		return said, context.Cause(ctx)
	}
	return said, fmt.Errorf("git %s: %w: %s", verb, err, strings.Join(strings.Fields(said), " "))
}

// tail keeps the last bytes written to it.
type tail struct {
	limit int
	buf   bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > t.limit {
		p = p[len(p)-t.limit:]
	}
	t.buf.Write(p)
	if over := t.buf.Len() - t.limit; over > 0 {
		t.buf.Next(over)
	}
	return n, nil
}

func (t *tail) String() string { return t.buf.String() }
