package e2e

import "testing"

// stack is a way to run RunnerHub with a sandbox Bitbucket.
type stack interface {
	// install prepares an installation of its own, which does not run yet. What is
	// left of it when the test ends is stopped and removed.
	install(t *testing.T, settings ...string) installation
	// scripts are those that make sense for this stack alone.
	scripts() []script
}

// installation is one RunnerHub with its data. It fails its test when it cannot do
// what it is asked.
type installation interface {
	// start brings it up and answers once both addresses do. They stay the same from
	// one start to the next.
	start() (hub, forge string)
	// stop ends it in order, and answers when it has ended.
	stop()
	// kill ends whatever of it is running now, without notice, except for builds.
	kill()
	// folder is a folder on this machine that builds can read, and write where the test
	// made room for it.
	folder() string
	// said is what it logged, for the message of a failed test.
	said() string
}
