// SPDX-License-Identifier: GPL-2.0

//! The model itself: each value that a load can return is tried.

use crate::model;
use crate::sync::atomic::Atomic;
use crate::sync::atomic::Relaxed;
use loom::thread;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;

#[test]
fn load_that_runs_first_is_also_tried_after_a_load_and_a_store() {
    let loaded = Arc::new(Mutex::new(BTreeSet::new()));
    let found = Arc::clone(&loaded);
    model::passes(move || {
        let word = Arc::new(Atomic::new(0_i64));
        let stored = Arc::clone(&word);
        let writer = thread::spawn(move || {
            stored.load(Relaxed);
            stored.store(1, Relaxed);
        });
        found.lock().unwrap().insert(word.load(Relaxed));
        writer.join().unwrap();
    });
    assert_eq!(*loaded.lock().unwrap(), BTreeSet::from([0, 1]));
}
