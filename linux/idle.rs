// SPDX-License-Identifier: GPL-2.0

//! Idle nodes, so that no hook needs the allocator.
//!
//! Each CPU keeps up to [`AT_HAND`] of them in [`Slots`]. It trades batches with a reserve, under the
//! reserve's lock. A worker allocates batches when the reserve runs low, and frees some when it holds many.
//! Each operation of a hook is a few instructions, but for one in some that trades a batch.

use crate::linux::{
    atomic::{
        AtomicUsize,
        Ordering::Relaxed, //
    },
    cpu_hotplug::{
        self,
        Offline,
        Registered, //
    },
    node::Node,
    percpu::{
        possible_cpus,
        PerCpu,
        PossibleCpu, //
    },
    raw_spinlock::{
        LockClass,
        RawSpinLocks, //
    },
    slab_cache::SlabCache,
    slots::Slots,
    task,
    worker::{
        Work,
        Worker, //
    }, //
};
use core::iter;
use core::ptr::NonNull;
use kernel::cpu::nr_cpu_ids;
use kernel::prelude::*;

/// The most nodes of a batch.
const BATCH: usize = 16;

/// The most idle nodes of a CPU.
const AT_HAND: usize = 32;

/// The most batches of the reserve: 256 KiB of nodes, and 1 MiB on PREEMPT_RT, where no hook allocates.
const MOST: usize = if cfg!(CONFIG_PREEMPT_RT) { 1024 } else { 256 };

/// The fewest batches that the reserve may hold, whatever the cap, beside two for each CPU.
const FEWEST: usize = 2;

/// Taken alone.
static LOCK: LockClass = LockClass::new(c"toa_idle");

/// A node that only its owner uses, and that is in no bucket.
///
/// # Invariants
///
/// The node is of the cache, and nothing else links, removes or frees it. Its key is 0, unless the store is
/// dropped. Readers may stand on it.
pub(crate) struct IdleNode(NonNull<Node>);

impl IdleNode {
    /// # Safety
    ///
    /// The type invariant must be true of the node.
    pub(crate) unsafe fn from_raw(node: NonNull<Node>) -> Self {
        // INVARIANT: By the function's safety requirements.
        Self(node)
    }

    /// The node, which is the caller's now.
    pub(crate) fn into_raw(self) -> NonNull<Node> {
        self.0
    }

    #[inline(always)]
    fn node(&self) -> &Node {
        // SAFETY: By the type invariant the memory is a node, all of it atomic.
        unsafe { self.0.as_ref() }
    }

    fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }
}

/// Idle nodes of a CPU, by their addresses.
///
/// # Invariants
///
/// Each address in the slots is that of an idle node, and nothing else leads to it.
struct Local(Slots<AT_HAND>);

// SAFETY: Zeroes are valid atomic integers, and stand for no nodes.
unsafe impl Zeroable for Local {}

/// Batches that any CPU may take.
///
/// # Invariants
///
/// Changed under the lock. `first` leads to `count` first nodes by their [`Node::batch`]es, each of
/// which leads to a batch of idle nodes by their [`Node::link`]s. Nothing else leads to them.
struct Reserve {
    lock: RawSpinLocks,
    first: AtomicUsize,
    count: AtomicUsize,
}

/// The idle nodes, and the cache that all nodes come from. The fields are dropped in their order.
pub(crate) struct Idle {
    _offline: cpu_hotplug::Registration<Pool>,
    pool: Worker<Pool>,
}

impl Idle {
    /// Allocates idle nodes for a table of at most `cap` records: 1/64 of them in the reserve, within
    /// bounds for the smallest and the largest tables. There can be one such value. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and those of [`cpu_hotplug::Registration::new`].
    pub(crate) fn new(cap: usize) -> Result<Self> {
        let pool = Worker::new(Pool::new(cap)?)?;
        Ok(Self {
            // SAFETY: The worker's value stays in its place, and is dropped later.
            _offline: unsafe { cpu_hotplug::Registration::new(pool.get())? },
            pool,
        })
    }

