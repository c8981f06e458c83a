// SPDX-License-Identifier: GPL-2.0

//! Atomic words whose accesses compile to single instructions.
//!
//! The kernel crate's atomics call C helpers. Hooks use these words for each packet or system call. A load with `Acquire` is at least C's `smp_load_acquire`, a store with `Release` at
//! least C's `smp_store_release`: on x86-64 a plain `mov`, on arm64 `ldar` or `ldapr` and `stlr`.

pub(crate) use core::sync::atomic::{
    AtomicI64,
    AtomicU64,
    AtomicUsize,
    Ordering, //
};
