// SPDX-License-Identifier: GPL-2.0

//! As toa's own `log.rs`, with another name in front, so that the tests know who speaks.

macro_rules! log {
    ($level:ident, $($arg:tt)+) => {
        match kernel::prelude::fmt!($($arg)+) {
            // SAFETY: The format string is one of the kernel crate's own, which take the prefix, a
            // NUL-terminated string, and `fmt::Arguments`.
            args => unsafe {
                kernel::print::call_printk(
                    &kernel::print::format_strings::$level,
                    b"TOA_TEST\0",
                    args,
                )
            }
        }
    };
}

pub(crate) use log;
