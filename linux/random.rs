// SPDX-License-Identifier: GPL-2.0

//! Random numbers for secrets.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use crate::linux::c;

/// Returns an array of random words. Any context.
pub(crate) fn words<const N: usize>() -> [u64; N] {
    // SAFETY: An FFI call without requirements.
    [(); N].map(|()| unsafe { c::get_random_u64() })
}
