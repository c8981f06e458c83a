// SPDX-License-Identifier: GPL-2.0

//! Counts with bounds, which all CPUs take and give back without a lock.
//!
//! The tests of `tests/loom` compile this file too.

use crate::linux::atomic::{
    AtomicI64,
    Ordering::Relaxed, //
};

/// A count. It may exceed its bound while a CPU that was refused subtracts its one again.
pub(crate) type Count = AtomicI64;

/// Adds one to all counts, or to none if one of them has reached its bound, which is then the error.
#[inline(always)]
pub(crate) fn take_one(counts: &[(&Count, i64)]) -> Result<(), i64> {
    for (taken, &(count, bound)) in counts.iter().enumerate() {
        if count.fetch_add(1, Relaxed) >= bound {
            count.fetch_sub(1, Relaxed);
            give_one_back(counts.get(..taken).unwrap_or_default());
            return Err(bound);
        }
    }
    Ok(())
}

/// Returns by how much a count exceeds another one that is part of it.
pub(crate) fn excess(count: &Count, part: &Count) -> i64 {
    count.load(Relaxed).saturating_sub(part.load(Relaxed))
}

/// Subtracts one from all counts.
#[inline(always)]
pub(crate) fn give_one_back(counts: &[(&Count, i64)]) {
    for (count, _) in counts {
        count.fetch_sub(1, Relaxed);
    }
}
