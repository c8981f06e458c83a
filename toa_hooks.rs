// SPDX-License-Identifier: GPL-2.0

//! The kernel's calls, and the file that handles each of them.

use crate::{
    capture,
    endpoint::Endpoint,
    linux::{
        callbacks::{
            Callbacks,
            Form,
            Unsure, //
        },
        rcu,
        rcu_static::RcuStatic,
        sock::Segment, //
    },
    lookup,
    namespace::{
        Namespace,
        Sock, //
    },
    records::{
        Records,
        RECORDS, //
    },
    substitute, //
};
use core::ops::RangeInclusive;
use kernel::ffi::c_int;
use kernel::prelude::*;

/// toa's handlers.
pub(crate) struct Hooks;

impl Callbacks for Hooks {
    type PerNet = Namespace;
    type State = Records;
    type Answer = lookup::Answer;

    const OPTIONS: RangeInclusive<c_int> = lookup::OPTIONS;

    #[inline(always)]
    fn state() -> &'static RcuStatic<Records> {
        &RECORDS
    }

    #[inline(always)]
    fn child_created(records: &Records, child: &Sock, segment: &Segment) {
        capture::capture(records, child, segment);
    }

    /// The socket may connect to the same address again, so its record must go.
    #[inline(always)]
    fn disconnected(records: &Records, sk: &Sock) {
        records.forget(sk);
    }

    #[inline(always)]
    fn destroyed(records: &Records, sk: &Sock) {
        records.forget(sk);
    }

    fn unwatch(records: &Records) {
        records.unwatch();
    }

    #[inline(always)]
    fn may_have_peer(records: &Records, sk: &Sock) -> bool {
        substitute::may_have_peer(records, sk)
    }

    #[inline(always)]
    fn peer_at_once(
        records: &Records,
        sk: &Sock,
        form: Form,
        strict: impl FnOnce() -> bool,
        rcu: &rcu::Guard,
    ) -> Result<Option<Endpoint>, Unsure> {
        substitute::peer_at_once(records, sk, form, strict, rcu)
    }

    #[inline(always)]
    fn answered(sk: &Sock, with_peer: bool) {
        substitute::answered(sk, with_peer);
    }

    fn peer(records: &Records, sk: &Sock, form: Form, strict: bool) -> Option<Endpoint> {
        substitute::peer(records, sk, form, strict)
    }

    #[inline(always)]
    fn getsockopt(
        records: &Records,
        sk: &Sock,
        option: c_int,
        room: usize,
    ) -> Result<lookup::Answer> {
        lookup::answer(records, sk, option, room)
    }
}
