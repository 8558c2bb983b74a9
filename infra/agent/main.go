// Command agent is the program inside a build, alone: what a build on CodeBuild
// downloads. It is package shared/agent and nothing else; the standalone server has the
// same agent within itself. `make agents` builds it for the platforms that builds run on.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"runnerhub/shared/agent"
	"runnerhub/shared/runner"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runnerhub agent:", err)
		return runner.ExitOther
	}
	return agent.Run(ctx, agent.Deps{
		Environ: os.Environ(), Args: os.Args, Dir: dir, Stdout: os.Stdout, Stderr: os.Stderr,
		Now: time.Now, Limits: agent.DefaultLimits(),
	})
}
