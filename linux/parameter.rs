// SPDX-License-Identifier: GPL-2.0

//! Module parameters, the same on each kernel.

use core::borrow::Borrow;

/// A parameter's value, which the kernel crate returns by reference (7.2) or by value (7.3).
pub(crate) fn parameter<T: Copy>(value: impl Borrow<T>) -> T {
    *value.borrow()
}
