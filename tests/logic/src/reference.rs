// SPDX-License-Identifier: GPL-2.0

//! `option.rs` a second time, in the plainest way: by indices into the whole list,
//! with every length written out. The fuzz target compiles this file too.

use crate::endpoint::Endpoint;
use crate::option::Findings;
use std::net::Ipv6Addr;

/// What [`crate::option::find_client`] is to find.
pub(crate) fn find_client(list: &[u8]) -> Findings {
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
        if list[at] == 254 {
            places.push(at);
        }
        at += list[at + 1] as usize;
    }
    let client = places.first().and_then(|&at| endpoint(list, at));
    Findings {
        client,
        duplicate: places.len() > 1,
        malformed: broken_off || (client.is_none() && !places.is_empty()),
    }
}

fn endpoint(list: &[u8], at: usize) -> Option<Endpoint> {
    let mut address = [0; 16];
    match list[at + 1] {
        8 => {
            address[10] = 0xff;
            address[11] = 0xff;
            for i in 0..4 {
                address[12 + i] = list[at + 4 + i];
            }
        }
        20 => {
            for i in 0..16 {
                address[i] = list[at + 4 + i];
            }
        }
        _ => return None,
    }
    let port = list[at + 2] as u16 * 256 + list[at + 3] as u16;
    Some(Endpoint::new(Ipv6Addr::from(address), port))
}
