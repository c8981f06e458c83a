// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reason why a connection has no client: the values of `$toa_status`.

use std::io;
use std::io::ErrorKind;

use toa_peer::NoClient;

/// The reason why the kernel has no client for a connection of nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The connection came without an option that `toa.ko` accepts.
    NoOption,
    /// The kernel has no `toa.ko`.
    NoModule,
    /// The module is DPVS's, which leaves this client to `getpeername`.
    OtherModule,
    /// The connection is true MPTCP.
    Mptcp,
    /// The connection is no TCP connection over IP.
    NotTcp,
    /// The connection ended before nginx asked.
    Closed,
    /// The kernel returned another error, or nginx is out of memory.
    Error,
}

impl Reason {
    pub(crate) fn of(no_client: NoClient) -> Self {
        match no_client {
            NoClient::NoOption => Self::NoOption,
            NoClient::NoModule => Self::NoModule,
            NoClient::OtherModule => Self::OtherModule,
            // The crate asks for sockets of IP only.
            NoClient::Unsupported => Self::Mptcp,
            _ => Self::Error,
        }
    }

    pub(crate) fn of_error(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotConnected => Self::Closed,
            _ => Self::Error,
        }
    }

    /// Returns the value of `$toa_status`.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NoOption => "no_option",
            Self::NoModule => "no_module",
            Self::OtherModule => "other_module",
            Self::Mptcp => "mptcp",
            Self::NotTcp => "not_tcp",
            Self::Closed => "closed",
            Self::Error => "error",
        }
    }
}
