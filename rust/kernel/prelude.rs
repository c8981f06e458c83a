// SPDX-License-Identifier: GPL-2.0

//! The `kernel` prelude: the items that most Rust code in the kernel imports.

pub use core::mem::{
    align_of,
    align_of_val,
    size_of,
    size_of_val, //
};

pub use core::pin::Pin;

/// Formatted arguments, as the printing macros take them.
pub use core::format_args as fmt;

pub use crate::{
    alloc::{
        flags::*,
        KBox,
        KVVec,
        KVec, //
    },
    error::{
        code::*,
        Error,
        Result, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_longlong,
        c_schar,
        c_short,
        c_uchar,
        c_uint,
        c_ulong,
        c_ulonglong,
        c_ushort,
        c_void, //
    },
    module,
    str::{
        CStr,
        CStrExt as _, //
    },
    types::Zeroable,
    uaccess::UserPtr,
    ThisModule, //
};
