// Package vaulttest is the contract suite of package vault: every driver runs it.
package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"testing"

	"runnerhub/shared/fault"
	"runnerhub/shared/vault"
)

// Key is one key of the driver under test.
type Key struct {
	// Open answers a vault on this key, anew each time, as after a restart.
	Open func(t *testing.T) vault.Vault
	// Cut takes the key's service out of reach for good; nil where there is none.
	Cut func()
}

// Run runs the suite. NewKey makes a key that no call before answered.
func Run(t *testing.T, newKey func(t *testing.T) Key) {
	for name, test := range map[string]func(*testing.T, func(*testing.T) Key){
		"opens what it sealed":                      opensWhatItSealed,
		"opens for its owner and purpose only":      opensForItsBindingOnly,
		"does not open with another key":            opensWithItsKeyOnly,
		"does not open after a change":              refusesChanges,
		"does not open a key moved to another row":  refusesMovedKeys,
		"seals the same value differently":          sealsDifferently,
		"refuses an empty binding":                  refusesEmptyBindings,
		"a sealer needs nothing once it is at hand": sealsAlone,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newKey)
		})
	}
}

func row() vault.Binding { return vault.Binding{Owner: "connection-1", Purpose: "token"} }

func opensWhatItSealed(t *testing.T, newKey func(*testing.T) Key) {
	key := newKey(t)
	v := key.Open(t)
	long := make([]byte, 10_000)
	rand.Read(long)
	for _, plain := range [][]byte{{}, {0}, []byte("a refresh token"), long, make([]byte, 200_000)} {
		sealed := seal(t, v, row(), plain)
		if len(plain) > 1 && bytes.Contains(sealed, plain) {
			t.Errorf("%d sealed bytes hold the plain ones", len(plain))
		}
		// The second vault is the one after a restart.
		for _, v := range []vault.Vault{v, key.Open(t)} {
			got, err := v.Open(t.Context(), row(), sealed)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes: Open answers %d bytes, %v", len(plain), len(got), err)
			}
		}
	}
}

func opensForItsBindingOnly(t *testing.T, newKey func(*testing.T) Key) {
	v := newKey(t).Open(t)
	sealed := seal(t, v, vault.Binding{Owner: "ab", Purpose: "cd"}, []byte("value"))
	for _, other := range []vault.Binding{
		{Owner: "ab", Purpose: "ce"},
		{Owner: "ac", Purpose: "cd"},
		{Owner: "abc", Purpose: "d"}, // the same letters, cut elsewhere
		{Owner: "a", Purpose: "bcd"},
		{Owner: "cd", Purpose: "ab"},
		{Owner: "AB", Purpose: "cd"},
		{Owner: "ab ", Purpose: "cd"},
	} {
		refuses(t, v, other, sealed, fmt.Sprintf("for %+v", other))
	}
}

func opensWithItsKeyOnly(t *testing.T, newKey func(*testing.T) Key) {
	one, other := newKey(t).Open(t), newKey(t).Open(t)
	refuses(t, other, row(), seal(t, one, row(), []byte("value")), "with another key")
}

func refusesChanges(t *testing.T, newKey func(*testing.T) Key) {
	v := newKey(t).Open(t)
	sealed := seal(t, v, row(), []byte("value"))
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1 << (i % 8)
		refuses(t, v, row(), changed, fmt.Sprintf("with byte %d of %d changed", i, len(sealed)))
		refuses(t, v, row(), sealed[:i], fmt.Sprintf("cut to %d of %d bytes", i, len(sealed)))
	}
	refuses(t, v, row(), append(bytes.Clone(sealed), 0), "with a byte more")
	refuses(t, v, row(), nil, "as nothing")
	if _, err := v.Open(t.Context(), row(), sealed); err != nil {
		t.Errorf("the unchanged bytes no longer open: %v", err)
	}
}

// refusesMovedKeys takes the wrapped data key of one row and puts it before the
// value of another: no sealed value may be put together from parts.
func refusesMovedKeys(t *testing.T, newKey func(*testing.T) Key) {
	v := newKey(t).Open(t)
	other := vault.Binding{Owner: "connection-2", Purpose: "token"}
	one, two := seal(t, v, row(), []byte("value one")), seal(t, v, other, []byte("value two"))
	for i := 1; i < min(len(one), len(two)); i++ {
		mixed := append(bytes.Clone(one[:i]), two[i:]...)
		if bytes.Equal(mixed, two) {
			continue // both begin with the same header
		}
		refuses(t, v, other, mixed, fmt.Sprintf("as %d bytes of another row before its own", i))
	}
}

func sealsDifferently(t *testing.T, newKey func(*testing.T) Key) {
	v := newKey(t).Open(t)
	s, err := v.Sealer(t.Context(), row())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 {
		sealed, err := s.Seal([]byte("value"))
		if err != nil {
			t.Fatal(err)
		}
		seen[string(sealed)] = true
		seen[string(seal(t, v, row(), []byte("value")))] = true
	}
	if len(seen) != 6 {
		t.Errorf("one value sealed 6 times makes %d different ciphertexts", len(seen))
	}
}

func refusesEmptyBindings(t *testing.T, newKey func(*testing.T) Key) {
	v := newKey(t).Open(t)
	sealed := seal(t, v, row(), []byte("value"))
	for _, b := range []vault.Binding{{}, {Owner: "x"}, {Purpose: "x"}} {
		if _, err := v.Sealer(t.Context(), b); !fault.Is(err, fault.Invalid) {
			t.Errorf("Sealer(%+v) = %v, want fault.Invalid", b, err)
		}
		refuses(t, v, b, sealed, fmt.Sprintf("for %+v", b))
	}
}

func sealsAlone(t *testing.T, newKey func(*testing.T) Key) {
	key := newKey(t)
	v := key.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := v.Sealer(ctx, row())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if key.Cut != nil {
		key.Cut()
	}
	var all [][]byte
	for i := range 5 {
		plain := fmt.Appendf(nil, "value %d", i)
		sealed, err := s.Seal(plain)
		if err != nil {
			t.Fatalf("Seal %d: %v", i, err)
		}
		plain[0] = 'X' // the sealer keeps nothing of its argument
		all = append(all, sealed)
	}
	if key.Cut != nil {
		return // nothing can be opened any more
	}
	for i, sealed := range all {
		got, err := v.Open(t.Context(), row(), sealed)
		if err != nil || string(got) != fmt.Sprintf("value %d", i) {
			t.Errorf("value %d opens as %q, %v", i, got, err)
		}
	}
}

func seal(t *testing.T, v vault.Vault, b vault.Binding, plain []byte) []byte {
	t.Helper()
	sealed, err := vault.Seal(t.Context(), v, b, plain)
	if err != nil {
		t.Fatalf("seal %d bytes: %v", len(plain), err)
	}
	return sealed
}

func refuses(t *testing.T, v vault.Vault, b vault.Binding, sealed []byte, how string) {
	t.Helper()
	plain, err := v.Open(t.Context(), b, sealed)
	if !fault.Is(err, fault.Invalid) || len(plain) != 0 {
		t.Errorf("%s it opens as %d bytes, %v; want fault.Invalid", how, len(plain), err)
	}
}
