package cloudwatch

import (
	"context"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
)

const (
	// What one call takes: bytes of all messages with an overhead for each, and events.
	maxBatchBytes = 1 << 20
	eventBytes    = 26
	maxBatch      = 10_000
	// maxWriters is how many logs a Log remembers its streams of. Past it, it makes new ones.
	maxWriters = 1000
)

// writer is the one stream that a Log appends to for a log.
type writer struct {
	turn   chan struct{} // holds one while somebody appends; the rest is his
	stream string        // empty: to be made
	last   int64         // number of the last line
	at     int64         // timestamp of the last batch, in milliseconds
}

func (l *Log) writer(name string) *writer {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.writers[name]
	if w == nil {
		if len(l.writers) >= maxWriters {
			clear(l.writers) // who appends to one this moment still has it, and is alone with it
		}
		w = &writer{turn: make(chan struct{}, 1)}
		l.writers[name] = w
	}
	return w
}

// Append implements buildlog.Log.
func (l *Log) Append(ctx context.Context, name string, lines ...buildlog.Line) error {
	if err := buildlog.CheckName(name); err != nil || len(lines) == 0 {
		return err
	}
	w := l.writer(name)
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, ctx.Err(), "writing to a build log failed")
	}
	for rest := lines; len(rest) > 0; {
		n, err := l.put(ctx, name, w, rest)
		if err != nil && len(rest) < len(lines) {
			return fault.Wrap(fault.Unknown, err, "only the first lines are in the build log")
		}
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// put puts as many lines as one call takes, and answers how many. A stream that is not there any
// more, its group having been made anew for instance, is replaced.
func (l *Log) put(ctx context.Context, name string, w *writer, lines []buildlog.Line) (n int, err error) {
	for range 2 {
		if w.stream == "" {
			if err := l.create(ctx, name, w); err != nil {
				return 0, err
			}
		}
		if n, err = l.putOnce(ctx, w, lines); err == nil {
			return n, nil
		}
		// What was sent may still arrive. With nothing after it in its stream, no reader passes it over.
		w.stream = ""
		if amazon.Code(err) != missing || fault.Is(err, fault.Unknown) {
			return 0, err
		}
	}
	return 0, err
}

func (l *Log) create(ctx context.Context, name string, w *writer) error {
	stream := name + "/" + own + l.deps.NewID()
	err := l.call(ctx, false, "the build log did not make a stream", func(ctx context.Context) error {
		_, err := l.client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &l.deps.Group, LogStreamName: &stream})
		if amazon.Code(err) == "ResourceAlreadyExistsException" {
			return nil // by an attempt whose answer was lost
		}
		return err
	})
	if err != nil {
		return l.noGroup(err)
	}
	w.stream, w.last = stream, 0
	return nil
}

func (l *Log) putOnce(ctx context.Context, w *writer, lines []buildlog.Line) (int, error) {
	// One timestamp for a batch, which therefore keeps its order, and a later one for the next, whatever the clock
	// does: a reader then never finds something new before what it has read.
	at := max(l.deps.Now().UnixMilli(), w.at+1)
	var events []types.InputLogEvent
	size := 0
	for _, line := range lines {
		message := message(w.last+1+int64(len(events)), line)
		if size += len(message) + eventBytes; size > maxBatchBytes || len(events) == maxBatch {
			break
		}
		events = append(events, types.InputLogEvent{Message: &message, Timestamp: &at})
	}
	var out *cloudwatchlogs.PutLogEventsOutput
	err := l.call(ctx, true, "the build log did not take lines", func(ctx context.Context) (err error) {
		out, err = l.client.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{
			LogGroupName: &l.deps.Group, LogStreamName: aws.String(w.stream), LogEvents: events,
		})
		return err
	})
	if err != nil {
		return 0, err
	}
	if out.RejectedLogEventsInfo != nil {
		return 0, fault.New(fault.Internal, "CloudWatch Logs dropped lines for their time, %d ms after 1970: compare this machine's clock", at)
	}
	w.last, w.at = w.last+int64(len(events)), at
	return len(events), nil
}

// message is a line as a stream of ours holds it: its number, a tab, and the text form.
func message(number int64, line buildlog.Line) string {
	b := strconv.AppendInt(make([]byte, 0, 64+len(line.Step)+len(line.Text)), number, 10)
	b = line.AppendText(append(b, '\t'))
	return string(b[:len(b)-1]) // an event needs no newline
}
