// SPDX-License-Identifier: MIT OR Apache-2.0

package toapeer

import (
	"encoding/binary"
	"net/netip"
)

// answer is DPVS's struct toa_nat64_peer: an IPv6 address (16 bytes), a port (2 bytes)
// and padding (2 bytes). Address and port are in network order; IPv4 addresses have the
// mapped form.
type answer [20]byte

func (a answer) addrPort() netip.AddrPort {
	address := netip.AddrFrom16([16]byte(a[:16]))
	return unmapped(netip.AddrPortFrom(address, binary.BigEndian.Uint16(a[16:18])))
}
