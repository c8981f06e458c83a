// SPDX-License-Identifier: GPL-2.0

//! Per-CPU memory that holds atomics.
//!
//! C header: [`include/linux/percpu.h`](srctree/include/linux/percpu.h)

use crate::linux::c;
#[cfg(target_arch = "x86_64")]
use core::arch::asm;
use core::mem::{
    align_of,
    size_of, //
};
use core::ptr::NonNull;
use kernel::cpu::nr_cpu_ids;
use kernel::prelude::*;
#[cfg(not(target_arch = "x86_64"))]
use kernel::sync::atomic::Relaxed;
use kernel::sync::atomic::{
    Acquire,
    Atomic, //
};

/// A CPU that may ever be online, and so has per-CPU memory.
///
/// # Invariants
///
/// The CPU's bit is set in `__cpu_possible_mask`, which is constant after boot.
#[derive(Clone, Copy)]
pub(crate) struct PossibleCpu(u16);

const _: () = assert!(c::TOA_NR_CPUS as u32 <= u16::MAX as u32 + 1);

impl PossibleCpu {
    /// The CPU with a number that [`PossibleCpu::number`] returned, or that of another possible CPU.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        // INVARIANT: The CPU was found in the mask.
        is_possible(number.into()).then_some(Self(number))
    }

    /// The CPU's number.
    pub(crate) fn number(self) -> u16 {
        self.0
    }
}

/// One `T` for each possible CPU, all zeroes at first.
///
/// Shared references only: a task may move to another CPU between asking which CPU it is on and
/// using that CPU's `T`, so `T` must be fit for concurrent use.
///
/// # Invariants
///
/// `base` was returned by C's `__alloc_percpu` for a `T` and has not been freed. It is an offset
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
            if c::TOA_HAS_PCPU_ALLOC_NOPROF != 0 {
                c::pcpu_alloc_noprof(
                    size_of::<T>(),
                    align_of::<T>(),
                    false,
                    kernel::bindings::GFP_KERNEL,
                )
            } else {
                c::__alloc_percpu(size_of::<T>(), align_of::<T>())
            }
        };
        // INVARIANT: The allocation succeeded and is zeroed, which is a valid `T`: it is `Zeroable`.
        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
        })
    }

    /// The `T` of `cpu`.
    pub(crate) fn cpu(&self, cpu: PossibleCpu) -> &T {
        // SAFETY: `__per_cpu_offset` has NR_CPUS entries, and a CPU's number is below that. Entries
        // are set at boot and never change.
        let offset = unsafe {
            (&raw const c::__per_cpu_offset)
                .cast::<usize>()
                .add(cpu.0.into())
                .read()
        };
        // SAFETY: base + offset is how C's `per_cpu_ptr` finds a CPU's copy of an allocation, which
        // exists for each possible CPU, whether it is online or not. By the type invariants `cpu` is
        // possible and the allocation is live, of `T`'s size and alignment.
        unsafe { &*self.base.as_ptr().wrapping_byte_add(offset) }
    }

    /// The `T` of the CPU that runs this, in fewer instructions than by the CPU's number. Any context; the
    /// task may move afterwards, unless interrupts or preemption are off.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn local(&self) -> &T {
        let offset: usize;
        // SAFETY: `gs` is the base of this CPU's area, in which `this_cpu_off` is at its symbol's address: the
        // CPU's entry of `__per_cpu_offset`. The instruction only reads it.
        unsafe {
            asm!(
                "mov {offset}, gs:[rip + {symbol}]",
                offset = lateout(reg) offset,
                symbol = sym c::this_cpu_off,
                options(nostack, preserves_flags, readonly)
            )
        };
        // SAFETY: As in `cpu`: a CPU that runs code is possible.
        unsafe { &*self.base.as_ptr().wrapping_byte_add(offset) }
    }

    /// The `T` of the CPU that runs this. Any context; the task may move afterwards, unless interrupts or
    /// preemption are off.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn local(&self) -> &T {
        // INVARIANT: A CPU that runs code is online, and so possible. CPU numbers are below NR_CPUS, so the
        // cast keeps the number.
        self.cpu(PossibleCpu(kernel::cpu::CpuId::current().as_u32() as u16))
    }
}

impl<T: Zeroable + Sync> Drop for PerCpu<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this frees a live allocation, once.
        unsafe { c::free_percpu(self.base.as_ptr().cast()) };
    }
}

/// Counters that only their own CPU changes, all zeroes at first. They wrap around, as C's do.
pub(crate) struct Counters<const N: usize>([Atomic<u64>; N]);

// SAFETY: Zeroes are valid atomic integers.
unsafe impl<const N: usize> Zeroable for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// The counter at `index`, or 0 if there is none. One that is read later is not older. Any context.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |counter| counter.load(Acquire))
    }
}

impl<const N: usize> PerCpu<Counters<N>> {
    /// Adds one to this CPU's counter at `index`, if there is one: C's `this_cpu_inc`. Any context.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn increment(&self, index: usize) {
        if index >= N {
            return;
        }
        let counters = self.base.as_ptr().cast::<Atomic<u64>>();
        // SAFETY: `gs` is the base of this CPU's area, which has a copy of the allocation. `index` is
        // below N. One instruction, so neither an interrupt nor a move to another CPU comes between
        // its load and its store; no other CPU stores to this copy, and they load it in one piece.
        unsafe {
            asm!(
                "inc qword ptr gs:[{}]",
                in(reg) counters.wrapping_add(index),
                options(nostack)
            )
        };
    }

    /// Adds one to this CPU's counter at `index`, if there is one. Any context.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn increment(&self, index: usize) {
        // Atomic, for a task that moves to another CPU before the addition.
        if let Some(counter) = self.local().0.get(index) {
            counter.add(1, Relaxed);
        }
    }
}

/// The possible CPUs, in order.
pub(crate) fn possible_cpus() -> impl Iterator<Item = PossibleCpu> {
    // INVARIANT: Each CPU was found in the mask; `nr_cpu_ids` is at most NR_CPUS.
    (0..nr_cpu_ids())
        .filter(|&cpu| is_possible(cpu))
        .map(|cpu| PossibleCpu(cpu as u16))
}

fn is_possible(cpu: u32) -> bool {
    if cpu >= nr_cpu_ids() {
        return false;
    }
    let word = (cpu / u64::BITS) as usize;
    // SAFETY: `__cpu_possible_mask` has a bit for each CPU number below `nr_cpu_ids`, and is
    // constant after boot.
    let bits = unsafe {
        (&raw const c::__cpu_possible_mask)
            .cast::<u64>()
            .add(word)
            .read()
    };
    bits & (1u64 << (cpu % u64::BITS)) != 0
}
