// SPDX-License-Identifier: GPL-2.0

//! Memory allocation: [`KBox`], [`KVec`] and [`KVVec`].
//!
//! Each allocation takes flags and can fail.
//!
//! C headers: [`include/linux/slab.h`](srctree/include/linux/slab.h),
//! [`include/linux/vmalloc.h`](srctree/include/linux/vmalloc.h)

use crate::bindings;
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::{
        BitOr,
        Deref,
        DerefMut, //
    },
    ptr::{
        self,
        NonNull, //
    },
    slice, //
};

/// Indicates an allocation error.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct AllocError;

/// Flags to be used when allocating memory.
///
/// They can be combined with the operator `|`.
#[derive(Clone, Copy, PartialEq)]
pub struct Flags(u32);

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self::Output {
        Self(self.0 | rhs.0)
    }
}

/// Allocation flags.
pub mod flags {
    use super::Flags;
    use crate::bindings;

    /// Typical for kernel-internal allocations. The caller may sleep.
    pub const GFP_KERNEL: Flags = Flags(bindings::GFP_KERNEL);

    /// [`GFP_KERNEL`], with the allocation accounted to kmemcg.
    pub const GFP_KERNEL_ACCOUNT: Flags = Flags(bindings::GFP_KERNEL_ACCOUNT);
}

/// The kernel's allocators.
///
/// # Safety
///
/// The memory that `alloc` returns must be valid for reads and writes of its size, aligned to
/// `ARCH_KMALLOC_MINALIGN`, and exclusive to the caller until it is passed to `free`.
pub unsafe trait Allocator {
    /// Allocates `size` bytes, or returns null. The flags decide whether it may sleep.
    fn alloc(size: usize, flags: Flags) -> *mut u8;

    /// Frees memory.
    ///
    /// # Safety
    ///
    /// `memory` must be an allocation of this allocator, and nothing may use it afterwards.
    unsafe fn free(memory: *mut u8);
}

/// The contiguous kernel allocator.
pub struct Kmalloc;

// SAFETY: `kmalloc` and `kfree` satisfy the guarantees.
unsafe impl Allocator for Kmalloc {
    #[inline]
    fn alloc(size: usize, flags: Flags) -> *mut u8 {
        // SAFETY: An FFI call with no additional requirements.
        unsafe { bindings::kmalloc(size, flags.0).cast() }
    }

    #[inline]
    unsafe fn free(memory: *mut u8) {
        // SAFETY: By the function's safety requirements.
        unsafe { bindings::kfree(memory.cast()) }
    }
}

/// The kvmalloc kernel allocator: [`Kmalloc`] first, and virtually contiguous memory where that
/// fails.
pub struct KVmalloc;

// SAFETY: `kmalloc`, `vmalloc` and `kvfree`, which frees the memory of both, satisfy the guarantees.
unsafe impl Allocator for KVmalloc {
    /// The steps are those of C's `kvmalloc_node`: an allocation of several pages must not make the
    /// kernel reclaim memory for contiguous ones, nor report a failure, as there is a second way.
    fn alloc(size: usize, flags: Flags) -> *mut u8 {
        let try_only = Flags(bindings::__GFP_NOWARN | bindings::__GFP_NORETRY);
        let is_large = size > bindings::TOA_PAGE_SIZE;
        let memory = Kmalloc::alloc(size, if is_large { flags | try_only } else { flags });
        let sleeps = flags == flags::GFP_KERNEL || flags == flags::GFP_KERNEL_ACCOUNT;
        if !memory.is_null() || !is_large || !sleeps {
            return memory;
        }
        // SAFETY: With these flags the caller may sleep.
        unsafe { bindings::__vmalloc(size, flags.0).cast() }
    }

    unsafe fn free(memory: *mut u8) {
        // SAFETY: By the function's safety requirements.
        unsafe { bindings::kvfree(memory.cast()) }
    }
}

/// A heap allocation for a single value of type `T`, by [`Kmalloc`].
///
/// When dropping a [`KBox`], the value is also dropped and the heap memory is automatically freed.
///
/// # Invariants
///
/// The pointer is to a valid `T` in memory of `kmalloc`, which this owns.
pub struct KBox<T>(NonNull<T>, PhantomData<T>);

// SAFETY: `KBox` is `Send` if `T` is `Send` because the `KBox` owns a `T`.
unsafe impl<T: Send> Send for KBox<T> {}

// SAFETY: `KBox` is `Sync` if `T` is `Sync` because the `KBox` owns a `T`.
unsafe impl<T: Sync> Sync for KBox<T> {}

impl<T> KBox<T> {
    /// Creates a new `KBox<T>` and initializes its contents with `x`.
    ///
    /// The flags decide whether the allocation may sleep.
    pub fn new(x: T, flags: Flags) -> Result<Self, AllocError> {
        const {
            assert!(size_of::<T>() != 0);
            assert!(align_of::<T>() <= bindings::TOA_KMALLOC_MINALIGN);
        }
        let memory = Kmalloc::alloc(size_of::<T>(), flags).cast::<T>();
        let place = NonNull::new(memory).ok_or(AllocError)?;
        // SAFETY: The allocation has the size of `T`, and its alignment is enough (asserted above).
        unsafe { place.write(x) };
        // INVARIANT: Just allocated and written.
        Ok(Self(place, PhantomData))
    }

    /// Creates a new `KBox<T>` from a raw pointer.
    ///
    /// # Safety
    ///
    /// `raw` must point to a valid `T` in memory that `kfree` takes, of which the caller gives up the
    /// ownership.
    pub unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: A valid `T` is not at the null pointer.
        let place = unsafe { NonNull::new_unchecked(raw) };
        // INVARIANT: By the function's safety requirements.
        Self(place, PhantomData)
    }

    /// Consumes the `KBox<T>` and returns a mutable reference. The memory is not freed.
    pub fn leak<'a>(b: Self) -> &'a mut T
    where
        T: 'a,
    {
        let b = ManuallyDrop::new(b);
        // SAFETY: By the type invariant, and nothing else has the pointer from here on.
        unsafe { &mut *b.0.as_ptr() }
    }
}

