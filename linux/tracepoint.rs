// SPDX-License-Identifier: GPL-2.0

//! A probe on one of the kernel's own tracepoints.
//!
//! C header: [`include/linux/tracepoint.h`](srctree/include/linux/tracepoint.h)

use crate::linux::{
    c,
    log::log, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::prelude::*;
use kernel::str::CStr;

/// A registered probe. Dropping it unregisters, and waits until no CPU runs it.
///
/// # Invariants
///
/// `function` is registered on `tracepoint`, with a null private pointer.
pub(crate) struct Probe {
    tracepoint: NonNull<c::tracepoint>,
    function: *mut c_void,
}

// SAFETY: A probe may be unregistered from any task, and shared references do nothing.
unsafe impl Send for Probe {}

// SAFETY: As above.
unsafe impl Sync for Probe {}

impl Probe {
    /// Registers `function` on the built-in tracepoint `name`. May sleep.
    ///
    /// # Safety
    ///
    /// `function` must be a function of this module with the prototype of the tracepoint's probes:
    /// a private pointer, then the arguments of its `TP_PROTO`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if this kernel has no such tracepoint; the log has a line then.
    pub(crate) unsafe fn register(name: &'static CStr, function: *mut c_void) -> Result<Self> {
        let Some(tracepoint) = find(name) else {
            log!(
                ERR,
                "this kernel has no tracepoint {}: build toa for another kernel (error ENOENT)\n",
                name.to_str().unwrap_or("?")
            );
            return Err(ENOENT);
        };
        // SAFETY: The tracepoint is the kernel's own and lives for ever; the prototype is the
        // caller's promise.
        kernel::error::to_result(unsafe {
            c::tracepoint_probe_register(tracepoint.as_ptr(), function, ptr::null_mut())
        })?;
        // INVARIANT: Just registered.
        Ok(Self {
            tracepoint,
            function,
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the probe is registered. The only errors are those of an
        // unknown probe and of memory; without memory the kernel puts a stub in our place instead.
        unsafe {
            c::tracepoint_probe_unregister(self.tracepoint.as_ptr(), self.function, ptr::null_mut())
        };
        // Both, as C's `tracepoint_synchronize_unregister` does: probes run under
        // `tracepoint_srcu`, those of faultable tracepoints under tasks-trace RCU. Before 7.0 probes
        // run under RCU.
        // SAFETY: Module init or exit: process context that may sleep. The kernel initialised both
        // statically.
        unsafe {
            if c::TOA_HAS_RCU_TASKS_TRACE_SRCU != 0 {
                c::synchronize_srcu(&raw mut c::rcu_tasks_trace_srcu_struct);
            } else {
                c::synchronize_rcu();
            }
            c::synchronize_srcu(&raw mut c::tracepoint_srcu);
        }
    }
}

/// The search of [`find`], and its result.
struct Search {
    name: &'static CStr,
    found: Option<NonNull<c::tracepoint>>,
}

fn find(name: &'static CStr) -> Option<NonNull<c::tracepoint>> {
    let mut search = Search { name, found: None };
    // SAFETY: `visit` takes a tracepoint and the pointer given here, which it gets back as it is,
    // before this call returns.
    unsafe {
        c::for_each_kernel_tracepoint(visit, (&raw mut search).cast());
    }
    search.found
}

/// # Safety
///
/// Called by `for_each_kernel_tracepoint` with a tracepoint, and the [`Search`] of [`find`].
unsafe extern "C" fn visit(tracepoint: *mut c::tracepoint, search: *mut c_void) {
    // SAFETY: `find` passed an exclusive pointer to a `Search`, alive during the whole iteration.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: Each tracepoint has a name, a string literal of the kernel.
    let name = unsafe {
        CStr::from_char_ptr(
            tracepoint
                .byte_add(c::TOA_TRACEPOINT_NAME)
                .cast::<*const c_char>()
                .read(),
        )
    };
    if name == search.name {
        search.found = NonNull::new(tracepoint);
    }
}
