// SPDX-License-Identifier: GPL-2.0

//! Limits for log lines that processes can cause.
//!
//! C header: [`include/linux/ratelimit_types.h`](srctree/include/linux/ratelimit_types.h)

use crate::linux::c;
use kernel::types::Opaque;

/// A limit: ten lines in five seconds, the kernel's usual one. The kernel logs how many more there
/// were.
pub(crate) struct RateLimit(Opaque<c::ratelimit_state>);

// SAFETY: C accesses the state under its own lock.
unsafe impl Sync for RateLimit {}

impl RateLimit {
    /// A limit that has not been reached.
    pub(crate) const fn new() -> Self {
        const INTERVAL: i32 = 5 * c::TOA_HZ as i32;
        const BURST: i32 = 10;
        Self(Opaque::new(c::ratelimit_state::new(INTERVAL, BURST)))
    }

    /// Counts a line, and returns whether it may be printed. Any context.
    pub(crate) fn permits(&self) -> bool {
        // SAFETY: The state is initialised, and the name is a C string.
        unsafe { c::___ratelimit(self.0.get(), c"toa".as_ptr().cast()) != 0 }
    }
}
