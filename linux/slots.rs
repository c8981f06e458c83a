// SPDX-License-Identifier: GPL-2.0

//! Places for values that a CPU keeps at hand, without a lock.
//!
//! Each place is emptied and filled by one atomic swap, so a value has one owner at any time, whatever
//! interrupts the code, or moves it to another CPU. The next place is a hint: a wrong one finds a place
//! empty, or takes another value out of it, which the caller gets.
//!
//! The tests of `tests/loom` compile this file too.

use crate::linux::atomic::{
    AtomicUsize,
    Ordering::{
        AcqRel,
        Relaxed, //
    }, //
};

/// `N` places, a power of two. Zeroes are empty places.
pub(crate) struct Slots<const N: usize> {
    /// The place to fill next. The one before it was filled last.
    next: AtomicUsize,
    places: [AtomicUsize; N],
}

impl<const N: usize> Slots<N> {
    /// The most values.
    pub(crate) const LEN: usize = {
        assert!(N.is_power_of_two());
        N
    };

    /// Empty places, for the tests.
    #[cfg(test)]
    pub(crate) const fn new() -> Self {
        Self {
            next: AtomicUsize::new(0),
            places: [const { AtomicUsize::new(0) }; N],
        }
    }

    /// Takes the value that was given last. 0 if there is none, or rarely, if others come between.
    #[inline(always)]
    pub(crate) fn take(&self) -> usize {
        let last = self.next.load(Relaxed).wrapping_sub(1);
        let value = self.at(last).swap(0, AcqRel);
        if value != 0 {
            self.next.store(last, Relaxed);
        }
        value
    }

    /// Gives a value, which is not 0. Returns the value in whose place it is now, which is the caller's, or
    /// 0.
    #[inline(always)]
    pub(crate) fn give(&self, value: usize) -> usize {
        let next = self.next.load(Relaxed);
        let other = self.at(next).swap(value, AcqRel);
        self.next.store(next.wrapping_add(1), Relaxed);
        other
    }

    /// Takes all values, one at each call of the iterator.
    pub(crate) fn drain(&self) -> impl Iterator<Item = usize> + '_ {
        self.places
            .iter()
            .map(|place| place.swap(0, AcqRel))
            .filter(|value| *value != 0)
    }

    #[inline(always)]
    fn at(&self, place: usize) -> &AtomicUsize {
        &self.places[place & (Self::LEN - 1)]
    }
}
