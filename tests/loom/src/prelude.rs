// SPDX-License-Identifier: GPL-2.0

//! The `kernel` prelude.

pub(crate) use crate::alloc::flags::*;
pub(crate) use crate::alloc::KBox;
pub(crate) use crate::alloc::KVVec;
pub(crate) use core::ffi::CStr;

/// A number of `errno.h`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Error(&'static str);

pub(crate) type Result<T = (), E = Error> = core::result::Result<T, E>;

pub(crate) const EINVAL: Error = Error("EINVAL");
pub(crate) const ENOMEM: Error = Error("ENOMEM");
