package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"runnerhub/infra/sandbox"
	"runnerhub/shared/secret"
	"runnerhub/shared/setting"
)

// The sandbox runs as a process of its own, so that the server's memory and
// crashes are its own. It ends when its standard input does, which the system
// sees to however the server dies.

const (
	sandboxClient = "runnerhub"
	// sandboxReady is what a sandbox says to its server once it listens, before
	// its address.
	sandboxReady = "ready "
)

// errSaid is a failure that has been told of by the child that failed.
var errSaid = errors.New("the sandbox did not start; its own message is above")

// sandboxChild is a running sandbox.
type sandboxChild struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan error
}

// startSandbox runs the sandbox beside the server and waits until it answers.
func startSandbox(ctx context.Context, c *config, log *slog.Logger) (*sandboxChild, error) {
	secretText, err := stored(filepath.Join(c.data, "sandbox-client-secret"), rand.Text)
	if err != nil {
		return nil, err
	}
	c.clientID, c.clientSecret = sandboxClient, secret.New(secretText)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "sandbox")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + c.data,
		"SANDBOX_LISTEN=" + c.sandboxListen, "SANDBOX_DATA=" + filepath.Join(c.data, "sandbox"),
		"SANDBOX_CALLBACK=" + c.publicURL + "/auth/callback", "SANDBOX_SUPERVISED=1",
	}
	cmd.Stderr = os.Stderr
	// A Ctrl-C in the terminal is for the server, which ends the sandbox in its own
	// time, after the last status was posted.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the sandbox: %w", err)
	}
	child := &sandboxChild{cmd: cmd, stdin: stdin, ended: make(chan error, 1)}
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		lines.Scan()
		ready <- lines.Text()
		_, _ = io.Copy(io.Discard, stdout)
		child.ended <- cmd.Wait()
	}()
	if _, err := io.WriteString(stdin, secretText+"\n"); err != nil {
		log.Debug("the sandbox did not take its secret", "error", err)
	}
	select {
	case line := <-ready:
		address, ok := strings.CutPrefix(line, sandboxReady)
		if !ok {
			return nil, errSaid
		}
		c.webURL, c.apiURL = address, address+"/2.0"
		return child, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), child.stop())
	}
}

// stop ends the sandbox and waits for it.
func (s *sandboxChild) stop() error {
	_ = s.stdin.Close()
	patience := time.NewTimer(10 * time.Second)
	defer patience.Stop()
	select {
	case <-s.ended:
		return nil
	case <-patience.C:
		return s.cmd.Process.Kill()
	}
}

// serveSandbox is the command "sandbox".
func serveSandbox(ctx context.Context, environ []string, log *slog.Logger) error {
	e := setting.Read(environ)
	listen := e.Or("SANDBOX_LISTEN", "127.0.0.1:7990")
	if err := checkListen("SANDBOX_LISTEN", listen); err != nil {
		return err
	}
	client, password := e.Or("BITBUCKET_CLIENT_ID", sandboxClient), e.Or("BITBUCKET_CLIENT_SECRET", sandboxClient)
	supervised := e["SANDBOX_SUPERVISED"] != ""
	if supervised {
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil {
			return fmt.Errorf("sandbox: reading the client's secret: %w", err)
		}
		password = strings.TrimSpace(line)
	}
	loopbackHooks := true
	switch v := e["SANDBOX_LOOPBACK_HOOKS"]; v {
	case "", "1":
	case "0":
		loopbackHooks = false
	default:
		return fmt.Errorf("SANDBOX_LOOPBACK_HOOKS is %q; it is 0, 1 or absent", v)
	}
	data, err := filepath.Abs(e.Or("SANDBOX_DATA", "sandbox-data"))
	if err != nil {
		return err
	}
	listener, err := bind("SANDBOX_LISTEN", listen)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	address := "http://" + reachable(listener.Addr().String())
	box, err := sandbox.New(sandbox.Deps{
		Dir: data, PublicURL: address,
		ClientID: client, ClientSecret: password,
		CallbackURL:   e.Or("SANDBOX_CALLBACK", "http://127.0.0.1:8080/auth/callback"),
		LoopbackHooks: loopbackHooks, Log: log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: box, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if supervised {
		fmt.Println(sandboxReady + address)
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	} else {
		fmt.Printf("A sandbox Bitbucket is at %s (users alice, bob, carol; the password is the name).\n", address)
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if shut := server.Shutdown(closing); shut != nil {
		_ = server.Close()
	}
	return errors.Join(err, box.Close(closing))
}

// bind takes a port, or says in one line why not.
func bind(name, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w; stop what uses it, or set %s to another address", address, errors.Unwrap(err), name)
	}
	return l, nil
}
