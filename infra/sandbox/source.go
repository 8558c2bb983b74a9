package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
)

// resolveCommit finds the full hash for what a path names: a full or shortened hash,
// or a branch or tag.
func (s *Sandbox) resolveCommit(ctx context.Context, repo *repository, name string) (string, error) {
	if isHash(name) {
		c, err := s.git.commit(ctx, repo.ID, name)
		if err == nil {
			return c.hash, nil
		}
		if !errors.Is(err, errNoObject) {
			return "", err
		}
	}
	var tip *ref
	s.store.read(func(d *data) {
		tip = cmp.Or(d.refs[repo.ID][branchPrefix+name], d.refs[repo.ID][tagPrefix+name])
	})
	if tip == nil {
		return "", notFound("Commit " + name)
	}
	return tip.Commit, nil
}

func (s *Sandbox) getCommit(c *call) (*reply, error) {
	hash, err := s.resolveCommit(c.Context(), c.repo, c.PathValue("commit"))
	if err != nil {
		return nil, err
	}
	body, err := s.commitObject(c.Context(), c.repo, hash)
	if err != nil {
		return nil, err
	}
	body["repository"] = s.repositoryReference(c.repo)
	body["participants"] = []any{}
	return ok(body)
}

// maxCommitsListed bounds a list of commits; its next links end there.
const maxCommitsListed = 5000

// listCommits lists the history of a revision, of all that include= names or of
// everything, without what exclude= names leads to.
func (s *Sandbox) listCommits(c *call) (*reply, error) {
	query := c.URL.Query()
	include := query["include"]
	if revision := c.PathValue("revision"); revision != "" {
		include = append(include, revision)
	}
	args := []string{"rev-list", "--max-count=" + strconv.Itoa(maxCommitsListed)}
	for _, name := range include {
		hash, err := s.resolveCommit(c.Context(), c.repo, name)
		if err != nil {
			return nil, err
		}
		args = append(args, hash)
	}
	if len(include) == 0 {
		args = append(args, "--branches", "--tags")
	}
	for _, name := range query["exclude"] {
		hash, err := s.resolveCommit(c.Context(), c.repo, name)
		if err != nil {
			return nil, err
		}
		args = append(args, "^"+hash)
	}
	out, err := s.git.run(c.Context(), c.repo.ID, args...)
	if err != nil {
		return nil, err
	}
	return answer(s, c, listing[string]{
		items:  strings.Fields(out),
		render: func(hash string) (any, error) { return s.commitObject(c.Context(), c.repo, hash) },
	})
}

// srcRoot sends to the root of the main branch.
func (s *Sandbox) srcRoot(c *call) (*reply, error) {
	var tip *ref
	s.store.read(func(d *data) { tip = d.branch(c.repo.ID, c.repo.MainBranch) })
	if tip == nil {
		return nil, notFound("Branch " + c.repo.MainBranch)
	}
	to := s.namesOf(c.repo).api + "/src/" + tip.Commit + "/"
	return &reply{status: http.StatusFound, header: http.Header{"Location": {to}}}, nil
}

// srcWithoutPath answers .../src/{commit}: the root folder needs its slash.
func (s *Sandbox) srcWithoutPath(*call) (*reply, error) {
	return nil, &apiError{status: http.StatusNotFound, message: "Resource not found", detail: "The root of a commit ends in a slash."}
}

// A sourceEntry is one file or folder of a commit.
type sourceEntry struct {
	treeEntry
	path string
}

// getSource answers a file's bytes or a folder's list, or with format=meta what either
// is.
func (s *Sandbox) getSource(c *call) (*reply, error) {
	ctx := c.Context()
	hash, err := s.resolveCommit(ctx, c.repo, c.PathValue("commit"))
	if err != nil {
		return nil, err
	}
	wanted := c.PathValue("path")
	entry, err := s.entryAt(ctx, c.repo, hash, strings.TrimSuffix(wanted, "/"))
	switch {
	case errors.Is(err, errNoObject):
		return nil, refuse(http.StatusNotFound, "No such file or directory: %s", wanted)
	case err != nil:
		return nil, err
	case c.URL.Query().Get("format") == "meta":
		return s.entryMeta(c, hash, entry)
	case entry.isDir():
		return s.listDir(c, hash, entry)
	case strings.HasSuffix(wanted, "/"), entry.mode == "160000":
		return nil, refuse(http.StatusNotFound, "No such directory: %s", wanted)
	}
	blob, err := s.git.object(ctx, c.repo.ID, entry.hash)
	if err != nil {
		return nil, err
	}
	return rawFile(c, entry, blob)
}