    /// Takes an idle node. Any context but NMI; no lock of ours may be held.
    #[inline(always)]
    pub(crate) fn take(&self) -> Option<IdleNode> {
        let pool = self.pool.get();
        pool.take_at_hand().or_else(|| self.refill())
    }

    /// Gives a node back. Any context but NMI; no lock of ours may be held.
    #[inline(always)]
    pub(crate) fn give(&self, node: IdleNode) {
        if let Some(other) = self.pool.get().give_at_hand(node) {
            self.make_room(other);
        }
    }

    /// Takes a node of the reserve, and its batch to this CPU.
    #[inline(never)]
    fn refill(&self) -> Option<IdleNode> {
        let node = self.pool.get().refill();
        self.balance_soon();
        node
    }

    /// Gives a batch to the reserve: a node that has no place at hand, and others that have.
    #[inline(never)]
    fn make_room(&self, node: IdleNode) {
        self.pool.get().make_room(node);
        self.balance_soon();
    }

    /// Allocates a node from the cache, in the contexts of hooks. The last resort: it may take the
    /// allocator's locks. None on PREEMPT_RT.
    #[inline(never)]
    pub(crate) fn allocate(&self) -> Option<IdleNode> {
        // INVARIANT: New.
        self.pool.get().cache.allocate_atomic().map(IdleNode)
    }

    /// Frees a node. Process context.
    pub(crate) fn free(&self, node: IdleNode) {
        self.pool.get().free(node);
    }

    /// Asks for a run of the worker if it has something to do.
    fn balance_soon(&self) {
        if self.pool.get().is_out_of_balance() {
            self.pool.wake();
        }
    }
}

/// The idle nodes, as hooks and the worker share them.
struct Pool {
    local: PerCpu<Local>,
    reserve: Reserve,
    /// The least and the most batches in the reserve at which the worker has nothing to do.
    bounds: (usize, usize),
    cache: SlabCache,
}

impl Pool {
    /// Fills the reserve. May sleep.
    fn new(cap: usize) -> Result<Self> {
        let cpus = nr_cpu_ids() as usize;
        let fewest = cpus.saturating_mul(2).saturating_add(FEWEST);
        let most = (cap / 64 / BATCH).min(MOST).max(fewest);
        let pool = Self {
            local: PerCpu::new()?,
            reserve: Reserve {
                lock: RawSpinLocks::new(1, &LOCK)?,
                first: AtomicUsize::new(0),
                count: AtomicUsize::new(0),
            },
            bounds: (most / 2, most),
            cache: SlabCache::new()?,
        };
        let (low, _) = pool.bounds;
        pool.fill(low);
        if pool.reserve.count() < low {
            return Err(ENOMEM);
        }
        Ok(pool)
    }

    #[inline(always)]
    fn take_at_hand(&self) -> Option<IdleNode> {
        idle(self.local.local().0.take())
    }

    /// Returns a node that has no place.
    #[inline(always)]
    fn give_at_hand(&self, node: IdleNode) -> Option<IdleNode> {
        idle(self.local.local().0.give(node.address()))
    }

    fn refill(&self) -> Option<IdleNode> {
        let node = self.reserve.take()?;
        let mut rest = idle(node.node().link());
        while let Some(node) = rest {
            rest = idle(node.node().link());
            if let Some(other) = self.give_at_hand(node) {
                self.make_room(other);
            }
        }
        Some(node)
    }

    fn make_room(&self, mut first: IdleNode) {
        first.node().set_link(0);
        // The hint of the slots may be wrong, and a batch should be whole.
        let local = &self.local.local().0;
        let rest = local.drain().filter_map(idle);
        let others = Iterator::chain(iter::from_fn(|| self.take_at_hand()), rest);
        for node in others.take(BATCH - 1) {
            node.node().set_link(first.address());
            first = node;
        }
        self.reserve.give(first);
    }

    /// Whether the worker has something to do.
    fn is_out_of_balance(&self) -> bool {
        let (low, high) = self.bounds;
        let count = self.reserve.count();
        count < low || count > high
    }

