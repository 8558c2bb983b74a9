//go:build unix && !linux

package sandbox

import "syscall"

// processAttributes put a git process in a group of its own, so that it can be ended
// with its children. Here it outlives a killed sandbox until it has nothing to do.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
