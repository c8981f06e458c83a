// SPDX-License-Identifier: GPL-2.0

//! A static that callbacks read under RCU: assigned once the value is ready, cleared before the
//! value is dropped.
//!
//! A function that the kernel reaches by its address alone, such as our getname, gets no private
//! pointer, so it reads a static.

use crate::{
    linux::{
        c,
        rcu,
        rcu_pointer::RcuPointer, //
    }, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::prelude::*;

/// A static for one value.
///
/// # Invariants
///
/// `value` is null or points to a `T` that lives until a grace period after it left here.
pub(crate) struct RcuStatic<T> {
    value: RcuPointer<T>,
}

impl<T: Send + Sync> RcuStatic<T> {
    /// A static without a value.
    pub(crate) const fn empty() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            value: RcuPointer::null(),
        }
    }

    /// Returns the value, or `None` before it is assigned and after it is cleared. Any context.
    #[inline(always)]
    pub(crate) fn get<'rcu>(&self, _rcu: &'rcu rcu::Guard) -> Option<&'rcu T> {
        // SAFETY: By the type invariant the value outlives the read-side section that `_rcu`
        // stands for, and no `&mut T` exists: `Assignment` hands out none.
        unsafe { self.value.load().as_ref() }
    }

    /// Returns the value in code that ends before the [`Assignment`] is dropped, such as a hook.
    ///
    /// # Safety
    ///
    /// The value must be assigned during all of `'a`.
    #[inline(always)]
    pub(crate) unsafe fn get_assigned<'a>(&self) -> &'a T {
        // SAFETY: By the function's safety requirements.
        unsafe { &*self.value.load() }
    }

    /// Assigns `value` until the returned [`Assignment`] is dropped.
    ///
    /// The static must be empty: toa assigns once, from the module's init.
    pub(crate) fn assign(&'static self, value: KBox<T>) -> Assignment<T> {
        let value = NonNull::from(KBox::leak(value));
        // INVARIANT: Only `Assignment::drop` frees the value, a grace period after the pointer
        // left the static.
        self.value.store(value.as_ptr());
        Assignment {
            target: self,
            value,
        }
    }
}

/// An assigned value. Dropping it clears the static, waits for an RCU grace period, and drops the
/// value.
///
/// # Invariants
///
/// `value` came from a `KBox`, and only this frees it.
pub(crate) struct Assignment<T: Send + Sync + 'static> {
    target: &'static RcuStatic<T>,
    value: NonNull<T>,
}

// SAFETY: An `Assignment` owns a `T`, which is `Send`.
unsafe impl<T: Send + Sync> Send for Assignment<T> {}

// SAFETY: A shared `Assignment` gives no access to anything.
unsafe impl<T: Send + Sync> Sync for Assignment<T> {}

impl<T: Send + Sync> Drop for Assignment<T> {
    fn drop(&mut self) {
        self.target.value.store(ptr::null_mut());
        // SAFETY: Dropped in the module's init or exit, process context that may sleep.
        unsafe { c::synchronize_rcu() };
        // SAFETY: By the type invariant the box is ours to free, and after the grace period no
        // reader that loaded the pointer is left.
        drop(unsafe { KBox::from_raw(self.value.as_ptr()) });
    }
}
