// SPDX-License-Identifier: GPL-2.0

//! A hash table of small values keyed by an address, read under RCU without locks.
//!
//! Writers take one of a set of raw spinlocks, chosen by the bucket, for a few instructions: the
//! node is allocated before and freed after. A node that was unlinked is freed by `kfree_rcu`, so
//! a reader may keep using what it found until its RCU section ends. Everything here may be called
//! in softirq, in an ftrace handler or in a tracepoint probe, with preemption on or off, also on
//! PREEMPT_RT.

use crate::{
    linux::{
        c,
        raw_spinlock::{
            self,
            LockClass,
            RawSpinLock,
            RawSpinLocks, //
        },
        rcu_pointer::{
            kvfree_rcu,
            RcuPointer, //
        }, //
    }, //
};
use core::iter;
use core::mem::offset_of;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::rcu;
use kernel::types::Opaque;

type Link<T> = RcuPointer<Node<T>>;

/// The locks of all tables: no lock is taken while one of them is held.
static LOCKS: LockClass = LockClass::new(c"toa_bucket");

/// One entry, in memory of `kmalloc`.
#[repr(C)]
pub(crate) struct Node<T> {
    next: Link<T>,
    key: usize,
    rcu: Opaque<c::callback_head>,
    value: T,
}

/// The table.
///
/// # Invariants
///
/// - Each pointer in `buckets` and in a node's `next` is null or points to a node that is freed no
///   sooner than a grace period after it was unlinked.
/// - Links of a bucket are written only under the bucket's lock.
/// - `buckets` and `locks` have a power of two of elements, at least one, and never change.
pub(crate) struct HashTable<T> {
    buckets: KVVec<Link<T>>,
    locks: RawSpinLocks,
}

// SAFETY: The table owns its nodes, and `T` may be sent.
unsafe impl<T: Send> Send for HashTable<T> {}

// SAFETY: Concurrent look-ups share `&T`; concurrent writers are serialised by `locks`.
unsafe impl<T: Send + Sync> Sync for HashTable<T> {}

impl<T: Copy + Send + Sync> HashTable<T> {
    /// Allocates a table of `buckets` buckets and `locks` locks, each rounded up to a power of
    /// two. May sleep.
    pub(crate) fn new(buckets: usize, locks: usize) -> Result<Self> {
        let buckets = buckets.max(1).checked_next_power_of_two().ok_or(EINVAL)?;
        let locks = locks.max(1).checked_next_power_of_two().ok_or(EINVAL)?;
        // INVARIANT: Powers of two, and all links null.
        Ok(Self {
            buckets: filled(buckets, Link::null)?,
            locks: RawSpinLocks::new(locks, &LOCKS)?,
        })
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Finds the value of `key`. One probe of a bucket where there is none.
    pub(crate) fn get<'rcu>(&'rcu self, key: usize, _rcu: &'rcu rcu::Guard) -> Option<&'rcu T> {
        let mut link = self.bucket(key)?;
        loop {
            // SAFETY: By the type invariant a node reached inside an RCU section stays until the
            // section that `_rcu` stands for ends. It was complete when `insert` linked it.
            let node = unsafe { link.load().as_ref() }?;
            if node.key == key {
                return Some(&node.value);
            }
            link = &node.next;
        }
    }

    /// Returns the values of a bucket. A value is returned once if it is in the table during the whole
    /// walk: nodes stay in their bucket. A value that is added or removed during the walk may be
    /// returned or not.
    pub(crate) fn bucket_values<'rcu>(
        &'rcu self,
        index: usize,
        _rcu: &'rcu rcu::Guard,
    ) -> impl Iterator<Item = &'rcu T> {
        let mut link = self.buckets.get(index);
        iter::from_fn(move || {
            // SAFETY: As in `get`: by the type invariant a node reached inside an RCU section stays
            // until the section that `_rcu` stands for ends, also if it is unlinked before that.
            let node = unsafe { link?.load().as_ref() }?;
            link = Some(&node.next);
            Some(&node.value)
        })
    }

    /// Adds `value` for `key`; a value that the key had goes away and is returned.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: nothing has changed then.
    pub(crate) fn insert(&self, key: usize, value: T) -> Result<Option<T>> {
        let bucket = self.bucket(key).ok_or(EINVAL)?;
        let lock = self.lock(key).ok_or(EINVAL)?;
        let node = allocate(Node {
            next: Link::null(),
            key,
            rcu: Opaque::uninit(),
            value,
        })?;
        let old = {
            let held = lock.lock();
            // SAFETY: Both were found by `key`, and a key's bucket always has the same lock.
            let old = unsafe { unlink(bucket, key, &held) };
            // SAFETY: The node is ours until the store below makes it reachable.
            unsafe { (*node.as_ptr()).next = Link::new(bucket.load()) };
            // INVARIANT: The node is complete before it is reachable.
            bucket.store(node.as_ptr());
            old
        };
        Ok(old.map(Unlinked::retire))
    }

    /// Returns false if no value of `key` is in the table. Takes no lock.
    #[inline(always)]
    pub(crate) fn may_contain(&self, key: usize) -> bool {
        self.bucket(key)
            .is_some_and(|bucket| !bucket.load().is_null())
    }

    /// Removes `key` and returns its value.
    #[inline(always)]
    pub(crate) fn remove(&self, key: usize) -> Option<T> {
        let bucket = self.bucket(key)?;
        let lock = self.lock(key)?;
        // SAFETY: Both were found by `key`, and a key's bucket always has the same lock.
        let old = unsafe { unlink(bucket, key, &lock.lock()) };
        old.map(Unlinked::retire)
    }

    fn bucket(&self, key: usize) -> Option<&Link<T>> {
        self.buckets
            .get(hash(key) & self.buckets.len().wrapping_sub(1))
    }

    fn lock(&self, key: usize) -> Option<&RawSpinLock> {
        // The low bits choose both, so one bucket always has the same lock, also where there are
        // fewer locks than buckets.
        let index =
            hash(key) & self.buckets.len().wrapping_sub(1) & self.locks.len().wrapping_sub(1);
        self.locks.get(index)
    }
}

