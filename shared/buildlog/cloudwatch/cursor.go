package cloudwatch

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"math/big"
	"slices"
	"strings"

	"runnerhub/shared/buildlog"
)

// A cursor holds the place in each stream, and 8 bytes of a hash that bind it to the log. The hash keeps
// mistakes apart and is no secret: who reads a log may read all of it. Streams stand in it by a hash of
// their names, which are only ever taken from what the log has; so a forged one leads to another place in the same log.
const (
	cursorVersion = 1
	cursorSum     = 8
	maxToken      = 64 // bytes; longer ones are left out, and the stream is read from its beginning
	maxCursor     = 12 << 10
)

// streamID stands for the name of a stream.
type streamID [8]byte

func idOf(name string) streamID {
	sum := sha256.Sum256([]byte(name))
	return streamID(sum[:])
}

func makeCursor(log string, places map[streamID]place) string {
	b := []byte{cursorVersion}
	for _, id := range slices.SortedFunc(maps.Keys(places), func(a, b streamID) int { return slices.Compare(a[:], b[:]) }) {
		p := places[id]
		token := packToken(p.token)
		if token == nil {
			p.base = 0
		}
		b = append(b, id[:]...)
		b = append(binary.AppendUvarint(b, uint64(len(token))), token...)
		b = binary.AppendUvarint(b, uint64(p.base))
		b = binary.AppendUvarint(b, uint64(p.last-p.base))
	}
	return base64.RawURLEncoding.EncodeToString(append(b, sumOf(log, b)...))
}

func sumOf(log string, b []byte) []byte {
	sum := sha256.Sum256(append([]byte(log+"\n"), b...))
	return sum[:cursorSum]
}

func parseCursor(log, cursor string) (map[streamID]place, error) {
	places := map[streamID]place{}
	if cursor == "" {
		return places, nil
	}
	if len(cursor) > maxCursor {
		return nil, buildlog.BadCursor()
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) < 1+cursorSum || b[0] != cursorVersion {
		return nil, buildlog.BadCursor()
	}
	good := true
	number := func() int64 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > 1<<40 {
			good, b = false, nil
			return 0
		}
		b = b[size:]
		return int64(n)
	}
	take := func(n int64) []byte {
		if n > int64(len(b)) {
			good, n = false, int64(len(b))
		}
		head := b[:n]
		b = b[n:]
		return head
	}
	for b = b[1 : len(b)-cursorSum]; len(b) > 0 && good; {
		var id streamID
		var p place
		copy(id[:], take(int64(len(id))))
		p.token = unpackToken(take(number()))
		p.base = number()
		p.last = p.base + number()
		places[id] = p
	}
	if !good || len(places) > maxPlaces || makeCursor(log, places) != cursor {
		return nil, buildlog.BadCursor()
	}
	return places, nil
}

// packToken makes a token short. CloudWatch's are "f/" and some fifty digits, but they do not say so: others are
// kept as they are, after a zero.
func packToken(token string) []byte {
	digits, forward := strings.CutPrefix(token, "f/")
	if number, ok := new(big.Int).SetString(digits, 10); ok && forward && number.Sign() > 0 && number.String() == digits && len(digits) <= maxToken {
		return number.Bytes()
	}
	if token == "" || len(token) > maxToken {
		return nil
	}
	return append([]byte{0}, token...)
}

func unpackToken(b []byte) string {
	switch {
	case len(b) == 0:
		return ""
	case b[0] == 0:
		return string(b[1:])
	}
	return "f/" + new(big.Int).SetBytes(b).String()
}
