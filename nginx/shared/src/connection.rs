// SPDX-License-Identifier: MIT OR Apache-2.0

//! A connection of nginx (`src/core/ngx_connection.h`), and the peers that are kept
//! with it.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr;
use core::ptr::NonNull;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use nginx_sys::__socket_type_SOCK_STREAM as SOCK_STREAM;
use nginx_sys::ngx_connection_t;
use nginx_sys::ngx_pool_cleanup_add;
use nginx_sys::ngx_pool_cleanup_t;
use nginx_sys::AF_INET;
use nginx_sys::AF_INET6;

use crate::name;
use crate::peers::Peers;

/// A connection, borrowed for the duration of a callback from nginx.
#[derive(Clone, Copy)]
pub struct Connection<'c> {
    raw: NonNull<ngx_connection_t>,
    alive: PhantomData<&'c ngx_connection_t>,
}

impl<'c> Connection<'c> {
    /// Wraps nginx's connection. None if `raw` is null.
    ///
    /// # Safety
    ///
    /// `raw` is null, or a connection of this process. The connection and its pool are
    /// open for all of `'c`.
    pub unsafe fn from_raw(raw: *mut ngx_connection_t) -> Option<Self> {
        Some(Self {
            raw: NonNull::new(raw)?,
            alive: PhantomData,
        })
    }

    pub fn as_ptr(self) -> *mut ngx_connection_t {
        self.raw.as_ptr()
    }

    /// Returns the connection's peers. The first call asks the kernel.
    pub fn peers(self) -> Option<&'c Peers> {
        match self.remembered() {
            Some(peers) => peers,
            None => self.remember(self.tcp_socket().and_then(Peers::of)),
        }
    }

    /// Returns the address that nginx has for the client; an IPv4-mapped one as IPv4.
    pub fn remote(self) -> Option<SocketAddr> {
        // SAFETY: the connection is open (`from_raw`), so its name is `socklen` bytes
        // long.
        unsafe {
            let connection = self.raw.as_ref();
            name::address_at(connection.sockaddr, connection.socklen)
        }
    }

    /// Returns the connection's descriptor if it is TCP over IP. Excludes UNIX and UDP
    /// sockets, and streams of QUIC connections, which have the UDP socket's descriptor.
    fn tcp_socket(self) -> Option<BorrowedFd<'c>> {
        // SAFETY: the connection is open (`from_raw`), and this process has one
        // thread, so no other code writes to it.
        let connection = unsafe { self.raw.as_ref() };
        // SAFETY: an open connection's name is null or begins with its family.
        let family = unsafe { connection.sockaddr.as_ref() }?.sa_family;
        let tcp = connection.type_ == SOCK_STREAM as i32
            && connection.quic.is_null()
            && [AF_INET, AF_INET6].contains(&u32::from(family));
        // SAFETY: the descriptor is not -1, and the connection is open for `'c`.
        (tcp && connection.fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(connection.fd) })
    }

    /// Returns the kept answer. The outer None means that the kernel was not asked yet.
    fn remembered(self) -> Option<Option<&'c Peers>> {
        // SAFETY: an open connection has a pool, or a null pointer to one.
        let pool = unsafe { self.raw.as_ref().pool.as_ref() }?;
        // SAFETY: the pool's list of cleanups is its own: each is null or a cleanup
        // that lives as long as the pool.
        let first = unsafe { pool.cleanup.as_ref() };
        let mut all = core::iter::successors(first, |cleanup: &&ngx_pool_cleanup_t| {
            // SAFETY: the same holds for each next cleanup.
            unsafe { cleanup.next.as_ref() }
        });
        let ours = all.find(|cleanup| is_forget(cleanup))?;
        // SAFETY: `remember` left null or the peers there, in the pool's memory. No code
        // writes to the peers again.
        Some(unsafe { ours.data.cast::<Peers>().as_ref() })
    }

    /// Keeps the answer in the connection's pool. If memory is short, the answer is lost,
    /// as without `toa.ko`.
    fn remember(self, peers: Option<Peers>) -> Option<&'c Peers> {
        let size = if peers.is_some() {
            size_of::<Peers>()
        } else {
            0
        };
        // SAFETY: an open connection has a pool, or a null pointer to one.
        let pool = NonNull::new(unsafe { self.raw.as_ref().pool })?;
        // SAFETY: the pool is open. A cleanup is null or new, and belongs to the pool.
        let cleanup = unsafe { ngx_pool_cleanup_add(pool.as_ptr(), size).as_mut() }?;
        let place = cleanup.data.cast::<Peers>();
        if let Some(peers) = peers {
            // SAFETY: the cleanup has `size` bytes at `place`. nginx aligns all memory but
            // texts for any type.
            unsafe { place.write(peers) };
        } else {
            cleanup.data = ptr::null_mut();
        }
        cleanup.handler = Some(forget);
        // SAFETY: `data` is null, or was written above and lives as long as the pool.
        unsafe { cleanup.data.cast::<Peers>().as_ref() }
    }
}

/// Marks a cleanup as ours, and does nothing: peers own nothing, and their memory is
/// the pool's.
unsafe extern "C" fn forget(_peers: *mut c_void) {}

fn is_forget(cleanup: &ngx_pool_cleanup_t) -> bool {
    let ours = forget as unsafe extern "C" fn(*mut c_void);
    cleanup
        .handler
        .is_some_and(|handler| ptr::fn_addr_eq(handler, ours))
}
