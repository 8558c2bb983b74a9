package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"runnerhub/shared/runner"
)

// attempt is one agent: a folder that exists once, a record in it, a process.
type attempt struct {
	dir     string
	meta    meta          // guarded by Runner.mu once the attempt is in its map
	stop    chan struct{} // closed when Stop was asked for
	foreign bool          // its user id belongs to another server now
}

// meta is the record of an attempt, written before the process starts and whenever
// more is known.
type meta struct {
	Build    string       `json:"build"`
	Attempt  string       `json:"attempt"`
	UID      int          `json:"uid"`  // also the group; 0: the server's own
	Boot     string       `json:"boot"` // which run of the machine PID belongs to
	PID      int          `json:"pid"`
	Ticks    uint64       `json:"ticks"` // when PID started, to tell it from a later process of that number
	Until    time.Time    `json:"until"`
	Stopping bool         `json:"stopping,omitempty"`
	State    runner.State `json:"state"`
	EndedAt  time.Time    `json:"ended_at,omitzero"`
}

func newAttempt(dir string) *attempt { return &attempt{dir: dir, stop: make(chan struct{})} }

// work is the agent's folder; everything beside it belongs to the server.
func (a *attempt) work() string     { return filepath.Join(a.dir, "work") }
func (a *attempt) metaFile() string { return filepath.Join(a.dir, "meta.json") }
func (a *attempt) errFile() string  { return filepath.Join(a.dir, "stderr") }

func (a *attempt) over() bool {
	return a.meta.State.Phase == runner.Ended || a.meta.State.Phase == runner.Lost
}

// makeWork makes the agent's folder, which only its user gets to: the build may open
// that folder to everybody, but not the one around it.
func (a *attempt) makeWork() error {
	if err := os.Mkdir(a.work(), 0o700); err != nil || a.meta.UID == 0 {
		return err
	}
	return errors.Join(
		os.Lchown(a.work(), a.meta.UID, a.meta.UID),
		os.Lchown(a.dir, 0, a.meta.UID),
		os.Chmod(a.dir, 0o710),
	)
}

