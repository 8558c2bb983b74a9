//go:build unix && !linux

package process

// PortMayBeBuilds is false: builds have no users of their own here.
func PortMayBeBuilds(port, baseUID int) bool { return false }

// FreePort ends nothing: builds have no users of their own here.
func (r *Runner) FreePort(port int) bool { return false }
