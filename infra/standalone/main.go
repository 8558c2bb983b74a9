// Command runnerhub is the whole service in one process on one machine: the same
// use cases and the same HTTP API as on AWS, over a SQLite file and local
// processes. This package wires and watches; it decides nothing about builds.
//
//	runnerhub [serve]   the server, with a sandbox Bitbucket beside it when no
//	                    real one is configured
//	runnerhub sandbox   the sandbox alone (the server starts it like this)
//	runnerhub check     says what is wrong with a pipeline file
//	runnerhub agent     what stands inside a build (the runner starts it like this)
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"runnerhub/shared/agent"
)

const usage = `usage: runnerhub [serve | check | sandbox | agent]

serve      run the server (the default); settings come from the environment,
           see docs/operations.md
check      say what is wrong with a pipeline file, and what an event would do;
           runnerhub check -h has more
sandbox    run a sandbox Bitbucket alone
agent      run one build; started by the server's runner
`

func main() {
	os.Exit(run(os.Args, os.Environ()))
}

func run(args, environ []string) int {
	command := "serve"
	if len(args) > 1 {
		command = args[1]
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if command == "agent" {
		return runAgent(ctx, args, environ)
	}
	if command == "check" {
		return checker{dir: ".", in: os.Stdin, out: os.Stdout, complain: os.Stderr}.run(args[2:])
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	switch {
	case len(args) > 2:
		err = fmt.Errorf("%q takes no arguments\n%s", command, usage)
	case command == "serve":
		err = serve(ctx, environ, log)
	case command == "sandbox":
		err = serveSandbox(ctx, environ, log)
	case command == "help" || command == "-h" || command == "--help":
		fmt.Print(usage)
	default:
		err = fmt.Errorf("unknown command %q\n%s", command, usage)
	}
	if err != nil {
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(os.Stderr, "runnerhub:", err)
		}
		return 1
	}
	return 0
}

func runAgent(ctx context.Context, args, environ []string) int {
	dir, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runnerhub agent:", err)
		return 2
	}
	return agent.Run(ctx, agent.Deps{
		Environ: environ, Args: args, Dir: dir, Stdout: os.Stdout, Stderr: os.Stderr,
		Now: time.Now, Limits: agent.DefaultLimits(),
	})
}
