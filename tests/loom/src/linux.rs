// SPDX-License-Identifier: GPL-2.0

//! The files of the module's `linux/`, and what stands for the C interfaces.

pub(crate) mod atomic;
pub(crate) mod c;
pub(crate) mod idle;

#[allow(dead_code)]
#[path = "../../../linux/family.rs"]
pub(crate) mod family;
#[allow(dead_code)]
#[path = "../../../linux/node.rs"]
pub(crate) mod node;
#[path = "../../../linux/raw_spinlock.rs"]
pub(crate) mod raw_spinlock;
/// The model's own tasks.
pub(crate) mod task {
    pub(crate) fn yield_processor() {
        loom::thread::yield_now();
    }
}
/// The model's own sections.
pub(crate) mod rcu {
    pub(crate) use crate::sync::rcu::*;
}
#[path = "../../../linux/rcu_pointer.rs"]
pub(crate) mod rcu_pointer;
#[allow(dead_code)]
#[path = "../../../linux/rcu_shared.rs"]
pub(crate) mod rcu_shared;
#[allow(dead_code)]
#[path = "../../../linux/rcu_static.rs"]
pub(crate) mod rcu_static;
#[path = "../../../linux/slots.rs"]
pub(crate) mod slots;
#[allow(dead_code)]
#[path = "../../../linux/store.rs"]
pub(crate) mod store;
