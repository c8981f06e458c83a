// SPDX-License-Identifier: GPL-2.0

//! Kernel threads.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use crate::linux::c;
use core::ptr::NonNull;
use kernel::error::from_err_ptr;
use kernel::ffi::{
    c_char,
    c_int,
    c_void, //
};
use kernel::prelude::*;

/// `struct task_struct`.
#[allow(non_camel_case_types)]
#[repr(C)]
struct task_struct {
    _opaque: [u8; 0],
}

// Asserted in tests/kernel/offsets.c.
extern "C" {
    fn kthread_create_on_node(
        threadfn: unsafe extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
        node: c_int,
        namefmt: *const c_char,
        ...
    ) -> *mut task_struct;
    fn wake_up_process(tsk: *mut task_struct) -> c_int;
    fn kthread_stop(k: *mut task_struct) -> c_int;
    fn kthread_should_stop() -> bool;
}

/// A thread, which is stopped and waited for on drop.
///
/// # Invariants
///
/// The thread's function ends only when the thread is stopped, and this alone stops it.
pub(crate) struct Thread(NonNull<task_struct>);

// SAFETY: Any task may stop a thread.
unsafe impl Send for Thread {}

// SAFETY: Shared references do nothing.
unsafe impl Sync for Thread {}

impl Thread {
    /// Starts a thread that calls `function` with `data`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `data` must be what `function` takes until the thread is dropped, and the function must return
    /// only after [`should_stop`] has returned true.
    pub(crate) unsafe fn start(
        function: unsafe extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
    ) -> Result<Self> {
        // SAFETY: By the function's safety requirements. The name holds no format directive.
        let task = unsafe {
            from_err_ptr(kthread_create_on_node(
                function,
                data,
                c::TOA_NUMA_NO_NODE as c_int,
                c"toa_test".as_char_ptr(),
            ))?
        };
        // SAFETY: The thread is new, and woken once.
        unsafe { wake_up_process(task) };
        // INVARIANT: By the function's safety requirements.
        NonNull::new(task).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the thread is there. The call waits until it has ended.
        unsafe { kthread_stop(self.0.as_ptr()) };
    }
}

/// Whether the calling thread, which is a [`Thread`], is to end.
pub(crate) fn should_stop() -> bool {
    // SAFETY: The caller is a kernel thread.
    unsafe { kthread_should_stop() }
}
