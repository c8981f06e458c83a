// SPDX-License-Identifier: MIT OR Apache-2.0

//! The interface that nginx calls: the tables of a dynamic module
//! (`src/core/ngx_module.h`, `src/stream/ngx_stream.h`), and the functions in them.
//! All unsafe code of the crate is in this file.

use core::ffi::c_char;
use core::ffi::c_void;
use core::ffi::CStr;
use core::mem::offset_of;
use core::mem::size_of;
use core::ptr;

use nginx_sys::ngx_array_push;
use nginx_sys::ngx_command_t;
use nginx_sys::ngx_conf_set_flag_slot;
use nginx_sys::ngx_conf_t;
use nginx_sys::ngx_cycle_t;
use nginx_sys::ngx_int_t;
use nginx_sys::ngx_module_t;
use nginx_sys::ngx_palloc;
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
use nginx_sys::NGX_CONF_FLAG;
use nginx_sys::NGX_DECLINED;
use nginx_sys::NGX_ERROR;
use nginx_sys::NGX_OK;
use nginx_sys::NGX_STREAM_INTERNAL_SERVER_ERROR;
use nginx_sys::NGX_STREAM_MAIN_CONF;
use nginx_sys::NGX_STREAM_MODULE;
use nginx_sys::NGX_STREAM_SRV_CONF;
use toa_nginx::ngx_str;
use toa_nginx::notice;
use toa_nginx::Connection;
use toa_nginx::Reason;
use toa_nginx::Switch;
use toa_nginx::Variable;

const OK: ngx_int_t = NGX_OK as ngx_int_t;
const ERROR: ngx_int_t = NGX_ERROR as ngx_int_t;
const DECLINED: ngx_int_t = NGX_DECLINED as ngx_int_t;
/// The status with which nginx ends a session, and logs it.
const INTERNAL_SERVER_ERROR: ngx_int_t = NGX_STREAM_INTERNAL_SERVER_ERROR as ngx_int_t;

/// The HTTP module, which logs the missing `toa.ko` if it is loaded.
const HTTP_MODULE: &CStr = c"ngx_http_toa_module";

/// Adds the variables before nginx reads a configuration that may use them.
unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    for (index, variable) in Variable::ALL.into_iter().enumerate() {
        let mut name = ngx_str(variable.name());
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

/// Returns the module's settings of a session's server.
///
/// # Safety
///
/// `session` is null, or a session that nginx is processing for all of `'s`.
unsafe fn server_of<'s>(session: *mut ngx_stream_session_t) -> Option<&'s Server> {
    // SAFETY: the caller guarantees that the session lives. A server has the settings of
    // each module at the module's index, and those of this module are a `Server`.
    unsafe {
        let index = (*ptr::addr_of!(ngx_stream_toa_module)).ctx_index;
        let server = *session.as_ref()?.srv_conf.add(index);
        server.cast::<Server>().as_ref()
    }
}

/// Handles the first phase of a session: asks the kernel for the peers, and gives nginx the
/// client if `toa_real_ip` is on. nginx calls modules from `load_module` first, so its own
/// realip module and all later phases find the client.
unsafe extern "C" fn handle(session: *mut ngx_stream_session_t) -> ngx_int_t {
    // SAFETY: nginx passes the session that it is processing.
    let (connection, server) = unsafe { (connection_of(session), server_of(session)) };
    let (Some(connection), Some(server)) = (connection, server) else {
        return INTERNAL_SERVER_ERROR;
    };
    // The answer is kept for the variables, also if the connection ends first.
    let _ = connection.peers();
    if server.real_ip.is_on() && connection.set_client().is_err() {
        return INTERNAL_SERVER_ERROR;
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
    let peers = connection.ok_or(Reason::Error).and_then(Connection::peers);
    variable.evaluate(peers, value);
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

/// The module's settings of a block `server`, or of the block `stream` around it.
#[derive(Default)]
#[repr(C)]
struct Server {
    real_ip: Switch,
}

/// Creates a server's settings. Null if nginx is out of memory.
unsafe extern "C" fn create_srv_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes the configuration that it reads, whose pool lives as long as the
    // configuration. The memory is null or new, and aligned for any type.
    unsafe {
        let place = ngx_palloc((*cf).pool, size_of::<Server>()).cast::<Server>();
        if !place.is_null() {
            place.write(Server::default());
        }
        place.cast()
    }
}

/// Takes unset values of a server from the block around it.
unsafe extern "C" fn merge_srv_conf(
    _cf: *mut ngx_conf_t,
    outer: *mut c_void,
    server: *mut c_void,
) -> *mut c_char {
    // SAFETY: `create_srv_conf` created both, and no other code uses them now.
    let (outer, server) = unsafe {
        (
            outer.cast::<Server>().as_ref(),
            server.cast::<Server>().as_mut(),
        )
    };
    if let (Some(outer), Some(server)) = (outer, server) {
        server.real_ip.inherit(&outer.real_ip);
    }
    // NGX_CONF_OK
    ptr::null_mut()
}

static mut COMMANDS: [ngx_command_t; 2] = [
    ngx_command_t {
        name: ngx_str(c"toa_real_ip"),
        type_: (NGX_STREAM_MAIN_CONF | NGX_STREAM_SRV_CONF | NGX_CONF_FLAG) as ngx_uint_t,
        set: Some(ngx_conf_set_flag_slot),
        conf: offset_of!(ngx_stream_conf_ctx_t, srv_conf),
        offset: offset_of!(Server, real_ip),
        post: ptr::null_mut(),
    },
    ngx_command_t::empty(),
];

static CONTEXT: ngx_stream_module_t = ngx_stream_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: Some(create_srv_conf),
    merge_srv_conf: Some(merge_srv_conf),
};

/// The module's table. `load_module` compares its signature, which is that of the
/// nginx that the module is built for.
#[allow(non_upper_case_globals)]
static mut ngx_stream_toa_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast::<c_void>(),
    commands: (&raw mut COMMANDS).cast(),
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
