package cloudwatch

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/buildlog"
)

const (
	// maxStreams is how many streams of a log are read: one an attempt and one for each process that
	// appends are a few, but a build can make as many as it likes. It bounds cursors, which travel in addresses.
	maxStreams = 64
	// cutName stands for the line that says so. A stream cannot be called like that.
	cutName = ":"
	// maxPlaces is how many places a cursor holds: those in the streams, and whether that line was answered.
	maxPlaces = maxStreams + 1
	// maxEvents is the most that one call answers.
	maxEvents = 10_000
	// minEvents is the least that is asked for of a build's output, of which much may fall away: the
	// commands of the buildspec stand in front of the agent's first line.
	minEvents = 100
)

// place is how far a stream was read. Its lines are numbered from 1 on.
type place struct {
	token string // what CloudWatch gave for reading on; empty: from the beginning
	base  int64  // number of the last line before that
	last  int64  // number of the last line that was answered; those in between are skipped
}

// stream is one being read.
type stream struct {
	name string
	place
	pending []numbered // lines after place.last, in their order
	after   place      // where the stream is read when there are none pending
	end     bool       // there was nothing more
}

type numbered struct {
	buildlog.Line
	number int64
	at     int64 // timestamp of its event
}

// ours reports whether a Log appends to the stream, and not a build.
func (s *stream) ours() bool {
	_, name, _ := strings.Cut(s.name, "/")
	return strings.HasPrefix(name, own)
}

// Read implements buildlog.Log. It makes one call to find the streams, and one or a few for each of them. When a place that
// CloudWatch gave has expired, which takes a day, the stream is read from its beginning and what was answered is left out.
func (l *Log) Read(ctx context.Context, name, cursor string, limit int) (buildlog.Page, error) {
	if err := buildlog.CheckName(name); err != nil {
		return buildlog.Page{}, err
	}
	if err := buildlog.CheckLimit(limit); err != nil {
		return buildlog.Page{}, err
	}
	places, err := parseCursor(name, cursor)
	if err != nil {
		return buildlog.Page{}, err
	}
	names, more, err := l.streams(ctx, name)
	if err != nil {
		return buildlog.Page{}, err
	}
	streams := make([]*stream, 0, len(names)+1)
	for _, name := range names {
		s := &stream{name: name, place: places[idOf(name)]}
		if err := l.fetch(ctx, s, limit); err != nil {
			return buildlog.Page{}, err
		}
		streams = append(streams, s)
	}
	if more {
		streams = append(streams, l.cut(places))
	}
	lines := merge(streams, limit)
	kept := map[streamID]place{}
	for _, s := range streams {
		kept[idOf(s.name)] = s.place
	}
	for id, p := range places { // a stream that was not found this time may be found the next
		if _, found := kept[id]; !found && len(kept) < maxPlaces {
			kept[id] = p
		}
	}
	return buildlog.Page{Lines: lines, Cursor: makeCursor(name, kept)}, nil
}

// cut is a stream of one line, that there is more than is read here. It comes behind what the others have.
func (l *Log) cut(places map[streamID]place) *stream {
	s := &stream{name: cutName, place: places[idOf(cutName)], end: true}
	s.after = s.place
	if s.last == 0 {
		text := fmt.Sprintf("The log is cut here: it has more than %d streams, and what the others hold is not shown. A build has one an attempt.", maxStreams)
		s.pending = []numbered{{buildlog.Line{Time: l.deps.Now().UTC(), Text: text}, 1, math.MaxInt64}}
		s.after.base, s.after.last = 1, 1
	}
	return s
}

