package sandbox

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/zlib"
	"container/list"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxReaders      = 16
	maxObject       = 32 << 20
	cacheBytes      = 64 << 20
	cacheLargest    = 1 << 20
	objectReadTime  = 30 * time.Second
	objectNotFound  = "missing"
	objectAmbiguous = "ambiguous"
)

// errNoObject is the answer for an object, or a shortened hash, that does not lead
// to exactly one object.
var errNoObject = errors.New("no such object")

// A gitObject is one object of git, immutable like its hash.
type gitObject struct {
	hash, kind string
	data       []byte
}

// objectCache keeps recently used objects. They never change, so nothing expires.
type objectCache struct {
	mu    sync.Mutex
	items map[string]*list.Element
	order list.List // of cachedObject, latest first
	size  int
}

type cachedObject struct {
	key    string
	object *gitObject
}

func (c *objectCache) get(key string) *gitObject {
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.items[key]
	if element == nil {
		return nil
	}
	c.order.MoveToFront(element)
	return element.Value.(cachedObject).object
}

func (c *objectCache) put(key string, o *gitObject) {
	if len(o.data) > cacheLargest {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = map[string]*list.Element{}
	}
	if c.items[key] != nil {
		return
	}
	c.items[key] = c.order.PushFront(cachedObject{key, o})
	c.size += len(o.data)
	for c.size > cacheBytes {
		oldest := c.order.Back()
		dropped := c.order.Remove(oldest).(cachedObject)
		delete(c.items, dropped.key)
		c.size -= len(dropped.object.data)
	}
}

// object reads an object by its full or shortened hash.
func (g *git) object(ctx context.Context, repositoryID, hash string) (*gitObject, error) {
	if !isHash(hash) {
		return nil, errNoObject
	}
	full := len(hash) == 40
	if full {
		if o := g.cache.get(repositoryID + hash); o != nil {
			return o, nil
		}
	}
	o, err := g.reader(repositoryID).read(ctx, hash)
	for tries := 0; errors.Is(err, errStopped) && tries < 3; tries++ {
		o, err = g.reader(repositoryID).read(ctx, hash)
	}
	if err != nil {
		return nil, err
	}
	g.cache.put(repositoryID+o.hash, o)
	return o, nil
}

// isHash says whether text may stand for an object: 4 to 40 lower-case hex digits.
func isHash(text string) bool {
	return len(text) >= 4 && len(text) <= 40 && strings.Trim(text, "0123456789abcdef") == ""
}

// reader is the repository's batch reader. The least recently used one ends when
// there are too many.
func (g *git) reader(repositoryID string) *batchReader {
	g.mu.Lock()
	r := g.readers[repositoryID]
	var surplus *batchReader
	if r == nil {
		if len(g.readers) >= maxReaders {
			oldest := ""
			for id, other := range g.readers {
				if oldest == "" || other.used < g.readers[oldest].used {
					oldest = id
				}
			}
			surplus = g.readers[oldest]
			delete(g.readers, oldest)
		}
		r = &batchReader{start: func() *exec.Cmd {
			return g.command(context.Background(), g.program, "--git-dir="+g.path(repositoryID), "cat-file", "--batch")
		}}
		g.readers[repositoryID] = r
	}
	g.uses++
	r.used = g.uses
	g.mu.Unlock()
	if surplus != nil {
		surplus.stop() // waits for a read in progress, so not under the lock
	}
	return r
}

// errStopped is a reader's answer to who got hold of it just before it was stopped.
var errStopped = errors.New("reader stopped")

// A batchReader keeps one git cat-file --batch, which answers in microseconds where a
// new process takes milliseconds. It starts the process when it is needed and again
// when it died.
type batchReader struct {
	start func() *exec.Cmd
	used  int // git.uses when it was last asked for; guarded by git.mu

	mu      sync.Mutex
	stopped bool
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	out     *bufio.Reader
}

func (b *batchReader) read(ctx context.Context, name string) (*gitObject, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil, errStopped
	}
	if b.cmd == nil {
		if err := b.open(); err != nil {
			return nil, fmt.Errorf("start git cat-file: %w", err)
		}
	}
	// A caller who gives up leaves an answer in the pipe; the process goes with it.
	cmd := b.cmd
	deadline, cancel := context.WithTimeout(ctx, objectReadTime)
	defer cancel()
	kill := context.AfterFunc(deadline, func() { _ = cmd.Cancel() })
	o, err := b.ask(name)
	if !kill() || err != nil && !errors.Is(err, errNoObject) {
		b.end()
	}
	return o, err
}

