// SPDX-License-Identifier: GPL-2.0

//! The slots of a CPU, from which tasks and interrupts take values.

use crate::linux::slots::Slots;
use crate::model;
use crate::model::Need;
use crate::sync::atomic::Atomic;
use crate::sync::atomic::Relaxed;
use loom::thread;
use std::sync::Arc;

/// Two values, one of them given before the threads begin, and what their owners write.
struct Shared {
    slots: Slots<2>,
    written: [Atomic<u64>; 2],
}

impl Shared {
    /// Takes a value and writes for it, as its owner.
    fn take(&self) -> Option<usize> {
        let value = self.slots.take();
        if value == 0 {
            return None;
        }
        let written = &self.written[value - 1];
        written.store(written.load(Relaxed) + 1, Relaxed);
        Some(value)
    }

    /// Gives a value, and returns what has no place.
    fn give(&self, value: usize) -> Option<usize> {
        Some(self.slots.give(value)).filter(|other| *other != 0)
    }
}

/// Two threads take what they find and give it back. Each value has one owner all the time.
fn take_and_give() {
    let shared = Arc::new(Shared {
        slots: Slots::new(),
        written: [const { Atomic::new(0) }; 2],
    });
    assert_eq!([1, 2].map(|value| shared.give(value)), [None; 2]);
    let use_some = |shared: &Shared| -> (u64, Vec<usize>) {
        let mut kept = Vec::new();
        let mut writes = 0;
        for _ in 0..2 {
            if let Some(value) = shared.take() {
                writes += 1;
                kept.extend(shared.give(value));
            }
        }
        (writes, kept)
    };
    let other = thread::spawn({
        let shared = Arc::clone(&shared);
        move || use_some(&shared)
    });
    let (here, mut all) = use_some(&shared);
    let (there, kept) = other.join().unwrap();
    all.extend(kept);
    all.extend(shared.slots.drain());
    all.sort_unstable();
    assert_eq!(all, [1, 2], "a value is lost, or has two owners");
    let written: u64 = shared.written.iter().map(|value| value.load(Relaxed)).sum();
    assert_eq!(
        written,
        here + there,
        "an owner misses what the one before it wrote"
    );
}

#[test]
fn each_value_has_one_owner() {
    model::passes(take_and_give);
}

#[test]
fn next_owner_needs_the_release() {
    model::fails_without(
        Need::Release,
        "an owner misses what the one before it wrote",
        take_and_give,
    );
}

#[test]
fn next_owner_needs_the_acquire() {
    model::fails_without(
        Need::Acquire,
        "an owner misses what the one before it wrote",
        take_and_give,
    );
}
