package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	const plain = "hunter2-hunter2"
	type holder struct {
		Token  Text
		hidden Text
	}
	h := holder{New(plain), New(plain)}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "t", h.Token, "h", h, "e", fmt.Errorf("bad %v", h.Token))
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "t", h.Token, "h", h)
	encoded, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{
		log.String(), string(encoded),
		fmt.Sprint(h.Token), fmt.Sprintf("%s %q %v %+v %#v %x %d", h.Token, h.Token, h.Token, h.Token, h.Token, h.Token, h.Token),
		fmt.Sprintf("%v %+v %#v", h, h, &h),
		errors.Join(fmt.Errorf("e: %v", h)).Error(),
	} {
		if strings.Contains(shown, plain) || strings.Contains(shown, fmt.Sprintf("%x", plain)) {
			t.Errorf("the secret shows in %s", shown)
		}
	}
	if h.hidden.Reveal() != plain {
		t.Error("Reveal lost the value")
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	if !New("a").Equal(New("a")) || New("a").Equal(New("b")) || New("a").Equal(Text{}) {
		t.Error("Equal compares wrongly")
	}
	if !New("").Empty() || New("a").Empty() {
		t.Error("Empty is wrong")
	}
}
