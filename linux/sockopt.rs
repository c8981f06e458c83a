// SPDX-License-Identifier: GPL-2.0

//! Options of getsockopt that a module answers, for the sockets of one family.
//!
//! C headers: [`include/linux/netfilter.h`](srctree/include/linux/netfilter.h),
//! `net/netfilter/nf_sockopt.c`

use crate::{
    linux::log::log,
    toa_bindings as bindings, //
};
use core::ops::RangeInclusive;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::prelude::*;
use kernel::types::Opaque;

const _: () =
    assert!(size_of::<bindings::nf_sockopt_ops>() == bindings::TOA_SIZEOF_NF_SOCKOPT_OPS as usize);

/// The answering function. Its arguments are the socket, the option, the caller's buffer, and the
/// kernel's copy of the buffer's length, which the answer's length replaces.
pub(crate) type Get = unsafe extern "C" fn(
    *mut bindings::sock,
    c_int,
    *mut c_void, // __user
    *mut c_int,
) -> c_int;

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
    operations: KBox<Opaque<bindings::nf_sockopt_ops>>,
    module: *mut bindings::module,
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
        get: Get,
    ) -> Result<Self> {
        let module = module.as_ptr().cast();
        let operations = KBox::new(
            Opaque::new(bindings::nf_sockopt_ops {
                pf: match level {
                    Level::Ip => bindings::TOA_AF_INET as u8,
                    Level::Ipv6 => bindings::TOA_AF_INET6 as u8,
                },
                get_optmin: *options.start(),
                // The kernel's is the first that is not ours.
                get_optmax: options.end().saturating_add(1),
                get: Some(get),
                owner: module,
                ..Default::default()
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The operations stay where they are until they are unregistered.
        kernel::error::to_result(unsafe { bindings::nf_register_sockopt(operations.get()) })?;
        // INVARIANT: Just registered.
        Ok(Self { operations, module })
    }
}

impl Drop for Sockopts {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::nf_unregister_sockopt(self.operations.get()) };
        // No process finds the options any more, but when a load fails, a process that found them
        // may still be in them, or about to read `operations`. Each holds a reference. Beside these
        // there is the one of the module's init; in its exit there is none, unless `rmmod -f` forces it.
        let mut waited = 0;
        // SAFETY: By the type invariant; process context that may sleep.
        while unsafe { bindings::module_refcount(self.module) } > 1 {
            if waited == bindings::TOA_HZ {
                log!(
                    NOTICE,
                    "not loaded: the failed load waits for a process in getsockopt (to find it: \
                     grep -l nf_getsockopt /proc/[0-9]*/task/*/stack)\n"
                );
            }
            waited = waited.saturating_add(1);
            // SAFETY: As above.
            unsafe { bindings::schedule_timeout_idle(1) };
        }
    }
}
