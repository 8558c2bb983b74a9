// Package random makes what nobody can guess: ids, names of requests, secrets. The rest of
// the code is given these functions, so that tests can give their own.
package random

import (
	"crypto/rand"
	"strings"

	"runnerhub/shared/secret"
)

// ID makes an id: 130 random bits in 26 characters of [a-z2-7].
func ID() string { return strings.ToLower(rand.Text()) }

// Ref names a request: the beginning of an id, short enough to be read out on the telephone.
func Ref() string { return ID()[:12] }

// Secret makes 260 random bits in 52 characters of [A-Z2-7], which is also a PKCE verifier.
func Secret() secret.Text { return secret.New(rand.Text() + rand.Text()) }
