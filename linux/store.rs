// SPDX-License-Identifier: GPL-2.0

//! Records keyed by an address, read under RCU without locks, in memory that is used again at once.
//!
//! A bucket is a chain of [`Node`]s that ends in a marker, which names the bucket. A removed node goes to
//! the idle nodes of its CPU, without a grace period, and may soon be in another chain, which carries a
//! reader off there. Such a walk ends in the other bucket's marker, or on a new node, and begins again; after a few such walks the reader takes the bucket's lock. This is the rule of C's
//! `hlist_nulls` (`Documentation/RCU/rculist_nulls.rst`).
//!
//! An insert takes no lock. It makes its node the first of the chain by one compare-and-swap, and then
//! gives the node its key. Removes hold one of a set of raw spinlocks, chosen by the bucket, for a few
//! instructions. The first node of a chain is removed at once. Any other one is found before the lock is
//! taken, and the place is checked under it. No chain is walked with interrupts off, except where the walks
//! without the lock failed.
//!
//! Beside the first node's address a bucket has a filter: a bit for each of a few classes of keys, which is
//! set if the chain may have a key of that class. So most sockets without a record are known by one load,
//! also where most buckets are in use.
//!
//! Everything but the making and the end of a store may be called in softirq, in an ftrace handler or in
//! a tracepoint probe, with preemption on or off, also on PREEMPT_RT.

