// SPDX-License-Identifier: GPL-2.0

//! One end of a TCP connection, and a connection as the pair of its ends.
//!
//! Pure: no kernel imports. The host tests compile this file too.

use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};

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
        Self::new(address.to_ipv6_mapped(), port)
    }

    /// The address in the form that an AF_INET6 socket reports.
    pub(crate) const fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// The address if an AF_INET socket can report it.
    pub(crate) const fn address_v4(&self) -> Option<Ipv4Addr> {
        self.address.to_ipv4_mapped()
    }

    /// The port, in host order.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

/// The 4-tuple of a connection, as the socket knows it: behind a FullNAT balancer `peer` is one of
/// the balancer's local addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The real server's end.
    pub(crate) local: Endpoint,
    /// The other end.
    pub(crate) peer: Endpoint,
}