func (b *batchReader) open() error {
	cmd := b.start()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.cmd, b.stdin, b.out = cmd, stdin, bufio.NewReaderSize(stdout, 64<<10)
	return nil
}

// ask writes one name and reads "<hash> <type> <size>" and the object.
func (b *batchReader) ask(name string) (*gitObject, error) {
	if _, err := io.WriteString(b.stdin, name+"\n"); err != nil {
		return nil, fmt.Errorf("ask git cat-file: %w", err)
	}
	line, err := b.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("read from git cat-file: %w", err)
	}
	words := strings.Fields(line)
	if len(words) == 2 && (words[1] == objectNotFound || words[1] == objectAmbiguous) {
		return nil, errNoObject
	}
	if len(words) != 3 {
		return nil, fmt.Errorf("git cat-file answered %q", line)
	}
	size, err := strconv.Atoi(words[2])
	if err != nil || size > maxObject {
		return nil, fmt.Errorf("object %s has %s bytes, more than is served", words[0], words[2])
	}
	body := make([]byte, size+1) // a line feed follows
	if _, err := io.ReadFull(b.out, body); err != nil {
		return nil, fmt.Errorf("read from git cat-file: %w", err)
	}
	return &gitObject{hash: words[0], kind: words[1], data: body[:size]}, nil
}

// end lets the process go. The lock is held.
func (b *batchReader) end() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Cancel()
	_ = b.stdin.Close()
	_ = b.cmd.Wait() // killed: there is nothing to learn from how it ended
	b.cmd = nil
}

func (b *batchReader) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.end()
}

// A commit as git keeps it.
type commit struct {
	hash, tree string
	parents    []string
	author     signature
	message    string
}

// A signature is a name with an address, and when.
type signature struct {
	name, email string
	when        time.Time
}

func (s signature) raw() string { return s.name + " <" + s.email + ">" }

// A tagObject is an annotated tag.
type tagObject struct {
	target  string
	tagger  signature
	message string
}

// splitObject divides a commit or tag into its header lines and its message.
func splitObject(data []byte) (header []string, message string) {
	head, message, _ := strings.Cut(string(data), "\n\n")
	return strings.Split(head, "\n"), message
}

func parseCommit(o *gitObject) *commit {
	c := &commit{hash: o.hash}
	header, message := splitObject(o.data)
	c.message = message
	for _, line := range header {
		name, value, _ := strings.Cut(line, " ")
		switch name {
		case "tree":
			c.tree = value
		case "parent":
			c.parents = append(c.parents, value)
		case "author":
			c.author = parseSignature(value)
		}
	}
	return c
}

func parseTag(o *gitObject) *tagObject {
	t := &tagObject{}
	header, message := splitObject(o.data)
	t.message = message
	for _, line := range header {
		name, value, _ := strings.Cut(line, " ")
		switch name {
		case "object":
			t.target = value
		case "tagger":
			t.tagger = parseSignature(value)
		}
	}
	return t
}

// parseSignature reads "Name <email> seconds zone".
func parseSignature(text string) signature {
	var s signature
	open, end := strings.IndexByte(text, '<'), strings.LastIndexByte(text, '>')
	if open < 0 || end < open {
		return signature{name: text}
	}
	s.name, s.email = strings.TrimSpace(text[:open]), text[open+1:end]
	words := strings.Fields(text[end+1:])
	if len(words) == 0 {
		return s
	}
	seconds, _ := strconv.ParseInt(words[0], 10, 64)
	s.when = time.Unix(seconds, 0).UTC()
	if len(words) > 1 && len(words[1]) == 5 {
		if zone, err := strconv.Atoi(words[1]); err == nil {
			s.when = s.when.In(time.FixedZone("", zone/100*3600+zone%100*60))
		}
	}
	return s
}

// commit reads a commit by its full or shortened hash; a hash of something else is
// errNoObject.
func (g *git) commit(ctx context.Context, repositoryID, hash string) (*commit, error) {
	o, err := g.object(ctx, repositoryID, hash)
	if err != nil {
		return nil, err
	}
	if o.kind != "commit" {
		return nil, errNoObject
	}
	return parseCommit(o), nil
}

// A treeEntry is one line of a tree: mode in octal, name, hash.
type treeEntry struct {
	mode, name, hash string
}

func (e treeEntry) isDir() bool { return e.mode == "40000" }

// sortName is the name by which git orders entries: folders as if they ended in a
// slash.
func (e treeEntry) sortName() string {
	if e.isDir() {
		return e.name + "/"
	}
	return e.name
}

