//go:build unix && !linux

package agent

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// protect does nothing: only Linux has the means. A build's steps are trusted with the
// agent's memory there.
func protect() error { return nil }

// anonymousFile answers an inheritable descriptor, at the beginning of body.
func anonymousFile(body []byte) (int, error) {
	file, err := os.CreateTemp("", "handover")
	if err != nil {
		return 0, fmt.Errorf("make handover: %w", err)
	}
	defer func() { _ = file.Close() }()
	if err := os.Remove(file.Name()); err != nil {
		return 0, fmt.Errorf("hide handover: %w", err)
	}
	if _, err := file.Write(body); err != nil {
		return 0, fmt.Errorf("write handover: %w", err)
	}
	if _, err := file.Seek(0, 0); err != nil {
		return 0, fmt.Errorf("rewind handover: %w", err)
	}
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		return 0, fmt.Errorf("keep handover: %w", err)
	}
	return fd, nil
}

func execSelf(args, env []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, args, env)
}

// killDescendants kills the groups of the steps. A daemon in a session of its own gets away.
func killDescendants(groups []int) {
	for _, g := range groups {
		_ = syscall.Kill(-g, syscall.SIGKILL)
	}
}