// streams answers the names of the log's streams, the first ones of more.
func (l *Log) streams(ctx context.Context, log string) (names []string, more bool, err error) {
	var token *string
	for {
		var out *cloudwatchlogs.DescribeLogStreamsOutput
		err := l.call(ctx, false, "the build log does not answer", func(ctx context.Context) (err error) {
			out, err = l.client.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{
				LogGroupName: &l.deps.Group, LogStreamNamePrefix: aws.String(log + "/"), NextToken: token,
			})
			return err
		})
		if err != nil {
			return nil, false, l.noGroup(err)
		}
		for _, s := range out.LogStreams {
			names = append(names, aws.ToString(s.LogStreamName))
		}
		if len(names) > maxStreams {
			return names[:maxStreams], true, nil
		}
		if token = out.NextToken; token == nil {
			return names, false, nil
		}
	}
}

// fetch reads on in a stream until there are lines, or no more of them. A page of CloudWatch may be empty though
// there is more, or hold nothing but what falls away; the last one is that which answers the token it was asked with.
func (l *Log) fetch(ctx context.Context, s *stream, want int) error {
	for {
		out, err := l.events(ctx, s, want)
		if amazon.Code(err) == "InvalidParameterException" && s.token != "" {
			s.token, s.base = "", 0 // expired
			continue
		}
		if amazon.Code(err) == missing {
			s.end = true // deleted since it was found
			return nil
		}
		if err != nil {
			return err
		}
		s.after = s.place
		for _, e := range out.Events {
			s.take(e)
		}
		next := aws.ToString(out.NextForwardToken)
		s.end = next == "" || next == s.token
		if !s.end {
			s.after.token = next
		}
		if len(s.pending) > 0 {
			return nil
		}
		s.place = s.after
		if s.end {
			return nil
		}
	}
}

func (l *Log) events(ctx context.Context, s *stream, want int) (out *cloudwatchlogs.GetLogEventsOutput, err error) {
	limit := int64(want) + s.last - s.base
	if !s.ours() {
		limit = max(limit, minEvents)
	}
	in := &cloudwatchlogs.GetLogEventsInput{
		LogGroupName: &l.deps.Group, LogStreamName: &s.name, StartFromHead: aws.Bool(true),
		Limit: aws.Int32(int32(min(limit, maxEvents))),
	}
	if s.token != "" {
		in.NextToken = &s.token
	}
	err = l.call(ctx, false, "the build log does not answer", func(ctx context.Context) (err error) {
		out, err = l.client.GetLogEvents(ctx, in)
		return err
	})
	return out, err
}

// take takes the lines of an event, except those that were answered or came before.
func (s *stream) take(e types.OutputLogEvent) {
	at := aws.ToInt64(e.Timestamp)
	add := func(number int64, line buildlog.Line) {
		s.after.base = max(s.after.base, number)
		if number > s.after.last {
			s.after.last = number
			s.pending = append(s.pending, numbered{line, number, at})
		}
	}
	text := aws.ToString(e.Message)
	if s.ours() {
		number, form, _ := strings.Cut(text, "\t")
		n, err := strconv.ParseInt(number, 10, 64)
		if line, ok := buildlog.ParseForm(form); ok && err == nil { // what is not numbered is not ours
			add(n, line)
		}
		return
	}
	// Output comes with its newlines, one or several lines an event. What is not in the form is CodeBuild's own.
	for text := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if line, ok := buildlog.ParseForm(text); ok {
			add(s.after.base+1, line)
		}
	}
}

// merge takes lines off the streams, the earliest first, as many as a page holds. It ends where a stream
// has none left and may have more: those may be earlier than what others have.
func merge(streams []*stream, limit int) (lines []buildlog.Line) {
	held := 0
	for len(lines) < limit {
		var first *stream
		for _, s := range streams {
			if len(s.pending) > 0 && (first == nil || s.pending[0].at < first.pending[0].at) {
				first = s
			}
		}
		if first == nil {
			return lines
		}
		line := first.pending[0]
		if held += line.Size(); held > buildlog.MaxPageBytes {
			return lines
		}
		lines = append(lines, line.Line)
		first.last, first.pending = line.number, first.pending[1:]
		if len(first.pending) == 0 {
			first.place = first.after
			if !first.end {
				return lines
			}
		}
	}
	return lines
}
