// SPDX-License-Identifier: GPL-2.0

//! A spinlock that really spins, also on PREEMPT_RT, taken with interrupts off.
//!
//! `kernel::sync::SpinLock` becomes a sleeping lock on PREEMPT_RT and cannot be taken in an ftrace
//! handler or a tracepoint probe: these may run with preemption off, and RCU-tasks does not wait at
//! unload for a task that is blocked on it. Sections under this lock must
//! be short and must neither allocate nor free: on PREEMPT_RT the allocator's own locks sleep.
//!
//! C header: [`include/linux/spinlock.h`](srctree/include/linux/spinlock.h)

use crate::linux::c;
use core::marker::PhantomData;
use kernel::{
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

/// A class of locks, for lockdep: locks of one class are never held together. Its address is its
/// identity, so it is a static.
pub(crate) struct LockClass {
    #[cfg(CONFIG_DEBUG_SPINLOCK)]
    name: &'static CStr,
    #[cfg(CONFIG_DEBUG_SPINLOCK)]
    key: Opaque<c::lock_class_key>,
}

// SAFETY: Only lockdep accesses the key, under its own lock.
unsafe impl Sync for LockClass {}

impl LockClass {
    /// A class that no lock has yet. `name` appears in lockdep's reports.
    #[cfg_attr(not(CONFIG_DEBUG_SPINLOCK), allow(unused_variables))]
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self {
            #[cfg(CONFIG_DEBUG_SPINLOCK)]
            name,
            #[cfg(CONFIG_DEBUG_SPINLOCK)]
            key: Opaque::new(c::lock_class_key::UNUSED),
        }
    }
}

/// Locks of one class, in memory that they own.
pub(crate) struct RawSpinLocks(KVVec<RawSpinLock>);

impl RawSpinLocks {
    /// Allocates unlocked locks of `class`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[cfg_attr(not(CONFIG_DEBUG_SPINLOCK), allow(unused_variables))]
    pub(crate) fn new(count: usize, class: &'static LockClass) -> Result<Self> {
        let mut locks = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            // INVARIANT: `UNLOCKED` is C's initialiser. Where the kernel checks locks, `introduce`
            // follows before anything takes the lock.
            let raw = Opaque::new(c::raw_spinlock_t::UNLOCKED);
            locks.push(RawSpinLock { raw }, GFP_KERNEL)?;
        }
        #[cfg(CONFIG_DEBUG_SPINLOCK)]
        locks
            .iter()
            .for_each(|lock: &RawSpinLock| lock.introduce(class));
        Ok(Self(locks))
    }

    /// The number of locks.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&RawSpinLock> {
        self.0.get(index)
    }
}

/// A `raw_spinlock_t`.
///
/// # Invariants
///
/// `raw` is an initialised lock. Where the kernel checks locks, it stays where it is.
pub(crate) struct RawSpinLock {
    raw: Opaque<c::raw_spinlock_t>,
}

// SAFETY: A raw spinlock may be taken and released on any CPU; that is its purpose.
unsafe impl Send for RawSpinLock {}

// SAFETY: As above: the lock serialises the threads that share it.
unsafe impl Sync for RawSpinLock {}

impl RawSpinLock {
    /// Gives the lock its class, once it lies where it stays.
    #[cfg(CONFIG_DEBUG_SPINLOCK)]
    fn introduce(&self, class: &'static LockClass) {
        // SAFETY: No task has the lock yet, and it lies in the vector's memory, which no later call
        // moves. The name and the key are static; lockdep forgets both when the module goes.
        unsafe {
            c::__raw_spin_lock_init(
                self.raw.get(),
                class.name.as_ptr().cast(),
                class.key.get(),
                c::TOA_LD_WAIT_SPIN as kernel::ffi::c_short,
            )
        };
    }

    /// Takes the lock with interrupts off, in any context but NMI.
    pub(crate) fn lock(&self) -> Guard<'_> {
        // SAFETY: By the type invariant, `raw` is an initialised lock.
        let flags = unsafe { c::_raw_spin_lock_irqsave(self.raw.get()) };
        Guard {
            lock: self,
            flags,
            #[cfg(toa_time_locks)]
            since: timing::now(),
            _not_send: PhantomData,
        }
    }
}

/// Releases the lock, and puts the interrupt flag back, when dropped.
///
/// # Invariants
///
/// The lock is held by this CPU since `flags` was returned for it.
#[must_use]
pub(crate) struct Guard<'a> {
    lock: &'a RawSpinLock,
    flags: kernel::ffi::c_ulong,
    #[cfg(toa_time_locks)]
    since: u64,
    _not_send: PhantomData<NotThreadSafe>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        #[cfg(toa_time_locks)]
        timing::end(self.since);
        // SAFETY: By the type invariant, the lock is held and `flags` are those it was taken with.
        unsafe { c::_raw_spin_unlock_irqrestore(self.lock.raw.get(), self.flags) };
    }
}

/// The longest section under any of these locks, for `make bench` (`TOA_TIME_LOCKS=1`).
#[cfg(toa_time_locks)]
pub(crate) mod timing {
    use crate::linux::c;
    use kernel::sync::atomic::{
        Atomic,
        Relaxed, //
    };

    static LONGEST: Atomic<u64> = Atomic::new(0);

    /// The monotonic clock, in nanoseconds.
    pub(super) fn now() -> u64 {
        // SAFETY: An FFI call without requirements: any context may call it.
        unsafe { c::ktime_get_mono_fast_ns() }
    }

    /// Counts a section that began at `since`. Two processors that end their longest sections at the
    /// same time may lose one: the benchmark's machine has one processor.
    pub(super) fn end(since: u64) {
        let passed = now().saturating_sub(since);
        if passed > LONGEST.load(Relaxed) {
            LONGEST.store(passed, Relaxed);
        }
    }

    /// Returns the longest section, in nanoseconds, one reading of the clock included.
    pub(crate) fn longest() -> u64 {
        LONGEST.load(Relaxed)
    }
}
