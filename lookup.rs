// SPDX-License-Identifier: GPL-2.0

//! From a process' getsockopt to the client in the socket's record, or to its balancer.
//!
//! The peer's name of an AF_INET socket has no room for an IPv6 client (NAT64). This answer has.

use crate::{
    endpoint::{
        Connection,
        Endpoint, //
    },
    linux::rcu,
    namespace::Sock,
    records::{
        Found,
        Records, //
    },
    stats::Counter, //
};
use core::ops::RangeInclusive;
use kernel::ffi::c_int;
use kernel::prelude::*;

/// `TOA_SO_GET_LOOKUP` of DPVS (`kmod/toa/toa.h`) and its kin: the client.
const CLIENT: c_int = 4096;

/// toa's own: the balancer, which getpeername returns without the module.
const BALANCER: c_int = 4097;

/// All options.
pub(crate) const OPTIONS: RangeInclusive<c_int> = CLIENT..=BALANCER;

/// The bytes of a [`ToaNat64Peer`].
pub(crate) type Answer = [u8; 20];

/// DPVS's `struct toa_nat64_peer`: the address in 16 bytes, an IPv4 one in its IPv4-mapped form,
/// the port in network order, and two bytes of padding.
struct ToaNat64Peer(Endpoint);

impl From<ToaNat64Peer> for Answer {
    fn from(ToaNat64Peer(endpoint): ToaNat64Peer) -> Self {
        let mut bytes = [0; size_of::<Self>()];
        let (address, rest) = bytes.split_at_mut(16);
        address.copy_from_slice(&endpoint.address().octets());
        let (port, _padding) = rest.split_at_mut(2);
        port.copy_from_slice(&endpoint.port().to_be_bytes());
        bytes
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
/// - `EINVAL` if the connection has no record.
#[inline(always)]
pub(crate) fn answer(records: &Records, sk: &Sock, option: c_int, room: usize) -> Result<Answer> {
    if !sk.is_tcp() {
        return Err(errno(kernel::bindings::ENOPROTOOPT));
    }
    if room < size_of::<Answer>() {
        return Err(EINVAL);
    }
    if !sk.has_peer(true) {
        return Err(errno(kernel::bindings::ENOTCONN));
    }
    let found = find(records, sk).ok_or(EINVAL)?;
    match option {
        CLIENT => Ok(ToaNat64Peer(found.client).into()),
        BALANCER => Ok(ToaNat64Peer(Connection::from(found.connection).peer).into()),
        _ => Err(errno(kernel::bindings::ENOPROTOOPT)),
    }
}

/// Returns the record of the connection that `sk` has now. Counted like a question by getpeername.
#[inline(always)]
fn find(records: &Records, sk: &Sock) -> Option<Found> {
    let found = records.find(sk, &rcu::read_lock());
    if let Some(net) = sk.net() {
        net.data().stats.inc(match &found {
            None => Counter::GetnameToaEmpty,
            Some(found) if !found.is_current => Counter::GetnameToaMismatch,
            Some(_) => Counter::GetnameToaOk,
        });
    }
    found.filter(|found| found.is_current)
}

fn errno(number: u32) -> Error {
    Error::from_errno(-(number as c_int))
}
