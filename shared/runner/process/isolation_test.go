package process_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
	"runnerhub/shared/runner/process"
	"runnerhub/shared/runner/runnertest"
	"runnerhub/shared/secret"
)

// needsRoot fails tests of what only root can do.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test must run as root: it is about builds under users of their own")
	}
}

func job(server *runnertest.Server, name string) runner.Job {
	return runner.Job{
		Build: "b-" + name, Log: "b-" + name, Attempt: "a-" + name, Address: server.URL,
		Ticket: secret.New(runnertest.TicketOf(name)), Timeout: time.Minute,
	}
}

// ends collects the events of a runner's attempts.
type ends chan runner.Event

func (e ends) notify(_ context.Context, event runner.Event) { e <- event }

func (e ends) await(t *testing.T) runner.Event {
	t.Helper()
	select {
	case event := <-e:
		return event
	case <-time.After(time.Minute):
		t.Fatal("no event within a minute")
		panic("unreachable")
	}
}

// awaitLine waits until a build printed a line that begins with prefix, and answers its rest.
func awaitLine(t *testing.T, dir, build, prefix string) string {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-tick.C {
		for _, l := range readLog(t, dir, build) {
			if rest, ok := strings.CutPrefix(l.Text, prefix); ok {
				return rest
			}
		}
	}
	t.Fatalf("no line %q in %+v", prefix, readLog(t, dir, build))
	return ""
}

func start(t *testing.T, r runner.Runner, j runner.Job) {
	t.Helper()
	if ref, err := r.Start(t.Context(), j); err != nil || ref != j.Attempt {
		t.Fatalf("Start = %q, %v", ref, err)
	}
}

// TestIsolation lets a build try to read what is not its own.
func TestIsolation(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "db"), []byte("all secrets"), 0o644); err != nil {
		t.Fatal(err)
	}
	// A log the build could write to, were it not behind a closed folder.
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	r := open(t, d)
	if !r.Isolated() {
		t.Fatal("not isolated as root")
	}
	serveAgents(t, r, server)
	server.Offer("victim", nil, runner.Step{Name: "v", Run: "chmod -R a+rwX .. || :; echo victim $$ $(id -u) $(pwd); while :; do sleep 100; done"})
	start(t, r, job(server, "victim"))
	var pid, uid, source string
	if _, err := fmt.Sscan(awaitLine(t, dir, "b-victim", "victim "), &pid, &uid, &source); err != nil {
		t.Fatal(err)
	}
	work := filepath.Dir(source)
	if info, err := os.Stat(work); err != nil || !strings.HasPrefix(work, dir) {
		t.Fatalf("the victim's folder is %s: %v, %v", work, info, err)
	}
	attack := fmt.Sprintf(`
try() { if ( "$@" ) >/dev/null 2>&1; then echo "CAN $*"; fi; }
try cat %[1]s/db
try ls %[1]s
try ls %[2]s
try cat %[2]s/b-victim
try ls %[3]s
try ls %[4]s
try cat /proc/%[5]d/environ
try ls /proc/%[5]d/fd
try cat /proc/%[6]s/environ
try ls /proc/%[6]s/cwd/
try kill -0 %[5]d
try kill -0 %[6]s
try cat %[7]s/meta.json
try touch %[7]s/x
try touch %[8]s/server.sock.x
try mv %[8]s/server.sock %[8]s/x
try rm -f %[8]s/server.sock
try ls /run/runnerhub
try touch /run/runnerhub/61999
try cat /etc/shadow
try su -c true
try chgrp 0 .
echo "I am $(id -u) $(id -g) $(id -G) $(umask) $(awk '/NoNewPrivs/ {print $2}' /proc/self/status) $(nice) $(ulimit -c)"
echo "env $(env | cut -d= -f1 | sort | tr '\n' ' ')"
touch /tmp/left-by-$(id -u); mkdir -p deep/er; chmod 0 deep/er; chmod 500 deep
`, data, filepath.Join(dir, "logs"), filepath.Join(dir, "runner", "attempts"), source, os.Getpid(), pid, filepath.Dir(work), filepath.Join(dir, "runner", "run"))
	server.Offer("thief", nil, runner.Step{Name: "t", Run: attack})
	start(t, r, job(server, "thief"))
	if e := heard.await(t); e.Attempt != "a-thief" || e.State.Result != runner.Succeeded {
		t.Fatalf("event %+v; log %+v", e, readLog(t, dir, "b-thief"))
	}
	var said []string
	for _, l := range readLog(t, dir, "b-thief") {
		if strings.HasPrefix(l.Text, "CAN") {
			t.Errorf("a build can: %s", strings.TrimPrefix(l.Text, "CAN "))
		}
		said = append(said, l.Text)
	}
	all := strings.Join(said, "\n")
	var thief, group, groups int
	var rest string
	if _, err := fmt.Sscanf(awaitLine(t, dir, "b-thief", "I am "), "%d %d %d %s", &thief, &group, &groups, &rest); err != nil {
		t.Fatalf("%v in %s", err, all)
	}
	if thief == 0 || strconv.Itoa(thief) == uid || group != thief || groups != thief {
		t.Errorf("thief is %d %d %d, victim %s", thief, group, groups, uid)
	}
	if !strings.Contains(all, " 0077 1 5 0\n") {
		t.Errorf("umask, no_new_privs, niceness and core limit are not 0077 1 5 0:\n%s", all)
	}
	if !strings.Contains(all, "env CI HOME LANG PATH PWD RUNNERHUB TERM TMPDIR \n") {
		t.Errorf("environment:\n%s", all)
	}
	for _, gone := range []string{fmt.Sprintf("/tmp/left-by-%d", thief), filepath.Join(dir, "runner/attempts/a-thief/work")} {
		if _, err := os.Lstat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	if err := r.Stop(t.Context(), "a-victim"); err != nil {
		t.Fatal(err)
	}
	if e := heard.await(t); e.Attempt != "a-victim" || e.State.Result != runner.Stopped {
		t.Errorf("event %+v", e)
	}
}

