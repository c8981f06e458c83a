// SPDX-License-Identifier: GPL-2.0

//! Formatting utilities.

pub use core::fmt::{
    Arguments,
    Debug,
    Display,
    Error,
    Formatter,
    Result,
    Write, //
};
