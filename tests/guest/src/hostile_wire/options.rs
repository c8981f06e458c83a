// SPDX-License-Identifier: GPL-2.0

//! Option lists from a seed, and what the server must make of each. Pure: the host tests run it
//! without a kernel.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use proptest::prelude::Rng;
use proptest::prelude::RngCore;

use crate::balancer::TOA_KIND;
use crate::net::SERVER_V4;
use crate::net::SERVER_V6;

/// RFC 9293 section 3.1: the bytes of the longest list.
pub const LONGEST: usize = 40;

const END: u8 = 0;
const NOP: u8 = 1;

/// TCP-MD5 (RFC 2385) and TCP-AO (RFC 5925): the kernel drops segments with these before it makes a
/// connection, unless a key is set.
const AUTHENTICATION: [u8; 2] = [19, 29];

/// Looking for these, the kernel also drops segments whose list is cut off before this many bytes or
/// more (`tcp_do_parse_auth_options`).
const SHORTEST_AUTHENTICATION: usize = 5;

/// Timestamps (RFC 7323). A SYN with them obliges the later segments.
const TIMESTAMPS: u8 = 8;

/// Kinds that operating systems send, with the lengths of their options.
const WELL_KNOWN: [(u8, usize); 7] = [
    (2, 4),
    (3, 3),
    (4, 2),
    (5, 10),
    (5, 18),
    (TIMESTAMPS, 10),
    (34, 10),
];

/// Kinds that other balancers use for clients, and kinds without a meaning.
const OTHERS: [u8; 8] = [28, 77, 172, 200, 202, 252, 253, 255];

/// Lengths around those of options without data and with a client.
const LENGTHS: [u8; 12] = [0, 1, 2, 6, 7, 8, 9, 18, 19, 20, 21, 255];

/// Draws one of the items.
pub fn any_of<T: Copy>(random: &mut impl RngCore, items: &[T]) -> T {
    items[random.random_range(0..items.len())]
}

/// Draws true once in `number` times.
pub fn one_in(random: &mut impl RngCore, number: u32) -> bool {
    random.random_range(0..number) == 0
}

/// Draws a list for the segment that opens a connection, without what the kernel drops.
pub fn for_opening(random: &mut impl RngCore) -> Vec<u8> {
    loop {
        let list = any(random);
        let padded = padded(&list);
        let (options, cut_off) = options(&padded);
        let is_dropped = options
            .iter()
            .any(|(kind, _)| AUTHENTICATION.contains(kind))
            || cut_off.is_some_and(|left| left >= SHORTEST_AUTHENTICATION);
        if !is_dropped {
            return list;
        }
    }
}

/// Draws a list for a SYN, without options that the rest of the connection would have to follow.
pub fn for_syn(random: &mut impl RngCore) -> Vec<u8> {
    loop {
        let list = for_opening(random);
        if !options(&list).0.iter().any(|(kind, _)| *kind == TIMESTAMPS) {
            return list;
        }
    }
}

/// Draws a list of up to 40 bytes: whole options, one that is cut off, or bytes without an order.
pub fn any(random: &mut impl RngCore) -> Vec<u8> {
    let mut list = Vec::new();
    for _ in 0..random.random_range(0..6) {
        let piece = piece(random);
        if list.len() + piece.len() <= LONGEST {
            list.extend(piece);
        }
    }
    match random.random_range(0..12) {
        // The list is cut off within an option.
        0 => {
            let mut option = client_option(random);
            option.truncate(random.random_range(1..option.len()));
            list.extend(option);
        }
        1 => {
            list.extend([any_of(random, &[TOA_KIND, 77, 2]), any_of(random, &LENGTHS)]);
        }
        2 => list.extend((0..LONGEST).map(|_| any_of(random, &[0, 1, 2, 8, 20, 77, TOA_KIND]))),
        3 => list.extend((0..LONGEST).map(|_| random.random::<u8>())),
        // The list ends, and a client stands behind the end.
        4 => {
            list.push(END);
            list.extend(client_option(random));
        }
        _ => {}
    }
    list.truncate(LONGEST);
    list
}

