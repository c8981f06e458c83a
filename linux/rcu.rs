// SPDX-License-Identifier: GPL-2.0

//! RCU read-side sections.
//!
//! The kernel crate begins and ends a section by calls of C helpers, which call the functions that do it.
//! Hooks do so for each packet and system call, so they call these functions themselves.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use crate::linux::c;
use kernel::sync::rcu;
use kernel::types::NotThreadSafe;

/// Evidence of a read-side section, which lasts as long.
///
/// # Invariants
///
/// The section was begun on this task and has not ended: by the crate's guard, or where there is none by
/// `__rcu_read_lock`.
pub(crate) struct Guard(Option<rcu::Guard>, NotThreadSafe);

/// Begins a section. Any context.
#[inline(always)]
pub(crate) fn read_lock() -> Guard {
    // Where lockdep watches RCU, and where a section is only a stretch of code without preemption, C does
    // more, inline.
    let section = if c::TOA_HAS_RCU_READ_LOCK != 0 {
        // SAFETY: An FFI call without requirements.
        unsafe { c::__rcu_read_lock() };
        None
    } else {
        Some(rcu::read_lock())
    };
    // INVARIANT: Just begun.
    Guard(section, NotThreadSafe)
}

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.is_none() {
            // SAFETY: By the type invariant.
            unsafe { c::__rcu_read_unlock() };
        }
    }
}
