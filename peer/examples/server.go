// SPDX-License-Identifier: MIT OR Apache-2.0

// Prints a line about each connection, and sends this line to the client.
//
//	go run server.go :: 8080
//	nc localhost 8080
//
// The server needs only the standard library. Go's listeners are MPTCP sockets by
// default, which makes no difference to clients that use plain TCP.
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

// getsockopt options of toa, at level IPPROTO_IP, also for AF_INET6 sockets.
const (
	optionClient   = 4096
	optionBalancer = 4097
)

// peer describes the client of a connection, and the balancer between.
type peer struct {
	client   netip.AddrPort
	balancer netip.AddrPort // not valid if the module has no client
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

// ask asks the module. The result is not valid if the module has no answer:
//   - ENOPROTOOPT: the module is not loaded;
//   - EINVAL: the module has no client;
//   - EOPNOTSUPP: the connection is a true MPTCP one;
//   - EFAULT: the module is DPVS's, and getpeername returns the client.
func ask(conn *net.TCPConn, option int) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	// The 20 bytes of the answer fit into this type: an address, then four bytes.
	// The first two of these are the port in network order.
	var answer *syscall.IPv6Mreq
	var reported error
	err = raw.Control(func(fd uintptr) {
		answer, reported = syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, option)
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case errors.Is(reported, syscall.ENOPROTOOPT), errors.Is(reported, syscall.EINVAL),
		errors.Is(reported, syscall.EOPNOTSUPP), errors.Is(reported, syscall.EFAULT):
		return netip.AddrPort{}, nil
	case reported != nil:
		return netip.AddrPort{}, os.NewSyscallError("getsockopt", reported)
	}
	var port [4]byte
	binary.NativeEndian.PutUint32(port[:], answer.Interface)
	address := netip.AddrFrom16(answer.Multiaddr)
	return unmapped(netip.AddrPortFrom(address, binary.BigEndian.Uint16(port[:]))), nil
}

// unmapped turns an IPv4-mapped address into an IPv4 one; others stay unchanged.
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

// listen accepts only IPv4 on an IPv4 address; on :: it accepts IPv4 as well.
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
			// The client may already have disconnected: serve the others.
			if err := serve(conn.(*net.TCPConn)); err != nil {
				log.Print(err)
			}
		}()
	}
}
