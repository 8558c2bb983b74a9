package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"slices"

	"runnerhub/shared/fault"
)

// KeyBytes is the length of a data key: AES-256.
const KeyBytes = 32

// maxWrapped bounds the wrapped data key in an envelope. Ours has 60 bytes, that of
// AWS KMS fewer than 300.
const maxWrapped = 4 << 10

// The envelope, version 1:
//
//	byte 0       the version
//	bytes 1, 2   length n of the wrapped data key, big endian
//	n bytes      the wrapped data key, opaque to all but the driver
//	12 bytes     nonce, random
//	the rest     the value under AES-256-GCM, and its tag of 16 bytes
//
// What is authenticated with the value is everything before the nonce, then owner and
// purpose, each after its length. The wrapped key is part of it because not every
// key service notices a changed one.
const (
	version     = 1
	headerBytes = 3
)

// NewSealer answers the sealer of a driver that holds the data key, with the
// form of it that the driver can unwrap later.
func NewSealer(b Binding, key, wrapped []byte) (Sealer, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	if len(wrapped) == 0 || len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("make an envelope: a wrapped key of %d bytes", len(wrapped))
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, fmt.Errorf("make an envelope: %w", err)
	}
	header := binary.BigEndian.AppendUint16([]byte{version}, uint16(len(wrapped)))
	header = append(header, wrapped...)
	return &sealer{aead: aead, header: header, bound: b.AppendTo(slices.Clip(header))}, nil
}

type sealer struct {
	aead          cipher.AEAD
	header, bound []byte
}

// Seal never fails: the error is in the contract for drivers that may run dry.
func (s *sealer) Seal(plain []byte) ([]byte, error) {
	sealed := make([]byte, len(s.header), len(s.header)+len(plain)+s.aead.Overhead())
	copy(sealed, s.header)
	return s.aead.Seal(sealed, nil, plain, s.bound), nil
}

// Wrapped answers the wrapped data key inside sealed, for the driver to unwrap. It is
// not verified yet: Open does that. What is no envelope is fault.Invalid.
func Wrapped(sealed []byte) ([]byte, error) {
	if len(sealed) < headerBytes || sealed[0] != version {
		return nil, NotOurs(nil)
	}
	n := int(binary.BigEndian.Uint16(sealed[1:]))
	if n == 0 || n > maxWrapped || len(sealed) < headerBytes+n {
		return nil, NotOurs(nil)
	}
	return sealed[headerBytes : headerBytes+n], nil
}

// Open opens an envelope with its unwrapped data key. Anything but the bytes a
// sealer made for b with that key is fault.Invalid.
func Open(b Binding, key, sealed []byte) ([]byte, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	wrapped, err := Wrapped(sealed)
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, fmt.Errorf("open an envelope: %w", err)
	}
	end := headerBytes + len(wrapped)
	plain, err := aead.Open(nil, nil, sealed[end:], b.AppendTo(slices.Clip(sealed[:end])))
	if err != nil {
		return nil, NotOurs(err)
	}
	return plain, nil
}

// NotOurs is the error for bytes that do not open. It is the same for every reason, so
// that it tells nothing; cause goes to the log.
func NotOurs(cause error) error {
	return &fault.Error{
		Kind:    fault.Invalid,
		Message: "a sealed value does not open: it was changed, or belongs to another row or key",
		Cause:   cause,
	}
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != KeyBytes {
		return nil, fmt.Errorf("a data key of %d bytes instead of %d", len(key), KeyBytes)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// AppendTo appends b in a form that no other binding has: owner and purpose, each after its
// length in four bytes. It is what envelopes and wrapped keys are authenticated with.
func (b Binding) AppendTo(to []byte) []byte {
	for _, part := range []string{b.Owner, b.Purpose} {
		to = binary.BigEndian.AppendUint32(to, uint32(len(part)))
		to = append(to, part...)
	}
	return to
}