use crate::linux::{
    atomic::{
        AtomicUsize,
        Ordering::{
            AcqRel,
            Acquire, //
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
        Guard,
        LockClass,
        RawSpinLock,
        RawSpinLocks, //
    },
    rcu,
    task, //
};
use core::ptr::NonNull;
use kernel::prelude::*;

/// The locks of all stores. None is taken with another lock of ours.
static LOCKS: LockClass = LockClass::new(c"toa_bucket");

/// Walks without the lock before one with it.
const TRIES: usize = 4;

/// The most nodes of a walk: writers could carry a reader on without the lock. No chain is as long: there is
/// a bucket for each record, or 2²⁴ of them.
const STEPS: usize = 1 << 12;

/// The most buckets: 128 MiB.
const MOST_BUCKETS: usize = 1 << 24;

/// Buckets and nodes that are made or freed before the processor is yielded.
const AT_ONCE: usize = 1 << 14;

/// The records of a bucket that [`Store::for_each`] copies without the lock.
const COPIED: usize = 12;

/// A bucket's bits that are no part of the link: one for each class of keys. A node's address has none.
const FILTER: usize = 0b1111;

/// The bit of a link that is a marker. The bits above it are the bucket's index.
const MARKER: u32 = 5;

/// The alignment of nodes: the bits below are those of filters and markers.
pub(crate) const NODE_ALIGN: usize = 2 << MARKER;

/// The link of a node that was in no chain yet: a marker that no bucket has.
pub(crate) const NOWHERE: usize = usize::MAX;

/// The store.
///
/// # Invariants
///
/// - A link that is loaded in an RCU section, from a bucket without the [`FILTER`] or from the `next` of a
///   node that was in a chain at some time of the section, is a marker, or the address of such a node. What is
///   a node of the cache at some time of a section is one until the section ends.
/// - A chain that begins in a bucket ends in that bucket's marker. It has the records of its keys, and nodes
///   with key 0 that are inserted just now. A node whose key is not 0 is in its key's chain, or its remover
///   holds the bucket's lock.
/// - Nodes leave a chain only under the bucket's lock, and `next` of nodes in a chain changes only under it.
/// - The filter of a bucket has the bit of each key in its chain.
/// - `buckets` and `locks` have a power of two of elements, at least one, and never change. `mask` is the
///   index of the last bucket.
pub(crate) struct Store {
    buckets: KVVec<AtomicUsize>,
    mask: usize,
    locks: RawSpinLocks,
    idle: Idle,
}

/// The bucket of a key.
#[derive(Clone, Copy)]
struct Home<'a> {
    bucket: &'a AtomicUsize,
    index: usize,
    /// The bit of the key's class.
    class: usize,
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
pub(crate) struct CarriedOff;

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
            mask: count.wrapping_sub(1),
            buckets,
            locks: RawSpinLocks::new(locks, &LOCKS)?,
            idle: Idle::new(cap)?,
        })
    }

    /// The number of buckets.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Returns false if the filter of the key's bucket lacks the key, so that no record of it is in the store.
    /// One load, and no RCU section.
    #[inline(always)]
    pub(crate) fn may_contain(&self, key: usize) -> bool {
        let home = self.home(key);
        home.bucket.load(Acquire) & home.class != 0
    }

    /// Finds the record of `key`, unless that takes more than one walk.
    #[inline(always)]
    pub(crate) fn get_at_once(
        &self,
        key: usize,
        rcu: &rcu::Guard,
    ) -> Result<Option<Words>, CarriedOff> {
        read(key, self.home(key), rcu)
    }

    /// Finds the record of `key`.
    #[inline(always)]
    pub(crate) fn get(&self, key: usize, rcu: &rcu::Guard) -> Option<Words> {
        match read(key, self.home(key), rcu) {
            Ok(words) => words,
            Err(CarriedOff) => self.get_again(key, rcu),
        }
    }

    /// Does the same where a first walk failed.
    #[cold]
    fn get_again(&self, key: usize, rcu: &rcu::Guard) -> Option<Words> {
        let home = self.home(key);
        for _ in 1..TRIES {
            if let Ok(words) = read(key, home, rcu) {
                return words;
            }
        }
        let _held = self.lock(home.index)?.lock();
        // Nothing carries a walk off now.
        read(key, home, rcu).ok()?
    }

    /// Adds a record of `words`. The key must not be 0, and have none. No lock.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: nothing has changed then.
    #[inline(always)]
    pub(crate) fn insert(&self, key: usize, words: impl FnOnce() -> Words) -> Result {
        let node = match self.idle.take() {
            Some(node) => node,
            None => self.idle.allocate().ok_or(ENOMEM)?,
        };
        let node = node.into_raw();
        let home = self.home(key);
        let address = node.as_ptr() as usize;
        // SAFETY: By the invariant of `IdleNode` the node is ours. Readers may stand on it: all of it is
        // atomic.
        let node = unsafe { node.as_ref() };
        node.fill(&words());
        let mut first = home.bucket.load(Acquire);
        loop {
            node.set_next(first & !FILTER);
            let bucket = address | first & FILTER | home.class;
            // INVARIANT: The node is complete but for its key before it is reachable, and leads to the chain
            // as it is. Its class is in the filter. If this fails, another CPU changed the bucket.
            match home
                .bucket
                .compare_exchange_weak(first, bucket, AcqRel, Acquire)
            {
                Ok(_) => break,
                Err(other) => first = other,
            }
        }
        // INVARIANT: Only now, so that a remover of the next node never takes this one for its predecessor
        // while it is in no chain.
        node.set_key(key);
        Ok(())
    }

    /// Removes the record of `key` and returns it. No other call removes a record of this key at the same
    /// time, and the one that inserted it has ended.
    #[inline(always)]
    pub(crate) fn remove(&self, key: usize) -> Option<Words> {
        let home = self.home(key);
        let lock = self.lock(home.index)?;
        let held = lock.lock();
        let first = self.unlink_first(key, home, &held);
        drop(held);
        let node = match first {
            Some(node) => node,
            None => self.unlink_behind(key)?,
        };
        // SAFETY: The node is in no chain, and so ours. Readers may stand on it: all of it is atomic.
        let words = unsafe { node.as_ref() }.words();
        // INVARIANT (IdleNode): Just unlinked and cleared, under the lock of the bucket that it was in.
        // SAFETY: As above.
        self.idle.give(unsafe { IdleNode::from_raw(node) });
        Some(words)
    }

    /// Unlinks a node that may have others before it.
    #[inline(never)]
    fn unlink_behind(&self, key: usize) -> Option<NonNull<Node>> {
        let home = self.home(key);
        let lock = self.lock(home.index)?;
        let rcu = rcu::read_lock();
        for _ in 0..TRIES {
            match find(key, home, &rcu) {
                Ok(None) => return None,
                Ok(Some(place)) => {
                    let held = lock.lock();
                    if self.is_current(&place, key, home) {
                        if let Some(node) = self.unlink(&place, &held) {
                            return Some(node);
                        }
                    }
                }
                Err(CarriedOff) => {}
            }
        }
        let held = lock.lock();
        // The first time an insert may come before the node. Then the node has one before it, which stays.
        for _ in 0..2 {
            let place = find(key, home, &rcu).ok()??;
            if let Some(node) = self.unlink(&place, &held) {
                return Some(node);
            }
        }
        None
    }

    /// Unlinks the first node of a chain if it is the key's. The guard shows that the bucket's lock is held.
    #[inline(always)]
    fn unlink_first(&self, key: usize, home: Home<'_>, held: &Guard<'_>) -> Option<NonNull<Node>> {
        let first = home.bucket.load(Acquire) & !FILTER;
        // SAFETY: As the bucket's lock is held, the link is that of the chain.
        let node = unsafe { node_in_chain(first, held) }?;
        if node.key() != key {
            return None;
        }
        let link = Link::Bucket(home.bucket);
        self.unlink(&Place { link, node }, held)
    }

    /// Takes a node out of its chain, and clears it. The place must be current, and the guard shows that it
    /// stays so, except that inserts come before the first node: then this returns `None`.
    #[inline(always)]
    fn unlink(&self, place: &Place<'_>, held: &Guard<'_>) -> Option<NonNull<Node>> {
        let node = place.node;
        let next = node.next();
        match place.link {
            Link::Bucket(bucket) => {
                let first = bucket.load(Acquire);
                if first & !FILTER != core::ptr::from_ref(node) as usize {
                    return None;
                }
                let classes = if is_marker(next) {
                    0
                } else {
                    self.classes(next, first, held)
                };
                bucket
                    .compare_exchange(first, next | classes, AcqRel, Acquire)
                    .ok()?;
            }
            Link::Node(before) => before.set_next(next),
        }
        node.clear();
        Some(NonNull::from(node))
    }

    /// The filter of a chain that will begin with `next`, where `bucket` is the bucket's word now: the class of
    /// a single node. For more nodes the bits of now, also those of nodes that are gone.
    #[inline(never)]
    fn classes(&self, next: usize, bucket: usize, held: &Guard<'_>) -> usize {
        // SAFETY: The callers' link is that of the chain, and the bucket's lock is held.
        match unsafe { node_in_chain(next, held) } {
            Some(last) if is_marker(last.next()) && last.key() != 0 => self.home(last.key()).class,
            _ => bucket & FILTER,
        }
    }

    /// Whether a place that was found before the bucket's lock was taken is one of this chain, and the
    /// key's.
    fn is_current(&self, place: &Place<'_>, key: usize, home: Home<'_>) -> bool {
        let node = core::ptr::from_ref(place.node) as usize;
        let leads_here = match place.link {
            Link::Bucket(bucket) => bucket.load(Acquire) & !FILTER == node,
            // By the type invariant the key shows whether a node is in a chain, and in which one.
            Link::Node(before) => {
                let other = before.key();
                other != 0 && self.home(other).index == home.index && before.next() == node
            }
        };
        leads_here && place.node.key() == key
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
        let (Some(bucket), Some(lock)) = (self.buckets.get(index), self.lock(index)) else {
            return;
        };
        let mut copies = [(0, Words::default()); COPIED];
        for _ in 0..TRIES {
            if let Some(count) = copy(index, bucket, &mut copies, |key| self.home(key).index, rcu) {
                for (key, words) in copies.iter().take(count) {
                    f(*key, words);
                }
                return;
            }
        }
        let _held = lock.lock();
        let mut next = bucket.load(Acquire) & !FILTER;
        // SAFETY: Each link is loaded below in the section of `rcu`, from the bucket or a node.
        while let Some(node) = unsafe { node_at(next, rcu) } {
            // The key is 0 while the node is inserted.
            let key = node.key();
            if key != 0 {
                f(key, &node.words());
            }
            next = node.next();
        }
    }

    /// The bucket of a key, and the key's class: low bits of the hash and its two highest.
    #[inline(always)]
    fn home(&self, key: usize) -> Home<'_> {
        let hash = hash(key);
        let index = hash as usize & self.mask;
        // SAFETY: By the type invariant `mask` is the index of the last bucket.
        let bucket = unsafe { self.buckets.get_unchecked(index) };
        Home {
            bucket,
            index,
            class: 1 << (hash >> (u32::BITS - FILTER.count_ones().ilog2())),
        }
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
            let mut next = bucket.load(Acquire) & !FILTER;
            while !is_marker(next) {
                let Some(node) = NonNull::new(next as *mut Node) else {
                    break;
                };
                // SAFETY: `&mut self`: no reader and no writer is left. By the type invariant the links of
                // a chain lead to nodes.
                next = unsafe { node.as_ref() }.next();
                // INVARIANT (IdleNode): The whole chain is ours, and nothing walks over it any more.
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

/// The end of a bucket's chain. An empty bucket has it with an empty filter.
#[inline(always)]
fn marker(index: usize) -> usize {
    (index << (MARKER + 1)) | (1 << MARKER)
}

#[inline(always)]
fn is_marker(link: usize) -> bool {
    link & (1 << MARKER) != 0
}

/// The node that a link leads to, if it is no end.
///
/// # Safety
///
/// The link must have been loaded in the section that the guard stands for, from a bucket or a node that this
/// function returned in the section.
#[inline(always)]
unsafe fn node_at(link: usize, _rcu: &rcu::Guard) -> Option<&Node> {
    if is_marker(link) {
        return None;
    }
    // SAFETY: By the function's safety requirements and the invariant of `Store` the link is the address of a
    // node, which was one at some time of the section, and so is one until the section ends. The acquire of
    // the link orders the node's first values before what is read here. All of it is atomic.
    Some(unsafe { &*(link as *const Node) })
}

/// The node that a link of a chain leads to, if it is no end.
///
/// # Safety
///
/// The lock of the chain's bucket must be held, as the guard shows, and the link loaded since from the bucket
/// or a node of the chain.
#[inline(always)]
unsafe fn node_in_chain<'a>(link: usize, _held: &'a Guard<'_>) -> Option<&'a Node> {
    if is_marker(link) {
        return None;
    }
    // SAFETY: By the function's safety requirements and the invariants of `Store` this is a node that stays
    // in the chain while the lock is held: no RCU section is needed. All of it is atomic.
    Some(unsafe { &*(link as *const Node) })
}

/// Walks over a chain to the key's node.
#[inline(always)]
fn find<'rcu>(
    key: usize,
    home: Home<'rcu>,
    rcu: &'rcu rcu::Guard,
) -> Result<Option<Place<'rcu>>, CarriedOff> {
    let mut link = Link::Bucket(home.bucket);
    let mut next = home.bucket.load(Acquire) & !FILTER;
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
    if next == marker(home.index) {
        Ok(None)
    } else {
        Err(CarriedOff)
    }
}

