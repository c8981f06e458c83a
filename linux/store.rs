// SPDX-License-Identifier: GPL-2.0

//! Records keyed by an address, read under RCU without locks, in memory that is used again at once.
//!
//! A bucket is a chain of [`Node`]s that ends in a marker, which names the bucket. A removed node goes to
//! the idle nodes of its CPU, without a grace period, and may soon be in another chain, which carries a
//! reader off there. Such a walk ends in the other bucket's marker, or in 0 on a new node, and begins
//! again; after a few such walks the reader takes the bucket's lock. This is the rule of C's
//! `hlist_nulls` (`Documentation/RCU/rculist_nulls.rst`).
//!
//! Writers hold one of a set of raw spinlocks, chosen by the bucket, for a few instructions. An insert
//! makes its node the first of the chain. A remove finds the node before it takes the lock, and checks
//! under the lock that the place is still the same. No chain is walked with interrupts off, except where
//! the walks without the lock failed.
//!
//! Everything but the making and the end of a store may be called in softirq, in an ftrace handler or in
//! a tracepoint probe, with preemption on or off, also on PREEMPT_RT.

use crate::linux::{
    atomic::{
        AtomicUsize,
        Ordering::{
            Acquire,
            Relaxed,
            Release, //
        }, //
    },
    idle::{
        Idle,
        IdleNode, //
    },
    node::{
        Node,
        Words, //
    },
    raw_spinlock::{
        self,
        LockClass,
        RawSpinLock,
        RawSpinLocks, //
    },
    rcu,
    task, //
};
use core::hint::assert_unchecked;
use core::ptr::NonNull;
use kernel::prelude::*;

/// The locks of all stores. The lock of idle nodes is taken under them.
static LOCKS: LockClass = LockClass::new(c"toa_bucket");

/// Walks without the lock before one with it.
const TRIES: usize = 4;

/// The most nodes of a walk without the lock: no chain is as long, but writers could carry a reader on.
const STEPS: usize = 1 << 12;

/// The most buckets: 128 MiB.
const MOST_BUCKETS: usize = 1 << 24;

/// Buckets and nodes that are made or freed before the processor is yielded.
const AT_ONCE: usize = 1 << 14;

/// The records of a bucket that [`Store::for_each`] copies without the lock.
const COPIED: usize = 12;

/// The store.
///
/// # Invariants
///
/// - Each link, in `buckets` or in a node's `next`, is the marker of a bucket, 0, or the address of a
///   node of the cache. What is a node at some time of an RCU section is one until the section ends.
/// - A chain that begins in a bucket ends in that bucket's marker. A node is in a chain if and only if its
///   key is not 0, and then in that of its key's bucket. Keys and links of chains are written only under
///   the bucket's lock, but for keys and links of nodes that are in no chain.
/// - `buckets` and `locks` have a power of two of elements, at least one, and never change.
pub(crate) struct Store {
    buckets: KVVec<AtomicUsize>,
    locks: RawSpinLocks,
    idle: Idle,
}

/// The place of a node in its chain.
struct Place<'rcu> {
    /// The link that leads to the node.
    link: Link<'rcu>,
    node: &'rcu Node,
}

