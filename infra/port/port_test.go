package port

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// TestHold holds a port over two lives of a server, and has everybody else ask for ports in between.
func TestHold(t *testing.T) {
	t.Parallel()
	h, err := Hold()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, err := net.Dial("tcp", h.Address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("without a server a connection is %v, %v", c, err)
		}
		for range 100 {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			if l.Addr().String() == h.Address {
				t.Fatal("the port was given away")
			}
		}
		server, err := net.Listen("tcp", h.Address)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := net.Listen("tcp", h.Address); err == nil {
			_ = second.Close()
			t.Error("two servers have the port")
		}
		c, err := net.Dial("tcp", h.Address)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Close(), server.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}
