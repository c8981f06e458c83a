// SPDX-License-Identifier: MIT OR Apache-2.0

package toapeer

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

func TestErrorsThatMeanNoAnswerAreNoErrors(t *testing.T) {
	for _, number := range []syscall.Errno{
		syscall.ENOPROTOOPT, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.EFAULT,
	} {
		got, err := read(answer{19: 1}, number)
		if got.IsValid() || err != nil {
			t.Errorf("%v: got %v, %v", number, got, err)
		}
	}
}

func TestOtherErrorsArePassedOn(t *testing.T) {
	for _, number := range []syscall.Errno{
		syscall.ENOTCONN, syscall.EBADF, syscall.ENOTSOCK, syscall.ENOMEM,
	} {
		got, err := read(answer{19: 1}, number)
		if got.IsValid() || !errors.Is(err, number) {
			t.Errorf("%v: got %v, %v", number, got, err)
		}
	}
	_, err := read(answer{}, syscall.ENOTCONN)
	if expected := "getsockopt: transport endpoint is not connected"; err.Error() != expected {
		t.Errorf("got %q, expected %q", err, expected)
	}
}

func TestAnswerWithoutErrorIsRead(t *testing.T) {
	bytes := answerOf(t, "\x20\x01\x0d\xb8\x00\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x12\x34\x00\x00")
	got, err := read(bytes, nil)
	if expected := netip.MustParseAddrPort("[2001:db8:7::7]:4660"); got != expected || err != nil {
		t.Errorf("got %v, %v, expected %v", got, err, expected)
	}
}

// The kernel returns the IP options of a socket as they were set: here a route record of 19
// bytes, whose first address stays empty, and an end.
func TestGetsockoptKeepsTheOrderOfBytes(t *testing.T) {
	const record = "\x07\x13\x04\x00\x00\x00\x00\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x34\x00"
	control(t, func(fd int) {
		if err := syscall.SetsockoptString(fd, syscall.IPPROTO_IP, syscall.IP_OPTIONS, record); err != nil {
			t.Fatal(err)
		}
		got, err := getsockopt(fd, syscall.IP_OPTIONS)
		if expected := answerOf(t, record); got != expected || err != nil {
			t.Errorf("got % x, %v, expected % x", got, err, expected)
		}
	})
}

func TestGetsockoptReturnsTheError(t *testing.T) {
	control(t, func(fd int) {
		// An option that neither the kernel nor the module has.
		if _, err := getsockopt(fd, 4111); err != syscall.ENOPROTOOPT {
			t.Errorf("got %v, expected ENOPROTOOPT", err)
		}
	})
}

// control calls f with the descriptor of a socket.
func control(t *testing.T, f func(fd int)) {
	t.Helper()
	raw, err := listenOn(t, "tcp4", "127.0.0.1:0").(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { f(int(fd)) }); err != nil {
		t.Fatal(err)
	}
}

// neverConnected is a net.Conn with the descriptor of a listener.
type neverConnected struct {
	net.Conn
	listener syscall.Conn
}

func (c neverConnected) SyscallConn() (syscall.RawConn, error) {
	return c.listener.SyscallConn()
}

func TestSocketThatIsNotConnectedHasNoPeer(t *testing.T) {
	listener := listenOn(t, "tcp4", "127.0.0.1:0").(*net.TCPListener)
	_, err := Of(neverConnected{nil, listener})
	if !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("got %v, expected ENOTCONN", err)
	}
}