func rawFile(c *call, entry sourceEntry, blob *gitObject) (*reply, error) {
	tag := `"` + blob.hash + `"`
	header := http.Header{"Etag": {tag}}
	if c.Header.Get("If-None-Match") == tag {
		return &reply{status: http.StatusNotModified, header: header}, nil
	}
	header.Set("Content-Type", mediaType(entry.name, blob.data))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": entry.name}))
	raw := blob.data
	if raw == nil {
		raw = []byte{}
	}
	return &reply{status: http.StatusOK, raw: raw, header: header}, nil
}

// mediaType is told without a charset.
func mediaType(name string, data []byte) string {
	if byName, _, err := mime.ParseMediaType(mime.TypeByExtension(path.Ext(name))); err == nil {
		return byName
	}
	if isBinary(data) {
		return "application/octet-stream"
	}
	return "text/plain"
}

// isBinary is git's own rule of thumb.
func isBinary(data []byte) bool {
	return bytes.IndexByte(data[:min(len(data), 8000)], 0) >= 0
}

// entryAt walks down from a commit's root. A path that leads nowhere is errNoObject.
func (s *Sandbox) entryAt(ctx context.Context, repo *repository, hash, wanted string) (sourceEntry, error) {
	c, err := s.git.commit(ctx, repo.ID, hash)
	if err != nil {
		return sourceEntry{}, err
	}
	at := sourceEntry{treeEntry{mode: "40000", hash: c.tree}, ""}
	if wanted == "" {
		return at, nil
	}
	for name := range strings.SplitSeq(wanted, "/") {
		if !at.isDir() {
			return sourceEntry{}, errNoObject
		}
		entries, err := s.git.tree(ctx, repo.ID, at.hash)
		if err != nil {
			return sourceEntry{}, err
		}
		i := slices.IndexFunc(entries, func(e treeEntry) bool { return e.name == name })
		if i < 0 {
			return sourceEntry{}, errNoObject
		}
		at = sourceEntry{entries[i], path.Join(at.path, name)}
	}
	return at, nil
}

func (s *Sandbox) listDir(c *call, hash string, dir sourceEntry) (*reply, error) {
	entries, err := s.git.tree(c.Context(), c.repo.ID, dir.hash)
	if err != nil {
		return nil, err
	}
	return answer(s, c, listing[treeEntry]{
		items: entries,
		render: func(e treeEntry) (any, error) {
			return s.entryObject(c.Context(), c.repo, hash, sourceEntry{e, path.Join(dir.path, e.name)})
		},
		field: func(e treeEntry, name string) (any, bool) {
			switch name {
			case "path":
				return path.Join(dir.path, e.name), true
			case "type":
				return entryType(e), true
			}
			return nil, false
		},
	})
}

func (s *Sandbox) entryMeta(c *call, hash string, entry sourceEntry) (*reply, error) {
	body, err := s.entryObject(c.Context(), c.repo, hash, entry)
	if err != nil {
		return nil, err
	}
	return ok(body)
}

func entryType(e treeEntry) string {
	if e.isDir() {
		return "commit_directory"
	}
	return "commit_file"
}

