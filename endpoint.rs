// SPDX-License-Identifier: GPL-2.0

//! One end of a TCP connection, and a connection as the pair of its ends.
//!
//! Pure: no kernel imports. The host tests compile this file too.

use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};

/// The bits of ::ffff:0.0.0.0.
const MAPPED: u128 = 0xffff << u32::BITS;

/// The IPv4-mapped form of an address. By its words, as is [`Endpoint::address_v4`]: core's own
/// conversions go byte by byte, which hooks would do at each look-up.
const fn mapped(address: Ipv4Addr) -> Ipv6Addr {
    // In the order of memory.
    let prefix = MAPPED.to_be();
    let address = (u32::from_ne_bytes(address.octets()) as u128) << (u128::BITS - u32::BITS);
    Ipv6Addr::from_bits(u128::from_be(prefix | address))
}

/// An IP address and a TCP port. An IPv4 address is kept in its IPv4-mapped form (RFC 4291
/// §2.5.5.2), so two endpoints are the same if their bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    address: Ipv6Addr,
    port: u16,
}

impl Endpoint {
    /// `port` is in host order, as everywhere in toa.
    pub(crate) const fn new(address: Ipv6Addr, port: u16) -> Self {
        Self { address, port }
    }

    /// `port` is in host order.
    pub(crate) const fn from_v4(address: Ipv4Addr, port: u16) -> Self {
        Self::new(mapped(address), port)
    }

    /// The address in the form that an AF_INET6 socket reports.
    pub(crate) const fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// The address if an AF_INET socket can report it.
    pub(crate) const fn address_v4(&self) -> Option<Ipv4Addr> {
        let bits = self.address.to_bits();
        if bits >> u32::BITS == MAPPED >> u32::BITS {
            Some(Ipv4Addr::from_bits(bits as u32))
        } else {
            None
        }
    }

    /// Whether a TCP segment can arrive from this endpoint: the kernel drops segments from other
    /// sources as martians (`ip_route_input_slow`, `ip6_rcv_core`), so servers take such a peer for
    /// their own host. Refused are port 0, 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4, 255.255.255.255,
    /// ::/96 (`::`, `::1` and the IPv4-compatible addresses) and ff00::/8.
    ///
    /// An IPv4-mapped address is judged as IPv4.
    #[inline(always)]
    pub(crate) const fn is_possible_source(&self) -> bool {
        if self.port == 0 {
            return false;
        }
        match self.address_v4() {
            Some(v4) => {
                let first = v4.to_bits() >> 24;
                first != 0 && first != 127 && first >> 4 != 0xe && !v4.is_broadcast()
            }
            None => {
                let bits = self.address.to_bits();
                bits >> u32::BITS != 0 && bits >> 120 != 0xff
            }
        }
    }

    /// The port, in host order.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

/// The 4-tuple of a connection in the words in which a socket has it. All bytes are in network order; a
/// word's bytes are those of memory, so the machine is little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuple {
    /// A connection over IPv4.
    V4 {
        /// The peer's address and then the local one.
        addresses: u64,
        /// The peer's port and the local one.
        ports: [u16; 2],
    },
    /// A connection over IPv6.
    V6 {
        /// The peer's address.
        peer: [u64; 2],
        /// The local address.
        local: [u64; 2],
        /// The peer's port and the local one.
        ports: [u16; 2],
    },
}

impl From<Tuple> for Connection {
    fn from(tuple: Tuple) -> Self {
        let end = |address: Ipv6Addr, port: u16| Endpoint::new(address, u16::from_be(port));
        match tuple {
            Tuple::V4 {
                addresses,
                ports: [peer, local],
            } => {
                let address = |bits: u64| mapped(Ipv4Addr::from_bits((bits as u32).swap_bytes()));
                Self {
                    local: end(address(addresses >> u32::BITS), local),
                    peer: end(address(addresses), peer),
                }
            }
            Tuple::V6 {
                peer: peer_address,
                local: local_address,
                ports: [peer, local],
            } => {
                let address = |[first, second]: [u64; 2]| {
                    let bits = u128::from(first) | (u128::from(second) << u64::BITS);
                    Ipv6Addr::from_bits(bits.swap_bytes())
                };
                Self {
                    local: end(address(local_address), local),
                    peer: end(address(peer_address), peer),
                }
            }
        }
    }
}

/// The 4-tuple of a connection in the socket's fields: behind a FullNAT balancer `peer` is one of
/// the balancer's local addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The real server's end.
    pub(crate) local: Endpoint,
    /// The other end.
    pub(crate) peer: Endpoint,
}
