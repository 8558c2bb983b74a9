// Package ministack starts MiniStack, an emulator of AWS, for tests of what
// speaks to AWS. It runs the program that `make ministack` installs, on a loopback port
// of its own, and ends it with the process that started it, however that ends. It
// is no part of the service, and knows nothing of a single AWS service; where the
// emulator differs from AWS is written in docs/emulator.md.
package ministack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

const (
	// variable names the program in the environment, when it is not where `make ministack` puts it.
	variable = "MINISTACK"
	// installed is where `make ministack` puts it, below the root of the tree.
	installed = "bin/ministack/bin/ministack"
	// patience is for the start: under a second, but a test machine can be busy with builds.
	patience = 60 * time.Second
	// ports is how many ports are tried: between choosing one and listening on it, another may take it.
	ports = 3
)

// script runs the program until the script's standard input ends, which it does with
// the process that holds the other end, also when that was killed. Only the program
// has the script's output, so that its end is the end of the program.
const script = `"$1" </dev/null & program=$!
exec >/dev/null 2>&1
cat
kill -KILL "$program"
rm -rf "$2"`

// Server is a running MiniStack.
type Server struct {
	url    string
	name   string // random, to tell it from another on the same port
	cmd    *exec.Cmd
	input  io.Closer
	ended  chan struct{} // closed when the program's output ended
	output *tail
}

// Start starts a MiniStack that has nothing in it, and waits until it answers.
func Start(ctx context.Context) (*Server, error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for range ports {
		var s *Server
		if s, err = start(program); err != nil {
			return nil, fmt.Errorf("starting MiniStack: %w", err)
		}
		if err = s.ready(ctx); err == nil {
			return s, nil
		}
		err = errors.Join(fmt.Errorf("starting MiniStack: %w; it said: %s", err, s.output), s.Close())
	}
	return nil, err
}

// find answers the program.
func find() (string, error) {
	if program := os.Getenv(variable); program != "" {
		return program, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			program := filepath.Join(dir, filepath.FromSlash(installed))
			if _, err := os.Stat(program); err != nil {
				return "", fmt.Errorf("MiniStack is missing, which stands for AWS in tests: run `make ministack`, or name it in %s", variable)
			}
			return program, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("MiniStack is missing: outside of the source tree, %s must name it", variable)
		}
	}
}

func start(program string) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "ministack-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		url: "http://127.0.0.1:" + strconv.Itoa(port), name: rand.Text(),
		cmd: exec.Command("sh", "-c", script, "sh", program, dir), ended: make(chan struct{}), output: &tail{},
	}
	s.cmd.Env = append(os.Environ(),
		"GATEWAY_PORT="+strconv.Itoa(port), "BIND_HOST=127.0.0.1", "SFTP_ENABLED=0", "IOT_MTLS_ENABLED=0", "LOG_LEVEL=WARNING",
		"TMPDIR="+dir, "MINISTACK_EDITION="+s.name) // the edition comes back in its state of health
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stdout, s.cmd.Stderr = in, in
	s.input, err = s.cmd.StdinPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err = errors.Join(err, in.Close()); err != nil {
		return nil, errors.Join(err, out.Close(), os.RemoveAll(dir))
	}
	go func() {
		defer close(s.ended)
		_, _ = io.Copy(s.output, out) // what could not be read is missing from a message
		_ = out.Close()
	}()
	return s, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// ready waits until this very program answers.
func (s *Server) ready(ctx context.Context) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if edition, err := s.edition(ctx); err == nil && edition == s.name {
			return nil
		}
		select {
		case <-again.C:
		case <-s.ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return errors.New("it did not answer in time")
		}
	}
}

func (s *Server) edition(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/_ministack/health", nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var health struct {
		Edition string `json:"edition"`
	}
	return health.Edition, json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&health)
}

// URL is the endpoint of all services.
func (s *Server) URL() string { return s.url }

// Close kills the program and waits until it is gone; all it held is lost.
func (s *Server) Close() error {
	if err := s.input.Close(); err != nil {
		return fmt.Errorf("ending MiniStack: %w", err)
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("ending MiniStack: %w", err)
	}
	<-s.ended
	return nil
}

// Config is how the SDK reaches a MiniStack at url, from any process. What the emulator
// keeps apart by account and region is all in one.
func Config(url string) aws.Config {
	return aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		HTTPClient:   &client{http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}},
	}
}

// client gives each attempt a body of its own. The SDK closes the request's body while
// net/http may still be about to, and then loses answers whose headers and body come in
// separate packets, as all of MiniStack's do (aws-sdk-go-v2 issues 1825 and 2737). Drivers
// bear that, as they bear it on AWS, but a suite in which every twentieth call fails takes long.
type client struct{ http.Client }

// Do implements aws.HTTPClient.
func (c *client) Do(request *http.Request) (*http.Response, error) {
	if request.Body != nil && request.ContentLength > 0 {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, err
		}
		request = request.Clone(request.Context())
		request.Body = io.NopCloser(bytes.NewReader(body))
	}
	return c.Client.Do(request)
}

// tail keeps the end of what the program said.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if most := 4 << 10; len(t.text) > most {
		t.text = bytes.Clone(t.text[len(t.text)-most:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}
