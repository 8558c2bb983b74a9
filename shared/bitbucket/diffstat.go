package bitbucket

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"runnerhub/shared/fault"
)

// Changes are the paths of changed files.
type Changes struct {
	Paths []string // of a renamed file both; never nil
	Cut   bool     // there may be more
}

// maxDiffPages bounds how many pages of 100 files are read.
const maxDiffPages = 10

// Changes answers which files differ between two commits (7 characters or more): all
// that do, or with topic those that to changed since it left from. More than a thousand
// are cut; so is what Bitbucket does not answer, because a commit is gone, or because
// it would take too long. Scope repository.
func (c *Client) Changes(ctx context.Context, repo, from, to string, topic bool) (Changes, error) {
	if !isHash(from, 7) || !isHash(to, 7) {
		return Changes{}, fault.Field("commit", "not a commit hash")
	}
	r, err := inRepository("listing changed files", http.MethodGet, repo, "diffstat", to+".."+from)
	if err != nil {
		return Changes{}, err
	}
	r.query = url.Values{"pagelen": {"100"}, "fields": {"next,values.old.path,values.new.path"}}
	r.deep = true
	if !topic {
		r.query.Set("topic", "false")
	}
	out := Changes{Paths: []string{}}
	cursor := ""
	for range maxDiffPages {
		p, err := list(ctx, c, r, cursor, func(w wireDiff) (wireDiff, error) { return w, nil })
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.TooLarge) {
			out.Cut = true
			return out, nil
		}
		if err != nil {
			return Changes{}, err
		}
		for _, w := range p.Items {
			for _, path := range []string{w.Old.Path, w.New.Path} {
				if path != "" && !slices.Contains(out.Paths[max(0, len(out.Paths)-1):], path) {
					out.Paths = append(out.Paths, path)
				}
			}
		}
		if cursor = p.Cursor; cursor == "" {
			return out, nil
		}
	}
	out.Cut = true
	return out, nil
}

// wireDiff is one changed file. A side is null where there was or is none.
type wireDiff struct {
	Old, New struct{ Path string }
}
