package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"runnerhub/shared/runner"
)

const (
	callTimeout  = 15 * time.Second
	answerLimit  = 8 << 20
	longestPause = 15 * time.Second
	idleTimeout  = 90 * time.Second
)

// errNotOurs is the server's word that this attempt is not, or no longer, the one
// that runs the build.
var errNotOurs = errors.New("the server does not know this attempt, it is over, or another agent runs the build")

// errRefused is an answer that asking again will not change.
var errRefused = errors.New("the server refused")

// client speaks to the server.
type client struct {
	address string
	http    *http.Client
	pause   time.Duration // before the first repeat, doubled up to longestPause
}

func newClient(address string, pause time.Duration) *client {
	transport := http.DefaultTransport
	if socket, ok := strings.CutPrefix(address, runner.SocketScheme); ok {
		address = "http://server" // only the socket is dialled
		transport = &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
			IdleConnTimeout: idleTimeout,
		}
	}
	return &client{
		address: strings.TrimRight(address, "/"),
		pause:   pause,
		http: &http.Client{
			Timeout:   callTimeout,
			Transport: transport,
			// A redirect would carry ticket or report to somebody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// call posts in and decodes the answer into out, repeating what may pass until ctx ends.
func (c *client) call(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	pause := c.pause
	for {
		asked, err := c.once(ctx, path, body, out)
		if err == nil || errors.Is(err, errNotOurs) || errors.Is(err, errRefused) {
			return err
		}
		// Half fixed, half random: builds that a server restart cut off do not come back at once.
		wait := max(asked, pause/2+rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-time.After(wait):
		}
		pause = min(2*pause, longestPause)
	}
}

// once posts one time. The duration is the pause the server asked for.
func (c *client) once(ctx context.Context, path string, body []byte, out any) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.address+path, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errRefused, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch s := resp.StatusCode; {
	case s == http.StatusOK:
		if err := json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(out); err != nil {
			return 0, fmt.Errorf("read answer: %w", err)
		}
		return 0, nil
	case s == http.StatusUnauthorized || s == http.StatusConflict:
		return 0, errNotOurs
	case s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return min(time.Duration(max(seconds, 0))*time.Second, longestPause), fmt.Errorf("status %d", s)
	default:
		return 0, fmt.Errorf("%w: status %d", errRefused, s)
	}
}

// reporter sends what is known of the build, the newest only, while the steps run.
type reporter struct {
	client *client
	every  time.Duration // the server hears at least this often, and can say stop
	end    context.CancelCauseFunc

	latest chan runner.Report // holds at most one, the newest
	cancel context.CancelFunc
	done   chan struct{}
}

// startReporter begins to send; the server's wish to stop the build, or its word that
// the attempt is over, ends the build through end.
func startReporter(c *client, every time.Duration, end context.CancelCauseFunc) *reporter {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reporter{
		client: c, every: every, end: end,
		latest: make(chan runner.Report, 1), cancel: cancel, done: make(chan struct{}),
	}
	go r.loop(ctx)
	return r
}

// send hands over a report. It never blocks: an older one not sent yet is replaced.
// Only one goroutine may call it.
func (r *reporter) send(report runner.Report) {
	select {
	case <-r.latest:
	default:
	}
	r.latest <- report
}

func (r *reporter) loop(ctx context.Context) {
	defer close(r.done)
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	var report runner.Report
	for {
		select {
		case report = <-r.latest:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if report.Sequence == 0 {
			continue
		}
		// A repeat is short, so that a newer report does not wait behind an old one.
		try, stop := context.WithTimeout(ctx, callTimeout)
		var answer runner.ReportAnswer
		err := r.client.call(try, runner.StepsPath, report, &answer)
		stop()
		switch {
		case errors.Is(err, errNotOurs):
			r.end(errNotOurs)
			return
		case err == nil && answer.Stop:
			r.end(errStopped)
		}
	}
}

// close ends the sending and waits for it.
func (r *reporter) close() {
	r.cancel()
	<-r.done
}
