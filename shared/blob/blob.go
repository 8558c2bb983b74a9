// Package blob is the contract for bytes too large for the table: bodies that
// could not be read, artifacts. Drivers live one level below and pass package
// blobtest. Blobs have no conditions and no listing; what exists is known from
// the table.
package blob

import (
	"context"
	"io"
	"strings"

	"runnerhub/shared/fault"
)

// MaxKey is the longest key in bytes.
const MaxKey = 512

// Store keeps blobs under keys of slash-separated parts of [A-Za-z0-9._-], at
// most 512 bytes in all; "." and ".." are no parts. Anything else is fault.Invalid.
type Store interface {
	// Put stores all of r, durably and whole: a reader sees the old content or the
	// new one, and after nil the new one, whatever process dies. Size is the
	// number of bytes in r; another number is fault.Invalid, an error of r is wrapped as it is,
	// and both store nothing. After fault.Unknown the new content may have been stored.
	Put(ctx context.Context, key string, r io.Reader, size int64) error
	// Get answers the content, to be closed by the caller, or fault.NotFound. What was begun to
	// be read is read to its end as it was, even when it is replaced or deleted meanwhile.
	Get(ctx context.Context, key string) (io.ReadCloser, error)
	// Delete removes the key; one that is absent is no error.
	Delete(ctx context.Context, key string) error
}

// CheckKey refuses what no driver takes.
func CheckKey(key string) error {
	if len(key) > MaxKey {
		return fault.New(fault.Invalid, "a key of %d bytes is over the limit of %d", len(key), MaxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, foreign) {
			return fault.New(fault.Invalid, "the key %q is not made of parts of [A-Za-z0-9._-] between slashes", key)
		}
	}
	return nil
}

func foreign(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}
