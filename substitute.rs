// SPDX-License-Identifier: GPL-2.0

//! From a question for a socket's peer to the client that is recorded for it.
//!
//! A question comes in two steps. At the entry of the kernel's function, [`substitutes`] decides
//! whether there is something to substitute, and if so the call goes to our function, which asks
//! [`peer`]. In between the record may go (the socket is disconnected or closed by another thread):
//! the answer is then the one that the kernel's function would give.

use crate::{
    endpoint::Endpoint,
    peers::PEERS,
    sock::Sock,
    stats::Counter,
    task, //
};
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::sync::rcu;

/// The form of the answer: which function was asked, not which family the socket has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A `struct sockaddr_in`.
    V4,
    /// A `struct sockaddr_in6`.
    V6,
}

/// Who is at the other end of a socket.
pub(crate) enum Peer {
    /// The client that the balancer named.
    Client(Endpoint),
    /// Whom the socket itself knows.
    OfSocket(Endpoint),
}

/// Decides whether a question for the peer of `sk` is to be answered with a client. Any context.
pub(crate) fn substitutes(sk: &Sock, form: Form) -> bool {
    let reason = match client(sk, form) {
        Ok(_) => return true,
        Err(reason) => reason,
    };
    // UDP and raw sockets come here as well.
    if let Some(net) = sk.net().filter(|_| sk.is_tcp()) {
        net.stats().count(reason);
    }
    false
}

/// Answers a question for the peer of `sk`. `strict` is the question of getpeername, which has no
/// answer for a connection that is over. Process context; does not sleep.
///
/// # Errors
///
/// `ENOTCONN`, under the conditions of `inet_getname`.
pub(crate) fn peer(sk: &Sock, form: Form, strict: bool) -> Result<Peer> {
    if !sk.has_peer(strict) {
        return Err(Error::from_errno(-(kernel::bindings::ENOTCONN as c_int)));
    }
    let Ok(client) = client(sk, form) else {
        return Ok(Peer::OfSocket(sk.connection().peer));
    };
    if let Some(net) = sk.net() {
        net.stats().count(Counter::GetnameToaOk);
    }
    Ok(Peer::Client(client))
}

/// The client behind `sk`, or the counter that says why there is none to be told.
fn client(sk: &Sock, form: Form) -> Result<Endpoint, Counter> {
    let rcu = rcu::read_lock();
    let record = PEERS
        .get(&rcu)
        .and_then(|peers| peers.find(sk, &rcu))
        .ok_or(Counter::GetnameToaEmpty)?;
    if record.connection != sk.connection() {
        return Err(Counter::GetnameToaMismatch);
    }
    if form == Form::V4 && record.client.address_v4().is_none() {
        return Err(Counter::GetnameToaBypass);
    }
    // nfsd, dlm, ksmbd and their like authorize and tell nodes apart by the address.
    if task::is_kernel_thread() {
        return Err(Counter::GetnameToaBypass);
    }
    Ok(record.client)
}
