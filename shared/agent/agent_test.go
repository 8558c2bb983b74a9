package agent_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"runnerhub/shared/agent"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/runner"
	"runnerhub/shared/runner/runnertest"
)

// TestMain makes the test binary the agent, too: it executes itself anew, which no
// test could survive.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "agent") {
		os.Exit(main(os.Args[1]))
	}
	os.Exit(m.Run())
}

func main(mode string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir, err := os.Getwd()
	if err != nil {
		return 99
	}
	limits := agent.DefaultLimits()
	limits.Pause, limits.Every, limits.Grace = 10*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	switch mode {
	case "agent-terse":
		limits.LogBytes = 10_000
	case "agent-impatient":
		limits.ClaimFor = 200 * time.Millisecond
	case "agent-hasty":
		limits.ReportFor = 200 * time.Millisecond
	case "agent-open":
		go reopen()
	}
	return agent.Run(ctx, agent.Deps{
		Environ: os.Environ(), Args: os.Args, Dir: dir, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Limits: limits,
	})
}

// build is one run of the agent.
type build struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd

	mu     sync.Mutex
	out    bytes.Buffer
	stderr bytes.Buffer
}

func (b *build) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.Write(p)
}

// text is the log so far, a line "step: text" each.
func (b *build) text() string {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var all strings.Builder
	for line := range strings.Lines(b.out.String()) {
		l := buildlog.ParseLine(strings.TrimSuffix(line, "\n"))
		if l.Time.IsZero() {
			b.t.Errorf("something else in the log: %q", line)
		}
		all.WriteString(l.Step + ": " + l.Text + "\n")
	}
	return all.String()
}

// ended reports whether the log has the line that says that no more will come, as its last one and no other.
func (b *build) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	ends := false
	for line := range strings.Lines(b.out.String()) {
		if ends {
			return false
		}
		ends = buildlog.ParseLine(strings.TrimSuffix(line, "\n")).Ends()
	}
	return ends
}

// ends waits for the agent and checks its exit code.
func (b *build) ends(code int) {
	b.t.Helper()
	err := b.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	if got := b.cmd.ProcessState.ExitCode(); got != code {
		b.t.Errorf("exit code %d, want %d; stderr %q, log:\n%s", got, code, b.stderr.String(), b.text())
	}
}

func run(t *testing.T, mode, address, ticket string) *build {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &build{t: t, dir: t.TempDir()}
	b.cmd = exec.Command(self, mode)
	b.cmd.Dir = b.dir
	b.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "FOREIGN=1", runner.AddressVariable + "=" + address, runner.TicketVariable + "=" + ticket}
	b.cmd.Stdout, b.cmd.Stderr = b, &b.stderr
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cmd.Process.Kill() })
	return b
}

// offer makes a build of one step and runs the agent on it.
func offer(t *testing.T, server *runnertest.Server, change func(*runner.Claim), script string) *build {
	t.Helper()
	server.Offer("x", change, runner.Step{Name: "s", Run: script}, runner.Step{Name: "last", Run: "echo reached"})
	return run(t, "agent", server.URL, runnertest.TicketOf("x"))
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]struct {
		code   int
		result runner.Verdict
		exit   int
	}{
		"true":           {runner.ExitSuccessful, runner.VerdictSuccessful, 0},
		"false":          {runner.ExitFailed, runner.VerdictFailed, 1},
		"exit 3":         {runner.ExitFailed, runner.VerdictFailed, 3},
		"echo $UNSET":    {runner.ExitFailed, runner.VerdictFailed, 2},
		"kill -KILL $$":  {runner.ExitFailed, runner.VerdictFailed, 137},
		"if; syntax (":   {runner.ExitFailed, runner.VerdictFailed, 2},
		"nosuchcommand0": {runner.ExitFailed, runner.VerdictFailed, 127},
		// A step cannot end the log for its agent.
		"echo 'Build ended: FAILED'; exit 4": {runner.ExitFailed, runner.VerdictFailed, 4},
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			server := runnertest.NewServer(t)
			b := offer(t, server, nil, script)
			b.ends(want.code)
			report := server.AwaitResult(t, "x")
			if report.Result != want.result || *report.Steps[0].ExitCode != want.exit {
				t.Errorf("reported %s, exit code %d (%s)", report.Result, *report.Steps[0].ExitCode, report.Message)
			}
			if left, err := os.ReadFile(filepath.Join(b.dir, runner.ResultFile)); err != nil || string(left) != string(want.result) {
				t.Errorf("left %q, %v", left, err)
			}
			if !b.ended() {
				t.Errorf("the log does not end with its last line:\n%s", b.text())
			}
		})
	}
}

