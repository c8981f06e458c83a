// SPDX-License-Identifier: GPL-2.0

//! The C functions that the module's files call, by loom's primitives.
//!
//! Names, signatures and contracts are those of the module's `linux/c.rs`.

#![allow(non_camel_case_types)]

use crate::lock;
use crate::memory;
use crate::model;
use crate::sync::rcu;
use kernel::ffi::c_ulong;
use kernel::ffi::c_void;
use loom::sync::atomic::fence;
use loom::sync::atomic::Ordering;

/// Whether `kvfree_call_rcu` takes the head's offset, as on some kernels.
pub(crate) const TOA_KVFREE_TAKES_OFFSET: usize = 0;

/// `include/linux/types.h`
#[repr(C)]
pub(crate) struct callback_head([usize; 2]);

/// `include/linux/spinlock_types_raw.h`: a name, by its address, for a lock of the execution.
#[derive(Clone, Copy)]
pub(crate) struct raw_spinlock_t {
    _place: u32,
}

impl raw_spinlock_t {
    pub(crate) const UNLOCKED: Self = Self { _place: 0 };
}

/// `include/linux/semaphore.h`: a name too.
pub(crate) struct semaphore {
    _place: u32,
}

impl semaphore {
    /// Initialises a semaphore that one task may hold.
    pub(crate) unsafe fn unlocked(place: *mut Self) {
        // SAFETY: The module's function asks for a valid place.
        unsafe { place.write(Self { _place: 0 }) };
    }
}

/// Takes a spinlock.
pub(crate) unsafe fn _raw_spin_lock_irqsave(lock: *mut raw_spinlock_t) -> c_ulong {
    if !model::lacks(model::Need::SpinLocks) {
        lock::at(lock.addr()).lock();
    }
    0
}

/// Releases a spinlock.
pub(crate) unsafe fn _raw_spin_unlock_irqrestore(lock: *mut raw_spinlock_t, _flags: c_ulong) {
    if !model::lacks(model::Need::SpinLocks) {
        lock::at(lock.addr()).unlock();
    }
}

/// Takes a semaphore that one task may hold.
pub(crate) unsafe fn down(semaphore: *mut semaphore) {
    lock::at(semaphore.addr()).lock();
}

/// Releases a semaphore.
pub(crate) unsafe fn up(semaphore: *mut semaphore) {
    lock::at(semaphore.addr()).unlock();
}

/// Waits for a grace period.
pub(crate) unsafe fn synchronize_rcu() {
    rcu::grace_period();
}

/// Frees memory a grace period after the call, which does not wait.
///
/// The fence stands for the control dependency of the caller: a free that depends on a load comes
/// after the load. C11 and loom have no such rule.
pub(crate) unsafe fn kvfree_call_rcu(_head: *mut callback_head, object: *mut c_void) {
    fence(Ordering::Acquire);
    model::later(move || {
        rcu::grace_period();
        memory::free(object.cast());
    });
}