/// Copies the words of the key's record.
#[inline(always)]
fn read(key: usize, home: Home<'_>, rcu: &rcu::Guard) -> Result<Option<Words>, CarriedOff> {
    match find(key, home, rcu)? {
        None => Ok(None),
        Some(place) => place.node.words_of(key).map(Some).ok_or(CarriedOff),
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
    let mut next = bucket.load(Acquire) & !FILTER;
    // SAFETY: Each link is loaded in the section of `rcu`, from the bucket or a node.
    while let Some(node) = unsafe { node_at(next, rcu) } {
        let key = node.key();
        // A node that is inserted, of no bucket, or of another one, or one of this bucket for the second
        // time.
        if key == 0 || of(key) != index || copies.iter().take(count).any(|copy| copy.0 == key) {
            return None;
        }
        // Nothing holds the socket: the key may be that of its memory's next one, whose record came between
        // two words. Then a second copy differs, because it has all words that the first one has, or later
        // ones.
        let words = node.words_of(key)?;
        if node.key() != key || node.words_of(key)? != words {
            return None;
        }
        *copies.get_mut(count)? = (key, words);
        count = count.wrapping_add(1);
        next = node.next();
    }
    (next == marker(index)).then_some(count)
}

/// Spreads the bits of an address: Fibonacci hashing, as `hash_64` of `include/linux/hash.h`.
/// Slab objects are aligned, so the high half of the product, where most bits of the key meet, is
/// what is used.
#[inline(always)]
fn hash(key: usize) -> u32 {
    ((key as u64).wrapping_mul(0x61C8_8646_80B5_83EB) >> u32::BITS) as u32
}
