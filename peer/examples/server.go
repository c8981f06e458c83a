// SPDX-License-Identifier: MIT OR Apache-2.0

// Writes a line about each connection, and sends the same to the client.
//
//	go run server.go :: 8080
//	nc localhost 8080
//
// It needs nothing but the standard library. Go's listeners are MPTCP sockets by
// default, which changes nothing for clients that speak plain TCP.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// getsockopt options of toa, at the level IPPROTO_IP, also for AF_INET6 sockets.
const (
	optionClient   = 4096
	optionBalancer = 4097
)

// peer is who is at the other end of a connection.
type peer struct {
	client   netip.AddrPort
	balancer netip.AddrPort // not valid if the module did not tell a client
	origin   string         // "toa" or "getpeername"
}

func (p peer) String() string {
	line := fmt.Sprintf("client %s port %d by %s", p.client.Addr(), p.client.Port(), p.origin)
	if p.balancer.IsValid() {
		line += fmt.Sprintf(", balancer %s port %d", p.balancer.Addr(), p.balancer.Port())
	}
	return line
}

func peerOf(conn *net.TCPConn) (peer, error) {
	client, err := ask(conn, optionClient)
	if err != nil {
		return peer{}, err
	}
	if client.IsValid() {
		balancer, err := ask(conn, optionBalancer)
		return peer{client, balancer, "toa"}, err
	}
	client = conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	return peer{client: unmapped(client), origin: "getpeername"}, nil
}

// ask asks the module. The answer is not valid where it does not tell one: it is
// not loaded (ENOPROTOOPT), knows no client (EINVAL), the connection is a true
// MPTCP one (EOPNOTSUPP), or the module is DPVS's and getpeername tells as much
// (EFAULT).
func ask(conn *net.TCPConn, option int) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	// The 20 bytes of the answer fit into this type: an address, then four bytes,
	// of which the first two are the port in network order.
	var answer *syscall.IPv6Mreq
	var told error
	err = raw.Control(func(fd uintptr) {
		answer, told = syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, option)
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case errors.Is(told, syscall.ENOPROTOOPT), errors.Is(told, syscall.EINVAL),
		errors.Is(told, syscall.EOPNOTSUPP), errors.Is(told, syscall.EFAULT):
		return netip.AddrPort{}, nil
	case told != nil:
		return netip.AddrPort{}, os.NewSyscallError("getsockopt", told)
	}
	var port [4]byte
	binary.NativeEndian.PutUint32(port[:], answer.Interface)
	address := netip.AddrFrom16(answer.Multiaddr)
	return unmapped(netip.AddrPortFrom(address, binary.BigEndian.Uint16(port[:]))), nil
}

// unmapped turns an IPv4-mapped address into an IPv4 one; others stay as they are.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func serve(conn *net.TCPConn) error {
	defer conn.Close()
	peer, err := peerOf(conn)
	if err != nil {
		return err
	}
	fmt.Println(peer)
	_, err = fmt.Fprintln(conn, peer)
	return err
}

// listen takes an IPv4 address for what it says; :: is for IPv4 as well.
func listen(address, port string) (net.Listener, error) {
	network := "tcp"
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is4() {
		network = "tcp4"
	}
	return net.Listen(network, net.JoinHostPort(address, port))
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: server ADDRESS PORT")
		os.Exit(2)
	}
	listener, err := listen(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			// A client may have gone again: the others are served.
			if err := serve(conn.(*net.TCPConn)); err != nil {
				log.Print(err)
			}
		}()
	}
}
