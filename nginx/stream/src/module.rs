// SPDX-License-Identifier: MIT OR Apache-2.0

//! What nginx sees: the tables that it looks for in a dynamic module
//! (`src/core/ngx_module.h`, `src/stream/ngx_stream.h`), and the functions in them.
//! All unsafe code of the crate is here.

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

/// If it is loaded, it says what there is to say.
const HTTP_MODULE: &CStr = c"ngx_http_toa_module";

/// Before the configuration is read, in which the variables may be used.
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
    // SAFETY: nginx calls it while it reads the block `stream`, of which `ctx` is the
    // context. nginx is about to read the phases' handlers, and not while it calls
    // this.
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
    // SAFETY: nginx has made the array, for elements of that type.
    let place = unsafe { ngx_array_push(&mut phase.handlers) };
    if place.is_null() {
        return ERROR;
    }
    // SAFETY: it is the array's new element.
    unsafe { place.cast::<ngx_stream_handler_pt>().write(Some(handle)) };
    OK
}

/// # Safety
///
/// `session` is null, or one that nginx is at, for all of `'s`.
unsafe fn connection_of<'s>(session: *mut ngx_stream_session_t) -> Option<Connection<'s>> {
    // SAFETY: as the caller says; the connection of a session lives longer than it.
    unsafe { Connection::from_raw(session.as_ref()?.connection) }
}

/// The first phase of a session: the kernel is asked who the peers are.
unsafe extern "C" fn handle(session: *mut ngx_stream_session_t) -> ngx_int_t {
    // SAFETY: nginx calls it with a session that it is at.
    if let Some(connection) = unsafe { connection_of(session) } {
        connection.peers();
    }
    // The next handler of the phase goes on.
    DECLINED
}

/// The value of a variable for a session.
unsafe extern "C" fn evaluate(
    session: *mut ngx_stream_session_t,
    value: *mut ngx_variable_value_t,
    index: usize,
) -> ngx_int_t {
    // SAFETY: nginx calls it with a session that it is at, and with a place for the
    // value.
    let (connection, value) = unsafe { (connection_of(session), value.as_mut()) };
    let (Some(variable), Some(value)) = (Variable::ALL.get(index), value) else {
        return ERROR;
    };
    variable.evaluate(connection.and_then(Connection::peers), value);
    OK
}

/// When the configuration has been read, in the master.
unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx calls it with the cycle that begins.
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

/// With the signature of the nginx that it is built for, which `load_module`
/// compares.
#[allow(non_upper_case_globals)]
static mut ngx_stream_toa_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast::<c_void>(),
    type_: NGX_STREAM_MODULE as ngx_uint_t,
    init_module: Some(init_module),
    ..ngx_module_t::default()
};

/// What `load_module` asks the library for: the modules, their names, and their
/// place among the others, which may be any.
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
