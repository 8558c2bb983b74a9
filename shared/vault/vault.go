// Package vault is the contract for sealing what must not be readable at rest:
// tokens, hook secrets, variables. Envelope encryption: each sealer has a data key of
// its own, wrapped by the driver's key; values are sealed with AES-256-GCM bound
// to their owner and purpose, so that a ciphertext moved to another row does not
// open. The envelope itself stands here (NewSealer, Wrapped, Open), so that it is the
// same for every driver; a driver only makes, wraps and unwraps data keys. Drivers
// live one level below and pass package vaulttest.
package vault

import (
	"context"

	"runnerhub/shared/fault"
)

// Binding is what a ciphertext belongs to. Both fields are not empty.
type Binding struct {
	Owner   string // id of the owning row, e.g. a connection
	Purpose string // what it is there, e.g. "bitbucket-token"
}

// Check refuses a binding that binds to nothing.
func (b Binding) Check() error {
	if b.Owner == "" || b.Purpose == "" {
		return fault.New(fault.Invalid, "a sealed value has an owner and a purpose")
	}
	return nil
}

// Vault seals and opens.
type Vault interface {
	// Sealer obtains a data key for b. Everything that can fail happens here, so
	// that a caller may do it before an act that cannot be taken back.
	Sealer(ctx context.Context, b Binding) (Sealer, error)
	// Open answers the plain bytes. A ciphertext of another binding, of another key, or changed
	// by a single bit is fault.Invalid, and nothing of it is answered.
	Open(ctx context.Context, b Binding, sealed []byte) ([]byte, error)
}

// Sealer seals values with a data key already at hand: no call leaves the
// process, and it works on after the context it was obtained with has ended. It may be
// used for several values by one goroutine at a time.
type Sealer interface {
	Seal(plain []byte) ([]byte, error)
}

// Seal obtains a sealer and uses it once.
func Seal(ctx context.Context, v Vault, b Binding, plain []byte) ([]byte, error) {
	s, err := v.Sealer(ctx, b)
	if err != nil {
		return nil, err
	}
	return s.Seal(plain)
}
