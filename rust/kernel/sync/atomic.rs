// SPDX-License-Identifier: GPL-2.0

//! Atomic primitives.
//!
//! The kernel's crate calls C's atomics, which follow the Linux Kernel Memory Model (LKMM). These
//! here are `core`'s. For the operations offered the two models agree, and on x86-64 both compile to
//! the same instructions: a plain `mov` for relaxed loads and for relaxed and release stores, and a
//! `lock`ed instruction for each read-modify-write.
//!
//! C header: [`include/linux/atomic.h`](srctree/include/linux/atomic.h)

use core::{
    cell::UnsafeCell,
    sync::atomic, //
};

/// The annotation of an operation's order.
pub mod ordering {
    use core::sync::atomic;

    mod private {
        pub trait Sealed {}
    }

    /// A memory ordering.
    pub trait Any: private::Sealed {
        /// The ordering in `core`.
        const ORDERING: atomic::Ordering;
    }

    /// An ordering that a load can have.
    pub trait AcquireOrRelaxed: Any {}

    /// An ordering that a store can have.
    pub trait ReleaseOrRelaxed: Any {}

    /// No ordering with other operations.
    pub struct Relaxed;

    /// Orders what follows the load after it.
    pub struct Acquire;

    /// Orders what precedes the store before it.
    pub struct Release;

    macro_rules! ordering {
        ($($ordering:ident: $($allowed:ident),+;)+) => {$(
            impl private::Sealed for $ordering {}

            impl Any for $ordering {
                const ORDERING: atomic::Ordering = atomic::Ordering::$ordering;
            }

            $(impl $allowed for $ordering {})+
        )+};
    }

    ordering! {
        Relaxed: AcquireOrRelaxed, ReleaseOrRelaxed;
        Acquire: AcquireOrRelaxed;
        Release: ReleaseOrRelaxed;
    }
}

pub use ordering::{
    Acquire,
    Relaxed,
    Release, //
};

/// Types that support atomic operations.
///
/// # Safety
///
/// The functions must be atomic with respect to each other.
pub unsafe trait AtomicType: Copy {
    /// Loads the value.
    ///
    /// # Safety
    ///
    /// `pointer` must be valid and aligned, and others may access the value by atomic operations
    /// only.
    unsafe fn load(pointer: *mut Self, ordering: atomic::Ordering) -> Self;

    /// Stores a value.
    ///
    /// # Safety
    ///
    /// The same as those of [`AtomicType::load`].
    unsafe fn store(pointer: *mut Self, value: Self, ordering: atomic::Ordering);
}

/// Integers that support atomic arithmetic.
///
/// # Safety
///
/// The functions must be atomic with respect to each other and to those of [`AtomicType`].
pub unsafe trait AtomicAdd: AtomicType {
    /// Adds, wrapping around, and returns the value before.
    ///
    /// # Safety
    ///
    /// The same as those of [`AtomicType::load`].
    unsafe fn fetch_add(pointer: *mut Self, delta: Self, ordering: atomic::Ordering) -> Self;

    /// Subtracts, wrapping around, and returns the value before.
    ///
    /// # Safety
    ///
    /// The same as those of [`AtomicType::load`].
    unsafe fn fetch_sub(pointer: *mut Self, delta: Self, ordering: atomic::Ordering) -> Self;
}

macro_rules! atomic_type {
    ($([$($generic:ident)?] $type:ty: $atomic:ident,)+) => {$(
        // SAFETY: The functions are `core`'s atomic operations.
        unsafe impl$(<$generic>)? AtomicType for $type {
            #[inline(always)]
            unsafe fn load(pointer: *mut Self, ordering: atomic::Ordering) -> Self {
                // SAFETY: By the function's safety requirements.
                unsafe { atomic::$atomic::from_ptr(pointer) }.load(ordering)
            }

            #[inline(always)]
            unsafe fn store(pointer: *mut Self, value: Self, ordering: atomic::Ordering) {
                // SAFETY: By the function's safety requirements.
                unsafe { atomic::$atomic::from_ptr(pointer) }.store(value, ordering)
            }
        }
    )+};
}

