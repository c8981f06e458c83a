// SPDX-License-Identifier: GPL-2.0

//! Kernel log lines that begin with the crate's `LOG_PREFIX`, a NUL-terminated string.
//!
//! The kernel crate's `pr_*!` would put the module's name in front instead.

use crate::linux::c;

/// Returns whether a line may be printed for an event that hosts in the network can cause: C's
/// `net_ratelimit`, which counts the lines of all of networking (`net.core.message_cost` and
/// `message_burst`). Any context: its lock is a `raw_spinlock_t`, which is only tried.
pub(crate) fn net_ratelimit() -> bool {
    // SAFETY: An FFI call with no additional requirements.
    unsafe { c::net_ratelimit() != 0 }
}

/// Prints the prefix, `: ` and a line at the level named by a constant of
/// `kernel::print::format_strings`. Any context. Like `pr_info!`, the line must end in `\n`.
macro_rules! log {
    ($level:ident, $($arg:tt)+) => {
        match kernel::prelude::fmt!($($arg)+) {
            // SAFETY: The format string is one of the kernel crate's own, which take the prefix, a
            // NUL-terminated string, and `fmt::Arguments`.
            args => unsafe {
                kernel::print::call_printk(
                    &kernel::print::format_strings::$level,
                    crate::LOG_PREFIX,
                    args,
                )
            }
        }
    };
}

pub(crate) use log;
