// SPDX-License-Identifier: GPL-2.0

//! The stand-in `kernel` crate: the part of the kernel's own crate that toa uses, for kernels that
//! are built without Rust.
//!
//! Names, signatures and contracts are those of the kernel crate (`rust/kernel/` in the kernel's
//! sources), and each module here has the name of its original there. toa's sources compile against
//! either crate unchanged. This crate is linked into `toa.ko` with `core`: the kernel exports no
//! Rust symbol to it, and the code relies on C interfaces only.
//!
//! Differences between kernels reach this crate as the constants of `offsets.c`, which the kernel's
//! own compiler evaluates.

#![no_std]

pub mod alloc;
pub mod bindings;
pub mod cpu;
pub mod error;
pub mod ffi;
pub mod fmt;
mod module;
pub mod module_param;
pub mod prelude;
pub mod print;
pub mod seq_file;
pub mod str;
pub mod sync;
pub mod task;
pub mod transmute;
pub mod types;
pub mod uaccess;

pub use module::{
    Module,
    ThisModule, //
};

/// Logs a panic, and stops the task as C's `BUG()` does.
///
/// toa contains no call that can panic: the build checks that none is linked.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: The format string is one of `format_strings`, and the prefix ends in NUL.
    unsafe {
        print::call_printk(
            &print::format_strings::EMERG,
            b"rust_kernel\0",
            format_args!("{info}\n"),
        )
    };
    // SAFETY: `ud2` raises an exception that the kernel handles as a bug, and does not return.
    unsafe { core::arch::asm!("ud2", options(noreturn, nostack)) }
}