macro_rules! atomic_add {
    ($($type:ty: $atomic:ident,)+) => {$(
        // SAFETY: The functions are `core`'s atomic operations.
        unsafe impl AtomicAdd for $type {
            #[inline(always)]
            unsafe fn fetch_add(pointer: *mut Self, delta: Self, ordering: atomic::Ordering) -> Self {
                // SAFETY: By the function's safety requirements.
                unsafe { atomic::$atomic::from_ptr(pointer) }.fetch_add(delta, ordering)
            }

            #[inline(always)]
            unsafe fn fetch_sub(pointer: *mut Self, delta: Self, ordering: atomic::Ordering) -> Self {
                // SAFETY: By the function's safety requirements.
                unsafe { atomic::$atomic::from_ptr(pointer) }.fetch_sub(delta, ordering)
            }
        }
    )+};
}

atomic_type! {
    [] i32: AtomicI32,
    [] u32: AtomicU32,
    [] i64: AtomicI64,
    [] u64: AtomicU64,
    [T] *mut T: AtomicPtr,
}

atomic_add! {
    i32: AtomicI32,
    u32: AtomicU32,
    i64: AtomicI64,
    u64: AtomicU64,
}

/// A memory location which can be safely modified from multiple execution contexts.
///
/// # Invariants
///
/// While shared references exist, the value is accessed by atomic operations only, or by those that
/// the user of [`Atomic::as_ptr`] has argued for.
#[repr(transparent)]
pub struct Atomic<T>(UnsafeCell<T>);

// SAFETY: By the type invariant shared accesses are atomic.
unsafe impl<T> Sync for Atomic<T> {}

// SAFETY: The value of an atomic pointer is an address: to follow it is the business of unsafe code.
unsafe impl<T> Send for Atomic<T> {}

impl<T> Atomic<T> {
    /// Creates a new atomic `T`.
    pub const fn new(value: T) -> Self {
        // INVARIANT: There is no shared reference yet.
        Self(UnsafeCell::new(value))
    }

    /// Returns a pointer to the underlying atomic `T`.
    pub const fn as_ptr(&self) -> *mut T {
        self.0.get()
    }
}

impl<T: AtomicType> Atomic<T> {
    /// Loads the value from the atomic `T`.
    #[inline(always)]
    pub fn load<Ordering: ordering::AcquireOrRelaxed>(&self, _: Ordering) -> T {
        // SAFETY: The pointer is valid and aligned; by the type invariant accesses are atomic.
        unsafe { T::load(self.as_ptr(), Ordering::ORDERING) }
    }

    /// Stores a value to the atomic `T`.
    #[inline(always)]
    pub fn store<Ordering: ordering::ReleaseOrRelaxed>(&self, value: T, _: Ordering) {
        // SAFETY: The pointer is valid and aligned; by the type invariant accesses are atomic.
        unsafe { T::store(self.as_ptr(), value, Ordering::ORDERING) }
    }
}

impl<T: AtomicAdd> Atomic<T> {
    /// Atomic add, wrapping around.
    #[inline(always)]
    pub fn add(&self, delta: T, _: Relaxed) {
        self.fetch_add(delta, Relaxed);
    }

    /// Atomic fetch and add, wrapping around.
    #[inline(always)]
    pub fn fetch_add<Ordering: ordering::Any>(&self, delta: T, _: Ordering) -> T {
        // SAFETY: The pointer is valid and aligned; by the type invariant accesses are atomic.
        unsafe { T::fetch_add(self.as_ptr(), delta, Ordering::ORDERING) }
    }

    /// Atomic fetch and sub, wrapping around.
    #[inline(always)]
    pub fn fetch_sub<Ordering: ordering::Any>(&self, delta: T, _: Ordering) -> T {
        // SAFETY: The pointer is valid and aligned; by the type invariant accesses are atomic.
        unsafe { T::fetch_sub(self.as_ptr(), delta, Ordering::ORDERING) }
    }
}
