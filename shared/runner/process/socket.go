//go:build unix

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"runnerhub/shared/fault"
	"runnerhub/shared/runner"
)

// maxSocketPath is the longest path of a socket that every system takes, in bytes.
const maxSocketPath = 100

func (r *Runner) socket() string { return filepath.Join(r.socketDir(), "server.sock") }

// Address is where agents reach what Serve serves. It is a socket in a folder of the server's:
// a build cannot put itself in the server's place while that is away, as it could on a port.
func (r *Runner) Address() string { return runner.SocketScheme + r.socket() }

// Serve listens on Address and hands the listener to serve, in a goroutine. It does so again
// when somebody removed the socket; serve must be ready for that, and closes what it is given.
func (r *Runner) Serve(serve func(net.Listener)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serve = serve
	return r.listen()
}

// listen makes the socket and serves on it.
func (r *Runner) listen() error {
	// What lies there was left by a server that is dead: this one has the folder's lock.
	if err := os.Remove(r.socket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an earlier server's socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.socket(), Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	// Closing this one later must not remove the one that may have followed it.
	l.SetUnlinkOnClose(false)
	if r.isolated {
		if err := os.Chmod(r.socket(), 0o666); err != nil {
			return errors.Join(fmt.Errorf("open the socket to agents: %w", err), l.Close())
		}
	}
	go r.serve(l)
	return nil
}

// checkSocket refuses a folder whose name leaves no room for the socket's.
func (r *Runner) checkSocket() error {
	if n := len(r.socket()); n > maxSocketPath {
		return fault.New(fault.Invalid, "the path of a socket in it, %s, has %d bytes, and the system allows %d: choose a folder with a shorter path", r.socket(), n, maxSocketPath)
	}
	return nil
}

// restore makes again what somebody removed from the folder, a cleaner perhaps: without
// it no further build could run.
func (r *Runner) restore() error {
	if err := r.makeFolders(); err != nil {
		return err
	}
	if r.isolated {
		if _, err := os.Lstat(r.program[0]); errors.Is(err, fs.ErrNotExist) {
			if r.program, err = installProgram(r.programDir(), r.Program); err != nil {
				return err
			}
		}
	}
	if r.serve == nil {
		return nil
	}
	if _, err := os.Lstat(r.socket()); errors.Is(err, fs.ErrNotExist) {
		return r.listen()
	}
	return nil
}
