// SPDX-License-Identifier: GPL-2.0

//! From a question for a socket's peer to the client that is recorded for it.
//!
//! A question comes in two steps. At the entry of the kernel's function, [`substitutes`] decides
//! whether there is something to substitute, and if so the call goes to our function, which asks
//! [`peer`]. If another thread disconnects the socket in between, the record is gone and the answer
//! is ENOTCONN, as it may be when two threads race for the socket's lock. A record that is still
//! there is the same: a socket never gets a second one.

use crate::{
    endpoint::Endpoint,
    peers::{
        self,
        Record, //
    },
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
    #[cfg_attr(not(CONFIG_IPV6), allow(dead_code))]
    V6,
}

/// Decides whether a question for the peer of `sk` is to be answered with a client. Any context.
#[inline(always)]
pub(crate) fn substitutes(sk: &Sock, form: Form) -> bool {
    // UDP and raw sockets come here as well, and have no records.
    sk.is_tcp() && has_client(sk, form)
}

fn has_client(sk: &Sock, form: Form) -> bool {
    let rcu = rcu::read_lock();
    let reason = match peers::find(sk, &rcu) {
        None => Counter::GetnameToaEmpty,
        Some(record) => match refuse(record, sk, form) {
            None => return true,
            Some(reason) => reason,
        },
    };
    if let Some(net) = sk.net() {
        net.stats(&rcu).count(reason);
    }
    false
}

/// Says why a record must not be used, if so.
fn refuse(record: &Record, sk: &Sock, form: Form) -> Option<Counter> {
    if record.connection != sk.connection() {
        return Some(Counter::GetnameToaMismatch);
    }
    if form == Form::V4 && record.client.address_v4().is_none() {
        return Some(Counter::GetnameToaBypass);
    }
    // nfsd, dlm, ksmbd and their like authorize and tell nodes apart by the address.
    if task::is_kernel_thread() {
        return Some(Counter::GetnameToaBypass);
    }
    None
}

/// Answers a question for the peer of `sk`, after [`substitutes`] said yes. `strict` is the
/// question of getpeername, which has no answer for a connection that is over. Process context;
/// does not sleep.
///
/// # Errors
///
/// `ENOTCONN`, under the conditions of `inet_getname`, and if the record is gone: then another
/// thread has disconnected the socket since [`substitutes`], so it had no peer during this call. Its
/// fields are no answer: without the socket's lock they are read one by one.
pub(crate) fn peer(sk: &Sock, strict: bool) -> Result<Endpoint> {
    let not_connected = Error::from_errno(-(kernel::bindings::ENOTCONN as c_int));
    if !sk.has_peer(strict) {
        return Err(not_connected);
    }
    let rcu = rcu::read_lock();
    let record = peers::find(sk, &rcu).ok_or(not_connected)?;
    if let Some(net) = sk.net() {
        net.stats(&rcu).count(Counter::GetnameToaOk);
    }
    Ok(record.client)
}
