// Package credential is the contract of what the installation itself was given to
// prove who it is: the secret of its OAuth consumer. It may be replaced while the service runs, so it is
// asked for where it is used, and not kept. What users gave is no business of this package: that is sealed by package vault.
package credential

import (
	"context"

	"runnerhub/shared/fault"
	"runnerhub/shared/secret"
)

// Credential is the contract.
type Credential interface {
	// Get answers the secret, which is never empty. It may be one that was read a while ago. Whoever had
	// it refused by the other side asks once more, with what was refused, and gets what it is now; that
	// may be the same. Get has its own deadlines, and reveals nothing in its errors.
	Get(ctx context.Context, refused secret.Text) (secret.Text, error)
}

// Fixed answers a credential that is known from the start and stays as it is.
func Fixed(text secret.Text) Credential { return fixed{text} }

type fixed struct{ text secret.Text }

// Get implements Credential.
func (f fixed) Get(context.Context, secret.Text) (secret.Text, error) {
	if f.text.Empty() {
		return secret.Text{}, fault.New(fault.Internal, "the credential is empty")
	}
	return f.text, nil
}
