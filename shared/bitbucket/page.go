package bitbucket

import (
	"context"
	"encoding/base64"
	"maps"
	"net/url"

	"runnerhub/shared/fault"
)

// page is Bitbucket's list envelope.
type page[W any] struct {
	Values []W    `json:"values"`
	Next   string `json:"next"`
}

// Page is one page of a list. Cursor asks for the next one, with the same other
// arguments; it is empty on the last page. It is opaque and may be shown to a
// browser: it holds no address and no token.
type Page[T any] struct {
	Items  []T
	Cursor string
}

const maxCursor = 2048

// list reads one page. A cursor is the part of the next link's query that is not
// ours (usually a page token): path and filters always come from the caller's
// arguments, so a made-up cursor reads nothing else.
func list[W, T any](ctx context.Context, c *Client, r request, cursor string, convert func(W) (T, error)) (Page[T], error) {
	own := r.query
	if cursor != "" {
		more, err := decodeCursor(cursor)
		if err != nil {
			return Page[T]{}, err
		}
		r.query = merge(more, own)
	}
	var wire page[W]
	if err := c.call(ctx, r, &wire); err != nil {
		return Page[T]{}, err
	}
	result := Page[T]{Items: make([]T, 0, len(wire.Values))}
	for _, w := range wire.Values {
		item, err := convert(w)
		if err != nil {
			return Page[T]{}, r.fail(fault.Unavailable, err, "an answer of another shape than documented")
		}
		result.Items = append(result.Items, item)
	}
	var err error
	result.Cursor, err = c.b.encodeCursor(r, wire.Next, own)
	return result, err
}

// listAll reads every page, up to a bound that no honest repository reaches.
func listAll[W, T any](ctx context.Context, c *Client, r request, convert func(W) (T, error)) ([]T, error) {
	const maxPages = 10
	var all []T
	cursor := ""
	for range maxPages {
		p, err := list(ctx, c, r, cursor, convert)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if cursor = p.Cursor; cursor == "" {
			return all, nil
		}
	}
	return nil, r.fail(fault.TooLarge, nil, "more than %d pages", maxPages)
}

func (b *Bitbucket) encodeCursor(r request, next string, own url.Values) (string, error) {
	if next == "" {
		return "", nil
	}
	u, err := url.Parse(next)
	if err != nil || !b.home(u) {
		return "", r.fail(fault.Invalid, err, "a link to the next page on another host, which was not followed")
	}
	query := u.Query()
	for key := range own {
		query.Del(key)
	}
	cursor := base64.RawURLEncoding.EncodeToString([]byte(query.Encode()))
	if len(query) == 0 || len(cursor) > maxCursor {
		return "", r.fail(fault.Invalid, nil, "a link to the next page that cannot be used")
	}
	return cursor, nil
}

func decodeCursor(cursor string) (url.Values, error) {
	if len(cursor) > maxCursor {
		return nil, fault.Field("cursor", "too long")
	}
	data, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, fault.Field("cursor", "not one of ours")
	}
	query, err := url.ParseQuery(string(data))
	if err != nil || len(query) == 0 {
		return nil, fault.Field("cursor", "not one of ours")
	}
	return query, nil
}

// merge answers base with the keys of over replaced.
func merge(base, over url.Values) url.Values {
	merged := maps.Clone(base)
	maps.Copy(merged, over)
	return merged
}
