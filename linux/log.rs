// SPDX-License-Identifier: GPL-2.0

//! Kernel log lines that begin with the crate's `LOG_PREFIX`, a NUL-terminated string.
//!
//! The kernel crate's `pr_*!` would put the module's name in front instead.

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
