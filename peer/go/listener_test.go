// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build unix

package toapeer

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var behindNAT64 = Peer{
	Client:   netip.MustParseAddrPort("[2001:db8:7::7]:42275"),
	Balancer: netip.MustParseAddrPort("10.0.1.6:1025"),
	Origin:   TOA,
}

func TestRemoteAddrIsTheClient(t *testing.T) {
	inner := listenOn(t, "tcp4", "127.0.0.1:0")
	dial(t, inner, "127.0.0.1")
	conn := accepted(t, &listener{inner, func(net.Conn) (Peer, error) { return behindNAT64, nil }})
	address, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || address.String() != "[2001:db8:7::7]:42275" {
		t.Errorf("got %T %v", conn.RemoteAddr(), conn.RemoteAddr())
	}
	if peer := conn.(*Conn).Peer(); peer != behindNAT64 {
		t.Errorf("got %v, expected %v", peer, behindNAT64)
	}
}

func TestListenerAsksTheModule(t *testing.T) {
	inner := NewListener(listenOn(t, "tcp", "[::]:0"))
	client := dial(t, inner, "127.0.0.1")
	conn := accepted(t, inner)
	expected := Peer{Client: localAddrPort(t, client)}
	if peer := conn.(*Conn).Peer(); peer != expected {
		t.Errorf("got %v, expected %v", peer, expected)
	}
	byGetpeername(t, conn, expected.Client)
}

func TestConnHasTheMethodsOfTCPConn(t *testing.T) {
	inner := NewListener(listenOn(t, "tcp4", "127.0.0.1:0"))
	client := dial(t, inner, "127.0.0.1")
	conn := accepted(t, inner)
	if _, ok := conn.(io.ReaderFrom); !ok {
		t.Error("no ReadFrom")
	}
	if _, ok := conn.(syscall.Conn); !ok {
		t.Error("no SyscallConn")
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, expected the end", err)
	}
}

func TestConnectionThatHasEndedIsNotAccepted(t *testing.T) {
	inner := listenOn(t, "tcp4", "127.0.0.1:0")
	gone := dial(t, inner, "127.0.0.1")
	next := dial(t, inner, "127.0.0.1")
	calls := 0
	conn := accepted(t, &listener{inner, func(net.Conn) (Peer, error) {
		calls++
		if calls == 1 {
			return Peer{}, syscall.ENOTCONN
		}
		return behindNAT64, nil
	}})
	if got, expected := conn.(*Conn).TCPConn.RemoteAddr().String(), next.LocalAddr().String(); got != expected {
		t.Errorf("accepted %s, expected %s", got, expected)
	}
	gone.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := gone.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the first connection stays open: %v", err)
	}
}

func TestOtherErrorsAreThoseOfAccept(t *testing.T) {
	inner := listenOn(t, "tcp4", "127.0.0.1:0")
	client := dial(t, inner, "127.0.0.1")
	failing := &listener{inner, func(net.Conn) (Peer, error) { return Peer{}, syscall.EPERM }}
	conn, err := failing.Accept()
	if conn != nil || !errors.Is(err, syscall.EPERM) {
		t.Errorf("got %v, %v, expected EPERM", conn, err)
	}
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection stays open: %v", err)
	}
}

func TestErrorOfTheListenerIsReturned(t *testing.T) {
	inner := NewListener(listenOn(t, "tcp4", "127.0.0.1:0"))
	inner.Close()
	if conn, err := inner.Accept(); conn != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, %v, expected net.ErrClosed", conn, err)
	}
}

func TestUNIXConnectionsStayUnchanged(t *testing.T) {
	inner := NewListener(listenOn(t, "unix", filepath.Join(t.TempDir(), "socket")))
	client, err := net.Dial("unix", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if conn := accepted(t, inner); conn.LocalAddr().Network() != "unix" {
		t.Errorf("got %T", conn)
	}
}
