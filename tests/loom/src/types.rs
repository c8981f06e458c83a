// SPDX-License-Identifier: GPL-2.0

//! Kernel types.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

/// Makes a type neither `Send` nor `Sync`.
pub(crate) type NotThreadSafe = PhantomData<*mut ()>;

/// The value of that type.
#[allow(non_upper_case_globals)]
pub(crate) const NotThreadSafe: NotThreadSafe = PhantomData;

/// A value of C, which Rust never looks at.
pub(crate) struct Opaque<T>(UnsafeCell<MaybeUninit<T>>);

impl<T> Opaque<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(MaybeUninit::new(value)))
    }

    pub(crate) const fn uninit() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    pub(crate) const fn get(&self) -> *mut T {
        self.0.get().cast()
    }
}
