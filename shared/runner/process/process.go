// Package process is the runner driver that starts each build's agent as a process
// of this machine. The processes live apart from the server: it may end, die and be
// started again while they run, and the next instance over the same folder finds them,
// waits for them and ends them.
//
// As root on Linux, each running build has a user id of its own, without a name and without
// groups, which can read neither the server's files and environment nor another build,
// and all of whose processes are killed when the build ends. Otherwise a build is as mighty as
// the server's own user, and Isolated says so. It is no sandbox: a build sees the
// machine's network, its world-readable files and its process list.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
)

const (
	// DefaultBaseUID is the first user id of builds. Debian leaves 60000 to 64999 to dynamic use.
	DefaultBaseUID = 61000
	// uidRange is how many ids from the base on are tried for one that is free.
	uidRange = 1000
	// backstop is how much longer than its own limit an agent may take to end by itself.
	backstop = 2 * time.Minute
	// keepEnded is how long the runner knows of an attempt that ended.
	keepEnded = 7 * 24 * time.Hour
	// notifyTimeout bounds one call of Notify.
	notifyTimeout = 30 * time.Second
)

var attemptPattern = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)

// Deps is what a Runner needs. What has no remark is required.
type Deps struct {
	// Dir is the driver's folder, absolute. As root, other users must be able to get
	// there (every folder above it has the x bit for others); what is in it is protected.
	// A folder that is there already has to be the server's own.
	Dir string
	// Program is the agent: the path of its file, and arguments. As root it is copied into Dir.
	Program []string
	// Path is the PATH of builds.
	Path string
	// BaseUID is the first user id for builds; 0 means DefaultBaseUID. Only used as root.
	BaseUID int
	// Log opens a build's log for appending. The agent writes to it directly, so
	// that nothing is lost while the server is away. The driver closes its copy.
	Log func(ctx context.Context, build string) (*os.File, error)
	// Notify hears of attempts that ended. It may be called twice for one.
	Notify func(ctx context.Context, event runner.Event)
	// Slots is how many attempts run at once.
	Slots int
	// Grace is the time from asking an agent to stop to killing it; it must suffice
	// for the agent's own grace and its last report.
	Grace  time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

// Runner starts agents as processes. It is safe for concurrent use, and owns its
// folder: a second one over the same folder is refused.
type Runner struct {
	Deps
	program  []string // argv prefix of the agent; guarded by mu once open
	isolated bool
	ownIPC   bool // builds have shared memory of their own
	lock     *os.File
	ctx      context.Context // ends with Close
	close    context.CancelFunc
	watchers sync.WaitGroup

	mu       sync.Mutex
	attempts map[string]*attempt
	uids     *uidPool           // nil where builds have no users of their own
	serve    func(net.Listener) // nil until Serve
}

// New opens the folder, takes up the attempts that an earlier instance left, and is
// ready to start others.
func New(deps Deps) (*Runner, error) {
	switch {
	case len(deps.Program) == 0 || deps.Path == "" || deps.Log == nil || deps.Notify == nil || deps.Logger == nil || deps.Now == nil:
		return nil, errors.New("new process runner: Program, Path, Log, Notify, Logger and Now are required")
	case !filepath.IsAbs(deps.Dir) || !filepath.IsAbs(deps.Program[0]):
		return nil, errors.New("new process runner: Dir and Program must be absolute paths")
	case deps.Slots < 1 || deps.Grace <= 0:
		return nil, errors.New("new process runner: Slots and Grace must be positive")
	}
	if deps.BaseUID == 0 {
		deps.BaseUID = DefaultBaseUID
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Runner{
		Deps: deps, program: deps.Program, isolated: canIsolate(), ctx: ctx, close: cancel,
		attempts: map[string]*attempt{},
	}
	if err := r.open(); err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("open runner folder %s: %w", deps.Dir, err)
	}
	return r, nil
}

// open makes the folder ready and takes up what is in it.
func (r *Runner) open() error {
	if err := r.checkSocket(); err != nil {
		return err
	}
	if err := r.makeFolders(); err != nil {
		return err
	}
	lock, err := lockFile(filepath.Join(r.Dir, "lock"))
	if err != nil {
		return err
	}
	r.lock = lock
	if r.isolated {
		if r.uids, err = newUIDPool(r.BaseUID, usersDir, filepath.Join(r.Dir, "last-user")); err != nil {
			return err
		}
		if r.program, err = installProgram(r.programDir(), r.Program); err != nil {
			return err
		}
		if err := r.reachable(); err != nil {
			return err
		}
	}
	return r.takeUp()
}

// Isolated reports whether builds run as other users than the server, and so can
// read neither it nor each other.
func (r *Runner) Isolated() bool { return r.isolated }

// Close lets go of the folder and ends watching. Builds go on; the next Runner over
// the folder takes them up.
func (r *Runner) Close() error {
	r.close()
	r.watchers.Wait()
	if r.uids != nil {
		r.uids.close()
	}
	if r.lock == nil {
		return nil
	}
	return unlockFile(r.lock)
}

// Start implements runner.Runner. The reference is the attempt's id.
func (r *Runner) Start(ctx context.Context, job runner.Job) (string, error) {
	switch {
	case !attemptPattern.MatchString(job.Attempt):
		return "", fault.New(fault.Invalid, "the attempt's id cannot name a folder")
	case job.Image != "" || job.Compute != "":
		return "", fault.New(fault.Invalid, "a process has neither an image nor a machine of its own")
	case job.Build == "" || job.Log == "" || job.Address == "" || job.Ticket.Empty() || job.Timeout <= 0:
		return "", fault.New(fault.Invalid, "a job needs build, log, address, ticket and timeout")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return "", fault.New(fault.Unavailable, "the runner is closed")
	}
	if _, known := r.attempts[job.Attempt]; known {
		return job.Attempt, nil
	}
	r.prune()
	if r.busy() >= r.Slots {
		return "", fault.New(fault.RateLimited, "all %d slots of this machine are busy", r.Slots)
	}
	if err := r.start(ctx, job); err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "the build's process could not be started")
	}
	return job.Attempt, nil
}

