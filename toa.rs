// SPDX-License-Identifier: GPL-2.0

//! toa: gives servers behind a FullNAT load balancer the real address of their client.
//!
//! The balancer rewrites both ends of a TCP connection, and puts the client's address into a TCP
//! option of the segments that open it. The way of that address through the files:
//!
//! - A segment completes a handshake. [`toa_hooks`] gets the child socket, [`option`] reads the
//!   client's address from the segment, [`capture`] decides by the [`policy`] whether it counts,
//!   [`records`] keeps it.
//! - A process asks for the socket's peer, by `accept`, `getpeername` or otherwise. [`toa_hooks`]
//!   gets the question, [`substitute`] answers with the client.
//! - A process asks by getsockopt, whose answer has room for an IPv6 client of an AF_INET socket.
//!   [`toa_hooks`] gets the question, [`lookup`] answers.
//! - The socket dies, or is disconnected. [`toa_hooks`] gets the socket, [`records`] forgets it.
//! - A process reads `/proc/net/toa_stats` or `/proc/net/toa`: [`namespace`], [`stats`] and
//!   [`connections`].
//!
//! [`linux`] turns the C interfaces into safe ones. toa never writes to a socket, nor to the
//! kernel's read-only data.

use kernel::prelude::*;

mod capture;
mod connections;
mod counts;
#[cfg_attr(not(CONFIG_IPV6), allow(dead_code))]
mod endpoint;
mod kinds;
mod linux;
mod lookup;
mod namespace;
mod option;
mod policy;
mod prefixes;
mod records;
mod shares;
mod stats;
mod substitute;
mod syntax;
mod tag;
mod toa_hooks;

#[allow(dead_code)]
#[rustfmt::skip]
mod toa_offsets;

use crate::{
    linux::{callbacks::Registration, log::log, parameter::parameter},
    records::Records,
    toa_hooks::Hooks, //
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
            description: "Most connections whose client is remembered (0: as many as fit in 1/64 of the memory)",
        },
        wait_for_policy: u32 {
            default: 0,
            description: "Trust no host until net.toa.trusted is written (1), or any host (0)",
        },
    },
}

/// The start of each log line, which operators of this kind of module grep for.
const LOG_PREFIX: &[u8] = b"TOA\0";

/// The module's version, as a literal.
macro_rules! version {
    () => {
        "0.1.0"
    };
}

/// The `kernel` crate that this module is built with, as a literal: `kernel` or `stand-in`.
macro_rules! kernel_crate {
    () => {
        env!("TOA_CRATE")
    };
}

/// The fields `version` and `crate`, each with a NUL.
const MODINFO: &str = concat!("version=", version!(), "\0crate=", kernel_crate!(), "\0");

/// For `modinfo`: C's `MODULE_VERSION` and `MODULE_INFO`, which `module!` has no keys for.
#[link_section = ".modinfo"]
#[used(compiler)]
static MODINFO_VERSION: [u8; MODINFO.len()] = match MODINFO.as_bytes().first_chunk() {
    Some(bytes) => *bytes,
    None => panic!("evaluated by the compiler"),
};

/// The running parts, in the order in which they are removed: the callbacks with the records, the last line of the log. A load that fails removes the parts that exist by then in the same
/// order, and prints that line only if it has printed the first one.
struct Toa {
    _callbacks: Registration<Hooks>,
    _unload_notice: UnloadNotice,
}

impl kernel::Module for Toa {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let max_records: u32 = parameter(module_parameters::max_records.value());
        let records = Records::new(max_records)
            .and_then(|records| Ok(KBox::new(records, GFP_KERNEL)?))
            .inspect_err(|error| {
                log!(
                    ERR,
                    "not loaded: allocating the table of records failed (error {})\n",
                    error.to_errno()
                );
            })?;
        let (shares, buckets) = (records.shares(), records.buckets());
        #[cfg(toa_fill)]
        records.fill()?;
        let callbacks = Registration::<Hooks>::register(module, records)?;

        let version = version!();
        let families = if callbacks.has_ipv6() {
            "IPv4 and IPv6"
        } else {
            "IPv4 only (there is no inet6_getname)"
        };
        log!(
            INFO,
            "toa loaded, version {version}, {families}, at most {} records in {buckets} buckets \
             ({} kept for the first network namespace, {} for each other of the host, {} for all of \
             other user namespaces together), {} crate\n",
            shares.all,
            shares.all.saturating_sub(shares.others),
            shares.each,
            shares.foreign,
            kernel_crate!()
        );
        if parameter(module_parameters::wait_for_policy.value()) != 0 {
            log!(
                NOTICE,
                "trusting TOA options from no host until net.toa.trusted is written: \
                 sysctl -w net.toa.trusted=PREFIX,PREFIX\n"
            );
        } else {
            log!(
                WARNING,
                "trusting TOA options (kind {}) from any host: allow only the balancer to reach the \
                 server ports, or write its addresses: sysctl -w net.toa.trusted=PREFIX,PREFIX\n",
                kinds::DEFAULT_KIND
            );
        }
        Ok(Self {
            _callbacks: callbacks,
            _unload_notice: UnloadNotice,
        })
    }
}

/// Prints the last line when dropped: by then everything else is gone.
struct UnloadNotice;

impl Drop for UnloadNotice {
    fn drop(&mut self) {
        #[cfg(toa_time_locks)]
        log!(
            INFO,
            "longest section with interrupts off: {}\n",
            crate::linux::raw_spinlock::timing::longest()
        );
        log!(INFO, "toa unloaded\n");
    }
}
