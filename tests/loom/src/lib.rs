// SPDX-License-Identifier: GPL-2.0

//! Runs the module's files that readers enter without a lock under loom, which tries the orders in
//! which threads can run and the values that loads can return.
//!
//! The files are those that the module compiles, unchanged. They use a `kernel` crate and
//! `crate::linux::c`, and find both here: [`kernel`](crate) is this crate, and its atomics, locks,
//! grace periods and memory are made of loom's primitives.
//!
//! A scenario is a closure of a few threads in a file `*_cases.rs`. [`model::passes`] runs it in all
//! orders. [`model::fails_without`] weakens what the scenario rests on, and the run must fail.
//!
//! The host tests limit the switches between threads. `make loom-test` does so for the store only, and to a
//! higher number.
//!
//! To add a file of the module, name it here or in `linux.rs`, and add what the file uses to this crate:
//! an operation to `sync/atomic.rs`, a C function to `linux/c.rs`. If it rests on something else, add
//! that to [`model::Need`].
//!
//! What loom cannot express:
//!
//! - Address dependencies. A load under RCU is an acquire here: see `sync::atomic::Place`. The litmus
//!   tests check the real load.
//! - Control dependencies. The free that depends on the count of owners begins with a fence: see
//!   [`linux::c::kvfree_call_rcu`]. `tests/litmus/owners.litmus` checks that none is needed.
//!
//! What is not here:
//!
//! - `registered` of `linux/pernet.rs` is stored after the kernel's registration and loaded under the
//!   family's lock, which the registration has taken for each namespace. `tests/litmus/registered.litmus`
//!   checks its orderings.
//! - `linux/read_once.rs` and the counters of `linux/percpu.rs` order nothing, and each access is one
//!   instruction.
//!
//! The crate is for tests only: without `cfg(test)` it is empty.

#![cfg(test)]

extern crate self as kernel;

mod alloc;
mod ffi;
mod linux;
mod lock;
mod memory;
mod model;
mod prelude;
mod sync;
mod types;

#[allow(dead_code)]
#[path = "../../../counts.rs"]
mod counts;

mod atomic_cases;
mod counts_cases;
mod rcu_shared_cases;
mod rcu_static_cases;
mod slots_cases;
mod store_cases;