func (g *git) tree(ctx context.Context, repositoryID, hash string) ([]treeEntry, error) {
	o, err := g.object(ctx, repositoryID, hash)
	if err != nil {
		return nil, err
	}
	if o.kind != "tree" {
		return nil, errNoObject
	}
	var entries []treeEntry
	for rest := o.data; len(rest) > 0; {
		head, tail, found := bytes.Cut(rest, []byte{0})
		mode, name, split := strings.Cut(string(head), " ")
		if !found || !split || len(tail) < sha1.Size {
			return nil, fmt.Errorf("tree %s is broken", hash)
		}
		entries = append(entries, treeEntry{mode: mode, name: name, hash: hex.EncodeToString(tail[:sha1.Size])})
		rest = tail[sha1.Size:]
	}
	return entries, nil
}

// writeObject stores a loose object and answers its hash. It spares the process that
// git hash-object would be.
func (g *git) writeObject(repositoryID, kind string, data []byte) (string, error) {
	full := append([]byte(kind+" "+strconv.Itoa(len(data))+"\x00"), data...)
	sum := sha1.Sum(full)
	hash := hex.EncodeToString(sum[:])
	dir := filepath.Join(g.path(repositoryID), "objects", hash[:2])
	name := filepath.Join(dir, hash[2:])
	if _, err := os.Stat(name); err == nil {
		return hash, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("write object: %w", err)
	}
	file, err := os.CreateTemp(dir, "tmp_obj_*")
	if err != nil {
		return "", fmt.Errorf("write object: %w", err)
	}
	packed := zlib.NewWriter(file)
	_, err = packed.Write(full)
	if err = errors.Join(err, packed.Close(), file.Close()); err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("write object: %w", err), os.Remove(file.Name()))
	}
	g.cache.put(repositoryID+hash, &gitObject{hash: hash, kind: kind, data: data})
	return hash, nil
}

// writeTree stores the tree base ("" for none) with files laid over it and answers
// its hash. Files maps slash-separated paths to contents; nil removes a file.
func (g *git) writeTree(ctx context.Context, repositoryID, base string, files map[string][]byte) (string, error) {
	var entries []treeEntry
	if base != "" {
		var err error
		if entries, err = g.tree(ctx, repositoryID, base); err != nil {
			return "", err
		}
	}
	below := map[string]map[string][]byte{}
	for path, content := range files {
		dir, rest, nested := strings.Cut(path, "/")
		if nested {
			if below[dir] == nil {
				below[dir] = map[string][]byte{}
			}
			below[dir][rest] = content
			continue
		}
		mode := "100644"
		if i := slices.IndexFunc(entries, func(e treeEntry) bool { return e.name == path }); i >= 0 {
			if !entries[i].isDir() {
				mode = entries[i].mode
			}
			entries = slices.Delete(entries, i, i+1)
		}
		if content == nil {
			continue
		}
		hash, err := g.writeObject(repositoryID, "blob", content)
		if err != nil {
			return "", err
		}
		entries = append(entries, treeEntry{mode: mode, name: path, hash: hash})
	}
	for dir, inside := range below {
		under := ""
		if i := slices.IndexFunc(entries, func(e treeEntry) bool { return e.name == dir }); i >= 0 {
			if entries[i].isDir() {
				under = entries[i].hash
			}
			entries = slices.Delete(entries, i, i+1)
		}
		hash, err := g.writeTree(ctx, repositoryID, under, inside)
		if err != nil {
			return "", err
		}
		entries = append(entries, treeEntry{mode: "40000", name: dir, hash: hash})
	}
	slices.SortFunc(entries, func(a, b treeEntry) int { return cmp.Compare(a.sortName(), b.sortName()) })
	var data bytes.Buffer
	for _, e := range entries {
		raw, err := hex.DecodeString(e.hash)
		if err != nil {
			return "", fmt.Errorf("tree entry %s: %w", e.name, err)
		}
		data.WriteString(e.mode + " " + e.name + "\x00")
		data.Write(raw)
	}
	return g.writeObject(repositoryID, "tree", data.Bytes())
}

// writeCommit stores a commit and answers its hash.
func (g *git) writeCommit(repositoryID string, c commit) (string, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "tree %s\n", c.tree)
	for _, parent := range c.parents {
		fmt.Fprintf(&text, "parent %s\n", parent)
	}
	who := fmt.Sprintf("%s %d +0000", c.author.raw(), c.author.when.Unix())
	fmt.Fprintf(&text, "author %s\ncommitter %s\n\n%s", who, who, c.message)
	if !strings.HasSuffix(c.message, "\n") {
		text.WriteByte('\n')
	}
	return g.writeObject(repositoryID, "commit", []byte(text.String()))
}
