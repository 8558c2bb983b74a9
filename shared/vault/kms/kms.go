// Package kms is the vault on AWS KMS: a key that never leaves KMS wraps the data
// keys, and each wrapped one is bound to owner and purpose by its encryption context. The
// envelope of package vault binds them once more, so nothing rests on what KMS notices.
//
// The encryption context is readable in the account's CloudTrail: owner and purpose are
// ids and names, never secrets.
package kms

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"runnerhub/shared/amazon"
	"runnerhub/shared/fault"
	"runnerhub/shared/vault"
)

// Deps is what a Vault needs.
type Deps struct {
	Config aws.Config
	// Key is the ARN or id of a symmetric key. Vaults of different purpose, hook secrets and
	// tokens, have different keys, so that who may use one cannot open the other.
	Key string
}

// Vault implements vault.Vault. It is safe for concurrent use.
type Vault struct {
	deps   Deps
	client *kms.Client
}

var _ vault.Vault = (*Vault)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Vault, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.Key == "" {
		return nil, errors.New("vault/kms: no credentials, region or key")
	}
	client := kms.NewFromConfig(deps.Config, func(o *kms.Options) { o.Retryer = aws.NopRetryer{} })
	return &Vault{deps: deps, client: client}, nil
}

// Sealer implements vault.Vault.
func (v *Vault) Sealer(ctx context.Context, b vault.Binding) (vault.Sealer, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	var out *kms.GenerateDataKeyOutput
	err := amazon.Usual().Do(ctx, func(ctx context.Context) (err error) {
		out, err = v.client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
			KeyId: &v.deps.Key, KeySpec: types.DataKeySpecAes256, EncryptionContext: bound(b),
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("obtaining a data key: %w", keyFault(err))
	}
	defer clear(out.Plaintext)
	return vault.NewSealer(b, out.Plaintext, out.CiphertextBlob)
}

// Open implements vault.Vault.
func (v *Vault) Open(ctx context.Context, b vault.Binding, sealed []byte) ([]byte, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	wrapped, err := vault.Wrapped(sealed)
	if err != nil {
		return nil, err
	}
	var out *kms.DecryptOutput
	err = amazon.Usual().Do(ctx, func(ctx context.Context) (err error) {
		out, err = v.client.Decrypt(ctx, &kms.DecryptInput{
			KeyId: &v.deps.Key, CiphertextBlob: wrapped, EncryptionContext: bound(b),
		})
		return err
	})
	if foreign(err) {
		return nil, vault.NotOurs(err)
	}
	if err != nil {
		return nil, fmt.Errorf("unwrapping a data key: %w", keyFault(err))
	}
	defer clear(out.Plaintext)
	if len(out.Plaintext) != vault.KeyBytes {
		return nil, vault.NotOurs(nil) // it was wrapped by this key for something else
	}
	return vault.Open(b, out.Plaintext, sealed)
}

func bound(b vault.Binding) map[string]string {
	return map[string]string{"owner": b.Owner, "purpose": b.Purpose}
}

// foreign reports whether KMS says that the wrapped key is none of this key's, or not for
// this encryption context.
func foreign(err error) bool {
	var changed *types.InvalidCiphertextException
	var other *types.IncorrectKeyException
	return errors.As(err, &changed) || errors.As(err, &other)
}

func keyFault(err error) error {
	return amazon.Fault(err, false, kindOf, "the key service does not answer")
}

// kindOf is the table of the refusals of KMS: a key that is disabled, or not in a state to
// be used, may be usable again; anything else is a wrong key or a missing permission.
func kindOf(code string) fault.Kind {
	switch code {
	case "DisabledException", "KMSInvalidStateException", "KeyUnavailableException":
		return fault.Unavailable
	}
	return fault.Internal
}
