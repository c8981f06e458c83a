// SPDX-License-Identifier: GPL-2.0

//! Generic CPU definitions.
//!
//! C header: [`include/linux/cpu.h`](srctree/include/linux/cpu.h)

use crate::bindings;

/// Returns the maximum number of possible CPUs in the current system configuration.
#[inline]
pub fn nr_cpu_ids() -> u32 {
    if bindings::TOA_FORCE_NR_CPUS != 0 {
        return bindings::TOA_NR_CPUS as u32;
    }
    // SAFETY: A variable of the kernel that is constant after boot.
    unsafe { bindings::nr_cpu_ids }
}

/// The CPU ID.
///
/// # Invariants
///
/// The CPU ID lies within the range `[0, nr_cpu_ids())`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct CpuId(u32);

impl CpuId {
    /// Returns CPU number.
    #[inline]
    pub fn as_u32(&self) -> u32 {
        self.0
    }

    /// Returns the ID of the CPU the code is currently running on.
    ///
    /// The returned value is considered unstable because it may change unexpectedly due to
    /// preemption or CPU migration.
    #[inline]
    pub fn current() -> Self {
        // INVARIANT: The number of the CPU that runs this, C's `raw_smp_processor_id()`.
        Self(bindings::raw_smp_processor_id())
    }
}
