// SPDX-License-Identifier: GPL-2.0

//! Immutable values that several owners share, and that readers see under RCU without a lock.
//!
//! A value is a head and a slice in one allocation, which is charged to the memory cgroup of the task
//! that makes it. The last owner frees it by `kvfree_rcu`: no code of the module runs for that.
//!
//! C header: [`include/linux/rcupdate.h`](srctree/include/linux/rcupdate.h)

use crate::linux::{
    c,
    family::Guard,
    rcu,
    rcu_pointer::{
        kvfree_rcu,
        RcuPointer, //
    }, //
};
use core::marker::PhantomData;
use core::mem::{
    align_of,
    offset_of,
    size_of, //
};
use core::ptr::NonNull;
use core::slice;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed,
    Release, //
};
use kernel::types::Opaque;

/// A head and a slice.
#[repr(C)]
pub(crate) struct Block<H, E> {
    rcu: Opaque<c::callback_head>,
    owners: Atomic<i64>,
    len: usize,
    head: H,
    slice: [E; 0],
}

/// A unit of the memory of blocks.
type Word = u64;

/// An owner of a block.
///
/// # Invariants
///
/// The block lives, `owners` counts this owner, and head and slice never change. The slice has `len`
/// elements.
pub(crate) struct Shared<H: Copy, E: Copy>(NonNull<Block<H, E>>);

// SAFETY: The block may be freed by any task, and is only read.
unsafe impl<H: Copy + Send + Sync, E: Copy + Send + Sync> Send for Shared<H, E> {}

// SAFETY: As above.
unsafe impl<H: Copy + Send + Sync, E: Copy + Send + Sync> Sync for Shared<H, E> {}

impl<H: Copy, E: Copy> Shared<H, E> {
    /// Makes a block with at most `capacity` of the elements. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also if the task's memory cgroup is full.
    pub(crate) fn new(head: H, capacity: usize, elements: impl Iterator<Item = E>) -> Result<Self> {
        const {
            assert!(align_of::<Block<H, E>>() <= align_of::<Word>());
            // As `kvfree_rcu` asks for.
            assert!(offset_of!(Block<H, E>, rcu) < 4096);
        }
        let bytes = capacity
            .checked_mul(size_of::<E>())
            .and_then(|bytes| bytes.checked_add(size_of::<Block<H, E>>()))
            .ok_or(ENOMEM)?;
        let words: KVVec<Word> =
            KVVec::with_capacity(bytes.div_ceil(size_of::<Word>()), GFP_KERNEL_ACCOUNT)?;
        // The memory, which `kvfree` can free, stays.
        let (memory, ..) = words.into_raw_parts();
        let block = NonNull::new(memory.cast::<Block<H, E>>()).ok_or(ENOMEM)?;
        // SAFETY: The memory has room for the block and for `capacity` elements behind it, is aligned
        // (asserted above), and is ours alone.
        unsafe {
            block.as_ptr().write(Block {
                rcu: Opaque::uninit(),
                owners: Atomic::new(1),
                len: 0,
                head,
                slice: [],
            });
            let first = (&raw mut (*block.as_ptr()).slice).cast::<E>();
            let mut len = 0_usize;
            for element in elements.take(capacity) {
                first.add(len).write(element);
                len = len.wrapping_add(1);
            }
            (*block.as_ptr()).len = len;
        }
        // INVARIANT: One owner, and as many elements as were written.
        Ok(Self(block))
    }
}

impl<H: Copy, E: Copy> Clone for Shared<H, E> {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }.owners.fetch_add(1, Relaxed);
        // INVARIANT: Just counted.
        Self(self.0)
    }
}

impl<H: Copy, E: Copy> Drop for Shared<H, E> {
    fn drop(&mut self) {
        // Release: the reads of this owner come before. The free comes after a grace period.
        // SAFETY: By the type invariant.
        if unsafe { self.0.as_ref() }.owners.fetch_sub(1, Release) == 1 {
            let block = self.0.as_ptr();
            // SAFETY: No owner is left, so no new reader finds the block. It is memory of a `KVVec`,
            // and nothing in it is dropped: head and elements are `Copy`.
            unsafe { kvfree_rcu(block.cast(), offset_of!(Block<H, E>, rcu)) };
        }
    }
}

/// A place for one owner, or for none. Readers see its block under RCU; writers hold the lock of the
/// family of `T`.
///
/// # Invariants
///
/// The pointer is null, or that of an owner which the place has taken. It changes under the lock
/// only.
pub(crate) struct RcuShared<T, H: Copy, E: Copy> {
    pointer: RcuPointer<Block<H, E>>,
    _guarded: PhantomData<fn() -> T>,
}

impl<T, H: Copy, E: Copy> RcuShared<T, H, E> {
    /// A place with an owner or without.
    pub(crate) fn new(owner: Option<Shared<H, E>>) -> Self {
        let place = Self {
            pointer: RcuPointer::null(),
            _guarded: PhantomData,
        };
        // INVARIANT: The owner is the place's.
        place.pointer.store(into_raw(owner));
        place
    }

    /// Returns the head and the slice. Any context.
    #[inline(always)]
    pub(crate) fn get<'rcu>(&self, _rcu: &'rcu rcu::Guard) -> Option<(&'rcu H, &'rcu [E])> {
        // SAFETY: By the type invariant the block has an owner when the pointer is loaded, so it lives
        // until the read-side section that `_rcu` stands for ends. It was complete when it was stored.
        unsafe {
            let block = self.pointer.load();
            let head = &block.as_ref()?.head;
            let first = (&raw const (*block).slice).cast::<E>();
            Some((head, slice::from_raw_parts(first, (*block).len)))
        }
    }

    /// Whether the place has an owner. Any context.
    #[inline(always)]
    pub(crate) fn is_some(&self) -> bool {
        !self.pointer.load().is_null()
    }

    /// Replaces the owner. The next reader sees the new block.
    pub(crate) fn set(&self, owner: Option<Shared<H, E>>, _guard: &Guard<'_, T>) {
        let old = self.pointer.load();
        self.pointer.store(into_raw(owner));
        // SAFETY: The lock makes this the only writer, so the owner is still the place's.
        drop(unsafe { from_raw(old) });
    }

    /// Returns a second owner of the block.
    pub(crate) fn share(&self, _guard: &Guard<'_, T>) -> Option<Shared<H, E>> {
        // SAFETY: The lock keeps the owner in its place.
        let owner = unsafe { from_raw(self.pointer.load()) };
        let second = owner.clone();
        // The first one is still in its place.
        core::mem::forget(owner);
        second
    }
}

impl<T, H: Copy, E: Copy> Drop for RcuShared<T, H, E> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nothing else has the place any more.
        drop(unsafe { from_raw(self.pointer.load()) });
    }
}

fn into_raw<H: Copy, E: Copy>(owner: Option<Shared<H, E>>) -> *mut Block<H, E> {
    let pointer = owner
        .as_ref()
        .map_or(core::ptr::null_mut(), |owner| owner.0.as_ptr());
    core::mem::forget(owner);
    pointer
}

/// # Safety
///
/// The pointer must come from [`into_raw`], and its owner must be the caller's.
unsafe fn from_raw<H: Copy, E: Copy>(pointer: *mut Block<H, E>) -> Option<Shared<H, E>> {
    // INVARIANT: By the function's safety requirements.
    NonNull::new(pointer).map(Shared)
}
