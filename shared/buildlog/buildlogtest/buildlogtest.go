// Package buildlogtest is the contract suite of package buildlog: every driver runs it.
package buildlogtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
)

const cursorLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

// Storage is one empty place of the driver under test.
type Storage struct {
	// Open answers a log on it, anew each time, as after a restart.
	Open func(t *testing.T) buildlog.Log
	// Process answers a command, not yet started, whose process opens a log on it and
	// calls Write with its standard output: usually the test binary itself, told by its environment.
	Process func(t *testing.T) *exec.Cmd
}

// Run runs the suite. NewStorage makes a place that no call before answered.
func Run(t *testing.T, newStorage func(t *testing.T) Storage) {
	for name, test := range map[string]func(*testing.T, Storage){
		"answers what was appended":               answersWhatWasAppended,
		"a log nobody wrote to is empty":          emptyLogs,
		"pages through all lines":                 pagesThroughAll,
		"cleans what is no text":                  cleansLines,
		"long lines and large pages":              longLines,
		"builds are apart":                        buildsAreApart,
		"refuses cursors it did not make":         refusesCursors,
		"refuses what is no build and no limit":   refusesArguments,
		"a follower gets every line once":         followsWriters,
		"a killed writer leaves whole lines only": survivesKills,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newStorage(t))
		})
	}
}

func answersWhatWasAppended(t *testing.T, storage Storage) {
	l := storage.Open(t)
	want := numbered("first", 5)
	want[1].Step = ""
	want[2].Text = ""
	want[3].Text = "\x1b[32mgreen\x1b[0m\tand tabs  "
	want[4].Time = want[4].Time.Add(123_456_789 * time.Nanosecond)
	appendLines(t, l, "b", want[:2]...)
	appendLines(t, l, "b") // nothing
	appendLines(t, l, "b", want[2:]...)
	for _, l := range []buildlog.Log{l, storage.Open(t)} {
		same(t, all(t, l, "b", 1000), want)
	}
}

func emptyLogs(t *testing.T, storage Storage) {
	l := storage.Open(t)
	page := read(t, l, "b", "", 10)
	if len(page.Lines) != 0 || page.Cursor == "" {
		t.Fatalf("the first page has %d lines and the cursor %q", len(page.Lines), page.Cursor)
	}
	page = read(t, l, "b", page.Cursor, 10)
	if len(page.Lines) != 0 || page.Cursor == "" {
		t.Fatalf("the second page has %d lines and the cursor %q", len(page.Lines), page.Cursor)
	}
	want := numbered("late", 1)
	appendLines(t, l, "b", want...)
	same(t, read(t, l, "b", page.Cursor, 10).Lines, want)
	same(t, all(t, l, "b", 10), want)
}

func pagesThroughAll(t *testing.T, storage Storage) {
	l := storage.Open(t)
	want := numbered("line", 2500)
	for batch := range slices.Chunk(want, 700) {
		appendLines(t, l, "b", batch...)
	}
	for _, limit := range []int{1, 7, buildlog.MaxPage} {
		if limit == 1 {
			same(t, all(t, l, "b", limit)[:50], want[:50])
			continue
		}
		same(t, all(t, l, "b", limit), want)
	}
	// A cursor in the middle stays good: reading from it again answers the same.
	page := read(t, l, "b", "", 10)
	same(t, read(t, l, "b", page.Cursor, 10).Lines, want[len(page.Lines):][:10])
	same(t, read(t, storage.Open(t), "b", page.Cursor, 10).Lines, want[len(page.Lines):][:10])
}

func cleansLines(t *testing.T, storage Storage) {
	l := storage.Open(t)
	line := buildlog.Line{Time: epoch, Step: "a\tb\nc", Text: "one\ntwo\r\x00\xff."}
	appendLines(t, l, "b", line, buildlog.Line{Time: epoch, Text: "next"})
	same(t, all(t, l, "b", 10), []buildlog.Line{
		{Time: epoch, Step: "a b c", Text: "one two \uFFFD\uFFFD."},
		{Time: epoch, Text: "next"},
	})
}

func longLines(t *testing.T, storage Storage) {
	l := storage.Open(t)
	long := strings.Repeat("x", buildlog.MaxText)
	var want []buildlog.Line
	for i := range 200 { // more than any page of bytes
		line := buildlog.Line{Time: epoch, Step: "long", Text: fmt.Sprintf("%06d%s", i, long)}
		appendLines(t, l, "b", line)
		line.Text = line.Text[:buildlog.MaxText]
		want = append(want, line)
	}
	same(t, all(t, l, "b", buildlog.MaxPage), want)
}

