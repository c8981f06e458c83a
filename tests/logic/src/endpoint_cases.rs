// SPDX-License-Identifier: GPL-2.0

//! Tests of the properties of [`Endpoint`] and [`Connection`] that the module relies on.

use crate::endpoint::Connection;
use crate::endpoint::Endpoint;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

fn v6(address: &str) -> Ipv6Addr {
    address.parse().unwrap()
}

#[test]
fn ipv4_address_is_kept_mapped() {
    let endpoint = Endpoint::from_v4(Ipv4Addr::new(192, 0, 2, 1), 80);
    assert_eq!(
        endpoint.address().octets(),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]
    );
    assert_eq!(endpoint.port(), 80);
}

#[test]
fn addresses_that_only_contain_an_ipv4_address_are_not_mapped_ones() {
    for address in [
        "::192.0.2.1",
        "64:ff9b::192.0.2.1",
        "2002:c000:201::",
        "::ffff:0:192.0.2.1",
        "1::ffff:192.0.2.1",
        "::fffe:192.0.2.1",
        "::",
        "::1",
    ] {
        assert_eq!(
            Endpoint::new(v6(address), 80).address_v4(),
            None,
            "{address}"
        );
    }
}

#[test]
fn the_bounds_of_ipv4_and_of_ports_are_kept() {
    for address in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST] {
        for port in [0, u16::MAX] {
            let endpoint = Endpoint::from_v4(address, port);
            assert_eq!(endpoint.address_v4(), Some(address));
            assert_eq!(endpoint.port(), port);
        }
    }
}

#[test]
fn a_connection_is_known_by_its_ends_in_their_order() {
    let a = Endpoint::new(v6("2001:db8::1"), 80);
    let b = Endpoint::new(v6("2001:db8::2"), 1025);
    let connection = Connection { local: a, peer: b };
    assert_eq!(connection, Connection { local: a, peer: b });
    assert_ne!(connection, Connection { local: b, peer: a });
    assert_ne!(connection, Connection { local: a, peer: a });
    assert_ne!(connection, Connection { local: b, peer: b });
}

proptest! {
    #[test]
    fn an_ipv4_endpoint_is_its_mapped_one(address: Ipv4Addr, port: u16) {
        let endpoint = Endpoint::from_v4(address, port);
        prop_assert_eq!(endpoint, Endpoint::new(address.to_ipv6_mapped(), port));
        prop_assert_eq!(endpoint.address_v4(), Some(address));
        prop_assert_eq!(endpoint.port(), port);
    }

    #[test]
    fn an_endpoint_gives_back_what_it_was_made_of(address: Ipv6Addr, port: u16) {
        let endpoint = Endpoint::new(address, port);
        prop_assert_eq!((endpoint.address(), endpoint.port()), (address, port));
    }

    #[test]
    fn ipv4_is_reported_of_mapped_addresses_alone(address: Ipv6Addr, port: u16) {
        let mapped = address.octets()[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        prop_assert_eq!(Endpoint::new(address, port).address_v4().is_some(), mapped);
    }

    #[test]
    fn endpoints_are_the_same_if_each_bit_is(address: u128, port: u16, bit in 0..144_u32) {
        let endpoint = Endpoint::new(address.into(), port);
        let other = match bit {
            0..128 => Endpoint::new((address ^ (1 << bit)).into(), port),
            _ => Endpoint::new(address.into(), port ^ (1 << (bit - 128))),
        };
        prop_assert_eq!(endpoint, Endpoint::new(address.into(), port));
        prop_assert_ne!(endpoint, other);
    }
}
