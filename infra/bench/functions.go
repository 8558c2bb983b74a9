package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// most is how much more than a bare handler a function may weigh, and take to start.
const most = 1.3

// operations is what each function asks of services: the bare handler beside it asks the same.
func operations() map[string]string {
	const (
		table     = "dynamodb.GetItem dynamodb.BatchGetItem dynamodb.Query dynamodb.TransactWriteItems "
		tokens    = "kms.GenerateDataKey kms.Decrypt secretsmanager.GetSecretValue "
		send      = "sqs.SendMessage "
		consume   = "sqs.SendMessage sqs.ChangeMessageVisibility "
		timetable = "scheduler.GetSchedule scheduler.CreateSchedule scheduler.UpdateSchedule scheduler.DeleteSchedule "
	)
	return map[string]string{
		"webhook":   "dynamodb.GetItem kms.Decrypt " + send,
		"auth":      table + tokens,
		"repos":     table + tokens,
		"apps":      table,
		"builds":    table + tokens + send + "cloudwatchlogs.DescribeLogStreams cloudwatchlogs.GetLogEvents",
		"schedules": table + timetable,
		"dispatch":  table + tokens + consume + "codebuild.StartBuild cloudwatchlogs.CreateLogStream cloudwatchlogs.PutLogEvents",
		"report":    table + tokens + consume + "codebuild.BatchGetBuilds",
		"refresh":   table + tokens,
		"sweep":     table + send + timetable + "codebuild.BatchGetBuilds codebuild.StopBuild",
	}
}

// bare is the program of a handler that asks all that and does nothing else.
func bare(asks string) string {
	asked := map[string][]string{} // by service
	for operation := range strings.FieldsSeq(asks) {
		service, name, _ := strings.Cut(operation, ".")
		asked[service] = append(asked[service], name)
	}
	var imports, clients, calls strings.Builder
	for _, service := range slices.Sorted(maps.Keys(asked)) {
		fmt.Fprintf(&imports, "\t%q\n", "github.com/aws/aws-sdk-go-v2/service/"+service)
		fmt.Fprintf(&clients, "\t%[1]sClient := %[1]s.NewFromConfig(config)\n", service)
		for _, name := range asked[service] {
			fmt.Fprintf(&calls, "\t\tif _, err := %[1]sClient.%[2]s(ctx, &%[1]s.%[2]sInput{}); err != nil {\n\t\t\treturn e, err\n\t\t}\n", service, name)
		}
	}
	return `package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
` + imports.String() + `)

func main() {
	config := aws.Config{Region: os.Getenv("AWS_REGION"), Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY")}, nil
	})}
` + clients.String() + `	lambda.Start(func(ctx context.Context, e json.RawMessage) (json.RawMessage, error) {
` + calls.String() + `		return e, nil
	})
}
`
}

// deployedArchitecture is what the template deploys functions for.
const deployedArchitecture = "arm64"

// built is a program as Lambda gets it.
type built struct {
	path     string
	zipped   int64 // for this machine
	deployed int64 // its zip for the deployed architecture, which this machine cannot start
	starts   sample
	memory   []int64 // resident at the first poll
}

// benchFunctions builds each function as it is deployed and a bare handler beside it, and compares their zips and how long they
// take from their start to the first poll of the Runtime API.
func benchFunctions(ctx context.Context, dir string, names []string, rounds int, say func(string)) ([]figure, error) {
	root, err := output(ctx, "", nil, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	var figures []figure
	for _, name := range names {
		say("measuring: the function " + name)
		whole, err := build(ctx, root, filepath.Join(dir, name), "runnerhub/functions/"+name, "")
		if err != nil {
			return figures, err
		}
		floor, err := build(ctx, root, filepath.Join(dir, name+"-bare"), "runnerhub/infra/bench/bare", bare(operations()[name]))
		if err != nil {
			return figures, err
		}
		for range rounds {
			if err := errors.Join(whole.start(ctx), floor.start(ctx)); err != nil {
				return figures, fmt.Errorf("starting %s: %w", name, err)
			}
		}
		weighs := float64(whole.zipped) / float64(floor.zipped)
		deployed := float64(whole.deployed) / float64(floor.deployed)
		takes := ratio(whole.starts.median(), floor.starts.median())
		figures = append(figures, figure{
			what:     "function " + name + ", zip and start",
			measured: fmt.Sprintf("%s, %s", megabytes(whole.zipped), short(whole.starts.median())),
			floor:    fmt.Sprintf("%s, %s", megabytes(floor.zipped), short(floor.starts.median())),
			ratio:    fmt.Sprintf("%.2f, %.2f", weighs, takes),
			reach:    fmt.Sprintf("at most %.1f × a bare handler", most), reached: weighs <= most && deployed <= most && takes <= most,
			notes: []string{
				fmt.Sprintf("zip for %s: %s, the bare one %s, %.2f ×", deployedArchitecture, megabytes(whole.deployed), megabytes(floor.deployed), deployed),
				fmt.Sprintf("to the first poll: %s; %s resident", whole.starts.spread(), megabytes(middle(whole.memory))),
				fmt.Sprintf("the bare one:      %s; %s resident", floor.starts.spread(), megabytes(middle(floor.memory))),
			},
		})
	}
	return figures, nil
}

func megabytes(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }

func middle(values []int64) int64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
}

