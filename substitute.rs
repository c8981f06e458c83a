// SPDX-License-Identifier: GPL-2.0

//! From a question for a socket's peer to the client in the socket's record.
//!
//! The handler at the entry of the kernel's function decides and answers at once, with what one
//! look-up finds. All other questions are the kernel's, ENOTCONN too.

use crate::{
    endpoint::Endpoint,
    linux::{
        callbacks::{
            Form,
            Unsure, //
        },
        rcu,
        task, //
    },
    namespace::{
        Net,
        Sock, //
    },
    records::{
        Found,
        Records, //
    },
    stats::Counter, //
};

/// Returns false if the kernel is to answer, because `sk`, a TCP socket, has no record. Counts that. Any
/// context.
#[inline(always)]
pub(crate) fn may_have_peer(records: &Records, sk: &Sock) -> bool {
    if records.may_have(sk) {
        return true;
    }
    count(sk, Counter::GetnameToaEmpty);
    false
}

/// Does as [`peer`] in most cases, but for the count, which is [`answered`]'s.
#[inline(always)]
pub(crate) fn peer_at_once(
    records: &Records,
    sk: &Sock,
    form: Form,
    strict: impl FnOnce() -> bool,
    rcu: &rcu::Guard,
) -> Result<Option<Endpoint>, Unsure> {
    if task::is_kernel_thread() {
        return Err(Unsure);
    }
    let Some(client) = records.find_at_once(sk, form, rcu)? else {
        return Ok(None);
    };
    if !fits(client, form) || !sk.has_peer(strict()) {
        return Err(Unsure);
    }
    Ok(Some(client))
}

/// Counts what [`peer_at_once`] returned: a client, or none.
#[inline(always)]
pub(crate) fn answered(sk: &Sock, with_client: bool) {
    count(
        sk,
        if with_client {
            Counter::GetnameToaOk
        } else {
            Counter::GetnameToaEmpty
        },
    );
}

/// Returns the client behind `sk`, a TCP socket, or `None` if the kernel is to answer. `strict` is the
/// question of getpeername, which has no answer for a connection that is over. Any context.
///
/// The socket's fields are read one by one, without the socket's lock. If another thread disconnects
/// the socket during the call, the answer is that from before, or the kernel's.
pub(crate) fn peer(records: &Records, sk: &Sock, form: Form, strict: bool) -> Option<Endpoint> {
    let found = records.find(sk, &rcu::read_lock());
    let (client, counter) = match found {
        None => (None, Counter::GetnameToaEmpty),
        Some(found) => match refuse(&found, form) {
            Some(reason) => (None, reason),
            None if !sk.has_peer(strict) => return None,
            None => (Some(found.client), Counter::GetnameToaOk),
        },
    };
    count(sk, counter);
    client
}

/// Whether an answer has room for the client.
#[inline(always)]
fn fits(client: Endpoint, form: Form) -> bool {
    form != Form::V4 || client.address_v4().is_some()
}

#[inline(always)]
fn count(sk: &Sock, counter: Counter) {
    if let Some(net) = sk.net() {
        match net.data_if_first() {
            Some(namespace) => namespace.stats.inc(counter),
            None => count_elsewhere(net, counter),
        }
    }
}

/// Counts in any namespace. Out of line, so that the first one's code is short.
#[inline(never)]
fn count_elsewhere(net: &Net, counter: Counter) {
    net.data_of_another().stats.inc(counter);
}

/// Returns the reason why a record must not be used, if there is one.
fn refuse(found: &Found, form: Form) -> Option<Counter> {
    if !found.is_current {
        return Some(Counter::GetnameToaMismatch);
    }
    if !fits(found.client, form) {
        return Some(Counter::GetnameToaBypass);
    }
    // nfsd, dlm, ksmbd and their like authorize and identify nodes by the address.
    if task::is_kernel_thread() {
        return Some(Counter::GetnameToaBypass);
    }
    None
}
