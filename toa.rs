// SPDX-License-Identifier: GPL-2.0

//! toa: gives servers behind a FullNAT load balancer the real address of their client.
//!
//! The balancer rewrites both ends of a TCP connection and tells the client's address in a TCP
//! option of the segments that open it. What happens here:
//!
//! - a segment completes a handshake: [`toa_hooks`] sees the child socket, [`option`] reads the
//!   client's address from the segment, [`capture`] records it in [`peers`];
//! - a process asks for the socket's peer, by `accept`, `getpeername` or otherwise: [`toa_hooks`]
//!   sees the question, [`substitute`] answers with the client;
//! - a process asks by getsockopt, which has room for an IPv6 client of an AF_INET socket:
//!   [`toa_hooks`] sees the question, [`lookup`] answers;
//! - the socket dies, or is disconnected: [`toa_hooks`] sees it, [`capture`] removes the record;
//! - somebody reads `/proc/net/toa_stats`: [`pernet`] and [`stats`].
//!
//! Everything else turns one C interface into a safe one. Nothing is ever written to a socket, and
//! nothing to the kernel's read-only data.

use kernel::prelude::*;

mod capture;
#[cfg_attr(not(CONFIG_IPV6), allow(dead_code))]
mod endpoint;
mod ftrace;
mod hash_table;
mod log;
mod lookup;
mod memory;
mod option;
mod own_address;
mod parameter;
mod peers;
mod percpu;
mod pernet;
mod published;
mod raw_spinlock;
mod rcu_pointer;
mod shares;
mod sock;
mod sockopt;
mod stats;
mod substitute;
mod task;
mod toa_hooks;
mod tracepoint;

#[rustfmt::skip]
mod toa_bindings;

use crate::{
    ftrace::Hook,
    log::log,
    parameter::parameter,
    peers::{
        Peers,
        PEERS, //
    },
    pernet::Pernet,
    published::Publication,
    sockopt::{
        Level,
        Sockopts, //
    },
    toa_hooks::{
        InetGetname,
        TcpChildProcess,
        TcpDisconnect, //
    },
    tracepoint::Probe, //
};

module! {
    type: Toa,
    name: "toa",
    authors: ["The toa developers"],
    description: "Real client addresses for servers behind a FullNAT load balancer (TCP option TOA)",
    license: "GPL",
    params: {
        max_records: u32 {
            default: 0,
            description: "Most connections whose client is remembered (0: as fit in 1/64 of the memory)",
        },
    },
}

/// What the module's log lines begin with, as operators of this kind of module look for them.
const LOG_PREFIX: &[u8] = b"TOA\0";

/// The module's version, as a literal.
macro_rules! version {
    () => {
        "0.1.0"
    };
}

/// `version=`, the version and a NUL.
const MODINFO: &str = concat!("version=", version!(), "\0");

/// For `modinfo`: C's `MODULE_VERSION`, which `module!` has no key for.
#[link_section = ".modinfo"]
#[used(compiler)]
static MODINFO_VERSION: [u8; MODINFO.len()] = match MODINFO.as_bytes().first_chunk() {
    Some(bytes) => *bytes,
    None => panic!("evaluated by the compiler"),
};

/// The running parts, in the order in which they are taken away:
///
/// - first the options of getsockopt: whoever is in them keeps the module, so nobody is;
/// - then the hooks, each of which waits until no task is in toa because of it. The capture goes
///   first, so that no record is made any more; then the questions, whose answers need records;
///   then the hook that forgets records of disconnected sockets, without which a socket that
///   connects again to the same address would be answered with its client of before;
/// - then the probe, which may remove records until it is gone;
/// - then the counters, which hooks and probe count in;
/// - then the records, after a grace period.
///
/// A load that fails takes away what there is by then in the same order, and says goodbye only if
/// it had said hello.
struct Toa {
    _lookup4: Sockopts,
    _lookup6: Sockopts,
    _capture: Hook<TcpChildProcess>,
    #[cfg(CONFIG_IPV6)]
    _getname6: Option<Hook<toa_hooks::Inet6Getname>>,
    _getname4: Hook<InetGetname>,
    _disconnect: Hook<TcpDisconnect>,
    _probe: Probe,
    _pernet: Pernet,
    _peers: Publication<Peers>,
    _farewell: Farewell,
}

impl kernel::Module for Toa {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let max_records: u32 = parameter(module_parameters::max_records.value());
        let peers = explain(
            "allocating the table of records",
            Peers::new(max_records).and_then(|peers| Ok(KBox::new(peers, GFP_KERNEL)?)),
        )?;
        let (shares, buckets) = (peers.shares(), peers.buckets());
        let peers = PEERS.publish(peers);
        let pernet = explain(
            "making /proc/net/toa_stats (does another TOA module have it?)",
            Pernet::register(),
        )?;
        let probe = explain(
            "setting the probe on the tracepoint tcp_destroy_sock",
            toa_hooks::register_destroy_probe(),
        )?;
        let disconnect = Hook::<TcpDisconnect>::register()?;
        let getname4 = Hook::<InetGetname>::register()?;
        #[cfg(CONFIG_IPV6)]
        let getname6 = Hook::<toa_hooks::Inet6Getname>::register_if_present()?;
        let capture = Hook::<TcpChildProcess>::register()?;
        // Last: once they are there, processes may be in them.
        let lookup = |level| {
            explain(
                "taking the options 4096 and 4097 of getsockopt (does another module have them?)",
                toa_hooks::register_sockopts(module, level),
            )
        };
        let lookup6 = lookup(Level::Ipv6)?;
        let lookup4 = lookup(Level::Ip)?;

        #[cfg(CONFIG_IPV6)]
        let hooked6 = getname6.is_some();
        #[cfg(not(CONFIG_IPV6))]
        let hooked6 = false;
        let families = if hooked6 {
            "IPv4 and IPv6"
        } else {
            "IPv4 only (there is no inet6_getname)"
        };

        let version = version!();
        log!(
            INFO,
            "toa loaded, version {version}, {families}, at most {} records in {buckets} buckets \
             ({} kept for the first network namespace, {} for each other of the host, {} for all of \
             other user namespaces together)\n",
            shares.all,
            shares.all - shares.others,
            shares.each,
            shares.foreign
        );
        log!(
            WARNING,
            "option {} is believed from any host: let only the balancer reach the servers' ports\n",
            option::KIND
        );
        Ok(Self {
            _lookup4: lookup4,
            _lookup6: lookup6,
            _capture: capture,
            #[cfg(CONFIG_IPV6)]
            _getname6: getname6,
            _getname4: getname4,
            _disconnect: disconnect,
            _probe: probe,
            _pernet: pernet,
            _peers: peers,
            _farewell: Farewell,
        })
    }
}

/// Says in the log what could not be done.
fn explain<T>(what: &str, result: Result<T>) -> Result<T> {
    result.inspect_err(|error| {
        log!(
            ERR,
            "not loaded: {what} failed (error {})\n",
            error.to_errno()
        );
    })
}

/// Says goodbye when dropped: by then everything else is gone.
struct Farewell;

impl Drop for Farewell {
    fn drop(&mut self) {
        log!(INFO, "toa unloaded\n");
    }
}
