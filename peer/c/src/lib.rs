// SPDX-License-Identifier: MIT OR Apache-2.0

//! The C library `libtoa_peer`. cbindgen generates `toa_peer.h` from this file,
//! including the comments.
//!
//! All `unsafe` code of this crate is in this file.

#![allow(non_camel_case_types)]
// The comments become C documentation, and C has no unsafe functions.
#![allow(clippy::missing_safety_doc)]
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::panic::catch_unwind;
use std::panic::UnwindSafe;

use libc::c_int;
use peer::Origin;
use socket2::SockAddr;
use socket2::SockAddrStorage;

/// The origin of a client that getpeername returned. Without the module, that client
/// is the balancer if the connection came through one.
pub const TOA_PEER_GETPEERNAME: c_int = 0;

/// The origin of a client that the module read from the balancer's TCP option.
pub const TOA_PEER_TOA: c_int = 1;

/// The client of a connection, and the balancer that the connection came through.
///
/// Addresses are struct sockaddr_in (ss_family is AF_INET) or struct sockaddr_in6
/// (AF_INET6). Ports are in network order, as everywhere in C. IPv4-mapped addresses
/// become AF_INET, whatever the socket's family is.
///
/// The layout of this struct is fixed for each soname of the library.
#[repr(C)]
pub struct toa_peer {
    /// The client, as the origin reports it.
    pub client: SockAddrStorage,
    /// The balancer: the address and port that the connection's packets come from.
    /// AF_UNSPEC if the module has no client.
    pub balancer: SockAddrStorage,
    /// TOA_PEER_TOA or TOA_PEER_GETPEERNAME.
    pub origin: c_int,
}

/// Finds the client and the balancer of the socket fd. The function asks the module
/// first, and getpeername if the module is not loaded or has no client.
///
/// Returns 0 and leaves errno unchanged, or returns -1 with errno and leaves *peer unchanged:
///
/// - ENOTCONN: the socket was never connected, or the connection was reset or has
///   ended in both directions, which clients can cause at any time;
/// - EAFNOSUPPORT: the socket's family is neither AF_INET nor AF_INET6;
/// - EBADF, ENOTSOCK: fd is not open, or is not a socket;
/// - EFAULT: peer is NULL.
///
/// Other threads must not close fd during the call.
#[no_mangle]
pub unsafe extern "C" fn toa_peer_get(fd: c_int, peer: *mut toa_peer) -> c_int {
    // SAFETY: The caller passes null or room for the result, and no thread closes or
    // opens `fd` during the call.
    unsafe { tell(fd, peer, |fd| peer::peer(fd).map(toa_peer::from)) }
}

/// Stores the module's client of the socket fd in *client. Stores AF_UNSPEC if the
/// module is not loaded or has no client.
///
/// Returns 0, or -1 with errno as toa_peer_get does.
#[no_mangle]
pub unsafe extern "C" fn toa_peer_client_by_toa(fd: c_int, client: *mut SockAddrStorage) -> c_int {
    // SAFETY: The caller passes null or room for the result, and no thread closes or
    // opens `fd` during the call.
    unsafe { tell(fd, client, |fd| peer::client_by_toa(fd).map(storage)) }
}

/// Stores the balancer of the socket fd in *balancer. Stores AF_UNSPEC if the module
/// is not loaded or has no client.
///
/// Returns 0, or -1 with errno as toa_peer_get does.
#[no_mangle]
pub unsafe extern "C" fn toa_peer_balancer(fd: c_int, balancer: *mut SockAddrStorage) -> c_int {
    // SAFETY: The caller passes null or room for the result, and no thread closes or
    // opens `fd` during the call.
    unsafe { tell(fd, balancer, |fd| peer::balancer(fd).map(storage)) }
}

impl From<peer::Peer> for toa_peer {
    fn from(peer: peer::Peer) -> Self {
        Self::new(peer.client, peer.balancer, peer.origin)
    }
}

impl toa_peer {
    fn new(client: SocketAddr, balancer: Option<SocketAddr>, origin: Origin) -> Self {
        Self {
            client: storage(Some(client)),
            balancer: storage(balancer),
            origin: match origin {
                Origin::Toa => TOA_PEER_TOA,
                _ => TOA_PEER_GETPEERNAME,
            },
        }
    }
}

/// Converts an address for C; `None` becomes AF_UNSPEC and zeroes.
fn storage(address: Option<SocketAddr>) -> SockAddrStorage {
    address.map_or_else(SockAddrStorage::zeroed, |address| {
        SockAddr::from(address).as_storage()
    })
}

