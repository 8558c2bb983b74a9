package table

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"unicode/utf8"

	"runnerhub/shared/fault"
)

// Range is a Query made ready for a driver: checked, its page size settled, its
// cursor read.
type Range struct {
	Partition string
	From      string // inclusive, and exclusive when After is set; empty: from the beginning
	Before    string // exclusive; empty: to the end
	Reverse   bool
	Limit     int    // 1 to 1,000
	After     string // the last sort key already answered; empty on the first page
	mark      [12]byte
}

// Range answers what the query asks for now, or fault.Invalid. Every driver begins
// with it, so that all refuse the same and cursors are the same everywhere.
func (q Query) Range() (Range, error) {
	r := Range{Partition: q.Partition, From: q.From, Before: q.Before, Reverse: q.Reverse, Limit: min(q.Limit, 1000)}
	if r.Limit == 0 {
		r.Limit = 100
	}
	if r.Limit < 0 || !validPart(q.Partition) || !utf8.ValidString(q.From) || !utf8.ValidString(q.Before) {
		return Range{}, fault.New(fault.Invalid, "the query of %q from %q before %q, limit %d, is not valid", q.Partition, q.From, q.Before, q.Limit)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %t", q.Partition, q.From, q.Before, q.Reverse))
	copy(r.mark[:], sum[:])
	if q.Cursor == "" {
		return r, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	if err != nil || len(raw) < len(r.mark) || [12]byte(raw) != r.mark {
		return Range{}, fault.Field("cursor", "is not one of this list")
	}
	// The mark is no secret, so a cursor can be forged. It then leads to another
	// place in the same range, never out of it.
	r.After = string(raw[len(r.mark):])
	if !validPart(r.After) || r.After < q.From || (q.Before != "" && r.After >= q.Before) {
		return Range{}, fault.Field("cursor", "is not one of this list")
	}
	return r, nil
}

// Cursor answers the cursor of a page that ends with the sort key last.
func (r Range) Cursor(last string) string {
	return base64.RawURLEncoding.EncodeToString(append(r.mark[:], last...))
}
