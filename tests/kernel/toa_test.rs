// SPDX-License-Identifier: GPL-2.0

//! Conditions for the tests in `tests/guest` that only a module can create:
//!
//! - `hold=4` or `hold=6` redirects `inet_getname` or `inet6_getname` from load to unload, as a
//!   live patch would, but always to where the call was going;
//! - `hold=4096` has getsockopt's option 4096 of IPPROTO_IP from load to unload, and answers it with
//!   EDOM;
//! - `wait=1` holds up each module that registers options of IPPROTO_IP, until a process is in an
//!   option that the module registered before (it needs a second processor for that);
//! - `ask=FD` asks for the peer of a socket of the process that loads it, once in that process and
//!   once in a kernel thread, and puts the answers into the log;
//! - `starve=1` leaves no memory for toa's records from load to unload;
//! - `fill=N` has toa's `/proc/net/toa` over a table of N records without sockets, while others come
//!   and go; toa must not be loaded;
//! - `plant=N` has a bug for the debug kernels to report: locks in both orders (1), a write to freed
//!   memory (2), lost memory (3), a call through another prototype (4).

use kernel::prelude::*;

mod ask;
#[path = "../../connections.rs"]
mod connections;
#[allow(dead_code)]
#[path = "../../endpoint.rs"]
mod endpoint;
mod kthread;
#[allow(dead_code, unused_imports)]
#[path = "../../linux"]
mod linux {
    pub(crate) mod atomic;
    pub(crate) mod c;
    pub(crate) mod cpu_hotplug;
    pub(crate) mod family;
    pub(crate) mod ftrace;
    pub(crate) mod idle;
    pub(crate) mod log;
    pub(crate) mod node;
    pub(crate) mod parameter;
    pub(crate) mod percpu;
    pub(crate) mod pernet;
    pub(crate) mod proc_net;
    pub(crate) mod raw_spinlock;
    pub(crate) mod rcu;
    pub(crate) mod rcu_pointer;
    pub(crate) mod rcu_static;
    pub(crate) mod slab_cache;
    pub(crate) mod slots;
    pub(crate) mod sockopt;
    pub(crate) mod store;
    pub(crate) mod sysctl;
    pub(crate) mod task;
    pub(crate) mod worker;
}
mod namespace;
mod plant;
mod records;
mod starve;

#[allow(dead_code)]
#[rustfmt::skip]
mod toa_offsets;

use crate::{
    linux::{
        c,
        ftrace::{
            Call,
            Hook,
            Hooked, //
        },
        parameter::parameter,
        sockopt::{
            Level,
            Sockopts, //
        }, //
    },
    records::Filled,
    starve::Starve, //
};
use core::hint::spin_loop;
use kernel::ffi::{
    c_int,
    c_void, //
};

/// A prefix other than toa's, so that the tests recognize this module's lines.
const LOG_PREFIX: &[u8] = b"TOA_TEST\0";

module! {
    type: ToaTest,
    name: "toa_test",
    authors: ["The toa developers"],
    description: "Tests of toa that need a module",
    license: "GPL",
    params: {
        hold: u32 {
            default: 0,
            description: "Redirect inet_getname (4) or inet6_getname (6), or register option 4096",
        },
        wait: u32 {
            default: 0,
            description: "Hold up a registration of options of IPPROTO_IP (1)",
        },
        ask: i32 {
            default: -1,
            description: "Request the peer of the loading process's socket with this number",
        },
        starve: u32 {
            default: 0,
            description: "Leave no memory for toa's records (1)",
        },
        fill: u32 {
            default: 0,
            description: "Show this number of records in /proc/net/toa",
        },
        plant: u32 {
            default: 0,
            description: "Run a bug: lock order (1), use after free (2), leak (3), prototype (4)",
        },
    },
}

struct InetGetname;

// SAFETY: It does not sleep.
unsafe impl Hooked for InetGetname {
    const FUNCTION: &'static str = "inet_getname";
    const REDIRECTS: bool = true;