// TestUnreachable chooses a folder that a build's user cannot get to.
func TestUnreachable(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir := newDir(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := process.New(deps(t, dir))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "others may traverse") {
		t.Errorf("New = %v, want it refused with the reason", err)
	}
}

// TestResultIsNoTrap lets a build put what would harm a reader in the place of its result.
func TestResultIsNoTrap(t *testing.T) {
	t.Parallel()
	for name, trap := range map[string]string{
		"fifo": "mkfifo ../result", "link": "echo SUCCESSFUL >../x; ln -s x ../result", "folder": "mkdir ../result", "big": "yes | head -c 1000000 >../result",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, server := newDir(t), runnertest.NewServer(t)
			d, heard := deps(t, dir), make(ends, 10)
			d.Notify = heard.notify
			r := open(t, d)
			server.Offer("trap", nil, runner.Step{Name: "s", Run: trap + "\nkill -KILL $PPID"})
			start(t, r, job(server, "trap"))
			if e := heard.await(t); e.State.Phase != runner.Ended || e.State.Result != runner.Errored || !strings.Contains(e.State.Detail, "without a result") {
				t.Errorf("event %+v", e)
			}
		})
	}
}

// TestKilledAgent kills the agent alone: what it started must not outlive it.
func TestKilledAgent(t *testing.T) {
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	r := open(t, d)
	server.Offer("orphans", nil, runner.Step{Name: "s", Run: `setsid sh -c 'cd /; echo "daemon $$"; while :; do sleep 100; done' &
echo "agent $PPID"; while :; do sleep 100; done`})
	start(t, r, job(server, "orphans"))
	daemon, agent := awaitLine(t, dir, "b-orphans", "daemon "), awaitLine(t, dir, "b-orphans", "agent ")
	pid, err := strconv.Atoi(agent)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := heard.await(t); e.State.Result != runner.Errored {
		t.Errorf("event %+v", e)
	}
	if alive(t, daemon) {
		t.Error("the daemon lives on")
	}
}

