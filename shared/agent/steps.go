package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"runnerhub/shared/runner"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// workshop runs the steps of one build, one after the other.
type workshop struct {
	dir   string // the agent's folder
	path  string // PATH
	env   []runner.Variable
	mask  *mask
	log   *logbook
	grace time.Duration // from asking a step to end to killing everything

	readers sync.WaitGroup
	pipes   []*os.File // read ends, which background processes may still write to
	groups  []int      // process groups of the steps
}

// run runs one step and answers the exit code of its shell. An error is a step that
// could not be run, or that ctx ended; the code then means nothing.
func (w *workshop) run(ctx context.Context, index int, step runner.Step) (int, error) {
	folder, err := w.folder(step.WorkingDirectory)
	if err != nil {
		return 0, err
	}
	script := filepath.Join(w.dir, "scripts", strconv.Itoa(index))
	if err := os.WriteFile(script, []byte(step.Run), 0o600); err != nil {
		return 0, fmt.Errorf("write script: %w", err)
	}
	r, pw, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("make output pipe: %w", err)
	}
	w.pipes = append(w.pipes, r)
	cmd := exec.CommandContext(ctx, "/bin/sh", "-eu", script)
	cmd.Dir = folder
	cmd.Env = w.environ(step.Env)
	cmd.Stdout, cmd.Stderr = pw, pw
	endGroup(cmd)
	cmd.WaitDelay = w.grace
	err = cmd.Start()
	_ = pw.Close()
	if err != nil {
		return 0, fmt.Errorf("start shell: %w", err)
	}
	w.groups = append(w.groups, cmd.Process.Pid)
	drained := make(chan struct{})
	w.readers.Go(func() { w.read(r, step.Name, drained) })
	err = cmd.Wait()
	// What the shell and its children wrote is in the pipe by now. The reader is interrupted so
	// that it takes that, and no more: a background process may hold the pipe open for long.
	_ = r.SetReadDeadline(time.Unix(1, 0))
	<-drained
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, fmt.Errorf("wait for shell: %w", err)
	}
	return exitCode(exit), nil
}

// close waits for the readers; every process that could write must be dead, or is given up.
func (w *workshop) close() {
	for _, r := range w.pipes {
		_ = r.Close()
	}
	w.readers.Wait()
}

// read logs what comes out of r until it ends. It closes drained once, when the read
// deadline passed and the pipe was seen empty, or at the end.
func (w *workshop) read(r *os.File, step string, drained chan struct{}) {
	cut := &lines{write: func(text string) { w.log.line(step, text) }}
	masked := &maskWriter{mask: w.mask, emit: cut.add}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		masked.write(buf[:n])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = drain(r, buf, masked.write)
			if err == nil {
				if !masked.holds() { // otherwise a secret may be half written
					cut.flush()
				}
				close(drained)
				drained = nil
				err = r.SetReadDeadline(time.Time{})
			}
		}
		if err != nil {
			break
		}
	}
	masked.flush()
	cut.flush()
	if drained != nil {
		close(drained)
	}
}

// drain reads what is in the pipe now without waiting: at most a pipe full, so that
// a process that never stops writing cannot hold a step up. io.EOF: no writer is left.
func drain(r *os.File, buf []byte, take func([]byte)) error {
	conn, err := r.SyscallConn()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	left := pipeLimit
	var end error
	err = conn.Read(func(fd uintptr) bool {
		for left > 0 {
			n, err := readNow(fd, buf)
			if n > 0 {
				take(buf[:n])
				left -= n
				continue
			}
			end = err
			return true
		}
		return true
	})
	return errors.Join(err, end)
}

// folder answers the folder a step runs in, which must lie inside the clone.
func (w *workshop) folder(rel string) (string, error) {
	source, err := filepath.EvalSymlinks(filepath.Join(w.dir, sourceDir))
	if err != nil {
		return "", fmt.Errorf("find the clone: %w", err)
	}
	if rel == "" {
		return source, nil
	}
	if !filepath.IsLocal(rel) {
		return "", fmt.Errorf("working directory %q lies outside the repository", rel)
	}
	folder, err := filepath.EvalSymlinks(filepath.Join(source, rel))
	if err != nil {
		return "", fmt.Errorf("working directory %q does not exist", rel)
	}
	if inside, err := filepath.Rel(source, folder); err != nil || !filepath.IsLocal(inside) {
		return "", fmt.Errorf("working directory %q leads outside the repository", rel)
	}
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return "", fmt.Errorf("working directory %q is no folder", rel)
	}
	return folder, nil
}

// environ is all that a step's environment holds; the last value of a name wins.
func (w *workshop) environ(step []runner.Variable) []string {
	env := []string{
		"PATH=" + w.path,
		"HOME=" + filepath.Join(w.dir, homeDir),
		"TMPDIR=" + filepath.Join(w.dir, tempDir),
		"LANG=C.UTF-8", "TERM=dumb", "CI=true", "RUNNERHUB=true",
	}
	for _, v := range w.env {
		env = append(env, v.Name+"="+v.Value)
	}
	for _, v := range step {
		env = append(env, v.Name+"="+v.Value)
	}
	return env
}

// checkVariables refuses what an environment cannot hold.
func checkVariables(script runner.Script, variables []runner.Variable) error {
	all := variables
	for _, s := range script.Steps {
		all = append(all[:len(all):len(all)], s.Env...)
	}
	for _, v := range all {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") || strings.Contains(v.Value, "\x00") {
			return fmt.Errorf("variable %q cannot be set", v.Name)
		}
	}
	return nil
}
