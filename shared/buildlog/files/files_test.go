package files

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"runnerhub/shared/buildlog"
	"runnerhub/shared/buildlog/buildlogtest"
	"runnerhub/shared/fault"
)

// These tell the test binary to be another process: the writer that buildlogtest
// kills, or the agent of a build, whose output is the log.
const (
	folderVariable = "BUILDLOG_FILES_TEST_FOLDER"
	agentVariable  = "BUILDLOG_FILES_TEST_AGENT"
)

func TestMain(m *testing.M) {
	dir, agent := os.Getenv(folderVariable), os.Getenv(agentVariable)
	if dir == "" && agent == "" {
		os.Exit(m.Run())
	}
	var err error
	if agent != "" {
		err = beAgent(agent)
	} else {
		var l *Log
		if l, err = New(Deps{Dir: dir}); err == nil {
			err = buildlogtest.Write(l, os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// beAgent writes lines to its output, as an agent does, and ends when its input does.
func beAgent(step string) error {
	for i := range agentLines {
		if _, err := os.Stdout.Write(buildlog.Line{Step: step, Text: fmt.Sprint(i)}.AppendText(nil)); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

const agentLines = 500

func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := New(Deps{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestContract(t *testing.T) {
	t.Parallel()
	buildlogtest.Run(t, func(t *testing.T) buildlogtest.Storage {
		dir := filepath.Join(t.TempDir(), "logs")
		return buildlogtest.Storage{
			Open:    func(t *testing.T) buildlog.Log { return open(t, dir) },
			Process: func(t *testing.T) *exec.Cmd { return process(t, folderVariable+"="+dir) },
		}
	})
}

func process(t *testing.T, variable string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), variable)
	cmd.Stderr = t.Output()
	return cmd
}

// Two agents and the server write to one log at once.
func TestFileIsTheOutputOfProcesses(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	var ends []func() error
	for _, step := range []string{"one", "two"} {
		f, err := l.File(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		cmd := process(t, agentVariable+"="+step)
		cmd.Stdout = f
		input, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil { // the agent has its own
			t.Fatal(err)
		}
		ends = append(ends, func() error {
			if err := input.Close(); err != nil {
				return err
			}
			return cmd.Wait()
		})
	}
	for i := range agentLines {
		if err := l.Append(t.Context(), "b", buildlog.Line{Step: "server", Text: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range ends {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	next := map[string]int{}
	for _, line := range all(t, l, "b") {
		if line.Text != fmt.Sprint(next[line.Step]) {
			t.Fatalf("line %d of %q is %q", next[line.Step], line.Step, line.Text)
		}
		next[line.Step]++
	}
	if len(next) != 3 || next["one"] != agentLines || next["two"] != agentLines || next["server"] != agentLines {
		t.Errorf("the lines of each writer: %v, want %d", next, agentLines)
	}
}

func TestTornLines(t *testing.T) {
	t.Parallel()
	whole := string(buildlog.Line{Step: "a", Text: "whole"}.AppendText(nil))
	for name, torn := range map[string]string{
		"one byte":        "2",
		"all but its end": strings.TrimSuffix(whole, "\n"),
		"in a character":  "0001-01-01T00:00:00Z\ta\tx\xf0\x9f",
		"ended before":    "0001-01-01T00:00:00Z\ta\tx\x00\n0001",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t, t.TempDir())
			writeRaw(t, l, whole+torn)
			page := read(t, l, "")
			want(t, page.Lines, "whole")
			if again := read(t, l, page.Cursor); len(again.Lines) != 0 {
				t.Fatalf("a torn line is read: %+v", again.Lines)
			}
			for i, more := range []func() error{
				func() error { return l.Append(t.Context(), "b", buildlog.Line{Step: "a", Text: "next"}) },
				func() error { // an agent started again
					f, err := l.File(t.Context(), "b")
					if err != nil {
						return err
					}
					if _, err := io.WriteString(f, strings.Replace(whole, "whole", "next", 1)); err != nil {
						return err
					}
					return f.Close()
				},
			} {
				if i > 0 {
					writeRaw(t, l, torn)
				}
				if err := more(); err != nil {
					t.Fatal(err)
				}
				next := read(t, l, page.Cursor)
				want(t, next.Lines, "next")
				page = next
			}
			want(t, all(t, l, "b"), "whole", "next", "next")
		})
	}
}

// What a process prints without any line break is read, in pieces, within the bounds.
func TestForeignOutput(t *testing.T) {
	t.Parallel()
	for name, unit := range map[string]string{"ASCII": "x", "characters": "äö€😀", "no UTF-8": "\x80\x81"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := open(t, t.TempDir())
			output := strings.Repeat(unit, 3<<20/len(unit))
			writeRaw(t, l, output+"\nlast\n")
			lines := all(t, l, "b")
			var text strings.Builder
			for _, line := range lines[:len(lines)-1] {
				if len(line.Text) > buildlog.MaxText || !utf8.ValidString(line.Text) {
					t.Fatalf("a text of %d bytes, valid UTF-8: %v", len(line.Text), utf8.ValidString(line.Text))
				}
				text.WriteString(line.Text)
			}
			if utf8.ValidString(output) && text.String() != output {
				t.Errorf("%d of %d bytes come back", text.Len(), len(output))
			}
			want(t, lines[len(lines)-1:], "last")
		})
	}
	t.Run("nothing but torn lines", func(t *testing.T) {
		t.Parallel()
		l := open(t, t.TempDir())
		writeRaw(t, l, strings.Repeat("torn\x00\n", 1<<20)+"last\n")
		want(t, read(t, l, "").Lines, "last")
	})
}

func TestCursorPastTheEnd(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	if _, err := l.Read(t.Context(), "b", makeCursor("b", 1), 10); !fault.Is(err, fault.Invalid) {
		t.Errorf("a cursor into a log that is gone: %v", err)
	}
	writeRaw(t, l, "line\n")
	if _, err := l.Read(t.Context(), "b", makeCursor("b", 6), 10); !fault.Is(err, fault.Invalid) {
		t.Errorf("a cursor into a log that was longer: %v", err)
	}
}

// A link planted where a log belongs leads nowhere.
func TestLinksLeadNowhere(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := open(t, dir)
	if err := os.Symlink(outside, filepath.Join(dir, name("b"))); err != nil {
		t.Fatal(err)
	}
	if page, err := l.Read(t.Context(), "b", "", 10); err == nil {
		t.Errorf("a link is followed out of the folder: %+v", page.Lines)
	}
	if err := l.Append(t.Context(), "b", buildlog.Line{Text: "x"}); err == nil {
		t.Error("a link is written through")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Deps{{}, {Dir: file}} {
		if _, err := New(d); err == nil {
			t.Errorf("New(%+v) is accepted", d)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("")
	f.Add(makeCursor("b", 17))
	f.Add(makeCursor("c", 17))
	f.Add("AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, cursor string) {
		offset, err := parseCursor("b", cursor)
		if err == nil && (offset < 0 || cursor != "" && makeCursor("b", offset) != cursor) {
			t.Errorf("%q is offset %d", cursor, offset)
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", cursor, err)
		}
	})
}

// Whatever a log holds, it is read to its last whole line, within the bounds.
func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-11-23T06:36:35Z\ta\tx\ntorn"), uint8(1))
	f.Add([]byte("\n\n\x00\n\xff\n"), uint8(3))
	f.Fuzz(func(t *testing.T, content []byte, limit uint8) {
		var lines []buildlog.Line
		total := 0
		for {
			page, n := split(content[total:], int(limit)+1)
			total += n
			lines = append(lines, page...)
			if n == 0 {
				break
			}
		}
		rest := content[total:]
		if len(rest) >= buildlog.MaxLine || strings.Contains(string(rest), "\n") {
			t.Errorf("%d bytes with whole lines are left", len(rest))
		}
		for _, line := range lines {
			if len(line.Text) > buildlog.MaxText || strings.ContainsAny(line.Text, "\n\x00") {
				t.Errorf("the text %q", line.Text)
			}
		}
	})
}

func writeRaw(t *testing.T, l *Log, output string) {
	t.Helper()
	f, err := l.root.OpenFile(name("b"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, output); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, l *Log, cursor string) buildlog.Page {
	t.Helper()
	page, err := l.Read(t.Context(), "b", cursor, buildlog.MaxPage)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func all(t *testing.T, l *Log, build string) (lines []buildlog.Line) {
	t.Helper()
	cursor := ""
	for {
		page, err := l.Read(t.Context(), build, cursor, buildlog.MaxPage)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Lines) == 0 {
			return lines
		}
		lines, cursor = append(lines, page.Lines...), page.Cursor
	}
}

func want(t *testing.T, lines []buildlog.Line, texts ...string) {
	t.Helper()
	var got []string
	for _, line := range lines {
		got = append(got, line.Text)
	}
	if strings.Join(got, "\n") != strings.Join(texts, "\n") {
		t.Fatalf("the lines are %q, want %q", got, texts)
	}
}
