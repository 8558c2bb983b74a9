// Package keys opens the two vaults on KMS. Who may open hook secrets has the key for those alone.
package keys

import (
	"fmt"

	"runnerhub/infra/aws"
	"runnerhub/shared/vault/kms"
)

// Hooks opens the vault of hook secrets.
func Hooks(e aws.Environment) (*kms.Vault, error) { return open(e, "RUNNERHUB_HOOKS_KEY") }

// Tokens opens the vault of connections' tokens.
func Tokens(e aws.Environment) (*kms.Vault, error) { return open(e, "RUNNERHUB_TOKENS_KEY") }

func open(e aws.Environment, name string) (*kms.Vault, error) {
	key, err := e.Need(name, aws.Deployed)
	if err != nil {
		return nil, err
	}
	v, err := kms.New(kms.Deps{Config: e.Config, Key: key})
	if err != nil {
		return nil, fmt.Errorf("%s is %q: %w", name, key, err)
	}
	return v, nil
}
