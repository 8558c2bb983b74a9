package agent

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// TestDrain ends a step whose output was not read yet, while a process it left holds
// the pipe open: all of it is logged before the next step may begin, and no more is waited for.
func TestDrain(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	shop := &workshop{
		mask: newMask([]string{"secret-word"}),
		log:  &logbook{now: time.Now, limit: 1 << 20, out: &out},
	}
	if _, err := w.WriteString("first\nsecond secret-word\nno end"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	drained, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		shop.read(r, "s", drained)
	}()
	<-drained
	shop.log.mu.Lock()
	got := out.String()
	shop.log.mu.Unlock()
	if strings.Count(got, "\n") != 3 || !strings.Contains(got, "\ts\tfirst\n") || !strings.Contains(got, "\ts\tsecond ***\n") || !strings.Contains(got, "\ts\tno end\n") {
		t.Errorf("when the step ended, the log was\n%s", got)
	}
	if _, err := w.WriteString("half a secret-"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("word later"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	if got := out.String(); !strings.HasSuffix(got, "\ts\thalf a *** later\n") {
		t.Errorf("at the end, the log was\n%s", got)
	}
}
