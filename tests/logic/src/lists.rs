// SPDX-License-Identifier: GPL-2.0

//! Strategies for option lists of all sorts, for the property tests.

use crate::endpoint::Endpoint;
use crate::reference;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// The kind whose options carry a client.
pub(crate) const KIND: u8 = 254;

/// A NOP or one whole option, as bytes.
pub(crate) type Piece = Vec<u8>;

/// Length of the longest option list in a TCP header.
const MAX_LEN: usize = 40;

/// Returns an option. Its length byte counts the kind and length bytes, as on the wire.
pub(crate) fn option(kind: u8, data: &[u8]) -> Piece {
    let length = u8::try_from(data.len() + 2).unwrap();
    [&[kind, length], data].concat()
}

/// Returns the option that a balancer writes for an IPv4 client.
pub(crate) fn written_v4(address: Ipv4Addr, port: u16) -> Piece {
    option(
        KIND,
        &[&port.to_be_bytes()[..], &address.octets()[..]].concat(),
    )
}

/// Returns the option that a balancer writes for an IPv6 client.
pub(crate) fn written_v6(address: Ipv6Addr, port: u16) -> Piece {
    option(
        KIND,
        &[&port.to_be_bytes()[..], &address.octets()[..]].concat(),
    )
}

/// A client, and the option that a balancer writes for it.
pub(crate) fn client() -> impl Strategy<Value = (Endpoint, Piece)> {
    prop_oneof![
        (any::<Ipv4Addr>(), 1..=u16::MAX)
            .prop_filter("an impossible client", |(address, _)| {
                let first = address.octets()[0];
                ![0, 127].contains(&first)
                    && !(224..=239).contains(&first)
                    && !address.is_broadcast()
            })
            .prop_map(|(address, port)| (
                Endpoint::from_v4(address, port),
                written_v4(address, port)
            )),
        (any::<Ipv6Addr>(), 1..=u16::MAX)
            .prop_filter("an impossible client", |(address, _)| {
                let octets = address.octets();
                octets[0] != 0xff && octets[..10] != [0; 10]
            })
            .prop_map(|(address, port)| (Endpoint::new(address, port), written_v6(address, port))),
    ]
}

/// An IPv4 address that cannot be the source of a segment.
fn impossible_v4() -> impl Strategy<Value = Ipv4Addr> {
    let within =
        |first: u8| any::<[u8; 3]>().prop_map(move |[b, c, d]| Ipv4Addr::new(first, b, c, d));
    prop_oneof![
        within(0),
        within(127),
        (224..=239_u8).prop_flat_map(within),
        Just(Ipv4Addr::BROADCAST),
    ]
}

/// An IPv6 address that embeds an IPv4 address, or cannot be the source of a segment.
fn impossible_v6() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        Just(Ipv6Addr::UNSPECIFIED),
        Just(Ipv6Addr::LOCALHOST),
        any::<Ipv4Addr>().prop_map(|address| address.to_ipv6_mapped()),
        any::<Ipv4Addr>().prop_map(|address| Ipv6Addr::from(u128::from(address.to_bits()))),
        any::<[u8; 15]>().prop_map(|rest| {
            let mut octets = [0xff; 16];
            octets[1..].copy_from_slice(&rest);
            Ipv6Addr::from(octets)
        }),
    ]
}

/// An option with an address's length and an impossible client.
pub(crate) fn impossible() -> impl Strategy<Value = Piece> {
    prop_oneof![
        (impossible_v4(), any::<u16>()).prop_map(|(address, port)| written_v4(address, port)),
        (impossible_v6(), any::<u16>()).prop_map(|(address, port)| written_v6(address, port)),
        any::<Ipv4Addr>().prop_map(|address| written_v4(address, 0)),
        any::<Ipv6Addr>().prop_map(|address| written_v6(address, 0)),
    ]
}

/// An option of our kind without an address.
pub(crate) fn no_address() -> impl Strategy<Value = Piece> {
    vec(any::<u8>(), 0..=MAX_LEN - 2)
        .prop_filter("an address", |data| ![6, 18].contains(&data.len()))
        .prop_map(|data| option(KIND, &data))
}

/// Any option of our kind.
pub(crate) fn of_the_kind() -> impl Strategy<Value = Piece> {
    prop_oneof![
        client().prop_map(|(_, option)| option),
        impossible(),
        no_address()
    ]
}

/// The options that clients put into their segments (RFC 9293, RFC 2018, RFC 7323), NOPs too.
pub(crate) fn well_known() -> impl Strategy<Value = Piece> {
    prop_oneof![
        Just(vec![1]),
        any::<[u8; 2]>().prop_map(|mss| option(2, &mss)),
        any::<u8>().prop_map(|shift| option(3, &[shift])),
        Just(option(4, &[])),
        (1..=4_usize)
            .prop_flat_map(|blocks| vec(any::<u8>(), blocks * 8))
            .prop_map(|edges| option(5, &edges)),
        any::<[u8; 8]>().prop_map(|timestamps| option(8, &timestamps)),
    ]
}

/// NOPs and options of any kind but ours.
pub(crate) fn others() -> impl Strategy<Value = Vec<Piece>> {
    let unknown = (2..=u8::MAX, vec(any::<u8>(), 0..=MAX_LEN - 2))
        .prop_filter("our kind", |(kind, _)| !reference::has_kind(*kind))
        .prop_map(|(kind, data)| option(kind, &data));
    vec(prop_oneof![well_known(), unknown], 0..4)
}

/// Whole options, ours among them.
pub(crate) fn well_formed() -> impl Strategy<Value = Vec<Piece>> {
    let some_of_ours = vec(prop_oneof![others(), vec(of_the_kind(), 1)], 0..4);
    some_of_ours.prop_map(|lists| lists.concat())
}

/// Random bytes, many of them kinds and lengths in use. Some lists are longer than a
/// header's, so that every length byte can be valid.
pub(crate) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![0, 1, 2, 3, 6, 8, 10, 18, 20, 22, 253, KIND, 255]),
    ];
    prop_oneof![
        vec(byte.clone(), 0..=MAX_LEN),
        vec(byte, 0..=300),
        vec(any::<u8>(), 0..=MAX_LEN),
        // Whole options first, so that the parser reaches the later bytes.
        (well_formed(), vec(any::<u8>(), 0..=MAX_LEN)).prop_map(|(pieces, rest)| [
            pieces.concat(),
            rest
        ]
        .concat()),
    ]
}
