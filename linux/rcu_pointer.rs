// SPDX-License-Identifier: GPL-2.0

//! A pointer that readers follow under RCU.
//!
//! The kernel crate's atomic loads are calls of C helpers. Hooks follow several of these pointers
//! for each packet or system call, so this one loads as C does.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use crate::linux::c;
use core::ptr;
use kernel::ffi::c_void;
use kernel::sync::atomic::{
    Atomic,
    Release, //
};

/// A pointer to what is freed a grace period after it became unreachable, or null.
#[repr(transparent)]
pub(crate) struct RcuPointer<T>(Atomic<*mut T>);

impl<T> RcuPointer<T> {
    /// A null pointer.
    pub(crate) const fn null() -> Self {
        Self(Atomic::new(ptr::null_mut()))
    }

    /// Loads the pointer: C's `rcu_dereference`. The value behind it is seen as it was when the
    /// pointer was stored, by address dependency.
    pub(crate) fn load(&self) -> *mut T {
        // SAFETY: The pointer is valid and aligned. Volatile makes it C's `READ_ONCE`, a marked
        // access that may race with the stores below.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Stores the pointer: C's `rcu_assign_pointer`.
    pub(crate) fn store(&self, pointer: *mut T) {
        self.0.store(pointer, Release);
    }
}

/// Frees memory after a grace period, as C's `kvfree_rcu` does. Any context, also on PREEMPT_RT:
/// there `kvfree_call_rcu` takes raw spinlocks only.
///
/// # Safety
///
/// `object` must be memory that `kvfree` takes and that no new reader finds. At `head`, within the
/// first page, it must have a `struct rcu_head` that no reader looks at.
pub(crate) unsafe fn kvfree_rcu(object: *mut c_void, head: usize) {
    // SAFETY: By the function's safety requirements.
    unsafe {
        c::kvfree_call_rcu(
            object.byte_add(head).cast(),
            if c::TOA_KVFREE_TAKES_OFFSET != 0 {
                ptr::without_provenance_mut(head)
            } else {
                object
            },
        )
    };
}
