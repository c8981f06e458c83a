// SPDX-License-Identifier: GPL-2.0

//! A value that hooks can find through a static, under RCU, from the moment it is published until
//! it is withdrawn.
//!
//! Functions that the kernel reaches by address (the answer to `getname`) get no private pointer,
//! so they look here. Withdrawing waits for a grace period, so nobody can hold a reference to the
//! value when it is dropped.

use crate::{
    rcu_pointer::RcuPointer,
    toa_bindings as bindings, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::prelude::*;
use kernel::sync::rcu;

/// A place for one published value.
///
/// # Invariants
///
/// `value` is null or points to a `T` that lives until a grace period after it left here.
pub(crate) struct Published<T> {
    value: RcuPointer<T>,
}

impl<T: Send + Sync> Published<T> {
    /// An empty place.
    pub(crate) const fn empty() -> Self {
        // INVARIANT: The pointer is null.
        Self {
            value: RcuPointer::null(),
        }
    }

    /// Returns the published value, or `None` before it is published and after it is withdrawn.
    pub(crate) fn get<'rcu>(&self, _rcu: &'rcu rcu::Guard) -> Option<&'rcu T> {
        // SAFETY: By the type invariant the value outlives the read-side section that `_rcu`
        // stands for, and no `&mut T` exists: `Publication` hands out none.
        unsafe { self.value.load().as_ref() }
    }

    /// Publishes `value` until the returned [`Publication`] is dropped.
    ///
    /// The place must be empty: toa publishes once, from the module's init.
    pub(crate) fn publish(&'static self, value: KBox<T>) -> Publication<T> {
        let value = NonNull::from(KBox::leak(value));
        // INVARIANT: Only `Publication::drop` frees the value, a grace period after the pointer
        // left this place.
        self.value.store(value.as_ptr());
        Publication { place: self, value }
    }
}

/// Withdraws and drops the value when dropped. Sleeps for an RCU grace period then.
///
/// # Invariants
///
/// `value` came from a `KBox` and is freed by nobody else.
pub(crate) struct Publication<T: Send + Sync + 'static> {
    place: &'static Published<T>,
    value: NonNull<T>,
}

// SAFETY: A `Publication` owns a `T`, which is `Send`.
unsafe impl<T: Send + Sync> Send for Publication<T> {}

// SAFETY: A shared `Publication` gives no access to anything.
unsafe impl<T: Send + Sync> Sync for Publication<T> {}

impl<T: Send + Sync> Drop for Publication<T> {
    fn drop(&mut self) {
        self.place.value.store(ptr::null_mut());
        // SAFETY: Dropped in the module's init or exit, process context that may sleep.
        unsafe { bindings::synchronize_rcu() };
        // SAFETY: By the type invariant the box is ours to free, and after the grace period no
        // reader that loaded the pointer is left.
        drop(unsafe { KBox::from_raw(self.value.as_ptr()) });
    }
}
