// SPDX-License-Identifier: GPL-2.0

//! Atomic primitives, by loom's.
//!
//! The module makes atomics in constant expressions, and loom makes its own only while a model runs. So
//! an [`Atomic`] takes a twin at its first access. All twins exist before the first thread begins. They are
//! zero at first, and hold the difference to the value that the [`Atomic`] was made with.

use crate::memory;
use crate::model;
use crate::model::Need;
use core::cell::Cell;
use core::cell::RefCell;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering;
use std::rc::Rc;

/// The annotation of an operation's order.
pub(crate) trait Any {
    /// The ordering in loom.
    fn ordering() -> Ordering;
}

/// No ordering with other operations.
pub(crate) struct Relaxed;

/// Orders what precedes the store before it.
pub(crate) struct Release;

impl Any for Relaxed {
    fn ordering() -> Ordering {
        Ordering::Relaxed
    }
}

impl Any for Release {
    fn ordering() -> Ordering {
        if model::lacks(Need::Release) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        }
    }
}

/// Types that support atomic operations. The bits of two values must be equal if the values are.
pub(crate) trait AtomicType: Copy {
    fn to_bits(self) -> u64;

    fn from_bits(bits: u64) -> Self;
}

impl AtomicType for i64 {
    fn to_bits(self) -> u64 {
        self as u64
    }

    fn from_bits(bits: u64) -> Self {
        bits as Self
    }
}

impl AtomicType for u64 {
    fn to_bits(self) -> u64 {
        self
    }

    fn from_bits(bits: u64) -> Self {
        bits
    }
}

impl<T> AtomicType for *mut T {
    fn to_bits(self) -> u64 {
        self.expose_provenance() as u64
    }

    fn from_bits(bits: u64) -> Self {
        core::ptr::with_exposed_provenance_mut(bits as usize)
    }
}

/// loom's side of an [`Atomic`].
struct Twin {
    /// The difference to the value at first.
    difference: AtomicU64,
    /// Counts the accesses. Each count writes, so loom tries each order of two accesses.
    ///
    /// loom keeps the last access to an atomic only. If a thread loads and then stores, its load hides
    /// an earlier load of another thread, and loom does not try the store before that load. The counts
    /// are relaxed: they order nothing else.
    accesses: AtomicU64,
}

thread_local! {
    /// The twins of this execution.
    static TWINS: RefCell<Vec<Rc<Twin>>> = const { RefCell::new(Vec::new()) };

    /// How many of them are taken.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// The most atomics that an execution uses.
const MOST: usize = 48;

/// Begins an execution.
pub(crate) fn begin() {
    let twin = |_| {
        Rc::new(Twin {
            difference: AtomicU64::new(0),
            accesses: AtomicU64::new(0),
        })
    };
    TWINS.set((0..MOST).map(twin).collect());
    TAKEN.set(0);
}

/// A value that threads access at the same time.
pub(crate) struct Atomic<T> {
    /// The value at first.
    first: T,
    /// The index of the twin, from the first access on.
    index: Cell<Option<usize>>,
}

// SAFETY: loom runs its threads in one thread of the host.
unsafe impl<T> Sync for Atomic<T> {}

// SAFETY: As above.
unsafe impl<T> Send for Atomic<T> {}

impl<T> Atomic<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            first: value,
            index: Cell::new(None),
        }
    }

    /// Returns the place of the value, for a load as C's `READ_ONCE`.
    pub(crate) fn as_ptr(&self) -> Place<'_, T> {
        Place(self)
    }
}

impl<T: AtomicType> Atomic<T> {
    /// Begins an access, and returns loom's side.
    fn twin(&self) -> Rc<Twin> {
        let index = self.index.get().unwrap_or_else(|| {
            let taken = TAKEN.get();
            TAKEN.set(taken + 1);
            self.index.set(Some(taken));
            taken
        });
        let twin = TWINS.with_borrow(|all| all.get(index).map(Rc::clone));
        let twin = twin.expect("an execution uses MOST atomics at most");
        twin.accesses.fetch_add(1, Ordering::Relaxed);
        twin
    }

    fn at(&self, difference: u64) -> T {
        T::from_bits(self.first.to_bits().wrapping_add(difference))
    }

    fn difference_to(&self, value: T) -> u64 {
        value.to_bits().wrapping_sub(self.first.to_bits())
    }

    pub(crate) fn load<O: Any>(&self, _: O) -> T {
        self.load_as(O::ordering())
    }

    /// A load reads the memory that the atomic is in, and so does a store.
    pub(crate) fn load_as(&self, ordering: Ordering) -> T {
        memory::read(self);
        self.at(self.twin().difference.load(ordering))
    }

    pub(crate) fn store<O: Any>(&self, value: T, _: O) {
        self.store_as(value, O::ordering());
    }

    pub(crate) fn store_as(&self, value: T, ordering: Ordering) {
        memory::read(self);
        let difference = self.difference_to(value);
        self.twin().difference.store(difference, ordering);
    }
}

/// Operations that read and write. If another one has read what such an operation wrote, it is performed,
/// and a free that depends on the other one comes later.
impl Atomic<i64> {
    pub(crate) fn fetch_add<O: Any>(&self, delta: i64, _: O) -> i64 {
        self.fetch_add_as(delta, O::ordering())
    }

    pub(crate) fn fetch_add_as(&self, delta: i64, ordering: Ordering) -> i64 {
        memory::is_live(self);
        let before = self.twin().difference.fetch_add(delta as u64, ordering);
        self.at(before)
    }

    pub(crate) fn fetch_sub<O: Any>(&self, delta: i64, _: O) -> i64 {
        memory::is_live(self);
        self.at(self
            .twin()
            .difference
            .fetch_sub(delta as u64, O::ordering()))
    }
}

impl Atomic<u64> {
    pub(crate) fn swap_as(&self, value: u64, ordering: Ordering) -> u64 {
        memory::is_live(self);
        let difference = self.difference_to(value);
        self.at(self.twin().difference.swap(difference, ordering))
    }

    pub(crate) fn compare_exchange_as(
        &self,
        expected: u64,
        value: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        memory::is_live(self);
        let [expected, value] = [expected, value].map(|value| self.difference_to(value));
        self.twin()
            .difference
            .compare_exchange(expected, value, success, failure)
            .map(|before| self.at(before))
            .map_err(|before| self.at(before))
    }
}

/// The place of an atomic value.
pub(crate) struct Place<'a, T>(&'a Atomic<T>);

impl<T: AtomicType> Place<'_, T> {
    /// Loads the value as C's `READ_ONCE` does. What is read behind a pointer depends on its address, so
    /// it comes later. loom has no such rule, so the load is an acquire.
    ///
    /// # Safety
    ///
    /// None, unlike that of a pointer.
    pub(crate) unsafe fn read_volatile(self) -> T {
        let ordering = if model::lacks(Need::Dependency) {
            Ordering::Relaxed
        } else {
            Ordering::Acquire
        };
        self.0.load_as(ordering)
    }
}
