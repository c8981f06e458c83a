// SPDX-License-Identifier: GPL-2.0

//! The files of the module's `linux/`, and what stands for the C interfaces.

pub(crate) mod c;

#[allow(dead_code)]
#[path = "../../../linux/family.rs"]
pub(crate) mod family;
#[allow(dead_code)]
#[path = "../../../linux/hash_table.rs"]
pub(crate) mod hash_table;
#[path = "../../../linux/raw_spinlock.rs"]
pub(crate) mod raw_spinlock;
#[path = "../../../linux/rcu_pointer.rs"]
pub(crate) mod rcu_pointer;
#[allow(dead_code)]
#[path = "../../../linux/rcu_shared.rs"]
pub(crate) mod rcu_shared;
#[path = "../../../linux/rcu_static.rs"]
pub(crate) mod rcu_static;
