// SPDX-License-Identifier: GPL-2.0

//! RCU: each thread has a lock, which its read-side sections hold. A grace period takes and releases
//! the lock of each thread in turn.
//!
//! That is the law of RCU, thread by thread: a section either ends before a grace period ends, or begins
//! after it has begun. Sections do not order each other.

use crate::lock::Lock;
use crate::model;
use core::cell::Cell;
use core::cell::RefCell;
use loom::thread;
use std::rc::Rc;

/// A thread's sections.
#[derive(Default)]
struct Sections {
    lock: Rc<Lock>,
    /// The thread's sections that have begun and not ended, one in another.
    depth: Cell<usize>,
    owner: Cell<Option<thread::ThreadId>>,
}

thread_local! {
    /// The sections of each thread of the execution.
    static SECTIONS: RefCell<Vec<Rc<Sections>>> = const { RefCell::new(Vec::new()) };
}

/// Begins an execution.
pub(crate) fn begin() {
    let sections = (0..loom::MAX_THREADS).map(|_| Rc::default()).collect();
    SECTIONS.set(sections);
}

fn all() -> Vec<Rc<Sections>> {
    SECTIONS.with_borrow(Vec::clone)
}

/// The sections of the current thread.
fn own() -> Rc<Sections> {
    let me = Some(thread::current().id());
    let all = all();
    let own = all.iter().find(|sections| sections.owner.get() == me);
    let own = own.or_else(|| all.iter().find(|sections| sections.owner.get().is_none()));
    let own = own.expect("a thread has its sections");
    own.owner.set(me);
    Rc::clone(own)
}

/// Evidence of a read-side section, which lasts as long.
pub(crate) struct Guard(Rc<Sections>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.depth.set(self.0.depth.get() - 1);
        if self.0.depth.get() == 0 {
            self.0.lock.unlock();
        }
    }
}

/// Begins a section.
pub(crate) fn read_lock() -> Guard {
    let own = own();
    if own.depth.get() == 0 {
        own.lock.lock();
    }
    own.depth.set(own.depth.get() + 1);
    Guard(own)
}

/// Waits for a grace period. The caller must be in no section.
pub(crate) fn grace_period() {
    if model::lacks(model::Need::GracePeriods) {
        return;
    }
    for sections in all() {
        sections.lock.lock();
        sections.lock.unlock();
    }
}
