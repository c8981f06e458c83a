// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build !unix

package toapeer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// name returns RemoteAddr: package syscall has no getpeername for all of these systems.
func (s socket) name() (netip.AddrPort, error) {
	remote := s.conn.RemoteAddr()
	if remote == nil {
		return netip.AddrPort{}, net.ErrClosed
	}
	address, ok := remote.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("toapeer: a peer of network %s has no IP address: %w", remote.Network(), errors.ErrUnsupported)
	}
	return unmapped(address.AddrPort()), nil
}

// notConnected has no case here: RemoteAddr has no error.
func notConnected(error) bool {
	return false
}
