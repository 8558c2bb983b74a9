// Package cloudwatch is the build log on Amazon CloudWatch Logs: one log group holds
// all builds, and a log is every stream whose name begins with the log's own and
// a slash. A stream has exactly one writer, because a stream is ordered by its
// writers' clocks and read on from a place in that order: what a second writer, whose
// clock is behind, adds to it can be passed over.
//
//   - A build writes its output itself, one stream an attempt: CodeBuild is told to call it
//     <log>/<attempt>, and adds its own id. Only what is in the text form is the build's log. What else is there
//     are CodeBuild's own lines, the commands that fetch the agent among them: they stay where they are, for operators.
//   - Each Log that appends makes a stream of its own, <log>/~<id>. CloudWatch appends twice
//     what it is sent twice, after an answer that got lost for instance; so each line has its number in the
//     stream in front of it, and readers leave out what they have seen.
//
// Lines of different streams are put in order by the clocks of their writers as far as they are there at the
// time of reading; in one stream they keep their order. CloudWatch may show a line some seconds after it took it. Nothing is deleted here: the group's retention does that.
//
// Who appends needs logs:CreateLogStream and logs:PutLogEvents, who reads
// logs:DescribeLogStreams and logs:GetLogEvents, on the group and its streams. The group is made by the template, not here.
// Builds share a role that may append to every stream of the group, but may list none: what keeps a build out of another's log is
// that it does not know its name.
package cloudwatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"runnerhub/shared/amazon"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
)

// own is how the name of a stream goes on after the log's and a slash, when a Log
// appends to it. No id begins with it.
const own = "~"

// Deps is what New needs.
type Deps struct {
	Config aws.Config
	Group  string           // the log group of all builds
	Now    func() time.Time // CloudWatch refuses what is 2 hours ahead of its clock, or weeks behind
	NewID  func() string    // names streams; of [A-Za-z0-9_-]
}

// Log implements buildlog.Log. It is safe for concurrent use.
type Log struct {
	deps   Deps
	client *cloudwatchlogs.Client

	mu      sync.Mutex
	writers map[string]*writer // by log
}

var _ buildlog.Log = (*Log)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Log, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.Group == "" || deps.Now == nil || deps.NewID == nil {
		return nil, errors.New("buildlog/cloudwatch: no credentials, region, log group, clock or source of ids")
	}
	client := cloudwatchlogs.NewFromConfig(deps.Config, func(o *cloudwatchlogs.Options) { o.Retryer = aws.NopRetryer{} })
	return &Log{deps: deps, client: client, writers: map[string]*writer{}}, nil
}

// call asks the service; what of its refusals the caller does not understand is Internal.
func (l *Log) call(ctx context.Context, write bool, message string, call func(ctx context.Context) error) error {
	kindOf := func(string) fault.Kind { return fault.Internal }
	return amazon.Fault(amazon.Usual().Do(ctx, call), write, kindOf, message)
}

// missing is the code for a group or a stream that is not there.
const missing = "ResourceNotFoundException"

// noGroup says what to do when err is about the group.
func (l *Log) noGroup(err error) error {
	if amazon.Code(err) != missing {
		return err
	}
	return fault.Wrap(fault.Internal, err, "there is no log group %s: deploy the template again, which makes it, or create it", l.deps.Group)
}
