// SPDX-License-Identifier: GPL-2.0

//! Options of getsockopt that a module answers, for the sockets of one family.
//!
//! C headers: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h),
//! `net/netfilter/nf_sockopt.c`

use crate::linux::{
    c,
    log::log, //
};
use core::ops::RangeInclusive;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The level, which is the family that the options are registered for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    /// IPPROTO_IP, of AF_INET sockets and of those AF_INET6 sockets that are not raw.
    Ip,
    /// IPPROTO_IPV6, of AF_INET6 sockets.
    Ipv6,
}

/// Registered options. Dropping them unregisters.
///
/// A process in the answering function holds a reference on the module, so rmmod fails with
/// EWOULDBLOCK until the function returns. That reference, not this type, keeps the function's text.
///
/// # Invariants
///
/// `operations` is registered, and `module` is this module.
pub(crate) struct Sockopts {
    operations: KBox<Opaque<c::nf_sockopt_ops>>,
    module: *mut c::module,
}

// SAFETY: Registration and its end may happen in different tasks; shared references do nothing.
unsafe impl Send for Sockopts {}

// SAFETY: As above.
unsafe impl Sync for Sockopts {}

impl Sockopts {
    /// Registers `get` for getsockopt with `options` at `level`. May sleep.
    ///
    /// # Safety
    ///
    /// `get` must be a function of `module`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if another module has one of the options.
    pub(crate) unsafe fn register(
        module: &'static ThisModule,
        level: Level,
        options: RangeInclusive<c_int>,
        get: c::Get,
    ) -> Result<Self> {
        let module = module.as_ptr().cast();
        let operations = KBox::new(
            Opaque::new(c::nf_sockopt_ops::new(
                match level {
                    Level::Ip => c::TOA_AF_INET,
                    Level::Ipv6 => c::TOA_AF_INET6,
                },
                *options.start(),
                // The kernel's is the first that is not ours.
                options.end().saturating_add(1),
                get,
                module,
            )),
            GFP_KERNEL,
        )?;
        // SAFETY: The operations stay where they are until they are unregistered.
        kernel::error::to_result(unsafe { c::nf_register_sockopt(operations.get()) })?;
        // INVARIANT: Just registered.
        Ok(Self { operations, module })
    }
}

impl Drop for Sockopts {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { c::nf_unregister_sockopt(self.operations.get()) };
        // No process finds the options any more, but when a load fails, a process that found them
        // may still be in them, or about to read `operations`. Each holds a reference. Beside these
        // there is the one of the module's init; in its exit there is none, unless `rmmod -f` forces it.
        let mut waited = 0;
        // SAFETY: By the type invariant; process context that may sleep.
        while unsafe { c::module_refcount(self.module) } > 1 {
            if waited == c::TOA_HZ {
                log!(
                    NOTICE,
                    "not loaded: the failed load waits for a process in getsockopt (to find it: \
                     grep -l nf_getsockopt /proc/[0-9]*/task/*/stack)\n"
                );
            }
            waited = waited.saturating_add(1);
            // SAFETY: As above.
            unsafe { c::schedule_timeout_idle(1) };
        }
    }
}