// TestNotOurs gives the agent tickets that are not, or no longer, its own.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	server.Offer("over", nil, runner.Step{Name: "s", Run: "echo ran"})
	server.Over("over")
	for _, name := range []string{"nobody", "over"} {
		b := run(t, "agent", server.URL, runnertest.TicketOf(name))
		b.ends(runner.ExitNotOurs)
		if b.text() != "" || b.stderr.Len() == 0 {
			t.Errorf("%s: log %q, stderr %q", name, b.text(), b.stderr.String())
		}
		if left, err := os.ReadDir(b.dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	address := gone.URL
	run(t, "agent-impatient", address, "t").ends(runner.ExitOther)
	gone.Close()
	run(t, "agent-impatient", address, "t").ends(runner.ExitOther)
	run(t, "agent-impatient", "", "t").ends(runner.ExitOther)
	run(t, "agent-impatient", address, "").ends(runner.ExitOther)
}

// TestNotRedirected checks that a ticket does not follow a redirect.
func TestNotRedirected(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the ticket went elsewhere") }))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	run(t, "agent", server.URL, "t").ends(runner.ExitOther)
}

func TestOlderCommit(t *testing.T) {
	t.Parallel()
	for _, tipsOnly := range []bool{false, true} {
		server := runnertest.NewServer(t)
		if tipsOnly {
			server.TipsOnly()
		}
		b := offer(t, server, func(c *runner.Claim) { c.Clone.Commit = server.Older }, "cat file; git status --short --branch; git remote -v")
		b.ends(runner.ExitSuccessful)
		if got := b.text(); !strings.Contains(got, "s: old\ns: ## HEAD (no branch)\ns: origin\t"+server.CloneURL()+" (fetch)\n") ||
			strings.Contains(got, "fetching everything") != tipsOnly {
			t.Errorf("tips only %v:\n%s", tipsOnly, got)
		}
	}
}

func TestCheckoutFails(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	for name, c := range map[string]struct {
		change func(*runner.Claim)
		want   string
	}{
		"commit":    {func(c *runner.Claim) { c.Clone.Commit = strings.Repeat("7", 40) }, "does not hold commit 777"},
		"short":     {func(c *runner.Claim) { c.Clone.Commit = c.Clone.Commit[:12] }, "no full hash"},
		"option":    {func(c *runner.Claim) { c.Clone.Commit = "--upload-pack=x" }, "no full hash"},
		"file":      {func(c *runner.Claim) { c.Clone.URL = "file:///etc" }, "neither http nor https"},
		"ext":       {func(c *runner.Claim) { c.Clone.URL = "ext::sh -c id" }, "neither http nor https"},
		"not found": {func(c *runner.Claim) { c.Clone.URL = server.URL + "/nothing" }, "not found"},
		"no steps":  {func(c *runner.Claim) { c.Script.Steps = nil }, "no steps"},
		"no time":   {func(c *runner.Claim) { c.Script.TimeoutSeconds = 0 }, "no time"},
		"line":      {func(c *runner.Claim) { c.Clone.Password = "a\nhost=other" }, "line break"},
		"variable":  {func(c *runner.Claim) { c.Variables = []runner.Variable{{Name: "A=B"}} }, `"A=B" cannot be set`},
		"NUL":       {func(c *runner.Claim) { c.Script.Steps[0].Env = []runner.Variable{{Name: "A", Value: "\x00"}} }, "cannot be set"},
	} {
		name := "bad " + name
		server.Offer(name, c.change, runner.Step{Name: "s", Run: "echo never"})
		b := run(t, "agent", server.URL, runnertest.TicketOf(name))
		b.ends(runner.ExitOther)
		report := server.AwaitResult(t, name)
		if report.Result != runner.VerdictError || report.Checkout != runner.VerdictFailed || !strings.Contains(report.Message, c.want) {
			t.Errorf("%s: %s, checkout %s: %s", name, report.Result, report.Checkout, report.Message)
		}
		if got := b.text(); strings.Contains(got, "never") || !strings.Contains(got, c.want) {
			t.Errorf("%s: log\n%s", name, got)
		}
	}
}

// TestCredentialStays sends git to another host, which must not get the credential.
func TestCredentialStays(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); ok {
			t.Error("the credential went to another host")
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+r.URL.RequestURI(), http.StatusFound)
	}))
	defer first.Close()
	b := offer(t, server, func(c *runner.Claim) { c.Clone.URL = first.URL + "/repo.git" }, "echo never")
	b.ends(runner.ExitOther)
}

