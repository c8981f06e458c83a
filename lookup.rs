// SPDX-License-Identifier: GPL-2.0

//! From a process' getsockopt to the client that is recorded for a socket, or to its balancer.
//!
//! An AF_INET socket has no room for an IPv6 client (NAT64) in its peer's name. Here is room.

use crate::{
    endpoint::Endpoint,
    peers::{
        self,
        Record, //
    },
    sock::Sock,
    stats::Counter, //
};
use core::ops::RangeInclusive;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::sync::rcu;

/// `TOA_SO_GET_LOOKUP` of DPVS (`kmod/toa/toa.h`) and its kin: the client.
const CLIENT: c_int = 4096;

/// toa's own: the balancer, whom getpeername names without the module.
const BALANCER: c_int = 4097;

/// All options.
pub(crate) const OPTIONS: RangeInclusive<c_int> = CLIENT..=BALANCER;

/// The answer: DPVS's `struct toa_nat64_peer`, whose C layout ends in two bytes of padding.
#[repr(C)]
pub(crate) struct Answer {
    /// An IPv4 address is in its IPv4-mapped form.
    address: [u8; 16],
    /// In network order.
    port: [u8; 2],
    padding: [u8; 2],
}

const _: () = assert!(size_of::<Answer>() == 20);

impl From<Endpoint> for Answer {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            address: endpoint.address().octets(),
            port: endpoint.port().to_be_bytes(),
            padding: [0; 2],
        }
    }
}

/// Answers `option` of `sk` for a caller that has room for `room` bytes. Process context.
///
/// # Errors
///
/// In this order, and those that DPVS's module has are the same as there:
///
/// - `ENOPROTOOPT` if the socket is not a TCP socket, as without the module;
/// - `EINVAL` if the answer does not fit;
/// - `ENOTCONN` if the socket is not connected, or no longer;
/// - `EINVAL` if no client is known for its connection.
pub(crate) fn answer(sk: &Sock, option: c_int, room: usize) -> Result<Answer> {
    if !sk.is_tcp() {
        return Err(errno(kernel::bindings::ENOPROTOOPT));
    }
    if room < size_of::<Answer>() {
        return Err(EINVAL);
    }
    if !sk.has_peer(true) {
        return Err(errno(kernel::bindings::ENOTCONN));
    }
    let record = find(sk).ok_or(EINVAL)?;
    match option {
        CLIENT => Ok(record.client.into()),
        BALANCER => Ok(record.connection.peer.into()),
        _ => Err(errno(kernel::bindings::ENOPROTOOPT)),
    }
}

/// What is recorded of the connection that `sk` has now. Counted like a question by getpeername.
fn find(sk: &Sock) -> Option<Record> {
    let rcu = rcu::read_lock();
    let found = peers::find(sk, &rcu);
    let current = found.filter(|record| record.connection == sk.connection());
    if let Some(net) = sk.net() {
        net.stats(&rcu).count(match (found, current) {
            (None, _) => Counter::GetnameToaEmpty,
            (Some(_), None) => Counter::GetnameToaMismatch,
            (Some(_), Some(_)) => Counter::GetnameToaOk,
        });
    }
    current.copied()
}

fn errno(number: u32) -> Error {
    Error::from_errno(-(number as c_int))
}
