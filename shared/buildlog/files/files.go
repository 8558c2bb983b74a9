// Package files is the build log of the standalone server: one file a build, to which
// lines in their text form are only ever appended.
//
// There are two ways in. Append is for the server. File answers the file itself, open
// for appending, for a runner to hand to a build's agent as its output: the agent goes
// on writing when the server dies. Both rely on one write(2) to a file opened with
// O_APPEND being placed after all others, on a local file system.
//
// A line without its newline does not exist: it is being written, or its writer was
// killed in the middle. Whoever opens the log next ends such a rest with NUL and a
// newline, and readers leave out a line that ends in NUL; no line in text form holds one.
//
// Logs are not synced: the death of any process loses nothing, the loss of power may
// lose the last seconds. Nothing is deleted here.
package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"

	"runnerhub/shared/buildlog"
	"runnerhub/shared/fault"
)

// maxRead is the most bytes read for one page.
const maxRead = 1 << 20

// Deps is what New needs.
type Deps struct {
	Dir string // made when missing, with mode 0700
}

// Log implements buildlog.Log. It is safe for concurrent use, by several processes too.
type Log struct{ root *os.Root }

// New opens the folder of logs.
func New(d Deps) (*Log, error) {
	if d.Dir == "" {
		return nil, errors.New("buildlog files: Dir is required")
	}
	if err := os.MkdirAll(d.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log folder: %w", err)
	}
	root, err := os.OpenRoot(d.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the log folder: %w", err)
	}
	return &Log{root: root}, nil
}

// Close lets go of the folder. Files that File answered stay open.
func (l *Log) Close() error { return l.root.Close() }

// File answers the log of the build open for appending, to be closed by the caller. What
// is written to it should be whole lines in their text form, each in one write; other
// output is read as lines of text alone.
func (l *Log) File(_ context.Context, build string) (*os.File, error) {
	f, torn, err := l.open(build)
	if err != nil {
		return nil, err
	}
	if torn != nil {
		if _, err := f.Write(torn); err != nil {
			return nil, errors.Join(fault.Wrap(fault.Unavailable, err, "opening a build log failed"), f.Close())
		}
	}
	return f, nil
}

// Append implements buildlog.Log.
func (l *Log) Append(_ context.Context, build string, lines ...buildlog.Line) error {
	f, text, err := l.open(build)
	if err != nil || len(lines) == 0 {
		return err
	}
	for _, line := range lines {
		text = line.AppendText(text)
	}
	n, err := f.Write(text)
	if err != nil && n > 0 {
		err = fault.Wrap(fault.Unknown, err, "only a part of the lines may be in the build log")
	} else {
		err = fault.Wrap(fault.Unavailable, err, "writing to a build log failed")
	}
	return errors.Join(err, f.Close())
}

// open opens the log for appending and answers what ends the rest of a line without a
// newline, or nil when there is none. When its writer is alive after all, and has completed
// the line meanwhile, it ends an empty line, which is left out as well.
func (l *Log) open(build string) (f *os.File, torn []byte, err error) {
	if err := buildlog.CheckName(build); err != nil {
		return nil, nil, err
	}
	f, err = l.root.OpenFile(name(build), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, err, "opening a build log failed")
	}
	last := make([]byte, 1)
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		_, err = f.ReadAt(last, info.Size()-1)
		if last[0] != '\n' {
			torn = []byte("\x00\n")
		}
	}
	if err != nil {
		return nil, nil, errors.Join(fault.Wrap(fault.Unavailable, err, "opening a build log failed"), f.Close())
	}
	return f, torn, nil
}

// Read implements buildlog.Log. It reads at most 1 MiB, wherever in the log the cursor is.
func (l *Log) Read(_ context.Context, build, cursor string, limit int) (buildlog.Page, error) {
	if err := buildlog.CheckName(build); err != nil {
		return buildlog.Page{}, err
	}
	if err := buildlog.CheckLimit(limit); err != nil {
		return buildlog.Page{}, err
	}
	offset, err := parseCursor(build, cursor)
	if err != nil {
		return buildlog.Page{}, err
	}
	for {
		window, err := l.window(build, offset, min(maxRead, limit*buildlog.MaxLine))
		if err != nil {
			return buildlog.Page{}, err
		}
		lines, n := split(window, limit)
		offset += int64(n)
		// Nothing but torn lines is no page: an empty one means that there was no more.
		if len(lines) > 0 || n == 0 {
			return buildlog.Page{Lines: lines, Cursor: makeCursor(build, offset)}, nil
		}
	}
}

// window answers up to size bytes of the log from offset on.
func (l *Log) window(build string, offset int64, size int) ([]byte, error) {
	f, err := l.root.Open(name(build))
	if errors.Is(err, fs.ErrNotExist) && offset == 0 {
		return nil, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, buildlog.BadCursor() // of a log that is gone
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "opening a build log failed")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "reading a build log failed")
	}
	if offset > info.Size() {
		return nil, buildlog.BadCursor() // of a log that was longer
	}
	window := make([]byte, min(int64(size), info.Size()-offset))
	n, err := f.ReadAt(window, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Wrap(fault.Unavailable, err, "reading a build log failed")
	}
	return window[:n], nil
}

// split answers up to limit whole lines from the beginning of window, as many as a page
// may hold, and how many bytes of the window they are. Foreign output longer than a text may be is cut into several, so that none
// is lost, and none needs more than a window.
func split(window []byte, limit int) (lines []buildlog.Line, n int) {
	held := 0
	for len(lines) < limit {
		rest := window[n:]
		end := bytes.IndexByte(rest[:min(len(rest), buildlog.MaxLine)], '\n')
		if end < 0 && len(rest) < buildlog.MaxLine {
			return lines, n
		}
		if end > 0 && rest[end-1] == 0 { // torn
			n += end + 1
			continue
		}
		size := end + 1
		if end < 0 || end > buildlog.MaxText {
			if _, ok := buildlog.ParseForm(string(rest[:max(end, 0)])); !ok {
				end = textEnd(rest)
				size = end
			}
		}
		line := buildlog.ParseLine(string(rest[:end])) // may hold more bytes than it came from
		if held += line.Size(); held > buildlog.MaxPageBytes {
			return lines, n
		}
		n += size
		lines = append(lines, line)
	}
	return lines, n
}

// textEnd answers where to cut a long text: at its longest, but within no character.
func textEnd(text []byte) int {
	for cut := buildlog.MaxText; cut > buildlog.MaxText-utf8.UTFMax; cut-- {
		if utf8.RuneStart(text[cut]) {
			return cut
		}
	}
	return buildlog.MaxText // no UTF-8 anyway
}

func name(build string) string { return build + ".log" }

// A cursor is the offset, in 8 bytes, and 8 bytes of a hash that bind it to the build.
// The hash keeps mistakes apart and is no secret: who reads a log may read all of it.
const cursorBytes = 16

func makeCursor(build string, offset int64) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(offset))
	sum := sha256.Sum256(append(b, build...))
	return base64.RawURLEncoding.EncodeToString(append(b, sum[:cursorBytes-len(b)]...))
}

func parseCursor(build, cursor string) (offset int64, err error) {
	if cursor == "" {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) != cursorBytes {
		return 0, buildlog.BadCursor()
	}
	offset = int64(binary.BigEndian.Uint64(b))
	if offset < 0 || makeCursor(build, offset) != cursor {
		return 0, buildlog.BadCursor()
	}
	return offset, nil
}
