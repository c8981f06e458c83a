// SPDX-License-Identifier: MIT OR Apache-2.0

//! A request of nginx (`src/http/ngx_http_request.h`), and whose address its
//! connection has meanwhile.

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

/// For as long as a callback of nginx runs.
pub(crate) struct Request<'r> {
    raw: &'r ngx_http_request_t,
    connection: Connection<'r>,
    location: &'r Location,
}

impl<'r> Request<'r> {
    /// None: it is not one that nginx can have made.
    ///
    /// # Safety
    ///
    /// `raw` is null, or a request that nginx is at, with the connection that it came
    /// by. Both live for all of `'r`.
    pub(crate) unsafe fn from_raw(raw: *mut ngx_http_request_t) -> Option<Self> {
        // SAFETY: it lives, as the caller says. nginx writes to it only in functions
        // that are not called from here.
        let raw = unsafe { raw.as_ref() }?;
        Some(Self {
            raw,
            // SAFETY: it lives as long as the request.
            connection: unsafe { Connection::from_raw(raw.connection) }?,
            location: Module::location_conf(raw)?,
        })
    }

    pub(crate) fn connection(&self) -> Connection<'r> {
        self.connection
    }

    /// Where it has got to, or the server's own settings.
    pub(crate) fn location(&self) -> &'r Location {
        self.location
    }

    /// Whether it is the client's own, and not a part of one that nginx has made.
    pub(crate) fn is_main(&self) -> bool {
        ptr::eq(self.raw, self.raw.main)
    }

    /// What `substitute` did before.
    pub(crate) fn substitution(&self) -> Option<&'r Substitution> {
        // SAFETY: a request that nginx is at has a pool.
        let pool = unsafe { self.raw.pool.as_ref() }?;
        // SAFETY: each of the pool's cleanups is null or lives as long as the pool.
        let first = unsafe { pool.cleanup.as_ref() };
        let mut all = iter::successors(first, |cleanup: &&ngx_pool_cleanup_t| {
            // SAFETY: as for the first.
            unsafe { cleanup.next.as_ref() }
        });
        let restore = restore as unsafe extern "C" fn(*mut c_void);
        let ours = all.find(|cleanup| {
            cleanup
                .handler
                .is_some_and(|handler| ptr::fn_addr_eq(handler, restore))
        })?;
        // SAFETY: it is from `substitute`, which wrote it there.
        unsafe { ours.data.cast::<Substitution>().as_ref() }
    }

    /// From now on, and until the request has ended, its connection is from
    /// `client`. A pool's memory goes after its cleanups, so what a request leaves
    /// behind is a connection as it was, for the next one.
    pub(crate) fn substitute(&self, client: &'r Name) -> Result<(), NoMemory> {
        let size = size_of::<Substitution>();
        // SAFETY: a request that nginx is at has a pool. A cleanup is null or new.
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
        // SAFETY: the cleanup came with `size` bytes for it, aligned for any type.
        let substitution = unsafe {
            place.write(substitution);
            place.as_ref()
        };
        cleanup.handler = Some(restore);
        substitution.repeat();
        Ok(())
    }
}

/// One address in place of another. The client's lives in the connection's pool,
/// and the other at least as long as its request.
pub(crate) struct Substitution {
    connection: *mut ngx_connection_t,
    before: Address,
    client: Address,
    active: Cell<bool>,
}

impl Substitution {
    /// Puts the client there, if it is not.
    pub(crate) fn repeat(&self) {
        if !self.active.replace(true) {
            self.put(&self.client);
        }
    }

    /// Puts the address there that was before, if it is the client's.
    pub(crate) fn undo(&self) {
        // SAFETY: the connection lives longer than the request, and thus longer than
        // this, which is in the request's pool.
        let now = unsafe { (*self.connection).sockaddr };
        if now == self.client.name && self.active.replace(false) {
            self.put(&self.before);
        }
    }

    fn put(&self, address: &Address) {
        // SAFETY: as in `undo`. This process has one thread, and nobody has borrowed
        // these fields.
        unsafe {
            (*self.connection).sockaddr = address.name;
            (*self.connection).socklen = address.length;
            (*self.connection).addr_text = address.text;
        }
    }
}

/// The address of a connection as nginx has it.
#[derive(Clone, Copy)]
struct Address {
    name: *mut sockaddr,
    length: socklen_t,
    text: ngx_str_t,
}

impl Address {
    fn of(connection: Connection<'_>) -> Self {
        let raw = connection.as_ptr();
        // SAFETY: the connection is open for as long as its `Connection` is there.
        unsafe {
            Self {
                name: (*raw).sockaddr,
                length: (*raw).socklen,
                text: (*raw).addr_text,
            }
        }
    }
}

/// nginx calls it when a request's pool goes.
unsafe extern "C" fn restore(substitution: *mut c_void) {
    // SAFETY: it is from `substitute`, and the pool's memory goes later.
    if let Some(substitution) = unsafe { substitution.cast::<Substitution>().as_ref() } {
        substitution.undo();
    }
}
