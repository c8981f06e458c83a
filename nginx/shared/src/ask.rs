// SPDX-License-Identifier: MIT OR Apache-2.0

//! Asks the kernel's `toa.ko`. Every error means that the module has no client.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;

/// Returns the client of a connection, if the balancer sent it.
pub(crate) fn client(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    toa_peer::client_by_toa(socket).ok().flatten()
}

/// Returns the balancer of a connection, if it sent the client.
pub(crate) fn balancer(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    toa_peer::balancer(socket).ok().flatten()
}

/// Whether the kernel has no `toa.ko`, which would return `ENOTCONN` for a new socket.
/// False if no socket can be opened.
pub(crate) fn is_missing() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, None)
        .is_ok_and(|socket| matches!(toa_peer::client_by_toa(&socket), Ok(None)))
}
