// SPDX-License-Identifier: GPL-2.0

//! One direction of a connection.

use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::net::SocketAddrV6;

/// Source and destination, always of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    V4 {
        from: SocketAddrV4,
        to: SocketAddrV4,
    },
    V6 {
        from: SocketAddrV6,
        to: SocketAddrV6,
    },
}

impl Flow {
    pub fn reversed(self) -> Self {
        match self {
            Self::V4 { from, to } => Self::V4 { from: to, to: from },
            Self::V6 { from, to } => Self::V6 { from: to, to: from },
        }
    }

    pub fn from(&self) -> SocketAddr {
        match self {
            Self::V4 { from, .. } => SocketAddr::V4(*from),
            Self::V6 { from, .. } => SocketAddr::V6(*from),
        }
    }

    pub fn to(&self) -> SocketAddr {
        match self {
            Self::V4 { to, .. } => SocketAddr::V4(*to),
            Self::V6 { to, .. } => SocketAddr::V6(*to),
        }
    }
}
