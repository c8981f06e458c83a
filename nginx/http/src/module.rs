// SPDX-License-Identifier: MIT OR Apache-2.0

//! The interface that nginx calls: the tables of a dynamic module
//! (`src/core/ngx_module.h`, `src/http/ngx_http_config.h`), and the functions in
//! them. Each function turns raw arguments into safe views, calls a safe function,
//! and turns the result back.

use core::ffi::c_char;
use core::ffi::c_void;
use core::ffi::CStr;
use core::mem::offset_of;
use core::ptr;

use nginx_sys::ngx_array_push;
use nginx_sys::ngx_command_t;
use nginx_sys::ngx_conf_set_flag_slot;
use nginx_sys::ngx_conf_t;
use nginx_sys::ngx_connection_t;
use nginx_sys::ngx_cycle_t;
use nginx_sys::ngx_http_add_variable;
use nginx_sys::ngx_http_handler_pt;
use nginx_sys::ngx_http_init_connection;
use nginx_sys::ngx_http_module_t;
use nginx_sys::ngx_http_phases_NGX_HTTP_POST_READ_PHASE;
use nginx_sys::ngx_http_request_t;
use nginx_sys::ngx_int_t;
use nginx_sys::ngx_listening_t;
use nginx_sys::ngx_module_t;
use nginx_sys::ngx_uint_t;
use nginx_sys::ngx_variable_value_t;
use nginx_sys::NGX_CONF_FLAG;
use nginx_sys::NGX_HTTP_INTERNAL_SERVER_ERROR;
use nginx_sys::NGX_HTTP_LIF_CONF;
use nginx_sys::NGX_HTTP_LOC_CONF;
use nginx_sys::NGX_HTTP_MAIN_CONF;
use nginx_sys::NGX_HTTP_MODULE;
use nginx_sys::NGX_HTTP_SIF_CONF;
use nginx_sys::NGX_HTTP_SRV_CONF;
use nginx_sys::NGX_HTTP_SRV_CONF_OFFSET;
use ngx::core::Status;
use ngx::http::HttpModule;
use ngx::http::HttpModuleMainConf;
use ngx::http::HttpModuleServerConf;
use ngx::http::NgxHttpCoreModule;
use toa_nginx::ngx_str;
use toa_nginx::notice;
use toa_nginx::Connection;
use toa_nginx::Reason;
use toa_nginx::Variable;

use crate::real_ip;
use crate::request::Request;
use crate::server::Server;

pub(crate) struct Module;

impl HttpModule for Module {
    fn module() -> &'static ngx_module_t {
        // SAFETY: nginx writes to the static before it calls the module's functions, and
        // not while one runs.
        unsafe { &*ptr::addr_of!(ngx_http_toa_module) }
    }

    /// Adds the variables before nginx reads a configuration that may use them.
    unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
        for (index, variable) in Variable::ALL.into_iter().enumerate() {
            // SAFETY: nginx keeps the name, which is static and never written to.
            let added =
                unsafe { ngx_http_add_variable(cf, &mut ngx_str(variable.name()), 0).as_mut() };
            let Some(added) = added else {
                return Status::NGX_ERROR.into();
            };
            added.get_handler = Some(evaluate);
            added.data = index;
        }
        Status::NGX_OK.into()
    }

    unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
        // SAFETY: nginx reads the phases' handlers only after this call.
        let core = unsafe { cf.as_ref() }.and_then(NgxHttpCoreModule::main_conf_mut);
        let phases = core.map(|core| &mut core.phases);
        let phase = ngx_http_phases_NGX_HTTP_POST_READ_PHASE as usize;
        let Some(phase) = phases.and_then(|phases| phases.get_mut(phase)) else {
            return Status::NGX_ERROR.into();
        };
        // SAFETY: nginx created the array for elements of that type.
        let place = unsafe { ngx_array_push(&mut phase.handlers) };
        if place.is_null() {
            return Status::NGX_ERROR.into();
        }
        // SAFETY: `place` is the array's new element.
        unsafe { place.cast::<ngx_http_handler_pt>().write(Some(handle)) };
        Status::NGX_OK.into()
    }
}

// SAFETY: `create_srv_conf` creates a `Server`.
unsafe impl HttpModuleServerConf for Module {
    type ServerConf = Server;
}

