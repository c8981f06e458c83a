// SPDX-License-Identifier: MIT OR Apache-2.0

//! A connection of nginx (`src/core/ngx_connection.h`), the peers that are kept with it,
//! and the addresses that nginx has for its two ends.

use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ptr;
use core::ptr::NonNull;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use nginx_sys::__socket_type_SOCK_STREAM as SOCK_STREAM;
use nginx_sys::ngx_connection_local_sockaddr;
use nginx_sys::ngx_connection_t;
use nginx_sys::ngx_int_t;
use nginx_sys::ngx_palloc;
use nginx_sys::ngx_pool_cleanup_add;
use nginx_sys::ngx_pool_cleanup_t;
use nginx_sys::ngx_pool_t;
use nginx_sys::ngx_str_t;
use nginx_sys::sockaddr;
use nginx_sys::socklen_t;
use nginx_sys::AF_INET;
use nginx_sys::AF_INET6;
use nginx_sys::NGX_OK;

use crate::name;
use crate::name::Name;
use crate::peers::Peers;
use crate::reason::Reason;

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

    /// Returns the connection's peers, or the reason why there are none. The first call
    /// asks the kernel.
    pub fn peers(self) -> Result<&'c Peers, Reason> {
        match self.remembered() {
            Some(answer) => answer.as_ref().map_err(|reason| *reason),
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

    /// Returns the address of the connection's local end; an IPv4-mapped one as IPv4.
    /// nginx asks the kernel if it listens on a wildcard address.
    fn local(self) -> Option<SocketAddr> {
        // SAFETY: the connection is open, and its name is nginx's. The null pointer asks
        // for no text.
        let found = unsafe { ngx_connection_local_sockaddr(self.as_ptr(), ptr::null_mut(), 0) };
        if found != NGX_OK as ngx_int_t {
            return None;
        }
        // SAFETY: nginx has filled the name in, which is `local_socklen` bytes long.
        unsafe {
            let connection = self.raw.as_ref();
            name::address_at(connection.local_sockaddr, connection.local_socklen)
        }
    }

    /// Returns nginx's address of the remote end, to put it back later.
    pub fn remote_address(self) -> Address {
        // SAFETY: the connection is open (`from_raw`).
        let connection = unsafe { self.raw.as_ref() };
        Address {
            name: connection.sockaddr,
            length: connection.socklen,
            text: connection.addr_text,
        }
    }

    /// Gives nginx another address of the remote end.
    ///
    /// # Safety
    ///
    /// The address lives until the connection has another one, or is closed.
    pub unsafe fn set_remote_address(self, address: &Address) {
        // SAFETY: the connection is open, this process has one thread, and no borrow of
        // these fields exists.
        unsafe {
            let connection = self.as_ptr();
            (*connection).sockaddr = address.name;
            (*connection).socklen = address.length;
            (*connection).addr_text = address.text;
        }
    }

    /// Returns the client if nginx has another address for the connection's remote end.
    pub fn hidden_client(self) -> Option<&'c Name> {
        let client = self.peers().ok()?.client();
        (self.remote() != Some(client.address())).then_some(client)
    }

    /// Gives nginx the client as the address of the remote end until the connection is
    /// closed, unless nginx already has it.
    ///
    /// An IPv4 address of the local end gets the IPv4-mapped form if the client is IPv6,
    /// as on a dual-stack listener. A header of the PROXY protocol has both addresses,
    /// and one family.
    pub fn set_client(self) -> Result<(), NoMemory> {
        let Some(client) = self.hidden_client() else {
            return Ok(());
        };
        if let (true, Some(SocketAddr::V4(local))) = (client.address().is_ipv6(), self.local()) {
            let mapped = SocketAddr::new(local.ip().to_ipv6_mapped().into(), local.port());
            let name = self.keep(Name::new(mapped))?;
            // SAFETY: the connection is open, this process has one thread, and no borrow of
            // these fields exists. The name is in the connection's pool.
            unsafe {
                (*self.as_ptr()).local_sockaddr = name.as_ptr();
                (*self.as_ptr()).local_socklen = name.length();
            }
        }
        // SAFETY: the peers live in the connection's pool.
        unsafe { self.set_remote_address(&client.into()) };
        Ok(())
    }

    /// Returns the connection's descriptor if it is TCP over IP. Excludes UNIX and UDP
    /// sockets, and streams of QUIC connections, which have the UDP socket's descriptor.
    fn tcp_socket(self) -> Result<BorrowedFd<'c>, Reason> {
        // SAFETY: the connection is open (`from_raw`), and this process has one
        // thread, so no other code writes to it.
        let connection = unsafe { self.raw.as_ref() };
        // SAFETY: an open connection's name is null or begins with its family.
        let name = unsafe { connection.sockaddr.as_ref() }.ok_or(Reason::NotTcp)?;
        let tcp = connection.type_ == SOCK_STREAM as i32
            && connection.quic.is_null()
            && [AF_INET, AF_INET6].contains(&u32::from(name.sa_family));
        if !tcp || connection.fd < 0 {
            return Err(Reason::NotTcp);
        }
        // SAFETY: the descriptor is not -1, and the connection is open for `'c`.
        Ok(unsafe { BorrowedFd::borrow_raw(connection.fd) })
    }

    /// Returns the kept answer. None if the kernel was not asked yet.
    fn remembered(self) -> Option<&'c Answer> {
        let pool = self.pool()?;
        // SAFETY: the pool is open, and nginx changes it only in its own functions.
        let pool = unsafe { pool.as_ref() };
        // SAFETY: the pool's list of cleanups is its own: each is null or a cleanup
        // that lives as long as the pool.
        let first = unsafe { pool.cleanup.as_ref() };
        let mut all = core::iter::successors(first, |cleanup: &&ngx_pool_cleanup_t| {
            // SAFETY: the same holds for each next cleanup.
            unsafe { cleanup.next.as_ref() }
        });
        let ours = all.find(|cleanup| is_forget(cleanup))?;
        // SAFETY: `remember` left a pointer to an answer there, which is static or in the
        // pool's memory. No code writes to the answer again.
        unsafe { ours.data.cast::<Answer>().as_ref() }
    }

    /// Keeps the answer in the connection's pool. If memory is short, the answer is lost.
    fn remember(self, answer: Answer) -> Result<&'c Peers, Reason> {
        let kept = match answer {
            Ok(_) => self.keep(answer).map_err(|_| Reason::Error)?,
            Err(reason) => without_client(reason),
        };
        let pool = self.pool().ok_or(Reason::Error)?;
        // SAFETY: the pool is open. A cleanup is null or new, and belongs to the pool.
        let cleanup = unsafe { ngx_pool_cleanup_add(pool.as_ptr(), 0).as_mut() };
        let cleanup = cleanup.ok_or(Reason::Error)?;
        cleanup.data = ptr::from_ref(kept).cast_mut().cast();
        cleanup.handler = Some(forget);
        kept.as_ref().map_err(|reason| *reason)
    }

    /// Moves a value into the connection's pool, which frees it without a drop.
    fn keep<T: 'c>(self, value: T) -> Result<&'c T, NoMemory> {
        let pool = self.pool().ok_or(NoMemory)?;
        // SAFETY: the pool is open. The memory is null or new, and aligned for any type.
        let place = unsafe { ngx_palloc(pool.as_ptr(), size_of::<T>()) };
        let place = NonNull::new(place.cast::<T>()).ok_or(NoMemory)?;
        // SAFETY: `place` has room for the value, and lives as long as the pool.
        unsafe {
            place.write(value);
            Ok(place.as_ref())
        }
    }

    /// Returns the connection's pool, which is open for `'c`.
    fn pool(self) -> Option<NonNull<ngx_pool_t>> {
        // SAFETY: the connection is open (`from_raw`).
        NonNull::new(unsafe { self.raw.as_ref().pool })
    }
}