/// A link of a chain.
#[derive(Clone, Copy)]
enum Link<'rcu> {
    Bucket(&'rcu AtomicUsize),
    Node(&'rcu Node),
}

/// The end of a walk in another chain, or at a node that changed.
struct CarriedOff;

impl Store {
    /// Allocates a store for at most `cap` records, of one bucket for each, rounded up to a power of two, but
    /// of 2²⁴ buckets at most. `locks` is rounded up too. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(cap: usize, locks: usize) -> Result<Self> {
        let count = cap.clamp(1, MOST_BUCKETS);
        let count = count.checked_next_power_of_two().ok_or(EINVAL)?;
        let locks = locks.max(1).checked_next_power_of_two().ok_or(EINVAL)?;
        let mut buckets = KVVec::with_capacity(count, GFP_KERNEL)?;
        for index in 0..count {
            buckets.push(AtomicUsize::new(marker(index)), GFP_KERNEL)?;
            yield_after(index);
        }
        // INVARIANT: Powers of two, and all chains empty.
        Ok(Self {
            buckets,
            locks: RawSpinLocks::new(locks, &LOCKS)?,
            idle: Idle::new(cap)?,
        })
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Returns false if the bucket of `key` is empty, so that no record of it is in the store. One load, and
    /// no RCU section.
    #[inline(always)]
    pub(crate) fn may_contain(&self, key: usize) -> bool {
        self.bucket(self.index(key))
            .is_some_and(|bucket| !is_marker(bucket.load(Acquire)))
    }

    /// Finds the record of `key`. One load where the bucket is empty.
    #[inline(always)]
    pub(crate) fn get(&self, key: usize, rcu: &rcu::Guard) -> Option<Words> {
        let index = self.index(key);
        let bucket = self.bucket(index)?;
        match read(key, index, bucket, rcu) {
            Ok(words) => words,
            Err(CarriedOff) => self.get_again(key, index, bucket, rcu),
        }
    }

    /// Does the same where a first walk failed.
    #[cold]
    fn get_again(
        &self,
        key: usize,
        index: usize,
        bucket: &AtomicUsize,
        rcu: &rcu::Guard,
    ) -> Option<Words> {
        for _ in 1..TRIES {
            if let Ok(words) = read(key, index, bucket, rcu) {
                return words;
            }
        }
        let _held = self.lock(index)?.lock();
        // Nothing carries a walk off now.
        read(key, index, bucket, rcu).ok()?
    }

    /// Adds a record. The key must not be 0, and have none.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: nothing has changed then.
    #[inline(always)]
    pub(crate) fn insert(&self, key: usize, words: &Words) -> Result {
        let index = self.index(key);
        let bucket = self.bucket(index).ok_or(EINVAL)?;
        let lock = self.lock(index).ok_or(EINVAL)?;
        let held = lock.lock();
        match self.idle.take(&held) {
            Some(node) => link(node, key, words, bucket, &held),
            None => {
                drop(held);
                let node = self.idle.allocate().ok_or(ENOMEM);
                self.idle.balance_soon();
                link(node?, key, words, bucket, &lock.lock());
                return Ok(());
            }
        }
        drop(held);
        self.idle.balance_soon();
        Ok(())
    }

    /// Removes the record of `key` and returns it. No other call removes a record of this key at the same
    /// time.
    #[inline(always)]
    pub(crate) fn remove(&self, key: usize, rcu: &rcu::Guard) -> Option<Words> {
        let index = self.index(key);
        let bucket = self.bucket(index)?;
        let lock = self.lock(index)?;
        let words = self.unlink(key, index, bucket, lock, rcu)?;
        self.idle.balance_soon();
        Some(words)
    }

    #[inline(always)]
    fn unlink(
        &self,
        key: usize,
        index: usize,
        bucket: &AtomicUsize,
        lock: &RawSpinLock,
        rcu: &rcu::Guard,
    ) -> Option<Words> {
        for _ in 0..TRIES {
            match find(key, index, bucket, rcu) {
                Ok(None) => return None,
                Ok(Some(place)) => {
                    let held = lock.lock();
                    if self.is_current(&place, key, index) {
                        return self.take_out(&place, key, &held);
                    }
                }
                Err(CarriedOff) => {}
            }
        }
        let held = lock.lock();
        let place = find(key, index, bucket, rcu).ok()??;
        self.take_out(&place, key, &held)
    }

    /// Whether a place that was found before the bucket's lock was taken is one of this chain, and the
    /// key's.
    #[inline(always)]
    fn is_current(&self, place: &Place<'_>, key: usize, index: usize) -> bool {
        let node = core::ptr::from_ref(place.node) as usize;
        let leads_here = match place.link {
            Link::Bucket(bucket) => bucket.load(Relaxed) == node,
            // By the type invariant the key shows whether a node is in a chain, and in which one.
            Link::Node(before) => {
                let other = before.key();
                other != 0 && self.index(other) == index && before.next() == node
            }
        };
        leads_here && place.node.key() == key
    }

    /// Takes a node out of its chain, and makes it idle.
    #[inline(always)]
    fn take_out(
        &self,
        place: &Place<'_>,
        key: usize,
        held: &raw_spinlock::Guard<'_>,
    ) -> Option<Words> {
        let words = place.node.get(key)?;
        let next = place.node.next();
        match place.link {
            Link::Bucket(bucket) => bucket.store(next, Release),
            Link::Node(before) => before.set_next(next),
        }
        place.node.clear();
        // INVARIANT (IdleNode): Just unlinked and cleared, under the lock of the bucket that it was in.
        // SAFETY: As above.
        let node = unsafe { IdleNode::from_raw(NonNull::from(place.node)) };
        self.idle.give(node, held);
        Some(words)
    }

    /// Calls `f` with the records of a bucket. A record that is in the store during the whole call comes
    /// exactly once. One that is added or removed during the call may come or not.
    ///
    /// If the walks without the lock fail, or there are more records than usual, `f` runs with interrupts
    /// off.
    pub(crate) fn for_each(
        &self,
        index: usize,
        rcu: &rcu::Guard,
        mut f: impl FnMut(usize, &Words),
    ) {
        let (Some(bucket), Some(lock)) = (self.bucket(index), self.lock(index)) else {
            return;
        };
        let mut copies = [(0, Words::default()); COPIED];
        for _ in 0..TRIES {
            if let Some(count) = copy(index, bucket, &mut copies, |key| self.index(key), rcu) {
                for (key, words) in copies.iter().take(count) {
                    f(*key, words);
                }
                return;
            }
        }
        let _held = lock.lock();
        let mut next = bucket.load(Relaxed);
        // SAFETY: Each link is loaded below in the section of `rcu`, from the bucket or a node.
        while let Some(node) = unsafe { node_at(next, rcu) } {
            let key = node.key();
            if let Some(words) = node.get(key) {
                f(key, &words);
            }
            next = node.next();
        }
    }

    #[inline(always)]
    fn index(&self, key: usize) -> usize {
        hash(key) & self.buckets.len().wrapping_sub(1)
    }

    #[inline(always)]
    fn bucket(&self, index: usize) -> Option<&AtomicUsize> {
        // SAFETY: By the type invariant there is at least one bucket.
        unsafe { assert_unchecked(!self.buckets.is_empty()) };
        self.buckets.get(index)
    }

    /// The lock of a bucket: low bits choose it, so one bucket always has the same lock, also where there
    /// are fewer locks than buckets.
    #[inline(always)]
    fn lock(&self, index: usize) -> Option<&RawSpinLock> {
        self.locks.get(index & self.locks.len().wrapping_sub(1))
    }
}

impl Drop for Store {
    /// Frees all nodes, and yields the processor now and then. May sleep. No hook runs any more.
    fn drop(&mut self) {
        let mut steps = 0_usize;
        for bucket in &self.buckets {
            let mut next = bucket.load(Acquire);
            while !is_marker(next) {
                let Some(node) = NonNull::new(next as *mut Node) else {
                    break;
                };
                // SAFETY: `&mut self`: no reader and no writer is left. By the type invariant the links of
                // a chain lead to nodes.
                next = unsafe { node.as_ref() }.next();
                // INVARIANT (IdleNode): The whole chain is ours.
                // SAFETY: As above.
                self.idle.free(unsafe { IdleNode::from_raw(node) });
                steps = steps.wrapping_add(1);
                yield_after(steps);
            }
            steps = steps.wrapping_add(1);
            yield_after(steps);
        }
    }
}

/// Yields the processor after each [`AT_ONCE`] steps. Process context that may sleep.
fn yield_after(steps: usize) {
    if steps % AT_ONCE == AT_ONCE - 1 {
        task::yield_processor();
    }
}

/// The end of a bucket's chain. Nodes have even addresses.
#[inline(always)]
fn marker(index: usize) -> usize {
    (index << 1) | 1
}

#[inline(always)]
fn is_marker(link: usize) -> bool {
    link & 1 != 0
}

/// The node that a link leads to, if it is no end.
///
/// # Safety
///
/// The link must have been loaded in the section that the guard stands for, from a bucket or a node.
#[inline(always)]
unsafe fn node_at(link: usize, _rcu: &rcu::Guard) -> Option<&Node> {
    if is_marker(link) {
        return None;
    }
    // SAFETY: By the function's safety requirements and the invariant of `Store` the link is 0 or the
    // address of a node, which was one at some time of the section, and so is one until the section ends.
    // The acquire of the link orders the node's first values before what is read here. All of it is
    // atomic.
    unsafe { (link as *const Node).as_ref() }
}

/// Walks over a chain to the key's node.
#[inline(always)]
fn find<'rcu>(
    key: usize,
    index: usize,
    bucket: &'rcu AtomicUsize,
    rcu: &'rcu rcu::Guard,
) -> Result<Option<Place<'rcu>>, CarriedOff> {
    let mut link = Link::Bucket(bucket);
    let mut next = bucket.load(Acquire);
    let mut left = STEPS;
    // SAFETY: Each link is loaded in the section of `rcu`, from the bucket or a node.
    while let Some(node) = unsafe { node_at(next, rcu) } {
        left = left.wrapping_sub(1);
        if left == 0 {
            return Err(CarriedOff);
        }
        if node.key() == key {
            return Ok(Some(Place { link, node }));
        }
        link = Link::Node(node);
        next = node.next();
    }
    if next == marker(index) {
        Ok(None)
    } else {
        Err(CarriedOff)
    }
}

