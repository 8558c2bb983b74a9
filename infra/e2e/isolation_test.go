package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
)

// isolation lets a step try to get at what is not its own, while another build runs
// beside it.
func isolation(t *testing.T, in stack) {
	h := in.install(t).(*home)
	s := newShop(t, h)
	neighbour := s.pushSteps("echo private > private\nchmod 644 private\nchmod 755 . ..\npwd > " + s.mark("folder") + "\nchmod 644 " + s.mark("folder") +
		"\nsh -c 'echo $PPID' > " + s.mark("pid") + "\nchmod 644 " + s.mark("pid") + "\necho ready\n" + s.waitFor("go"))
	s.logged(neighbour.ID, "ready")
	folder := strings.TrimSpace(s.marked("folder"))

	// What is tried has to fail; that it would work for somebody who may shows that the
	// path is right.
	for _, path := range []string{folder + "/private", h.data() + "/key", fmt.Sprintf("/proc/%d/environ", h.pid())} {
		if _, err := os.ReadFile(path); err != nil {
			t.Fatalf("this test looks for the wrong thing: %v", err)
		}
	}
	var script strings.Builder
	for _, attempt := range []string{
		"ls " + h.data(),
		"cat " + h.data() + "/runnerhub.db",
		"cat " + h.data() + "/key",
		"ls " + h.data() + "/logs",
		"touch " + h.data() + "/mine",
		fmt.Sprintf("cat /proc/%d/environ", h.pid()),
		fmt.Sprintf("ls /proc/%d/fd/", h.pid()),
		fmt.Sprintf("kill -TERM %d", h.pid()),
		"ls " + h.builds() + "/attempts",
		"cat " + folder + "/private",
		"ls " + folder,
		"kill -TERM $(cat " + s.mark("pid") + ")",
		"cat /proc/$(cat " + s.mark("pid") + ")/environ",
		"cat /proc/$PPID/environ",
		"cat /proc/$PPID/mem",
		"ls /proc/$PPID/fd/",
		"grep -r x-token-auth .git $HOME $TMPDIR",
		"git config --local --get-regexp 'credential|extraheader'",
		"GIT_TERMINAL_PROMPT=0 git fetch origin",
		"su root -c true",
	} {
		fmt.Fprintf(&script, "if %s >/dev/null 2>&1; then echo \"WORKED: \"%q; fi\n", attempt, strings.ReplaceAll(attempt, "$", ""))
	}
	script.WriteString("git config --local --list\nenv\nwc -c < large\necho tried it all\n")

	// A push of more than a megabyte is sent in chunks.
	large := make([]byte, 2<<20)
	_, _ = rand.Read(large)
	s.commit("large", string(large))
	b := s.pushSteps(script.String())
	s.ended(b.ID, "SUCCESSFUL")
	s.logged(b.ID, fmt.Sprint(len(large)))
	s.logged(b.ID, "tried it all")
	for _, l := range s.whole(b.ID) {
		name, _, variable := strings.Cut(l.Text, "=")
		switch {
		case strings.HasPrefix(l.Text, "WORKED: "):
			t.Error(l.Text)
		case len(l.Text) > 500: // Bitbucket's tokens have more than 2,500 characters
			t.Errorf("a line of %d characters: %.60s…", len(l.Text), l.Text)
		case variable && (strings.Contains(name, "TICKET") || strings.Contains(name, "SECRET") || strings.Contains(name, "TOKEN") || strings.Contains(l.Text, "@")):
			t.Errorf("the step could read %s", l.Text)
		}
	}
	s.open("go")
	s.ended(neighbour.ID, "SUCCESSFUL")
}
