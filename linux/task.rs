// SPDX-License-Identifier: GPL-2.0

//! The current task.
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use crate::linux::c;
use core::ptr;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::task::Task;

/// Whether the current task is a kernel thread, such as those of nfsd, dlm or ksmbd. The workers
/// of io_uring are not: they act for a process.
pub(crate) fn is_kernel_thread() -> bool {
    let task = Task::current_raw();
    // SAFETY: The current task exists as long as it runs. PF_KTHREAD never changes after the task
    // was made, so reading it beside a write of another flag gives the right bit.
    let flags = unsafe { (&raw const (*task).flags).read_volatile() };
    flags & c::TOA_PF_KTHREAD as u32 != 0
}

/// The network namespace of the current task, or null while the task ends. It stays as long as the
/// task is in it.
pub(crate) fn current_net() -> *mut c::net {
    let task: *const c_void = Task::current_raw().cast_const().cast();
    // SAFETY: The current task exists as long as it runs, and only the task itself changes its
    // `nsproxy`.
    unsafe {
        let nsproxy = task
            .byte_add(c::TOA_TASK_NSPROXY)
            .cast::<*const c_void>()
            .read();
        if nsproxy.is_null() {
            return ptr::null_mut();
        }
        nsproxy
            .byte_add(c::TOA_NSPROXY_NET_NS)
            .cast::<*mut c::net>()
            .read()
    }
}

/// The number of the current process.
pub(crate) fn current_process() -> i32 {
    let task: *const c_void = Task::current_raw().cast_const().cast();
    // SAFETY: The current task exists as long as it runs. Its number never changes.
    unsafe { task.byte_add(c::TOA_TASK_TGID).cast::<i32>().read() }
}

/// Lets other tasks run. Process context that may sleep: no lock of a spinning kind, and no RCU section.
pub(crate) fn yield_processor() {
    // SAFETY: By the function's contract. The task is running, so the call returns when the task is
    // scheduled again.
    unsafe { c::schedule() };
}

/// Whether the current task has CAP_NET_ADMIN in the initial user namespace.
pub(crate) fn may_administer_the_host() -> bool {
    // SAFETY: The initial user namespace lives for ever.
    unsafe { c::ns_capable(&raw mut c::init_user_ns, c::TOA_CAP_NET_ADMIN as c_int) }
}
