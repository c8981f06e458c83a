// SPDX-License-Identifier: GPL-2.0

//! The reference parser: a second implementation of `option.rs` in the plainest form.
//! It uses indices into the whole list and literal lengths. The fuzz target compiles
//! this file too.

use crate::endpoint::Endpoint;
use crate::option::Claim;
use crate::option::ParsedOptions;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Kind, length, and a function that returns the address and whether it is impossible.
type Row = (u8, u8, fn(&[u8]) -> (Ipv6Addr, bool));

/// The reference parser's table of kinds.
const ROWS: &[Row] = &[(254, 8, client4), (254, 20, client6)];

/// Whether the table has a kind.
pub(crate) fn has_kind(kind: u8) -> bool {
    ROWS.iter().any(|row| row.0 == kind)
}

/// The result that [`crate::option::find_client`] must have.
pub(crate) fn find_client(list: &[u8]) -> ParsedOptions {
    let mut places = Vec::new();
    let mut broken_off = false;
    let mut at = 0;
    while at < list.len() && list[at] != 0 {
        if list[at] == 1 {
            at += 1;
            continue;
        }
        if at + 1 == list.len() || list[at + 1] < 2 || at + list[at + 1] as usize > list.len() {
            broken_off = true;
            break;
        }
        if has_kind(list[at]) {
            places.push(at);
        }
        at += list[at + 1] as usize;
    }
    let claim = places.first().and_then(|&at| claim(list, at));
    ParsedOptions {
        claim,
        duplicate: places.len() > 1,
        malformed: broken_off || (claim.is_none() && !places.is_empty()),
    }
}

fn claim(list: &[u8], at: usize) -> Option<Claim> {
    let row = ROWS
        .iter()
        .find(|row| row.0 == list[at] && row.1 == list[at + 1])?;
    let (address, impossible) = row.2(&list[at + 4..at + row.1 as usize]);
    let port = list[at + 2] as u16 * 256 + list[at + 3] as u16;
    Some(if impossible || port == 0 {
        Claim::Impossible
    } else {
        Claim::Client(Endpoint::new(address, port))
    })
}

fn client4(bytes: &[u8]) -> (Ipv6Addr, bool) {
    let four: [u8; 4] = bytes.try_into().unwrap();
    let address = Ipv4Addr::from(four);
    let impossible =
        four[0] == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast();
    (address.to_ipv6_mapped(), impossible)
}

fn client6(bytes: &[u8]) -> (Ipv6Addr, bool) {
    let sixteen: [u8; 16] = bytes.try_into().unwrap();
    let address = Ipv6Addr::from(sixteen);
    // `to_ipv4` accepts mapped and compatible addresses, :: and ::1.
    (
        address,
        address.to_ipv4().is_some() || address.is_multicast(),
    )
}
