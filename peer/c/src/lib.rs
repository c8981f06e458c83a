// SPDX-License-Identifier: MIT OR Apache-2.0

//! The C library `libtoa_peer`. cbindgen makes `toa_peer.h` of this file, with its
//! comments.
//!
//! All `unsafe` of this crate is here.

#![allow(non_camel_case_types)]
// The comments are for C, where everything is as unsafe.
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

/// The client is from getpeername. Without the module that is the balancer, if
/// there is one.
pub const TOA_PEER_GETPEERNAME: c_int = 0;

/// The client is from the balancer, by a TCP option that the module has read.
pub const TOA_PEER_TOA: c_int = 1;

/// Who is at the other end of a connection.
///
/// Addresses are struct sockaddr_in (ss_family is AF_INET) or struct sockaddr_in6
/// (AF_INET6), and ports are in network order, as everywhere in C. IPv4-mapped
/// addresses are told as AF_INET, whatever the socket's family is.
///
/// This struct stays as it is for as long as the library's soname does.
#[repr(C)]
pub struct toa_peer {
    /// The client, as far as the origin can say.
    pub client: SockAddrStorage,
    /// The balancer between them: the address and port that the connection really
    /// comes from. AF_UNSPEC if the module did not tell a client.
    pub balancer: SockAddrStorage,
    /// TOA_PEER_TOA or TOA_PEER_GETPEERNAME.
    pub origin: c_int,
}

/// Tells who is at the other end of the socket fd. The module is asked first; where
/// it does not know a client, or is not loaded, getpeername is.
///
/// Returns 0; or -1 with errno, and leaves *peer as it was:
///
/// - ENOTCONN: the socket was never connected, or the connection has ended in both
///   directions, or was reset, which clients can bring about at any time;
/// - EAFNOSUPPORT: the socket is of another family than AF_INET and AF_INET6;
/// - EBADF, ENOTSOCK: fd is not open, or no socket;
/// - EFAULT: peer is NULL.
///
/// No other thread may close fd meanwhile.
#[no_mangle]
pub unsafe extern "C" fn toa_peer_get(fd: c_int, peer: *mut toa_peer) -> c_int {
    // SAFETY: As the caller promises.
    unsafe { tell(fd, peer, |fd| peer::peer(fd).map(toa_peer::from)) }
}

/// Tells the client of the socket fd, if the module knows one; AF_UNSPEC if not, or
/// if it is not loaded.
///
/// Returns 0, or -1 with errno as toa_peer_get does.
#[no_mangle]
pub unsafe extern "C" fn toa_peer_client_by_toa(fd: c_int, client: *mut SockAddrStorage) -> c_int {
    // SAFETY: As the caller promises.
    unsafe { tell(fd, client, |fd| peer::client_by_toa(fd).map(storage)) }
}

/// Tells the balancer between the socket fd and its client, if the module knows the
/// client; AF_UNSPEC if not, or if it is not loaded.
///
/// Returns 0, or -1 with errno as toa_peer_get does.
#[no_mangle]
pub unsafe extern "C" fn toa_peer_balancer(fd: c_int, balancer: *mut SockAddrStorage) -> c_int {
    // SAFETY: As the caller promises.
    unsafe { tell(fd, balancer, |fd| peer::balancer(fd).map(storage)) }
}

impl From<peer::Peer> for toa_peer {
    fn from(peer: peer::Peer) -> Self {
        Self {
            client: storage(Some(peer.client)),
            balancer: storage(peer.balancer),
            origin: match peer.origin {
                Origin::Toa => TOA_PEER_TOA,
                Origin::Getpeername => TOA_PEER_GETPEERNAME,
            },
        }
    }
}

/// AF_UNSPEC and zeroes for none.
fn storage(address: Option<SocketAddr>) -> SockAddrStorage {
    address.map_or_else(SockAddrStorage::zeroed, |address| {
        SockAddr::from(address).as_storage()
    })
}

/// Asks, and writes the answer to `place`; or sets errno. Panics end here.
///
/// # Safety
///
/// `place` is null, or there is room for a `T`. `fd` stays open, or closed.
unsafe fn tell<T>(
    fd: c_int,
    place: *mut T,
    ask: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + UnwindSafe,
) -> c_int {
    if place.is_null() {
        return fail(libc::EFAULT);
    }
    if fd < 0 {
        return fail(libc::EBADF);
    }
    // SAFETY: It is not -1. If it is not open, the kernel says so to all that is
    // done with it, which is to ask.
    let socket = unsafe { BorrowedFd::borrow_raw(fd) };
    match catch_unwind(|| ask(socket)) {
        Ok(Ok(answer)) => {
            // SAFETY: It is not null, so there is room, as the caller promises.
            unsafe { place.write(answer) };
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
    // SAFETY: It is this thread's own.
    unsafe { *libc::__errno_location() = number };
    -1
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
        // SAFETY: There is a place, and the socket is open.
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
        let peer = toa_peer::from(peer::Peer {
            client: "[2001:db8:7::7]:4660".parse().expect("an address"),
            balancer: "10.0.1.6:40000".parse().ok(),
            origin: Origin::Toa,
        });
        // SAFETY: A sockaddr_in6 is in it, and any bytes make one.
        let client: libc::sockaddr_in6 = unsafe { read_as(&peer.client) };
        assert_eq!(c_int::from(client.sin6_family), libc::AF_INET6);
        assert_eq!(client.sin6_port.to_ne_bytes(), [0x12, 0x34]);
        let octets = [0x20, 1, 0x0d, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(client.sin6_addr.s6_addr, octets);
        // SAFETY: The same of a sockaddr_in.
        let balancer: libc::sockaddr_in = unsafe { read_as(&peer.balancer) };
        assert_eq!(c_int::from(balancer.sin_family), libc::AF_INET);
        assert_eq!(balancer.sin_port.to_ne_bytes(), 40000_u16.to_be_bytes());
        assert_eq!(balancer.sin_addr.s_addr.to_ne_bytes(), [10, 0, 1, 6]);
        assert_eq!(peer.origin, TOA_PEER_TOA);
    }

    #[test]
    fn no_balancer_is_af_unspec() {
        let peer = toa_peer::from(peer::Peer {
            client: "203.0.113.7:4660".parse().expect("an address"),
            balancer: None,
            origin: Origin::Getpeername,
        });
        // SAFETY: Any bytes make a sockaddr_storage.
        let balancer: libc::sockaddr_storage = unsafe { read_as(&peer.balancer) };
        assert_eq!(c_int::from(balancer.ss_family), libc::AF_UNSPEC);
        assert_eq!(peer.origin, TOA_PEER_GETPEERNAME);
    }

    /// # Safety
    ///
    /// `T` is a `sockaddr_…`, and any bytes make one.
    unsafe fn read_as<T>(storage: &SockAddrStorage) -> T {
        assert!(size_of::<T>() <= size_of::<SockAddrStorage>());
        // SAFETY: It is no larger, no more strictly aligned, and any bytes make one.
        unsafe { std::ptr::from_ref(storage).cast::<T>().read() }
    }
}
