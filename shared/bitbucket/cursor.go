package bitbucket

import (
	"encoding/base64"
	"maps"
	"net/url"

	"runnerhub/shared/fault"
)

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
