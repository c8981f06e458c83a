// SPDX-License-Identifier: GPL-2.0

//! Atomic words, by loom's.

use crate::model;
use crate::model::Need;
use crate::sync::atomic::Atomic;
pub(crate) use loom::sync::atomic::Ordering;

/// The ordering that a model has in the place of another one.
fn weakened(ordering: Ordering) -> Ordering {
    match ordering {
        Ordering::Acquire if model::lacks(Need::Acquire) => Ordering::Relaxed,
        Ordering::Release if model::lacks(Need::Release) => Ordering::Relaxed,
        Ordering::AcqRel if model::lacks(Need::Acquire) => Ordering::Release,
        Ordering::AcqRel if model::lacks(Need::Release) => Ordering::Acquire,
        ordering => ordering,
    }
}

pub(crate) struct AtomicI64(Atomic<i64>);

impl AtomicI64 {
    pub(crate) const fn new(value: i64) -> Self {
        Self(Atomic::new(value))
    }

    pub(crate) fn load(&self, ordering: Ordering) -> i64 {
        self.0.load_as(weakened(ordering))
    }

    pub(crate) fn fetch_add(&self, delta: i64, ordering: Ordering) -> i64 {
        self.0.fetch_add_as(delta, weakened(ordering))
    }

    pub(crate) fn fetch_sub(&self, delta: i64, ordering: Ordering) -> i64 {
        self.0
            .fetch_add_as(delta.wrapping_neg(), weakened(ordering))
    }
}

pub(crate) struct AtomicU64(Atomic<u64>);

impl AtomicU64 {
    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        self.0.load_as(weakened(ordering))
    }

    pub(crate) fn store(&self, value: u64, ordering: Ordering) {
        self.0.store_as(value, weakened(ordering));
    }
}

pub(crate) struct AtomicUsize(Atomic<u64>);

impl AtomicUsize {
    pub(crate) const fn new(value: usize) -> Self {
        Self(Atomic::new(value as u64))
    }

    pub(crate) fn load(&self, ordering: Ordering) -> usize {
        self.0.load_as(weakened(ordering)) as usize
    }

    pub(crate) fn store(&self, value: usize, ordering: Ordering) {
        self.0.store_as(value as u64, weakened(ordering));
    }

    pub(crate) fn swap(&self, value: usize, ordering: Ordering) -> usize {
        self.0.swap_as(value as u64, weakened(ordering)) as usize
    }

    pub(crate) fn compare_exchange(
        &self,
        expected: usize,
        value: usize,
        success: Ordering,
        failure: Ordering,
    ) -> Result<usize, usize> {
        let [success, failure] = [success, failure].map(weakened);
        self.0
            .compare_exchange_as(expected as u64, value as u64, success, failure)
            .map(|before| before as usize)
            .map_err(|before| before as usize)
    }

    /// Never fails without a reason here.
    pub(crate) fn compare_exchange_weak(
        &self,
        expected: usize,
        value: usize,
        success: Ordering,
        failure: Ordering,
    ) -> Result<usize, usize> {
        self.compare_exchange(expected, value, success, failure)
    }
}
