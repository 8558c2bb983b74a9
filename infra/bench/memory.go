package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// settleWithin is how long memory that does not settle is waited for.
const settleWithin = 40 * time.Second

// startProgram runs the real program, alone, with the forge as its Bitbucket and room for
// one build, which the pipeline file makes hold it.
func startProgram(program, dir, address string, f *forge) (*child, error) {
	path, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "serve")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir,
		"RUNNERHUB_LISTEN=" + address, "RUNNERHUB_DATA=" + filepath.Join(dir, "data"), "RUNNERHUB_BUILDS=" + filepath.Join(dir, "builds"),
		"RUNNERHUB_CONCURRENCY=1", "BITBUCKET_CLIENT_ID=" + consumerID, "BITBUCKET_CLIENT_SECRET=" + consumerSecret,
		"BITBUCKET_API_URL=" + f.address + "/2.0", "BITBUCKET_WEB_URL=" + f.address,
	}
	log, err := os.Create(filepath.Join(dir, "program.log"))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	started, err := start(cmd, log)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return started, nil
}

// benchMemory measures what the real program holds in memory when it has nothing to
// do: after a start and one request, and after pushes.
func benchMemory(ctx context.Context, program *child, f *forge, address string, settle time.Duration, pushes int) (figure, error) {
	if err := healthy(ctx, "http://"+address+"/healthz", program); err != nil {
		return figure{}, err
	}
	idle, after, err := settled(ctx, program, settle)
	if err != nil {
		return figure{}, err
	}
	const most = 40 << 20
	megabytes := func(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
	out := figure{
		what: "memory idle, sandbox aside", measured: megabytes(idle), ratio: fmt.Sprintf("%.2f of 40 MB", float64(idle)/most),
		reach: "at most 40 MB resident", reached: idle <= most, beside: "70 MB",
		notes: []string{fmt.Sprintf("after the start and one request: %s, the same for %s from %s on", megabytes(idle), settle, short(after))},
	}
	h, err := newHub(ctx, f, "http://"+address, 1)
	if err != nil {
		return out, err
	}
	requests, err := h.pushes(pushes)
	if err != nil {
		return out, err
	}
	for _, r := range requests {
		if _, _, err := h.send(ctx, r); err != nil {
			return out, err
		}
	}
	for _, r := range requests {
		if _, err := f.await(ctx, r.commit); err != nil {
			return out, err
		}
	}
	later, after, err := settled(ctx, program, settle)
	if err != nil {
		return out, err
	}
	out.notes = append(out.notes, fmt.Sprintf("after signing in, connecting and %d pushes: %s, the same for %s from %s on", pushes, megabytes(later), settle, short(after)))
	return out, nil
}

// healthy waits until the program answers.
func healthy(ctx context.Context, address string, program *child) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case ended := <-program.ended:
			program.ended <- ended
			return errors.Join(errors.New("the program ended at its start"), ended)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the program: %w", context.Cause(ctx))
		}
	}
}

// settled waits until the resident memory has not left a hundredth around one value
// for a time, and answers the last value and how long that took.
func settled(ctx context.Context, program *child, settle time.Duration) (int64, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	since, value := began, int64(0)
	for {
		now, err := program.resident()
		if err != nil {
			return 0, 0, err
		}
		if now > value+value/100 || now < value-value/100 {
			since, value = time.Now(), now
		}
		if time.Since(since) >= settle {
			return now, since.Sub(began), nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("the program's memory did not settle; it was %d bytes: %w", now, context.Cause(ctx))
		}
	}
}
