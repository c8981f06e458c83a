// SPDX-License-Identifier: GPL-2.0

//! Per-CPU memory that holds atomics.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::toa_bindings as bindings;
use core::mem::{
    align_of,
    size_of, //
};
use core::ptr::NonNull;
use kernel::cpu::{
    nr_cpu_ids,
    CpuId, //
};
use kernel::prelude::*;

/// One `T` for each possible CPU, all zeroes at first.
///
/// Shared references only: a task may move to another CPU between asking which CPU it is on and
/// using that CPU's `T`, so `T` must be fit for concurrent use.
///
/// # Invariants
///
/// `base` was returned by `pcpu_alloc_noprof` for a `T` and has not been freed. It is an offset
/// into the per-CPU areas, not an address.
pub(crate) struct PerCpu<T: Zeroable + Sync> {
    base: NonNull<T>,
}

// SAFETY: The memory may be freed on any CPU, and `T` is only handed out by shared reference.
unsafe impl<T: Zeroable + Sync> Send for PerCpu<T> {}

// SAFETY: As above, and `T` is `Sync`.
unsafe impl<T: Zeroable + Sync> Sync for PerCpu<T> {}

impl<T: Zeroable + Sync> PerCpu<T> {
    /// Allocates. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Called in process context (module init, namespace creation), as GFP_KERNEL asks.
        let base = unsafe {
            bindings::pcpu_alloc_noprof(
                size_of::<T>(),
                align_of::<T>(),
                false,
                kernel::bindings::GFP_KERNEL,
            )
        };
        // INVARIANT: The allocation succeeded and is zeroed, which is a valid `T`: it is `Zeroable`.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    /// The `T` of `cpu`.
    pub(crate) fn on(&self, cpu: CpuId) -> &T {
        // SAFETY: A `CpuId` is below `nr_cpu_ids`, the length of the array that C uses; entries
        // are set at boot and never change.
        let offset = unsafe {
            (&raw const bindings::__per_cpu_offset)
                .cast::<usize>()
                .add(cpu.as_u32() as usize)
                .read()
        };
        // SAFETY: base + offset is how C's `per_cpu_ptr` finds this CPU's copy of an allocation.
        // For a CPU that is not possible, the boot-time offset points to the initial per-CPU data,
        // which is why callers get their `CpuId`s from `here` and `possible_cpus`.
        unsafe { &*self.base.as_ptr().wrapping_byte_add(offset) }
    }

    /// The `T` of the CPU that runs this, and the CPU. Any context; the task may move meanwhile.
    pub(crate) fn here(&self) -> (&T, CpuId) {
        let cpu = CpuId::current();
        (self.on(cpu), cpu)
    }
}

impl<T: Zeroable + Sync> Drop for PerCpu<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this frees a live allocation, once.
        unsafe { bindings::free_percpu(self.base.as_ptr().cast()) };
    }
}

/// The CPUs that may ever be online, in order: those that have per-CPU memory.
pub(crate) fn possible_cpus() -> impl Iterator<Item = CpuId> {
    (0..nr_cpu_ids())
        .filter(|&cpu| is_possible(cpu))
        .filter_map(CpuId::from_u32)
}

fn is_possible(cpu: u32) -> bool {
    let word = (cpu / u64::BITS) as usize;
    // SAFETY: `__cpu_possible_mask` has a bit for each CPU number below `nr_cpu_ids`, and is
    // constant after boot.
    let bits = unsafe {
        (&raw const bindings::__cpu_possible_mask)
            .cast::<u64>()
            .add(word)
            .read()
    };
    bits & (1u64 << (cpu % u64::BITS)) != 0
}
