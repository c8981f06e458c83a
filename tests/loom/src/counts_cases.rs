// SPDX-License-Identifier: GPL-2.0

//! Counts of records that CPUs take at the same time. All orderings are relaxed, and suffice: nothing is
//! read that a count would have to order.

use crate::counts::give_one_back;
use crate::counts::take_one;
use crate::counts::Count;
use crate::linux::atomic::Ordering::Relaxed;
use crate::model;
use loom::thread;
use std::sync::Arc;

#[test]
fn two_takers_of_the_last_record_get_one() {
    model::passes(|| {
        let live = Arc::new(Count::new(4));
        let other = Arc::clone(&live);
        let taker = thread::spawn(move || take_one(&[(&other, 5)]).is_ok());
        let mine = take_one(&[(&live, 5)]).is_ok();
        let theirs = taker.join().unwrap();
        assert!(mine != theirs, "one of two");
        assert_eq!(live.load(Relaxed), 5);
    });
}

#[test]
fn refused_taker_leaves_the_counts_as_they_were() {
    model::passes(|| {
        let counts = Arc::new([Count::new(0), Count::new(4)]);
        let other = Arc::clone(&counts);
        let taker = thread::spawn(move || {
            let [held, all] = &*other;
            let counts = [(held, 9), (all, 5)];
            let taken = take_one(&counts).is_ok();
            if taken {
                give_one_back(&counts);
            }
        });
        let [_, all] = &*counts;
        let taken = take_one(&[(all, 5)]).is_ok();
        taker.join().unwrap();
        let [held, all] = &*counts;
        assert_eq!(held.load(Relaxed), 0);
        assert_eq!(all.load(Relaxed), 4 + i64::from(taken));
    });
}
