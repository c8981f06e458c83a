// SPDX-License-Identifier: GPL-2.0

//! Blocks that several owners share: the rules and the trusted hosts of namespaces.

use crate::linux::family::Family;
use crate::linux::rcu_shared::RcuShared;
use crate::linux::rcu_shared::Shared;
use crate::memory;
use crate::model;
use crate::model::Need;
use crate::sync::rcu;
use loom::thread;
use std::sync::Arc;

/// A type whose family has a lock.
struct Data;

type Place = RcuShared<Data, u64, u64>;

fn family() -> &'static Family<Data> {
    // Each execution has its own, and loses it: a few bytes.
    let family: &Family<Data> = Box::leak(Box::new(Family::new()));
    // SAFETY: Nothing else uses the family yet.
    unsafe { family.prepare() };
    family
}

fn block(head: u64) -> Shared<u64, u64> {
    Shared::new(head, 2, [head + 1, head + 2].into_iter()).expect("memory")
}

/// Reads a place's block, and returns its head.
fn read(place: &Place) -> Option<u64> {
    let rcu = rcu::read_lock();
    let (head, slice) = place.get(&rcu)?;
    memory::read(head);
    assert_eq!(slice, [head + 1, head + 2]);
    Some(*head)
}

/// The block of a place is replaced while a reader looks.
fn set_beside_a_reader() {
    let family = family();
    let place = Arc::new(Place::new(Some(block(10))));
    let read_by = Arc::clone(&place);
    let reader = thread::spawn(move || {
        let head = read(&read_by);
        assert!(matches!(head, Some(10 | 20)), "{head:?}");
    });
    place.set(Some(block(20)), &family.lock());
    reader.join().unwrap();
    assert_eq!(read(&place), Some(20));
}

#[test]
fn reader_sees_the_old_block_or_the_new_one() {
    model::passes(set_beside_a_reader);
}

#[test]
fn set_needs_its_release() {
    model::fails_without(Need::Release, "Causality violation", set_beside_a_reader);
}

#[test]
fn reader_needs_the_dependency() {
    model::fails_without(Need::Dependency, "Causality violation", set_beside_a_reader);
}

#[test]
fn end_of_the_last_owner_needs_the_grace_period() {
    model::fails_without(
        Need::GracePeriods,
        "Causality violation",
        set_beside_a_reader,
    );
}

/// One writer shares the block of a place while another one replaces it.
#[test]
fn shared_block_outlives_its_first_place() {
    model::passes(|| {
        let family = family();
        let place = Arc::new(Place::new(Some(block(10))));
        let replaced = Arc::clone(&place);
        let writer = thread::spawn(move || replaced.set(None, &family.lock()));
        let second = Place::new(place.share(&family.lock()));
        writer.join().unwrap();
        assert_eq!(read(&place), None);
        assert!(matches!(read(&second), None | Some(10)));
    });
}

/// Two owners of a block read it and end. `read` reads under RCU, or outside.
fn two_owners(read: fn(&Place)) {
    let one = Place::new(Some(block(10)));
    let two = Place::new(one.share(&family().lock()));
    let other = thread::spawn(move || {
        read(&two);
        drop(two);
    });
    read(&one);
    drop(one);
    other.join().unwrap();
}

fn read_under_rcu(place: &Place) {
    assert_eq!(read(place), Some(10));
}

/// An owner keeps its block, so it may read it without a section.
fn read_outside(place: &Place) {
    let head: *const u64 = place.get(&rcu::read_lock()).expect("a block").0;
    memory::read(head);
}

#[test]
fn last_owner_frees_the_block_after_the_reads_of_all() {
    model::passes(|| two_owners(read_under_rcu));
    model::passes(|| two_owners(read_outside));
}

#[test]
fn owners_that_read_outside_sections_need_the_release() {
    model::fails_without(Need::Release, "Causality violation", || {
        two_owners(read_outside);
    });
}

/// The grace period before the free already orders what an owner reads under RCU.
#[test]
fn owners_that_read_under_rcu_need_no_release() {
    model::passes_without(Need::Release, || two_owners(read_under_rcu));
}