/// Evaluates a variable for a request.
unsafe extern "C" fn evaluate(
    request: *mut ngx_http_request_t,
    value: *mut ngx_variable_value_t,
    index: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes the request that it is processing, whose connection is
    // open, and a place for the value.
    let (connection, value) = unsafe {
        let connection = request.as_ref().map(|request| request.connection);
        let connection = connection.and_then(|raw| Connection::from_raw(raw));
        (connection, value.as_mut())
    };
    let (Some(variable), Some(value)) = (Variable::ALL.get(index), value) else {
        return Status::NGX_ERROR.into();
    };
    let peers = connection.ok_or(Reason::Error).and_then(Connection::peers);
    variable.evaluate(peers, value);
    Status::NGX_OK.into()
}

/// Handles a phase of a request.
unsafe extern "C" fn handle(request: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request that it is processing.
    let request = unsafe { Request::from_raw(request) };
    match request.map(|request| real_ip::apply(&request)) {
        Some(Err(_)) => NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t,
        // nginx calls the next handler of the phase.
        Some(Ok(())) | None => Status::NGX_DECLINED.into(),
    }
}

/// Starts each connection: asks the kernel for the peers, then calls nginx's own
/// function.
unsafe extern "C" fn init_connection(connection: *mut ngx_connection_t) {
    // SAFETY: nginx has just accepted the connection, which is open.
    if let Some(connection) = unsafe { Connection::from_raw(connection) } {
        let _ = connection.peers();
    }
    // SAFETY: the argument is the one that nginx passed.
    unsafe { ngx_http_init_connection(connection) };
}

/// Runs in the master when nginx has read the configuration.
unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx passes the cycle that begins.
    unsafe {
        notice::say_once(cycle);
        listen_first(cycle);
    }
    Status::NGX_OK.into()
}

/// Puts our function before nginx's in all listeners that have nginx's function.
///
/// # Safety
///
/// The cycle is one that begins: no process accepts from its listeners yet.
unsafe fn listen_first(cycle: *mut ngx_cycle_t) {
    // SAFETY: the caller guarantees that the cycle begins. A cycle's listeners are an
    // array of that type.
    let listeners = unsafe { (*cycle).listening.as_slice_mut::<ngx_listening_t>() };
    let nginx_s = ngx_http_init_connection as unsafe extern "C" fn(*mut ngx_connection_t);
    for listener in listeners {
        let is_nginx_s = |handler| ptr::fn_addr_eq(handler, nginx_s);
        if listener.handler.is_some_and(is_nginx_s) {
            listener.handler = Some(init_connection);
        }
    }
}

/// The answer to the directive in blocks in which it would act too late. nginx writes the
/// directive's name before it, and the place in the configuration after it.
const TOO_LATE: &CStr = c"belongs into the block \"server\" or \"http\": in \"location\" \
    and \"if\" it would act after \"set\", \"return\" and \"map\" have used the balancer's address";

/// Sets the value of `toa_real_ip`.
unsafe extern "C" fn set_real_ip(
    cf: *mut ngx_conf_t,
    command: *mut ngx_command_t,
    server: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the configuration that it reads.
    let block = unsafe { cf.as_ref() }.map_or(0, |cf| cf.cmd_type);
    if block & (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF) as ngx_uint_t == 0 {
        // nginx only reads the text.
        return TOO_LATE.as_ptr().cast_mut();
    }
    // SAFETY: the arguments are those that nginx passed. The command's offset is that of a
    // flag in `Server`.
    unsafe { ngx_conf_set_flag_slot(cf, command, server) }
}

/// The blocks in which nginx accepts the directive, and those in which `set_real_ip`
/// explains why it does not.
const BLOCKS: u32 = NGX_HTTP_MAIN_CONF
    | NGX_HTTP_SRV_CONF
    | NGX_HTTP_SIF_CONF
    | NGX_HTTP_LOC_CONF
    | NGX_HTTP_LIF_CONF;

static mut COMMANDS: [ngx_command_t; 2] = [
    ngx_command_t {
        name: ngx_str(c"toa_real_ip"),
        type_: (BLOCKS | NGX_CONF_FLAG) as ngx_uint_t,
        set: Some(set_real_ip),
        conf: NGX_HTTP_SRV_CONF_OFFSET,
        offset: offset_of!(Server, real_ip),
        post: ptr::null_mut(),
    },
    ngx_command_t::empty(),
];

static CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(Module::preconfiguration),
    postconfiguration: Some(Module::postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: Some(Module::create_srv_conf),
    merge_srv_conf: Some(Module::merge_srv_conf),
    create_loc_conf: None,
    merge_loc_conf: None,
};

ngx::ngx_modules!(ngx_http_toa_module);

/// The module's table. `load_module` compares its signature, which is that of the
/// nginx that the module is built for.
#[used]
#[allow(non_upper_case_globals)]
static mut ngx_http_toa_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast::<c_void>(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_module: Some(init_module),
    ..ngx_module_t::default()
};
