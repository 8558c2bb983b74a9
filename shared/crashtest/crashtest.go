// Package crashtest lets a test kill a process in the middle of its work. The
// test binary runs itself again in a role; the role says what it has done, line by
// line, and the test ends it with SIGKILL when it likes. The contract suites
// use it to hold a driver to what it acknowledged before it died.
//
// A killed process loses nothing that reached the operating system: this proves
// what survives the process, and nothing about a loss of power.
package crashtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// variable names the role in the environment of a child.
const variable = "RUNNERHUB_CRASHTEST_ROLE"

// Role is what a child process does until it is killed. It calls say, from any
// goroutine, with one short line for each thing its parent may rely on.
type Role func(args []string, say func(line string)) error

// Main is called by TestMain of each package whose suites kill: in a child it plays its
// role, anywhere else it runs the tests. It does not return.
func Main(m *testing.M, roles map[string]Role) {
	name := os.Getenv(variable)
	if name == "" {
		os.Exit(m.Run())
	}
	role, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "there is no role %q\n", name)
		os.Exit(2)
	}
	// One write a line: a pipe takes a short one whole or not at all.
	if err := role(os.Args[1:], func(line string) { fmt.Fprintln(os.Stdout, line) }); err != nil {
		fmt.Fprintf(os.Stderr, "role %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Child is a running role.
type Child struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	errors strings.Builder
}

// Start runs the role in a process of its own, which dies with the test.
func Start(t *testing.T, role string, args ...string) *Child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &Child{t: t, cmd: exec.CommandContext(t.Context(), self, args...)}
	c.cmd.Env = append(os.Environ(), variable+"="+role)
	c.cmd.Stderr = &c.errors
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// Line waits for the next line the child says; the test fails if there is none.
func (c *Child) Line() string {
	c.t.Helper()
	if !c.lines.Scan() {
		err := c.cmd.Wait()
		c.t.Fatalf("the child ended before it was killed: %v, %s", err, c.errors.String())
	}
	return c.lines.Text()
}

// Kill ends the child with SIGKILL, waits until it is gone, and answers the lines
// it had said that nobody has read.
func (c *Child) Kill() []string {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Fatalf("killing the child: %v, %s", err, c.errors.String())
	}
	var rest []string
	for c.lines.Scan() {
		rest = append(rest, c.lines.Text())
	}
	_ = c.cmd.Wait() // says only that it was killed
	return rest
}
