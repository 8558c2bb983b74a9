package codebuild

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

const (
	// maxLine is the longest text of an event in bytes; what is longer goes on in the next.
	maxLine = 255 << 10
	// lineTries is how often lines are brought to where they go.
	lineTries   = 4
	linePause   = 200 * time.Millisecond
	lineTimeout = 10 * time.Second
	// lineGrace is how long the output may go on when its writers ought to be dead.
	lineGrace = 5 * time.Second
)

// output is a build's log: what its commands print and what CodeBuild says, through one pipe.
type output struct {
	host          *Host
	group, stream string
	read, write   *os.File
	feed          *feed[Line]
	readDone      chan struct{}
	sent          chan struct{}
}

func newOutput(h *Host, group, stream string) *output {
	return &output{host: h, group: group, stream: stream, feed: newFeed[Line](), readDone: make(chan struct{}), sent: make(chan struct{})}
}

func (o *output) open() error {
	var err error
	if o.read, o.write, err = os.Pipe(); err != nil {
		return fmt.Errorf("make output pipe: %w", err)
	}
	go o.readLines()
	go o.send()
	return nil
}

// file is where commands write to.
func (o *output) file() *os.File { return o.write }

// say writes a line of CodeBuild's own, after an empty one as CodeBuild does.
func (o *output) say(format string, args ...any) {
	now := o.host.deps.Now().UTC().Format("2006/01/02 15:04:05.000000")
	_, _ = fmt.Fprintf(o.write, "\n[Container] %s %s\n", now, fmt.Sprintf(format, args...))
}

// close ends the log, once all of it has arrived.
func (o *output) close() {
	if o.write == nil {
		return
	}
	_ = o.write.Close()
	select {
	case <-o.readDone:
	case <-time.After(lineGrace):
		_ = o.read.SetReadDeadline(time.Unix(1, 0))
		<-o.readDone
	}
	_ = o.read.Close()
	o.feed.close()
	<-o.sent
}

func (o *output) readLines() {
	defer close(o.readDone)
	r := bufio.NewReaderSize(o.read, maxLine)
	for {
		text, err := r.ReadSlice('\n')
		if line := strings.TrimSuffix(string(text), "\n"); line != "" {
			o.feed.add(Line{o.host.deps.Now(), strings.ToValidUTF8(line, "\uFFFD") + "\n"})
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				o.host.deps.Log.Error("read a build's output", "stream", o.stream, "error", err)
			}
			return
		}
	}
}

// send brings lines to where they go. Those that do not get there are lost, as on AWS; the build goes on.
func (o *output) send() {
	defer close(o.sent)
	for {
		lines, ok := o.feed.take()
		if !ok {
			return
		}
		var err error
		for try := 1; try <= lineTries; try++ {
			if try > 1 {
				time.Sleep(linePause)
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(o.host.ctx), lineTimeout)
			err = o.host.deps.Lines(ctx, o.group, o.stream, lines)
			cancel()
			if err == nil {
				break
			}
		}
		if err != nil {
			o.host.deps.Log.Error("write a build's log", "stream", o.stream, "lines", len(lines), "error", err)
		}
	}
}
