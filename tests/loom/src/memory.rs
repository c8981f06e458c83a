// SPDX-License-Identifier: GPL-2.0

//! Memory whose writes, reads and frees loom sees.
//!
//! The module reads and writes its values directly, which loom cannot see. So each allocation has one of
//! loom's cells. Its allocation counts as a write, which stands for the values that are written before
//! others see it. Loads and stores of atomics inside count as reads, and so does [`read`]. A free counts
//! as a write. loom fails the model unless each read comes after the first and before the last.
//!
//! No address is used twice in an execution: the memory goes when the execution ends.

use crate::model;
use core::alloc::Layout;
use core::cell::Cell;
use core::cell::RefCell;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use std::alloc;
use std::rc::Rc;

/// One allocation.
struct Allocation {
    first: NonNull<u8>,
    layout: Layout,
    accesses: UnsafeCell<()>,
    freed: Cell<bool>,
}

impl Allocation {
    fn contains(&self, address: usize) -> bool {
        (self.first.addr().get()..self.first.addr().get() + self.layout.size()).contains(&address)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: Allocated in `allocate` with this layout.
        unsafe { alloc::dealloc(self.first.as_ptr(), self.layout) };
    }
}

thread_local! {
    /// All allocations of the execution. loom runs its threads in one thread of the host.
    static ALLOCATIONS: RefCell<Vec<Rc<Allocation>>> = const { RefCell::new(Vec::new()) };
}

/// Allocates. The memory has no value.
pub(crate) fn allocate(layout: Layout) -> NonNull<u8> {
    assert_ne!(layout.size(), 0, "the module's types have a size");
    // SAFETY: The size is not zero.
    let first = NonNull::new(unsafe { alloc::alloc(layout) }).expect("the host has memory");
    let allocation = Rc::new(Allocation {
        first,
        layout,
        accesses: UnsafeCell::new(()),
        freed: Cell::new(false),
    });
    ALLOCATIONS.with_borrow_mut(|all| all.push(allocation));
    first
}

/// Reads the allocation that has the value, if it is in one.
pub(crate) fn read<T>(value: *const T) {
    if let Some(allocation) = live(value) {
        allocation.accesses.with(|_| ());
    }
}

/// Checks that the allocation that has the value is not freed yet. Later frees are not ordered by it.
pub(crate) fn is_live<T>(value: *const T) {
    live(value);
}

fn live<T>(value: *const T) -> Option<Rc<Allocation>> {
    let allocation = find(value.addr())?;
    assert!(
        !allocation.freed.get() || model::has_failed(),
        "freed memory is read"
    );
    Some(allocation)
}

/// Frees an allocation.
pub(crate) fn free(first: *mut u8) {
    if model::has_failed() {
        return;
    }
    let allocation = find(first.addr()).expect("what is freed was allocated");
    assert_eq!(allocation.first.as_ptr(), first, "freed by its first byte");
    assert!(!allocation.freed.replace(true), "memory is freed twice");
    allocation.accesses.with_mut(|_| ());
}

fn find(address: usize) -> Option<Rc<Allocation>> {
    ALLOCATIONS.with_borrow(|all| {
        let mut all = all.iter();
        all.find(|allocation| allocation.contains(address)).cloned()
    })
}

/// Checks at an execution's end that all memory is freed.
pub(crate) fn all_is_freed() {
    ALLOCATIONS.with_borrow(|all| {
        let lost = all.iter().filter(|allocation| !allocation.freed.get());
        assert_eq!(lost.count(), 0, "allocations are lost");
    });
}

/// Begins an execution without memory.
pub(crate) fn begin() {
    ALLOCATIONS.take();
}
