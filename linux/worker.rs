// SPDX-License-Identifier: GPL-2.0

//! A function that runs in a kernel worker some time after it was asked for.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::linux::c;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The function that a [`Worker`] runs.
pub(crate) trait Work: Send + Sync + 'static {
    /// Process context that may sleep. Never runs twice at the same time.
    fn work(&self);
}

/// A value with its worker. Dropping it waits for the worker.
///
/// # Invariants
///
/// `shared` came from a box, and stays where it is until the drop. Its `item` is initialised.
pub(crate) struct Worker<T: Work> {
    shared: KBox<Shared<T>>,
}

/// The value and C's side of it. `item` comes first: C passes its address on.
#[repr(C)]
struct Shared<T> {
    item: Opaque<c::work_struct>,
    value: T,
}

// SAFETY: C's functions for work items may be called on any CPU, at the same time. `T` is `Send`.
unsafe impl<T: Send> Send for Shared<T> {}

// SAFETY: As above, and `T` is `Sync`.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T: Work> Worker<T> {
    /// Makes a worker that has nothing to do. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: the value is dropped then.
    pub(crate) fn new(value: T) -> Result<Self> {
        let shared = KBox::new(
            Shared {
                item: Opaque::uninit(),
                value,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The box is ours, and its content stays in its place until `drop`.
        unsafe { c::work_struct::init(shared.item.get(), run::<T>) };
        // INVARIANT: Just initialised.
        Ok(Self { shared })
    }

    /// The value.
    #[inline(always)]
    pub(crate) fn get(&self) -> &T {
        &self.shared.value
    }

    /// Asks for a run that begins after this call. Softirq or process context, preemption on or off, on
    /// PREEMPT_RT too: the workqueue's own locks are raw spinlocks.
    #[cold]
    pub(crate) fn wake(&self) {
        // SAFETY: By the type invariant the item is initialised. The queue is one of the kernel's.
        unsafe {
            let queue = if c::TOA_HAS_SYSTEM_DFL_WQ != 0 {
                c::system_dfl_wq
            } else {
                c::system_unbound_wq
            };
            c::queue_work_on(
                c::TOA_WORK_CPU_UNBOUND as c_int,
                queue,
                self.shared.item.get(),
            );
        }
    }
}

impl<T: Work> Drop for Worker<T> {
    /// Waits for a run, and cancels one that has not begun. May sleep.
    fn drop(&mut self) {
        // SAFETY: By the type invariant. `&mut self`: nothing else asks for a run.
        unsafe { c::cancel_work_sync(self.shared.item.get()) };
    }
}

/// Runs the value's function.
///
/// # Safety
///
/// `item` must be that of a [`Worker`] of `T`, which is not dropped before this returns.
unsafe extern "C" fn run<T: Work>(item: *mut c::work_struct) {
    // SAFETY: The item is the first field of a `Shared`, which lives by the function's safety
    // requirements. Only shared references to it exist.
    let shared = unsafe { &*item.cast::<Shared<T>>() };
    shared.value.work();
}
