// SPDX-License-Identifier: GPL-2.0

//! From a process' getsockopt to the client in the socket's record, or to its balancer.
//!
//! The peer's name of an AF_INET socket has no room for an IPv6 client (NAT64). This answer has.

use crate::{
    endpoint::Endpoint,
    namespace::Sock,
    records::{
        self,
        Record, //
    },
    stats::Counter, //
};
use core::ops::RangeInclusive;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::sync::rcu;

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
        CLIENT => Ok(ToaNat64Peer(record.client).into()),
        BALANCER => Ok(ToaNat64Peer(record.connection.peer).into()),
        _ => Err(errno(kernel::bindings::ENOPROTOOPT)),
    }
}

/// Returns the record of the connection that `sk` has now. Counted like a question by getpeername.
#[inline(always)]
fn find(sk: &Sock) -> Option<Record> {
    let rcu = rcu::read_lock();
    let found = records::find(sk, &rcu);
    let current = found.filter(|record| record.connection == sk.connection());
    if let Some(net) = sk.net() {
        net.data(&rcu).stats.inc(match (found, current) {
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
