// SPDX-License-Identifier: GPL-2.0

//! Tasks (threads and processes).
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use crate::{
    bindings,
    types::Opaque, //
};

/// Wraps the kernel's `struct task_struct`.
#[repr(transparent)]
pub struct Task(Opaque<bindings::task_struct>);

impl Task {
    /// Returns a raw pointer to the current task.
    ///
    /// It is up to the user to use the pointer correctly.
    #[inline]
    pub fn current_raw() -> *mut bindings::task_struct {
        bindings::get_current()
    }
}