func (s *Sandbox) entryObject(ctx context.Context, repo *repository, hash string, e sourceEntry) (obj, error) {
	n := s.namesOf(repo)
	src := n.api + "/src/" + hash + "/" + escapePath(e.path)
	body := obj{
		"type": entryType(e.treeEntry), "path": e.path, "escaped_path": escapePath(e.path),
		"commit": obj{
			"type": "commit", "hash": hash,
			"links": obj{"self": link(n.api + "/commit/" + hash), "html": link(n.web + "/commits/" + hash)},
		},
	}
	if e.isDir() {
		body["links"] = obj{"self": link(src + "/"), "meta": link(src + "/?format=meta")}
		return body, nil
	}
	attributes := []string{}
	switch e.mode {
	case "120000":
		attributes = append(attributes, "link")
	case "100755":
		attributes = append(attributes, "executable")
	case "160000":
		attributes = append(attributes, "subrepository")
	}
	body["size"] = 0
	if e.mode != "160000" { // the commit of a submodule is in another repository
		blob, err := s.git.object(ctx, repo.ID, e.hash)
		if err != nil {
			return nil, err
		}
		if isBinary(blob.data) {
			attributes = append(attributes, "binary")
		}
		body["size"] = len(blob.data)
		body["mimetype"] = mediaType(e.name, blob.data)
	}
	body["attributes"] = attributes
	body["links"] = obj{
		"self": link(src), "meta": link(src + "?format=meta"),
		"history": link(n.api + "/filehistory/" + hash + "/" + escapePath(e.path)),
	}
	return body, nil
}

// A fileDiff is one changed file. Old or new is "" when it was added or removed.
type fileDiff struct {
	status, old, new string
	added, removed   int
}

// listDiffstat answers the files changed by a commit against its first parent, or by
// a..b: what a brings since it left b, and with topic=false what differs between
// them. The order is the reverse of git's.
func (s *Sandbox) listDiffstat(c *call) (*reply, error) {
	ctx := c.Context()
	spec := c.PathValue("spec")
	changed, base, two := strings.Cut(spec, "..")
	to, err := s.resolveCommit(ctx, c.repo, changed)
	if err != nil {
		return nil, err
	}
	const emptyTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
	from := emptyTree
	if two {
		if from, err = s.resolveCommit(ctx, c.repo, base); err != nil {
			return nil, err
		}
		if c.URL.Query().Get("topic") != "false" {
			out, err := s.git.run(ctx, c.repo.ID, "merge-base", from, to)
			if err != nil {
				return nil, refuse(http.StatusNotFound, "The commits of %s have nothing in common.", spec)
			}
			from = strings.TrimSpace(out)
		}
	} else {
		head, err := s.git.commit(ctx, c.repo.ID, to)
		if err != nil {
			return nil, err
		}
		if len(head.parents) > 0 {
			from = head.parents[0]
		}
	}
	out, err := s.git.run(ctx, c.repo.ID, "diff-tree", "-r", "-M", "-z", "--raw", "--numstat", from, to)
	if err != nil {
		return nil, err
	}
	n := s.namesOf(c.repo)
	side := func(name, hash string) any {
		if name == "" {
			return nil
		}
		return obj{
			"type": "commit_file", "path": name, "escaped_path": escapePath(name),
			"links": obj{"self": link(n.api + "/src/" + hash + "/" + escapePath(name))},
		}
	}
	return answer(s, c, listing[fileDiff]{
		items: parseDiff(out),
		render: func(f fileDiff) (any, error) {
			return obj{
				"type": "diffstat", "status": f.status, "lines_added": f.added, "lines_removed": f.removed,
				"old": side(f.old, from), "new": side(f.new, to),
			}, nil
		},
	})
}

// parseDiff reads git diff-tree -z --raw --numstat: first a record for each file
// beginning with ":", then the numbers in the same order.
func parseDiff(out string) []fileDiff {
	fields := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00")
	next := func() string {
		if len(fields) == 0 {
			return ""
		}
		first := fields[0]
		fields = fields[1:]
		return first
	}
	var files []fileDiff
	for len(fields) > 0 && strings.HasPrefix(fields[0], ":") {
		words := strings.Fields(next())
		name := next()
		f := fileDiff{status: "modified", old: name, new: name}
		switch words[len(words)-1][0] {
		case 'A':
			f.status, f.old = "added", ""
		case 'D':
			f.status, f.new = "removed", ""
		case 'R':
			f.status, f.new = "renamed", next()
		}
		files = append(files, f)
	}
	for i := range files {
		numbers := strings.SplitN(next(), "\t", 3)
		if len(numbers) < 3 {
			break
		}
		files[i].added, _ = strconv.Atoi(numbers[0]) // "-" of a binary file counts 0
		files[i].removed, _ = strconv.Atoi(numbers[1])
		if files[i].status == "renamed" {
			next()
			next()
		}
	}
	return files
}
