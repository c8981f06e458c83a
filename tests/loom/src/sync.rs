// SPDX-License-Identifier: GPL-2.0

//! Synchronisation primitives.

pub(crate) mod atomic;
pub(crate) mod rcu;
