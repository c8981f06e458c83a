// SPDX-License-Identifier: GPL-2.0

//! Tags of connections, and the words in which sockets have a connection.

use crate::endpoint::Connection;
use crate::endpoint::Endpoint;
use crate::endpoint::Tuple;
use crate::tag::tuple_of;
use crate::tag::Key;
use crate::tag::KEY_WORDS;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// The fields of an IPv4 socket, from the bytes in its memory.
fn v4(peer: Ipv4Addr, local: Ipv4Addr, [peer_port, local_port]: [u16; 2]) -> Tuple {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&peer.octets());
    bytes[4..].copy_from_slice(&local.octets());
    Tuple::V4 {
        addresses: u64::from_ne_bytes(bytes),
        ports: [peer_port.to_be(), local_port.to_be()],
    }
}

/// The fields of an IPv6 socket.
fn v6(peer: Ipv6Addr, local: Ipv6Addr, [peer_port, local_port]: [u16; 2]) -> Tuple {
    let words = |address: Ipv6Addr| {
        let octets = address.octets();
        let word = |at: usize| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap());
        [word(0), word(8)]
    };
    Tuple::V6 {
        peer: words(peer),
        local: words(local),
        ports: [peer_port.to_be(), local_port.to_be()],
    }
}

#[test]
fn hash_is_that_of_nh_with_words_of_64_bits() {
    // (1+10)(2+20) + (3+30)(4+40) + (p+50)·60, where p is the word of the ports 1 and 2.
    let tuple = Tuple::V6 {
        peer: [1, 2],
        local: [3, 4],
        ports: [1, 2],
    };
    let sum = 11 * 22 + 33 * 44 + (((2 << 16) | 1) + 50) * 60;
    assert_eq!(
        Key::new([10, 20, 30, 40, 50, 60]).tag(&tuple),
        [sum, 1 << 63]
    );
    // The words wrap around, and the products do not.
    let tuple = Tuple::V6 {
        peer: [u64::MAX, u64::MAX],
        local: [0, 0],
        ports: [0, 0],
    };
    assert_eq!(Key::new([1, 1, 0, 0, 0, 0]).tag(&tuple), [0, 1 << 63]);
    assert_eq!(
        Key::new([0, 0, 0, 0, 0, 0]).tag(&tuple),
        [1, (u64::MAX - 1) | (1 << 63)]
    );
}

fn ports() -> impl Strategy<Value = [u16; 2]> {
    any::<[u16; 2]>()
}

proptest! {
    #[test]
    fn tuple_of_ipv4_is_the_connection(
        peer: Ipv4Addr, local: Ipv4Addr, ports in ports(),
    ) {
        let connection = Connection {
            local: Endpoint::from_v4(local, ports[1]),
            peer: Endpoint::from_v4(peer, ports[0]),
        };
        prop_assert_eq!(Connection::from(v4(peer, local, ports)), connection);
    }

    #[test]
    fn tuple_of_ipv6_is_the_connection(
        peer: Ipv6Addr, local: Ipv6Addr, ports in ports(),
    ) {
        let connection = Connection {
            local: Endpoint::new(local, ports[1]),
            peer: Endpoint::new(peer, ports[0]),
        };
        prop_assert_eq!(Connection::from(v6(peer, local, ports)), connection);
    }

    #[test]
    fn tag_of_ipv4_is_the_tuple(
        peer: Ipv4Addr, local: Ipv4Addr, ports in ports(), key: [u64; KEY_WORDS],
    ) {
        let tuple = v4(peer, local, ports);
        prop_assert_eq!(tuple_of(Key::new(key).tag(&tuple)), Some(tuple));
    }

    #[test]
    fn tag_of_ipv6_is_no_tuple(
        peer: Ipv6Addr, local: Ipv6Addr, ports in ports(), key: [u64; KEY_WORDS],
    ) {
        prop_assert_eq!(tuple_of(Key::new(key).tag(&v6(peer, local, ports))), None);
    }

    /// Each part counts: the tag of a connection that differs in one bit is another one.
    #[test]
    fn tag_of_ipv6_depends_on_each_bit(
        peer: u128, local: u128, ports in ports(), bit in 0..288_usize, key: [u64; KEY_WORDS],
    ) {
        // A key with a word that hides the bit's pair is as unlikely as a collision.
        let key = Key::new(key.map(|word| word | 1));
        let first = v6(peer.into(), local.into(), ports);
        let flip = |word: usize| match bit / 128 == word {
            true => 1_u128 << (bit % 128),
            false => 0,
        };
        let flipped = [ports[0] ^ flip(2) as u16, ports[1] ^ (flip(2) >> 16) as u16];
        let second = v6((peer ^ flip(0)).into(), (local ^ flip(1)).into(), flipped);
        prop_assert_eq!(first == second, key.tag(&first) == key.tag(&second));
    }
}
