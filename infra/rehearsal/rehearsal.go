// Package rehearsal is the deployment on one machine: the functions as they are deployed, run from the template by
// package lambdahost, with MiniStack for the services, our CodeBuild for builds and a
// sandbox Bitbucket. Several installations share a MiniStack, each as a stack of its own. It is for tests and
// figures; it decides nothing.
package rehearsal

import (
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
	"strconv"
	"sync"
	"time"

	"runnerhub/infra/codebuild"
	"runnerhub/infra/lambdahost"
	"runnerhub/infra/port"
	"runnerhub/infra/sandbox"
	"runnerhub/infra/scheduler"
	"runnerhub/infra/template"
)

const (
	region  = "us-east-1"
	account = "000000000000"
	// clientID and clientSecret are those of the sandbox's consumer.
	clientID     = "rehearsal"
	clientSecret = "rehearsal-secret"
	// path is the PATH of builds.
	path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// grace is what builds get between SIGTERM and SIGKILL.
	grace = 10 * time.Second
)

// Programs is what is deployed, built for this machine.
type Programs struct {
	root string // of the source tree
	dir  string // <function>/bootstrap
	// layers has a folder for each layer, by its id.
	layers map[string]string
}

// Build builds the functions and the agents of the source tree at root into dir, with the flags of the deployment.
func Build(ctx context.Context, root, dir string) (*Programs, error) {
	p := &Programs{root: root, dir: filepath.Join(dir, "functions"), layers: map[string]string{"AgentsLayer": filepath.Join(dir, "layer")}}
	built := filepath.Join(dir, "built")
	agents := filepath.Join(p.layers["AgentsLayer"], "agents")
	for _, folder := range []string{built, p.dir, agents} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	build := exec.CommandContext(ctx, "go", "build", "-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w", "-o", built+"/", "./functions/...", "./infra/agent")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the functions: %w\n%s", err, out)
	}
	mains, err := os.ReadDir(built)
	if err != nil {
		return nil, err
	}
	for _, main := range mains {
		from := filepath.Join(built, main.Name())
		if main.Name() == "agent" {
			// Builds run on this machine, whatever they are told.
			compress := exec.CommandContext(ctx, "sh", "-c", `gzip -1nc "$1" >"$2/linux-amd64.gz" && cp "$2/linux-amd64.gz" "$2/linux-arm64.gz"`, "sh", from, agents)
			if out, err := compress.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("compressing the agent: %w\n%s", err, out)
			}
			continue
		}
		folder := filepath.Join(p.dir, main.Name())
		if err := errors.Join(os.Mkdir(folder, 0o755), os.Rename(from, filepath.Join(folder, "bootstrap"))); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Deps is what an Installation needs.
type Deps struct {
	Programs *Programs
	Services string // URL of MiniStack
	Name     string // of the stack; no other one at Services has it
	Dir      string // absolute; for the folders of builds, which as root every user can get to
	// Parameters go over those that a rehearsal needs.
	Parameters map[string]string
	// Concurrency is how many builds run at once.
	Concurrency int
	// Visibility is as in lambdahost.Provisioning.
	Visibility time.Duration
	// Instances, AccountLimit, Twice, Watch and Done are as in lambdahost.Deps.
	Instances    int
	AccountLimit int
	Twice        bool
	Watch        func(lambdahost.Call, bool) lambdahost.Fate
	Done         func(lambdahost.Invocation)
	// Before stands before the sandbox and passes on what comes to it; nil: nothing does.
	Before func(*sandbox.Sandbox) http.Handler
	// Lines stands between builds and CloudWatch Logs: what it answers takes their output, and passes on to next what it will, and
	// when. nil: all of it, at once.
	Lines func(next Lines) Lines
	// Output answers where a function, named by its id, writes, and for "" where the host does; may be nil.
	Output func(function string) io.Writer
}

// Lines takes output of builds, as in codebuild.Deps.
type Lines = func(ctx context.Context, group, stream string, lines []codebuild.Line) error

