// SPDX-License-Identifier: MIT OR Apache-2.0

//! A request of nginx (`src/http/ngx_http_request.h`), and the address of its
//! connection during the request.

use core::cell::Cell;
use core::ffi::c_void;
use core::iter;
use core::mem::size_of;
use core::ptr;
use core::ptr::NonNull;

use nginx_sys::ngx_connection_t;
use nginx_sys::ngx_http_request_t;
use nginx_sys::ngx_pool_cleanup_add;
use nginx_sys::ngx_pool_cleanup_t;
use nginx_sys::ngx_str_t;
use nginx_sys::sockaddr;
use nginx_sys::socklen_t;
use ngx::http::HttpModuleLocationConf;
use toa_nginx::Connection;
use toa_nginx::Name;

use crate::location::Location;
use crate::module::Module;

/// nginx is out of memory.
#[derive(Debug)]
pub(crate) struct NoMemory;

/// A request, borrowed for the duration of a callback from nginx.
pub(crate) struct Request<'r> {
    raw: &'r ngx_http_request_t,
    connection: Connection<'r>,
    location: &'r Location,
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
            location: Module::location_conf(raw)?,
        })
    }

    pub(crate) fn connection(&self) -> Connection<'r> {
        self.connection
    }

    /// Returns the settings of the request's location, or of its server.
    pub(crate) fn location(&self) -> &'r Location {
        self.location
    }

    /// Whether the request is the client's own, and not a subrequest of nginx.
    pub(crate) fn is_main(&self) -> bool {
        ptr::eq(self.raw, self.raw.main)
    }

    /// Returns the substitution that `substitute` made before.
    pub(crate) fn substitution(&self) -> Option<&'r Substitution> {
        // SAFETY: a request that nginx is processing has a pool.
        let pool = unsafe { self.raw.pool.as_ref() }?;
        // SAFETY: each of the pool's cleanups is null or lives as long as the pool.
        let first = unsafe { pool.cleanup.as_ref() };
        let mut all = iter::successors(first, |cleanup: &&ngx_pool_cleanup_t| {
            // SAFETY: the same holds for each next cleanup.
            unsafe { cleanup.next.as_ref() }
        });
        let restore = restore as unsafe extern "C" fn(*mut c_void);
        let ours = all.find(|cleanup| {
            cleanup
                .handler
                .is_some_and(|handler| ptr::fn_addr_eq(handler, restore))
        })?;
        // SAFETY: `substitute` wrote the substitution there.
        unsafe { ours.data.cast::<Substitution>().as_ref() }
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
        let raw = self.connection.as_ptr();
        let text = client.text();
        let substitution = Substitution {
            connection: raw,
            before: Address::of(self.connection),
            client: Address {
                name: client.as_ptr(),
                length: client.length(),
                text: ngx_str_t {
                    data: text.as_ptr().cast_mut(),
                    len: text.len(),
                },
            },
            active: Cell::new(false),
        };
        // SAFETY: the cleanup has `size` bytes at `place`, aligned for any type.
        let substitution = unsafe {
            place.write(substitution);
            place.as_ref()
        };
        cleanup.handler = Some(restore);
        substitution.repeat();
        Ok(())
    }
}

/// A client's address in the place of the connection's own. The client's address lives
/// in the connection's pool, and the other one at least as long as the request.
pub(crate) struct Substitution {
    connection: *mut ngx_connection_t,
    before: Address,
    client: Address,
    active: Cell<bool>,
}

impl Substitution {
    /// Puts the client's address in place, if it is not there.
    pub(crate) fn repeat(&self) {
        if !self.active.replace(true) {
            self.put(&self.client);
        }
    }

    /// Restores the connection's own address, if the client's is in place.
    pub(crate) fn undo(&self) {
        // SAFETY: the connection lives longer than the request, whose pool holds this
        // substitution.
        let now = unsafe { (*self.connection).sockaddr };
        if now == self.client.name && self.active.replace(false) {
            self.put(&self.before);
        }
    }

    fn put(&self, address: &Address) {
        // SAFETY: the connection lives, as in `undo`. This process has one thread, and
        // no borrow of these fields exists.
        unsafe {
            (*self.connection).sockaddr = address.name;
            (*self.connection).socklen = address.length;
            (*self.connection).addr_text = address.text;
        }
    }
}

/// The address of a connection in nginx's form.
#[derive(Clone, Copy)]
struct Address {
    name: *mut sockaddr,
    length: socklen_t,
    text: ngx_str_t,
}

impl Address {
    fn of(connection: Connection<'_>) -> Self {
        let raw = connection.as_ptr();
        // SAFETY: the connection is open for as long as its `Connection` lives.
        unsafe {
            Self {
                name: (*raw).sockaddr,
                length: (*raw).socklen,
                text: (*raw).addr_text,
            }
        }
    }
}

/// Undoes a substitution; nginx calls it when a request's pool is destroyed.
unsafe extern "C" fn restore(substitution: *mut c_void) {
    // SAFETY: `substitute` wrote the substitution, and nginx frees the pool's memory
    // later.
    if let Some(substitution) = unsafe { substitution.cast::<Substitution>().as_ref() } {
        substitution.undo();
    }
}