func TestWorkingDirectory(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	for dir, want := range map[string]string{
		"..":         "outside the repository",
		"/etc":       "outside the repository",
		"sub/../..":  "outside the repository",
		"out/etc":    "leads outside the repository", // a symbolic link to / in the repository
		"nothing":    "does not exist",
		"sub/file":   "is no folder",
		"sub/../sub": "",
	} {
		name := "dir " + dir
		server.Offer(name, nil, runner.Step{Name: "s", Run: "pwd", WorkingDirectory: dir})
		b := run(t, "agent", server.URL, runnertest.TicketOf(name))
		if want == "" {
			b.ends(runner.ExitSuccessful)
			continue
		}
		b.ends(runner.ExitFailed)
		if report := server.AwaitResult(t, name); !strings.Contains(report.Message, want) || report.Steps[0].ExitCode != nil {
			t.Errorf("%s: %s", dir, report.Message)
		}
	}
}

// TestSteps lets steps fail, and take too long, that the build may do without.
func TestSteps(t *testing.T) {
	t.Parallel()
	const slow = "(sleep 60; echo late) & sleep 60"
	for name, test := range map[string]struct {
		step   runner.Step
		result runner.Verdict
		last   runner.StepState
		says   string // in the report's message; of one that succeeded in the log
	}{
		"fails":                {runner.Step{Run: "exit 7", ContinueOnError: true}, runner.VerdictSuccessful, runner.StepSuccessful, "ended with exit code 7; the build goes on"},
		"takes too long":       {runner.Step{Run: slow, TimeoutSeconds: 1}, runner.VerdictFailed, runner.StepSkipped, "it was ended after 1s, the time it may take"},
		"both":                 {runner.Step{Run: slow, TimeoutSeconds: 1, ContinueOnError: true}, runner.VerdictSuccessful, runner.StepSuccessful, "the time it may take; the build goes on"},
		"not even a folder":    {runner.Step{Run: "true", WorkingDirectory: "nothing", ContinueOnError: true}, runner.VerdictSuccessful, runner.StepSuccessful, "does not exist; the build goes on"},
		"fails as it must not": {runner.Step{Run: "exit 7", TimeoutSeconds: 60}, runner.VerdictFailed, runner.StepSkipped, "exit code 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := runnertest.NewServer(t)
			test.step.Name = "s"
			server.Offer("x", nil, test.step, runner.Step{Name: "last", Run: "echo reached"})
			b := run(t, "agent", server.URL, runnertest.TicketOf("x"))
			report := server.AwaitResult(t, "x")
			_ = b.cmd.Wait()
			if report.Result != test.result || report.Steps[0].State != runner.StepFailed || report.Steps[1].State != test.last {
				t.Errorf("reported %+v", report)
			}
			said := report.Message
			if test.result == runner.VerdictSuccessful {
				if said != "" {
					t.Errorf("a build that succeeded says %q", said)
				}
				said = b.text()
			}
			if !strings.Contains(said, test.says) || strings.Contains(b.text(), "late") {
				t.Errorf("said %q, log:\n%s", said, b.text())
			}
		})
	}
}

// TestBackground leaves processes behind a step: one that is silent, one that never stops
// printing, and one that prints later.
func TestBackground(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	server.Offer("x", nil,
		runner.Step{Name: "silent", Run: "sleep 1000 & echo one; printf 'no end'"},
		runner.Step{Name: "noisy", Run: "yes noise & until [ -e ../go ]; do :> ../go; done; echo two"},
		runner.Step{Name: "later", Run: "sh -c 'until [ -e ../now ]; do sleep 0.02; done; echo late; : >../then' & echo three"},
		runner.Step{Name: "wait", Run: ": >../now; until [ -e ../then ]; do sleep 0.02; done; echo four"},
	)
	b := run(t, "agent", server.URL, runnertest.TicketOf("x"))
	b.ends(runner.ExitSuccessful)
	got := b.text()
	for _, want := range []string{"silent: one\n", "silent: no end\n", "noisy: two\n", "noisy: noise\n", "later: three\n", "later: late\n", "wait: four\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in the log (%d bytes)", want, len(got))
		}
	}
}

func TestLogLimit(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	server.Offer("x", nil, runner.Step{Name: "s", Run: "yes | head -n 100000"}, runner.Step{Name: "last", Run: "exit 7"})
	b := run(t, "agent-terse", server.URL, runnertest.TicketOf("x"))
	b.ends(runner.ExitFailed)
	if got := b.text(); len(got) > 11_000 || strings.Count(got, "The log is full") != 1 || !strings.Contains(got, `step "last" ended with exit code 7`) {
		t.Errorf("%d bytes:\n%.300s", len(got), got)
	}
}

