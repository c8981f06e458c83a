// SPDX-License-Identifier: GPL-2.0

//! Kernel log lines that begin with `TOA: `, as operators of this kind of module look for them.
//!
//! The kernel crate's `pr_*!` would put the module's name in front instead.

/// Prints `TOA: ` and a line at the level named by a constant of `kernel::print::format_strings`.
/// Any context. Like `pr_info!`, the line must end in `\n`.
macro_rules! log {
    ($level:ident, $($arg:tt)+) => {
        match kernel::prelude::fmt!($($arg)+) {
            // SAFETY: The format string is one of the kernel crate's own, which take the prefix, a
            // NUL-terminated string, and `fmt::Arguments`.
            args => unsafe {
                kernel::print::call_printk(&kernel::print::format_strings::$level, b"TOA\0", args)
            }
        }
    };
}

pub(crate) use log;

/// Says goodbye when dropped. Last field of the module: by then everything else is gone.
pub(crate) struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        log!(INFO, "toa unloaded\n");
    }
}