/// Draws a NOP or a whole option.
fn piece(random: &mut impl RngCore) -> Vec<u8> {
    match random.random_range(0..8) {
        0 => vec![NOP],
        1 | 2 => client_option(random),
        3 => {
            let (kind, length) = any_of(random, &WELL_KNOWN);
            option(random, kind, length)
        }
        4 => {
            let kind = any_of(random, &OTHERS);
            let length = any_of(random, &LENGTHS[2..11]);
            option(random, kind, length.into())
        }
        5 => {
            let length = any_of(random, &LENGTHS[2..11]);
            option(random, TOA_KIND, length.into())
        }
        6 => {
            let kind = random.random_range(2..=u8::MAX);
            let length = random.random_range(2..=LONGEST);
            option(random, kind, length)
        }
        _ => vec![NOP; random.random_range(1..4)],
    }
}

/// Draws an option with random data.
fn option(random: &mut impl RngCore, kind: u8, length: usize) -> Vec<u8> {
    let mut option = vec![kind, length as u8];
    option.resize_with(length, || random.random());
    option
}

/// Draws an option of the balancer's form. Many clients are possible ones.
fn client_option(random: &mut impl RngCore) -> Vec<u8> {
    let ip: IpAddr = match random.random_range(0..12) {
        0..=4 => Ipv4Addr::from(0xcb00_7100 | random.random_range(0..256_u32)).into(),
        5..=8 => Ipv6Addr::from((0x2001_0db8 << 96) | u128::from(random.random::<u64>())).into(),
        9 => Ipv4Addr::from(random.random::<u32>()).into(),
        10 => Ipv6Addr::from(random.random::<u128>() >> any_of(random, &[0, 32, 96, 127])).into(),
        _ => any_of(
            random,
            &[
                SERVER_V4.into(),
                SERVER_V6.into(),
                Ipv4Addr::LOCALHOST.into(),
                Ipv4Addr::BROADCAST.into(),
                Ipv6Addr::LOCALHOST.into(),
                SERVER_V4.to_ipv6_mapped().into(),
            ],
        ),
    };
    let port = if one_in(random, 16) {
        0
    } else {
        random.random()
    };
    crate::balancer::toa_option(TOA_KIND, SocketAddr::new(ip, port))
}

/// The list as it is in a header, which is a number of words.
fn padded(list: &[u8]) -> Vec<u8> {
    let mut padded = list.to_vec();
    padded.resize(list.len().next_multiple_of(4), END);
    padded
}

/// A list's whole options with their data, up to the end of the list or to one that is cut off, and
/// how many bytes that one and the rest have.
fn options(list: &[u8]) -> (Vec<(u8, &[u8])>, Option<usize>) {
    let mut found = Vec::new();
    let mut at = 0;
    while at < list.len() && list[at] != END {
        if list[at] == NOP {
            at += 1;
            continue;
        }
        let length = list.get(at + 1).copied().map_or(0, usize::from);
        if length < 2 || at + length > list.len() {
            return (found, Some(list.len() - at));
        }
        found.push((list[at], &list[at + 2..at + length]));
        at += length;
    }
    (found, None)
}

/// The server's judgement of the segment that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The row of outcomes that counts.
    pub outcome: &'static str,
    /// The client that the server sees. Without one it sees the sender.
    pub client: Option<SocketAddr>,
    /// There is more than one option that could count.
    pub is_duplicate: bool,
}

/// Judges a list under the default policy.
pub fn judge(list: &[u8], is_ipv6: bool) -> Verdict {
    let padded = padded(list);
    let (options, cut_off) = options(&padded);
    let of_toa: Vec<&[u8]> = options
        .iter()
        .filter_map(|&(kind, data)| (kind == TOA_KIND).then_some(data))
        .collect();
    let is_duplicate = of_toa.len() > 1;
    let verdict = |outcome, client| Verdict {
        outcome,
        client,
        is_duplicate,
    };
    let Some(first) = of_toa.first() else {
        let needed = if is_ipv6 { 20 } else { 8 };
        let outcome = if cut_off.is_some() {
            "malformed"
        } else if options.iter().any(may_carry_client) {
            "kind_not_configured"
        } else if padded.len() + needed > LONGEST {
            "no_option_header_full"
        } else {
            "no_option"
        };
        return verdict(outcome, None);
    };
    let Some(named) = client_of(first) else {
        return verdict("malformed", None);
    };
    let is_own = [IpAddr::from(SERVER_V4), IpAddr::from(SERVER_V6)].contains(&named.ip());
    if !is_possible(named) {
        return verdict("impossible_client", None);
    }
    if is_ipv6 && named.is_ipv4() {
        return verdict("foreign_length", None);
    }
    if is_own {
        return verdict("impossible_client", None);
    }
    verdict("option_taken", Some(named))
}

