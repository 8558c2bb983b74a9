// Command bench prints what the service costs and how fast it is, each figure beside
// what it has to reach and, where there is one, beside a floor measured in the same
// run. It is no test: it fails when something is lost or cannot be measured,
// not when a figure is missed. docs/benchmarks.md says what each figure means.
//
// The server under test is a process of its own, with the use cases and drivers of the
// standalone server and a runner that takes builds and never runs them;
// for memory it is the real program. The forge (a sandbox Bitbucket in
// memory) and the clients are this process. Everything is on loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"runnerhub/infra/rehearsal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// atMost is after how long everything is given up.
const atMost = 90 * time.Minute

// scale is how much is measured.
type scale struct {
	repositories int
	rounds       int // of what is measured one at a time
	repeats      int // of the load
	each         int // pushes to a repository in a repeat
	clients      int
	settle       time.Duration // how long memory has to stay the same to count
	functions    []string      // of AWS, to build and start
	starts       int           // of each
	deliveries   int           // to the functions
}

func run(ctx context.Context, args []string, in io.Reader, out, progress io.Writer) error {
	if len(args) == 1 && args[0] == "server" {
		return runServer(ctx, in, out)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	program := flags.String("runnerhub", filepath.Join("bin", "runnerhub"), "the program whose memory is measured")
	only := flags.String("only", "", "the part to measure: ingest, pipeline, one, load, slow, memory, invocation, functions, calls or deliveries; empty: all")
	deliveries := flags.Int("deliveries", 10_000, "how many deliveries the functions get in the part deliveries")
	profiles := flags.String("profiles", "", "a folder for CPU profiles of the server under test; empty: none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	b := &bench{
		scale: scale{repositories: 32, rounds: 120, repeats: 3, each: 64, clients: 8, settle: 5 * time.Second, functions: slices.Sorted(maps.Keys(operations())), starts: 30, deliveries: max(1, *deliveries)},
		only:  *only, program: *program, profiles: *profiles, progress: progress,
	}
	figures, err := b.run(ctx, out)
	return errors.Join(err, show(out, figures))
}

// bench is one run.
type bench struct {
	scale
	only, program, profiles string
	progress                io.Writer

	dir     string
	address string // of the server under test
	forge   *forge

	deployed *rehearsal.Programs // once they are built
}

func (b *bench) run(ctx context.Context, out io.Writer) (figures []figure, err error) {
	if b.dir, err = os.MkdirTemp("", "bench-*"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	// Builds of the real program run as another user, who has to get to his folder.
	if err := os.Chmod(b.dir, 0o711); err != nil {
		return nil, err
	}
	if b.address, err = freeAddress(); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(out, "%s, %s %s/%s, %d cores, load %s (a load of others makes every figure worse)\n"+
		"body of a push %d bytes; SQLite synchronous=FULL; a fresh token; a runner that holds\n\n",
		time.Now().UTC().Format(time.DateTime+" UTC"), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), loadAverage(), bodyBytes)
	if err != nil {
		return nil, err
	}
	if b.forge, err = b.newForge(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.forge.close()) }()
	for _, part := range []struct {
		name    string
		measure func(context.Context) ([]figure, error)
	}{
		{"ingest", func(ctx context.Context) ([]figure, error) { return benchIngest(ctx, b.dir, 1+b.rounds/8) }},
		{"pipeline", func(ctx context.Context) ([]figure, error) { return benchPipeline(ctx, 1+b.rounds/8) }},
		{"one", b.one},
		{"load", b.load},
		{"slow", b.slow},
		{"memory", b.memory},
		{"invocation", func(ctx context.Context) ([]figure, error) { return benchInvocation(ctx, b.dir, 1+b.rounds/8) }},
		{"functions", func(ctx context.Context) ([]figure, error) {
			return benchFunctions(ctx, filepath.Join(b.dir, "functions"), b.functions, b.starts, b.say)
		}},
		{"calls", b.functionCalls},
		{"deliveries", b.manyDeliveries},
	} {
		if b.only != "" && b.only != part.name {
			continue
		}
		b.say("measuring: " + part.name)
		more, err := part.measure(ctx)
		figures = append(figures, more...)
		if err != nil {
			return figures, fmt.Errorf("measuring %s: %w", part.name, err)
		}
	}
	return figures, nil
}

func (b *bench) newForge(ctx context.Context) (*forge, error) {
	b.say("filling the forge")
	return newForge(ctx, "http://"+b.address+"/auth/callback", b.repositories, max(b.each+1, b.rounds))
}

// one measures what comes one at a time.
func (b *bench) one(ctx context.Context) (figures []figure, err error) {
	err = b.on(ctx, "one at a time", func(h *hub, _ *child) error {
		quick, err := benchLatency(ctx, h, b.rounds)
		if err != nil {
			return err
		}
		slow, err := benchCalls(ctx, h, max(1, b.rounds/12))
		figures = []figure{quick, slow}
		return err
	})
	return figures, err
}

// load measures many at once.
func (b *bench) load(ctx context.Context) ([]figure, error) {
	var all []loaded
	for i := range b.repeats {
		err := b.on(ctx, fmt.Sprintf("load-%d", i+1), func(h *hub, server *child) error {
			l, err := load(ctx, h, server, b.each, b.clients)
			all = append(all, l)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return []figure{figureLoad(all, b.clients, b.repositories)}, nil
}

// slow measures many at once with a slow Bitbucket.
func (b *bench) slow(ctx context.Context) (figures []figure, err error) {
	err = b.on(ctx, "slow Bitbucket", func(h *hub, _ *child) error {
		f, err := benchSlow(ctx, h, max(1, b.each/6), b.clients)
		figures = []figure{f}
		return err
	})
	return figures, err
}

// on runs do on a server of its own that has every repository connected.
func (b *bench) on(ctx context.Context, name string, do func(*hub, *child) error) (err error) {
	c := serverConfig{Listen: b.address, Data: filepath.Join(b.dir, name), Forge: b.forge.address}
	if b.profiles != "" {
		c.Profile = filepath.Join(b.profiles, strings.ReplaceAll(name, " ", "-")+".pprof")
	}
	server, err := startServer(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	h, err := newHub(ctx, b.forge, "http://"+b.address, b.repositories)
	if err != nil {
		return err
	}
	return do(h, server)
}

// memory measures the real program.
func (b *bench) memory(ctx context.Context) (figures []figure, err error) {
	dir := filepath.Join(b.dir, "program")
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, err
	}
	program, err := startProgram(b.program, dir, b.address, b.forge)
	if err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	defer func() { err = errors.Join(err, program.stop()) }()
	f, err := benchMemory(ctx, program, b.forge, b.address, b.settle, min(100, b.rounds))
	return []figure{f}, err
}

func (b *bench) say(what string) { _, _ = fmt.Fprintln(b.progress, what) }

// loadAverage is that of the last minute, and how many processes could run just now.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Fields(string(text))[0]
}
