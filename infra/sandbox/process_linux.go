package sandbox

import "syscall"

// processAttributes put a git process in a group of its own, so that it can be ended
// with its children, and let it end when the sandbox is killed.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
