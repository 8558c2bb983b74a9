// Package blob is the contract for bytes too large for the table: bodies that
// could not be read, artifacts. Drivers live one level below and pass package
// blobtest. Blobs have no conditions and no listing; what exists is known from
// the table.
package blob

import (
	"context"
	"io"
)

// Store keeps blobs under keys of slash-separated parts of [A-Za-z0-9._-], at
// most 512 bytes in all; "." and ".." are no parts. Anything else is fault.Invalid.
type Store interface {
	// Put stores all of r, durably and whole: a reader sees the old content or the
	// new one, and after nil the new one, whatever process dies. Size is the
	// number of bytes in r; another number is fault.Invalid and stores nothing.
	Put(ctx context.Context, key string, r io.Reader, size int64) error
	// Get answers the content, to be closed by the caller, or fault.NotFound.
	Get(ctx context.Context, key string) (io.ReadCloser, error)
	// Delete removes the key; one that is absent is no error.
	Delete(ctx context.Context, key string) error
}
