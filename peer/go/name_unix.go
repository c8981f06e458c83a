// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build unix

package toapeer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
)

// name asks the kernel: RemoteAddr would return the address from the time of accept, also
// after the connection has ended.
func (s socket) name() (netip.AddrPort, error) {
	var name syscall.Sockaddr
	var reported error
	err := s.raw.Control(func(fd uintptr) {
		name, reported = syscall.Getpeername(int(fd))
	})
	switch {
	case err != nil:
		return netip.AddrPort{}, err
	case errors.Is(reported, syscall.EAFNOSUPPORT):
		return netip.AddrPort{}, fmt.Errorf("toapeer: the peer has no IP address: %w", errors.ErrUnsupported)
	case reported != nil:
		return netip.AddrPort{}, os.NewSyscallError("getpeername", reported)
	}
	return addrPortOf(name)
}

func addrPortOf(name syscall.Sockaddr) (netip.AddrPort, error) {
	switch name := name.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port)), nil
	case *syscall.SockaddrInet6:
		address := netip.AddrFrom16(name.Addr).WithZone(zone(name.ZoneId))
		return unmapped(netip.AddrPortFrom(address, uint16(name.Port))), nil
	case *syscall.SockaddrUnix:
		return netip.AddrPort{}, fmt.Errorf("toapeer: the peer of a UNIX socket has no address: %w", errors.ErrUnsupported)
	}
	return netip.AddrPort{}, fmt.Errorf("toapeer: a peer of type %T has no IP address: %w", name, errors.ErrUnsupported)
}

// zone returns the zone that package net has for a scope: the name of the interface, or
// the number if no interface has it.
func zone(scope uint32) string {
	if scope == 0 {
		return ""
	}
	if link, err := net.InterfaceByIndex(int(scope)); err == nil {
		return link.Name
	}
	return strconv.FormatUint(uint64(scope), 10)
}

// notConnected reports whether the connection has ended.
func notConnected(err error) bool {
	return errors.Is(err, syscall.ENOTCONN)
}
