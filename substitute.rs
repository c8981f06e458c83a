// SPDX-License-Identifier: GPL-2.0

//! From a question for a socket's peer to the client in the socket's record.
//!
//! The handler at the entry of the kernel's function decides and answers at once, with what one
//! look-up finds. All other questions are the kernel's, ENOTCONN too.

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
use kernel::sync::rcu;

/// Returns the client behind `sk`, a TCP socket, or `None` if the kernel is to answer. `strict` is the
/// question of getpeername, which has no answer for a connection that is over. Any context.
///
/// The socket's fields are read one by one, without the socket's lock. If another thread disconnects
/// the socket during the call, the answer is that from before, or the kernel's.
#[inline(always)]
pub(crate) fn peer(sk: &Sock, form: Form, strict: bool) -> Option<Endpoint> {
    let rcu = rcu::read_lock();
    let (client, counter) = match records::find(sk, &rcu) {
        None => (None, Counter::GetnameToaEmpty),
        Some(record) => match refuse(record, sk, form) {
            Some(reason) => (None, reason),
            None if !sk.has_peer(strict) => return None,
            None => (Some(record.client), Counter::GetnameToaOk),
        },
    };
    if let Some(net) = sk.net() {
        net.data(&rcu).stats.inc(counter);
    }
    client
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