func buildsAreApart(t *testing.T, storage Storage) {
	l := storage.Open(t)
	builds := []string{"b", "B", "b.log", "b-1", "b_1", strings.Repeat("b", 128), strings.Repeat("b", 127) + "c"}
	for _, build := range builds {
		appendLines(t, l, build, buildlog.Line{Time: epoch, Text: "of " + build})
	}
	for _, build := range builds {
		same(t, all(t, l, build, 10), []buildlog.Line{{Time: epoch, Text: "of " + build}})
	}
}

func refusesCursors(t *testing.T, storage Storage) {
	l := storage.Open(t)
	appendLines(t, l, "b", numbered("line", 5)...)
	appendLines(t, l, "c", numbered("line", 5)...)
	good := read(t, l, "b", "", 2).Cursor
	cursors := map[string]string{
		"of another build": read(t, l, "c", "", 2).Cursor,
		"cut":              good[:len(good)-1],
		"longer":           good + "A",
		"a number":         "17",
		"no text":          "\x00\xff",
		"a path":           "../../etc/passwd",
		"enormous":         strings.Repeat("A", 100_000),
	}
	for i := range good {
		for _, c := range []byte("Az0") {
			if good[i] != c {
				cursors[fmt.Sprintf("with %c at %d", c, i)] = good[:i] + string(c) + good[i+1:]
			}
		}
	}
	for name, cursor := range cursors {
		if page, err := l.Read(t.Context(), "b", cursor, 10); !fault.Is(err, fault.Invalid) {
			t.Errorf("a cursor %s: %d lines, %v; want fault.Invalid", name, len(page.Lines), err)
		}
	}
}

func refusesArguments(t *testing.T, storage Storage) {
	l := storage.Open(t)
	for _, build := range []string{"", ".", "..", "../b", "a/b", "b\x00", "a b", ".b", strings.Repeat("b", 129)} {
		if err := l.Append(t.Context(), build, numbered("line", 1)...); !fault.Is(err, fault.Invalid) {
			t.Errorf("Append to %q: %v, want fault.Invalid", build, err)
		}
		if _, err := l.Read(t.Context(), build, "", 10); !fault.Is(err, fault.Invalid) {
			t.Errorf("Read of %q: %v, want fault.Invalid", build, err)
		}
	}
	for _, limit := range []int{-1, 0, buildlog.MaxPage + 1} {
		if _, err := l.Read(t.Context(), "b", "", limit); !fault.Is(err, fault.Invalid) {
			t.Errorf("Read of %d lines: %v, want fault.Invalid", limit, err)
		}
	}
}

// followsWriters reads with a cursor while several writers append, through two logs on the
// same place.
func followsWriters(t *testing.T, storage Storage) {
	const writers, batches, size = 4, 25, 8
	logs := []buildlog.Log{storage.Open(t), storage.Open(t)}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			lines := numbered(fmt.Sprint("writer-", w), batches*size)
			for batch := range slices.Chunk(lines, size) {
				if err := logs[w%2].Append(ctx, "b", batch...); err != nil {
					t.Error(err)
					stop()
				}
			}
		})
	}
	got := map[string][]buildlog.Line{}
	cursor, total := "", 0
	for total < writers*batches*size && ctx.Err() == nil {
		page := read(t, logs[total%2], "b", cursor, 1+total%13)
		cursor = page.Cursor
		total += len(page.Lines)
		for _, line := range page.Lines {
			got[line.Step] = append(got[line.Step], line)
		}
	}
	writing.Wait()
	for w := range writers {
		step := fmt.Sprint("writer-", w)
		same(t, got[step], numbered(step, batches*size))
	}
	if rest := read(t, logs[0], "b", cursor, 100); len(rest.Lines) != 0 {
		t.Errorf("%d lines more than were written", len(rest.Lines))
	}
}