/// The kernel's answer about a connection.
type Answer = Result<Peers, Reason>;

/// Returns the answer for a reason, which takes no memory of a connection.
fn without_client(reason: Reason) -> &'static Answer {
    match reason {
        Reason::NoOption => &Err(Reason::NoOption),
        Reason::NoModule => &Err(Reason::NoModule),
        Reason::OtherModule => &Err(Reason::OtherModule),
        Reason::Mptcp => &Err(Reason::Mptcp),
        Reason::NotTcp => &Err(Reason::NotTcp),
        Reason::Closed => &Err(Reason::Closed),
        Reason::Error => &Err(Reason::Error),
    }
}

/// nginx is out of memory.
#[derive(Debug)]
pub struct NoMemory;

/// The address of a connection's remote end in nginx's form.
#[derive(Clone, Copy)]
pub struct Address {
    name: *mut sockaddr,
    length: socklen_t,
    text: ngx_str_t,
}

impl Address {
    /// Whether the connection has this very address, not only an equal one.
    pub fn is_of(&self, connection: Connection<'_>) -> bool {
        ptr::eq(self.name, connection.remote_address().name)
    }
}

impl From<&Name> for Address {
    fn from(name: &Name) -> Self {
        let text = name.text();
        Self {
            name: name.as_ptr(),
            length: name.length(),
            text: ngx_str_t {
                data: text.as_ptr().cast_mut(),
                len: text.len(),
            },
        }
    }
}

/// Marks a cleanup as ours, and does nothing: an answer owns nothing.
unsafe extern "C" fn forget(_answer: *mut c_void) {}

fn is_forget(cleanup: &ngx_pool_cleanup_t) -> bool {
    let ours = forget as unsafe extern "C" fn(*mut c_void);
    cleanup
        .handler
        .is_some_and(|handler| ptr::fn_addr_eq(handler, ours))
}