// TestBackstop ends an agent that does not end by itself.
func TestBackstop(t *testing.T) {
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	late := time.Now().Add(-2*time.Minute - 58*time.Second) // the attempt's minute and the backstop are nearly over
	d.Now = func() time.Time { return late }
	first := open(t, d)
	server.Offer("stuck", nil, runner.Step{Name: "s", Run: "while :; do sleep 100; done"})
	start(t, first, job(server, "stuck"))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	d.Now = time.Now
	open(t, d)
	if e := heard.await(t); e.State.Result != runner.TimedOut {
		t.Errorf("event %+v", e)
	}
}

// TestInterruptedStart finds what a server left that died while it started an attempt.
func TestInterruptedStart(t *testing.T) {
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d := deps(t, dir)
	heard := make(ends, 10)
	d.Notify = heard.notify
	attempts := filepath.Join(d.Dir, "attempts")
	for _, name := range []string{"a-unsure/work", "a-never/work"} {
		if err := os.MkdirAll(filepath.Join(attempts, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	record := `{"build":"b-unsure","attempt":"a-unsure","until":"2100-01-01T00:00:00Z","state":{"Phase":"RUNNING"}}`
	if err := os.WriteFile(filepath.Join(attempts, "a-unsure/meta.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, d)
	if e := heard.await(t); e.Attempt != "a-unsure" || e.State.Phase != runner.Lost {
		t.Errorf("event %+v", e)
	}
	server.Offer("unsure", nil, runner.Step{Name: "s", Run: "true"})
	server.Offer("never", nil, runner.Step{Name: "s", Run: "true"})
	start(t, r, job(server, "unsure"))
	if s, err := r.State(t.Context(), "a-unsure"); err != nil || s.Phase != runner.Lost {
		t.Errorf("State = %+v, %v: it was started although it may have run", s, err)
	}
	start(t, r, job(server, "never"))
	if e := heard.await(t); e.Attempt != "a-never" || e.State.Result != runner.Succeeded {
		t.Errorf("event %+v", e)
	}
	if _, claims, _ := server.Last("unsure"); claims != 0 {
		t.Errorf("the unsure attempt claimed %d times", claims)
	}
}

// TestMachineRestarted finds a build that went down with its machine: nothing is known
// of its steps, so it did not fail.
func TestMachineRestarted(t *testing.T) {
	t.Parallel()
	d, heard := deps(t, newDir(t)), make(ends, 10)
	d.Notify = heard.notify
	attempt := filepath.Join(d.Dir, "attempts/a-down")
	if err := os.MkdirAll(filepath.Join(attempt, "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	record := `{"build":"b-down","attempt":"a-down","boot":"an earlier one","pid":1,"until":"2100-01-01T00:00:00Z","state":{"Phase":"RUNNING"}}`
	if err := os.WriteFile(filepath.Join(attempt, "meta.json"), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, d)
	want := runner.State{Phase: runner.Ended, Result: runner.Errored, Detail: "the machine was restarted"}
	if e := heard.await(t); e.Attempt != "a-down" || e.State != want {
		t.Errorf("event %+v", e)
	}
}

// TestOneServer refuses a second runner over the same folder.
func TestOneServer(t *testing.T) {
	t.Parallel()
	d := deps(t, newDir(t))
	open(t, d)
	if _, err := process.New(d); err == nil || !strings.Contains(err.Error(), "another server uses this folder") {
		t.Errorf("second New = %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	r := open(t, deps(t, dir))
	for name, change := range map[string]func(*runner.Job){
		"path":       func(j *runner.Job) { j.Attempt = "../x" },
		"hidden":     func(j *runner.Job) { j.Attempt = ".x" },
		"no attempt": func(j *runner.Job) { j.Attempt = "" },
		"no ticket":  func(j *runner.Job) { j.Ticket = secret.Text{} },
		"no time":    func(j *runner.Job) { j.Timeout = 0 },
		"an image":   func(j *runner.Job) { j.Image = "golang" },
		"a machine":  func(j *runner.Job) { j.Compute = "small" },
	} {
		j := runner.Job{Build: "b", Log: "b", Attempt: "a", Address: "http://127.0.0.1", Ticket: secret.New("t"), Timeout: time.Minute}
		change(&j)
		if _, err := r.Start(t.Context(), j); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: Start = %v", name, err)
		}
	}
	for name, change := range map[string]func(*process.Deps){
		"no program": func(d *process.Deps) { d.Program = nil },
		"relative":   func(d *process.Deps) { d.Dir = "runner" },
		"no slots":   func(d *process.Deps) { d.Slots = 0 },
		"no log":     func(d *process.Deps) { d.Log = nil },
		"no grace":   func(d *process.Deps) { d.Grace = 0 },
	} {
		d := deps(t, newDir(t))
		change(&d)
		if _, err := process.New(d); err == nil {
			t.Errorf("%s: New accepted it", name)
		}
	}
}

// serverMode runs the test binary as a server that starts one attempt and then has
// only its death to wait for.
func serverMode() int {
	dir, address, name := os.Args[2], os.Args[3], os.Args[4]
	self, err := os.Executable()
	if err != nil {
		return 1
	}
	r, err := process.New(process.Deps{
		Dir: filepath.Join(dir, "runner"), Program: []string{self, "agent"}, Path: os.Getenv("PATH"), Slots: 1, Grace: time.Minute,
		Log: func(context.Context, string) (*os.File, error) {
			return os.OpenFile(filepath.Join(dir, "logs", "b-"+name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		},
		Notify: func(context.Context, runner.Event) {}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err == nil {
		_, err = r.Start(context.Background(), runner.Job{
			Build: "b-" + name, Log: "b-" + name, Attempt: "a-" + name, Address: address, Ticket: secret.New(runnertest.TicketOf(name)), Timeout: time.Minute,
		})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("started")
	select {}
}

// TestServerKilled kills the server in the middle of a build, which must go on, lose no
// output, and be found again.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	server.Offer("killed", nil,
		runner.Step{Name: "s", Run: `echo before; until [ -e "$TMPDIR/../go" ]; do sleep 0.05; done; echo after`},
		runner.Step{Name: "t", Run: "exit 4"})
	cmd := exec.Command(d.Program[0], "server", dir, server.URL, "killed")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 200)
	n, err := out.Read(said)
	if got := string(said[:n]); err != nil || got != "started\n" {
		t.Fatalf("server said %q, %v", got, err)
	}
	awaitLine(t, dir, "b-killed", "before")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	r := open(t, d)
	if s, err := r.State(t.Context(), "a-killed"); err != nil || s.Phase != runner.Running {
		t.Errorf("State = %+v, %v, want RUNNING", s, err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "attempts/a-killed/work/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if e := heard.await(t); e.Attempt != "a-killed" || e.State.Result != runner.Failed || e.State.Detail != "" {
		t.Errorf("event %+v", e)
	}
	if report := server.AwaitResult(t, "killed"); report.Result != runner.VerdictFailed || *report.Steps[1].ExitCode != 4 {
		t.Errorf("report %+v", report)
	}
	awaitLine(t, dir, "b-killed", "after")
}

// TestUnprivileged runs this package's other tests, those that do not need root, as a
// user without rights, where builds are not apart.
func TestUnprivileged(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir := newDir(t)
	const nobody = 65534
	binary := filepath.Join(dir, "tests")
	body, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, body, 0o755); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run", "^(TestConformance|TestKilledAgent|TestServerKilled|TestInterruptedStart|TestResultIsNoTrap|TestReadOnly|TestSocket)$", "-test.timeout", "5m")
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestReadOnly removes a build's files although the build forbade it.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir, server := newDir(t), runnertest.NewServer(t)
	d, heard := deps(t, dir), make(ends, 10)
	d.Notify = heard.notify
	r := open(t, d)
	server.Offer("fixed", nil, runner.Step{Name: "s", Run: "mkdir -p a/b/c; touch a/b/c/f; chmod -R 500 a; chmod 0 a/b"})
	start(t, r, job(server, "fixed"))
	if e := heard.await(t); e.State.Result != runner.Succeeded {
		t.Errorf("event %+v", e)
	}
	if _, err := os.Lstat(filepath.Join(d.Dir, "attempts/a-fixed/work")); !os.IsNotExist(err) {
		t.Errorf("the build's folder is left: %v", err)
	}
}