func survivesKills(t *testing.T, storage Storage) {
	l := storage.Open(t)
	cursor := ""
	for round := range 8 {
		cmd := storage.Process(t)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It says when it begins to append and when it has. Every other time it dies as soon as
		// the first line of the first append is seen, which is in the middle where readers see
		// the beginning of one; else after some appends.
		acknowledged, seen := 0, 0
		says := bufio.NewScanner(out)
		for seen <= round && says.Scan() {
			seen++
			fmt.Sscanf(says.Text(), "wrote %d", &acknowledged)
			if round%2 == 0 {
				for len(read(t, l, killed, cursor, 1).Lines) == 0 {
					runtime.Gosched()
				}
				break
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		for says.Scan() { // what it said before it died
			fmt.Sscanf(says.Text(), "wrote %d", &acknowledged)
		}
		if err := cmd.Wait(); err == nil || seen == 0 {
			t.Fatalf("the writing process ended by itself, having said %d lines: %v", seen, err)
		}
		// The next writer begins where the dead one stopped in the middle of a line.
		after := numbered(fmt.Sprint("after-", round), 3)
		appendLines(t, l, killed, after...)
		var got []buildlog.Line
		for {
			page := read(t, l, killed, cursor, 100)
			if cursor = page.Cursor; len(page.Lines) == 0 {
				break
			}
			got = append(got, page.Lines...)
		}
		if len(got) < len(after) {
			t.Fatalf("kill %d: %d lines", round, len(got))
		}
		dead, rest := got[:len(got)-len(after)], got[len(got)-len(after):]
		same(t, rest, after)
		if len(dead) < acknowledged {
			t.Errorf("kill %d: %d lines were acknowledged, %d are there", round, acknowledged, len(dead))
		}
		for i, line := range dead {
			if line != long(i) {
				t.Errorf("kill %d: line %d is of step %q with %d bytes", round, i, line.Step, len(line.Text))
				break
			}
		}
	}
}

// Write appends lines to a build until it is killed, and says how many it wrote.
func Write(l buildlog.Log, out io.Writer) error {
	for n := 0; ; n += batch {
		var lines []buildlog.Line
		for i := range batch {
			lines = append(lines, long(n+i))
		}
		fmt.Fprintf(out, "writing %d\n", n+batch)
		if err := l.Append(context.Background(), killed, lines...); err != nil {
			return err
		}
		fmt.Fprintf(out, "wrote %d\n", n+batch)
	}
}

const (
	killed = "killed"
	batch  = 400 // lines of one append: long enough to die in
)

// long is line i of the process that is killed; none is the beginning or the end of another.
func long(i int) buildlog.Line {
	mark := fmt.Sprintf("<%d>", i)
	return buildlog.Line{Time: epoch, Step: "killed", Text: mark + strings.Repeat(string('a'+rune(i%26)), 10_000+i%5000) + mark}
}

var epoch = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func numbered(step string, n int) []buildlog.Line {
	lines := make([]buildlog.Line, n)
	for i := range lines {
		lines[i] = buildlog.Line{Time: epoch.Add(time.Duration(i) * time.Millisecond), Step: step, Text: fmt.Sprintf("%s %d", step, i)}
	}
	return lines
}

func appendLines(t *testing.T, l buildlog.Log, build string, lines ...buildlog.Line) {
	t.Helper()
	if err := l.Append(t.Context(), build, lines...); err != nil {
		t.Fatalf("append %d lines to %s: %v", len(lines), build, err)
	}
}

func read(t *testing.T, l buildlog.Log, build, cursor string, limit int) buildlog.Page {
	t.Helper()
	page, err := l.Read(t.Context(), build, cursor, limit)
	// A service that all tests share may be late; readers ask again.
	for tries := 1; fault.Is(err, fault.Unavailable) && tries < 6; tries++ {
		page, err = l.Read(t.Context(), build, cursor, limit)
	}
	if err != nil {
		t.Fatalf("read %s: %v", build, err)
	}
	size := 0
	for _, line := range page.Lines {
		size += line.Size()
	}
	bad := func(r rune) bool { return !strings.ContainsRune(cursorLetters, r) }
	if len(page.Lines) > limit || size > buildlog.MaxPageBytes || page.Cursor == "" || strings.ContainsFunc(page.Cursor, bad) {
		t.Fatalf("read %s: %d lines of at most %d, %d bytes of at most %d, cursor %q",
			build, len(page.Lines), limit, size, buildlog.MaxPageBytes, page.Cursor)
	}
	return page
}

// all reads from the beginning until there is no more.
func all(t *testing.T, l buildlog.Log, build string, limit int) (lines []buildlog.Line) {
	t.Helper()
	cursor := ""
	for {
		page := read(t, l, build, cursor, limit)
		if len(page.Lines) == 0 {
			return lines
		}
		lines, cursor = append(lines, page.Lines...), page.Cursor
	}
}

func same(t *testing.T, got, want []buildlog.Line) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("line %d is %.80q of %q at %v (%d bytes), want %.80q of %q at %v (%d bytes)", i,
				got[i].Text, got[i].Step, got[i].Time, len(got[i].Text), want[i].Text, want[i].Step, want[i].Time, len(want[i].Text))
			return
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}
