package keyfile

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"runnerhub/shared/fault"
	"runnerhub/shared/vault"
	"runnerhub/shared/vault/vaulttest"
)

func open(t testing.TB, path, name string) *Vault {
	t.Helper()
	v, err := New(Deps{Path: path, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestContract(t *testing.T) {
	t.Parallel()
	vaulttest.Run(t, func(t *testing.T) vaulttest.Key {
		path := filepath.Join(t.TempDir(), "key")
		return vaulttest.Key{Open: func(t *testing.T) vault.Vault { return open(t, path, "tokens") }}
	})
}

// Two vaults of one installation are as far apart as two installations.
func TestContractNames(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	hooks, tokens := open(t, path, "hooks"), open(t, path, "tokens")
	row := vault.Binding{Owner: "1", Purpose: "secret"}
	sealed, err := vault.Seal(t.Context(), hooks, row, []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Open(t.Context(), row, sealed); !fault.Is(err, fault.Invalid) {
		t.Errorf("a hook secret opens in the vault of tokens: %v", err)
	}
	if _, err := open(t, path, "hooks").Open(t.Context(), row, sealed); err != nil {
		t.Errorf("a hook secret does not open in its own vault: %v", err)
	}
}

func TestNewMakesTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	open(t, path, "tokens")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %#o", info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text))); err != nil || len(key) != 32 {
		t.Errorf("it holds %d bytes of key, %v", len(key), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v; want the key alone", entries, err)
	}
	// A key that exists stays.
	open(t, path, "hooks")
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, text) {
		t.Errorf("the key changed when it was used again (%v)", err)
	}
}

func TestNewTogether(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	row := vault.Binding{Owner: "1", Purpose: "secret"}
	sealed := make([][]byte, 16)
	var all sync.WaitGroup
	for i := range sealed {
		all.Go(func() {
			v, err := New(Deps{Path: path, Name: "tokens"})
			if err == nil {
				sealed[i], err = vault.Seal(t.Context(), v, row, []byte("value"))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	v := open(t, path, "tokens")
	for i := range sealed {
		if _, err := v.Open(t.Context(), row, sealed[i]); err != nil {
			t.Errorf("start %d used a key that was lost: %v", i, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	for name, test := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"readable by the group":  {good, 0o640, "mode 0640"},
		"readable by others":     {good, 0o604, "mode 0604"},
		"writable by the group":  {good, 0o620, "mode 0620"},
		"short":                  {base64.StdEncoding.EncodeToString(make([]byte, 31)), 0o600, "31 bytes"},
		"long":                   {base64.StdEncoding.EncodeToString(make([]byte, 33)), 0o600, "33 bytes"},
		"empty":                  {"", 0o600, "0 bytes"},
		"no base64":              {"§" + good, 0o600, "not one line of base64"},
		"two keys":               {good + "\n" + good, 0o600, "not one line of base64"},
		"longer than any key is": {strings.Repeat("QUFB", 10_000), 0o600, "768 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "key")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil { // past the umask
				t.Fatal(err)
			}
			_, err := New(Deps{Path: path, Name: "tokens"})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			if strings.Contains(err.Error(), good) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
	t.Run("a key that must exist", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "key")
		if _, err := New(Deps{Path: path, Name: "tokens", MustExist: true}); err == nil {
			t.Error("a missing key is accepted")
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("it was made nevertheless")
		}
	})
	t.Run("a folder", func(t *testing.T) {
		t.Parallel()
		if _, err := New(Deps{Path: t.TempDir(), Name: "tokens"}); err == nil {
			t.Error("a folder is accepted")
		}
	})
	for _, d := range []Deps{{}, {Path: "x"}, {Name: "x"}} {
		if _, err := New(d); err == nil {
			t.Errorf("New(%+v) is accepted", d)
		}
	}
}

func FuzzOpen(f *testing.F) {
	v := open(f, filepath.Join(f.TempDir(), "key"), "tokens")
	row := vault.Binding{Owner: "1", Purpose: "secret"}
	sealed, err := vault.Seal(f.Context(), v, row, []byte("value"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte{1, 0, 1, 0})
	f.Add([]byte{1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, foreign []byte) {
		plain, err := v.Open(t.Context(), row, foreign)
		if bytes.Equal(foreign, sealed) {
			return
		}
		if !fault.Is(err, fault.Invalid) || plain != nil {
			t.Errorf("%x opens as %q, %v", foreign, plain, err)
		}
	})
}
