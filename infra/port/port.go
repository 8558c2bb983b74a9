// Package port keeps a port for a server of a test that is started again and again. The address has to be the same in each life,
// because others know it, and between two lives the system would give the port to anybody: to a test
// that listens on any port, or to a connection that begins at it. It listens on nothing itself, and is for unixes.
package port

import (
	"net"
	"os"
	"strconv"
	"syscall"
)

// Held is a port of 127.0.0.1 that nobody is given who did not ask for it by its number.
type Held struct {
	Address string // host:port
	socket  int
}

// Hold finds a port that is free and holds it until Close, by a socket that is bound to it and does not listen. A server can
// listen there meanwhile; while none does, connections are refused.
func Hold() (*Held, error) {
	// The fork lock keeps children from inheriting the socket, and from holding the port longer than we do.
	syscall.ForkLock.RLock()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(socket)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	h := &Held{socket: socket}
	if err := h.bind(); err != nil {
		_ = syscall.Close(socket)
		return nil, err
	}
	return h, nil
}

func (h *Held) bind() error {
	// With it on both sides, the server can bind the port as well; package net sets it on its own.
	if err := syscall.SetsockoptInt(h.socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(h.socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	at, err := syscall.Getsockname(h.socket)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	v4, ok := at.(*syscall.SockaddrInet4)
	if !ok {
		return os.NewSyscallError("getsockname", syscall.EAFNOSUPPORT)
	}
	h.Address = net.JoinHostPort("127.0.0.1", strconv.Itoa(v4.Port))
	return nil
}

// Close lets go of the port.
func (h *Held) Close() error { return os.NewSyscallError("close", syscall.Close(h.socket)) }