/// Calls `ask`, then stores its answer in `place`, or sets errno. A panic in `ask`
/// becomes an error.
///
/// # Safety
///
/// `place` is null or has room for a `T`. `fd` stays open, or stays closed, during
/// the call.
unsafe fn tell<T>(
    fd: c_int,
    place: *mut T,
    ask: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + UnwindSafe,
) -> c_int {
    let errno = io::Error::last_os_error().raw_os_error();
    if place.is_null() {
        return fail(libc::EFAULT);
    }
    if fd < 0 {
        return fail(libc::EBADF);
    }
    // SAFETY: `fd` is not -1. `ask` only makes system calls on it, which fail with
    // EBADF if `fd` is not open.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    match catch_unwind(|| ask(socket)) {
        Ok(Ok(answer)) => {
            // SAFETY: `place` is not null, so the caller guarantees room for a `T`.
            unsafe { place.write(answer) };
            // The module's refusal has set it, if getpeername answered.
            set_errno(errno.unwrap_or_default());
            0
        }
        Ok(Err(error)) => fail(number_of(&error)),
        Err(_panic) => fail(libc::ENOTRECOVERABLE),
    }
}

fn number_of(error: &io::Error) -> c_int {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => number,
        (None, ErrorKind::Unsupported) => libc::EAFNOSUPPORT,
        (None, _) => libc::EIO,
    }
}

fn fail(number: c_int) -> c_int {
    set_errno(number);
    -1
}

fn set_errno(number: c_int) {
    // SAFETY: The location is this thread's errno, which is always valid.
    unsafe { *libc::__errno_location() = number };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    fn errno() -> Option<c_int> {
        io::Error::last_os_error().raw_os_error()
    }

    #[test]
    fn panic_ends_at_the_border() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let mut place = 7;
        // SAFETY: `place` is a local variable, and the socket is open.
        let status = unsafe { tell(socket.as_raw_fd(), &mut place, |_| panic!("a test's")) };
        assert_eq!((status, errno()), (-1, Some(libc::ENOTRECOVERABLE)));
        assert_eq!(place, 7);
    }

    #[test]
    fn errors_without_a_number_have_one_for_c() {
        let of = |kind| number_of(&io::Error::from(kind));
        assert_eq!(of(ErrorKind::Unsupported), libc::EAFNOSUPPORT);
        assert_eq!(of(ErrorKind::Other), libc::EIO);
        let refused = io::Error::from_raw_os_error(libc::ENOTCONN);
        assert_eq!(number_of(&refused), libc::ENOTCONN);
    }

    #[test]
    fn client_and_balancer_are_laid_out_as_c_has_them() {
        let client = "[2001:db8:7::7]:4660".parse().expect("an address");
        let balancer = "10.0.1.6:40000".parse().ok();
        let peer = toa_peer::new(client, balancer, Origin::Toa);
        // SAFETY: All bytes are valid for a sockaddr_in6.
        let client: libc::sockaddr_in6 = unsafe { read_as(&peer.client) };
        assert_eq!(c_int::from(client.sin6_family), libc::AF_INET6);
        assert_eq!(client.sin6_port.to_ne_bytes(), [0x12, 0x34]);
        let octets = [0x20, 1, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(client.sin6_addr.s6_addr, octets);
        // SAFETY: All bytes are valid for a sockaddr_in.
        let balancer: libc::sockaddr_in = unsafe { read_as(&peer.balancer) };
        assert_eq!(c_int::from(balancer.sin_family), libc::AF_INET);
        assert_eq!(balancer.sin_port.to_ne_bytes(), 40000_u16.to_be_bytes());
        assert_eq!(balancer.sin_addr.s_addr.to_ne_bytes(), [10, 0, 1, 6]);
        assert_eq!(peer.origin, TOA_PEER_TOA);
    }

    #[test]
    fn no_balancer_is_af_unspec() {
        let client = "203.0.113.7:4660".parse().expect("an address");
        let peer = toa_peer::new(client, None, Origin::Getpeername);
        // SAFETY: All bytes are valid for a sockaddr_storage.
        let balancer: libc::sockaddr_storage = unsafe { read_as(&peer.balancer) };
        assert_eq!(c_int::from(balancer.ss_family), libc::AF_UNSPEC);
        assert_eq!(peer.origin, TOA_PEER_GETPEERNAME);
    }

    /// Reads the storage as a C struct.
    ///
    /// # Safety
    ///
    /// `T` is a `sockaddr_…`, for which all bytes are valid.
    unsafe fn read_as<T>(storage: &SockAddrStorage) -> T {
        assert!(size_of::<T>() <= size_of::<SockAddrStorage>());
        // SAFETY: `T` is no larger and no more strictly aligned than the storage, and all
        // bytes are valid for it.
        unsafe { std::ptr::from_ref(storage).cast::<T>().read() }
    }
}
