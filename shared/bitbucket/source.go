package bitbucket

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"runnerhub/shared/fault"
)

// MaxSource is the most bytes of one file that Source reads.
const MaxSource = 256 << 10

// Source reads a file at a commit (40 characters: names of branches are ambiguous
// in a path). More than maxBytes (at most [MaxSource]) is TooLarge; NotFound is a
// missing file, commit or repository alike; a directory is Invalid. The content
// of a symbolic link is whatever Bitbucket answers for it: telling would cost a
// second call. Scope repository.
func (c *Client) Source(ctx context.Context, repo, commit, path string, maxBytes int) ([]byte, error) {
	if !isHash(commit, 40) {
		return nil, fault.Field("commit", "not a full commit hash")
	}
	segments := strings.Split(path, "/")
	for _, s := range segments {
		if s == "" || s == "." || s == ".." || len(path) > 1024 {
			return nil, fault.Field("path", "not a plain path below the repository's root")
		}
	}
	r, err := inRepository("reading "+plain(path, 200), http.MethodGet, repo, append([]string{"src", commit}, segments...)...)
	if err != nil {
		return nil, err
	}
	r.raw, r.limit = true, MaxSource
	if maxBytes > 0 && maxBytes < MaxSource {
		r.limit = int64(maxBytes)
	}
	a, err := c.fetch(ctx, r)
	if err != nil {
		return nil, err
	}
	if isListing(a) {
		return nil, fault.Field("path", "%s is a directory", plain(path, 200))
	}
	return a.body, nil
}

// isListing recognises the answer for a directory: JSON that is not offered as an
// attachment, which files are.
func isListing(a answer) bool {
	if !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") || a.header.Get("Content-Disposition") != "" {
		return false
	}
	var p page[struct{ Type string }]
	if json.Unmarshal(a.body, &p) != nil {
		return false
	}
	for _, v := range p.Values {
		if v.Type != "commit_file" && v.Type != "commit_directory" {
			return false
		}
	}
	return len(p.Values) > 0
}
