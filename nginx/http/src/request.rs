// SPDX-License-Identifier: MIT OR Apache-2.0

//! A request of nginx (`src/http/ngx_http_request.h`), and the address of its
//! connection during the request.

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::NonNull;

use nginx_sys::ngx_connection_t;
use nginx_sys::ngx_http_request_t;
use nginx_sys::ngx_pool_cleanup_add;
use ngx::http::HttpModuleServerConf;
use toa_nginx::Address;
use toa_nginx::Connection;
use toa_nginx::Name;
use toa_nginx::NoMemory;

use crate::module::Module;
use crate::server::Server;

/// A request, borrowed for the duration of a callback from nginx.
pub(crate) struct Request<'r> {
    raw: &'r ngx_http_request_t,
    connection: Connection<'r>,
    server: &'r Server,
}

impl<'r> Request<'r> {
    /// Wraps nginx's request. None if `raw` or a part of it is null.
    ///
    /// # Safety
    ///
    /// `raw` is null, or a request that nginx is processing, with its own connection.
    /// Both live for all of `'r`.
    pub(crate) unsafe fn from_raw(raw: *mut ngx_http_request_t) -> Option<Self> {
        // SAFETY: the caller guarantees that the request lives. nginx writes to it only
        // in functions that this crate does not call.
        let raw = unsafe { raw.as_ref() }?;
        Some(Self {
            raw,
            // SAFETY: the connection lives as long as the request.
            connection: unsafe { Connection::from_raw(raw.connection) }?,
            server: Module::server_conf(raw)?,
        })
    }

    pub(crate) fn connection(&self) -> Connection<'r> {
        self.connection
    }

    /// Returns the settings of the request's server.
    pub(crate) fn server(&self) -> &'r Server {
        self.server
    }

    /// Gives the request's connection the address of `client` until the request ends.
    /// nginx runs a pool's cleanups before it frees the pool's memory. So the cleanup
    /// restores the connection for the next request.
    pub(crate) fn substitute(&self, client: &'r Name) -> Result<(), NoMemory> {
        let size = size_of::<Substitution>();
        // SAFETY: a request that nginx is processing has a pool. A cleanup is null or new.
        let cleanup = unsafe { ngx_pool_cleanup_add(self.raw.pool, size).as_mut() };
        let cleanup = cleanup.ok_or(NoMemory)?;
        let place = NonNull::new(cleanup.data.cast::<Substitution>()).ok_or(NoMemory)?;
        let client = Address::from(client);
        let substitution = Substitution {
            connection: self.connection.as_ptr(),
            before: self.connection.remote_address(),
            client,
        };
        // SAFETY: the cleanup has `size` bytes at `place`, aligned for any type.
        unsafe { place.write(substitution) };
        cleanup.handler = Some(restore);
        // SAFETY: the client's name is in the pool of the connection, which outlives the
        // request. `restore` puts the address before it back when the request ends.
        unsafe { self.connection.set_remote_address(&client) };
        Ok(())
    }
}

/// A client's address in the place of the connection's own. The client's address lives
/// in the connection's pool, and the other one at least as long as the request.
struct Substitution {
    connection: *mut ngx_connection_t,
    before: Address,
    client: Address,
}

/// Undoes a substitution, unless another module has replaced the client's address by its
/// choice. nginx calls the function when a request's pool is destroyed.
unsafe extern "C" fn restore(substitution: *mut c_void) {
    // SAFETY: `substitute` wrote the substitution, and nginx frees the pool's memory
    // later. The connection lives longer than the request.
    let (substitution, connection) = unsafe {
        let substitution = substitution.cast::<Substitution>().as_ref();
        let raw = substitution.map(|substitution| substitution.connection);
        (substitution, raw.and_then(|raw| Connection::from_raw(raw)))
    };
    if let (Some(substitution), Some(connection)) = (substitution, connection) {
        if substitution.client.is_of(connection) {
            // SAFETY: the connection had this address before the request, and it lives at
            // least as long as the connection has it.
            unsafe { connection.set_remote_address(&substitution.before) };
        }
    }
}
