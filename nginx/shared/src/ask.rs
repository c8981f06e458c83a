// SPDX-License-Identifier: MIT OR Apache-2.0

//! Asks the kernel's `toa.ko`. Whatever goes wrong, nobody is known.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

/// The client of a connection, if the balancer told it.
pub(crate) fn client(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    toa_peer::client_by_toa(socket).ok().flatten()
}

/// The balancer of a connection, if it told the client.
pub(crate) fn balancer(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    toa_peer::balancer(socket).ok().flatten()
}

/// Whether there is no `toa.ko`: it would say of a fresh socket that it is not
/// connected. Without a socket it is not known, so false.
pub(crate) fn is_missing() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, None)
        .is_ok_and(|socket| matches!(toa_peer::client_by_toa(&socket), Ok(None)))
}
