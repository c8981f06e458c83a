// SPDX-License-Identifier: GPL-2.0

//! A kernel module that acts on toa as only a module can, for the tests in `tests/guest`:
//!
//! - `hold=4` or `hold=6` redirects `inet_getname` or `inet6_getname` from load to unload, as a
//!   live patch would, but always to the original function;
//! - `hold=4096` registers getsockopt's option 4096 of IPPROTO_IP from load to unload, and returns
//!   EDOM for it;
//! - `ask=FD` requests the peer of a socket of the loading process, once in that process and once
//!   in a kernel thread, and logs the results.

use kernel::prelude::*;

mod ask;
#[allow(dead_code)]
#[path = "../../linux"]
mod linux {
    pub(crate) mod ftrace;
    pub(crate) mod log;
    pub(crate) mod parameter;
    pub(crate) mod sockopt;
}

#[rustfmt::skip]
mod toa_bindings;

use crate::linux::{
    ftrace::{
        Call,
        Hook,
        Hooked, //
    },
    parameter::parameter,
    sockopt::{
        Level,
        Sockopts, //
    },
};
use kernel::ffi::{
    c_int,
    c_void, //
};

/// The prefix of this module's log lines, which differs from toa's.
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
        ask: i32 {
            default: -1,
            description: "Request the peer of the loading process's socket with this number",
        },
    },
}

struct InetGetname;

impl Hooked for InetGetname {
    const FUNCTION: &'static str = "inet_getname";
    const REDIRECTS: bool = true;

    fn enter(_call: &mut Call) {}
}

struct Inet6Getname;

impl Hooked for Inet6Getname {
    const FUNCTION: &'static str = "inet6_getname";
    const REDIRECTS: bool = true;

    fn enter(_call: &mut Call) {}
}

struct ToaTest {
    _hold4: Option<Hook<InetGetname>>,
    _hold6: Option<Hook<Inet6Getname>>,
    _hold4096: Option<Sockopts>,
}

impl kernel::Module for ToaTest {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let hold: u32 = parameter(module_parameters::hold.value());
        let fd: i32 = parameter(module_parameters::ask.value());
        if fd >= 0 {
            ask::ask(fd)?;
        }
        Ok(Self {
            _hold4: (hold == 4).then(Hook::register).transpose()?,
            _hold6: (hold == 6).then(Hook::register).transpose()?,
            _hold4096: (hold == 4096).then(|| hold_option(module)).transpose()?,
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
    _sk: *mut toa_bindings::sock,
    _option: c_int,
    _user: *mut c_void,
    _len: *mut c_int,
) -> c_int {
    -(kernel::bindings::EDOM as c_int)
}