// build builds a main as the Makefile does for Lambda, for this machine and for the deployed architecture. Text is its source, where it is
// in no file.
func build(ctx context.Context, root, dir, pkg, text string) (*built, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	b := &built{path: filepath.Join(dir, "bootstrap")}
	args := []string{"build", "-tags", "lambda.norpc", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w"}
	if text != "" {
		file, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
		list, err := json.Marshal(map[string]map[string]string{"Replace": {
			filepath.Join(root, filepath.FromSlash(strings.TrimPrefix(pkg, "runnerhub/")), "main.go"): file,
		}})
		if err := errors.Join(err, os.WriteFile(file, []byte(text), 0o600), os.WriteFile(overlay, list, 0o600)); err != nil {
			return nil, err
		}
		args = append(args, "-overlay", overlay)
	}
	lengths := map[string]int64{}
	for _, architecture := range []string{runtime.GOARCH, deployedArchitecture} {
		to := b.path
		if architecture != runtime.GOARCH {
			to += "-" + architecture
		}
		if _, err := output(ctx, root, []string{"GOARCH=" + architecture}, "go", append(args, "-o", to, pkg)...); err != nil {
			return nil, fmt.Errorf("building %s for %s: %w", path.Base(dir), architecture, err)
		}
		program, err := os.ReadFile(to)
		if err != nil {
			return nil, err
		}
		if lengths[architecture], err = zipped(program); err != nil {
			return nil, err
		}
	}
	b.zipped, b.deployed = lengths[runtime.GOARCH], lengths[deployedArchitecture]
	return b, nil
}

// output runs a program with settings in its environment, and answers what it says.
func output(ctx context.Context, dir string, settings []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), settings...)
	var said, complained bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complained
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, complained.String())
	}
	return strings.TrimSpace(said.String()), nil
}

// zipped is how long a zip with the program alone is.
func zipped(program []byte) (int64, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("bootstrap")
	if err != nil {
		return 0, err
	}
	if _, err := w.Write(program); err != nil {
		return 0, err
	}
	if err := z.Close(); err != nil {
		return 0, err
	}
	return int64(b.Len()), nil
}

// start starts the program once, until it asks for its first event.
func (b *built) start(ctx context.Context) (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	polled := make(chan time.Time, 1)
	api := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case polled <- time.Now():
		default:
		}
		<-r.Context().Done() // there is no event
	})}
	served := make(chan error, 1)
	go func() { served <- api.Serve(l) }()
	defer func() {
		if ended := errors.Join(api.Close(), <-served); !errors.Is(ended, http.ErrServerClosed) {
			err = errors.Join(err, ended)
		}
	}()
	cmd := exec.CommandContext(ctx, b.path)
	cmd.Env = append(functionEnvironment(), "AWS_LAMBDA_RUNTIME_API="+l.Addr().String())
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case at := <-polled:
		b.starts = append(b.starts, at.Sub(began))
		resident, err := residentOf(cmd.Process.Pid)
		b.memory = append(b.memory, resident)
		err = errors.Join(err, cmd.Process.Kill())
		<-ended
		return err
	case err := <-ended:
		return fmt.Errorf("it ended before it asked for an event: %w\n%s", err, said.String())
	}
}

// functionEnvironment is all that any function reads, none of it real: nobody is called before the first event.
func functionEnvironment() []string {
	return []string{
		"AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=AKIA0", "AWS_SECRET_ACCESS_KEY=x", "AWS_SESSION_TOKEN=x", "AWS_LAMBDA_FUNCTION_NAME=bench",
		"PUBLIC_URL=https://ci.example.com", "BITBUCKET_API_URL=https://api.bitbucket.org/2.0", "BITBUCKET_WEB_URL=https://bitbucket.org",
		"BITBUCKET_CLIENT_ID=client", "BITBUCKET_CLIENT_SECRET=arn:aws:secretsmanager:us-east-1:123456789012:secret:s",
		"RUNNERHUB_TABLE=table", "RUNNERHUB_DELIVERIES_QUEUE=https://sqs.us-east-1.amazonaws.com/123456789012/deliveries",
		"RUNNERHUB_REPORTS_QUEUE=https://sqs.us-east-1.amazonaws.com/123456789012/reports",
		"RUNNERHUB_TOKENS_KEY=arn:aws:kms:us-east-1:123456789012:key/t", "RUNNERHUB_HOOKS_KEY=arn:aws:kms:us-east-1:123456789012:key/h",
		"RUNNERHUB_BUILD_PROJECT=project", "RUNNERHUB_LOG_GROUP=group", "RUNNERHUB_CONCURRENCY=1", "RUNNERHUB_MAX_COMPUTE=large", "RUNNERHUB_AGENTS=/opt/agents",
		"RUNNERHUB_SCHEDULE_GROUP=group", "RUNNERHUB_SCHEDULE_ROLE=arn:aws:iam::123456789012:role/r",
		"RUNNERHUB_DELIVERIES_QUEUE_ARN=arn:aws:sqs:us-east-1:123456789012:deliveries",
		"RUNNERHUB_SCHEDULES_DEAD_QUEUE_ARN=arn:aws:sqs:us-east-1:123456789012:schedules-dead",
	}
}
