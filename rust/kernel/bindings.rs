// SPDX-License-Identifier: GPL-2.0

//! C's declarations, as the kernel crate's `bindings` has them.
//!
//! `offsets.c` asserts each with the kernel's own compiler, and gives the constants. Functions whose
//! symbol has different names in different kernels have the name of C's macro here.

use crate::ffi::{
    c_char,
    c_int,
    c_uint,
    c_ulong,
    c_void, //
};
use core::arch::asm;

#[allow(dead_code)]
#[rustfmt::skip]
mod offsets {
    include!(env!("TOA_KERNEL_OFFSETS"));
}

pub(crate) use offsets::*;

/// Constants of C, with the type that bindgen gives them.
macro_rules! constants {
    ($($name:ident = $value:ident;)+) => {$(
        #[allow(missing_docs)]
        pub const $name: u32 = offsets::$value as u32;
    )+};
}

constants! {
    GFP_KERNEL = TOA_GFP_KERNEL;
    GFP_KERNEL_ACCOUNT = TOA_GFP_KERNEL_ACCOUNT;
    __GFP_NOWARN = TOA_GFP_NOWARN_FLAG;
    __GFP_NORETRY = TOA_GFP_NORETRY_FLAG;
    EPERM = TOA_EPERM;
    ENOENT = TOA_ENOENT;
    E2BIG = TOA_E2BIG;
    ENOMEM = TOA_ENOMEM;
    EFAULT = TOA_EFAULT;
    EBUSY = TOA_EBUSY;
    ENODEV = TOA_ENODEV;
    EINVAL = TOA_EINVAL;
    EDOM = TOA_EDOM;
    ENOPROTOOPT = TOA_ENOPROTOOPT;
    ENOTCONN = TOA_ENOTCONN;
}

/// The largest error number.
pub(crate) const MAX_ERRNO: usize = TOA_MAX_ERRNO;

/// Declares C structures that Rust code only points to.
macro_rules! opaque {
    ($($name:ident),+ $(,)?) => {$(
        #[allow(non_camel_case_types, missing_docs)]
        #[repr(C)]
        pub struct $name {
            _opaque: [u8; 0],
        }
    )+};
}

opaque!(kernel_param_ops, module, seq_file);

/// `include/linux/sched.h`: the part of the structure up to the flags.
#[allow(non_camel_case_types)]
#[repr(C)]
pub struct task_struct {
    _before: [u8; TOA_TASK_FLAGS],
    /// The flags `PF_*`.
    pub flags: c_uint,
}

const _: () = assert!(core::mem::offset_of!(task_struct, flags) == TOA_TASK_FLAGS);

extern "C" {
    fn __kmalloc(size: usize, flags: c_uint) -> *mut c_void;
    fn __kmalloc_noprof(size: usize, flags: c_uint) -> *mut c_void;
    #[link_name = "__vmalloc"]
    fn __vmalloc_plain(size: c_ulong, flags: c_uint) -> *mut c_void;
    fn __vmalloc_noprof(size: c_ulong, flags: c_uint) -> *mut c_void;
    pub(crate) fn kfree(object: *const c_void);
    pub(crate) fn kvfree(address: *const c_void);
    #[link_name = "printk"]
    fn printk_plain(fmt: *const c_char, ...) -> c_int;
    fn _printk(fmt: *const c_char, ...) -> c_int;
    pub(crate) fn __rcu_read_lock();
    pub(crate) fn __rcu_read_unlock();
    pub(crate) fn seq_write(seq: *mut seq_file, data: *const c_void, len: usize) -> c_int;
    pub(crate) fn _copy_to_user(to: *mut c_void, from: *const c_void, n: c_ulong) -> c_ulong;

    pub(crate) static nr_cpu_ids: c_uint;
    pub(crate) static param_ops_uint: kernel_param_ops;
    pub(crate) static param_ops_int: kernel_param_ops;
    /// The `struct module` that modpost puts into each module.
    pub static mut __this_module: module;

    // Variables of each CPU: addresses in its area, not of memory that this code may follow.
    static cpu_number: c_int;
    static current_task: *mut task_struct;
    static pcpu_hot: [u8; 0];
}

/// C's `kmalloc`: since 6.10 the symbol has another name.
///
/// # Safety
///
/// None beyond the context that the flags ask for.
#[inline]
pub(crate) unsafe fn kmalloc(size: usize, flags: c_uint) -> *mut c_void {
    if TOA_ALLOC_NOPROF != 0 {
        // SAFETY: By the function's safety requirements.
        unsafe { __kmalloc_noprof(size, flags) }
    } else {
        // SAFETY: By the function's safety requirements.
        unsafe { __kmalloc(size, flags) }
    }
}

/// C's `__vmalloc`: since 6.10 the symbol has another name.
///
/// # Safety
///
/// The caller must be able to sleep.
#[inline]
pub(crate) unsafe fn __vmalloc(size: c_ulong, flags: c_uint) -> *mut c_void {
    if TOA_ALLOC_NOPROF != 0 {
        // SAFETY: By the function's safety requirements.
        unsafe { __vmalloc_noprof(size, flags) }
    } else {
        // SAFETY: By the function's safety requirements.
        unsafe { __vmalloc_plain(size, flags) }
    }
}

/// C's `printk` with two strings: since 5.15 the symbol has another name.
///
/// # Safety
///
/// All three must be C strings, and the format must take two of them.
#[inline]
pub(crate) unsafe fn printk(format: *const c_char, first: *const c_char, second: *const c_char) {
    if TOA_PRINTK_INDEX != 0 {
        // SAFETY: By the function's safety requirements.
        unsafe { _printk(format, first, second) };
    } else {
        // SAFETY: By the function's safety requirements.
        unsafe { printk_plain(format, first, second) };
    }
}

/// Reads a variable of the CPU that runs this, as C's `this_cpu_read` does: one instruction, so no
/// interrupt or migration comes between finding the CPU's area and reading it.
macro_rules! this_cpu_read {
    ($size:literal, $register:literal, $symbol:ident + $offset:expr) => {{
        let value;
        // SAFETY: `gs` is the base of the CPU's area, in which the variable is at its symbol's
        // address. The instruction only reads it.
        unsafe {
            asm!(
                concat!("mov {value", $register, "}, ", $size, " ptr gs:[rip + {symbol} + {offset}]"),
                value = lateout(reg) value,
                symbol = sym $symbol,
                offset = const $offset,
                options(nostack, preserves_flags, readonly)
            )
        };
        value
    }};
}

/// C's `raw_smp_processor_id()`: from 6.2 to 6.14 the number is a field of `pcpu_hot`.
#[inline(always)]
pub(crate) fn raw_smp_processor_id() -> u32 {
    if TOA_PCPU_HOT != 0 {
        this_cpu_read!("dword", ":e", pcpu_hot + TOA_PCPU_HOT_CPU_NUMBER)
    } else {
        this_cpu_read!("dword", ":e", cpu_number + 0)
    }
}

/// C's `get_current()`: from 6.2 to 6.14 the pointer is a field of `pcpu_hot`.
#[inline(always)]
pub(crate) fn get_current() -> *mut task_struct {
    if TOA_PCPU_HOT != 0 {
        this_cpu_read!("qword", "", pcpu_hot + TOA_PCPU_HOT_CURRENT)
    } else {
        this_cpu_read!("qword", "", current_task + 0)
    }
}
