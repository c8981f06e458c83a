// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build unix

// Tests on real sockets for which the module has no client: it is not loaded, or the
// connections are within this machine.

package toapeer

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
)

func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

// connection connects to a listener over an address of this machine, and returns the
// server's end and the client's.
func connection(t *testing.T, listener net.Listener, address string) (server, client *net.TCPConn) {
	t.Helper()
	client = dial(t, listener, address)
	return accepted(t, listener).(*net.TCPConn), client
}

func dial(t *testing.T, listener net.Listener, address string) *net.TCPConn {
	t.Helper()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", net.JoinHostPort(address, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client.(*net.TCPConn)
}

func accepted(t *testing.T, listener net.Listener) net.Conn {
	t.Helper()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func localAddrPort(t *testing.T, conn net.Conn) netip.AddrPort {
	t.Helper()
	address, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// byGetpeername checks that the module has no answer, and that getpeername has this one.
func byGetpeername(t *testing.T, conn net.Conn, client netip.AddrPort) {
	t.Helper()
	peer, err := Of(conn)
	if expected := (Peer{Client: client, Origin: Getpeername}); peer != expected || err != nil {
		t.Errorf("Of: got %v, %v, expected %v", peer, err, expected)
	}
	if address, err := ClientByTOA(conn); address.IsValid() || err != nil {
		t.Errorf("ClientByTOA: got %v, %v", address, err)
	}
	if address, err := Balancer(conn); address.IsValid() || err != nil {
		t.Errorf("Balancer: got %v, %v", address, err)
	}
}

func TestPeerOfEachFamily(t *testing.T) {
	for _, test := range []struct {
		name, network, listen, dial string
	}{
		{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "tcp6", "[::1]:0", "::1"},
		{"IPv4 on a dual-stack socket", "tcp", "[::]:0", "127.0.0.1"},
		{"IPv6 on a dual-stack socket", "tcp", "[::]:0", "::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, client := connection(t, listenOn(t, test.network, test.listen), test.dial)
			expected := localAddrPort(t, client)
			if expected.Addr() != netip.MustParseAddr(test.dial) {
				t.Fatalf("the client has the address %v", expected)
			}
			byGetpeername(t, server, expected)
		})
	}
}

func TestPeerOfUDP(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := net.Dial("udp4", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	byGetpeername(t, client, netip.MustParseAddrPort(server.LocalAddr().String()))
}

func TestPeerOfTLSIsThatOfItsTCP(t *testing.T) {
	server, client := connection(t, listenOn(t, "tcp4", "127.0.0.1:0"), "127.0.0.1")
	byGetpeername(t, tls.Server(server, &tls.Config{}), localAddrPort(t, client))
}

func TestConnectionThatHasEndedHasNoPeer(t *testing.T) {
	server, client := connection(t, listenOn(t, "tcp4", "127.0.0.1:0"), "127.0.0.1")
	// This side ends first and waits; the other side's FIN then closes it at once.
	end(t, server, client)
	end(t, client, server)
	peer, err := Of(server)
	if !errors.Is(err, syscall.ENOTCONN) || peer != (Peer{}) {
		t.Errorf("got %v, %v, expected ENOTCONN", peer, err)
	}
}

// end ends one direction of a connection, and waits until the other side has that.
func end(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if err := from.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
}

func TestClosedConnectionIsReported(t *testing.T) {
	server, _ := connection(t, listenOn(t, "tcp4", "127.0.0.1:0"), "127.0.0.1")
	server.Close()
	if _, err := Of(server); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Of: got %v, expected net.ErrClosed", err)
	}
}

func TestUNIXSocketIsRefusedInWords(t *testing.T) {
	listener := listenOn(t, "unix", filepath.Join(t.TempDir(), "socket"))
	client, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = Of(client)
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, expected ErrUnsupported", err)
	}
	if expected := "toapeer: the peer of a UNIX socket has no address: unsupported operation"; err.Error() != expected {
		t.Errorf("got %q, expected %q", err, expected)
	}
	if address, err := ClientByTOA(client); address.IsValid() || err != nil {
		t.Errorf("ClientByTOA: got %v, %v", address, err)
	}
}

func TestConnectionWithoutDescriptorIsUnsupported(t *testing.T) {
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	_, err := Of(one)
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, expected ErrUnsupported", err)
	}
	if expected := "toapeer: *net.pipe has no descriptor: unsupported operation"; err.Error() != expected {
		t.Errorf("got %q, expected %q", err, expected)
	}
}

func TestZoneIsKept(t *testing.T) {
	for _, test := range []struct {
		name     string
		scope    uint32
		expected string
	}{
		{"of an interface", 1, "[fe80::1%" + zone(1) + "]:4660"},
		{"of none", 0xfffffff0, "[fe80::1%4294967280]:4660"},
		{"absent", 0, "[fe80::1]:4660"},
	} {
		name := &syscall.SockaddrInet6{Port: 4660, ZoneId: test.scope}
		name.Addr = netip.MustParseAddr("fe80::1").As16()
		got, err := addrPortOf(name)
		if got.String() != test.expected || err != nil {
			t.Errorf("%s: got %v, %v, expected %s", test.name, got, err, test.expected)
		}
	}
	if link, err := net.InterfaceByIndex(1); err == nil && zone(1) != link.Name {
		t.Errorf("the zone of scope 1 is %q, not %q", zone(1), link.Name)
	}
}
