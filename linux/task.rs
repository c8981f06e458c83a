// SPDX-License-Identifier: GPL-2.0

//! The current task.
//!
//! C header: [`include/linux/sched.h`](srctree/include/linux/sched.h)

use crate::linux::c;
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
