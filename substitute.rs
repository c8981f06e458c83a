// SPDX-License-Identifier: GPL-2.0

//! From a question for a socket's peer to the client in the socket's record.
//!
//! A question comes in two steps. At the entry of the kernel's function, [`substitutes`] decides
//! whether a record answers it. If so, the call goes to our function, which asks [`peer`]. If
//! another thread disconnects the socket in between, the record is gone and the answer is ENOTCONN,
//! as it may be when two threads race for the socket's lock. A record that is still there is the
//! same: a socket never gets a second one.

use crate::{
    endpoint::Endpoint,
    linux::{
        callbacks::Form,
        task, //
    },
    namespace::Sock,
    records::{
        self,
        Record, //
    },
    stats::Counter, //
};
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::sync::rcu;

/// Decides whether a record answers a question for the peer of `sk`, a TCP socket. Any context.
#[inline(always)]
pub(crate) fn substitutes(sk: &Sock, form: Form) -> bool {
    let rcu = rcu::read_lock();
    let reason = match records::find(sk, &rcu) {
        None => Counter::GetnameToaEmpty,
        Some(record) => match refuse(record, sk, form) {
            None => return true,
            Some(reason) => reason,
        },
    };
    if let Some(net) = sk.net() {
        net.data(&rcu).stats.inc(reason);
    }
    false
}

/// Returns the reason why a record must not be used, if there is one.
#[inline(always)]
fn refuse(record: &Record, sk: &Sock, form: Form) -> Option<Counter> {
    if record.connection != sk.connection() {
        return Some(Counter::GetnameToaMismatch);
    }
    if form == Form::V4 && record.client.address_v4().is_none() {
        return Some(Counter::GetnameToaBypass);
    }
    // nfsd, dlm, ksmbd and their like authorize and identify nodes by the address.
    if task::is_kernel_thread() {
        return Some(Counter::GetnameToaBypass);
    }
    None
}

/// Answers a question for the peer of `sk`, after [`substitutes`] returned true. `strict` is the
/// question of getpeername, which has no answer for a connection that is over. Process context;
/// does not sleep.
///
/// # Errors
///
/// `ENOTCONN`, under the conditions of `inet_getname`, and if the record is gone: then another
/// thread has disconnected the socket since [`substitutes`], so it had no peer during this call. Its
/// fields are no answer: without the socket's lock they are read one by one.
#[inline(always)]
pub(crate) fn peer(sk: &Sock, strict: bool) -> Result<Endpoint> {
    let not_connected = Error::from_errno(-(kernel::bindings::ENOTCONN as c_int));
    if !sk.has_peer(strict) {
        return Err(not_connected);
    }
    let rcu = rcu::read_lock();
    let record = records::find(sk, &rcu).ok_or(not_connected)?;
    if let Some(net) = sk.net() {
        net.data(&rcu).stats.inc(Counter::GetnameToaOk);
    }
    Ok(record.client)
}