/// Copies the words of the key's record.
#[inline(always)]
fn read(
    key: usize,
    index: usize,
    bucket: &AtomicUsize,
    rcu: &rcu::Guard,
) -> Result<Option<Words>, CarriedOff> {
    match find(key, index, bucket, rcu)? {
        None => Ok(None),
        Some(place) => place.node.get(key).map(Some).ok_or(CarriedOff),
    }
}

/// Copies the records of a bucket; `of` returns a key's bucket. Returns their number, or `None` if they
/// do not fit, or the walk was carried off or met a node that changed. A walk that was carried off and
/// back meets each record that stays in the bucket: inserts are at the chain's beginning.
fn copy(
    index: usize,
    bucket: &AtomicUsize,
    copies: &mut [(usize, Words); COPIED],
    of: impl Fn(usize) -> usize,
    rcu: &rcu::Guard,
) -> Option<usize> {
    let mut count = 0_usize;
    let mut next = bucket.load(Acquire);
    // SAFETY: Each link is loaded in the section of `rcu`, from the bucket or a node.
    while let Some(node) = unsafe { node_at(next, rcu) } {
        let key = node.key();
        // A node of no bucket or of another one, or one of this bucket for the second time.
        if key == 0 || of(key) != index || copies.iter().take(count).any(|copy| copy.0 == key) {
            return None;
        }
        // Nothing holds the socket: the key may be that of its memory's next one, whose record came between
        // two words. Then a second copy differs, because it has all words that the first one has, or later
        // ones.
        let words = node.get(key)?;
        if node.get(key)? != words {
            return None;
        }
        *copies.get_mut(count)? = (key, words);
        count = count.wrapping_add(1);
        next = node.next();
    }
    (next == marker(index)).then_some(count)
}

/// Makes an idle node the first of a bucket's chain.
#[inline(always)]
fn link(
    node: IdleNode,
    key: usize,
    words: &Words,
    bucket: &AtomicUsize,
    _held: &raw_spinlock::Guard<'_>,
) {
    let node = node.into_raw();
    // SAFETY: By the invariant of `IdleNode` the node is ours.
    unsafe { node.as_ref() }.fill(key, words, bucket.load(Relaxed));
    // INVARIANT: The node is complete before it is reachable, and leads to the chain as it was.
    bucket.store(node.as_ptr() as usize, Release);
}

/// Spreads the bits of an address: Fibonacci hashing, as `hash_64` of `include/linux/hash.h`.
/// Slab objects are aligned, so the high half of the product, where most bits of the key meet, is
/// what is used.
#[inline(always)]
fn hash(key: usize) -> usize {
    (key as u64).wrapping_mul(0x61C8_8646_80B5_83EB) as usize >> 32
}
