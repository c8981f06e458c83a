// SPDX-License-Identifier: GPL-2.0

//! Boxes and vectors in the model's memory.

use crate::memory;
use crate::prelude::Result;
use core::alloc::Layout;
use core::mem;
use core::ops::Deref;
use core::ptr::NonNull;
use core::slice;

/// Flags of allocations, without effect.
pub(crate) mod flags {
    use core::ops::BitOr;

    #[derive(Clone, Copy)]
    pub(crate) struct Flags;

    impl BitOr for Flags {
        type Output = Self;

        fn bitor(self, _: Self) -> Self {
            self
        }
    }

    pub(crate) const GFP_KERNEL: Flags = Flags;
    pub(crate) const GFP_KERNEL_ACCOUNT: Flags = Flags;
}

use flags::Flags;

/// A value in an allocation.
///
/// # Invariants
///
/// The memory is the box's, and has a value.
pub(crate) struct KBox<T>(NonNull<T>);

impl<T> KBox<T> {
    pub(crate) fn new(value: T, _: Flags) -> Result<Self> {
        let place = memory::allocate(Layout::new::<T>()).cast::<T>();
        // SAFETY: The memory is new, and has the type's layout.
        unsafe { place.write(value) };
        // INVARIANT: Just written.
        Ok(Self(place))
    }

    pub(crate) fn leak<'a>(this: Self) -> &'a mut T {
        let mut place = this.0;
        mem::forget(this);
        // SAFETY: By the type invariant.
        unsafe { place.as_mut() }
    }

    /// # Safety
    ///
    /// The pointer must come from [`KBox::leak`], once.
    pub(crate) unsafe fn from_raw(place: *mut T) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self(NonNull::new(place).expect("a box is not null"))
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and nothing uses the value after its box.
        unsafe { self.0.drop_in_place() };
        memory::free(self.0.as_ptr().cast());
    }
}

/// A vector that does not grow.
///
/// # Invariants
///
/// The memory has room for `capacity` values, and has `len`.
pub(crate) struct KVVec<T> {
    first: NonNull<T>,
    len: usize,
    capacity: usize,
}

// SAFETY: The vector owns its values.
unsafe impl<T: Send> Send for KVVec<T> {}

// SAFETY: A shared vector gives shared references only.
unsafe impl<T: Sync> Sync for KVVec<T> {}

impl<T> KVVec<T> {
    pub(crate) fn with_capacity(capacity: usize, _: Flags) -> Result<Self> {
        let layout = Layout::array::<T>(capacity).expect("vectors are small");
        // INVARIANT: Room as asked for, and no value.
        Ok(Self {
            first: memory::allocate(layout).cast(),
            len: 0,
            capacity,
        })
    }

    pub(crate) fn push(&mut self, value: T, _: Flags) -> Result {
        assert!(self.len < self.capacity, "the module's vectors never grow");
        // SAFETY: By the type invariant and the assertion.
        unsafe { self.first.add(self.len).write(value) };
        self.len += 1;
        Ok(())
    }

    pub(crate) fn into_raw_parts(self) -> (*mut T, usize, usize) {
        let parts = (self.first.as_ptr(), self.len, self.capacity);
        mem::forget(self);
        parts
    }
}

impl<T> Deref for KVVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: By the type invariant.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<'a, T> IntoIterator for &'a KVVec<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> Drop for KVVec<T> {
    fn drop(&mut self) {
        let values = core::ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.len);
        // SAFETY: By the type invariant, and nothing uses the values after their vector.
        unsafe { values.drop_in_place() };
        memory::free(self.first.as_ptr().cast());
    }
}
