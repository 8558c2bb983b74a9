//go:build unix

package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// What a build may use at most. They are modest, against accidents.
const (
	maxProcesses = 4096
	maxFileBytes = 16 << 30
	fileBlock    = 512 // what ulimit -f counts in
)

// launch starts the agent in a session of its own, and records its process.
func (a *attempt) launch(program, env []string, log *os.File, ownIPC bool) error {
	stderr, err := os.OpenFile(a.errFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = stderr.Close() }()
	cmd := exec.Command("/bin/sh", append([]string{"-c", launchScript(a.meta.UID != 0)}, program...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = a.work(), env, log, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.meta.UID != 0 {
		cmd.SysProcAttr = asUser(a.meta.UID)
	}
	if ownIPC {
		separateIPC(cmd.SysProcAttr)
	}
	if err := startModestly(cmd); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	a.meta.PID = cmd.Process.Pid
	if a.meta.Ticks, err = startTicks(a.meta.PID); err != nil {
		err = errors.Join(err, cmd.Process.Kill())
		_ = cmd.Wait()
		return fmt.Errorf("look at agent: %w", err)
	}
	return cmd.Process.Release()
}

// launchScript sets what Go can only set for the whole server, and what a container's
// root may not set for another user's process; then the agent takes the shell's place.
// Shells disagree on the option for processes, which count for the whole user.
func launchScript(ownUser bool) string {
	script := fmt.Sprintf("umask 077; ulimit -c 0; ulimit -f %d; ", maxFileBytes/fileBlock)
	if ownUser {
		script += fmt.Sprintf("ulimit -p %d 2>/dev/null || ulimit -u %[1]d; ", maxProcesses)
	}
	return script + `exec "$0" "$@"`
}
