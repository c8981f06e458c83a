// SPDX-License-Identifier: GPL-2.0

//! Integers that hooks read.
//!
//! The kernel crate's atomic loads are calls of C helpers. Hooks read several of these integers for
//! each connection, so these load as C does.
//!
//! C header: `include/asm-generic/rwonce.h`

use core::cell::UnsafeCell;

/// An integer of the machine's word or smaller.
pub(crate) trait Integer: Copy {}

impl Integer for u32 {}

impl Integer for i64 {}

/// An integer that any task may read and write at any time. Nothing else is ordered by it.
///
/// # Invariants
///
/// All accesses are volatile, of the whole integer.
pub(crate) struct ReadOnce<T>(UnsafeCell<T>);

// SAFETY: By the type invariant accesses are C's marked ones, which may race with each other.
unsafe impl<T: Integer> Sync for ReadOnce<T> {}

impl<T: Integer> ReadOnce<T> {
    /// An integer at first.
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Reads the integer: C's `READ_ONCE`.
    #[inline(always)]
    pub(crate) fn load(&self) -> T {
        // SAFETY: The pointer is valid and aligned. The stores below are marked too.
        unsafe { self.0.get().read_volatile() }
    }

    /// Writes the integer: C's `WRITE_ONCE`.
    pub(crate) fn store(&self, value: T) {
        // SAFETY: As above.
        unsafe { self.0.get().write_volatile(value) };
    }
}
