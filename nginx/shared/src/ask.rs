// SPDX-License-Identifier: MIT OR Apache-2.0

//! Asks the kernel's `toa.ko`.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use socket2::Domain;
use socket2::Socket;
use socket2::Type;
use toa_peer::NoClient;

use crate::reason::Reason;

/// Returns the client of a connection, or the reason why the kernel has none.
pub(crate) fn client(socket: BorrowedFd<'_>) -> Result<SocketAddr, Reason> {
    toa_peer::client_or_reason(socket)
        .map_err(|error| Reason::of_error(&error))?
        .map_err(Reason::of)
}

/// Returns the balancer of a connection, if it sent the client.
pub(crate) fn balancer(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    toa_peer::balancer(socket).ok().flatten()
}

/// Whether the kernel has no `toa.ko`, which would return `ENOTCONN` for a new socket.
/// False if no socket can be opened.
pub(crate) fn is_missing() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, None).is_ok_and(|socket| {
        matches!(
            toa_peer::client_or_reason(&socket),
            Ok(Err(NoClient::NoModule))
        )
    })
}
