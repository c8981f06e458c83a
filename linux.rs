// SPDX-License-Identifier: GPL-2.0

//! The C interfaces that toa uses and the kernel crate lacks, each turned into a safe one by a file.
//!
//! All unsafe code of the module is here, and none of toa's decisions. The files import only
//! [`endpoint`](crate::endpoint) of the others.

pub(crate) mod atomic;
pub(crate) mod c;
pub(crate) mod callbacks;
pub(crate) mod cpu_hotplug;
pub(crate) mod family;
pub(crate) mod ftrace;
pub(crate) mod idle;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod node;
pub(crate) mod own_address;
pub(crate) mod parameter;
pub(crate) mod percpu;
pub(crate) mod pernet;
pub(crate) mod proc_net;
pub(crate) mod random;
pub(crate) mod ratelimit;
pub(crate) mod raw_spinlock;
pub(crate) mod rcu;
pub(crate) mod rcu_pointer;
pub(crate) mod rcu_shared;
pub(crate) mod rcu_static;
pub(crate) mod read_once;
pub(crate) mod slab_cache;
pub(crate) mod slots;
pub(crate) mod sock;
pub(crate) mod sock_table;
pub(crate) mod sockopt;
pub(crate) mod store;
pub(crate) mod sysctl;
pub(crate) mod task;
pub(crate) mod tracepoint;
pub(crate) mod worker;
