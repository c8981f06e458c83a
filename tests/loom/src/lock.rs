// SPDX-License-Identifier: GPL-2.0

//! Locks that C takes and releases by calls.

use core::cell::RefCell;
use loom::sync::Mutex;
use loom::sync::MutexGuard;
use std::collections::HashMap;
use std::rc::Rc;

/// A lock. The field order is that of their ends.
///
/// # Invariants
///
/// `held` is a guard of `mutex`.
#[derive(Default)]
pub(crate) struct Lock {
    held: RefCell<Option<MutexGuard<'static, ()>>>,
    mutex: Mutex<()>,
}

impl Lock {
    pub(crate) fn lock(self: &Rc<Self>) {
        let guard = self.mutex.lock().expect("no holder has panicked");
        // SAFETY: By the type invariant the guard ends before its mutex, which `Rc` keeps in its place.
        let guard =
            unsafe { core::mem::transmute::<MutexGuard<'_, ()>, MutexGuard<'static, ()>>(guard) };
        self.held.replace(Some(guard));
    }

    pub(crate) fn unlock(&self) {
        // The guard's end may switch threads, so the cell is not borrowed then.
        let guard = self.held.take();
        drop(guard);
    }
}

thread_local! {
    /// The locks of the execution, by the address of the C object that stands for each.
    static LOCKS: RefCell<HashMap<usize, Rc<Lock>>> = RefCell::default();
}

/// Returns the lock that the C object at an address stands for.
pub(crate) fn at(address: usize) -> Rc<Lock> {
    LOCKS.with_borrow_mut(|all| Rc::clone(all.entry(address).or_default()))
}

/// Begins an execution without locks.
pub(crate) fn begin() {
    LOCKS.take();
}
