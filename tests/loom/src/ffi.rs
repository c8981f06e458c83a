// SPDX-License-Identifier: GPL-2.0

//! C's types.

pub(crate) use core::ffi::c_ulong;
pub(crate) use core::ffi::c_void;
