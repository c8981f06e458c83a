// SPDX-License-Identifier: GPL-2.0

//! A spinlock that really spins, also on PREEMPT_RT, taken with interrupts off.
//!
//! `kernel::sync::SpinLock` becomes a sleeping lock on PREEMPT_RT and cannot be taken in an ftrace
//! handler or a tracepoint probe: these may run with preemption off, and RCU-tasks does not wait at
//! unload for a task that is blocked on it. Sections under this lock must
//! be short and must neither allocate nor free: on PREEMPT_RT the allocator's own locks sleep.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use crate::linux::c;
use core::marker::PhantomData;
use kernel::types::{
    NotThreadSafe,
    Opaque, //
};

/// A `raw_spinlock_t`.
///
/// # Invariants
///
/// `raw` was initialised by [`RawSpinLock::new`] to an unlocked lock.
pub(crate) struct RawSpinLock {
    raw: Opaque<c::raw_spinlock_t>,
}

// SAFETY: A raw spinlock may be taken and released on any CPU; that is its purpose.
unsafe impl Send for RawSpinLock {}

// SAFETY: As above: the lock serialises the threads that share it.
unsafe impl Sync for RawSpinLock {}

impl RawSpinLock {
    /// Returns an unlocked lock.
    pub(crate) fn new() -> Self {
        // INVARIANT: `__RAW_SPIN_LOCK_UNLOCKED` is all zeroes where neither CONFIG_DEBUG_SPINLOCK
        // nor CONFIG_DEBUG_LOCK_ALLOC adds fields to it, and offsets.c stops the build where
        // they do.
        Self {
            raw: Opaque::new(c::raw_spinlock_t::UNLOCKED),
        }
    }

    /// Takes the lock with interrupts off, in any context but NMI.
    pub(crate) fn lock(&self) -> Guard<'_> {
        // SAFETY: By the type invariant, `raw` is an initialised lock.
        let flags = unsafe { c::_raw_spin_lock_irqsave(self.raw.get()) };
        Guard {
            lock: self,
            flags,
            _not_send: PhantomData,
        }
    }
}

/// Releases the lock, and puts the interrupt flag back, when dropped.
///
/// # Invariants
///
/// The lock is held by this CPU since `flags` was returned for it.
#[must_use]
pub(crate) struct Guard<'a> {
    lock: &'a RawSpinLock,
    flags: kernel::ffi::c_ulong,
    _not_send: PhantomData<NotThreadSafe>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the lock is held and `flags` are those it was taken with.
        unsafe { c::_raw_spin_unlock_irqrestore(self.lock.raw.get(), self.flags) };
    }
}