// Stop implements runner.Runner. It asks; the attempt has ended when State says so.
func (r *Runner) Stop(_ context.Context, ref string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[ref]
	if a == nil || a.over() || a.meta.Stopping {
		return nil
	}
	a.meta.Stopping = true
	if err := a.save(); err != nil {
		a.meta.Stopping = false
		return fault.Wrap(fault.Unavailable, err, "the stop could not be recorded")
	}
	close(a.stop)
	return nil
}

// State implements runner.Runner.
func (r *Runner) State(_ context.Context, ref string) (runner.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.attempts[ref]; a != nil {
		return a.meta.State, nil
	}
	return runner.State{Phase: runner.Lost, Detail: "this machine knows no such attempt"}, nil
}

// busy counts the attempts that hold a slot.
func (r *Runner) busy() int {
	n := 0
	for _, a := range r.attempts {
		if !a.over() {
			n++
		}
	}
	return n
}

// prune forgets attempts that ended long ago.
func (r *Runner) prune() {
	for ref, a := range r.attempts {
		if a.over() && r.Now().Sub(a.meta.EndedAt) > keepEnded {
			if err := os.RemoveAll(a.dir); err != nil {
				r.Logger.Warn("forget attempt", "attempt", ref, "err", err)
				continue
			}
			delete(r.attempts, ref)
		}
	}
}

// start makes the attempt's folder, which exists once, then its record, then its process.
func (r *Runner) start(ctx context.Context, job runner.Job) (err error) {
	if err := r.restore(); err != nil {
		return fmt.Errorf("make the runner's folder again: %w", err)
	}
	log, err := r.Log(ctx, job.Log)
	if err != nil {
		return fmt.Errorf("open the build's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	a := newAttempt(filepath.Join(r.attemptsDir(), job.Attempt))
	now := r.Now()
	a.meta = meta{
		Build: job.Build, Attempt: job.Attempt, Boot: bootID(), Until: now.Add(job.Timeout + backstop),
		State: runner.State{Phase: runner.Running},
	}
	if r.isolated {
		if a.meta.UID, err = r.uids.pick(); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				r.uids.release(a.meta.UID)
			}
		}()
	}
	if err := os.Mkdir(a.dir, 0o700); err != nil {
		return fmt.Errorf("make the attempt's folder: %w", err)
	}
	defer func() {
		if err != nil { // it never ran, so it may be started again
			err = errors.Join(err, os.RemoveAll(a.dir))
		}
	}()
	if err := a.makeWork(); err != nil {
		return fmt.Errorf("make the build's folder: %w", err)
	}
	if err := a.save(); err != nil {
		return err
	}
	env := []string{
		"PATH=" + r.Path,
		runner.AddressVariable + "=" + job.Address,
		runner.TicketVariable + "=" + job.Ticket.Reveal(),
	}
	if err := a.launch(r.program, env, log, r.ownIPC); err != nil {
		return err
	}
	// From here on it runs. Were the record not to be written, the next instance would
	// call the attempt lost and kill it; this one knows it all the same.
	if err := a.save(); err != nil {
		r.Logger.Error("record a started attempt", "attempt", job.Attempt, "err", err)
	}
	r.attempts[job.Attempt] = a
	r.watchers.Go(func() { r.watch(a) })
	return nil
}

// takeUp reads the records that an earlier instance left.
func (r *Runner) takeUp() error {
	entries, err := os.ReadDir(r.attemptsDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		a := newAttempt(filepath.Join(r.attemptsDir(), e.Name()))
		body, err := os.ReadFile(a.metaFile())
		if errors.Is(err, os.ErrNotExist) {
			// The record precedes the process, so this one never ran.
			if err := os.RemoveAll(a.dir); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(body, &a.meta); err != nil {
			return fmt.Errorf("read record of attempt %s: %w", e.Name(), err)
		}
		r.attempts[e.Name()] = a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.attempts {
		if a.over() {
			continue
		}
		if a.meta.UID != 0 && r.isolated {
			// Another server takes an id only when nothing of ours runs under it.
			held, err := r.uids.holdAgain(a.meta.UID)
			if err != nil {
				return err
			}
			if a.foreign = !held; a.foreign {
				r.Logger.Warn("another server uses the user id of a build; what runs under it is left alone", "attempt", a.meta.Attempt, "user", a.meta.UID)
			}
		}
		if a.meta.Stopping {
			close(a.stop)
		}
		r.watchers.Go(func() { r.watch(a) })
	}
	r.prune()
	return nil
}
