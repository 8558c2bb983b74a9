package vault

import (
	"bytes"
	"testing"

	"runnerhub/shared/fault"
)

// Not every key service notices a changed or exchanged wrapped key, so the
// envelope must, given the right data key.
func TestEnvelopeAuthenticatesTheWrappedKey(t *testing.T) {
	t.Parallel()
	key, wrapped := bytes.Repeat([]byte{1}, KeyBytes), []byte("wrapped key")
	b := Binding{Owner: "ab", Purpose: "cd"}
	s, err := NewSealer(b, key, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal([]byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Wrapped(sealed); err != nil || !bytes.Equal(got, wrapped) {
		t.Fatalf("the wrapped key is %q, %v", got, err)
	}
	if plain, err := Open(b, key, sealed); err != nil || string(plain) != "value" {
		t.Fatalf("it opens as %q, %v", plain, err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 0x80
		if plain, err := Open(b, key, changed); !fault.Is(err, fault.Invalid) || plain != nil {
			t.Errorf("with byte %d changed it opens as %q, %v", i, plain, err)
		}
	}
	for _, other := range []Binding{{"abc", "d"}, {"a", "bcd"}, {"cd", "ab"}, {"ab", "ce"}} {
		if plain, err := Open(other, key, sealed); !fault.Is(err, fault.Invalid) || plain != nil {
			t.Errorf("for %+v it opens as %q, %v", other, plain, err)
		}
	}
}

func TestBindingsHaveFormsOfTheirOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]Binding{}
	for _, b := range []Binding{
		{"ab", "cd"}, {"abc", "d"}, {"a", "bcd"}, {"abcd", ""}, {"", "abcd"}, {"ab", "cd\x00"}, {"\x00\x00\x00\x02ab", "cd"},
	} {
		form := string(b.AppendTo(nil))
		if other, taken := seen[form]; taken {
			t.Errorf("%+v and %+v are one", b, other)
		}
		seen[form] = b
	}
}

func TestNewSealerRefuses(t *testing.T) {
	t.Parallel()
	b, key := Binding{"a", "b"}, make([]byte, KeyBytes)
	for name, err := range map[string]error{
		"no wrapped key":   second(NewSealer(b, key, nil)),
		"a long one":       second(NewSealer(b, key, make([]byte, maxWrapped+1))),
		"a short data key": second(NewSealer(b, key[:16], []byte("wrapped"))),
		"no owner":         second(NewSealer(Binding{Purpose: "b"}, key, []byte("wrapped"))),
	} {
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func second(_ Sealer, err error) error { return err }
