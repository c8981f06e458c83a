// SPDX-License-Identifier: GPL-2.0

//! The kernel's calls, and the file that handles each of them.

use crate::{
    capture,
    endpoint::Endpoint,
    linux::callbacks::{
        Callbacks,
        Form, //
    },
    linux::sock::Segment,
    lookup,
    namespace::{
        Namespace,
        Sock, //
    },
    records,
    substitute, //
};
use core::ops::RangeInclusive;
use kernel::ffi::c_int;
use kernel::prelude::*;

/// toa's handlers.
pub(crate) struct Hooks;

impl Callbacks for Hooks {
    type PerNet = Namespace;
    type Answer = lookup::Answer;

    const OPTIONS: RangeInclusive<c_int> = lookup::OPTIONS;

    #[inline(always)]
    fn child_created(child: &Sock, segment: &Segment) {
        capture::capture(child, segment);
    }

    /// The socket may connect to the same address again, so its record must go.
    #[inline(always)]
    fn disconnected(sk: &Sock) {
        records::forget(sk);
    }

    #[inline(always)]
    fn destroyed(sk: &Sock) {
        records::forget(sk);
    }

    #[inline(always)]
    fn peer(sk: &Sock, form: Form, strict: bool) -> Option<Endpoint> {
        substitute::peer(sk, form, strict)
    }

    #[inline(always)]
    fn getsockopt(sk: &Sock, option: c_int, room: usize) -> Result<lookup::Answer> {
        lookup::answer(sk, option, room)
    }
}