    fn free(&self, node: IdleNode) {
        // SAFETY: By the type invariant of `IdleNode`.
        unsafe { self.cache.free(node.0) };
    }

    /// Frees the nodes of a CPU that went offline, or of any if no hook runs any more. A task that left the
    /// CPU just before may still give it a node, which the CPU has when it is back.
    fn free_local(&self, cpu: PossibleCpu) {
        for node in self.local.cpu(cpu).0.drain().filter_map(idle) {
            self.free(node);
        }
    }

    /// Frees the nodes that [`Node::link`]s lead to.
    fn free_linked(&self, first: usize) {
        let mut rest = idle(first);
        while let Some(node) = rest {
            rest = idle(node.node().link());
            self.free(node);
        }
    }

    /// Allocates a batch.
    fn allocate_batch(&self) -> Option<IdleNode> {
        let mut first = 0;
        for _ in 0..BATCH {
            let Some(node) = self.cache.allocate() else {
                self.free_linked(first);
                return None;
            };
            // INVARIANT: New.
            let node = IdleNode(node);
            node.node().set_link(first);
            first = node.address();
        }
        // INVARIANT: The last one, which leads to the others.
        NonNull::new(first as *mut Node).map(IdleNode)
    }

    /// Fills the reserve to its upper bound, or frees what exceeds the middle. May sleep.
    fn balance(&self) {
        let (low, high) = self.bounds;
        if self.reserve.count() > high {
            let middle = low.saturating_add(high) / 2;
            while self.reserve.count() > middle {
                let Some(batch) = self.reserve.take() else {
                    return;
                };
                self.free_linked(batch.address());
                task::yield_processor();
            }
        }
        if self.reserve.count() < low {
            self.fill(high);
        }
    }

    /// Adds batches to the reserve until it has so many, or there is no memory. May sleep.
    fn fill(&self, count: usize) {
        while self.reserve.count() < count {
            let Some(batch) = self.allocate_batch() else {
                return;
            };
            self.reserve.give(batch);
            task::yield_processor();
        }
    }
}

/// The node of an address that nothing else leads to any more, by the invariants of [`Local`], [`Reserve`] and
/// batches. 0 is none.
#[inline(always)]
fn idle(address: usize) -> Option<IdleNode> {
    // INVARIANT: The callers take the address out of one of these.
    NonNull::new(address as *mut Node).map(IdleNode)
}

impl Work for Pool {
    fn work(&self) {
        self.balance();
    }
}

static POOL: Registered<Pool> = Registered::none();

impl Offline for Pool {
    fn registered() -> &'static Registered<Self> {
        &POOL
    }

    fn went_offline(&self, cpu: PossibleCpu) {
        self.free_local(cpu);
    }
}

impl Drop for Pool {
    /// Frees all idle nodes. May sleep. No hook runs any more.
    fn drop(&mut self) {
        while let Some(batch) = self.reserve.take() {
            self.free_linked(batch.address());
        }
        for cpu in possible_cpus() {
            self.free_local(cpu);
        }
    }
}

impl Reserve {
    /// The batches. Changes as soon as it is returned.
    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Takes a batch, which its first node stands for.
    fn take(&self) -> Option<IdleNode> {
        let _held = self.lock.get(0)?.lock();
        let batch = NonNull::new(self.first.load(Relaxed) as *mut Node)?;
        // INVARIANT: By the type invariant, of which the batch is no longer a part.
        let batch = IdleNode(batch);
        self.first.store(batch.node().batch(), Relaxed);
        self.count.store(self.count().wrapping_sub(1), Relaxed);
        Some(batch)
    }

    /// Gives a batch back.
    fn give(&self, batch: IdleNode) {
        let Some(lock) = self.lock.get(0) else {
            return;
        };
        let _held = lock.lock();
        batch.node().set_batch(self.first.load(Relaxed));
        self.first.store(batch.address(), Relaxed);
        self.count.store(self.count().wrapping_add(1), Relaxed);
    }
}
