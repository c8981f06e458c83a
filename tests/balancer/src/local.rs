// SPDX-License-Identifier: GPL-2.0

//! The balancer's own addresses and ports.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::net::SocketAddrV6;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::flow::Flow;

/// DPVS's range of local ports.
const PORTS: RangeInclusive<u16> = 1025..=65535;

/// Limit of addresses from one prefix: a /64 has too many.
const MOST_OF_A_PREFIX: usize = 1 << 16;

/// Limit of pairs of address and port that are tried for one connection.
const TRIES: usize = 1 << 16;

/// The local addresses, each with its ports.
#[derive(Clone, Debug, Default)]
pub struct LocalAddresses {
    v4: Pool<Ipv4Addr>,
    v6: Pool<Ipv6Addr>,
}

impl LocalAddresses {
    /// Expands the prefixes, without the network and broadcast addresses of IPv4 and the
    /// routers' anycast address of IPv6.
    pub fn new(prefixes: &[IpNet]) -> Self {
        let mut local = Self::default();
        for prefix in prefixes {
            let first = prefix.network();
            let lone = prefix.max_prefix_len() - prefix.prefix_len() <= 1;
            let usable = prefix.hosts().filter(|address| lone || *address != first);
            for address in usable.take(MOST_OF_A_PREFIX) {
                match address {
                    IpAddr::V4(address) => local.v4.addresses.push(address),
                    IpAddr::V6(address) => local.v6.addresses.push(address),
                }
            }
        }
        local
    }

    pub fn serves(&self, real_server: SocketAddr) -> bool {
        match real_server {
            SocketAddr::V4(_) => !self.v4.addresses.is_empty(),
            SocketAddr::V6(_) => !self.v6.addresses.is_empty(),
        }
    }

    /// Returns a free flow to the real server.
    pub fn choose(&mut self, to: SocketAddr, taken: impl Fn(&Flow) -> bool) -> Option<Flow> {
        let candidate = |_| match to {
            SocketAddr::V4(to) => self.v4.next().map(|(address, port)| Flow::V4 {
                from: SocketAddrV4::new(address, port),
                to,
            }),
            SocketAddr::V6(to) => self.v6.next().map(|(address, port)| Flow::V6 {
                from: SocketAddrV6::new(address, port, 0, 0),
                to,
            }),
        };
        (0..TRIES).map_while(candidate).find(|flow| !taken(flow))
    }
}

/// A round over all addresses, then over the next port.
#[derive(Clone, Debug)]
struct Pool<A> {
    addresses: Vec<A>,
    at: usize,
    port: u16,
}

impl<A> Default for Pool<A> {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            at: 0,
            port: *PORTS.start(),
        }
    }
}

impl<A: Copy> Pool<A> {
    fn next(&mut self) -> Option<(A, u16)> {
        let pair = (*self.addresses.get(self.at)?, self.port);
        self.at += 1;
        if self.at == self.addresses.len() {
            self.at = 0;
            self.port = self.port.checked_add(1).unwrap_or(*PORTS.start());
        }
        Some(pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(prefix: &str) -> LocalAddresses {
        LocalAddresses::new(&[prefix.parse().expect("valid prefix")])
    }

    fn server(text: &str) -> SocketAddr {
        text.parse().expect("valid address")
    }

    #[test]
    fn all_addresses_come_before_the_next_port() {
        let mut local = local("10.9.0.0/30");
        let chosen: Vec<_> = (0..3)
            .filter_map(|_| local.choose(server("10.0.0.1:80"), |_| false))
            .map(|flow| flow.from().to_string())
            .collect();
        assert_eq!(chosen, ["10.9.0.1:1025", "10.9.0.2:1025", "10.9.0.1:1026"]);
    }

    #[test]
    fn one_address_has_64511_ports_and_then_begins_again() {
        let mut local = local("10.9.0.7/32");
        let mut ports = (0..64511)
            .filter_map(|_| local.choose(server("10.0.0.1:80"), |_| false))
            .map(|flow| flow.from().port());
        assert!(ports.by_ref().eq(PORTS));
        let again = local.choose(server("10.0.0.1:80"), |_| false);
        assert_eq!(again.map(|flow| flow.from().port()), Some(1025));
    }

    #[test]
    fn taken_pairs_are_passed_by() {
        let mut local = local("fd00:9::/127");
        let first = local.choose(server("[fd00::1]:80"), |_| false);
        let second = local.choose(server("[fd00::1]:80"), |flow| {
            flow.from() == server("[fd00:9::1]:1025")
        });
        assert_eq!(
            first.map(|flow| flow.from()),
            Some(server("[fd00:9::]:1025"))
        );
        assert_eq!(
            second.map(|flow| flow.from()),
            Some(server("[fd00:9::]:1026"))
        );
        assert_eq!(local.choose(server("[fd00::1]:80"), |_| true), None);
    }

    #[test]
    fn family_without_addresses_has_no_way() {
        let mut local = local("fd00:9::/64");
        assert_eq!(local.v6.addresses.len(), MOST_OF_A_PREFIX);
        assert!(!local.serves(server("10.0.0.1:80")));
        assert_eq!(local.choose(server("10.0.0.1:80"), |_| false), None);
    }
}
