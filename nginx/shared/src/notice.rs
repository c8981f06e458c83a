// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports once in the error log that the kernel has no `toa.ko`.

use core::ffi::CStr;
use core::ptr;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering;

use nginx_sys::ngx_cycle_t;
use nginx_sys::ngx_log_error_core;
use nginx_sys::ngx_test_config;
use nginx_sys::ngx_uint_t;
use nginx_sys::NGX_LOG_ERR;

use crate::ask;

/// Whether the line was logged. A reload keeps the module and its memory in the
/// master.
static SAID: AtomicBool = AtomicBool::new(false);

/// The level of errors, which nginx logs by default.
const LEVEL: ngx_uint_t = NGX_LOG_ERR as ngx_uint_t;

const NO_TOA: &CStr = c"toa: this kernel has no toa.ko that answers getsockopt: \
    $toa_remote_addr and the like are \"-\"";

/// Logs the line unless it was logged since nginx started. A test of the configuration
/// logs nothing, since nginx's start would log the line again.
///
/// # Safety
///
/// nginx calls it with the cycle that begins, from its only thread.
pub unsafe fn say_once(cycle: *mut ngx_cycle_t) {
    // SAFETY: nginx sets the variable before it begins a cycle.
    if unsafe { ngx_test_config } != 0 || !ask::is_missing() {
        return;
    }
    if !SAID.swap(true, Ordering::Relaxed) {
        // SAFETY: the cycle has a log for as long as it lives.
        unsafe { log(cycle, NO_TOA) };
    }
}

unsafe fn log(cycle: *mut ngx_cycle_t, line: &CStr) {
    // SAFETY: the caller's cycle has a log. The line is a format without arguments.
    unsafe {
        let log = (*cycle).log;
        if (*log).log_level >= LEVEL {
            ngx_log_error_core(LEVEL, log, 0, line.as_ptr());
        }
    }
}

/// Whether the cycle has a module of that name.
///
/// # Safety
///
/// nginx calls it with the cycle that begins, from its only thread.
pub unsafe fn has_module(cycle: *mut ngx_cycle_t, name: &CStr) -> bool {
    // SAFETY: a cycle's modules are a list that ends with null, and each has a name
    // that ends with a zero once it is loaded.
    let mut names = (0..).map_while(|index| unsafe {
        let module = *(*cycle).modules.add(index);
        (!module.is_null()).then(|| (*module).name)
    });
    names.any(|found| {
        // SAFETY: the name is not null, and ends with a zero.
        !ptr::eq(found, ptr::null()) && unsafe { CStr::from_ptr(found) } == name
    })
}
