package ministack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"runnerhub/shared/crashtest"
)

func TestMain(m *testing.M) {
	crashtest.Main(m, map[string]crashtest.Role{"start": func(_ []string, say func(string)) error {
		s, err := Start(context.Background())
		if err != nil {
			return err
		}
		say(strings.TrimPrefix(s.URL(), "http://"))
		select {}
	}})
}

func TestItEndsWithWhoStartedIt(t *testing.T) {
	t.Parallel()
	child := crashtest.Start(t, "start")
	address := child.Line()
	if !answers(address) {
		t.Fatalf("nobody listens at %s", address)
	}
	child.Kill()
	for end := time.Now().Add(10 * time.Second); answers(address) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if answers(address) {
		t.Errorf("it still listens at %s", address)
	}
}

func TestTwoSideBySide(t *testing.T) {
	t.Parallel()
	var addresses []string
	for range 2 {
		s, err := Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		address := strings.TrimPrefix(s.URL(), "http://")
		addresses = append(addresses, address)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if answers(address) {
				t.Errorf("closed, it still listens at %s", address)
			}
		})
	}
	if addresses[0] == addresses[1] {
		t.Errorf("both are at %s", addresses[0])
	}
}

func TestMissing(t *testing.T) {
	t.Setenv(variable, "")
	t.Chdir(t.TempDir())
	if _, err := Start(t.Context()); err == nil || !strings.Contains(err.Error(), variable) {
		t.Errorf("outside of the tree: %v", err)
	}
	if err := os.WriteFile("go.mod", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context()); err == nil || !strings.Contains(err.Error(), "make ministack") {
		t.Errorf("not installed: %v", err)
	}
}

// A program that fails says why.
func TestFailing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	program, err := exec.LookPath("false")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(variable, program)
	if _, err := Start(t.Context()); err == nil || !strings.Contains(err.Error(), "it ended") {
		t.Errorf("a program that fails: %v", err)
	}
	t.Setenv(variable, "no-such-program")
	if _, err := Start(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func answers(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		fmt.Fprintln(os.Stderr, err)
	}
	return true
}
