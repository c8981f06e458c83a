// SPDX-License-Identifier: GPL-2.0

//! How much memory the machine has.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::linux::c;
use core::sync::atomic::{
    AtomicI64,
    Ordering, //
};

/// The memory that the kernel manages, in bytes: C's `totalram_pages()`.
pub(crate) fn total_bytes() -> u64 {
    // SAFETY: `_totalram_pages` is an `atomic_long_t`, one aligned 64-bit integer that lives for
    // ever, and C changes it with atomic operations only.
    let pages = unsafe { AtomicI64::from_ptr((&raw mut c::_totalram_pages).cast()) }
        .load(Ordering::Relaxed);
    u64::try_from(pages).unwrap_or(0) << c::TOA_PAGE_SHIFT
}
