// SPDX-License-Identifier: GPL-2.0

//! RCU support.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use crate::{
    bindings,
    types::NotThreadSafe, //
};
use core::sync::atomic::{
    compiler_fence,
    Ordering, //
};

/// Evidence that the RCU read side lock is held on the current thread/CPU.
///
/// The type is explicitly not `Send` because this property is per-thread/CPU.
///
/// # Invariants
///
/// The RCU read side lock is actually held while instances of this guard exist.
pub struct Guard(NotThreadSafe);

impl Guard {
    /// Acquires the RCU read side lock and returns a guard.
    #[inline]
    pub fn new() -> Self {
        if bindings::TOA_PREEMPT_RCU != 0 {
            // SAFETY: An FFI call with no additional requirements.
            unsafe { bindings::__rcu_read_lock() };
        } else {
            // The kernel is not preemptible (`offsets.c` stops the build otherwise), so a section
            // is what happens between two calls that sleep. Only the compiler could move code out
            // of it.
            compiler_fence(Ordering::SeqCst);
        }
        // INVARIANT: The RCU read side lock was just acquired above.
        Self(NotThreadSafe)
    }
}

impl Default for Guard {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        if bindings::TOA_PREEMPT_RCU != 0 {
            // SAFETY: By the type invariant, the RCU read side is locked, so it is ok to unlock it.
            unsafe { bindings::__rcu_read_unlock() };
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }
}

/// Acquires the RCU read side lock.
#[inline]
pub fn read_lock() -> Guard {
    Guard::new()
}