    fn enter(_call: &mut Call) {}
}

struct Inet6Getname;

// SAFETY: It does not sleep.
unsafe impl Hooked for Inet6Getname {
    const FUNCTION: &'static str = "inet6_getname";
    const REDIRECTS: bool = true;

    fn enter(_call: &mut Call) {}
}

/// `nf_register_sockopt(operations)` (`net/netfilter/nf_sockopt.c`).
struct NfRegisterSockopt;

/// Bounds how long a registration is held up, in nanoseconds. The kernel reports a processor that is
/// busy for 20 seconds.
const LIMIT: i64 = 5_000_000_000;

// Asserted in tests/kernel/offsets.c.
extern "C" {
    /// C's `ktime_t` is a number of nanoseconds.
    fn ktime_get() -> i64;
}

/// The monotonic clock.
fn now() -> i64 {
    // SAFETY: An FFI call with no additional requirements.
    unsafe { ktime_get() }
}

// SAFETY: It does not sleep.
unsafe impl Hooked for NfRegisterSockopt {
    const FUNCTION: &'static str = "nf_register_sockopt";
    const REDIRECTS: bool = false;

    fn enter(call: &mut Call) {
        // SAFETY: The argument points to the operations that the caller is about to register, and
        // their owner is the caller's module, whose init runs.
        let (family, owner) = unsafe {
            let operations = call.argument0() as *const c::nf_sockopt_ops;
            (
                operations
                    .byte_add(c::TOA_NF_SOCKOPT_PF)
                    .cast::<u8>()
                    .read(),
                operations
                    .byte_add(c::TOA_NF_SOCKOPT_OWNER)
                    .cast::<*mut c::module>()
                    .read(),
            )
        };
        if family != c::TOA_AF_INET as u8 {
            return;
        }
        // SAFETY: As above.
        let references = || unsafe { c::module_refcount(owner) };
        let end = now().saturating_add(LIMIT);
        // The module's init holds the first reference.
        while references() < 2 && now() < end {
            spin_loop();
        }
    }
}

struct ToaTest {
    _wait: Option<Hook<NfRegisterSockopt>>,
    _hold4: Option<Hook<InetGetname>>,
    _hold6: Option<Hook<Inet6Getname>>,
    _hold4096: Option<Sockopts>,
    _starve: Option<Starve>,
    _filled: Option<Filled>,
}

impl kernel::Module for ToaTest {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let hold: u32 = parameter(module_parameters::hold.value());
        let wait: u32 = parameter(module_parameters::wait.value());
        let fd: i32 = parameter(module_parameters::ask.value());
        if fd >= 0 {
            ask::ask(fd)?;
        }
        let bug: u32 = parameter(module_parameters::plant.value());
        if bug > 0 {
            plant::plant(bug)?;
        }
        let starve: u32 = parameter(module_parameters::starve.value());
        let fill: u32 = parameter(module_parameters::fill.value());
        Ok(Self {
            _hold4: (hold == 4).then(Hook::register).transpose()?,
            _hold6: (hold == 6).then(Hook::register).transpose()?,
            _hold4096: (hold == 4096).then(|| hold_option(module)).transpose()?,
            _starve: (starve == 1).then(Starve::begin).transpose()?,
            _filled: (fill > 0).then(|| Filled::new(fill)).transpose()?,
            // After the module's own registration, which would be held up as well.
            _wait: (wait == 1).then(Hook::register).transpose()?,
        })
    }
}

fn hold_option(module: &'static ThisModule) -> Result<Sockopts> {
    // SAFETY: The function is this module's.
    unsafe { Sockopts::register(module, Level::Ip, 4096..=4096, answer_option) }
}

/// The callback of the held option.
///
/// # Safety
///
/// No requirements.
unsafe extern "C" fn answer_option(
    _sk: *mut c::sock,
    _option: c_int,
    _user: *mut c_void,
    _len: *mut c_int,
) -> c_int {
    -(kernel::bindings::EDOM as c_int)
}
