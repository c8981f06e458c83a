// SPDX-License-Identifier: GPL-2.0

//! Idle nodes, so that no hook needs the allocator.
//!
//! Each CPU keeps up to two batches of them, which only code with interrupts off on this CPU touches. It
//! trades whole batches with a reserve, under the reserve's lock. A worker allocates batches when the
//! reserve runs low, and frees some when it holds many. Each operation of a hook is a few instructions,
//! whatever the lengths.

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
        self,
        LockClass,
        RawSpinLocks, //
    },
    slab_cache::SlabCache,
    task,
    worker::{
        Work,
        Worker, //
    }, //
};
use core::ptr::NonNull;
use kernel::cpu::nr_cpu_ids;
use kernel::prelude::*;

/// The nodes of a batch.
const BATCH: usize = 16;

/// The most batches of the reserve: 256 KiB of nodes, and 1 MiB on PREEMPT_RT, where no hook allocates.
const MOST: usize = if cfg!(CONFIG_PREEMPT_RT) { 1024 } else { 256 };

/// The fewest batches that the reserve may hold, whatever the cap, beside two for each CPU.
const FEWEST: usize = 2;

/// Taken while a bucket's lock is held, or alone.
static LOCK: LockClass = LockClass::new(c"toa_idle");

/// A node that only its owner uses, and that is in no bucket.
///
/// # Invariants
///
/// The node is of the cache, its key is 0, and nothing else links or frees it. Readers may stand on it.
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

/// Idle nodes of a CPU: addresses of first nodes, whose [`Node::link`]s lead to the others. 0 is none.
///
/// # Invariants
///
/// Only the CPU itself, with interrupts off, changes it while it runs. `current` leads to `len` idle
/// nodes, and `spare` to none or to a whole batch. Nothing else leads to them.
struct Local {
    current: AtomicUsize,
    len: AtomicUsize,
    spare: AtomicUsize,
}

// SAFETY: Zeroes are valid atomic integers, and stand for no nodes.
unsafe impl Zeroable for Local {}

/// Whole batches that any CPU may take.
///
/// # Invariants
///
/// Changed under the lock. `first` leads to `count` first nodes by their [`Node::batch`]es, each of
/// which leads to a batch of idle nodes. Nothing else leads to them.
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

    /// Takes an idle node. The guard shows that interrupts are off.
    #[inline(always)]
    pub(crate) fn take(&self, off: &raw_spinlock::Guard<'_>) -> Option<IdleNode> {
        self.pool.get().take(off)
    }

    /// Gives a node back. The guard shows that interrupts are off.
    #[inline(always)]
    pub(crate) fn give(&self, node: IdleNode, off: &raw_spinlock::Guard<'_>) {
        self.pool.get().give(node, off);
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

    /// Asks for a run of the worker if it has something to do. No lock of ours may be held.
    #[inline(always)]
    pub(crate) fn balance_soon(&self) {
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
    fn take(&self, off: &raw_spinlock::Guard<'_>) -> Option<IdleNode> {
        let local = self.local.local();
        let node = match NonNull::new(local.current.load(Relaxed) as *mut Node) {
            Some(node) => node,
            None => self.refill(local, off)?,
        };
        // INVARIANT: By the invariant of `Local`, of which the node is no longer a part.
        let node = IdleNode(node);
        local.current.store(node.node().link(), Relaxed);
        let len = local.len.load(Relaxed).wrapping_sub(1);
        local.len.store(len, Relaxed);
        Some(node)
    }

    /// Makes the spare batch, or one of the reserve, the CPU's current one. Returns its first node.
    #[inline(never)]
    fn refill(&self, local: &Local, _off: &raw_spinlock::Guard<'_>) -> Option<NonNull<Node>> {
        let spare = NonNull::new(local.spare.load(Relaxed) as *mut Node);
        let batch = match spare {
            Some(batch) => {
                local.spare.store(0, Relaxed);
                batch
            }
            None => self.reserve.take()?.0,
        };
        local.current.store(batch.as_ptr() as usize, Relaxed);
        local.len.store(BATCH, Relaxed);
        Some(batch)
    }

    #[inline(always)]
    fn give(&self, node: IdleNode, off: &raw_spinlock::Guard<'_>) {
        let local = self.local.local();
        if local.len.load(Relaxed) == BATCH {
            self.make_room(local, off);
        }
        node.node().set_link(local.current.load(Relaxed));
        local.current.store(node.address(), Relaxed);
        let len = local.len.load(Relaxed).wrapping_add(1);
        local.len.store(len, Relaxed);
    }

    /// Makes the CPU's current batch, which is whole, its spare one. A batch that was spare goes to the
    /// reserve.
    #[inline(never)]
    fn make_room(&self, local: &Local, _off: &raw_spinlock::Guard<'_>) {
        let spare = NonNull::new(local.spare.load(Relaxed) as *mut Node);
        local.spare.store(local.current.load(Relaxed), Relaxed);
        local.current.store(0, Relaxed);
        local.len.store(0, Relaxed);
        if let Some(batch) = spare {
            // INVARIANT: By the invariant of `Local`, of which the batch is no longer a part.
            self.reserve.give(IdleNode(batch));
        }
    }

    /// Whether the worker has something to do.
    #[inline(always)]
    fn is_out_of_balance(&self) -> bool {
        let (low, high) = self.bounds;
        let count = self.reserve.count();
        count < low || count > high
    }

    fn free(&self, node: IdleNode) {
        // SAFETY: By the type invariant of `IdleNode`.
        unsafe { self.cache.free(node.0) };
    }

    /// Frees the nodes of a CPU that runs nothing of ours.
    fn free_local(&self, cpu: PossibleCpu) {
        let local = self.local.cpu(cpu);
        for first in [&local.current, &local.spare] {
            self.free_linked(first.load(Relaxed));
            first.store(0, Relaxed);
        }
        local.len.store(0, Relaxed);
    }

    /// Frees the nodes that [`Node::link`]s lead to.
    fn free_linked(&self, mut first: usize) {
        while let Some(node) = NonNull::new(first as *mut Node) {
            // INVARIANT: The callers' nodes are idle, and nothing else leads to them.
            let node = IdleNode(node);
            first = node.node().link();
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