/// Nodes that [`HashTable::drop`] frees before it yields the processor.
const FREED_AT_ONCE: usize = 1024;

impl<T> Drop for HashTable<T> {
    /// Frees all nodes, and yields the processor now and then. May sleep.
    fn drop(&mut self) {
        let mut freed = 0_usize;
        for bucket in &self.buckets {
            let mut next = bucket.load();
            while !next.is_null() {
                freed = freed.wrapping_add(1);
                if freed % FREED_AT_ONCE == 0 {
                    // SAFETY: Process context that may sleep, and the task is running: the call
                    // returns when the task is scheduled again.
                    unsafe { c::schedule() };
                }
                // SAFETY: `&mut self`: no reader and no writer is left, so each linked node is
                // ours, and came from `KBox` or from memory that `kfree` takes as well.
                let node = unsafe { KBox::from_raw(next) };
                next = node.next.load();
            }
        }
    }
}

/// A node that only its owner can free.
///
/// # Invariants
///
/// The node was linked in a table and has been unlinked under its bucket's lock; it has not been
/// freed.
struct Unlinked<T>(NonNull<Node<T>>);

impl<T: Copy> Unlinked<T> {
    /// Copies the value out and frees the node after a grace period. Takes no lock of ours.
    fn retire(self) -> T {
        const { assert!(offset_of!(Node<T>, rcu) < 4096) };
        let node = self.0.as_ptr();
        // SAFETY: By the type invariant the node is not freed, and values never change.
        let value = unsafe { (*node).value };
        // SAFETY: The node is memory of `kmalloc` or `kmalloc_nolock`, the head lies in its first page,
        // and readers that are still on the node do not look at the head.
        unsafe { kvfree_rcu(node.cast(), offset_of!(Node<T>, rcu)) };
        value
    }
}

/// Takes the node of `key` out of the chain that begins at `link`.
///
/// # Safety
///
/// `link` must be a bucket of a table, and `_held` that bucket's lock.
unsafe fn unlink<T>(
    mut link: &Link<T>,
    key: usize,
    _held: &raw_spinlock::Guard<'_>,
) -> Option<Unlinked<T>> {
    loop {
        let node = NonNull::new(link.load())?;
        // SAFETY: Under the bucket's lock no linked node is unlinked by another, so it is not
        // freed either. The lock also orders its contents before this.
        let node_ref = unsafe { node.as_ref() };
        if node_ref.key == key {
            // A reader that stands on this node keeps the node's own `next`, which leads on.
            link.store(node_ref.next.load());
            // INVARIANT: Just unlinked, under the lock.
            return Some(Unlinked(node));
        }
        link = &node_ref.next;
    }
}

/// Spreads the bits of an address: Fibonacci hashing, as `hash_64` of `include/linux/hash.h`.
/// Slab objects are aligned, so the high half of the product, where all bits of the key meet, is
/// what is used.
fn hash(key: usize) -> usize {
    (key as u64).wrapping_mul(0x61C8_8646_80B5_83EB) as usize >> 32
}

fn filled<V>(len: usize, mut make: impl FnMut() -> V) -> Result<KVVec<V>> {
    let mut all = KVVec::with_capacity(len, GFP_KERNEL)?;
    for _ in 0..len {
        all.push(make(), GFP_KERNEL)?;
    }
    Ok(all)
}

/// In softirq on a kernel that is not PREEMPT_RT, the kernel's ordinary atomic allocation: it may
/// use the reserves, and wakes kswapd. A failure is counted, so the kernel need not report it with
/// a stack.
#[cfg(not(CONFIG_PREEMPT_RT))]
fn allocate<V>(value: V) -> Result<NonNull<V>> {
    let node = KBox::new(value, GFP_ATOMIC | __GFP_NOWARN)?;
    Ok(NonNull::from(KBox::leak(node)))
}

/// On PREEMPT_RT an ordinary allocation takes a `spinlock_t`, with GFP_ATOMIC too, and that lock
/// sleeps: it may not be taken with preemption off, as a handler runs when another tracer shares the
/// function, and RCU-tasks does not wait at unload for a task that is blocked on it.
/// `kmalloc_nolock` only tries the allocator's locks. Its memory may be
/// given to `kfree` and `kfree_rcu` (`mm/slub.c`).
#[cfg(CONFIG_PREEMPT_RT)]
fn allocate<V>(value: V) -> Result<NonNull<V>> {
    /// A try fails when the slab's lock happens to be taken; the next one rarely does.
    const TRIES: usize = 4;

    const {
        assert!(align_of::<V>() <= c::TOA_KMALLOC_MINALIGN);
    }
    for _ in 0..TRIES {
        // SAFETY: May be called in any context. No flags: no zeroing is needed.
        let memory =
            unsafe { c::_kmalloc_nolock_noprof(size_of::<V>(), 0, c::TOA_NUMA_NO_NODE as c_int) };
        if let Some(place) = NonNull::new(memory.cast::<V>()) {
            // SAFETY: The allocation has the size of `V`, and the alignment of `kmalloc`, which is
            // enough for `V` (asserted above).
            unsafe { place.write(value) };
            return Ok(place);
        }
    }
    Err(ENOMEM)
}