// Installation is one RunnerHub. Its state and Bitbucket are there from New to Close; the functions are
// from Start to Stop or Kill.
type Installation struct {
	Hub, Forge string
	CodeBuild  *codebuild.Host
	Sandbox    *sandbox.Sandbox
	Stack      *template.Stack
	Scheduler  *scheduler.Scheduler

	deps    Deps
	log     *slog.Logger
	hub     *port.Held     // the same from start to start, because Bitbucket knows it
	front   *http.Server   // of the sandbox
	running sync.WaitGroup // the scheduler
	end     context.CancelFunc

	mu   sync.Mutex
	host *lambdahost.Host // nil while it does not run
	kept [][]byte         // events that came meanwhile, which EventBridge would bring later
}

// New makes what an installation stands on.
func New(ctx context.Context, d Deps) (*Installation, error) {
	if d.Programs == nil || d.Services == "" || d.Name == "" || !filepath.IsAbs(d.Dir) || d.Concurrency < 1 || d.Instances < 1 {
		return nil, errors.New("rehearsal: Programs, Services, Name, Dir, Concurrency and Instances are needed")
	}
	if d.Output == nil {
		d.Output = func(string) io.Writer { return io.Discard }
	}
	in := &Installation{deps: d, log: slog.New(slog.NewTextHandler(d.Output(""), nil))}
	var err error
	if in.hub, err = port.Hold(); err != nil {
		return nil, err
	}
	in.Hub = "http://" + in.hub.Address
	if err := in.bitbucket(); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	if err := in.provision(ctx); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	if err := errors.Join(in.builds(), in.schedules()); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

func (in *Installation) bitbucket() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	in.Forge = "http://" + l.Addr().String()
	in.Sandbox, err = sandbox.New(sandbox.Deps{
		PublicURL: in.Forge, ClientID: clientID, ClientSecret: clientSecret, CallbackURL: in.Hub + "/auth/callback",
		LoopbackHooks: true, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	var handler http.Handler = in.Sandbox
	if in.deps.Before != nil {
		handler = in.deps.Before(in.Sandbox)
	}
	in.front = &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = in.front.Serve(l) }()
	return nil
}

func (in *Installation) provision(ctx context.Context) error {
	t, err := template.Parse(filepath.Join(in.deps.Programs.root, "template.yaml"))
	if err != nil {
		return err
	}
	parameters := map[string]string{
		"BitbucketClientId": clientID, "BitbucketClientSecret": clientSecret,
		"BuildConcurrency": strconv.Itoa(in.deps.Concurrency),
		// A test asks more often than a person.
		"ApiRate": "10000", "ApiBurst": "5000", "HookRate": "10000", "HookBurst": "5000",
	}
	for name, value := range in.deps.Parameters {
		parameters[name] = value
	}
	in.Stack, err = lambdahost.Provision(ctx, lambdahost.Provisioning{
		Services: in.deps.Services, Template: t, Visibility: in.deps.Visibility,
		Site: template.Site{
			Name: in.deps.Name, Region: region, Account: account, Parameters: parameters,
			Value: func(r template.Resource, attribute string) string {
				if r.Type == "AWS::ApiGatewayV2::Api" && attribute == "ApiEndpoint" {
					return in.Hub
				}
				return ""
			},
		},
	})
	return err
}

// builds opens CodeBuild with the template's project.
func (in *Installation) builds() error {
	lines, err := codebuild.NewCloudWatch(codebuild.CloudWatchDeps{
		Endpoint: in.deps.Services, Region: region, Key: "codebuild", HTTP: &http.Client{Timeout: 10 * time.Second},
	})
	if err != nil {
		return err
	}
	takes := lines.Lines
	if in.deps.Lines != nil {
		takes = in.deps.Lines(takes)
	}
	in.CodeBuild, err = codebuild.New(codebuild.Deps{
		Region: region, Account: account, Dir: in.deps.Dir, Path: path, Grace: grace,
		Lines: takes, Event: func(_ context.Context, event []byte) { in.emit(event) },
		Now: time.Now, NewID: newUUID, Log: in.log,
	})
	if err != nil {
		return err
	}
	for _, p := range in.Stack.Projects {
		var environment []codebuild.Variable
		for name, value := range p.Environment {
			environment = append(environment, codebuild.Variable{Name: name, Value: value})
		}
		err := in.CodeBuild.Register(codebuild.Project{
			Name: p.Name, Buildspec: p.BuildSpec, Environment: environment, Image: p.Image, Type: p.Kind, Compute: p.Compute,
			Timeout: int(p.Timeout / time.Minute), QueuedTimeout: int(p.Queued / time.Minute), LogGroup: p.LogGroup, LogStream: p.LogStream,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// schedules opens EventBridge Scheduler with the template's groups.
func (in *Installation) schedules() error {
	var groups []string
	for _, g := range in.Stack.ScheduleGroups {
		groups = append(groups, g.Name)
	}
	var err error
	in.Scheduler, err = scheduler.New(scheduler.Deps{Groups: groups, Now: time.Now, Send: in.due, Log: in.log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	in.end = cancel
	in.running.Go(func() { in.Scheduler.Run(ctx) })
	return nil
}

// due sends what a schedule has to say, if the role that it names may do that.
func (in *Installation) due(ctx context.Context, d scheduler.Delivery) error {
	for _, role := range in.Stack.Roles {
		if role.ARN != d.Role || !role.Policy.Allows("sqs:SendMessage", d.Target, nil) {
			continue
		}
		for _, q := range in.Stack.Queues {
			if q.ARN == d.Target {
				return lambdahost.SendMessage(ctx, in.deps.Services, q, d.Input)
			}
		}
	}
	return fmt.Errorf("schedule %s: no role %s may send to %s", d.Name, d.Role, d.Target)
}

// Deliver puts a message into the queue that a function works on.
func (in *Installation) Deliver(ctx context.Context, function, body string) error {
	return in.queue(function, func(q template.Queue) error { return lambdahost.SendMessage(ctx, in.deps.Services, q, body) })
}

// Purge deletes all messages of the queue that a function works on.
func (in *Installation) Purge(ctx context.Context, function string) error {
	return in.queue(function, func(q template.Queue) error { return lambdahost.PurgeQueue(ctx, in.deps.Services, q) })
}

func (in *Installation) queue(function string, f func(template.Queue) error) error {
	for _, source := range in.Stack.Sources {
		for _, q := range in.Stack.Queues {
			if source.Function == function && q.ID == source.Queue {
				return f(q)
			}
		}
	}
	return fmt.Errorf("rehearsal: %s works on no queue", function)
}

func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Start brings the functions up.
func (in *Installation) Start() error {
	l, err := net.Listen("tcp", in.hub.Address)
	if err != nil {
		return err
	}
	d := in.deps
	host, err := lambdahost.New(lambdahost.Deps{
		Stack: in.Stack, Region: region, Account: account, Programs: d.Programs.dir, Layers: d.Programs.layers, Listener: l,
		Services: d.Services, CodeBuild: in.CodeBuild, Scheduler: in.Scheduler, Forge: in.Forge,
		Instances: d.Instances, AccountLimit: d.AccountLimit, Twice: d.Twice, Watch: d.Watch, Done: d.Done, Output: d.Output, Log: in.log,
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	in.mu.Lock()
	kept := in.kept
	in.host, in.kept = host, nil
	in.mu.Unlock()
	for _, event := range kept {
		in.emit(event)
	}
	return nil
}

// Host answers what runs the functions; nil while nothing does.
func (in *Installation) Host() *lambdahost.Host {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.host
}

// emit brings an event, or keeps it until there is somebody to bring it to.
func (in *Installation) emit(event []byte) {
	in.mu.Lock()
	host := in.host
	if host == nil {
		in.kept = append(in.kept, event)
	}
	in.mu.Unlock()
	if host == nil {
		return
	}
	if err := host.Emit(event); err != nil {
		in.log.Error("an event of CodeBuild", "error", err)
	}
}

// Stop ends the functions when they have done what they are at.
func (in *Installation) Stop() error { return in.take().Close() }

// Kill ends the functions in the middle of what they are at.
func (in *Installation) Kill() error { return in.take().Kill() }

func (in *Installation) take() *lambdahost.Host {
	in.mu.Lock()
	defer in.mu.Unlock()
	host := in.host
	in.host = nil
	return host
}

// Close ends everything.
func (in *Installation) Close() error {
	var errs []error
	if in.CodeBuild != nil {
		errs = append(errs, in.CodeBuild.Close())
	}
	if in.end != nil {
		in.end()
		in.running.Wait()
	}
	if in.Host() != nil {
		errs = append(errs, in.Stop())
	}
	if in.front != nil {
		errs = append(errs, in.front.Close())
	}
	if in.Sandbox != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		errs = append(errs, in.Sandbox.Close(ctx))
	}
	return errors.Join(append(errs, in.hub.Close())...)
}