/// Whether another balancer may write the option for a client.
fn may_carry_client((kind, data): &(u8, &[u8])) -> bool {
    let may_carry = *kind == 28 || (*kind >= 70 && *kind != 172 && *kind != 174);
    may_carry && [4, 5, 6, 16, 17, 18].contains(&data.len())
}

/// The client in an option's data, if they have the length of one.
fn client_of(data: &[u8]) -> Option<SocketAddr> {
    let (port, ip) = data.split_first_chunk::<2>()?;
    let ip: IpAddr = match ip.len() {
        4 => <[u8; 4]>::try_from(ip).ok()?.into(),
        16 => <[u8; 16]>::try_from(ip).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// Whether a segment can come from a client.
fn is_possible(client: SocketAddr) -> bool {
    let is_possible = match client.ip() {
        IpAddr::V4(ip) => {
            ip.octets()[0] != 0 && !ip.is_loopback() && !ip.is_multicast() && !ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            let is_ipv4 = ip.to_ipv4_mapped().is_some() || ip.octets()[..12] == [0; 12];
            !is_ipv4 && !ip.is_multicast()
        }
    };
    is_possible && client.port() != 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::test_runner::RngAlgorithm;
    use proptest::test_runner::TestRng;

    use super::*;
    use crate::balancer::toa_option;

    fn named(text: &str) -> Vec<u8> {
        toa_option(TOA_KIND, text.parse().expect("an address"))
    }

    #[test]
    fn lists_reach_each_outcome_that_options_decide() {
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
        for number in 0..4000 {
            let list = for_opening(&mut random);
            assert!(list.len() <= LONGEST);
            let verdict = judge(&list, number % 2 == 0);
            *outcomes.entry(verdict.outcome).or_default() += 1;
            *outcomes.entry("duplicate").or_default() += u32::from(verdict.is_duplicate);
        }
        let few: Vec<_> = outcomes
            .iter()
            .filter(|(_, number)| **number < 40)
            .collect();
        assert_eq!((outcomes.len(), few), (8, Vec::new()), "{outcomes:?}");
    }

    #[test]
    fn syn_has_no_timestamps() {
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        for _ in 0..1000 {
            let list = for_syn(&mut random);
            let (options, _) = options(&list);
            let forbidden = options.iter().find(|(kind, _)| [8, 19, 29].contains(kind));
            assert_eq!(forbidden, None, "{list:?}");
        }
    }

    #[test]
    fn lists_are_judged() {
        let outcome = |list: &[u8], is_ipv6| judge(list, is_ipv6).outcome;
        assert_eq!(outcome(&[], false), "no_option");
        assert_eq!(outcome(&named("203.0.113.7:9"), false), "option_taken");
        assert_eq!(outcome(&named("203.0.113.7:9"), true), "foreign_length");
        assert_eq!(outcome(&named("[2001:db8::7]:9"), true), "option_taken");
        assert_eq!(outcome(&named("10.0.0.1:9"), false), "impossible_client");
        assert_eq!(outcome(&named("203.0.113.7:0"), false), "impossible_client");
        assert_eq!(outcome(&[TOA_KIND, 4, 0, 0], false), "malformed");
        assert_eq!(outcome(&[2, 9, 0, 0], false), "malformed");
        assert_eq!(outcome(&[NOP; 36], false), "no_option_header_full");
        assert_eq!(
            outcome(&[253, 8, 0, 9, 1, 2, 3, 4], false),
            "kind_not_configured"
        );
        let two = [named("203.0.113.7:9"), named("203.0.113.8:9")].concat();
        let verdict = judge(&two, false);
        assert_eq!(
            verdict.client,
            Some("203.0.113.7:9".parse().expect("an address"))
        );
        assert!(verdict.is_duplicate);
        let behind_the_end = [vec![END], named("203.0.113.7:9")].concat();
        assert_eq!(outcome(&behind_the_end, false), "no_option");
    }
}
