// Package keyfile is the vault of the standalone server: one file holds the master
// key, and the vaults of the installation (hook secrets, tokens) each derive a key of
// their own from it by HKDF-SHA256 over their name. What one of them sealed does not
// open in another. One file rather than one a vault, because it is what an operator
// must keep apart from the database, and whoever can read one could read both.
//
// It does not rotate or escrow the key: a lost file is lost data, and package docs
// say so.
package keyfile

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"runnerhub/shared/vault"
)

// Deps is what New needs.
type Deps struct {
	// Path of the key file: one line, the base64 of 32 bytes. A missing one is made, with
	// mode 0600; one that its group or others may touch is refused.
	Path string
	// Name of this vault, e.g. "hooks" or "tokens". It is part of the key for ever.
	Name string
	// MustExist refuses a missing file instead of making one. Set it when sealed data
	// exists: a new key would open none of it, and hide that the old one is lost.
	MustExist bool
}

// Vault implements vault.Vault. It is safe for concurrent use.
type Vault struct {
	// wrap wraps data keys. Its nonces are random, which is sound for 2^32 of them: one
	// a second for more than a century.
	wrap cipher.AEAD
}

// New reads or makes the key file.
func New(d Deps) (*Vault, error) {
	if d.Path == "" || d.Name == "" {
		return nil, errors.New("keyfile: Path and Name are required")
	}
	master, err := read(d.Path)
	if errors.Is(err, fs.ErrNotExist) && !d.MustExist {
		if err = create(d.Path); err == nil {
			master, err = read(d.Path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", d.Path, err)
	}
	key, err := hkdf.Key(sha256.New, master, nil, "runnerhub vault 1: "+d.Name, vault.KeyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive the key of vault %s: %w", d.Name, err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive the key of vault %s: %w", d.Name, err)
	}
	wrap, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("derive the key of vault %s: %w", d.Name, err)
	}
	return &Vault{wrap: wrap}, nil
}

// Sealer implements vault.Vault.
func (v *Vault) Sealer(_ context.Context, b vault.Binding) (vault.Sealer, error) {
	key := make([]byte, vault.KeyBytes)
	rand.Read(key) // never fails: it ends the process where there is no randomness
	// The wrapped key is bound as well, as by the encryption context of a key service.
	return vault.NewSealer(b, key, v.wrap.Seal(nil, nil, key, b.AppendTo(nil)))
}

// Open implements vault.Vault.
func (v *Vault) Open(_ context.Context, b vault.Binding, sealed []byte) ([]byte, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	wrapped, err := vault.Wrapped(sealed)
	if err != nil {
		return nil, err
	}
	key, err := v.wrap.Open(nil, nil, wrapped, b.AppendTo(nil))
	if err != nil || len(key) != vault.KeyBytes {
		return nil, vault.NotOurs(err)
	}
	return vault.Open(b, key, sealed)
}

// read answers the master key, or an error that is fs.ErrNotExist.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The mode of what was opened, not of what the name meant a moment earlier.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others than its owner may touch it (mode %#o); make it 0600", mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return nil, err
	}
	master, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, errors.New("it is not one line of base64") // err would quote the key
	}
	if len(master) != vault.KeyBytes {
		return nil, fmt.Errorf("it holds %d bytes instead of %d", len(master), vault.KeyBytes)
	}
	return master, nil
}

// create makes the file whole or not at all. Of several processes that do so at once one
// wins, and the others use its file: a link fails where a rename would replace.
func create(path string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, vault.KeyBytes)
	rand.Read(key)
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Whoever lost the race syncs as well: he is about to seal with that key.
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
