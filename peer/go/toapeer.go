// SPDX-License-Identifier: MIT OR Apache-2.0

// Package toapeer finds the client of a TCP connection behind a FullNAT load balancer,
// and the balancer between them.
//
// The balancer puts the client's address into a TCP option, which the Linux kernel module
// toa reads. [Of] asks the module, and getpeername if the module is not loaded or has no
// client. A server that listens on an IPv4 address behind a NAT64 balancer has no other
// way to find its IPv6 clients.
//
// [NewListener] wraps a listener, so that RemoteAddr of its connections is the client.
// Servers of [net/http] and of other packages then need no change.
//
// # Connections
//
// The functions take connections that have a SyscallConn method, such as
// [*net.TCPConn], and connections that have such a connection inside and return it by
// NetConn, such as [*tls.Conn]. Connections of neither kind cause an error that matches
// [errors.ErrUnsupported].
//
// # Addresses
//
// Addresses are never IPv4-mapped: ::ffff:203.0.113.7 becomes 203.0.113.7. So a client
// looks the same through every kind of listener. A missing address is the zero
// [netip.AddrPort], whose IsValid method returns false.
//
// # Other systems
//
// The module exists on Linux only. On other systems the functions compile, and all
// clients have the origin [Getpeername].
//
// # Security
//
// Trust the client's address only if the balancer alone can reach the server's port. Any
// other host that reaches the port can claim any address.
package toapeer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// getsockopt options of the module, at level IPPROTO_IP, also for AF_INET6 sockets.
const (
	// optionClient is TOA_SO_GET_LOOKUP of DPVS.
	optionClient = 4096
	// optionBalancer is an option that only toa has.
	optionBalancer = 4097
)

// Origin is the source of a client's address.
type Origin uint8

const (
	// Getpeername is the origin of a client that getpeername returned. Without the
	// module, that client is the balancer if the connection came through one.
	Getpeername Origin = iota
	// TOA is the origin of a client that the module read from the balancer's TCP option.
	TOA
)

// String returns "toa" or "getpeername".
func (o Origin) String() string {
	switch o {
	case Getpeername:
		return "getpeername"
	case TOA:
		return "toa"
	}
	return fmt.Sprintf("Origin(%d)", uint8(o))
}

// Peer is the client of a connection, and the balancer that the connection came through.
// Peers are comparable with ==.
type Peer struct {
	// Client is the client, as Origin reports it.
	Client netip.AddrPort
	// Balancer is the address and port that the connection's packets come from. It is
	// not valid if the module has no client.
	Balancer netip.AddrPort
	// Origin is the source of Client.
	Origin Origin
}

// String returns the peer for a log: "[2001:db8:7::7]:42275 by toa, balancer
// 10.0.1.6:1025", or "10.0.1.6:1025 by getpeername".
func (p Peer) String() string {
	text := p.Client.String() + " by " + p.Origin.String()
	if p.Balancer.IsValid() {
		text += ", balancer " + p.Balancer.String()
	}
	return text
}

// Of returns the client of this connection, and the balancer that the connection came
// through.
//
// Of asks the module first, and getpeername if the module is not loaded or has no client.
// It makes two system calls either way, and keeps nothing between calls.
//
// The error matches, as [errors.Is] reports:
//   - [syscall.ENOTCONN]: the connection has ended in both directions, or was reset.
//     Clients that disconnect early cause this error at any time;
//   - [errors.ErrUnsupported]: the connection is of another family than AF_INET and
//     AF_INET6, such as a UNIX socket, or has no descriptor;
//   - [net.ErrClosed]: this program has closed the connection.
func Of(conn net.Conn) (Peer, error) {
	socket, err := socketOf(conn)
	if err != nil {
		return Peer{}, err
	}
	return peerOf(socket)
}

// ClientByTOA returns the client that the module has for this connection.
//
// The address is not valid if the connection came without the option, the module is not
// loaded, or the connection is not TCP.
//
// The error matches [syscall.ENOTCONN] if the module is loaded and the connection has
// ended. It matches [errors.ErrUnsupported] if the connection has no descriptor, and
// [net.ErrClosed] after Close.
func ClientByTOA(conn net.Conn) (netip.AddrPort, error) {
	return ask(conn, optionClient)
}

// Balancer returns the balancer of this connection: the address that getpeername would
// return without the module.
//
// The address is not valid in the cases of [ClientByTOA], and with other modules for TOA,
// which have no option for the balancer. The errors are those of ClientByTOA.
func Balancer(conn net.Conn) (netip.AddrPort, error) {
	return ask(conn, optionBalancer)
}

// asker answers for one socket. The tests have askers without a socket.
type asker interface {
	// ask asks the module. The address is not valid if the module has no answer.
	ask(option int) (netip.AddrPort, error)
	// name returns the result of getpeername.
	name() (netip.AddrPort, error)
}

func peerOf(socket asker) (Peer, error) {
	client, err := socket.ask(optionClient)
	if err != nil {
		return Peer{}, err
	}
	if !client.IsValid() {
		name, err := socket.name()
		return Peer{Client: name}, err
	}
	balancer, err := socket.ask(optionBalancer)
	// The connection may have ended between the two calls. The client is still valid.
	if err != nil && !notConnected(err) {
		return Peer{}, err
	}
	return Peer{Client: client, Balancer: balancer, Origin: TOA}, nil
}

func ask(conn net.Conn, option int) (netip.AddrPort, error) {
	socket, err := socketOf(conn)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return socket.ask(option)
}

// socket is a connection with a descriptor.
type socket struct {
	conn net.Conn
	raw  syscall.RawConn
}

// socketOf looks for the descriptor of a connection, and of those inside it.
func socketOf(conn net.Conn) (socket, error) {
	for {
		switch c := conn.(type) {
		case syscall.Conn:
			raw, err := c.SyscallConn()
			return socket{conn, raw}, err
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return socket{}, fmt.Errorf("toapeer: %T has no descriptor: %w", conn, errors.ErrUnsupported)
		}
	}
}

// unmapped turns an IPv4-mapped address into IPv4; others stay unchanged, with their
// zone.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
