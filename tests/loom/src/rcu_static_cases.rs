// SPDX-License-Identifier: GPL-2.0

//! A static that readers follow while it is assigned, and while it is cleared.

use crate::alloc::KBox;
use crate::linux::rcu_static::RcuStatic;
use crate::linux::store::Store;
use crate::memory;
use crate::model;
use crate::model::Need;
use crate::prelude::GFP_KERNEL;
use crate::sync::rcu;
use loom::thread;

fn empty<T: Send + Sync>() -> &'static RcuStatic<T> {
    // Each execution has its own, and loses it: a few bytes.
    Box::leak(Box::new(RcuStatic::empty()))
}

/// The value is assigned and cleared while a reader looks.
fn assign_and_clear_beside_a_reader() {
    let target = empty::<u64>();
    let reader = thread::spawn(move || {
        let rcu = rcu::read_lock();
        if let Some(value) = target.get(&rcu) {
            memory::read(value);
            assert_eq!(*value, 7);
        }
    });
    drop(target.assign(KBox::new(7, GFP_KERNEL).expect("memory")));
    reader.join().unwrap();
}

#[test]
fn reader_sees_a_complete_value_or_none() {
    model::passes(assign_and_clear_beside_a_reader);
}

#[test]
fn assignment_needs_its_release() {
    model::fails_without(
        Need::Release,
        "Causality violation",
        assign_and_clear_beside_a_reader,
    );
}

#[test]
fn reader_needs_the_dependency() {
    model::fails_without(
        Need::Dependency,
        "Causality violation",
        assign_and_clear_beside_a_reader,
    );
}

#[test]
fn end_needs_the_grace_period() {
    model::fails_without(
        Need::GracePeriods,
        "freed memory is read",
        assign_and_clear_beside_a_reader,
    );
}

/// The module is unloaded while a reader is in the store: its end frees the nodes at once.
#[test]
fn reader_may_use_the_store_until_its_section_ends() {
    model::passes(|| {
        let target = empty::<Store>();
        let store = Store::new(1, 1).expect("memory");
        assert_eq!(store.insert(64, || [7; 5]), Ok(()));
        let assigned = target.assign(KBox::new(store, GFP_KERNEL).expect("memory"));
        let reader = thread::spawn(move || {
            let rcu = rcu::read_lock();
            if let Some(store) = target.get(&rcu) {
                assert_eq!(store.get(64, &rcu), Some([7; 5]));
            }
        });
        drop(assigned);
        reader.join().unwrap();
    });
}
