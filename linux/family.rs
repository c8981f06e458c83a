// SPDX-License-Identifier: GPL-2.0

//! The family of a module's data in network namespaces: each member has a parent, unless it is the
//! first one or its parent's line has ended. One lock that sleeps guards the family, and the values
//! in its members that are [`Locked`].
//!
//! The lock is C's semaphore, which is the same on PREEMPT_RT: its users sleep while they wait, and
//! hold no lock that spins.
//!
//! C header: [`include/linux/semaphore.h`](srctree/include/linux/semaphore.h)

use crate::linux::c;
use core::cell::UnsafeCell;
use core::iter;
use core::marker::PhantomData;
use core::ptr;
use kernel::types::{
    NotThreadSafe,
    Opaque, //
};

/// A value with its place in a family. The place is guarded by the family's lock.
pub(crate) struct Member<T> {
    next: UnsafeCell<*const Member<T>>,
    parent: UnsafeCell<*const Member<T>>,
    data: T,
}

impl<T> Member<T> {
    /// A member of no family yet.
    pub(crate) const fn new(data: T) -> Self {
        Self {
            next: UnsafeCell::new(ptr::null()),
            parent: UnsafeCell::new(ptr::null()),
            data,
        }
    }

    /// The value.
    #[inline(always)]
    pub(crate) const fn data(&self) -> &T {
        &self.data
    }
}

/// All members of one type, oldest first: a parent is older than its children.
///
/// # Invariants
///
/// - The list from `first` by `next` holds the members that were added and not removed, which all
///   live. `last` is its end.
/// - A member's `parent` is null, or an older member of the list.
/// - These pointers are accessed under the lock only.
pub(crate) struct Family<T> {
    lock: Opaque<c::semaphore>,
    first: UnsafeCell<*const Member<T>>,
    last: UnsafeCell<*const Member<T>>,
}

// SAFETY: By the type invariants the lock serialises all accesses.
unsafe impl<T: Send + Sync> Sync for Family<T> {}

impl<T> Family<T> {
    /// A family without members. [`Family::prepare`] comes before all other uses.
    pub(crate) const fn new() -> Self {
        // INVARIANT: The list is empty.
        Self {
            lock: Opaque::uninit(),
            first: UnsafeCell::new(ptr::null()),
            last: UnsafeCell::new(ptr::null()),
        }
    }

    /// Initialises the lock.
    ///
    /// # Safety
    ///
    /// No other use of the family may come before the call or beside it.
    pub(crate) unsafe fn prepare(&'static self) {
        // SAFETY: By the function's safety requirements the semaphore is ours. It is in a static, so it
        // stays where it is.
        unsafe { c::semaphore::unlocked(self.lock.get()) };
    }

    /// Locks the family. Process context; sleeps.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        // SAFETY: `prepare` has initialised the semaphore. Its holders never lock it again.
        unsafe { c::down(self.lock.get()) };
        Guard {
            family: self,
            _not_send: NotThreadSafe,
        }
    }
}

/// The lock of a family, held until this is dropped.
///
/// # Invariants
///
/// The current task has locked the family.
pub(crate) struct Guard<'a, T> {
    family: &'a Family<T>,
    _not_send: NotThreadSafe,
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { c::up(self.family.lock.get()) };
    }
}

impl<T> Guard<'_, T> {
    /// Adds a member as the youngest, with a parent or null.
    ///
    /// # Safety
    ///
    /// The member must not be in the list, and must live until it is removed. `parent` must be null
    /// or in the list.
    pub(crate) unsafe fn add(&self, member: *const Member<T>, parent: *const Member<T>) {
        // SAFETY: By the type invariants and the function's safety requirements all members live, and
        // the lock makes the accesses exclusive.
        // INVARIANT: The new member is the last one, so its parent is older.
        unsafe {
            *(*member).parent.get() = parent;
            *(*member).next.get() = ptr::null();
            let last = self.family.last.get();
            match (*last).as_ref() {
                Some(old) => *old.next.get() = member,
                None => *self.family.first.get() = member,
            }
            *last = member;
        }
    }

    /// Removes a member. Its parent becomes that of its children, for each of which `orphaned` is
    /// called before.
    ///
    /// # Safety
    ///
    /// The member must be in the list.
    pub(crate) unsafe fn remove(&self, member: *const Member<T>, orphaned: impl Fn(&T, &T)) {
        // SAFETY: By the type invariants all members live, and the lock makes the accesses exclusive.
        // INVARIANT: A child's new parent is older than the removed one, or null.
        unsafe {
            let mut before: *const Member<T> = ptr::null();
            let mut place = *self.family.first.get();
            while let Some(current) = place.as_ref() {
                let next = *current.next.get();
                if ptr::eq(place, member) {
                    match before.as_ref() {
                        Some(before) => *before.next.get() = next,
                        None => *self.family.first.get() = next,
                    }
                    if next.is_null() {
                        *self.family.last.get() = before;
                    }
                } else {
                    before = place;
                    if ptr::eq(*current.parent.get(), member) {
                        orphaned(&current.data, &(*member).data);
                        *current.parent.get() = *(*member).parent.get();
                    }
                }
                place = next;
            }
        }
    }

    /// All members with their parents, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&T, Option<&T>)> {
        // SAFETY: By the type invariants the pointers are null or members that live, and nothing is
        // removed while the guard is borrowed.
        let member = |pointer: *const Member<T>| unsafe { pointer.as_ref() };
        // SAFETY: Under the lock.
        let first = member(unsafe { *self.family.first.get() });
        // SAFETY: Under the lock.
        iter::successors(first, move |last| member(unsafe { *last.next.get() })).map(
            move |current| {
                // SAFETY: Under the lock.
                let parent = member(unsafe { *current.parent.get() });
                (&current.data, parent.map(Member::data))
            },
        )
    }
}

/// A value in a `T` that the lock of `T`'s family guards. There is one such family.
pub(crate) struct Locked<T, V>(UnsafeCell<V>, PhantomData<fn() -> T>);

// SAFETY: The value is accessed under one lock only.
unsafe impl<T, V: Send> Sync for Locked<T, V> {}

impl<T, V: Copy> Locked<T, V> {
    /// A value at first.
    pub(crate) const fn new(value: V) -> Self {
        Self(UnsafeCell::new(value), PhantomData)
    }

    /// Returns the value.
    pub(crate) fn get(&self, _guard: &Guard<'_, T>) -> V {
        // SAFETY: The lock is held by this task, and no reference to the value is handed out.
        unsafe { *self.0.get() }
    }

    /// Replaces the value.
    pub(crate) fn set(&self, value: V, _guard: &Guard<'_, T>) {
        // SAFETY: As in `get`.
        unsafe { *self.0.get() = value };
    }
}