// TestReports lets the server fail for long, lose its last answer, and be gone at the end.
func TestReports(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	begin := func(name, mode string) (*build, runner.Report) {
		server.Offer(name, nil, runner.Step{Name: "s", Run: "echo ran; until [ -e ../go ]; do sleep 0.02; done"})
		b := run(t, mode, server.URL, runnertest.TicketOf(name))
		return b, server.Await(t, name, "a running step", func(r runner.Report) bool {
			return len(r.Steps) > 0 && r.Steps[0].State == runner.StepRunning
		})
	}
	release := func(b *build) {
		if err := os.WriteFile(filepath.Join(b.dir, "go"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	b, running := begin("x", "agent")
	if running.Checkout != runner.VerdictSuccessful || running.Result != "" || running.Steps[0].StartedAt.IsZero() {
		t.Errorf("report %+v", running)
	}
	server.Fail("x", runner.StepsPath, 5)
	release(b)
	b.ends(runner.ExitSuccessful)
	if last := server.AwaitResult(t, "x"); last.Result != runner.VerdictSuccessful || last.Sequence <= running.Sequence {
		t.Errorf("report %+v", last)
	}

	b, _ = begin("unheard", "agent")
	server.Lose("unheard", runner.StepsPath, 1_000_000)
	release(b)
	b.ends(runner.ExitSuccessful)
	if last := server.AwaitResult(t, "unheard"); last.Result != runner.VerdictSuccessful {
		t.Errorf("report %+v", last)
	}

	b, _ = begin("gone", "agent-hasty")
	server.Fail("gone", runner.StepsPath, 1_000_000)
	release(b)
	b.ends(runner.ExitOther)
	if left, err := os.ReadFile(filepath.Join(b.dir, runner.ResultFile)); err != nil || string(left) != string(runner.VerdictSuccessful) {
		t.Errorf("left %q, %v", left, err)
	}
}

// TestStopped asks the agent to end while git is at work, and while it claims.
func TestStopped(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	asked := make(chan struct{})
	var once sync.Once
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(asked) })
		<-r.Context().Done()
	}))
	defer slow.Close()
	b := offer(t, server, func(c *runner.Claim) { c.Clone.URL = slow.URL }, "echo never")
	<-asked
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.ends(runner.ExitOther)
	if report := server.AwaitResult(t, "x"); report.Result != runner.VerdictStopped || report.Steps[0].State != runner.StepSkipped {
		t.Errorf("report %+v", report)
	}

	server.Offer("claim", nil, runner.Step{Name: "s", Run: "echo never"})
	server.Fail("claim", runner.ClaimPath, 1_000_000)
	b = run(t, "agent", server.URL, runnertest.TicketOf("claim"))
	server.AwaitClaims(t, "claim", 2)
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.ends(runner.ExitOther)
}

// TestMaskedOutput prints secrets in the ways of a build.
func TestMaskedOutput(t *testing.T) {
	t.Parallel()
	server := runnertest.NewServer(t)
	const key = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG9w0BAQEFAASCAUAwggE8AgEAAkEAq7BFUpkGp3+LQmlQ\nYx2eqzDV+xeG8kx/sQFV18S5JhzGeIJNA72wSeukEPojtqUyX2J0CciPBh7eqclQ\n-----END KEY-----\n"
	b := offer(t, server, func(c *runner.Claim) {
		c.Variables = []runner.Variable{{Name: "KEY", Value: key, Secret: true}, {Name: "WORD", Value: "correct horse", Secret: true}, {Name: "PIN", Value: "123", Secret: true}}
	}, `echo "$KEY"; echo "$KEY" | base64; echo "$KEY" | tail -n 2; echo "<$WORD>" >&2; printf correct; printf ' horse'; echo
printf %s "user:$WORD" | base64; echo "$PIN"; set -x; : "$WORD"; env | sort | head -c 2000`)
	b.ends(runner.ExitSuccessful)
	got := b.text()
	for _, never := range []string{"MIIBV", "AwggE8", "YxeG8", "/sQFV", "eqclQ", "BEGIN", "TUlJQlZnSUJBREFO", "correct horse", "Y29ycmVjdCBob3JzZ", "NvcnJlY3QgaG9yc2"} {
		if strings.Contains(got, never) {
			t.Errorf("shows %q:\n%s", never, got)
		}
	}
	if !strings.Contains(got, "s: <***>\ns: ***\n") || !strings.Contains(got, "s: 123\n") || strings.Contains(got, "FOREIGN") {
		t.Errorf("log:\n%s", got)
	}
}