impl<T> Deref for KBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for KBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for KBox<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and nothing uses the value or the memory afterwards.
        unsafe {
            self.0.drop_in_place();
            Kmalloc::free(self.0.as_ptr().cast());
        }
    }
}

/// A contiguous growable array type.
///
/// # Invariants
///
/// - `place` is dangling if `capacity` is zero, and otherwise an allocation of `A` that has room for
///   `capacity` elements and that this owns.
/// - The first `len` elements are valid, and `len` is at most `capacity`.
pub struct Vec<T, A: Allocator> {
    place: NonNull<T>,
    len: usize,
    capacity: usize,
    _allocator: PhantomData<(T, A)>,
}

/// A [`Vec`] in memory of [`Kmalloc`].
pub type KVec<T> = Vec<T, Kmalloc>;

/// A [`Vec`] in memory of [`KVmalloc`].
pub type KVVec<T> = Vec<T, KVmalloc>;

// SAFETY: `Vec` is `Send` if `T` is `Send` because `Vec` owns its elements.
unsafe impl<T: Send, A: Allocator> Send for Vec<T, A> {}

// SAFETY: `Vec` is `Sync` if `T` is `Sync` because `Vec` owns its elements.
unsafe impl<T: Sync, A: Allocator> Sync for Vec<T, A> {}

impl<T, A: Allocator> Vec<T, A> {
    /// Creates a new, empty `Vec<T, A>`, without an allocation.
    pub const fn new() -> Self {
        const {
            assert!(size_of::<T>() != 0);
            assert!(align_of::<T>() <= bindings::TOA_KMALLOC_MINALIGN);
        }
        // INVARIANT: Neither room nor elements.
        Self {
            place: NonNull::dangling(),
            len: 0,
            capacity: 0,
            _allocator: PhantomData,
        }
    }

    /// Creates a new `Vec<T, A>` with room for at least `capacity` elements.
    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut v = Self::new();
        v.reserve(capacity, flags)?;
        Ok(v)
    }

    /// Makes room for `additional` elements beyond the length.
    pub fn reserve(&mut self, additional: usize, flags: Flags) -> Result<(), AllocError> {
        let needed = self.len.checked_add(additional).ok_or(AllocError)?;
        if needed <= self.capacity {
            return Ok(());
        }
        // Doubling makes the cost of many pushes linear.
        let capacity = needed.max(self.capacity.saturating_mul(2));
        let size = capacity.checked_mul(size_of::<T>()).ok_or(AllocError)?;
        if size > isize::MAX as usize {
            return Err(AllocError);
        }
        let place = NonNull::new(A::alloc(size, flags).cast::<T>()).ok_or(AllocError)?;
        // SAFETY: By the type invariant the old memory has `len` elements, for which the new memory
        // has room. The two do not overlap. The elements move: the old ones are not dropped.
        unsafe { ptr::copy_nonoverlapping(self.place.as_ptr(), place.as_ptr(), self.len) };
        self.free();
        // INVARIANT: The new allocation has room for `capacity` elements, and the first `len` of
        // them are there.
        self.place = place;
        self.capacity = capacity;
        Ok(())
    }

    /// Appends an element to the back of the [`Vec`] instance.
    pub fn push(&mut self, v: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        // SAFETY: The call to `reserve` was successful, so there is room behind the elements.
        unsafe { self.place.add(self.len).write(v) };
        // INVARIANT: Just written. The length is below the capacity, so nothing wraps around.
        self.len = self.len.wrapping_add(1);
        Ok(())
    }

    /// Pushes clones of the elements of slice into the [`Vec`] instance.
    pub fn extend_from_slice(&mut self, other: &[T], flags: Flags) -> Result<(), AllocError>
    where
        T: Clone,
    {
        self.reserve(other.len(), flags)?;
        for value in other {
            self.push(value.clone(), flags)?;
        }
        Ok(())
    }

    /// Decomposes the vector into its pointer, its length and its capacity. The memory is not freed.
    pub fn into_raw_parts(self) -> (*mut T, usize, usize) {
        let me = ManuallyDrop::new(self);
        (me.place.as_ptr(), me.len, me.capacity)
    }

    /// Returns a mutable raw pointer to the vector's backing buffer.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.place.as_ptr()
    }

    /// Frees the memory, but drops no element. The caller replaces `place` or ends the vector.
    fn free(&mut self) {
        if self.capacity != 0 {
            // SAFETY: By the type invariant it is an allocation of `A` that this owns.
            unsafe { A::free(self.place.as_ptr().cast()) };
        }
    }
}

impl<T, A: Allocator> Default for Vec<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, A: Allocator> Deref for Vec<T, A> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: By the type invariant there are `len` valid elements.
        unsafe { slice::from_raw_parts(self.place.as_ptr(), self.len) }
    }
}

impl<T, A: Allocator> DerefMut for Vec<T, A> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: By the type invariant there are `len` valid elements.
        unsafe { slice::from_raw_parts_mut(self.place.as_ptr(), self.len) }
    }
}

impl<'a, T, A: Allocator> IntoIterator for &'a Vec<T, A> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T, A: Allocator> Drop for Vec<T, A> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there are `len` valid elements, and nothing uses them
        // afterwards.
        unsafe { ptr::slice_from_raw_parts_mut(self.place.as_ptr(), self.len).drop_in_place() };
        self.free();
    }
}