// save writes the record durably.
func (a *attempt) save() error {
	body, err := json.Marshal(a.meta)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if err := writeDurably(a.metaFile(), bytes.NewReader(body), 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// watch waits for the end of an attempt and brings it about where need be. It
// returns early when the Runner is closed.
func (r *Runner) watch(a *attempt) {
	r.mu.Lock()
	known := a.meta
	r.mu.Unlock()
	proc, err := findProcess(known)
	switch {
	case err != nil:
		r.Logger.Error("watch attempt", "attempt", known.Attempt, "err", err)
	case proc != nil:
		defer proc.close()
	}
	limit := time.NewTimer(known.Until.Sub(r.Now()))
	defer limit.Stop()
	ended := make(chan error, 1)
	if proc == nil {
		ended <- err
	} else {
		r.watchers.Go(func() { ended <- proc.wait(r.ctx) })
	}
	stop := a.stop
	var kill <-chan time.Time
	timedOut := false
	for {
		select {
		case <-r.ctx.Done():
			return
		case err := <-ended:
			if r.ctx.Err() == nil {
				r.finish(a, timedOut, err)
			}
			return
		case <-limit.C:
			timedOut = true
			proc.signal(unix.SIGKILL)
		case <-stop:
			stop = nil
			proc.signal(unix.SIGTERM)
			kill = time.After(r.Grace)
		case <-kill:
			proc.signal(unix.SIGKILL)
		}
	}
}

// finish kills what is left of an attempt, records how it ended and says so.
func (r *Runner) finish(a *attempt, timedOut bool, waitErr error) {
	log := r.Logger.With("attempt", a.meta.Attempt, "build", a.meta.Build)
	if waitErr != nil {
		log.Error("wait for attempt", "err", waitErr)
	}
	clean := !a.foreign
	if !a.foreign {
		if err := killRest(a); err != nil {
			log.Error("kill what an attempt left", "err", err)
			clean = false
		}
	}
	r.mu.Lock()
	state := a.outcome(timedOut)
	r.mu.Unlock()
	if err := a.clear(); err != nil {
		log.Error("remove a build's files", "err", err)
		clean = false
	}
	r.mu.Lock()
	if clean && r.isolated { // otherwise no other build gets the id from this server
		r.uids.release(a.meta.UID)
	}
	a.meta.State, a.meta.EndedAt = state, r.Now().UTC()
	err := a.save()
	event := runner.Event{Build: a.meta.Build, Attempt: a.meta.Attempt, Ref: a.meta.Attempt, State: state, At: a.meta.EndedAt}
	r.mu.Unlock()
	if err != nil {
		log.Error("record the end of an attempt", "err", err)
	}
	ctx, cancel := context.WithTimeout(r.ctx, notifyTimeout)
	defer cancel()
	r.Notify(ctx, event)
}

// outcome answers how the attempt ended, by what the agent left.
func (a *attempt) outcome(timedOut bool) runner.State {
	ended := func(result runner.Result, detail string) runner.State {
		return runner.State{Phase: runner.Ended, Result: result, Detail: detail}
	}
	if a.meta.PID == 0 {
		return runner.State{Phase: runner.Lost, Detail: "the server was interrupted while it started the build"}
	}
	if timedOut {
		return ended(runner.TimedOut, "killed: the agent did not end by itself in time")
	}
	switch left, _ := readSmall(filepath.Join(a.work(), runner.ResultFile)); runner.Verdict(left) {
	case runner.VerdictSuccessful:
		return ended(runner.Succeeded, "")
	case runner.VerdictFailed:
		return ended(runner.Failed, "")
	case runner.VerdictTimeout:
		return ended(runner.TimedOut, "")
	case runner.VerdictStopped:
		return ended(runner.Stopped, "")
	case runner.VerdictError:
		return ended(runner.Errored, "the agent could not prepare the build")
	}
	if a.meta.Stopping {
		return ended(runner.Stopped, "")
	}
	if a.meta.Boot != bootID() {
		return ended(runner.Errored, "the machine was restarted")
	}
	detail := "the agent ended without a result"
	if said, _ := readSmall(a.errFile()); said != "" {
		detail += ": " + said
	}
	return ended(runner.Errored, detail)
}

// clear removes the build's files. They are taken from its user first, so that the
// next build under the same id cannot read them even if the removal fails.
func (a *attempt) clear() error {
	var errs []error
	if a.meta.UID != 0 {
		if err := os.Lchown(a.work(), 0, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		if !a.foreign {
			errs = append(errs, clearTemp(a.meta.UID))
		}
	}
	return errors.Join(append(errs, removeTree(a.work()))...)
}

// removeTree removes a folder with read-only folders in it.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || os.Geteuid() == 0 {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// clearTemp removes what the user left in the folders everybody may write to.
func clearTemp(uid int) error {
	var errs []error
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/run/lock"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			var st unix.Stat_t
			if unix.Lstat(path, &st) == nil && int(st.Uid) == uid {
				errs = append(errs, os.RemoveAll(path))
			}
		}
	}
	return errors.Join(errs...)
}

// readSmall reads the beginning of a file that a build may have made: no link is
// followed and no pipe waited for.
func readSmall(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	file := os.NewFile(uintptr(fd), path)
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.New("no regular file")
	}
	body, err := io.ReadAll(io.LimitReader(file, 300))
	return strings.ToValidUTF8(strings.TrimSpace(string(body)), "\uFFFD"), err
}

// writeDurably replaces a file; after it returned, a crash shows the old or the new content.
func writeDurably(path string, body io.Reader, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already when all went well
	_, err = io.Copy(file, body)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// lockFile takes the lock on a folder, which lasts as long as the file is open.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("another server uses this folder: %w", err)
	}
	return file, nil
}

// unlockFile gives the lock up, even while a process that is just being started
// has the file open, too.
func unlockFile(file *os.File) error {
	return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
}
