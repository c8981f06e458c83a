// SPDX-License-Identifier: MIT OR Apache-2.0

//! The interface that nginx calls: the tables of a dynamic module
//! (`src/core/ngx_module.h`, `src/stream/ngx_stream.h`), and the functions in them.
//! All unsafe code of the crate is in this file.

use core::ffi::c_char;
use core::ffi::c_void;
use core::ffi::CStr;
use core::ptr;

use nginx_sys::ngx_array_push;
use nginx_sys::ngx_conf_t;
use nginx_sys::ngx_cycle_t;
use nginx_sys::ngx_int_t;
use nginx_sys::ngx_module_t;
use nginx_sys::ngx_str_t;
use nginx_sys::ngx_stream_add_variable;
use nginx_sys::ngx_stream_conf_ctx_t;
use nginx_sys::ngx_stream_core_main_conf_t;
use nginx_sys::ngx_stream_core_module;
use nginx_sys::ngx_stream_handler_pt;
use nginx_sys::ngx_stream_module_t;
use nginx_sys::ngx_stream_phases_NGX_STREAM_POST_ACCEPT_PHASE;
use nginx_sys::ngx_stream_session_t;
use nginx_sys::ngx_uint_t;
use nginx_sys::ngx_variable_value_t;
use nginx_sys::NGX_DECLINED;
use nginx_sys::NGX_ERROR;
use nginx_sys::NGX_OK;
use nginx_sys::NGX_STREAM_MODULE;
use toa_nginx::notice;
use toa_nginx::Connection;
use toa_nginx::Variable;

const OK: ngx_int_t = NGX_OK as ngx_int_t;
const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;
const DECLINED: ngx_int_t = NGX_DECLINED as ngx_int_t;

/// The HTTP module, which logs the missing `toa.ko` if it is loaded.
const HTTP_MODULE: &CStr = c"ngx_http_toa_module";

/// Adds the variables before nginx reads a configuration that may use them.
unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    for (index, variable) in Variable::ALL.into_iter().enumerate() {
        let name = variable.name();
        let mut name = ngx_str_t {
            data: name.as_ptr().cast_mut(),
            len: name.len(),
        };
        // SAFETY: nginx keeps the name, which is static and never written to.
        let added = unsafe { ngx_stream_add_variable(cf, &mut name, 0).as_mut() };
        let Some(added) = added else {
            return ERROR;
        };
        added.get_handler = Some(evaluate);
        added.data = index;
    }
    OK
}

unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: nginx calls this function while it reads the block `stream`, whose context
    // is `ctx`. nginx reads the phases' handlers only after this call.
    let core = unsafe {
        let context = (*cf).ctx.cast::<ngx_stream_conf_ctx_t>();
        let index = (*ptr::addr_of!(ngx_stream_core_module)).ctx_index;
        let core = *(*context).main_conf.add(index);
        core.cast::<ngx_stream_core_main_conf_t>().as_mut()
    };
    let phase = ngx_stream_phases_NGX_STREAM_POST_ACCEPT_PHASE as usize;
    let Some(phase) = core.and_then(|core| core.phases.get_mut(phase)) else {
        return ERROR;
    };
    // SAFETY: nginx created the array for elements of that type.
    let place = unsafe { ngx_array_push(&mut phase.handlers) };
    if place.is_null() {
        return ERROR;
    }
    // SAFETY: `place` is the array's new element.
    unsafe { place.cast::<ngx_stream_handler_pt>().write(Some(handle)) };
    OK
}

/// Returns the connection of a session.
///
/// # Safety
///
/// `session` is null, or a session that nginx is processing for all of `'s`.
unsafe fn connection_of<'s>(session: *mut ngx_stream_session_t) -> Option<Connection<'s>> {
    // SAFETY: the caller guarantees that the session lives. Its connection lives longer.
    unsafe { Connection::from_raw(session.as_ref()?.connection) }
}

/// Handles the first phase of a session: asks the kernel for the peers.
unsafe extern "C" fn handle(session: *mut ngx_stream_session_t) -> ngx_int_t {
    // SAFETY: nginx passes the session that it is processing.
    if let Some(connection) = unsafe { connection_of(session) } {
        connection.peers();
    }
    // nginx calls the next handler of the phase.
    DECLINED
}

/// Evaluates a variable for a session.
unsafe extern "C" fn evaluate(
    session: *mut ngx_stream_session_t,
    value: *mut ngx_variable_value_t,
    index: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes the session that it is processing, and a place for the value.
    let (connection, value) = unsafe { (connection_of(session), value.as_mut()) };
    let (Some(variable), Some(value)) = (Variable::ALL.get(index), value) else {
        return ERROR;
    };
    variable.evaluate(connection.and_then(Connection::peers), value);
    OK
}

/// Runs in the master when nginx has read the configuration.
unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx passes the cycle that begins.
    unsafe {
        if !notice::has_module(cycle, HTTP_MODULE) {
            notice::say_once(cycle);
        }
    }
    OK
}

static CONTEXT: ngx_stream_module_t = ngx_stream_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: None,
    merge_srv_conf: None,
};

/// The module's table. `load_module` compares its signature, which is that of the
/// nginx that the module is built for.
#[allow(non_upper_case_globals)]
static mut ngx_stream_toa_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast::<c_void>(),
    type_: NGX_STREAM_MODULE as ngx_uint_t,
    init_module: Some(init_module),
    ..ngx_module_t::default()
};

/// The modules of the library. `load_module` looks up this table, the modules' names
/// and their order; any order fits.
#[no_mangle]
#[allow(non_upper_case_globals)]
static mut ngx_modules: [*const ngx_module_t; 2] =
    [(&raw const ngx_stream_toa_module), ptr::null()];

#[no_mangle]
#[allow(non_upper_case_globals)]
static mut ngx_module_names: [*const c_char; 2] = [c"ngx_stream_toa_module".as_ptr(), ptr::null()];

#[no_mangle]
#[allow(non_upper_case_globals)]
static mut ngx_module_order: [*const c_char; 1] = [ptr::null()];
